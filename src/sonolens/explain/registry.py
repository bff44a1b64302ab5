"""Names of the attribution methods; importing this file imports none of them."""

from __future__ import annotations

import difflib

from sonolens.explain.contract import ExplainError, Method, MethodInfo

_ROWS = (
    MethodInfo("saliency", "sonolens.explain.saliency"),
    MethodInfo(
        "integrated_gradients",
        "sonolens.explain.integrated_gradients",
        needs_baseline=True,
        options={"n_steps": 32, "chunk_size": 32},
    ),
    MethodInfo(
        "guided_gradcam",
        "sonolens.explain.guided_gradcam",
        hooks=True,
        options={"layer": None, "interpolation": "bilinear"},
    ),
    MethodInfo("random", "sonolens.explain.random_map", stochastic=True, control=True),
    MethodInfo("energy", "sonolens.explain.energy", needs_baseline=True, control=True),
)
METHODS: dict[str, MethodInfo] = {row.name: row for row in _ROWS}


def info(name: str) -> MethodInfo:
    """Registry row of `name`. Raises ExplainError that proposes the nearest name."""
    if name in METHODS:
        return METHODS[name]
    close = difflib.get_close_matches(name, METHODS, n=1)
    hint = f"did you mean {close[0]}?" if close else f"need one of {', '.join(METHODS)}"
    raise ExplainError(f"method {name!r}: unknown; {hint}")


def load(name: str) -> Method:
    """Import the method called `name`. Raises ExplainError that proposes the nearest name."""
    return info(name).load()
