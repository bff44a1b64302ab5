"""Effective complexity: how many cells carry more than a trace of the map.

References
----------
Nguyen, A., Martinez, M. R. (2020). On quantitative aspects of model interpretability.
arXiv:2007.07584, section 3.3 (there the smallest set that keeps the prediction; here, as in
Quantus, the cells above a threshold).
"""

from __future__ import annotations

import torch
from torch import Tensor

from sonolens.score.compat import Compat, as_quantus, scaled
from sonolens.score.contract import Context, Scores


def score(
    attributions: Tensor, context: Context, *, threshold: float = 1e-5, compat: Compat = None
) -> Scores:
    """Number of cells whose magnitude is above `threshold`.

    Parameters
    ----------
    attributions, shape=(batch, *map shape)
        Signed maps.
    context
        Not read.
    threshold
        Share of the largest magnitude of the map.
    compat
        ``quantus``: share of the largest magnitude of the whole array.

    Returns
    -------
    Scores, in [1, n]
        NaN for a map that is zero everywhere.
    """
    if as_quantus(compat, "effective_complexity"):
        return Scores((scaled(attributions).abs().flatten(1) > threshold).sum(1).double())
    sizes = attributions.double().flatten(1).abs().cpu()
    largest = sizes.amax(1, keepdim=True)
    counts = (sizes > threshold * largest).sum(1).double()
    return Scores(torch.where(largest[:, 0] > 0, counts, torch.nan))
