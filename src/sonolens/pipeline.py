"""dvc.yaml as data, and the folder of outputs a stage writes whole or not at all."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sonolens.params import ParamsError, load_yaml

MAIN_ROOT_MARK = (".dvc", "tmp", "exps")
LEFTOVER = re.compile(r"\..+\.\d+\.(part|old|new)")  # as in .dvcignore; see `store.move_all`
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageSpec:
    """A stage of dvc.yaml, `${…}` filled in from params.yaml; paths are relative to the root."""

    name: str
    cmd: str
    deps: tuple[str, ...]
    params: tuple[str, ...]
    outs: tuple[str, ...]
    metrics: tuple[str, ...]
    plots: tuple[str, ...]

    @property
    def outputs(self) -> tuple[str, ...]:
        return self.outs + self.metrics + self.plots

    @property
    def code(self) -> tuple[str, ...]:
        return tuple(path for path in self.deps if path.startswith("src/"))

    @property
    def data(self) -> tuple[str, ...]:
        return tuple(path for path in self.deps if not path.startswith("src/"))


def load_pipeline(root: Path, params: dict[str, Any] | None = None) -> dict[str, StageSpec]:
    """Stages of `root`/dvc.yaml by name, in file order."""
    values = params if params is not None else load_yaml(root / "params.yaml")
    stages = load_yaml(root / "dvc.yaml").get("stages") or {}
    return {name: _spec(name, body, values) for name, body in stages.items()}


def _spec(name: str, body: dict[str, Any], values: dict[str, Any]) -> StageSpec:
    def paths(kind: str) -> tuple[str, ...]:
        items = (
            next(iter(item)) if isinstance(item, dict) else item for item in body.get(kind, [])
        )
        return tuple(_interpolate(item, values) for item in items)

    return StageSpec(
        name,
        body["cmd"],
        paths("deps"),
        paths("params"),
        paths("outs"),
        paths("metrics"),
        paths("plots"),
    )


def _interpolate(text: str, values: dict[str, Any]) -> str:
    def look_up(match: re.Match[str]) -> str:
        value: Any = values
        for part in match[1].split("."):
            if not isinstance(value, dict) or part not in value:
                raise ParamsError(f"dvc.yaml: {match[0]} in {text} names no key of params.yaml")
            value = value[part]
        return str(value)

    return re.sub(r"\$\{([\w.]+)\}", look_up, text)


@dataclass
class StageFiles:
    """Paths a stage may read and write, and `key`, the content key of what it will make.

    Outputs go to a staging folder; `commit` moves them to their places when all have been written.
    """

    root: Path
    spec: StageSpec
    staging: Path
    key: str = ""

    def dep(self, path: str) -> Path:
        """A declared input. Raises KeyError when dvc.yaml does not list it."""
        if not any(path == dep or path.startswith(dep + "/") for dep in self.spec.deps):
            raise KeyError(
                f"dvc.yaml: stage {self.spec.name} reads {path}, which is not among its deps"
            )
        return self.root / path

    def out(self, path: str) -> Path:
        """Where to write a declared output. Raises KeyError when dvc.yaml does not list it."""
        if path not in self.spec.outputs:
            raise KeyError(
                f"dvc.yaml: stage {self.spec.name} writes {path}, which is not among its outs"
            )
        target = self.staging / path
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def commit(self) -> None:
        """Move all outputs to their places, or none. Raises RuntimeError when one is missing."""
        from sonolens.store import move_all  # pandas would slow down `--help`

        missing = [path for path in self.spec.outputs if not (self.staging / path).exists()]
        if missing:
            raise RuntimeError(f"stage {self.spec.name} did not write {', '.join(missing)}")
        move_all([(self.staging / path, self.root / path) for path in self.spec.outputs])


@contextmanager
def open_files(root: Path, spec: StageSpec, key: str = "") -> Iterator[StageFiles]:
    """Stage files whose staging folder is removed at the end; nothing is committed by itself.

    Only one process at a time may hold a stage's files: what killed ones left is removed.
    """
    for path in spec.outputs:
        _remove_leftovers(root / path)
    staging = root / ".dvc" / "tmp" / "sonolens" / "staging" / f"{spec.name}-{os.getpid()}"
    for left in staging.parent.glob(f"{spec.name}-*"):
        if left.name.removeprefix(f"{spec.name}-").isdecimal():
            shutil.rmtree(left)
    staging.mkdir(parents=True)
    try:
        yield StageFiles(root, spec, staging, key)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _remove_leftovers(place: Path) -> None:
    # Also what was set aside: DVC sees that an output is missing and makes it anew.
    for path in place.parent.glob(".*") if place.parent.is_dir() else ():
        if path.name.startswith(f".{place.name}.") and LEFTOVER.fullmatch(path.name):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


@contextmanager
def owned(folder: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold a folder that several experiments may share, e.g. of checkpoints by content key.

    Yields
    ------
    bool
        Whether it is held: without `wait` another process may hold it.
    """
    from filelock import FileLock, Timeout

    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if not wait:
            yield False
            return
        log.info("%s is held by another process; waiting for its end", lock.lock_file)
        lock.acquire()
    try:
        folder.mkdir(exist_ok=True)
        yield True
    finally:
        lock.release()


def main_root(root: Path) -> Path:
    """The user's checkout.

    `root` itself, or the one whose .dvc/tmp/exps holds it, or its worktree's.
    """
    import subprocess

    parts = root.resolve().parts
    for start in range(len(parts) - len(MAIN_ROOT_MARK)):
        if parts[start : start + len(MAIN_ROOT_MARK)] == MAIN_ROOT_MARK:
            root = Path(*parts[:start])
            break
    command = [
        "git",
        "-C",
        str(root),
        "rev-parse",
        "--show-prefix",
        "--path-format=absolute",
        "--git-common-dir",
    ]
    # A hook of git names its own repository in the environment.
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("GIT_DIR", "GIT_WORK_TREE")
    }
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment
        )
    except FileNotFoundError:  # no git here
        return root.resolve()
    prefix, _, common = answer.stdout.removesuffix("\n").partition("\n")
    if answer.returncode == 0 and Path(common).name == ".git":
        return Path(common).parent / prefix
    return root.resolve()


def scratch(root: Path, *parts: str) -> Path:
    """A folder below .dvc/tmp/sonolens of the main checkout; it survives temporary experiments."""
    folder = main_root(root).joinpath(".dvc", "tmp", "sonolens", *parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
