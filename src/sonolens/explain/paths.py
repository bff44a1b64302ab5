"""Integrals of the gradient along any path of inputs, in memory that does not grow with its steps.

A = sum_s dF/dx(p_s) * d_s, with the points p_s and displacements d_s of a path's steps; the sum of
A approaches F(end) - F(start). A call of the model never mixes items, so a map does not depend on
what else is in the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
    target_change,
)

Steps = Callable[[Tensor], tuple[Tensor, Tensor]]
"""steps(numbers) -> (points, displacements), (n, *shape) each, float64; numbers int64 (n,)."""

Curve = Callable[[Tensor], Tensor]
"""curve(t) -> points (n, *shape), float64; positions t (n,) in [0, 1], float64."""


def check_steps(method: str, n_steps: int, chunk_size: int) -> None:
    """Refuse numbers below 1 with ExplainError."""
    if n_steps < 1 or chunk_size < 1:
        raise ExplainError(f"{method}: n_steps {n_steps}, chunk_size {chunk_size}; need at least 1")


def polyline(curve: Curve, n_steps: int) -> Steps:
    """Equal steps of t from 0 to 1, each a chord of the curve with the gradient at its middle."""

    def steps(numbers: Tensor) -> tuple[Tensor, Tensor]:
        before = curve(numbers.double() / n_steps)
        after = curve((numbers + 1).double() / n_steps)
        return (before + after) / 2, after - before

    return steps


def integrate(
    model: nn.Module, like: Tensor, target: Target, item: int, steps: Steps, n_steps: int, size: int
) -> Tensor:
    """Sum over the steps of gradient times displacement, (*shape), float64.

    `like` (*shape) gives shape, precision and device, `item` is the row of the target, `size` the
    path points per call of the model.
    """
    total = torch.zeros_like(like, dtype=torch.float64)
    for chunk in even_chunks(n_steps, size):
        numbers = chunk.to(like.device)
        points, displacements = steps(numbers)
        rows = torch.full_like(numbers, item)
        grads, _ = gradient(model, points.to(like.dtype), target, rows)
        total += (grads.double() * displacements).sum(0)
    return total


def along_curves(
    model: nn.Module,
    inputs: Tensor,
    target: Target,
    curves: Sequence[Sequence[Curve]],
    *,
    n_steps: int,
    chunk_size: int,
    segments: Tensor | None,
) -> Attribution:
    """Integrate along curves that end in the inputs, `curves[item]` a list whose maps are averaged.

    The completeness error is that against the curves' own starts.
    """
    maps = [
        torch.stack(
            [
                integrate(model, end, target, item, polyline(curve, n_steps), n_steps, chunk_size)
                for curve in some
            ]
        ).mean(0)
        for item, (end, some) in enumerate(zip(inputs, curves, strict=True))
    ]
    zero = torch.zeros(1, dtype=torch.float64, device=inputs.device)
    starts = torch.stack([torch.cat([curve(zero) for curve in some]) for some in curves])
    values = torch.stack(maps)
    change = target_change(model, inputs, starts, target, chunk_size)
    return Attribution(
        grouped(values.to(inputs.dtype), segments),
        completeness_error=completeness_error(values, change),
        n_evaluations=starts.shape[1] * (n_steps + 1) + 1,
    )
