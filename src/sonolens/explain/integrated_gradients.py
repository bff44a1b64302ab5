"""Integrated gradients along the straight line from the baseline, by Gauss-Legendre quadrature.

A = mean_k (x - b_k) * sum_s w_s dF/dx(b_k + alpha_s (x - b_k)); with one baseline this is the
paper's equation 1. (baseline, step) pairs of one item are streamed in chunks, so memory does not
grow with the number of steps, and a chunk never mixes items, so a map does not depend on what else
is in the batch.

References
----------
Sundararajan, M., Taly, A., Yan, Q. (2017). Axiomatic attribution for deep networks. ICML, equation
1, section 5. Erion, G. et al. (2021). Improving performance of deep learning models with axiomatic
attribution priors and expected gradients. Nature Machine Intelligence 3 (mean over baselines).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from sonolens.explain.contract import (
    Attribution,
    ExplainError,
    Target,
    gradient,
    grouped,
    require_baseline,
)


def gauss_legendre(n_steps: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights on [0, 1], shape (n_steps,) each, float64; the weights sum to 1."""
    nodes, weights = np.polynomial.legendre.leggauss(n_steps)
    return torch.from_numpy((1 + nodes) / 2), torch.from_numpy(weights / 2)


def attribute(
    model: nn.Module,
    inputs: Tensor,
    target: Target,
    *,
    baseline: Tensor | None,
    item_seeds: Tensor,
    segments: Tensor | None = None,
    n_steps: int = 32,
    chunk_size: int = 32,
) -> Attribution:
    """Integrated gradients.

    Parameters
    ----------
    model, inputs, target, baseline, item_seeds, segments
        See `contract.Method`; the maps of K baselines are averaged.
    n_steps
        Steps from each baseline.
    chunk_size
        Path points per call of the model, the few end points aside.

    Returns
    -------
    Attribution
        values (batch, *shape) in units of the target, with the completeness error.

    Raises
    ------
    ExplainError
        No or ill-shaped baseline; n_steps or chunk_size below 1.
    """
    if n_steps < 1 or chunk_size < 1:
        raise ExplainError(
            f"integrated_gradients: n_steps {n_steps}, chunk_size {chunk_size}; need at least 1"
        )
    inputs = inputs.detach()
    baselines = require_baseline(baseline, inputs, "integrated_gradients").detach()
    maps, errors = [], []
    for item, (end, starts) in enumerate(zip(inputs, baselines, strict=True)):
        values, change = _one_item(model, end, starts, target, item, n_steps, chunk_size)
        missing = (values.sum() - change).abs()
        errors.append(missing / change.abs() if change != 0 else torch.full_like(change, torch.nan))
        maps.append(values.to(inputs.dtype))
    n_draws = baselines.shape[1]
    return Attribution(
        grouped(torch.stack(maps), segments),
        completeness_error=torch.stack(errors),
        n_evaluations=n_draws * n_steps + n_draws + 1,
    )


def _one_item(
    model: nn.Module,
    end: Tensor,
    starts: Tensor,
    target: Target,
    item: int,
    n_steps: int,
    chunk_size: int,
) -> tuple[Tensor, Tensor]:
    """Map (*shape) of one item and F(x) - mean F(b), float64; `end` (*shape), `starts` (K, *shape).

    The ends of the paths are points of weight 0 among the others: their values come without a call
    of their own.
    """
    n_draws = len(starts)
    nodes, weights = gauss_legendre(n_steps)
    positions = torch.cat([nodes.repeat(n_draws), torch.zeros(n_draws), torch.ones(1)])
    shares = torch.cat([weights.repeat(n_draws), torch.zeros(n_draws + 1)]) / n_draws
    draws = torch.cat(
        [torch.arange(n_draws).repeat_interleave(n_steps), torch.arange(n_draws), torch.zeros(1)]
    )
    positions, shares, draws = (
        column.to(end.device) for column in (positions, shares, draws.long())
    )
    difference = end.double() - starts.double()
    column = (-1, *[1] * end.ndim)
    total = torch.zeros_like(end, dtype=torch.float64)
    found = []
    for chunk in torch.arange(len(draws), device=end.device).tensor_split(
        -(-n_draws * n_steps // chunk_size)
    ):
        steps = difference[draws[chunk]]
        points = starts[draws[chunk]].double() + positions[chunk].view(column) * steps
        grads, values = gradient(model, points.to(end.dtype), target, torch.full_like(chunk, item))
        total += (shares[chunk].view(column) * steps * grads.double()).sum(0)
        found.append(values.double())
    ends = torch.cat(found)[n_draws * n_steps :]
    return total, ends[-1] - ends[:-1].mean()
