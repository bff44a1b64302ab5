"""Experiments of DVC: each runs its own code and params and is one complete row in MLflow."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import yaml

import project
from sonolens import track
from sonolens.params import flatten
from sonolens.track_files import revisions

pytestmark = pytest.mark.pipeline

STUDY = "src/sonolens/studies/digits"
# Relative, so that it says where relative addresses start: the queue runs in temporary clones.
STORE = "sqlite:///team.db"
RESAMPLES = "digits.report.n_resamples"
WAIT_S = 300

MARKED = """

from sonolens.store import read_json, write_json
from sonolens.studies.digits.marker import MARKER

_unmarked = run


def run(params, files, record):
    _unmarked(params, files, record)
    path = files.out("metrics/digits/summary.json")
    write_json(path, read_json(path) | {"marker": MARKER})
"""
BROKEN = """

def run(params, files, record):
    raise ArithmeticError("this report is broken")
"""
STUCK = """

_free = run


def run(params, files, record):
    import time
    from pathlib import Path

    flag = Path({flag!r})
    if flag.exists():
        flag.with_suffix(f".{{__import__('os').getpid()}}").touch()
    while flag.exists():
        time.sleep(0.1)
    _free(params, files, record)
"""


def version(root: Path, **more: str) -> None:
    """Stage files as committed, with `more` appended to those named."""
    for name in ("explain", "report", "publish"):
        text = project.run(root, "git", "show", f"HEAD:{STUDY}/{name}.py")
        (root / STUDY / f"{name}.py").write_text(text + more.get(name, ""))


def wait_for(what: str, check: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        if found := check():
            return found
        time.sleep(0.5)
    raise AssertionError(f"{what}: not within {WAIT_S} s")


def statuses(root: Path) -> dict[str, str]:
    """Status of each top-level row by name, read past MLflow, which others write to."""
    query = """select name, status from runs join tags using (run_uuid)
        where key = 'sonolens.level' and value = 'experiment'"""
    with sqlite3.connect(f"file:{root}/team.db?mode=ro", uri=True) as database:
        return dict(database.execute(query).fetchall())


def rows(root: Path) -> dict[str, Any]:
    """Top-level rows by name."""
    store = track.open_store(root)
    found = store.rows(store.experiment("digits"), {})
    assert len({run.info.run_name for run in found}) == len(found)
    return {run.info.run_name: run for run in found}


def shown(root: Path) -> dict[str, Any]:
    """Finished experiments in `dvc exp show`, by name."""
    command = ("dvc", "exp", "show", "--json")
    found = {}
    for revision in json.loads(project.run_any(root, *command).stdout):
        for experiment in revision.get("experiments") or ():
            if experiment["name"] and experiment["revs"][0]["data"]:
                found[experiment["name"]] = experiment["revs"][0]["data"]
    return found


def curves(client: Any, row: Any) -> dict[str, set[tuple[int, float]]]:
    """All points that a row has, by metric."""
    return {
        name: {
            (point.step, point.value) for point in client.get_metric_history(row.info.run_id, name)
        }
        for name in row.data.metrics
    }


def artefacts(row: Any) -> dict[str, bytes]:
    folder = Path(unquote(row.info.artifact_uri.removeprefix("file://")))
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def stuck_version(flag: Path) -> dict[str, str]:
    """Code alone is another; of publish.py too, as the explanations stay the same."""
    return {"explain": STUCK.format(flag=str(flag)), "publish": "\n# stuck\n"}


@pytest.fixture(scope="module")
def lab(repro: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy in whose queue experiments of three versions of the code ran side by side.

    Meanwhile the code and params of its workspace were others again.
    """
    # DVC 3.67 itself cannot write the cache's place into a temporary clone unless it is ASCII.
    root = project.copy(repro, tmp_path_factory.mktemp("lab") / "new sounds")
    flag = root.parent / "stuck"
    flag.touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", STORE)
        for name in ("SONOLENS_TRACKING", "DVC_EXP_NAME", "DVC_EXP_BASELINE_REV", "DVC_ROOT"):
            patch.delenv(name, raising=False)
        try:
            fill_queue(root, flag)
            (root / STUDY / "marker.py").write_text("MARKER = 3\n")
            params = project.read_yaml(root / "params.yaml")
            params["digits"]["report"]["n_resamples"] = 104
            (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
            # The address is that of the process which starts the workers; they keep its output
            # open, so that nobody may wait for its end.
            subprocess.run(
                ["dvc", "queue", "start", "-j", "2"],
                cwd=root,
                env=project.environment(MLFLOW_TRACKING_URI=STORE),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=True,
            )
            wait_for("the stuck stage", lambda: list(root.parent.glob("stuck.*")))
            ended = {"two-a": "FINISHED", "two-b": "FINISHED", "broken": "FAILED"}
            wait_for("the queue", lambda: ended.items() <= statuses(root).items())
            # DVC 3.67 ends the worker with what it ran, and a task which that worker takes in its
            # last half second is lost: none may wait by now.
            project.run(root, "dvc", "queue", "kill", "stuck")
            ended["stuck"] = "KILLED"
            wait_for("the killed one", lambda: ended.items() <= statuses(root).items())
            wait_for("their commits", lambda: {"two-a", "two-b"} <= experiments(root))
            yield root
        finally:
            flag.unlink(missing_ok=True)
            project.run_any(root, "dvc", "queue", "stop", "--kill")


def fill_queue(root: Path, flag: Path) -> None:
    def enqueue(name: str, *flags: str) -> None:
        project.run(root, "dvc", "exp", "run", "--queue", "-n", name, *flags, "digits-publish")

    (root / STUDY / "marker.py").write_text("MARKER = 2\n")
    project.run(root, "git", "add", f"{STUDY}/marker.py")  # not committed: a new module
    version(root, **stuck_version(flag))
    enqueue("stuck")
    version(root, report=BROKEN)
    enqueue("broken")
    version(root, report=MARKED)
    enqueue("two-a", "-S", f"{RESAMPLES}=101")
    enqueue("two-b", "-S", f"{RESAMPLES}=102")


def experiments(root: Path) -> set[str]:
    return {place.name for place in revisions(root) if place.is_experiment}


def test_each_ran_the_code_and_params_it_was_queued_with(lab):
    found, figures = rows(lab), shown(lab)
    for name, n_resamples in {"two-a": 101, "two-b": 102}.items():
        row, data = found[name], figures[name]
        assert row.data.metrics["marker"] == 2
        assert row.data.params[RESAMPLES] == str(n_resamples)
        assert row.data.tags["sonolens.dvc_exps"] == name
        # DVC and MLflow say the same.
        params = data["params"]["params.yaml"]["data"]
        assert flatten({"digits": params["digits"]})[RESAMPLES] == n_resamples
        own = {path: content for path, content in data["metrics"].items() if "/digits/" in path}
        assert own
        for path, content in own.items():
            stem = Path(path).stem
            prefix = "" if stem == "summary" else f"{stem}."
            for metric, value in flatten(content["data"]).items():
                if isinstance(value, (bool, int, float)):
                    assert row.data.metrics[prefix + metric] == value
    assert not (lab / "mlflow.db").exists()  # the relative address starts in the main checkout
    assert not list((lab / ".dvc/tmp/exps").rglob("team.db"))


def test_what_came_from_the_cache_leaves_no_holes(lab):
    track.sync(lab)
    found = rows(lab)
    client = track.open_store(lab).client
    (base,) = (row for name, row in found.items() if name.startswith("digits-"))
    for name in ("two-a", "two-b"):
        row = found[name]
        assert row.data.params.keys() == base.data.params.keys()
        assert row.data.metrics.keys() - {"marker"} == base.data.metrics.keys()
        losses = {key: value for key, value in curves(client, row).items() if "loss" in key}
        assert losses
        assert losses == {key: curves(client, base)[key] for key in losses}
        assert artefacts(row).keys() == artefacts(base).keys()
        assert "`digits-train`: not run here" in row.data.tags["mlflow.note.content"]
        assert any(path.startswith("plots/pages/report/") for path in artefacts(row))


def test_failed_and_killed_ones_say_so(lab):
    found = rows(lab)
    assert found["broken"].info.status == "FAILED"
    assert found["broken"].data.tags["sonolens.error"] == "ArithmeticError: this report is broken"
    assert found["stuck"].info.status == "KILLED"


def test_repetition_adds_its_name_to_the_row(lab):
    version(lab, report=MARKED)
    (lab / STUDY / "marker.py").write_text("MARKER = 2\n")
    before = rows(lab)["two-a"]
    flags = ("-n", "twin", "-S", f"{RESAMPLES}=101", "digits-publish")
    project.run(lab, "dvc", "exp", "run", "--queue", *flags)
    project.run(lab, "dvc", "exp", "run", "--run-all", MLFLOW_TRACKING_URI=STORE)
    assert "twin" in experiments(lab)
    after = rows(lab)["two-a"]
    assert after.info.run_id == before.info.run_id
    assert after.data.tags["sonolens.dvc_exps"] == "twin,two-a"
    assert (after.info.start_time, after.info.end_time) == (
        before.info.start_time,
        before.info.end_time,
    )
    client = track.open_store(lab).client
    assert curves(client, after) == curves(client, before)


def test_killed_by_force_is_seen_and_taken_over(lab):
    flag = lab.parent / "stuck"
    for left in lab.parent.glob("stuck.*"):
        left.unlink()
    version(lab, **stuck_version(flag))
    (lab / "params.yaml").write_text(project.run(lab, "git", "show", "HEAD:params.yaml"))
    command = ["dvc", "exp", "run", "--temp", "-n", "again", "digits-publish"]
    process = subprocess.Popen(
        command,
        cwd=lab,
        env=project.environment(MLFLOW_TRACKING_URI=STORE),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for("the stuck stage", lambda: list(lab.parent.glob("stuck.*")))
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # DVC and the stage
        process.wait()
    killed = rows(lab)["stuck"]
    assert killed.info.status == "RUNNING"
    assert any("stuck is RUNNING, but its process is gone" in line for line in track.check(lab))
    assert "digits: stuck was RUNNING, its process is gone: KILLED" in track.sync(lab)
    assert rows(lab)["stuck"].info.status == "KILLED"

    flag.unlink()
    project.run(lab, *command, MLFLOW_TRACKING_URI=STORE)
    row = rows(lab)["stuck"]
    assert (row.info.run_id, row.info.status) == (killed.info.run_id, "FINISHED")
    assert row.data.tags["sonolens.dvc_exps"] == "again,stuck"
    assert "sonolens.error" not in row.data.tags


def test_whole_store_is_made_anew_from_git_and_dvc(lab, monkeypatch):
    track.sync(lab)
    found = {row.data.tags["sonolens.key"]: row for row in rows(lab).values()}
    found = {key: row for key, row in found.items() if row.info.status == "FINISHED"}
    assert len(found) >= 3
    client = track.open_store(lab).client
    before = {key: (curves(client, row), artefacts(row)) for key, row in found.items()}
    shutil.move(lab / "mlartifacts", lab.parent / "mlartifacts")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///anew.db")  # one is as empty as the other
    lines = track.sync(lab)
    assert not any("without" in line for line in lines), lines
    again = {row.data.tags["sonolens.key"]: row for row in rows(lab).values()}
    assert again.keys() == found.keys()
    client = track.open_store(lab).client
    for key, row in again.items():
        points, files = before[key]
        assert row.info.status == "FINISHED"
        assert row.data.params == found[key].data.params
        assert curves(client, row) == points
        # Other stages may have been added to dvc.lock after publishing.
        made = artefacts(row)
        assert made.keys() == files.keys()
        assert {name for name in made if made[name] != files[name]} <= {"dvc.lock"}
        tags, known = row.data.tags, found[key].data.tags
        assert tags["mlflow.source.git.commit"] == known["mlflow.source.git.commit"]
        # Git knows the names of those that came to an end.
        names = set(known.get("sonolens.dvc_exps", "").split(",")) & experiments(lab)
        assert set(filter(None, tags.get("sonolens.dvc_exps", "").split(","))) == names
    assert track.sync(lab) == track.check(lab)
