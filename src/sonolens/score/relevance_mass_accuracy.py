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

from sonolens.score.compat import Compat, as_quantus, scaled
from sonolens.score.contract import Context, Scores, signed_and_truth, undefined


def score(
    attributions: Tensor, context: Context, *, mask: str | None = None, compat: Compat = None
) -> Scores:
    """Mass accuracy of each item.

    Parameters
    ----------
    attributions, shape=(batch, [channel,] freq, time)
        Signed maps; only the positive part counts.
    context
        Needs `masks`.
    mask
        Name of the truth mask; may be None when there is one.
    compat
        ``quantus``: the map with its signs, so that a score may be any number.

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
    maps, truth = found
    if as_quantus(compat, "relevance_mass_accuracy"):
        signed = scaled(maps).numpy()  # a sum near zero hangs on the order of adding up: NumPy's
        share = torch.from_numpy((signed * truth.numpy()).sum(1) / signed.sum(1))
        return Scores(torch.where(truth.any(1), share, torch.nan))
    maps = maps.clamp_min(0)
    total = maps.sum(1)
    inside = (maps * truth).sum(1)
    defined = (total > 0) & truth.any(1)
    return Scores(torch.where(defined, inside / total, torch.nan))
