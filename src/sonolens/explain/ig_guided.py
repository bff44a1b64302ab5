"""Guided integrated gradients: the cells whose gradient is smallest move first.

In every step the gradient is read once, and cells are moved towards the input, those with the
smallest gradients first, until the L1 distance is that of the straight line after the step; no cell
leaves the line by more than a share of its way. The path thus avoids regions where the target
changes fast for reasons that cancel later.

References
----------
Kapishnikov, A. et al. (2021). Guided integrated gradients: an adaptive path method for removing
noise. CVPR, algorithm 1. Numbers as in the authors' library, but for the number of steps (there
200): the gradient is read at the start of a step, so the completeness error falls as 1 / n_steps.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sonolens.explain.contract import (
    Attribution,
    ExplainError,
    Target,
    completeness_error,
    even_chunks,
    gradient,
    grouped,
    require_baseline,
    target_change,
)
from sonolens.explain.paths import check_steps

TOLERANCE = 1e-9


def attribute(
    model: nn.Module,
    inputs: Tensor,
    target: Target,
    *,
    baseline: Tensor | None,
    item_seeds: Tensor,
    segments: Tensor | None = None,
    n_steps: int = 64,
    chunk_size: int = 32,
    fraction: float = 0.25,
    max_deviation: float = 0.02,
) -> Attribution:
    """Guided integrated gradients.

    Parameters
    ----------
    model, inputs, target, baseline, item_seeds, segments
        See `contract.Method`; the maps of K baselines are averaged.
    n_steps
        Readings of the gradient along each path; they cannot be made at once.
    chunk_size
        Paths (of different items or baselines) per call of the model.
    fraction
        Share of the cells that may move at a time.
    max_deviation
        How far a cell may be ahead of or behind the straight line, share of its way.

    Returns
    -------
    Attribution
        values (batch, *shape) in units of the target, with the completeness error.

    Raises
    ------
    ExplainError
        No or ill-shaped baseline; n_steps or chunk_size below 1; a share outside [0, 1].
    """
    check_steps("ig_guided", n_steps, chunk_size)
    if not (0 < fraction <= 1 and 0 <= max_deviation <= 1):
        raise ExplainError(
            f"ig_guided: fraction {fraction}, max_deviation {max_deviation}; need shares of 1"
        )
    inputs = inputs.detach()
    baselines = require_baseline(baseline, inputs, "ig_guided").detach()
    n_draws = baselines.shape[1]
    ends = inputs.double().repeat_interleave(n_draws, 0)
    starts = baselines.double().flatten(0, 1)
    rows = torch.arange(len(inputs), device=inputs.device).repeat_interleave(n_draws)
    points, totals = starts.clone(), torch.zeros_like(starts)
    for step in range(n_steps):
        for some in even_chunks(len(points), chunk_size):
            grads, _ = gradient(model, points[some].to(inputs.dtype), target, rows[some])
            for path, grad in zip(some.tolist(), grads.double(), strict=True):
                totals[path] += _move(
                    points[path],
                    starts[path],
                    ends[path],
                    grad,
                    (step + 1) / n_steps,
                    fraction,
                    max_deviation,
                )
    values = totals.view(len(inputs), n_draws, *inputs.shape[1:]).mean(1)
    change = target_change(model, inputs, baselines, target, chunk_size)
    return Attribution(
        grouped(values.to(inputs.dtype), segments),
        completeness_error=completeness_error(values, change),
        n_evaluations=n_draws * (n_steps + 1) + 1,
    )


def _move(
    point: Tensor,
    start: Tensor,
    end: Tensor,
    grad: Tensor,
    position: float,
    fraction: float,
    max_deviation: float,
) -> Tensor:
    """Move `point` to `position` of the path, in place; returns gradient times movement."""
    line = end - start
    before = point.clone()
    low = start + line * max(position - max_deviation, 0.0)
    high = start + line * min(position + max_deviation, 1.0)
    wanted = line.abs().sum() * (1 - position)
    behind = (point - low) * line.sign() < 0
    point[behind] = low[behind]
    size = grad.abs()
    while True:
        distance = (end - point).abs().sum()
        if distance - wanted <= TOLERANCE * torch.maximum(distance, wanted).clamp_min(1):
            break
        size = size.masked_fill(point == high, torch.inf)
        rank = int(fraction * (size.numel() - 1)) + 1
        threshold = size.flatten().kthvalue(rank).values
        chosen = (size <= threshold) & (size < torch.inf)
        if not chosen.any():
            break
        reach = ((high - point).abs() * chosen).sum()
        share = ((distance - wanted) / reach).clamp_max(1.0)
        point[chosen] = (point + share * (high - point))[chosen] if share < 1 else high[chosen]
    return (point - before) * grad
