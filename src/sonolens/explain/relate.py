"""How every output bin of a mask depends on every input bin, with any attribution method.

One call of the method per output bin, so a slice of the map is what the method says of that bin
alone. A method that has all bins at once (`MethodInfo.all_targets`) brings a `relate` of its own;
`registry.relate` chooses.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from sonolens.explain.contract import (
    Block,
    ExplainError,
    Method,
    frozen,
    require_baseline,
    seed_array,
)
from sonolens.explain.targets import mask_bin


def relate(
    method: Method,
    model: nn.Module,
    inputs: Tensor,
    *,
    baseline: Tensor | None,
    block: int,
    item_seeds: Tensor | None = None,
    **options: Any,
) -> Iterator[Block]:
    """Maps of every output bin, a block of output frames at a time.

    Parameters
    ----------
    method
        Any attribution method, see `contract.Method`.
    model, inputs, baseline, block, item_seeds
        See `contract.Relator`.
    options
        Options of the method, `segments` among them.

    Yields
    ------
    Block
        In the order of the frames; memory does not grow with their number. The residual is NaN
        without a baseline.

    Raises
    ------
    ExplainError
        Not one item, a block below 1, outputs that are no mask, an ill-shaped baseline, maps that
        are not (batch, [channel,] freq, time); when the first block is asked for.
    """
    if len(inputs) != 1 or block < 1:
        raise ExplainError(f"relate: {len(inputs)} items, block {block}; need one item, at least 1")
    seeds = seed_array([0]) if item_seeds is None else item_seeds
    change = _change(model, inputs, baseline)
    n_freq, n_frames = change.shape
    for start in range(0, n_frames, block):
        frames = range(start, min(start + block, n_frames))
        values = torch.stack(
            [
                torch.stack(
                    [
                        _plane(
                            method(
                                model,
                                inputs,
                                mask_bin(freq, frame),
                                baseline=baseline,
                                item_seeds=seeds,
                                **options,
                            ).values
                        )
                        for frame in frames
                    ]
                )
                for freq in range(n_freq)
            ]
        )
        gap = change[:, frames.start : frames.stop] - values.double().sum((2, 3))
        yield Block(values, frames, gap)


def _change(model: nn.Module, inputs: Tensor, baseline: Tensor | None) -> Tensor:
    """Mask of the input minus the mean mask of the baselines, (f_out, t_out), float64."""
    with torch.no_grad(), frozen(model):
        end = _mask(model(inputs))
        if baseline is None:
            return torch.full_like(end, torch.nan)
        draws = require_baseline(baseline, inputs, "relate")[0]
        start = torch.zeros_like(end)
        for draw in draws:  # one by one: K masks at once would take K times the memory
            start += _mask(model(draw[None]))
    return end - start / len(draws)


def _mask(outputs: Tensor) -> Tensor:
    shape = tuple(outputs.shape)
    if outputs.ndim < 3 or outputs.numel() != shape[-2] * shape[-1]:
        raise ExplainError(f"relate: outputs {shape}, need a mask (1, [1,] freq, time)")
    return outputs.reshape(shape[-2:]).double()


def _plane(values: Tensor) -> Tensor:
    """Map of one item as (freq, time), channels summed."""
    if values.ndim not in (3, 4) or len(values) != 1:
        raise ExplainError(
            f"relate: map {tuple(values.shape)}, need (1, [channel,] freq, time); "
            "this method has no such map"
        )
    return values[0].sum(0) if values.ndim == 4 else values[0]
