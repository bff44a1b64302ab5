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
    completeness_error,
    even_chunks,
    gradient,
    grouped,
    per_item,
    require_baseline,
    target_change,
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
        Path points per call of the model.

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
    starts = require_baseline(baseline, inputs, "integrated_gradients").detach()
    maps = [
        _one_item(model, end, start, target, item, n_steps, chunk_size)
        for item, (end, start) in enumerate(zip(inputs, starts, strict=True))
    ]
    values = torch.stack(maps)
    change = target_change(model, inputs, baseline, target, chunk_size)
    n_draws = starts.shape[1]
    return Attribution(
        grouped(values.to(inputs.dtype), segments),
        completeness_error=completeness_error(values, change),
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
) -> Tensor:
    """Map (*shape) of one item, float64; `end` (*shape), `starts` (K, *shape).

    Gradients are summed in their own precision within a chunk and in float64 over the chunks: a
    conversion of every gradient would cost more than it gains.
    """
    n_draws = len(starts)
    nodes, weights = gauss_legendre(n_steps)
    positions = nodes.repeat(n_draws).to(end)
    draws = torch.arange(n_draws).repeat_interleave(n_steps)
    # row k: the quadrature weights of the points that start at baseline k
    shares = torch.kron(torch.eye(n_draws), weights[None]).to(end)
    steps = end - starts
    sums = torch.zeros(n_draws, end.numel(), dtype=torch.float64, device=end.device)
    for chunk in even_chunks(len(draws), chunk_size):
        of_chunk = draws[chunk].to(end.device)
        points = torch.addcmul(
            starts[of_chunk], per_item(positions[chunk], starts), steps[of_chunk]
        )
        rows = torch.full((len(chunk),), item, device=end.device)
        grads, _ = gradient(model, points, target, rows)
        sums += shares[:, chunk] @ grads.flatten(1)
    return (steps.double() * sums.view_as(steps)).mean(0)
