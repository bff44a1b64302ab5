"""Infidelity: how far a map is from predicting the drop of the output, up to one factor per item.

mean over R perturbations I of (beta I . a - (F(x) - F(x - I)))^2 with the beta that makes it
smallest, so that the unit of the map does not matter. I removes a coalition of patches, the same as
in the faithfulness correlation.

References
----------
Yeh, C.-K. et al. (2019). On the (in)fidelity and sensitivity of explanations. NeurIPS, definition 2
(square removal; the optimal factor: appendix, as `normalize=True` in captum).
"""

from __future__ import annotations

import torch
from torch import Tensor

from sonolens.score import coalitions
from sonolens.score.contract import Context, Scores, flat_map


def score(
    attributions: Tensor,
    context: Context,
    *,
    n_coalitions: int = 100,
    n_patches: int = 8,
    subset_size: int = 8,
    batch_size: int = 64,
    multiplied_by_inputs: bool = True,
) -> Scores:
    """Infidelity of each item.

    Parameters
    ----------
    attributions, shape=(batch, [channel,] freq, time)
        Signed maps; channels are summed.
    context
        Needs `predict`, `edit`, `fill`, `item_seeds`.
    n_coalitions, n_patches, subset_size, batch_size
        See `faithfulness_correlation.score`.
    multiplied_by_inputs
        The map holds the factor x - fill already, as integrated gradients do: I is then the
        indicator of what was removed. False for plain gradients.

    Returns
    -------
    Scores, at least 0, in squared units of the target
        NaN for a map that is zero everywhere.
    """
    values = attributions.double()
    if not multiplied_by_inputs:
        values = values * (context.inputs.double() - context.fill.double())
    maps = flat_map(values, context.inputs).cpu()
    drawn = coalitions.draw(context, "patch", n_coalitions, n_patches, subset_size, batch_size)
    sums, drops = drawn.sums(maps), drawn.drops
    squares = sums.square().mean(1)
    beta = torch.where(squares > 0, (sums * drops).mean(1) / squares, 1.0)
    error = (beta[:, None] * sums - drops).square().mean(1)
    return Scores(torch.where(maps.any(1), error, torch.nan))
