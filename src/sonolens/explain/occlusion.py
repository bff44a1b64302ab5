"""Occlusion: how much the target drops when a window that slides over the input is the baseline.

A window's drop F(x) - mean_k F(x with the window from b_k) is shared evenly by its cells; a cell
has the mean of the shares of the windows over it. So the map is in the units of `feature_ablation`:
windows side by side are groups. captum's Occlusion gives each cell the mean of the whole drops: the
same map times the cells of a window, where no window is cut at the border.

Windows lie over the last axes; the axes before them (channels, frames of a film) go as a whole.

References
----------
Zeiler, M. D., Fergus, R. (2014). Visualizing and understanding convolutional networks. ECCV,
section 4.2.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sonolens.explain.contract import Attribution, ExplainError, Target, frozen, grouped
from sonolens.explain.removal import items


def attribute(
    model: nn.Module,
    inputs: Tensor,
    target: Target,
    *,
    baseline: Tensor | None,
    item_seeds: Tensor,
    segments: Tensor | None = None,
    window: int | Sequence[int] = 5,
    stride: int | Sequence[int] = 2,
    chunk_size: int = 32,
) -> Attribution:
    """Mean drop of the target per cell, shape=(batch, *shape), in units of the target.

    Parameters
    ----------
    model, inputs, target, baseline, item_seeds, segments
        See `contract.Method`; the drops of K baselines are averaged, a map is pooled by segment.
    window, stride
        Cells along the last two axes, or along as many last axes as there are numbers; at most the
        size of the axis. The last window may be cut at the border.
    chunk_size
        Inputs per call of the model.

    Raises
    ------
    ExplainError
        No or ill-shaped baseline or segments; a target that is not finite; a window or stride that
        does not fit; a stride that leaves cells out; chunk_size below 1.
    """
    starts, lasts = (edge.to(inputs.device) for edge in _windows(inputs.shape[1:], window, stride))
    places = [torch.arange(size, device=inputs.device) for size in inputs.shape[1:]]

    def kept(edits: Tensor) -> Tensor:
        inside = torch.ones((), dtype=torch.bool, device=inputs.device)
        for axis, place in enumerate(places):
            start, last = starts[edits, axis, None], lasts[edits, axis, None]
            along = (start <= place) & (place < last)
            sizes = [1] * len(places)
            sizes[axis] = len(place)
            inside = inside & along.view(-1, *sizes)
        return ~inside

    maps = []
    sizes = (lasts - starts).prod(1).double()
    with torch.no_grad(), frozen(model):
        for item in items(model, inputs, target, baseline, chunk_size, "occlusion"):
            total = torch.zeros(inputs.shape[1:], dtype=torch.float64, device=inputs.device)
            count = torch.zeros_like(total)
            full = item.full()
            for edits, mask, values in item.stream(len(starts), kept):
                hidden = (~mask).double().flatten(1)
                total += (((full - values) / sizes[edits]) @ hidden).view(total.shape)
                count += hidden.sum(0).view(total.shape)
            maps.append((total / count).to(inputs))
    n_draws = 1 if baseline is None else baseline.shape[1]
    return Attribution(
        grouped(torch.stack(maps), segments), n_evaluations=1 + n_draws * len(starts)
    )


def _windows(
    shape: torch.Size, window: int | Sequence[int], stride: int | Sequence[int]
) -> tuple[Tensor, Tensor]:
    """First cell of every window and the one after its last, (windows, axes) each."""
    axes = []
    sizes, steps = (_per_axis(shape, numbers) for numbers in (window, stride))
    for size, width, step in zip(shape, sizes, steps, strict=True):
        if not 1 <= step <= width <= size:
            raise ExplainError(
                f"occlusion: window {window}, stride {stride} for inputs {tuple(shape)}; need "
                "1 <= stride <= window (else cells are left out) and numbers for at most "
                f"{len(shape)} axes, none larger than its axis"
            )
        n_windows = -(-(size - width) // step) + 1
        axes.append([(k * step, min(k * step + width, size)) for k in range(n_windows)])
    corners = torch.tensor(list(itertools.product(*axes)))
    return corners[:, :, 0], corners[:, :, 1]


def _per_axis(shape: torch.Size, numbers: int | Sequence[int]) -> list[int]:
    """A number for every axis; the axes before those named go as a whole."""
    if isinstance(numbers, int):  # a default for any input, so short axes are no error
        last = [min(numbers, size) for size in shape[-2:]]
    else:
        last = list(numbers)
    return [*shape[: len(shape) - len(last)], *last]
