"""Relevance mass accuracy: share of the positive attribution inside the truth mask.

References
----------
Arras, L., Osman, A., Samek, W. (2022). CLEVR-XAI: a benchmark dataset for the ground truth
evaluation of neural network explanations. Information Fusion 81, section 3.3, equation 3 (there for
maps without negative values).
"""

from __future__ import annotations

import torch
from torch import Tensor

from sonolens.score.contract import Context, Scores, flat_mask, positive, undefined


def score(attributions: Tensor, context: Context, *, mask: str | None = None) -> Scores:
    """Mass accuracy of each item.

    Parameters
    ----------
    attributions, shape=(batch, [channel,] freq, time)
        Signed maps; only the positive part counts.
    context
        Needs `masks`.
    mask
        Name of the truth mask; may be None when there is one.

    Returns
    -------
    Scores, in [0, 1]
        NaN where the mask is empty, nothing in the map is positive, or the data carry no truth.

    Raises
    ------
    ScoreError
        Unknown mask, or a map on other axes than the input.
    """
    truth = flat_mask(context, mask)
    if truth is None:
        return Scores(undefined(attributions))
    maps = positive(attributions, context).cpu()
    total = maps.sum(1)
    inside = (maps * truth.cpu()).sum(1)
    defined = (total > 0) & truth.cpu().any(1)
    return Scores(torch.where(defined, inside / total, torch.nan))
