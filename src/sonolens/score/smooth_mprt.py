"""Smooth MPRT: the parameter randomisation test on maps averaged over noisy inputs.

The map of a noisy gradient differs from that of a random model by noise alone; averaging takes this
out. Layers are drawn anew from the input up, so that what the top has learnt cannot shine through.

References
----------
Hedstrom, A., Weber, L., Lapuschkin, S., Hohne, M. (2023). Sanity checks revisited: an exploration
to repair the model parameter randomisation test. arXiv:2401.06465, section 3.1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sonolens import rng
from sonolens.score.compat import Compat, as_quantus, legacy_generator
from sonolens.score.contract import Context, ScoreError, Scores
from sonolens.score.mprt import layer_scores, plan
from sonolens.score.similarity import spearman


def score(
    attributions: Tensor,
    context: Context,
    *,
    n_cascade_steps: int = 6,
    n_smooth_draws: int = 50,
    noise_share: float = 0.1,
    compat: Compat = None,
    legacy_seed: int | None = None,
) -> Scores:
    """Mean rank correlation of smoothed maps over the steps of the cascade.

    Parameters
    ----------
    attributions, shape=(batch, *map shape)
        Read with `compat` alone, as the smoothed maps to compare with; else the trained model is
        explained anew under the same noise as the others.
    context
        Needs `explain` with weights ``bottom_up:k``, and `item_seeds`.
    n_cascade_steps
        See `mprt.score`.
    n_smooth_draws
        Maps that are averaged; the last is that of the undisturbed input.
    noise_share
        Standard deviation of the normal noise as a share of the item's range of values.
    compat
        ``quantus``: every layer, new noise from NumPy's legacy generator for each, and the mean
        takes in the original model, explained once more.
    legacy_seed
        Of the noise with `compat`, see `compat.legacy_generator`.

    Returns
    -------
    Scores, in [-1, 1]
        NaN for a map of constant magnitude. Curve ``smooth_mprt``: x = share of layers drawn anew.

    Raises
    ------
    ScoreError
        No `explain`, fewer than one step or draw, or `compat` without a seed.
    """
    explain = context.explain
    if explain is None or n_cascade_steps < 1 or n_smooth_draws < 1:
        raise ScoreError(
            "smooth_mprt: needs `explain` and at least one step and draw, found "
            f"{n_cascade_steps} and {n_smooth_draws}"
        )
    quantus = as_quantus(compat, "smooth_mprt")
    legacy = legacy_generator(legacy_seed, "smooth_mprt") if quantus else None
    inputs = context.inputs
    spread = (inputs.flatten(1).amax(1) - inputs.flatten(1).amin(1)).double().cpu() * noise_share
    spread = spread.view(-1, *[1] * (inputs.ndim - 1))

    def noise(draw: int) -> Tensor:
        if legacy is not None:
            return torch.from_numpy(legacy.randn(*inputs.shape))
        return torch.stack(
            [
                torch.randn(
                    inputs.shape[1:],
                    generator=rng.torch_generator(seed, "smooth_mprt", draw),
                    dtype=torch.float64,
                )
                for seed in context.item_seeds.tolist()
            ]
        )

    def smooth(weights: str) -> Tensor:
        total = explain(inputs, weights=weights).double().cpu()
        for draw in range(n_smooth_draws - 1):
            noisy = inputs.cpu().double() + spread * noise(draw)
            total = total + explain(noisy.to(inputs), weights=weights).double().cpu()
        return total.flatten(1).abs()

    scheme, n_layers, steps = plan(explain, n_cascade_steps, "bottom_up", compat)
    original = attributions.flatten(1).abs().cpu() if quantus else smooth("trained")
    columns = [spearman(original, smooth(f"{scheme}:{k}" if k else "trained")) for k in steps]
    return layer_scores(context, columns, [k / n_layers for k in steps], "smooth_mprt", compat)
