"""Average sensitivity: how much a map changes when the input is disturbed a little.

mean over K draws of |a(x + e) - a(x)| / |a(x)|, e uniform in [-r, r] per cell, same target, same
baseline, same item seeds. r is a share of the scale's range (an absolute radius of 0.2 is a fifth
of a picture and nothing in dB).

References
----------
Yeh, C.-K. et al. (2019). On the (in)fidelity and sensitivity of explanations. NeurIPS, definition 3
(there the maximum; here the mean, which does not grow with the number of draws).
"""

from __future__ import annotations

import torch
from torch import Tensor

from sonolens import rng
from sonolens.score.contract import Context, ScoreError, Scores, undefined


def score(
    attributions: Tensor, context: Context, *, n_noise_draws: int = 5, noise_radius: float = 0.02
) -> Scores:
    """Average sensitivity of each item.

    Parameters
    ----------
    attributions, shape=(batch, *map shape)
        Signed maps.
    context
        Needs `explain`, `scale`, `item_seeds`.
    n_noise_draws
        K.
    noise_radius
        r as a share of the scale's range.

    Returns
    -------
    Scores, at least 0
        NaN for a map that is zero everywhere.

    Raises
    ------
    ScoreError
        The scale has no ends.
    """
    if context.explain is None or context.scale is None:
        raise ScoreError(
            "average_sensitivity: needs `explain` and a scale with `min` and `max` in axes.json"
        )
    low, high = context.scale
    radius = noise_radius * (high - low)
    original = attributions.double().flatten(1).cpu()
    norm = original.norm(dim=1)
    change = torch.zeros_like(norm)
    for draw in range(n_noise_draws):
        noisy = context.inputs + radius * _noise(context, draw)
        disturbed = context.explain(noisy).double().flatten(1).cpu()
        change += (disturbed - original).norm(dim=1)
    return Scores(torch.where(norm > 0, change / n_noise_draws / norm, undefined(attributions)))


def _noise(context: Context, draw: int) -> Tensor:
    """Uniform in [-1, 1], shape (batch, *shape); shared by all methods."""

    def make() -> Tensor:
        shape = context.inputs.shape[1:]
        draws = [
            torch.rand(
                shape, generator=rng.torch_generator(seed, "noise", draw), dtype=torch.float64
            )
            for seed in context.item_seeds.tolist()
        ]
        return (2 * torch.stack(draws) - 1).to(context.inputs)

    noise: Tensor = context.shared(("average_sensitivity", draw), make)
    return noise
