"""Runs one stage of dvc.yaml: guard, params, record, the stage itself, outputs written whole."""

from __future__ import annotations

import argparse
import hashlib
import importlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import create_model

from sonolens import cost, errors, interrupts, keys, parallel
from sonolens import params as base
from sonolens.pipeline import (
    MAIN_ROOT_MARK,
    StageFiles,
    StageSpec,
    load_pipeline,
    main_root,
    open_files,
    owned,
    scratch,
)

WAIT_S = interrupts.GRACE_S + 10
# DVC sets it for the commands it runs.
RUN_BY_DVC = "DVC_STAGE"
log = logging.getLogger(__name__)


class StageError(RuntimeError):
    """The stage cannot run here; the message says what was found, needed and what to do."""


def main(arguments: Sequence[str]) -> int:
    """Entry of src/stage.py. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python src/stage.py", description="Run one stage of the pipeline."
    )
    parser.add_argument("study", choices=studies())
    parser.add_argument("stage", help="stage of the study, as in dvc.yaml")
    parser.add_argument("cell", nargs="?", help="cell of the stage, where it has several")
    asked = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    name = "-".join(part for part in (asked.study, asked.stage, asked.cell) if part)
    try:
        with interrupts.caught():
            interrupts.end_with_dvc()
            run(Path.cwd(), asked.study, asked.stage, asked.cell)
    except KeyboardInterrupt:
        print(f"{name}: interrupted; run the same command again to go on", file=sys.stderr)
        return 130
    except Exception as error:
        message = errors.describe(error)
        if message is None:
            raise  # not foreseen: the traceback is the message
        print(f"{name}: {message}", file=sys.stderr)
        return 1
    finally:
        _tell_restorable(Path.cwd(), name)
    return 0


def _tell_restorable(root: Path, name: str) -> None:
    """DVC removes a stage's outputs before it runs; say how those of a failed one come back."""
    if RUN_BY_DVC not in os.environ:
        return
    try:
        spec = load_pipeline(root)[name]
        gone = [path for path in spec.outputs if not (root / path).exists()]
        known = keys.locked_outs(root, name)
    except (base.ParamsError, KeyError):  # what is wrong there has been told already
        return
    gone = [path for path in gone if path in known]
    command = ["git", "ls-files", "--", *gone]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False).stdout
    in_git = [path for path in gone if path in listed.splitlines()]
    cached = [path for path in gone if path not in in_git]
    ways = [f"`dvc checkout {' '.join(cached)}`"] if cached else []
    ways += [f"`git restore {' '.join(in_git)}`"] if in_git else []
    if ways:
        print(
            f"{name}: DVC had removed the earlier results before the run; to have them back: "
            + " and ".join(ways),
            file=sys.stderr,
        )


def studies() -> list[str]:
    """Names of the studies: the folders below `studies` that have a params.py."""
    return sorted(
        path.parent.name for path in (Path(__file__).parent / "studies").glob("*/params.py")
    )


def params_model() -> type[base.Section]:
    """Model of params.yaml, composed of `runtime`, `common` and the studies' sections."""
    sections: dict[str, Any] = {
        study: (importlib.import_module(f"sonolens.studies.{study}.params").Params, ...)
        for study in studies()
    }
    return create_model(
        "AllParams",
        __base__=base.Section,
        runtime=(base.Runtime, ...),
        common=(base.Common, ...),
        **sections,
    )


def load_params(root: Path) -> Any:
    """All of params.yaml, checked. Raises ParamsError that names each wrong key."""
    return base.validate(base.load_yaml(root / "params.yaml"), params_model(), "params.yaml")


def run(root: Path, study: str, stage: str, cell: str | None = None) -> None:
    """Run one stage in `root`, the folder with dvc.yaml."""
    guard(root)
    _need_history(root)
    values = base.load_yaml(root / "params.yaml")
    checked = base.validate(values, params_model(), "params.yaml")
    name = "-".join(part for part in (study, stage, cell) if part)
    pipeline = load_pipeline(root, values)
    if name not in pipeline:
        raise StageError(f"dvc.yaml: no stage {name}; it has {', '.join(pipeline)}")
    spec = pipeline[name]
    _need_inputs(root, spec)
    digests = keys.Digests(root)
    if RUN_BY_DVC in os.environ:
        _need_intact(root, spec, digests)
    stage_params = base.StageParams(getattr(checked, study), checked.common, checked.runtime)
    module = importlib.import_module(f"sonolens.studies.{study}.{stage}")
    track = importlib.import_module("sonolens.track")
    device = keys.device_kind(values, load_torch=stage.startswith(track.LIVE_STAGES))
    key = keys.stage_key(root, spec, values, cell=cell, device=device, digests=digests)
    checkpoints = scratch(root, "ckpt") / key
    resumed = checkpoints.exists()
    started = time.time()
    with (
        _alone(root, name),
        open_files(root, spec, key) as files,
        track.open_record(root, spec, values, study=study, stage=stage, cell=cell) as record,
    ):
        _unpublish(root, study, stage)
        parallel.set_threads(checked.runtime.threads)
        with interrupts.caught():  # nothing that was broken off is recorded as failed or finished
            module.run(stage_params, files, record)
        files.commit()
    ended = time.time()
    if not resumed:
        cost.note(root, spec, key, ended - started)
    if checkpoints.exists():  # what a kill would have been resumed from
        with owned(checkpoints, wait=False) as ours:
            if ours:  # no other experiment has begun to train the same
                shutil.rmtree(checkpoints)
    track.note_stage(root, spec, values, started, ended, cell=cell)


def redraw(root: Path, study: str, folder: Path) -> list[Path]:
    """Draw the pictures of `<study>-report` for print: PDF and PNG of 300 dpi in `folder`/<study>.

    They show what the workspace holds now; the stage's own outputs stay as they are.

    Raises
    ------
    StageError
        There is no such stage, or it lacks inputs.
    """
    guard(root)
    values = base.load_yaml(root / "params.yaml")
    checked = base.validate(values, params_model(), "params.yaml")
    pipeline, name = load_pipeline(root, values), f"{study}-report"
    if name not in pipeline:
        known = [other for other in pipeline if other.endswith("-report")]
        raise StageError(f"dvc.yaml: no stage {name}; it has {', '.join(known)}")
    spec = pipeline[name]
    _need_inputs(root, spec)
    figures = importlib.import_module("sonolens.report.figures")
    track = importlib.import_module("sonolens.track")
    module = importlib.import_module(f"sonolens.studies.{study}.report")
    with tempfile.TemporaryDirectory() as staging, figures.publication(folder / study):
        module.run(
            base.StageParams(getattr(checked, study), checked.common, checked.runtime),
            StageFiles(root, spec, Path(staging)),
            track.Record(),
        )
    return sorted(path for path in (folder / study).iterdir() if path.suffix in (".pdf", ".png"))


def _unpublish(root: Path, study: str, stage: str) -> None:
    """Have `publish` run after this stage, also where it makes just what git had already.

    The first run in a fresh clone does; without `publish` its row would stay incomplete.
    """
    published = root / "metrics" / study / "published.json"
    if stage != "publish" and published.exists():
        published.unlink()


def guard(root: Path) -> None:
    """Refuse another checkout's code: its numbers would be published under this one's name."""
    found, needed = Path(__file__).resolve().parent, (root / "src" / "sonolens").resolve()
    if found != needed:
        raise StageError(
            f"the imported package lies in {found}, need {needed}; start stages as "
            "`python src/stage.py` from the folder that holds dvc.yaml"
        )


def _need_history(root: Path) -> None:
    """Refuse to compute what DVC would drop without a word."""
    main = main_root(root)
    temporary = root.resolve().is_relative_to(main.joinpath(*MAIN_ROOT_MARK))
    if temporary and (main / ".git" / "shallow").is_file():
        raise StageError(
            f"{main} is a shallow clone, from which DVC loses the results of temporary and queued "
            "experiments; `git fetch --unshallow` first, or run in place (without --temp, --queue)"
        )


def _need_inputs(root: Path, spec: StageSpec) -> None:
    missing = [path for path in spec.deps if not (root / path).exists()]
    if missing:
        raise StageError(
            f"missing input {', '.join(missing)}; `dvc repro {spec.name}` makes what stages make, "
            "`dvc checkout` brings back what was made, and `sonolens data list` names the sources"
        )


def _need_intact(root: Path, spec: StageSpec, digests: keys.Digests) -> None:
    """Refuse inputs that are not what their stages made: DVC never reads its cache again."""
    for path, (maker, needed) in keys.locked_outs(root).items():
        if not any(path == dep or path.startswith(dep + "/") for dep in spec.data):
            continue
        found = digests.of(path)
        if found != needed:
            raise StageError(
                f"{path}: found content with MD5 {found}, but {maker} made {needed} (dvc.lock). "
                "`sonolens data verify` tells whether DVC's cache is damaged, and clears it; "
                f"if you changed it on purpose, `dvc commit {maker}`"
            )


@contextmanager
def _alone(root: Path, name: str) -> Iterator[None]:
    """One run of a stage per checkout: a second writer would mix its outputs with the first's."""
    from filelock import FileLock, Timeout

    place = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:12]
    path = scratch(root, "locks") / f"{name}-{place}.lock"
    holder = path.with_suffix(".pid")  # of the `dvc` above the stage, with which it ends
    lock = FileLock(path)
    try:
        with suppress(Timeout):
            lock.acquire(timeout=0)
        if not lock.is_locked:
            pid = int(holder.read_text() or 0) if holder.exists() else 0
            if pid and parallel.is_alive(pid):
                raise StageError(
                    f"process {pid} runs this stage in this folder; wait for its end or stop it"
                )
            log.info("a run of this stage whose `dvc` is gone has not ended yet; waiting for it")
            lock.acquire(timeout=WAIT_S)
    except Timeout as error:
        raise StageError(
            f"an earlier run of this stage goes on in this folder, after {WAIT_S:.0f} s too; "
            "wait for its end or stop it"
        ) from error
    try:
        holder.write_text(str(interrupts.dvc_process() or os.getpid()))
        yield
    finally:
        lock.release()
