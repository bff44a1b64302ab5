"""Content keys: equal params, code and data, equal key.

The same in a workspace, a temporary clone and a commit.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sonolens.parallel import resolve_device
from sonolens.params import load_yaml
from sonolens.pipeline import LEFTOVER, StageSpec, load_pipeline
from sonolens.sources import content_key, file_digest


class KeyedFileError(RuntimeError):
    """A file that belongs to a key is missing; the message names it."""


@dataclass
class Digests:
    """MD5s of a pipeline's inputs, each read once; what is absent is looked up in dvc.lock."""

    root: Path
    _known: dict[str, str | None] = field(default_factory=dict)
    _locked: dict[str, str] | None = None

    def of(self, path: str) -> str | None:
        """Digest of `path` below the root; None when it is neither there nor in dvc.lock."""
        if path not in self._known:
            place = self.root / path
            if path.startswith("data/raw/") and place.exists():
                self._known[path] = source_digest(place)
            else:
                self._known[path] = dvc_digest(place) if place.exists() else self._from_lock(path)
        return self._known[path]

    def _from_lock(self, path: str) -> str | None:
        if self._locked is None:
            lock = self.root / "dvc.lock"
            stages = load_yaml(lock).get("stages", {}).values() if lock.is_file() else []
            entries = [
                entry
                for stage in stages
                for kind in ("deps", "outs")
                for entry in stage.get(kind, [])
            ]
            self._locked = {entry["path"]: entry["md5"] for entry in entries if "md5" in entry}
        return self._locked.get(path)


def dvc_digest(path: Path) -> str:
    """MD5 of a file or, with the ending `.dir`, of a folder, as DVC writes it to dvc.lock.

    Always read from the content: dvc.lock knows nothing of a file changed by hand since.
    """
    if not path.is_dir():
        return file_digest(path)
    files = [
        file
        for file in path.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts and file.name != ".gitignore"
        if not any(LEFTOVER.fullmatch(part) for part in file.relative_to(path).parts)
    ]
    rows = [
        {"md5": file_digest(file), "relpath": file.relative_to(path).as_posix()} for file in files
    ]
    text = json.dumps(sorted(rows, key=lambda row: row["relpath"]), sort_keys=True)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() + ".dir"


def source_digest(path: Path) -> str:
    """Digest of raw data; of what DVC tracks it takes the MD5 in the `.dvc` file, unread."""
    if not path.is_dir():
        return file_digest(path)
    parts: dict[str, str] = {}
    for folder, folders, files in os.walk(path):
        here = Path(folder)
        tracked: dict[str, str] = {}
        for name in files:
            if name.endswith(".dvc"):
                outs = load_yaml(here / name).get("outs", [])
                tracked |= {out["path"]: out["md5"] for out in outs if "md5" in out}
        folders[:] = sorted(
            name for name in folders if name not in tracked and name != "__pycache__"
        )
        read = [
            name
            for name in files
            if name not in tracked and not name.endswith((".dvc", ".gitignore"))
        ]
        found = tracked | {name: file_digest(here / name) for name in read}
        parts |= {
            (here / name).relative_to(path).as_posix(): digest for name, digest in found.items()
        }
    return content_key(files=parts)


def experiment_key(
    root: Path,
    params: dict[str, Any],
    study: str,
    *,
    digests: Digests | None = None,
    _above: tuple[str, ...] = (),
) -> str:
    """Key of a study's row, known before its first stage runs.

    Made of the study's params and `common`, the source files its stages list, its raw data, and the
    keys of other studies whose outputs it reads. Never of the place, the device or the workers.
    """
    digests = digests or Digests(root)
    pipeline = load_pipeline(root, params)
    own = [spec for spec in pipeline.values() if study_of(spec) == study]
    if not own:
        raise KeyedFileError(
            f"dvc.yaml: no stage named {study}-…, found {', '.join(pipeline) or 'none'}"
        )
    raw: dict[str, str | None] = {}
    others: set[str] = set()
    for path in sorted({path for spec in own for path in spec.data}):
        makers = {study_of(spec) for spec in pipeline.values() if makes(spec, path)}
        if not makers:
            raw[path] = digests.of(path)
        others |= makers - {study, *_above}
    return content_key(
        study=study,
        params={study: params.get(study, {}), "common": params.get("common", {})},
        code={
            path: _code_digest(root, path)
            for path in sorted({path for spec in own for path in spec.code})
        },
        raw=raw,
        studies={
            name: experiment_key(root, params, name, digests=digests, _above=(*_above, study))
            for name in sorted(others)
        },
    )


def stage_key(
    root: Path,
    spec: StageSpec,
    params: dict[str, Any],
    *,
    cell: str | None = None,
    device: str = "cpu",
    digests: Digests | None = None,
) -> str:
    """Key of one stage: its listed params, source files, inputs, cell and kind of device."""
    digests = digests or Digests(root)
    return content_key(
        stage=spec.name,
        cell=cell or "main",
        device=device,
        params={name: look_up(params, name) for name in spec.params},
        code={path: _code_digest(root, path) for path in spec.code},
        data={path: digests.of(path) for path in spec.data},
    )


def device_kind(params: dict[str, Any], *, load_torch: bool = False) -> str:
    """`cpu` or `cuda`; `auto` asks torch, which is imported for that only when `load_torch`.

    What is asked for by name is taken at its word: a key can be made where the device is absent.
    """
    asked = str(params["runtime"]["device"])
    if asked != "auto":
        return asked
    return resolve_device(asked) if load_torch or sys.modules.get("torch") is not None else "cpu"


def study_of(spec: StageSpec) -> str:
    """`digits` of the stage `digits-train`."""
    return spec.name.split("-", 1)[0]


def stage_and_cell(spec: StageSpec) -> tuple[str, str | None]:
    """Stage and cell of a command `python src/stage.py STUDY STAGE [CELL]`."""
    words = shlex.split(spec.cmd)[2:]
    stage = words[1] if len(words) > 1 else spec.name.split("-", 1)[-1]
    return stage, words[2] if len(words) > 2 and not words[2].startswith("-") else None


def makes(spec: StageSpec, path: str) -> bool:
    """Whether `path` is, holds or lies in an output of the stage."""
    return any(
        path == out or path.startswith(out + "/") or out.startswith(path + "/")
        for out in spec.outputs
    )


def _code_digest(root: Path, path: str) -> str:
    place = root / path
    if not place.exists():
        raise KeyedFileError(
            f"{place}: not found, but dvc.yaml lists it; correct the deps or `git add` the file"
        )
    return file_digest(place)


def look_up(params: dict[str, Any], name: str) -> Any:
    """Value at a dotted name."""
    value: Any = params
    for part in name.split("."):
        value = value[part]
    return value
