"""`sonolens record`: what goes into a record, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sonolens import cost, keys
from sonolens.params import load_yaml
from sonolens.pipeline import load_pipeline
from sonolens.report import record

DVC_YAML = """
stages:
  toy-publish:
    cmd: python write.py
    deps: [write.py]
    params: [toy]
    outs: [metrics/toy/summary.json: {cache: false}]
"""
STAGES = """
stages:
  toy-train:
    cmd: python src/stage.py toy train
    params: [toy]
  toy-publish:
    cmd: python src/stage.py toy publish
    params: [toy]
"""
COMMON = "runtime: {device: cpu}\ncommon: {seed: 0}\n"
WRITE = (
    "from pathlib import Path\nPath('metrics/toy').mkdir(parents=True, exist_ok=True)\n"
    "Path('metrics/toy/summary.json').write_text('{\"accuracy_person\": 0.5, \"n_person\": 4}')\n"
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with results; nothing asks DVC about them."""
    (tmp_path / "params.yaml").write_text(f"{COMMON}toy: {{source: fsdd, size: 3}}\n")
    (tmp_path / "dvc.yaml").write_text(STAGES)
    metrics = tmp_path / "metrics" / "toy"
    metrics.mkdir(parents=True)
    (metrics / "summary.json").write_text('{"accuracy_person": 0.5, "n_person": 4}')
    (metrics / "folds.csv").write_text("fold,test_group,accuracy\n0,theo,0.25\n1,,\n")
    (tmp_path / "dvc.lock").write_text(
        "schema: '2.0'\nstages:\n  toy-prepare:\n    cmd: x\n    deps:\n"
        "    - {path: data/raw/fsdd, md5: abc.dir}\n    - {path: src/x.py, md5: no}\n"
        "    outs:\n    - {path: data/toy/prepare/manifest.parquet, md5: def}\n"
    )
    return tmp_path


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "_refuse_stale", lambda root, study: None)


@pytest.mark.usefixtures("fresh")
def test_a_record_says_what_was_measured_on_what(root: Path) -> None:
    params = load_yaml(root / "params.yaml")
    spec = load_pipeline(root, params)["toy-train"]
    cost.note(root, spec, keys.stage_key(root, spec, params), 1.5)
    path = record.record(root, "toy", "fsdd", "make repro")
    values = json.loads(path.read_text())
    assert values["cost"]["toy-train"]["duration_s"] == 1.5
    assert values["cost"]["toy-publish"] is None
    assert path == root / "docs" / "results" / "toy" / "fsdd.json"
    assert values["summary"] == {"accuracy_person": 0.5, "n_person": 4}
    assert values["leakage"] is None
    assert values["tables"]["folds"] == [
        {"fold": 0, "test_group": "theo", "accuracy": 0.25},
        {"fold": 1, "test_group": None, "accuracy": None},
    ]
    assert values["data"] == {
        "data/raw/fsdd": "abc.dir",
        "data/toy/prepare/manifest.parquet": "def",
    }
    assert values["params"] == {"common.seed": 0, "toy.source": "fsdd", "toy.size": 3}
    assert set(values["versions"]) >= {"python", "torch", "captum", "dvc", "mlflow"}
    assert set(values["machine"]) == {"cpu", "cores", "system", "architecture", "gpu"}
    assert (
        os.uname().nodename not in json.dumps(values["machine"]) if hasattr(os, "uname") else True
    )


@pytest.mark.usefixtures("fresh")
def test_groups_of_ones_own_recordings_stay_unnamed(root: Path) -> None:
    (root / "params.yaml").write_text(f"{COMMON}toy: {{source: my_words}}\n")
    values = json.loads(record.record(root, "toy", "mine", "make repro").read_text())
    assert values["tables"]["folds"][0] == {"fold": 0, "accuracy": 0.25}


@pytest.mark.usefixtures("fresh")
def test_scores_by_training_seed_fit_into_a_record(root: Path) -> None:
    """The largest profile: two cells, three seeds, seven methods with baseline, nine metrics."""
    head = "cell,protocol,variant,model_seed,method,baseline,metric,value\n"
    rows = [
        f"audio-{size},speaker,trained,{seed},method{method},none,metric{metric},0.5\n"
        for size in (128, 32)
        for seed in range(3)
        for method in range(7)
        for metric in range(9)
    ]
    (root / "metrics" / "toy" / "seeds.csv").write_text(head + "".join(rows))
    values = json.loads(record.record(root, "toy", "a", "make repro").read_text())
    assert len(values["tables"]["seeds"]) == len(rows)
    assert values["tables"]["seeds"][0]["model_seed"] == 0


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("person_id,score\na,1\n", "person_id name persons"),
        ("fold\n" + "1\n" * 501, "501 rows, at most 500"),
    ],
)
def test_tables_of_persons_and_long_tables_are_refused(
    root: Path, table: str, message: str
) -> None:
    (root / "metrics" / "toy" / "more.csv").write_text(table)
    with pytest.raises(record.RecordError, match=message):
        record.record(root, "toy", "a", "make repro")


def test_missing_results_and_bad_names_are_refused(root: Path) -> None:
    with pytest.raises(record.RecordError, match="need letters"):
        record.record(root, "toy", "../a", "make repro")
    (root / "metrics" / "toy" / "summary.json").unlink()
    with pytest.raises(record.RecordError, match="run `dvc repro toy-publish`"):
        record.record(root, "toy", "a", "make repro")


@pytest.mark.pipeline
def test_stale_results_are_refused(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").write_text(DVC_YAML)
    (tmp_path / "params.yaml").write_text(f"{COMMON}toy: {{source: x, size: 3}}\n")
    (tmp_path / "write.py").write_text(WRITE)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for command in (["git", "init", "-q"], ["dvc", "init", "-q"], ["dvc", "repro", "-q"]):
        subprocess.run(command, cwd=tmp_path, check=True, env=os.environ | {"PATH": path})
    assert record.record(tmp_path, "toy", "a", "dvc repro").is_file()
    (tmp_path / "params.yaml").write_text(f"{COMMON}toy: {{source: x, size: 4}}\n")
    with pytest.raises(record.RecordError, match=r"toy-publish\); run `dvc repro toy-publish`"):
        record.record(tmp_path, "toy", "a", "dvc repro")
