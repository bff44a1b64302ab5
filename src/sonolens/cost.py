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

    values = {"key": key, "duration_s": duration_s, "peak_memory_mb": _peak_memory_mb()}
    write_json(_path(root, spec.name), values, 4)


def of(root: Path, spec: StageSpec, key: str) -> dict[str, Any] | None:
    """duration_s and peak_memory_mb of the last run that made just this; None when not known."""
    from sonolens.store import read_json

    path = _path(root, spec.name)
    if not path.is_file() or (values := read_json(path))["key"] != key:
        return None
    return {name: value for name, value in values.items() if name != "key"}


def _path(root: Path, name: str) -> Path:
    return scratch(root, "cost") / f"{name}.json"


def _peak_memory_mb() -> float | None:
    """Largest resident set of this process or of one of its workers; None on Windows."""
    try:
        import resource
    except ModuleNotFoundError:
        return None
    unit = 2**20 if sys.platform == "darwin" else 2**10
    parts = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(part).ru_maxrss for part in parts) * unit / 1e6
