"""Bad recordings, params, files and disks: what the user is told, and that nothing is lost.

Stages and the command line run in this process, on a small project of own recordings. Each message
is printed; `pytest -s` shows them all.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import yaml

import disks
import project
from sonolens import cli, stages, track
from sonolens.data.audio import clipped_share, write_wav
from sonolens.explain.shards import Shards
from sonolens.models import checkpoint
from sonolens.pipeline import load_pipeline
from sonolens.store import ArrayStore, StoreError, read_parquet, write_store

ROOT = Path(__file__).resolve().parents[1]
FROZEN = ROOT / "tests/resources/digits_frozen.safetensors"
RECORDINGS = "data/raw/mine/recordings"
LABELS, PERSONS, N_TAKES = ("ja", "nein"), ("anna", "bert", "cleo"), 3


@pytest.fixture
def root(tmp_path, monkeypatch, tone) -> Path:
    """A project whose source are own recordings, 2 labels x 3 persons x 3 takes of 0.1 s."""
    root = tmp_path / "mein Projekt Ü"
    root.mkdir()
    (root / "src").symlink_to(ROOT / "src", target_is_directory=True)
    shutil.copy(ROOT / "dvc.yaml", root)
    params = project.read_yaml(ROOT / "params.yaml")
    changes = {
        "runtime": {"engine": "serial", "device": "cpu", "tracking": {"enabled": False}},
        "digits": {
            "source": "mine",
            "prepare": {"n_folds": 3},
            "features": {"sizes": {"audio": [16]}},
        },
    }
    (root / "params.yaml").write_text(yaml.safe_dump(project.merge(params, changes)))
    (root / ".dvc").mkdir()
    for index, path in enumerate(recordings_of(root)):
        write_wav(path, tone(200 + 20 * index, 0.1), 8000)
    monkeypatch.chdir(root)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for name in ("MLFLOW_TRACKING_URI", "SONOLENS_TRACKING", "DVC_STAGE"):
        monkeypatch.delenv(name, raising=False)
    return root


def recordings_of(root: Path) -> list[Path]:
    return [
        root / RECORDINGS / label / person / f"{take}.wav"
        for label in LABELS
        for person in PERSONS
        for take in range(N_TAKES)
    ]


def set_params(root: Path, **sections: dict) -> None:
    """Change sections of `digits`."""
    path = root / "params.yaml"
    path.write_text(yaml.safe_dump(project.merge(project.read_yaml(path), {"digits": sections})))


def prepare(capsys, status: int = 1, within: AbstractContextManager[object] | None = None) -> str:
    """What `python src/stage.py digits prepare` tells the user; only it runs `within`."""
    with within or nullcontext():
        assert stages.main(["digits", "prepare"]) == status
    said = capsys.readouterr().err
    with capsys.disabled():
        print(f"\n{said}", end="")
    return said


def sonolens(monkeypatch, capsys, *arguments: str) -> tuple[int, str]:
    """Exit status and output of the command line, through its real entry."""
    monkeypatch.setattr(sys, "argv", ["sonolens", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    said = capsys.readouterr()
    with capsys.disabled():
        print(f"\n$ sonolens {' '.join(arguments)}\n{said.out}{said.err}", end="")
    return int(caught.value.code or 0), said.out + said.err


def made(root: Path) -> dict[str, bytes]:
    """Everything below the places of outputs."""
    places = (root / "data/digits", root / "models", root / "metrics", root / "plots")
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for place in places
        for path in place.rglob("*")
        if path.is_file()
    }


def left_over(root: Path) -> list[str]:
    """Unfinished files that somebody should have removed."""
    staging = (root / ".dvc/tmp/sonolens/staging").glob("*")
    parts = (path for path in root.rglob(".*") if path.suffix in (".part", ".new", ".old"))
    return [str(path) for path in (*staging, *parts)]


# --- Recordings -----------------------------------------------------------------------------------


def first(root: Path) -> Path:
    return recordings_of(root)[0]


def truncate(root: Path) -> None:
    path = first(root)
    path.write_bytes(path.read_bytes()[:-100])


def not_a_number(root: Path) -> None:
    samples = np.full(800, 0.25, np.float32)
    samples[3:5] = np.nan
    soundfile.write(first(root), samples, 8000, subtype="FLOAT")


def remove_all(root: Path) -> None:
    shutil.rmtree(root / RECORDINGS)
    (root / RECORDINGS).mkdir()


def flatten(root: Path) -> None:
    for number, path in enumerate(recordings_of(root)):
        path.rename(root / RECORDINGS / f"{number}.wav")


def keep_one(root: Path, level: int, name: str) -> None:
    for path in recordings_of(root):
        if path.relative_to(root / RECORDINGS).parts[level] != name:
            path.unlink()


def one_example(root: Path) -> None:
    for path in recordings_of(root):
        if path.parts[-3] == "nein" and path != recordings_of(root)[-1]:
            path.unlink()


def one_person_says_no(root: Path) -> None:
    for path in recordings_of(root):
        if path.parts[-3] == "nein" and path.parts[-2] != "anna":
            path.unlink()


def table(root: Path, text: str) -> None:
    (root / RECORDINGS / "recordings.csv").write_text(text, encoding="utf-8")


def spoil_all(root: Path) -> None:
    set_params(root, prepare={"on_bad_file": "skip"})
    for path in recordings_of(root):
        path.write_bytes(b"")


def swap_case(root: Path) -> None:
    (root / RECORDINGS / "nein/anna").rename(root / RECORDINGS / "nein/Anna")


BAD_RECORDINGS: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "empty file": (
        lambda root: first(root).write_bytes(b""),
        ["1 of 18 recordings", "on_bad_file: skip", "ja/anna/0.wav: empty file, 0 bytes"],
    ),
    "truncated": (truncate, ["ja/anna/0.wav: truncated: 100 bytes of sound are missing"]),
    "no audio": (
        lambda root: first(root).write_text("a letter"),
        ["ja/anna/0.wav: not audio, or damaged"],
    ),
    "not a number": (not_a_number, ["ja/anna/0.wav: not finite: 2 of 800 samples are NaN"]),
    "silent": (
        lambda root: write_wav(first(root), np.zeros(800), 8000),
        ["ja/anna/0.wav: silent: every sample is zero"],
    ),
    "too short": (
        lambda root: write_wav(first(root), np.full(80, 0.5), 8000),
        ["ja/anna/0.wav: too short: 0.0100 s, need 0.05 s"],
    ),
    "all bad though skipped": (
        spoil_all, ["18 of 18 recordings are unusable; none is left to work with"],
    ),
    "empty folder": (remove_all, ["no audio files", ".wav", "`sonolens data add mine PATH`"]),
    "flat layout": (
        flatten, ["18 of 18 audio files do not lie in <label>/<person>/, e.g. 0.wav", "move them"],
    ),
    "one label": (
        lambda root: keep_one(root, 0, "ja"),
        ["all 9 recordings have the label 'ja'", "need two labels"],
    ),
    "one person": (
        lambda root: keep_one(root, 1, "bert"),
        ["1 person(s) (bert), need 3", "val_unit: person", "add recordings of other persons"],
    ),
    "a class of one person": (
        one_person_says_no, ["class nein is in no training item", "by more persons"],
    ),
    "one example of a class": (
        one_example, ["class nein has 1 example(s), need 3", "add recordings or drop the class"],
    ),
    "a person under two names": (
        swap_case, ["the persons 'anna' and 'Anna' differ in letter case", "give them one name"],
    ),
    "table without persons": (
        lambda root: table(root, "path,label\nja/anna/0.wav,ja\n"),
        ["recordings.csv: lacks person; it has path, label"],
    ),
    "table with an absent file": (
        lambda root: table(root, "path,label,person\na.wav,ja,anna\nja/anna/0.wav,nein,bert\n"),
        ["1 of 2 recordings are unusable", "a.wav: missing"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_RECORDINGS)
def test_bad_recordings_are_named_with_what_was_found_and_what_to_do(root, capsys, case):
    assert stages.main(["digits", "prepare"]) == 0
    before = made(root)
    capsys.readouterr()
    spoil, words = BAD_RECORDINGS[case]
    spoil(root)
    said = prepare(capsys)
    assert said.startswith("digits-prepare: ")
    assert all(word in said for word in words), said
    assert made(root) == before
    assert left_over(root) == []


def test_skipped_files_are_counted_in_metrics_and_named_in_the_manifest(
    root, capsys, caplog, monkeypatch
):
    set_params(root, prepare={"on_bad_file": "skip"})
    bad = recordings_of(root)[::N_TAKES]
    bad[0].write_bytes(b"")
    bad[1].write_bytes(b"")
    bad[2].write_text("a letter")
    prepare(capsys, status=0)
    metrics = json.loads((root / "metrics/digits/prepare.json").read_text())
    assert metrics["n_skipped"] == 3
    assert metrics["skipped"] == {"empty file, 0 bytes": 2, "not audio, or damaged": 1}
    assert "anna" not in (root / "metrics/digits/prepare.json").read_text()
    manifest = read_parquet(root / "data/digits/prepare/manifest.parquet")
    left_out = manifest[~manifest["kept"]]
    assert list(left_out["path"]) == [f"ja/{person}/0.wav" for person in PERSONS]
    status, said = sonolens(monkeypatch, capsys, "data", "skipped", "digits")
    assert status == 0
    assert "ja/bert/0.wav: empty file, 0 bytes" in said
    assert "3 of 18 recordings left out" in said
    assert "  ja/bert/0.wav: empty file, 0 bytes" in caplog.messages  # the stage has told it too


def test_a_label_whose_recordings_are_all_skipped_leaves_no_gap(root, capsys, caplog, tone):
    for index, path in enumerate(recordings_of(root)[: len(PERSONS) * N_TAKES]):
        new = root / RECORDINGS / "vielleicht" / path.relative_to(root / RECORDINGS / "ja")
        write_wav(new, tone(900 + 20 * index, 0.1), 8000)
    for path in (root / RECORDINGS / "nein").rglob("*.wav"):
        path.write_bytes(b"")
    set_params(root, prepare={"on_bad_file": "skip"})
    prepare(capsys, status=0)
    manifest = read_parquet(root / "data/digits/prepare/manifest.parquet")
    indices = dict(zip(manifest["label"], manifest["class_index"], strict=True))
    assert indices == {"ja": 0, "nein": -1, "vielleicht": 1}
    metrics = json.loads((root / "metrics/digits/prepare.json").read_text())
    assert metrics["warnings"] == ["no usable recording, so no class, of the label(s) nein"]
    assert metrics["warnings"][0] in caplog.messages


def test_other_rates_channels_and_formats_are_converted_and_counted(root, capsys, caplog, tone):
    paths = recordings_of(root)
    stereo = np.stack([tone(300, 0.1), tone(400, 0.1)], axis=1)
    soundfile.write(paths[0], stereo, 8000)
    write_wav(paths[1], tone(310, 0.1, 44100), 44100)
    soundfile.write(paths[2], tone(320, 0.1), 8000, subtype="PCM_U8")
    write_wav(paths[3], np.clip(9 * tone(330, 0.1), -1, 1), 8000)
    prepare(capsys, status=0)
    rows = read_parquet(root / "data/digits/prepare/manifest.parquet").set_index("path")
    row = rows.loc["ja/anna/1.wav"]
    assert (row["sample_rate"], row["sample_rate_native"]) == (8000, 44100)
    assert row["duration_s"] == pytest.approx(0.1, abs=0.001)
    assert rows.loc["ja/anna/0.wav", "n_channels_native"] == 2
    assert rows.loc["ja/anna/2.wav", "subtype_native"] == "PCM_U8"
    assert rows.loc["ja/bert/0.wav", "clipped_share"] > 0.5
    assert (rows.drop("ja/bert/0.wav")["clipped_share"] == 0).all()
    assert rows["kept"].all()
    metrics = json.loads((root / "metrics/digits/prepare.json").read_text())
    assert metrics["n_by_sample_rate_native"] == {"8000": 17, "44100": 1}
    assert metrics["n_by_channels_native"] == {"1": 17, "2": 1}
    assert metrics["n_by_subtype_native"] == {"PCM_16": 17, "PCM_U8": 1}
    assert metrics["n_clipped"] == 1
    assert any("1 of 18 recordings are clipped, ja/bert/0.wav" in text for text in caplog.messages)


def test_the_same_recording_under_two_persons_is_a_warning(root, capsys):
    shutil.copy(recordings_of(root)[0], recordings_of(root)[3])
    prepare(capsys, status=0)
    metrics = json.loads((root / "metrics/digits/prepare.json").read_text())
    assert metrics["n_duplicate_across_persons"] == 1
    assert metrics["warnings"] == [
        "1 recording(s) lie under two persons, byte for byte: no split keeps them apart"
    ]


@pytest.mark.parametrize(
    ("samples", "share"),
    [
        ([0.5] * 10, 0.0),  # flat, but not at full scale
        ([0, 1, 1, 0, 1, 1, 0, -1, -1, 0], 0.0),  # peaks of two samples
        ([0, 1, 1, 1, 0, -1, -1, -1, -1, 0], 0.7),
        ([1, 1, 1, 0.992, 0.992, 0.992, 0, 0, 0, 0], 0.6),
        ([1, 1], 0.0),
        ([1], 0.0),
    ],
)
def test_clipped_samples_are_flat_and_at_full_scale(samples, share):
    mono = np.array(samples, np.float32)[:, None]
    assert clipped_share(mono) == pytest.approx(share)
    assert clipped_share(np.hstack([0 * mono, mono])) == pytest.approx(share)


# --- Own files on the command line ----------------------------------------------------------------


def explain(monkeypatch, capsys, *arguments: str | Path) -> tuple[int, str]:
    return sonolens(monkeypatch, capsys, "digits", "explain", *map(str, arguments))


def test_bad_files_are_listed_and_the_others_explained(root, capsys, monkeypatch, tone):
    folder = root / "meine Wörter"
    write_wav(folder / "gut.wav", tone(300, 0.3), 8000)
    soundfile.write(folder / "stereo 8 bit.wav", np.stack([tone(300, 0.3, 44100)] * 2, axis=1),
                    44100, subtype="PCM_U8")  # fmt: skip
    for index, spoil in enumerate((truncate, not_a_number)):
        spoil(root)
        first(root).rename(folder / f"bad {index}.wav")
        write_wav(first(root), tone(), 8000)
    write_wav(folder / "silent.wav", np.zeros(800), 8000)
    write_wav(folder / "übersteuert.wav", np.clip(9 * tone(300, 0.3), -1, 1), 8000)
    (folder / "empty.wav").write_bytes(b"")
    (folder / "letter.wav").write_text("a letter")
    (root / "leer").mkdir()
    status, said = explain(
        monkeypatch, capsys, folder, root / "leer", root / "absent.wav", "--checkpoint", FROZEN
    )
    assert status == 1
    for words in (
        "bad 0.wav: truncated", "bad 1.wav: not finite", "silent.wav: silent",
        "empty.wav: empty file", "letter.wav: not audio", "leer: no audio file in this folder",
        "absent.wav: no such file", "3 files explained",
    ):  # fmt: skip
        assert words in said
    explained = pd.read_csv(root / "explanations/explanations.csv")
    clipped = explained.set_index(explained["file"].map(os.path.basename))["clipped_share"]
    assert set(clipped.index) == {"gut.wav", "stereo 8 bit.wav", "übersteuert.wav"}
    assert clipped["gut.wav"] == 0
    assert clipped["übersteuert.wav"] > 0.5
    assert left_over(root) == []


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-50])


def flip(path: Path, place: float = 0.5) -> None:
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 0xFF
    path.write_bytes(bytes(content))


@pytest.fixture
def model_file(tmp_path) -> Path:
    """The frozen checkpoint as it would be saved today."""
    model, description = checkpoint.load(FROZEN)
    path = tmp_path / "model.safetensors"
    checkpoint.save(path, model.state_dict(), description)
    assert checkpoint.load(path)[1] == description
    return path


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (cut, "not a readable checkpoint"),
        (flip, "damaged, its weights are not those that were saved"),
        (lambda path: flip(path, 0), "not a readable checkpoint"),
        (lambda path: path.write_bytes(b""), "not a readable checkpoint"),
        (lambda path: path.unlink(), "not found"),
        (lambda path: checkpoint.save(path, {}, {"architecture": "resnet19", "options": {}}),
         "'resnet19', need one of"),
        (lambda path: checkpoint.save(path, {}, {}), "builds no model"),
    ],
    ids=["cut", "flipped", "header", "empty", "absent", "unknown", "foreign"],
)  # fmt: skip
def test_damaged_checkpoints_are_named(root, capsys, monkeypatch, model_file, spoil, words):
    spoil(model_file)
    status, said = explain(monkeypatch, capsys, RECORDINGS, "--checkpoint", model_file)
    assert status == 1
    assert said.startswith(f"sonolens: {model_file}: ")
    assert words in said
    assert "`dvc checkout --force`" in said


def test_every_flipped_byte_of_a_checkpoint_is_found(model_file, generator):
    content = model_file.read_bytes()
    model, description = checkpoint.load(model_file)
    for place in generator.integers(0, len(content), 60):
        spoilt = bytearray(content)
        spoilt[place] ^= 1 << int(generator.integers(8))
        model_file.write_bytes(bytes(spoilt))
        try:
            loaded, found = checkpoint.load(model_file)
        except StoreError:
            continue
        # In the text of the description a letter may change unseen; never in a weight.
        assert found != description
        for name, tensor in loaded.state_dict().items():
            assert (tensor == model.state_dict()[name]).all()


def test_without_a_checkpoint_the_command_that_makes_one_is_given(root, capsys, monkeypatch):
    status, said = explain(monkeypatch, capsys, RECORDINGS)
    assert status == 1
    assert "run `dvc repro digits-train`, or give --checkpoint" in said


def test_an_output_folder_that_is_a_file_is_named(root, capsys, monkeypatch):
    (root / "taken").write_text("a file")
    status, said = explain(
        monkeypatch, capsys, RECORDINGS, "--checkpoint", FROZEN, "--output-dir", "taken"
    )
    assert status == 1
    assert "sonolens: taken: a file is in the way of a folder of this name; move it" in said


def test_maps_for_a_read_only_folder_are_refused_in_one_line(root, capsys, monkeypatch, tmp_path):
    with disks.read_only(tmp_path / "locked") as folder:
        status, said = explain(
            monkeypatch, capsys, RECORDINGS, "--checkpoint", FROZEN, "--output-dir", folder
        )
    assert status == 1
    assert "the disk is read-only" in said or "permission denied" in said
    assert f"sonolens: {folder}" in said
    assert ".part" not in said


# --- Params ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("n_fft:", "nfft:", ["digits.features.nfft: unknown key; did you mean n_fft?"]),
        ("n_folds: 3", "n_folds: 1", ["digits.prepare.n_folds: found 1; ", "or equal to 2"]),
        ("n_folds: 3", "n_folds: three", ["digits.prepare.n_folds: found 'three'"]),
        ("n_folds: 3", "n_folds: true", ["digits.prepare.n_folds: found True; need a number"]),
        (
            "n_folds: 3",
            "n_folds: 3\n    n_folds: 4",
            ["params.yaml: not valid YAML: line ", ": key n_folds is there twice"],
        ),
        ("on_bad_file: stop", "on_bad_file: ignore", ["on_bad_file: found 'ignore'", "'skip'"]),
        ("f_max: 4000.0", "f_max: .inf", ["digits.features.f_max: found inf", "finite number"]),
        ("f_max: 4000.0", "f_max: 5000.0", ["features.f_max 5000.0 Hz lies above half", "lower"]),
        ("source: mine", "source: yours", ["missing input data/raw/yours", "`sonolens data list`"]),
    ],
)
def test_wrong_params_are_named_before_anything_is_done(root, capsys, old, new, words):
    path = root / "params.yaml"
    assert path.read_text().count(old) == 1
    path.write_text(path.read_text().replace(old, new))
    said = prepare(capsys)
    assert all(word in said for word in words), said
    assert made(root) == {}


def test_params_can_be_checked_without_a_run(root, capsys, monkeypatch):
    assert sonolens(monkeypatch, capsys, "params", "check")[0] == 0
    set_params(root, zzz=1)
    status, said = sonolens(monkeypatch, capsys, "params", "check")
    assert (status, said) == (1, "sonolens: params.yaml: digits.zzz: unknown key; remove it\n")
    path = root / "params.yaml"
    path.write_text(path.read_text().replace("  zzz: 1\n", ""))
    set_params(root, source="yours")
    status, said = sonolens(monkeypatch, capsys, "params", "check")
    assert status == 1
    assert "digits.source: found 'yours', need one of" in said
    assert "mine" in said


# --- Stored files ---------------------------------------------------------------------------------


def other_length(folder: Path) -> None:
    with write_store(folder.parent / "other", {}) as writer:
        writer.append(np.zeros((2, 3)), [{"item_id": "a"}, {"item_id": "b"}])
    shutil.copy(folder.parent / "other" / "index.parquet", folder)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: cut(folder / "values.npy"), r"values\.npy: damaged or missing"),
        (other_length, r"values\.npy: shape \(3, 3\), index\.parquet needs 2 rows"),
        (lambda folder: (folder / "axes.json").unlink(), r"axes\.json: not found"),
        (lambda folder: flip(folder / "index.parquet"), r"index\.parquet: damaged"),
        (lambda folder: cut(folder / "index.parquet"), r"index\.parquet: damaged"),
    ],
    ids=["cut", "other index", "no axes", "flipped index", "cut index"],
)
def test_damaged_stores_are_named_with_the_cure(tmp_path, capsys, spoil, words):
    with write_store(tmp_path / "store", {}) as writer:
        writer.append(np.zeros((3, 3)), [{"item_id": name} for name in "abc"])
    spoil(tmp_path / "store")
    with pytest.raises(StoreError, match=words) as caught:
        ArrayStore(tmp_path / "store")
    with capsys.disabled():
        print(f"\n{caught.value}")
    assert "`dvc checkout --force` brings the stored one back" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_inputs_that_are_not_what_dvc_recorded_are_refused(root, capsys, monkeypatch):
    """DVC copies a damaged object of its cache to the workspace and calls it up to date."""
    prepare(capsys, status=0)
    (root / "data/raw/sklearn_digits").mkdir(parents=True)
    assert stages.main(["digits", "prepare_image"]) == 0
    audio = "data/digits/prepare/audio"
    entry = {"path": audio, "md5": stages.keys.dvc_digest(root / audio)}
    (root / "dvc.lock").write_text(
        yaml.safe_dump({"stages": {"digits-prepare": {"outs": [entry]}}})
    )
    monkeypatch.setenv("DVC_STAGE", "digits-features")
    assert stages.main(["digits", "features"]) == 0
    flip(root / audio / "values.npy", 0.9)
    assert stages.main(["digits", "features"]) == 1
    said = capsys.readouterr().err
    with capsys.disabled():
        print(f"\n{said}")
    assert said.startswith(f"digits-features: {audio}: found content with MD5 ")
    assert f"digits-prepare made {entry['md5']}" in said
    assert "`sonolens data verify`" in said
    monkeypatch.delenv("DVC_STAGE")  # who runs a stage by hand knows what changed
    assert stages.main(["digits", "features"]) == 0


# --- Disks ----------------------------------------------------------------------------------------


def test_a_full_disk_stops_a_stage_in_one_line_and_loses_nothing(root, capsys):
    prepare(capsys, status=0)
    before = made(root)
    with disks.small(root / ".dvc/tmp/sonolens/staging", "16k"):
        said = prepare(capsys)
        assert left_over(root) == []
    assert "audio/values.npy: no room left on this disk (" in said
    assert "make room, then run the same command again" in said
    assert said.count("\n") == 1
    assert made(root) == before
    prepare(capsys, status=0)


def test_a_limit_on_files_stops_a_stage_in_one_line_and_loses_nothing(root, capsys):
    prepare(capsys, status=0)
    before = made(root)
    said = prepare(capsys, within=disks.file_limit(4096))
    assert "audio/values.npy: larger than a file may be here" in said
    assert made(root) == before
    assert left_over(root) == []


def test_a_read_only_place_of_outputs_is_named(root, capsys):
    prepare(capsys, status=0)
    before = made(root)
    with disks.read_only(root / "metrics/digits"):
        said = prepare(capsys)
    assert f"digits-prepare: {root}/metrics/digits/prepare.json: " in said
    assert "the disk is read-only" in said or "permission denied" in said
    assert made(root) == before
    assert left_over(root) == []


def test_a_full_disk_for_shards_names_the_shard_and_leaves_none_half_written(tmp_path):
    arrays = {"map": np.zeros((64, 64))}
    with disks.small(tmp_path / "shards", "16k") as folder:
        shards = Shards(folder)
        with pytest.raises(OSError, match="No space left") as caught:
            shards.write("a" * 64, arrays)
        assert caught.value.filename == str(folder / "aa" / f"{'a' * 64}.npz")
        assert not [path for path in folder.rglob("*") if path.is_file()]
        assert shards.read("a" * 64) is None


def test_a_sound_on_a_full_disk_is_not_half_written(tmp_path, tone):
    with disks.small(tmp_path / "sounds", "8k") as folder:
        with pytest.raises(OSError, match="No space left"):
            write_wav(folder / "a.wav", tone(300, 1.0), 8000)
        assert list(folder.iterdir()) == []


def test_a_full_disk_of_the_tracker_costs_the_record_not_the_run(root, monkeypatch, tmp_path):
    params = project.read_yaml(root / "params.yaml")
    params["runtime"]["tracking"]["enabled"] = True
    spec = load_pipeline(root)["digits-train"]
    with disks.small(tmp_path / "tracker", "64k") as folder:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        for size in ("64k", "16m"):  # no room for the tables; room until the disk is filled
            disks.remount(folder, f"size={size}")
            with (  # noqa: PT031
                pytest.warns(RuntimeWarning, match=r"the run goes on with\s+files only"),
                track.open_record(root, spec, params, study="digits", stage="train") as record,
            ):
                if size == "16m":
                    fill(folder)
                record.metrics({"val_loss": 0.5}, step=0)


def fill(folder: Path) -> None:
    with (folder / "junk").open("wb", buffering=0) as stream:
        for size in (2**20, 2**12, 1):
            try:
                while True:
                    stream.write(os.urandom(size))
            except OSError:
                continue
