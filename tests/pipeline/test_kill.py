"""One `tiny` run killed in the middle of its stages, again and again: the end is the same.

Every kill first freezes the stage (SIGSTOP) at a condition that can be seen from outside, so that
it strikes in the middle however fast the machine is. With SONOLENS_SOAK=1 every stage is killed in
every way.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

import project
from sonolens.parallel import POLL_S, is_alive
from sonolens.pipeline import load_pipeline

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.skipif(os.name != "posix", reason="signals and process groups of POSIX"),
]

TIMEOUT_S = 300.0
SLICE_S = {"publish": 0.005}  # its middle is a hundredth of a second
OTHER_SLICE_S = 0.05
LIVE = ("train", "explain")
# (stage, what is killed): in the order of the pipeline, as a finished stage runs no more.
PLAN = [
    ("prepare", "dvc"),
    ("train", "ctrl-c"),
    ("train", "stage"),
    ("explain", "dvc"),
    ("score", "worker"),
    ("score", "queue"),
    ("publish", "ctrl-c"),
]
SOAK = [
    (stage, kind)
    for stage in ("prepare", "train", "explain", "score", "publish")
    for kind in ("worker", "dvc", "stage", "queue", "ctrl-c")  # workers while there is much to do
    if kind != "worker" or stage not in ("prepare", "publish")  # they have no workers
]
SECOND_AT = ("train", "ctrl-c")
SOAKING = os.environ.get("SONOLENS_SOAK") == "1"


def wait_for(condition: Callable[[], Any], what: str, interval_s: float = 0.05) -> Any:
    end = time.monotonic() + TIMEOUT_S
    while not (found := condition()):
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(interval_s)
    return found


@dataclass
class Disturbed:
    """A repository whose results, cache and tracker are gone, and what runs in it."""

    root: Path
    started: list[subprocess.Popen] = field(default_factory=list)
    stopped: list[psutil.Process] = field(default_factory=list)
    n_logs: int = 0

    @property
    def scratch(self) -> Path:
        return self.root / ".dvc/tmp/sonolens"

    def start(self, *command: str) -> tuple[subprocess.Popen, Path]:
        """A command in a session of its own, as in a terminal; and its log."""
        self.n_logs += 1
        log = self.root.parent / f"{self.n_logs}.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                command, cwd=self.root, env=project.environment(), start_new_session=True,
                stdout=stream, stderr=subprocess.STDOUT,
                # A shell's background ignores it, and its children inherit that.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            )  # fmt: skip
        self.started.append(process)
        return process, log

    def frozen(
        self, stage: str, process: subprocess.Popen | None, log: Path | None, n_done: int
    ) -> int:
        """Process id of the stage, stopped in the middle of its work, after `n_done` pieces."""

        def at_work() -> tuple[psutil.Process, Path] | None:
            if process is not None and process.poll() is not None:
                assert log is not None
                pytest.fail(f"{stage} was not reached\n{log.read_text()[-6000:]}")
            for scratch in (self.scratch, *self.root.glob(".dvc/tmp/exps/*/.dvc/tmp/sonolens")):
                for staging in scratch.glob(f"staging/digits-{stage}-*"):
                    pid = int(staging.name.rpartition("-")[2])
                    if is_alive(pid):  # one killed before has left its folder
                        return psutil.Process(pid), staging
            return None

        # It goes on by slices and is looked at while it stands still: a busy machine would let a
        # short middle pass between two looks.
        slice_s = SLICE_S.get(stage, OTHER_SLICE_S)
        found, staging = wait_for(at_work, f"the start of {stage}", slice_s)
        self.stopped.append(found)
        end = time.monotonic() + TIMEOUT_S
        found.suspend()
        while self._n_done(stage, staging) < n_done:
            assert time.monotonic() < end, f"waited in vain for the middle of {stage}"
            found.resume()
            time.sleep(slice_s)
            found.suspend()
        return int(found.pid)

    def _n_done(self, stage: str, staging: Path) -> int:
        """Files that the stage with this staging folder has written, as far as they are counted."""
        places = {
            "train": [(self.scratch / "ckpt", "*/*/last.ckpt"), (staging, "**/*")],
            "explain": [(self.scratch / "shards", "*/*.npz")],
            "score": [(self.scratch / "shards", "*/*.npz")],
            "publish": [(self.root / "mlartifacts", "digits/*/artifacts/*/**/*")],
        }.get(stage, [(staging, "**/*")])
        number = 0
        with suppress(FileNotFoundError):  # the stage moves and removes files
            begun = psutil.Process(int(staging.name.rpartition("-")[2])).create_time() * 1e9
            for folder, pattern in places:
                for path in folder.glob(pattern):
                    status = path.stat()
                    number += stat.S_ISREG(status.st_mode) and status.st_ctime_ns > begun
        return number

    def runs(self) -> tuple[dict[str, str], dict[str, str]]:
        """Status of each top-level row and of each child, by run id."""
        if not (self.root / "mlflow.db").exists():
            return {}, {}
        with closing(sqlite3.connect(self.root / "mlflow.db")) as database:
            query = (
                "SELECT runs.run_uuid, status, value FROM runs JOIN tags USING (run_uuid) "
                "WHERE tags.key = 'sonolens.level'"
            )
            found = database.execute(query).fetchall()
        tops = {run: status for run, status, level in found if level == "experiment"}
        return tops, {run: status for run, status, level in found if level == "stage"}

    def end(self) -> None:
        for stage in self.stopped:
            with suppress(psutil.NoSuchProcess):
                stage.kill()
        project.run_any(self.root, "dvc", "queue", "stop", "--kill")
        for process in self.started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@pytest.fixture
def disturbed(repro: Path, tmp_path: Path) -> Iterator[Disturbed]:
    root = project.copy(repro, tmp_path / "killed")
    for spec in load_pipeline(root).values():
        for path in spec.outputs:
            shutil.rmtree(root / path) if (root / path).is_dir() else (root / path).unlink()
    shutil.rmtree(root / ".dvc/cache")
    found = Disturbed(root)
    yield found
    found.end()


def kill(here: Disturbed, stage: str, kind: str) -> None:
    """Run the pipeline as far as the middle of `stage` and end it there; check what is left."""
    process = log = None
    if kind == "queue":
        enqueue(here)
    else:
        process, log = here.start("dvc", "repro")
    n_done = {"train": 2, "explain": 3, "score": 11} if kind == "worker" else {"explain": 3}
    pid = here.frozen(stage, process, log, n_done.get(stage, 1))
    before, children_before = here.runs()
    assert len(before) <= 1
    if (stage, kind) == SECOND_AT:
        assert process is not None
        refuse_a_second(here, process)
    family = [pid]
    if kind == "worker":
        assert log is not None
        family += kill_worker(pid, log)
    else:
        family += [child.pid for child in psutil.Process(pid).children(recursive=True)]
    if process is None:
        project.run(here.root, "dvc", "queue", "kill", "again")
    elif kind == "ctrl-c":
        os.killpg(process.pid, signal.SIGINT)
    elif kind == "dvc":
        process.kill()
        process.wait()
        time.sleep(2 * POLL_S)  # the stage looks as soon as it goes on
    elif kind == "stage":
        os.kill(pid, signal.SIGKILL)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
    if process is not None:
        assert process.wait(TIMEOUT_S) != 0
    wait_for(lambda: not any(map(is_alive, family)), "the end of the stage and its workers")
    if process is None:
        wait_for(lambda: "Failed" in queue_status(here), "the end of the queued experiment", 1)

    tops, children = here.runs()
    assert len(tops) <= 1
    assert before.keys() <= tops.keys()
    assert children_before.keys() <= children.keys()
    interrupted = {"worker": "FAILED", "stage": None}.get(kind, "KILLED")
    for run, status in tops.items():
        assert status == (interrupted or before[run])
    for run, status in children_before.items():
        if status == "RUNNING" and interrupted is not None:
            assert children[run] == interrupted
    if stage in LIVE:
        assert "RUNNING" in children_before.values()
        assert "RUNNING" in before.values()
    if kind == "ctrl-c":
        assert log is not None
        assert f"digits-{stage}: interrupted; run the same command again" in log.read_text()
    if kind == "worker":
        assert log is not None
        assert "workers was ended from outside (SIGKILL" in log.read_text()


def kill_worker(pid: int, log: Path) -> list[int]:
    """Kill a worker of the frozen stage `pid`; the ids of all of them."""

    def workers() -> list[int]:
        try:
            children = psutil.Process(pid).children(recursive=True)
            return [item.pid for item in children if "popen_loky" in " ".join(item.cmdline())]
        except psutil.NoSuchProcess:
            return []

    # Workers are started for long work only, and so long the present piece will seem to take.
    time.sleep(30 if SOAKING else 8)
    os.kill(pid, signal.SIGCONT)
    wait_for(lambda: len(workers()) == 2 or not is_alive(pid), "workers")
    found = workers()
    assert found, f"no workers were started\n{log.read_text()[-3000:]}"
    os.kill(found[0], signal.SIGKILL)
    return found


def refuse_a_second(here: Disturbed, process: subprocess.Popen) -> None:
    """A second `dvc repro` beside a running one ends with a message and leaves the first alone."""
    before = sorted(path for path in here.root.rglob("*") if ".dvc/tmp" not in path.as_posix())
    second = project.run_any(here.root, "dvc", "repro")
    assert second.returncode != 0
    assert f"PID {process.pid}" in second.stdout + second.stderr
    after = sorted(path for path in here.root.rglob("*") if ".dvc/tmp" not in path.as_posix())
    assert after == before
    assert process.poll() is None


def enqueue(here: Disturbed) -> None:
    project.run(here.root, "dvc", "exp", "run", "--queue", "--name", "again")
    process, log = here.start("dvc", "queue", "start")
    assert process.wait(TIMEOUT_S) == 0, log.read_text()


def queue_status(here: Disturbed) -> str:
    return project.run_any(here.root, "dvc", "queue", "status").stdout


def check_end(here: Disturbed) -> None:
    """Hashes are those of the undisturbed run, a complete row per study, nothing left over."""
    root = here.root
    changed = project.run(root, "git", "status", "--porcelain", "--untracked-files=all")
    assert not [line for line in changed.splitlines() if "dvc_plots" not in line], changed
    project.run(root, "dvc", "status", "--quiet")
    n_study = len(list((root / "metrics").glob("*/published.json")))
    assert list(here.runs()[0].values()) == ["FINISHED"] * n_study
    assert set(here.runs()[1].values()) == {"FINISHED"}
    with closing(sqlite3.connect(root / "mlflow.db")) as database:
        doubled = database.execute(
            "SELECT run_uuid, key, step, count(*) FROM metrics WHERE key LIKE '%/%' "
            "AND key NOT LIKE 'system/%' GROUP BY run_uuid, key, step HAVING count(*) > 1"
        ).fetchall()
    assert doubled == []
    assert not list((here.scratch / "staging").glob("*"))
    assert not list((here.scratch / "ckpt").glob("*/"))
    assert not [path for path in root.rglob(".*.part") if ".dvc/tmp" not in path.as_posix()]


def test_a_killed_run_ends_like_an_undisturbed_one(disturbed: Disturbed) -> None:
    for stage, kind in SOAK if SOAKING else PLAN:
        begun = time.monotonic()
        kill(disturbed, stage, kind)
        print(f"{stage:8} {kind:8} {time.monotonic() - begun:5.1f} s", flush=True)
    enqueue(disturbed)
    wait_for(lambda: "Success" in queue_status(disturbed), "the queued experiment", 2)
    refs = project.run(disturbed.root, "git", "for-each-ref", "--format=%(refname)").split()
    (ref,) = (ref for ref in refs if ref.endswith("/again"))
    project.run(disturbed.root, "git", "diff", "--exit-code", "HEAD", ref)
    project.run(disturbed.root, "dvc", "repro")
    check_end(disturbed)
