"""Groups of input cells that are explained, removed or summed as one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sonolens.explain.contract import ExplainError

KINDS = ("cells", "patches", "bands", "slices", "frames")
N_PATCHES = 8


def make(kind: str, inputs: Tensor, axes: dict[str, Any]) -> Tensor | None:
    """Labels of the groups by name.

    Parameters
    ----------
    kind
        One of KINDS; ``cells``: every cell alone.
    inputs, shape=(batch, …, [freq,] time) or (batch, …, frame, height, width)
        Inputs on the scale of `axes`; axes before those that are grouped share the labels.
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
    if kind == "bands":
        return bands(inputs)
    if kind == "slices":
        return slices(inputs)
    if kind == "frames":
        return frames(inputs)
    raise ExplainError(f"segmentation {kind!r}: unknown; need one of {', '.join(KINDS)}")


def patches(inputs: Tensor, n_patches: int = N_PATCHES) -> Tensor:
    """A grid of n_patches x n_patches over the last two axes, fewer where these are shorter."""
    labels = torch.zeros((), dtype=torch.int64)
    for size in inputs.shape[1:][-2:]:
        n_parts = min(n_patches, size)
        labels = labels[..., None] * n_parts + torch.arange(size) * n_parts // size
    return labels.expand(inputs.shape[1:]).contiguous().to(inputs.device)


def bands(inputs: Tensor, n_bands: int = N_PATCHES) -> Tensor:
    """Equal groups of frequency rows, the last axis but one; fewer where it is shorter."""
    return _along(inputs, -2, n_bands, "bands", "(batch, …, freq, time)")


def slices(inputs: Tensor, n_slices: int = N_PATCHES) -> Tensor:
    """Equal groups of time columns, the last axis; fewer where it is shorter."""
    return _along(inputs, -1, n_slices, "slices", "(batch, …, time)")


def frames(inputs: Tensor) -> Tensor:
    """Every picture of a film a group of its own."""
    return _along(inputs, -3, None, "frames", "(batch, …, frame, height, width)")


def _along(inputs: Tensor, axis: int, n_parts: int | None, kind: str, needed: str) -> Tensor:
    """Labels that grow along one axis in `n_parts` equal parts; None: one for each place."""
    shape = inputs.shape[1:]
    if len(shape) < -axis or shape[axis] < 2:
        raise ExplainError(
            f"segmentation {kind!r}: inputs {tuple(inputs.shape)}, need {needed} with more than "
            "one place to group"
        )
    size = shape[axis]
    n_parts = size if n_parts is None else min(n_parts, size)
    labels = torch.arange(size) * n_parts // size
    column = labels.view(-1, *[1] * (-axis - 1))
    return column.expand(shape).contiguous().to(inputs.device)
