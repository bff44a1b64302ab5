"""Rows in a real SQLite store; the pipeline beside it is a miniature written here."""

from __future__ import annotations

import copy
import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from sonolens import keys, track
from sonolens.pipeline import load_pipeline, main_root
from sonolens.store import write_json

PARAMS: dict[str, Any] = {
    "runtime": {
        "threads": 1,
        "workers": 2,
        "engine": "serial",
        "dask_address": None,
        "device": "cpu",
        "tracking": {"enabled": True, "system_metrics_interval_s": 0.2},
    },
    "common": {"seed": 0},
    "toy": {
        "source": "hums",
        "prepare": {"n": 3},
        "train": {"lr": 0.1, "folds": [0, 1]},
        "explain": {"methods": ["a", "b"]},
        "report": {"level": 0.95},
    },
}


def _stage(
    name: str, deps: list[str], params: list[str], outs: list[str], **more: Any
) -> dict[str, Any]:
    deps = [f"src/sonolens/studies/toy/{name}.py", *deps]
    return {
        "cmd": f"python src/stage.py toy {name}",
        "deps": deps,
        "params": params,
        "outs": outs,
        **more,
    }


STAGES = {
    "toy-prepare": _stage(
        "prepare", ["data/raw/${toy.source}"], ["toy.prepare"], ["data/toy/prepare"]
    ),
    "toy-train": _stage(
        "train",
        ["data/toy/prepare"],
        ["toy.train", "common.seed"],
        ["models/toy/train"],
        plots=[{"plots/toy/history.csv": {"cache": False}}],
    ),
    "toy-explain": _stage("explain", ["models/toy/train"], ["toy.explain"], ["data/toy/explain"]),
    "toy-report": _stage(
        "report",
        ["data/toy/explain"],
        ["toy.report"],
        ["plots/toy/pages/report"],
        metrics=[{"metrics/toy/summary.json": {"cache": False}}],
    ),
    "toy-publish": _stage(
        "publish", ["metrics/toy/summary.json"], ["toy"], ["metrics/toy/published.json"]
    ),
    "overview-report": {
        "cmd": "python src/stage.py overview report",
        "deps": ["src/sonolens/studies/toy/report.py", "metrics/toy/summary.json"],
        "outs": ["metrics/overview/summary.json"],
    },
}
HISTORY = """cell,protocol,fold,model_seed,variant,epoch,train_loss,val_loss,val_accuracy
main,speaker,0,0,trained,0,1.5,1.25,0.25
main,speaker,0,0,trained,1,1.0,0.75,0.5
main,leaky,0,0,trained,0,1.5,,0.25
"""


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    command = ["git", "-C", str(root), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def make_repo(root: Path) -> Path:
    _write(root / "params.yaml", yaml.safe_dump(PARAMS))
    _write(root / "dvc.yaml", yaml.safe_dump({"stages": STAGES}, sort_keys=False))
    _write(root / ".gitignore", "/mlflow.db*\n/mlartifacts/\n/.dvc/tmp/\n/data/toy/\n/models/\n")
    for name in ("prepare", "train", "explain", "report", "publish"):
        _write(root / f"src/sonolens/studies/toy/{name}.py", f"# {name}\n")
    _write(root / "data/raw/hums/card.md", "hums\n")
    for name in ("data/toy/prepare", "data/toy/explain", "models/toy/train"):
        _write(root / name / "values.npy", name)
    write_results(root)
    _git(root, "init", "-q")
    _git(root, "add", "-A")
    _git(root, "commit", "-qm", "toy")
    return root


def write_results(root: Path, accuracy: float = 0.5) -> None:
    _write(root / "plots/toy/history.csv", HISTORY)
    _write(root / "plots/toy/pages/report/report.html", "<p>listen</p>")
    summary = {
        "accuracy_person": accuracy,
        "accuracy_person_ci_low": 0.25,
        "n_person": 3,
        "auc": None,
    }
    write_json(root / "metrics/toy/summary.json", summary | {"accuracy_person_ci_high": 0.75})
    write_json(
        root / "metrics/toy/leakage.json", {"auc_leaky": 0.875, "note": "text", "list": [1, 2]}
    )


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    names = (
        "MLFLOW_TRACKING_URI",
        "SONOLENS_TRACKING",
        "DVC_EXP_NAME",
        "DVC_EXP_BASELINE_REV",
        "DVC_ROOT",
    )
    for name in names:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_repo(tmp_path_factory.mktemp("track") / "repo")


@pytest.fixture
def params(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Params of this test alone, hence rows of this test alone in the shared store."""
    values = copy.deepcopy(PARAMS)
    values["toy"]["train"]["lr"] = request.node.name
    return values


def run_stage(
    root: Path,
    params: dict[str, Any],
    stage: str,
    n_epochs: int = 2,
    error: BaseException | None = None,
) -> None:
    spec = load_pipeline(root, params)[f"toy-{stage}"]
    with track.open_record(root, spec, params, study="toy", stage=stage) as record:
        for epoch in range(n_epochs):
            record.metrics({"trained/speaker/fold0/seed0/val_loss": 1.0 / (epoch + 1)}, step=epoch)
        if error:
            raise error


def publish(root: Path, params: dict[str, Any]) -> dict[str, str]:
    spec = load_pipeline(root, params)["toy-publish"]
    published = track.publish(root, spec, params, study="toy")
    write_json(root / "metrics/toy/published.json", published)
    return published


def look(root: Path, params: dict[str, Any]) -> tuple[Any, list[Any], Any]:
    """(row, its children, client); fails when there is more than one row."""
    store = track.open_store(root)
    experiment_id = store.experiment("toy")
    (row,) = store.rows(experiment_id, {"sonolens.key": keys.experiment_key(root, params, "toy")})
    children = store.rows(experiment_id, {"mlflow.parentRunId": row.info.run_id}, level="stage")
    return row, sorted(children, key=lambda run: run.info.run_name), store.client


def steps(client: Any, run: Any, name: str) -> list[int]:
    return [metric.step for metric in client.get_metric_history(run.info.run_id, name)]


# --- Keys and places -----------------------------------------------------------------------------


def test_key_is_of_content_not_of_place_or_runtime(repo: Path, tmp_path: Path) -> None:
    other = make_repo(tmp_path / "elsewhere")
    key = keys.experiment_key(repo, PARAMS, "toy")
    elsewhere = copy.deepcopy(PARAMS)
    elsewhere["runtime"] |= {"workers": 7, "device": "cuda"}
    elsewhere["other_study"] = {"lr": 1}
    assert keys.experiment_key(other, elsewhere, "toy") == key
    elsewhere["toy"]["train"]["lr"] = 0.2
    assert keys.experiment_key(other, elsewhere, "toy") != key


@pytest.mark.parametrize("changed", ["src/sonolens/studies/toy/report.py", "data/raw/hums/card.md"])
def test_key_follows_code_and_raw_data(tmp_path: Path, changed: str) -> None:
    root = make_repo(tmp_path)
    before = [keys.experiment_key(root, PARAMS, study) for study in ("toy", "overview")]
    _write(root / changed, "changed\n")
    after = [keys.experiment_key(root, PARAMS, study) for study in ("toy", "overview")]
    # The overview reads what `toy` makes, so it is another overview.
    assert before[0] != after[0]
    assert before[1] != after[1]


def test_key_takes_the_md5_of_recordings_tracked_by_dvc(tmp_path: Path) -> None:
    root = make_repo(tmp_path)
    pointer = root / "data/raw/hums/recordings.dvc"
    _write(
        pointer,
        yaml.safe_dump({"outs": [{"md5": "a" * 32 + ".dir", "path": "recordings", "hash": "md5"}]}),
    )
    absent = keys.experiment_key(root, PARAMS, "toy")
    _write(root / "data/raw/hums/recordings/a.wav", "not read")
    assert keys.experiment_key(root, PARAMS, "toy") == absent
    _write(
        pointer,
        yaml.safe_dump({"outs": [{"md5": "b" * 32 + ".dir", "path": "recordings", "hash": "md5"}]}),
    )
    assert keys.experiment_key(root, PARAMS, "toy") != absent


def test_missing_code_is_named(tmp_path: Path) -> None:
    root = make_repo(tmp_path)
    (root / "src/sonolens/studies/toy/report.py").unlink()
    with pytest.raises(keys.KeyedFileError, match=r"report\.py: not found"):
        keys.experiment_key(root, PARAMS, "toy")


def test_stage_key_follows_its_own_inputs_only(tmp_path: Path) -> None:
    root = make_repo(tmp_path)
    spec = load_pipeline(root, PARAMS)["toy-train"]
    key = keys.stage_key(root, spec, PARAMS)
    assert keys.stage_key(root, spec, PARAMS, device="cuda") != key
    assert keys.stage_key(root, spec, PARAMS, cell="small") != key
    _write(root / "data/toy/explain/values.npy", "other")
    assert keys.stage_key(root, spec, PARAMS) == key
    _write(root / "data/toy/prepare/values.npy", "other")
    assert keys.stage_key(root, spec, PARAMS) != key


def test_folder_digest_is_dvcs(tmp_path: Path) -> None:
    from dvc_data.hashfile.build import build
    from dvc_data.hashfile.db import HashFileDB
    from dvc_objects.fs.local import LocalFileSystem

    for name in ("b.txt", "a/z.txt", "a b.txt", "ä.txt"):
        _write(tmp_path / "folder" / name, name)
    files = LocalFileSystem()
    store = HashFileDB(files, str(tmp_path / "odb"))
    _, _, tree = build(store, str(tmp_path / "folder"), files, "md5", dry_run=True)
    assert keys.dvc_digest(tmp_path / "folder") == tree.hash_info.value


def test_digest_of_an_absent_file_comes_from_the_lock(tmp_path: Path) -> None:
    entry = {"path": "data/toy/prepare", "md5": "c" * 32 + ".dir", "hash": "md5"}
    _write(
        tmp_path / "dvc.lock",
        yaml.safe_dump({"schema": "2.0", "stages": {"toy-prepare": {"outs": [entry]}}}),
    )
    digests = keys.Digests(tmp_path)
    assert digests.of("data/toy/prepare") == "c" * 32 + ".dir"
    assert digests.of("data/toy/nowhere") is None


def test_store_lies_in_the_main_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clone = tmp_path / ".dvc/tmp/exps/tmpabc"
    clone.mkdir(parents=True)
    _git(clone, "init", "-q")
    assert main_root(clone) == tmp_path
    assert track.tracking_uri(clone) == f"sqlite:///{tmp_path}/mlflow.db"
    for uri, resolved in {
        "sqlite:///x.db": f"sqlite:///{tmp_path}/x.db",
        "sqlite:////a/x.db": "sqlite:////a/x.db",
        "runs": (tmp_path / "runs").as_uri(),
        "http://127.0.0.1:5000": "http://127.0.0.1:5000",
        "postgresql+psycopg2://u:p@h/db": "postgresql+psycopg2://u:p@h/db",
    }.items():
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        assert track.tracking_uri(clone) == resolved


# --- Rows ----------------------------------------------------------------------------------------


def test_row_is_complete_and_made_once(
    repo: Path, params: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "brave-owl")
    write_results(repo)
    spec = load_pipeline(repo, params)["toy-train"]
    with track.open_record(repo, spec, params, study="toy", stage="train") as record:
        record.metrics({"trained/speaker/fold0/seed0/val_loss": 1.25, "bad": math.nan}, step=0)
        record.metrics({"trained/speaker/fold0/seed0/val_loss": 0.75}, step=1)
        checkpoint = repo / "models/toy/train/values.npy"
        record.checkpoint(
            "trained/fold0", checkpoint, "models/toy/train/values.npy", {"width": 4}, {"best": 0.5}
        )
        record.artifact(checkpoint, "look")
        row, _, _ = look(repo, params)
        assert row.info.status == "RUNNING"
        time.sleep(0.7)  # several intervals of the system metrics
    run_stage(repo, params, "explain", n_epochs=0)
    track.note_stage(repo, load_pipeline(repo, params)["toy-report"], params, 1000.0, 1002.5)
    published = publish(repo, params)

    row, children, client = look(repo, params)
    assert published == {"key": keys.experiment_key(repo, params, "toy"), "study": "toy"}
    assert (row.info.status, row.info.run_name) == ("FINISHED", "brave-owl")
    assert row.data.params["toy.train.folds"] == "[0, 1]"
    assert row.data.params["common.seed"] == "0"
    assert not any(name.startswith("runtime") for name in row.data.params)
    assert row.data.tags["sonolens.workers"] == "2"
    assert row.data.metrics["accuracy_person"] == 0.5
    assert row.data.metrics["leakage.auc_leaky"] == 0.875
    assert "auc" not in row.data.metrics
    assert row.data.tags["sonolens.n_null"] == "1"
    assert steps(client, row, "trained/speaker/fold0/seed0/val_loss") == [0, 1]
    assert "trained/leaky/fold0/seed0/val_loss" not in row.data.metrics
    inputs = {item.dataset.name: item for item in row.inputs.dataset_inputs}
    assert set(inputs) == {"data/raw/hums", "data/toy/prepare", "models/toy/train"}
    assert inputs["data/toy/prepare"].dataset.digest == keys.dvc_digest(repo / "data/toy/prepare")
    assert inputs["models/toy/train"].tags[0].value == "explain"
    note = row.data.tags["mlflow.note.content"]
    assert "| accuracy_person | 0.5 | 0.25 to 0.75 |" in note
    assert re.search(r"`toy-train`: \[toy-train\]\(#/experiments/\d+/runs/\w+\?\w+=\w+\)", note)
    assert "`toy-prepare`: not run here" in note
    where = Path(row.info.artifact_uri.removeprefix("file://"))
    assert (repo / "mlartifacts/toy") in where.parents
    assert (where / "plots/pages/report/report.html").is_file()
    assert (where / "params.yaml").is_file()

    assert [child.info.run_name for child in children] == ["toy-explain", "toy-report", "toy-train"]
    assert {child.info.status for child in children} == {"FINISHED"}
    assert (children[1].info.start_time, children[1].info.end_time) == (1000000, 1002500)
    train = children[2]
    assert train.data.tags["sonolens.n_nonfinite"] == "1"
    assert "system/cpu_utilization_percentage" in train.data.metrics
    assert client.list_artifacts(train.info.run_id, "look")
    (model,) = client.search_logged_models(
        [row.info.experiment_id], filter_string="name = 'trained-fold0'"
    )
    assert model.tags["dvc.path"] == "models/toy/train/values.npy"
    assert model.tags["dvc.md5"] == keys.dvc_digest(checkpoint)

    # The same experiment under another name: no second row, no second points, the same duration.
    monkeypatch.setenv("DVC_EXP_NAME", "shy-emu")
    assert publish(repo, params) == published
    again, children_again, _ = look(repo, params)
    assert again.info.run_id == row.info.run_id
    assert again.info.end_time == row.info.end_time
    assert again.data.tags["sonolens.dvc_exps"] == "brave-owl,shy-emu"
    assert len(children_again) == 3
    assert steps(client, again, "trained/speaker/fold0/seed0/val_loss") == [0, 1]
    assert steps(client, again, "accuracy_person") == [0]
    assert len(again.inputs.dataset_inputs) == 3

    # It differs downstream only: its train stage comes from DVC's cache, and the row is whole.
    params["toy"]["report"]["level"] = 0.9
    publish(repo, params)
    other, children, client = look(repo, params)
    assert children == []
    assert steps(client, other, "trained/speaker/fold0/seed0/val_loss") == [0, 1]
    link = f"[toy-train](#/experiments/{train.info.experiment_id}/runs/{train.info.run_id}?"
    note = other.data.tags["mlflow.note.content"]
    assert f"`toy-train`: not run here, DVC had its result; it was computed in {link}" in note


def test_resumed_stage_adds_no_step_twice(repo: Path, params: dict[str, Any]) -> None:
    with pytest.raises(ZeroDivisionError):
        run_stage(repo, params, "train", n_epochs=2, error=ZeroDivisionError("lost"))
    row, (child,), client = look(repo, params)
    assert (row.info.status, child.info.status) == ("FAILED", "FAILED")
    assert child.data.tags["sonolens.error"] == "ZeroDivisionError: lost"
    run_stage(repo, params, "train", n_epochs=4)
    row, (child,), client = look(repo, params)
    assert (row.info.status, child.info.status) == ("RUNNING", "FINISHED")
    assert "sonolens.error" not in child.data.tags | row.data.tags
    assert steps(client, child, "trained/speaker/fold0/seed0/val_loss") == [0, 1, 2, 3]


def test_stage_that_reports_nothing_says_how_it_failed(repo: Path, params: dict[str, Any]) -> None:
    spec = load_pipeline(repo, params)["toy-report"]
    for error, status in ((ZeroDivisionError("no"), "FAILED"), (KeyboardInterrupt(), "KILLED")):
        with pytest.raises(type(error)):
            run_stage(repo, params, "publish", error=error)
        assert look(repo, params)[0].info.status == status
        assert look(repo, params)[1] == []  # it would stay behind: publishing has no row below
    for error, status in ((ZeroDivisionError("no"), "FAILED"), (KeyboardInterrupt(), "KILLED")):
        with pytest.raises(type(error)):
            run_stage(repo, params, "report", error=error)
        row, (child,), _ = look(repo, params)
        assert (row.info.status, child.info.status) == (status, status)
    assert child.info.run_name == "toy-report"
    assert child.data.tags["sonolens.error"] == "KeyboardInterrupt: "
    # The next try succeeds and takes both over.
    track.note_stage(repo, spec, params, 1000.0, 1002.5)
    publish(repo, params)
    taken, (again,), _ = look(repo, params)
    assert (taken.info.run_id, again.info.run_id) == (row.info.run_id, child.info.run_id)
    assert (taken.info.status, again.info.status) == ("FINISHED", "FINISHED")
    assert not {"sonolens.error"} & (taken.data.tags.keys() | again.data.tags.keys())


def test_same_stage_at_once_has_a_child_of_its_own(repo: Path, params: dict[str, Any]) -> None:
    spec = load_pipeline(repo, params)["toy-train"]
    with track.open_record(repo, spec, params, study="toy", stage="train") as first:
        first.metrics({"loss": 1.0}, step=0)
        run_stage(repo, params, "train", n_epochs=1)
    _, children, _ = look(repo, params)
    assert [child.info.status for child in children] == ["FINISHED", "FINISHED"]


def test_long_param_is_cut_and_told_apart_by_its_digest(repo: Path, params: dict[str, Any]) -> None:
    params["toy"]["explain"]["methods"] = ["a" * 7000]
    publish(repo, params)
    row, _, _ = look(repo, params)
    text = row.data.params["toy.explain.methods"]
    assert len(text) <= 6000
    assert text.startswith('["aaaa')
    assert re.search(r"… sha256:[0-9a-f]{64}$", text)
    assert not [line for line in track.check(repo, history=False) if "toy.explain" in line]


def test_interrupt_is_killed(repo: Path, params: dict[str, Any]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        run_stage(repo, params, "explain", error=KeyboardInterrupt())
    row, (child,), _ = look(repo, params)
    assert (row.info.status, child.info.status) == ("KILLED", "KILLED")
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("where", ["_claim_row", "_log_inputs", "_send_metrics"])
def test_interrupt_while_the_record_opens_or_ends_is_killed(
    repo: Path, params: dict[str, Any], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    work = getattr(track, where)

    def interrupted(*arguments: Any) -> Any:
        monkeypatch.undo()
        done = work(*arguments)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)  # one more does not break off the end
        return done

    monkeypatch.setattr(track, where, interrupted)
    with pytest.raises(KeyboardInterrupt, match="SIGINT"):
        run_stage(repo, params, "train")
    row, (child,), _ = look(repo, params)
    assert (row.info.status, child.info.status) == ("KILLED", "KILLED")
    run_stage(repo, params, "train")
    row, (again,), client = look(repo, params)
    assert (row.info.status, again.info.status) == ("RUNNING", "FINISHED")
    assert again.info.run_id == child.info.run_id
    assert steps(client, again, "trained/speaker/fold0/seed0/val_loss") == [0, 1]


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt("SIGINT"), "KILLED"), (ValueError("bad"), "FAILED")]
)
def test_a_stage_without_a_record_ends_the_row_too(
    repo: Path, params: dict[str, Any], error: BaseException, status: str
) -> None:
    run_stage(repo, params, "train")
    with pytest.raises(type(error)):
        run_stage(repo, params, "prepare", error=error)
    row, (prepare, train), _ = look(repo, params)
    states = [run.info.status for run in (row, prepare, train)]
    assert states == [status, status, "FINISHED"]
    assert row.data.tags["sonolens.error"].startswith(type(error).__name__)


PROGRAM = """
import sys, time, yaml
from pathlib import Path
from sonolens import keys, track
from sonolens.pipeline import load_pipeline
root, stage = Path(sys.argv[1]), sys.argv[3]
params = yaml.safe_load(Path(sys.argv[2]).read_text())
track.FLUSH_S = 0
spec = load_pipeline(root, params)["toy-" + stage]
with track.open_record(root, spec, params, study="toy", stage=stage) as record:
    for epoch in range(int(sys.argv[4])):
        record.metrics({"loss": 1.0 / (epoch + 1)}, step=epoch)
    print("ready", sorted(name for name in ("mlflow", "torch") if name in sys.modules), flush=True)
    time.sleep(float(sys.argv[5]))
"""


def start(
    root: Path, params: dict[str, Any], folder: Path, *arguments: str
) -> subprocess.Popen[str]:
    _write(folder / "params.yaml", yaml.safe_dump(params))
    source = Path(track.__file__).resolve().parents[1]
    command = [sys.executable, "-c", PROGRAM, str(root), str(folder / "params.yaml"), *arguments]
    environment = os.environ | {"PYTHONPATH": str(source)}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def test_sigterm_ends_rows_as_killed(repo: Path, params: dict[str, Any], tmp_path: Path) -> None:
    process = start(repo, params, tmp_path, "train", "2", "60")
    assert process.stdout is not None
    assert process.stdout.readline().startswith("ready")
    process.terminate()
    assert process.wait(timeout=20) != 0
    row, (child,), client = look(repo, params)
    assert (row.info.status, child.info.status) == ("KILLED", "KILLED")
    assert steps(client, child, "loss") == [0, 1]


def test_sigkilled_rows_are_taken_over(repo: Path, params: dict[str, Any], tmp_path: Path) -> None:
    process = start(repo, params, tmp_path, "train", "2", "60")
    assert process.stdout is not None
    assert process.stdout.readline().startswith("ready")
    process.kill()
    process.wait(timeout=20)
    row, (child,), _ = look(repo, params)
    assert (row.info.status, child.info.status) == ("RUNNING", "RUNNING")
    run_stage(repo, params, "train")
    publish(repo, params)
    taken, (again,), _ = look(repo, params)
    assert (taken.info.run_id, again.info.run_id) == (row.info.run_id, child.info.run_id)
    assert (taken.info.status, again.info.status) == ("FINISHED", "FINISHED")


# --- Off, or out of reach ------------------------------------------------------------------------


def test_disabled_tracking_imports_no_mlflow(
    repo: Path, params: dict[str, Any], tmp_path: Path
) -> None:
    params["runtime"]["tracking"]["enabled"] = False
    out, err = start(repo, params, tmp_path, "train", "2", "0").communicate(timeout=30)
    assert out.strip() == "ready []", err
    assert publish(repo, params)["key"] == keys.experiment_key(repo, params, "toy")
    assert track.open_store(repo).row("1", keys.experiment_key(repo, params, "toy")) is None


def test_environment_switches_tracking_off(monkeypatch: pytest.MonkeyPatch) -> None:
    assert track.enabled(PARAMS)
    monkeypatch.setenv("SONOLENS_TRACKING", "off")
    assert not track.enabled(PARAMS)


@pytest.mark.parametrize("scheme", ["http", "postgresql"])
def test_store_out_of_reach_is_a_warning_within_seconds(
    repo: Path, params: dict[str, Any], monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    with socket.socket() as taken:  # bound but not listening: nothing answers
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv(
            "MLFLOW_TRACKING_URI", f"{scheme}://me:secret@127.0.0.1:{taken.getsockname()[1]}"
        )
        begun = time.monotonic()
        with pytest.warns(RuntimeWarning, match=r"no answer.*track sync") as caught:
            run_stage(repo, params, "train")
        with pytest.warns(RuntimeWarning, match="toy-publish failed"):
            published = publish(repo, params)
    assert time.monotonic() - begun < 10
    assert "secret" not in "".join(str(item.message) for item in caught)
    assert published["study"] == "toy"


def test_credentials_are_handed_over_and_never_shown(
    repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "old")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "old")
    assert track._hand_over_credentials("https://me:s%40cret@host:5000/x") == "https://host:5000/x"
    assert os.environ["MLFLOW_TRACKING_USERNAME"] == "me"
    assert os.environ["MLFLOW_TRACKING_PASSWORD"] == "s@cret"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("sqlite:///broken.db", r"broken\.db: .*not a database.*track sync"),
        ("sqlite:///card.md/x.db", r"card\.md/x\.db: .*move it away"),
        (
            "mysql+nowhere://me:secret@127.0.0.1:{port}/db",
            "nowhere.*correct MLFLOW_TRACKING_URI",
        ),
    ],
)
def test_unusable_database_is_a_plain_message_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, message: str
) -> None:
    root = make_repo(tmp_path / "repo")
    _write(root / "broken.db", "this is no database\n" * 100)
    _write(root / "card.md", "a file where a folder is needed")
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.format(port=server.getsockname()[1]))
        begun = time.monotonic()
        with pytest.raises(track.TrackingError, match=message) as caught:
            track.open_store(root)
    assert time.monotonic() - begun < 10
    assert "secret" not in str(caught.value)


def test_store_lost_on_the_way_does_not_stop_the_stage(
    repo: Path, params: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(track, "FLUSH_S", 0.0)
    spec = load_pipeline(repo, params)["toy-train"]

    def run() -> None:
        with track.open_record(repo, spec, params, study="toy", stage="train") as record:
            assert isinstance(record, track.LiveRecord)
            record.run_id = "0" * 32
            for epoch in range(3):
                record.metrics({"loss": 1.0}, step=epoch)

    with pytest.warns(RuntimeWarning, match="sending metrics failed") as caught:
        run()
    assert len([item for item in caught if item.category is RuntimeWarning]) == 1


# --- sync, check, ui, register -------------------------------------------------------------------


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of its own, whose experiment `quiet-fox` no store has seen."""
    root = make_repo(tmp_path_factory.mktemp("sync") / "repo")
    values = copy.deepcopy(PARAMS)
    values["toy"]["train"]["lr"] = 0.3
    _write(root / "params.yaml", yaml.safe_dump(values))
    write_results(root, accuracy=0.625)
    published = {"key": keys.experiment_key(root, values, "toy"), "study": "toy"}
    write_json(root / "metrics/toy/published.json", published)
    base = _git(root, "rev-parse", "HEAD")
    _git(root, "add", "-A")
    tree = _git(root, "write-tree")
    commit = _git(root, "commit-tree", tree, "-p", base, "-m", "dvc: commit experiment")
    _git(root, "update-ref", f"refs/exps/{base[:2]}/{base[2:]}/quiet-fox", commit)
    _git(root, "reset", "-q", "--hard")
    return root


def test_sync_rebuilds_rows_and_check_finds_mismatches(
    history: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sonolens.cli_track import app

    monkeypatch.chdir(history)
    publish_off = track.publish(
        history,
        load_pipeline(history)["toy-publish"],
        PARAMS | {"runtime": PARAMS["runtime"] | {"tracking": {"enabled": False}}},
        study="toy",
    )
    write_json(history / "metrics/toy/published.json", publish_off)
    runner = CliRunner()
    missing = runner.invoke(app, ["check"])
    assert missing.exit_code == 1
    assert "no row with the key" in missing.output

    synced = runner.invoke(app, ["sync"])
    assert synced.exit_code == 0, synced.output
    assert "quiet-fox added" in synced.output
    values = copy.deepcopy(PARAMS)
    values["toy"]["train"]["lr"] = 0.3
    row, _, client = look(history, values)
    assert (row.info.run_name, row.info.status) == ("quiet-fox", "FINISHED")
    assert row.data.metrics["accuracy_person"] == 0.625
    assert row.data.params["toy.train.lr"] == "0.3"
    assert len(row.data.tags["sonolens.dvc_commits"]) == 40
    assert steps(client, row, "trained/speaker/fold0/seed0/val_loss") == [0, 1]
    assert runner.invoke(app, ["check"]).exit_code == 0
    assert "nothing to do" in runner.invoke(app, ["sync"]).output

    _write(history / "src/sonolens/studies/toy/train.py", "changed\n")
    stale = runner.invoke(app, ["check"])
    assert stale.exit_code == 1
    assert "files changed since it was published" in stale.output
    _git(history, "checkout", "-q", "src")


@pytest.fixture
def synced(history: Path) -> Iterator[tuple[Path, Any, Any]]:
    """The repository in line with its store, the workspace's row and the client."""
    published = {"key": keys.experiment_key(history, PARAMS, "toy"), "study": "toy"}
    write_json(history / "metrics/toy/published.json", published)
    track.sync(history)
    row, _, client = look(history, PARAMS)
    assert track.check(history) == []
    yield history, row, client
    write_results(history)
    track.sync(history)


def test_metric_edited_in_the_store(synced: tuple[Path, Any, Any]) -> None:
    root, row, client = synced
    client.log_metric(row.info.run_id, "accuracy_person", 0.1)
    (line,) = track.check(root)
    assert f"{row.info.run_name}: metric accuracy_person is 0.1, the files have 0.5" in line
    assert track.sync(root) == [f"toy: {row.info.run_name} brought in line with the files"]
    assert track.check(root) == track.sync(root) == []
    assert client.get_run(row.info.run_id).info.end_time == row.info.end_time


def test_metric_of_an_experiment_edited_in_the_store(synced: tuple[Path, Any, Any]) -> None:
    root, _, client = synced
    values = copy.deepcopy(PARAMS)
    values["toy"]["train"]["lr"] = 0.3
    row, _, _ = look(root, values)
    client.log_metric(row.info.run_id, "n_person", 99.0)
    (line,) = track.check(root)
    assert "quiet-fox: metric n_person is 99.0, the files have 3.0" in line
    assert track.check(root, history=False) == []
    assert track.sync(root) == ["toy: quiet-fox brought in line with the files"]
    assert track.check(root) == []


def test_metric_edited_in_the_files(synced: tuple[Path, Any, Any]) -> None:
    root, row, client = synced
    write_results(root, accuracy=0.375)
    lines = track.check(root)
    assert any("metric accuracy_person is 0.5, the files have 0.375" in line for line in lines)
    assert any("artefacts are not those of the files" in line for line in lines)
    track.sync(root)
    assert track.check(root) == []
    folder = Path(row.info.artifact_uri.removeprefix("file://"))
    assert "0.375" in (folder / "metrics/summary.json").read_text()
    assert client.get_run(row.info.run_id).data.metrics["accuracy_person"] == 0.375


def test_rows_deleted_in_mlflow_come_back(synced: tuple[Path, Any, Any]) -> None:
    root, row, client = synced
    client.delete_run(row.info.run_id)
    assert any("is deleted in MLflow" in line for line in track.check(root))
    assert track.sync(root) == [f"toy: {row.info.run_name} was deleted in MLflow: restored"]
    client.delete_run(row.info.run_id)
    publish(root, PARAMS)  # a repetition brings it back too, rather than make a double
    assert look(root, PARAMS)[0].info.run_id == row.info.run_id

    client.delete_experiment(row.info.experiment_id)
    assert len(track.check(root)) == 2  # both rows went with it
    track.sync(root)
    assert look(root, PARAMS)[0].info.run_id == row.info.run_id
    assert track.check(root) == []


def test_artefacts_that_are_gone_are_sent_again(synced: tuple[Path, Any, Any]) -> None:
    root, row, _ = synced
    folder = Path(row.info.artifact_uri.removeprefix("file://"))
    shutil.rmtree(folder)
    assert any("artefacts are not those of the files" in line for line in track.check(root))
    track.sync(root)
    assert (folder / "plots/pages/report/report.html").is_file()
    assert not (folder / "metrics/published.json").exists()
    assert track.check(root) == []


def test_doubles_are_listed(synced: tuple[Path, Any, Any]) -> None:
    root, row, client = synced
    double = client.create_run(row.info.experiment_id, tags=row.data.tags)
    (line,) = track.check(root)
    assert "2 rows with the key" in line
    assert f"{row.info.run_name} {row.info.run_id}); delete all but the last" in line
    client.delete_run(double.info.run_id)
    assert track.check(root) == []


def test_experiments_renamed_and_removed_in_dvc(synced: tuple[Path, Any, Any]) -> None:
    root, _, client = synced
    values = copy.deepcopy(PARAMS)
    values["toy"]["train"]["lr"] = 0.3
    (ref,) = _git(root, "for-each-ref", "--format=%(refname)", "refs/exps").splitlines()
    commit = _git(root, "rev-parse", ref)
    renamed = ref.replace("quiet-fox", "loud-fox")
    _git(root, "update-ref", renamed, commit)
    _git(root, "update-ref", "-d", ref)
    assert any("of loud-fox, its tags do not say so" in line for line in track.check(root))
    assert any("once quiet-fox" in line for line in track.sync(root))
    row, _, _ = look(root, values)
    assert (row.info.run_name, row.data.tags["sonolens.dvc_exps"]) == ("loud-fox", "loud-fox")
    _git(root, "update-ref", "-d", renamed)
    assert track.check(root) == track.sync(root) == []  # the record outlives the experiment
    assert look(root, values)[0].info.status == "FINISHED"
    _git(root, "update-ref", ref, commit)
    track.sync(root)
    assert client.get_run(row.info.run_id).info.run_name == "quiet-fox"


def test_pictures_of_commits_come_from_the_cache(tmp_path: Path) -> None:
    """Pages are cached by DVC, so git has only their digest."""
    root = make_repo(tmp_path / "repo")
    _write(root / ".gitignore", (root / ".gitignore").read_text() + "/plots/toy/pages/\n")
    _write(root / "plots/toy/pages/report/deep/a.txt", "a")
    page = root / "plots/toy/pages/report"
    entry = {"path": "plots/toy/pages/report", "md5": keys.dvc_digest(page), "hash": "md5"}
    lock = {"schema": "2.0", "stages": {"toy-report": {"cmd": "c", "outs": [entry]}}}
    _write(root / "dvc.lock", yaml.safe_dump(lock))
    publish(root, PARAMS)
    _git(root, "rm", "-rq", "--cached", "plots/toy/pages")
    _git(root, "add", "-A")
    _git(root, "commit", "-qm", "published")
    shutil.rmtree(page)
    row, _, _ = look(root, PARAMS)
    assert track.check(root) == []  # the row has them
    folder = Path(row.info.artifact_uri.removeprefix("file://"))
    shutil.rmtree(folder)
    _write(root / "params.yaml", yaml.safe_dump(PARAMS | {"common": {"seed": 1}}))
    lines = track.sync(root)
    assert any("without plots/toy/pages/report: not in DVC's cache" in line for line in lines)
    assert not (folder / "plots/pages").exists()
    assert (folder / "plots/history.csv").is_file()
    assert "brought in line" not in "".join(track.sync(root))

    from dvc.repo import Repo

    # What another checkout has in its cache, as after `dvc fetch`.
    other = tmp_path / "other"
    for path, text in {"report.html": "<p>listen</p>", "deep/a.txt": "a"}.items():
        _write(other / "report" / path, text)
    with Repo.init(str(other), no_scm=True) as repo:
        repo.add(str(other / "report"))
    shutil.copytree(other / ".dvc/cache", root / ".dvc/cache")
    track.sync(root)
    assert (folder / "plots/pages/report/report.html").read_text() == "<p>listen</p>"
    assert (folder / "plots/pages/report/deep/a.txt").read_text() == "a"


def test_sync_kills_rows_of_dead_processes(history: Path) -> None:
    store = track.open_store(history)
    experiment_id = store.experiment("toy")
    gone = subprocess.Popen([sys.executable, "-c", "pass"])
    gone.wait()
    tags = {
        "sonolens.level": "experiment",
        "sonolens.key": "k",
        "sonolens.host": socket.gethostname(),
    }
    dead = tags | {"sonolens.pid": str(gone.pid), "sonolens.pid_start": "1"}
    alive = tags | {"sonolens.key": "a"} | track._owner_tags(os.getpid())
    far = dead | {"sonolens.key": "f", "sonolens.host": "another machine"}
    runs = [store.client.create_run(experiment_id, tags=item) for item in (dead, alive, far)]
    found = track.check(history, history=False)
    assert [line for line in found if "is RUNNING, but its process is gone" in line]
    track.sync(history, history=False)
    states = [store.client.get_run(run.info.run_id).info.status for run in runs]
    assert states == ["KILLED", "RUNNING", "RUNNING"]


def test_ui_links_open_the_runs(history: Path) -> None:
    links = dict(track.ui_links(track.open_store(history), "http://127.0.0.1:5000/"))
    assert "?workflowType=machine_learning" in links["toy"]
    assert any("/#/compare-runs?runs=%5B" in link for link in links.values())


@pytest.mark.slow
def test_registered_model_answers_as_the_original(
    repo: Path, params: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow
    import numpy as np
    import torch

    spec = load_pipeline(repo, params)["toy-train"]
    with track.open_record(repo, spec, params, study="toy", stage="train") as record:
        path = repo / "models/toy/train/values.npy"
        record.checkpoint("linear", path, "models/toy/train/values.npy", {}, {})
    model = torch.nn.Linear(3, 2)
    example = np.ones((1, 3), dtype=np.float32)
    with pytest.raises(track.TrackingError, match="no checkpoint 'none'"):
        track.register(repo, "toy", "none", lambda: model, example)
    name, version = track.register(repo, "toy", "linear", lambda: model, example)
    assert (name, version) == ("toy-linear", 1)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", track.tracking_uri(repo))
    loaded = mlflow.pyfunc.load_model(f"models:/{name}/{version}")
    assert loaded.metadata.signature is not None
    np.testing.assert_allclose(
        loaded.predict(example), model(torch.as_tensor(example)).detach(), rtol=1e-6
    )


@pytest.mark.slow
def test_four_first_users_of_a_missing_store_lose_nothing(tmp_path: Path) -> None:
    root = make_repo(tmp_path / "repo")
    processes = []
    for number in range(4):
        values = copy.deepcopy(PARAMS)
        values["toy"]["train"]["lr"] = number // 2  # two each of two experiments
        stage = ("train", "explain")[number % 2]
        processes.append((values, start(root, values, tmp_path / str(number), stage, "3", "0")))
    for _, process in processes:
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        assert "failed" not in err
    for values, _ in processes[::2]:
        _, children, client = look(root, values)
        assert [child.info.run_name for child in children] == ["toy-explain", "toy-train"]
        assert all(steps(client, child, "loss") == [0, 1, 2] for child in children)


@pytest.mark.slow
def test_round_trip_through_a_server(
    tmp_path: Path, params: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_repo(tmp_path / "repo")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run_stage(root, params, "train")  # so that there is something to show
    source = Path(track.__file__).resolve().parents[1]
    command = [
        sys.executable,
        "-c",
        "from sonolens.cli_track import ui; import typer; typer.run(ui)",
    ]
    process = subprocess.Popen(
        [*command, "--port", str(port)],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(source)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        assert "workflowType=machine_learning" in lines[0]
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        params["toy"]["train"]["lr"] = "through the server"
        run_stage(root, params, "train")
        publish(root, params)
        row, (child,), client = look(root, params)
        assert (row.info.status, child.info.status) == ("FINISHED", "FINISHED")
        assert steps(client, child, "trained/speaker/fold0/seed0/val_loss") == [0, 1]
        assert {item.path for item in client.list_artifacts(row.info.run_id)} >= {
            "plots",
            "metrics",
            "params.yaml",
        }
        address = f"http://127.0.0.1:{port}/api/2.0/mlflow/runs/get?run_id={row.info.run_id}"
        assert (
            json.load(urllib.request.urlopen(address, timeout=10))["run"]["info"]["status"]
            == "FINISHED"
        )
    finally:
        process.terminate()
        process.wait(timeout=30)
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=10)
