"""Whether DVC's cache still holds what it should.

DVC takes an object of its cache for intact as long as it is read-only: a damaged one is copied into
the workspace, called up to date, and stays when its stage runs again. Once it is gone, `dvc repro`
makes it anew.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sonolens.keys import locked_outs
from sonolens.params import load_yaml
from sonolens.sources import file_digest

Progress = Callable[[str, int, int | None], None]


class CacheError(RuntimeError):
    """DVC's cache cannot be found; the message says why."""


@dataclass(frozen=True)
class Damaged:
    """An object of the cache that is not what its name says; `path` is the file it stands for."""

    path: str
    stored: Path
    n_bytes: int


def damaged(root: Path, progress: Progress) -> tuple[int, list[Damaged]]:
    """How many objects of dvc.lock and of the .dvc files are in the cache, and the damaged ones.

    Objects that are not in the cache are no damage: they may lie in a remote.
    """
    stored = dict(_objects(root, _cache(root)))
    sizes = {place: place.stat().st_size for place in stored}
    done, found = 0, []
    for place, path in stored.items():
        if file_digest(place) != f"{place.parent.name}{place.stem}":
            found.append(Damaged(path, place, sizes[place]))
        done += sizes[place]
        progress("verify", done, sum(sizes.values()))
    return len(stored), found


def remove(objects: list[Damaged]) -> None:
    """Delete damaged objects, so that DVC misses them."""
    for item in objects:
        item.stored.unlink()


def _cache(root: Path) -> Path:
    command = [sys.executable, "-m", "dvc", "cache", "dir"]
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    answer = subprocess.run(
        command, cwd=root, capture_output=True, text=True, check=False, env=environment
    )
    if answer.returncode != 0:
        raise CacheError(f"`dvc cache dir` failed: {answer.stderr.strip()}")
    return root / answer.stdout.strip() / "files" / "md5"


def _objects(root: Path, cache: Path) -> Iterator[tuple[Path, str]]:
    """Objects that are in the cache, with the path below the root that they stand for."""
    outs = {path: md5 for path, (_, md5) in locked_outs(root).items()}
    for file in sorted((root / "data").rglob("*.dvc")):
        for out in load_yaml(file).get("outs", []):
            if "md5" in out:
                outs[(file.parent / out["path"]).relative_to(root).as_posix()] = out["md5"]
    for path, md5 in outs.items():
        place = cache / md5[:2] / md5[2:]
        if not place.is_file():
            continue
        yield place, path
        if md5.endswith(".dir"):
            yield from _members(place, path, cache)


def _members(listing: Path, path: str, cache: Path) -> Iterator[tuple[Path, str]]:
    try:
        rows = [(row["md5"], row["relpath"]) for row in json.loads(listing.read_bytes())]
    except (ValueError, KeyError, TypeError):
        return  # damaged itself, and found to be by its digest
    for md5, name in rows:
        place = cache / md5[:2] / md5[2:]
        if place.is_file():
            yield place, f"{path}/{name}"
