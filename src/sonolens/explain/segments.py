"""Groups of input cells that are explained, removed or summed as one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sonolens.explain.contract import ExplainError

KINDS = ("cells", "patches")
N_PATCHES = 8


def make(kind: str, inputs: Tensor, axes: dict[str, Any]) -> Tensor | None:
    """Labels of the groups by name.

    Parameters
    ----------
    kind
        One of KINDS; ``cells``: every cell alone.
    inputs, shape=(batch, [channel,] freq, time)
        Inputs on the scale of `axes`.
    axes
        Axes of the inputs.

    Returns
    -------
    Tensor of int64, shape=(*shape) or (batch, *shape); None for ``cells``
        Labels from 0 without gaps, on the device of the inputs.

    Raises
    ------
    ExplainError
        Unknown kind, or one that does not fit the inputs.
    """
    if kind == "cells":
        return None
    if kind == "patches":
        return patches(inputs)
    raise ExplainError(f"segmentation {kind!r}: unknown; need one of {', '.join(KINDS)}")


def patches(inputs: Tensor, n_patches: int = N_PATCHES) -> Tensor:
    """A grid of n_patches x n_patches over the last two axes, fewer where these are shorter."""
    labels = torch.zeros((), dtype=torch.int64)
    for size in inputs.shape[1:][-2:]:
        n_parts = min(n_patches, size)
        labels = labels[..., None] * n_parts + torch.arange(size) * n_parts // size
    return labels.expand(inputs.shape[1:]).contiguous().to(inputs.device)
