"""Finished pieces of an explain or score stage, by content key: a new method computes only itself.

A shard is an npz of named arrays, written whole; its CRCs tell a damaged one, which counts as
absent. SONOLENS_FRESH=1 in the environment makes every shard count as absent.
"""

from __future__ import annotations

import logging
import os
import time
import zipfile
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sonolens.store import whole

FRESH = "SONOLENS_FRESH"
MAX_BYTES = 2 * 2**30
ABANDONED_S = 600.0  # without a byte; a shard takes seconds to write
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shards:
    """Shards in `folder` (`pipeline.scratch(root, "shards")`), together at most `max_bytes`."""

    folder: Path
    max_bytes: int = MAX_BYTES

    def read(self, key: str) -> dict[str, np.ndarray] | None:
        """Arrays of a shard, or None when it is absent, damaged or not wanted."""
        path = self._path(key)
        if os.environ.get(FRESH) == "1" or not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as arrays:
                values = {name: arrays[name] for name in arrays.files}
            os.utime(path)
        except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            _log.warning("%s: damaged shard (%s); computing it anew", path, error)
            return None
        return values

    def write(self, key: str, arrays: dict[str, np.ndarray]) -> None:
        """Store `arrays`; text arrays must be of fixed width, never object."""
        with whole(self._path(key)) as stream:
            np.savez(stream, allow_pickle=False, **arrays)

    def evict(self) -> None:
        """Remove what killed writers left, and the shards used longest ago until the rest fits."""
        found = []
        for path in self.folder.glob("??/.*.part"):
            with suppress(FileNotFoundError):
                # Its writer may be on another machine, where process ids mean nothing.
                if time.time() - path.stat().st_mtime > ABANDONED_S:
                    path.unlink()
        for path in self.folder.glob("??/*.npz"):
            try:
                status = path.stat()
            except FileNotFoundError:  # another stage has just removed it
                continue
            found.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self.max_bytes:
                break
            path.unlink(missing_ok=True)
            total -= size

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.npz"
