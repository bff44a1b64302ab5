"""Sensitivity: how much a map changes when the input is disturbed a little, on average or at most.

mean (or maximum) over K draws of |a(x + e) - a(x)| / |a(x)|, e uniform in [-r, r] per cell, same
target, same baseline, same item seeds. r is a share of the scale's range (an absolute radius of 0.2
is a fifth of a picture and nothing in dB).

References
----------
Yeh, C.-K. et al. (2019). On the (in)fidelity and sensitivity of explanations. NeurIPS, definition 3
(the maximum; the mean does not grow with the number of draws).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from sonolens import rng
from sonolens.score.compat import Compat, as_quantus, legacy_generator
from sonolens.score.contract import Context, ScoreError, Scores, undefined


def score(
    attributions: Tensor,
    context: Context,
    *,
    reduce: Literal["mean", "max"] = "mean",
    n_noise_draws: int = 5,
    noise_radius: float = 0.02,
    compat: Compat = None,
    legacy_seed: int | None = None,
) -> Scores:
    """Sensitivity of each item.

    Parameters
    ----------
    attributions, shape=(batch, *map shape)
        Signed maps.
    context
        Needs `explain`, `scale`, `item_seeds`.
    reduce
        Over the draws.
    n_noise_draws
        K.
    noise_radius
        r as a share of the scale's range; with `compat` in units of the inputs.
    compat
        ``quantus``: noise from NumPy's legacy generator, draws without a value left out.
    legacy_seed
        Of the noise with `compat`, see `compat.legacy_generator`.

    Returns
    -------
    Scores, at least 0
        NaN for a map that is zero everywhere.

    Raises
    ------
    ScoreError
        The scale has no ends, or `compat` without a seed.
    """
    quantus = as_quantus(compat, f"{reduce} sensitivity")
    explain = context.explain
    if explain is None or (context.scale is None and not quantus):
        raise ScoreError(
            f"{reduce} sensitivity: needs `explain` and a scale with `min` and `max` in axes.json"
        )
    original = attributions.double().flatten(1).cpu()

    def changes() -> Tensor:
        noises = (
            _legacy_noise(context, n_noise_draws, noise_radius, legacy_seed)
            if quantus
            else [_noise(context, draw, noise_radius) for draw in range(n_noise_draws)]
        )
        maps = (explain((context.inputs + noise).to(context.inputs)) for noise in noises)
        return torch.stack(
            [(disturbed.double().flatten(1).cpu() - original).norm(dim=1) for disturbed in maps], 1
        )

    # explaining costs nearly all: mean and maximum take the same maps
    key = ("sensitivity", n_noise_draws, noise_radius, compat, legacy_seed)
    ratios = context.once(key, attributions, changes) / original.norm(dim=1, keepdim=True)
    if quantus:
        return Scores(
            ratios.nanmean(1)
            if reduce == "mean"
            else torch.where(ratios.isnan(), -torch.inf, ratios).amax(1)
        )
    values = ratios.mean(1) if reduce == "mean" else ratios.amax(1)
    return Scores(torch.where(original.any(1), values, undefined(attributions)))


def _noise(context: Context, draw: int, radius: float) -> Tensor:
    """Uniform within the radius, shape (batch, *shape); shared by all methods."""
    assert context.scale is not None
    low, high = context.scale

    def make() -> Tensor:
        shape = context.inputs.shape[1:]
        draws = [
            torch.rand(
                shape, generator=rng.torch_generator(seed, "noise", draw), dtype=torch.float64
            )
            for seed in context.item_seeds.tolist()
        ]
        return (2 * torch.stack(draws) - 1).to(context.inputs)

    unit: Tensor = context.shared(("average_sensitivity", draw), make)
    return radius * (high - low) * unit


def _legacy_noise(context: Context, n_draws: int, radius: float, seed: int | None) -> list[Tensor]:
    generator = legacy_generator(seed, "average_sensitivity")
    shape = context.inputs.shape
    draws = [
        generator.uniform(-radius, radius, (shape[0], shape[1:].numel())) for _ in range(n_draws)
    ]
    return [torch.from_numpy(draw).view(shape).to(context.inputs.device) for draw in draws]
