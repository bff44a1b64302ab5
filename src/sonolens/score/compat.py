"""How Quantus 0.6 differs where a metric's `compat` is "quantus"; Quantus itself is not needed.

Its maps are scaled by the largest magnitude of the whole array, so a score depends on the other
items of the block, and its draws come from NumPy's global legacy generator. `RandomState(seed)`
yields what that generator yields after `np.random.seed(seed)`, without touching it.

References
----------
Hedstrom, A. et al. (2023). Quantus: an explainable AI toolkit for responsible evaluation of neural
network explanations and beyond. JMLR 24(34).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from torch import Tensor

from sonolens.score.contract import ScoreError

Compat = Literal["quantus"] | None
QUANTUS_SEED = 42


def as_quantus(compat: str | None, metric: str) -> bool:
    """Whether to compute as Quantus. Raises ScoreError for anything but None and "quantus"."""
    if compat not in (None, "quantus"):
        raise ScoreError(f"{metric}: compat {compat!r}, need null or quantus")
    return compat == "quantus"


def legacy_generator(seed: int | None, metric: str) -> np.random.RandomState:
    """Stream of NumPy's global generator after `np.random.seed(seed)`.

    Raises
    ------
    ScoreError
        No seed.
    """
    if seed is None:
        raise ScoreError(
            f"{metric}: compat quantus draws with NumPy's legacy generator; give legacy_seed, the "
            "number for np.random.seed"
        )
    return np.random.RandomState(seed)


def scaled(maps: Tensor) -> Tensor:
    """Maps over the largest magnitude of the whole array, float64, on the CPU; zeros stay."""
    maps = maps.detach().cpu().double()
    largest = maps.abs().max()
    return maps / largest if largest > 0 else maps
