"""Meaningful perturbation: the smallest smooth deletion that takes the target away, by descent.

A mask m in [0, 1] on a coarse grid, enlarged bilinearly to M, minimises

    mean_k F(M x + (1 - M) fill_k) / |F(x) - mean_k F(fill_k)|
        + l1 * mean(1 - m) + tv * mean |grad m|^tv_beta

by Adam. Dividing by the change makes the weights mean the same for logits, bins and energies. The
map is 1 - M: which share of a cell was deleted, 0 to 1. It has no sign and no unit, and its sum is
no change of the target. Differs from the paper: a logit instead of the softmax, and no noise.

References
----------
Fong, R. C., Vedaldi, A. (2017). Interpretable explanations of black boxes by meaningful
perturbation. ICCV, equations 3 and 4 (the deletion game), section 4.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional

from sonolens import rng
from sonolens.explain.contract import (
    Attribution,
    ExplainError,
    Target,
    frozen,
    gradient,
    grouped,
)
from sonolens.explain.removal import Item, items, plane_of


@dataclass(frozen=True)
class Weights:
    """Weights of the objective, see the module."""

    l1: float
    tv: float
    tv_beta: float


def attribute(
    model: nn.Module,
    inputs: Tensor,
    target: Target,
    *,
    baseline: Tensor | None,
    item_seeds: Tensor,
    segments: Tensor | None = None,
    n_steps: int = 100,
    learning_rate: float = 0.1,
    mask_size: int = 16,
    l1: float = 0.1,
    tv: float = 0.2,
    tv_beta: float = 3.0,
    fill: Literal["baseline", "blur"] = "baseline",
    blur_sigma_cells: float = 5.0,
    jitter_cells: int = 0,
    chunk_size: int = 32,
) -> Attribution:
    """Deleted share of every cell, shape=(batch, *shape), 0 to 1.

    Parameters
    ----------
    model, inputs, target, baseline, item_seeds, segments
        See `contract.Method`; the target is averaged over K baselines, a map is pooled by segment.
    n_steps, learning_rate
        Of Adam.
    mask_size
        Cells of the mask along each of the last two axes, fewer where these are shorter; the axes
        before them share the mask.
    l1, tv, tv_beta
        Weights of the objective.
    fill
        What stands for deleted cells: the baseline, or the input blurred along its last two axes.
    blur_sigma_cells
        Standard deviation of the Gaussian of fill ``blur``.
    jitter_cells
        The edited input is shifted cyclically along its last axis by up to this many cells, anew in
        every step, so that the mask cannot live on single cells.
    chunk_size
        Inputs per call of the model.

    Raises
    ------
    ExplainError
        No or ill-shaped baseline or segments; a target that is not finite; an option out of range.
    """
    if n_steps < 1 or mask_size < 1 or jitter_cells < 0 or fill not in ("baseline", "blur"):
        raise ExplainError(
            f"meaningful_perturbation: n_steps {n_steps}, mask_size {mask_size}, jitter_cells "
            f"{jitter_cells}, fill {fill!r}; need at least 1, at least 1, at least 0, and "
            "'baseline' or 'blur'"
        )
    if fill == "blur":
        baseline = blurred(inputs, blur_sigma_cells)
    every = items(model, inputs, target, baseline, chunk_size, "meaningful_perturbation")
    maps = []
    with frozen(model):
        for item, seed in zip(every, item_seeds.tolist(), strict=True):
            mask, _ = learn(
                item,
                n_steps,
                learning_rate,
                mask_size,
                Weights(l1, tv, tv_beta),
                jitter_cells,
                seed,
            )
            maps.append(1 - mask.expand(item.end.shape))
    n_draws = len(every[0].starts)
    return Attribution(
        grouped(torch.stack(maps), segments), n_evaluations=1 + n_draws * (n_steps + 1)
    )


def learn(
    item: Item,
    n_steps: int,
    learning_rate: float,
    mask_size: int,
    weights: Weights,
    jitter_cells: int,
    seed: int,
) -> tuple[Tensor, list[float]]:
    """Mask of one item, 1 = kept, (1, …, freq, time), and the objective before every step."""
    plane = plane_of(item.end.shape)
    with torch.no_grad():
        change = abs(item.full() - item.empty()) or 1.0
    generator = rng.torch_generator(seed, "meaningful_perturbation")
    coarse = torch.ones(
        (1, 1, *[min(mask_size, size) for size in plane]),
        dtype=item.end.dtype,
        device=item.end.device,
        requires_grad=True,
    )
    optimiser = torch.optim.Adam([coarse], lr=learning_rate)
    objectives = []
    for _ in range(n_steps):
        shift = 0
        if jitter_cells:
            shift = int(torch.randint(-jitter_cells, jitter_cells + 1, (), generator=generator))
        with torch.enable_grad():
            mask = _enlarged(coarse, item)
            penalty = _penalty(coarse, weights)
        slope, value = _slope(item, mask.detach(), shift)
        objectives.append(value / change + float(penalty.detach()))
        optimiser.zero_grad()
        torch.autograd.backward(
            [mask, penalty], [slope.sum_to_size(mask.shape) / change, torch.ones_like(penalty)]
        )
        optimiser.step()
        with torch.no_grad():
            coarse.clamp_(0, 1)
    return _enlarged(coarse.detach(), item), objectives


def _enlarged(coarse: Tensor, item: Item) -> Tensor:
    """Coarse mask (1, 1, height, width) as (1, …, freq, time), with as many axes as the item."""
    plane = plane_of(item.end.shape)
    large = functional.interpolate(coarse, plane, mode="bilinear", align_corners=False)
    n_axes = item.end.ndim
    return large.reshape(*[1] * (n_axes - 2), *plane[-n_axes:])


def _penalty(coarse: Tensor, weights: Weights) -> Tensor:
    total = weights.l1 * (1 - coarse).mean()
    for axis in (-2, -1):
        if coarse.shape[axis] > 1:
            steps = coarse.diff(dim=axis).abs()
            total = total + weights.tv * (steps**weights.tv_beta).mean()
    return total


def _slope(item: Item, mask: Tensor, shift: int) -> tuple[Tensor, float]:
    """Derivative of the mean target by the mask's cells, (*shape), and that target."""
    slope = torch.zeros_like(item.end)
    value, n_draws = 0.0, len(item.starts)
    for starts in torch.split(item.starts, item.chunk_size):
        change = item.end - starts
        edited = (starts + mask * change).roll(shift, -1)
        rows = torch.full((len(starts),), item.number, device=edited.device)
        grads, values = gradient(item.model, edited, item.target, rows)
        slope += (grads.roll(-shift, -1) * change).sum(0) / n_draws
        value += float(values.double().sum()) / n_draws
    return slope, value


def blurred(inputs: Tensor, sigma_cells: float) -> Tensor:
    """Inputs blurred by a Gaussian along their last two axes, (batch, 1, *shape)."""
    if sigma_cells <= 0:
        raise ExplainError(
            f"meaningful_perturbation: blur_sigma_cells {sigma_cells}; need a number above 0"
        )
    sigmas = [0.0] * (inputs.ndim - 2) + [sigma_cells] * 2 if inputs.ndim > 2 else [0, sigma_cells]
    blurry = ndimage.gaussian_filter(inputs.detach().cpu().numpy(), sigmas, mode="nearest")
    return torch.from_numpy(blurry).to(inputs)[:, None]
