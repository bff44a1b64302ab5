"""Pointing game: the strongest cell lies in the truth mask.

References
----------
Zhang, J. et al. (2018). Top-down neural attention by excitation backprop. International Journal of
Computer Vision 126, section 5.2 (there with a tolerance of 15 pixels).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from sonolens.score.contract import Context, Scores, signed_and_truth, undefined


def score(
    attributions: Tensor, context: Context, *, mask: str | None = None, tolerance_cells: int = 0
) -> Scores:
    """1 for a hit, 0 for a miss; several equally strong cells count with the share that hits.

    Parameters
    ----------
    attributions, shape=(batch, [channel,] freq, time)
        Signed maps; only the positive part counts.
    context
        Needs `masks`.
    mask
        Name of the truth mask; may be None when there is one.
    tolerance_cells
        The mask is widened by this many cells on every side.

    Returns
    -------
    Scores, in [0, 1]
        NaN where the mask is empty, nothing in the map is positive, or the data carry no truth.

    Raises
    ------
    ScoreError
        Unknown mask, or a map on other axes than the input.
    """
    found = signed_and_truth(attributions, context, mask)
    if found is None:
        return Scores(undefined(attributions))
    maps = found[0].clamp_min(0)
    truth = _widened(found[1], context.inputs.shape, tolerance_cells)
    strongest = maps == maps.amax(1, keepdim=True)
    share = (strongest & truth).sum(1).double() / strongest.sum(1)
    return Scores(torch.where((maps.amax(1) > 0) & truth.any(1), share, torch.nan))


def _widened(truth: Tensor, shape: torch.Size, tolerance_cells: int) -> Tensor:
    if not tolerance_cells:
        return truth
    planes = truth.view(len(truth), 1, *shape[-2:]).float()
    width = 2 * tolerance_cells + 1
    return functional.max_pool2d(planes, width, 1, tolerance_cells).flatten(1) > 0
