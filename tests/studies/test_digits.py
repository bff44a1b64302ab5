"""The study's promises on a small frozen checkpoint.

What a trained net must show, without training one.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from sonolens import rng
from sonolens.data.audio import write_wav
from sonolens.data.synth import formant_words as synth
from sonolens.dsp.regions import mask_from_tracks
from sonolens.dsp.spectrogram import LogMel
from sonolens.explain import baselines, registry, targets
from sonolens.explain.contract import CellKey, seed_array
from sonolens.intervene.versions import KINDS
from sonolens.models import checkpoint
from sonolens.studies.digits import commands
from sonolens.studies.digits.datasets import parse_key, permuted

FROZEN = Path(__file__).parents[1] / "resources/digits_frozen.safetensors"
N_SPEAKERS = 6


@pytest.fixture(scope="module")
def frozen():
    """Model, front end, and 60 clips of speakers it has never heard, with their truth masks."""
    model, description = checkpoint.load(FROZEN)
    front_end = LogMel(**description["front_end"])
    spoken = [
        synth.utterance(word, synth.speaker(index, 4711), 0, (35.0, 55.0), 4711)
        for index in range(N_SPEAKERS)
        for word in synth.WORDS
    ]
    inputs = front_end(torch.from_numpy(np.stack([synth.render(what) for what in spoken])))
    masks = np.stack(
        [
            mask_from_tracks(synth.cue_tracks(what), front_end.frequencies_hz, front_end.times_s)
            for what in spoken
        ]
    )
    labels = torch.tensor([description["classes"].index(what.word) for what in spoken])
    return model, front_end, inputs, torch.from_numpy(masks)[:, None], labels


def rank_accuracy(values: torch.Tensor, masks: torch.Tensor) -> float:
    """Share of the top-K cells inside the mask, K = its size; mean over items."""
    shares = []
    for item, mask in zip(values.flatten(1), masks.flatten(1), strict=True):
        top = torch.argsort(item, descending=True, stable=True)[: int(mask.sum())]
        shares.append(float(mask[top].double().mean()))
    return float(np.mean(shares))


def attribute(frozen, method: str, kind: str | None = None) -> torch.Tensor:
    model, front_end, inputs, _, _ = frozen
    baseline = None if kind is None else baselines.make(kind, inputs, front_end.axes())
    options = registry.info(method).options
    return registry.load(method)(
        model, inputs, targets.predicted(model, inputs), baseline=baseline,
        item_seeds=seed_array(range(len(inputs))), **options,
    ).values  # fmt: skip


def test_is_small_enough_to_be_kept():
    assert FROZEN.stat().st_size <= 1_500_000


def test_new_speakers_are_understood(frozen):
    model, _, inputs, _, labels = frozen
    assert float((model(inputs).argmax(1) == labels).double().mean()) >= 0.95


def test_ig_from_silence_finds_the_cues_twice_as_often_as_chance(frozen):
    masks = frozen[3]
    chance = float(masks.double().mean())
    assert rank_accuracy(attribute(frozen, "integrated_gradients", "silence"), masks) >= 2 * chance
    assert rank_accuracy(attribute(frozen, "random"), masks) == pytest.approx(chance, abs=0.02)


def test_ig_from_the_loudest_input_does_not(frozen):
    """audio-xai's baseline: 0 dB everywhere."""
    masks = frozen[3]
    silence, legacy = (
        rank_accuracy(attribute(frozen, "integrated_gradients", kind), masks)
        for kind in ("silence", "legacy_zero")
    )
    assert legacy < silence / 2


def test_silence_is_below_every_input(frozen):
    _, front_end, inputs, _, _ = frozen
    baseline = baselines.make("silence", inputs, front_end.axes())
    assert (baseline[:, 0] <= inputs).all()
    assert torch.equal(front_end(torch.zeros(1, front_end.n_samples)), baseline[:, 0])


def test_key_names_can_be_read_back():
    key = CellKey("audio-64", "person", 3, 12, "random_weights")
    assert parse_key(key.name) == key


def test_permuted_labels_keep_their_counts():
    from sonolens.fit import Part

    part = Part(torch.zeros(50, 1, 2, 2), torch.arange(50) % 5, tuple(map(str, range(50))))
    shuffled = permuted(part, 3)
    assert torch.equal(shuffled.labels.bincount(), part.labels.bincount())
    assert not torch.equal(shuffled.labels, part.labels)
    assert torch.equal(shuffled.labels, permuted(part, 3).labels)


@pytest.fixture
def recordings(tmp_path) -> Path:
    folder = tmp_path / "mine"
    for index, rate in enumerate((8000, 16000)):
        what = synth.utterance("ia", synth.speaker(80 + index, 1), 0, (45.0, 50.0), 1)
        waveform = np.repeat(synth.render(what), rate // 8000)
        write_wav(folder / f"word {index}.wav", waveform, rate)
    return folder


def explain(*arguments: str):
    return CliRunner().invoke(commands.app, ["explain", *arguments, "--checkpoint", str(FROZEN)])


def test_own_recordings(recordings, tmp_path):
    out = tmp_path / "out"
    result = explain(str(recordings), "--output-dir", str(out), "--method", "saliency",
                     "--method", "integrated_gradients")  # fmt: skip
    assert result.exit_code == 0, result.output
    table = pd.read_csv(out / "explanations.csv")
    assert list(table["method"]) == ["saliency", "integrated_gradients"] * 2
    assert table["predicted"].eq("ia").all()
    assert table[["p", "p_kept", "p_removed"]].stack().between(0, 1).all()
    assert (
        table[["faithfulness_patch", "faithfulness_scattered", "sparseness"]].notna().all(axis=None)
    )
    maps = np.load(out / "word 0.npz")
    assert maps["integrated_gradients_silence"].shape == maps["input"].shape == (64, 64)
    for name in ("word 0.png", "word 1_saliency_kept.wav", "word 1_saliency_removed.wav"):
        assert (out / name).stat().st_size > 0
    page = (out / "listening.html").read_text()
    assert page.count("<audio") == 4 * len(KINDS)
    assert "2 of 2 files" in page
    for name in ("word 0", "word 1"):
        assert page.count(f"File: {name}.wav") == 2
    assert str(out / "listening.html") in result.output


def test_kept_and_removed_add_up_to_the_window(recordings, tmp_path):
    import soundfile

    out = tmp_path / "out"
    explain(str(recordings / "word 0.wav"), "--output-dir", str(out))
    parts = [
        soundfile.read(out / f"word 0_integrated_gradients_{part}.wav")[0]
        for part in ("kept", "removed")
    ]
    original = soundfile.read(recordings / "word 0.wav")[0]
    np.testing.assert_allclose(parts[0] + parts[1], original, atol=2**-15)
    assert all(0 < np.abs(part).max() < 1 for part in parts)


def test_bad_files_are_listed_and_the_good_ones_done(recordings, tmp_path):
    (recordings / "broken.wav").write_bytes(b"RIFFnothing")
    (recordings / "empty.wav").write_bytes(b"")
    out = tmp_path / "out"
    result = explain(str(recordings), str(tmp_path / "absent.wav"), "--output-dir", str(out))
    assert result.exit_code == 1
    for name in ("broken.wav", "empty.wav", "absent.wav"):
        assert name in result.output
    assert len(pd.read_csv(out / "explanations.csv")) == 2


def test_random_controls_do_not_depend_on_other_files(recordings, tmp_path):
    for name, paths in (("one", [recordings / "word 1.wav"]), ("all", [recordings])):
        explain(*map(str, paths), "--output-dir", str(tmp_path / name), "--method", "random")
    one, many = (np.load(tmp_path / name / "word 1.npz")["random"] for name in ("one", "all"))
    np.testing.assert_array_equal(one, many)
    assert rng.seed_for(0, "word 1") != rng.seed_for(0, "word 0")
