"""What a stage cost when it ran: seconds and memory. Never an output, as it never repeats."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from sonolens.pipeline import StageSpec, scratch


def note(root: Path, spec: StageSpec, key: str, duration_s: float) -> None:
    """Keep the cost of a stage that this process ran from its start to its end.

    Parameters
    ----------
    key
        Content key of what the stage made.
    duration_s
        Wall time without Python's start.
    """
    from sonolens.store import write_json

    values = {"duration_s": duration_s, "peak_memory_mb": _peak_memory_mb()}
    write_json(_path(root, spec.name, key), values, 4)


def of(root: Path, spec: StageSpec, key: str) -> dict[str, Any] | None:
    """duration_s and peak_memory_mb of the last run that made just this; None when not known."""
    from sonolens.store import read_json

    path = _path(root, spec.name, key)
    values: dict[str, Any] | None = read_json(path) if path.is_file() else None
    return values


def _path(root: Path, name: str, key: str) -> Path:
    return scratch(root, "cost", name) / f"{key[:16]}.json"


def _peak_memory_mb() -> float | None:
    """Largest resident set of this process or of one of its workers; None on Windows."""
    try:
        import resource
    except ModuleNotFoundError:
        return None
    unit = 2**20 if sys.platform == "darwin" else 2**10
    parts = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(part).ru_maxrss for part in parts) * unit / 1e6
