"""Relevance rank accuracy: share of the truth mask its K strongest cells find.

References
----------
Arras, L., Osman, A., Samek, W. (2022). CLEVR-XAI: a benchmark dataset for the ground truth
evaluation of neural network explanations. Information Fusion 81, section 3.3, equation 4.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sonolens.score.compat import Compat, as_quantus, scaled
from sonolens.score.contract import Context, Scores, signed_and_truth, undefined


def score(
    attributions: Tensor, context: Context, *, mask: str | None = None, compat: Compat = None
) -> Scores:
    """Rank accuracy of each item; chance is the mask's share of the map.

    The positive part of the map is ranked. Cells that tie at the K-th place share it: the score is
    the expectation over random orders of the ties, not a matter of which row comes first.

    Parameters
    ----------
    attributions, shape=(batch, [channel,] freq, time)
        Signed maps.
    context
        Needs `masks`.
    mask
        Name of the truth mask; may be None when there is one.
    compat
        ``quantus``: the map with its signs is ranked, and NumPy's argsort decides between ties.

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
    if as_quantus(compat, "relevance_rank_accuracy"):
        return Scores(_signed(*found))
    maps, truth = found[0].clamp_min(0), found[1]
    scores = undefined(attributions)
    for row, (values, wanted) in enumerate(zip(maps, truth, strict=True)):
        n_wanted = int(wanted.sum())
        if n_wanted == 0 or not values.any():
            continue
        threshold = values.topk(n_wanted).values[-1]
        above, tied = values > threshold, values == threshold
        n_left = n_wanted - int(above.sum())
        hits = (above & wanted).sum().double() + n_left * (
            tied & wanted
        ).sum().double() / tied.sum()
        scores[row] = hits / n_wanted
    return Scores(scores)


def _signed(maps: Tensor, truth: Tensor) -> Tensor:
    order = torch.from_numpy(np.argsort(-scaled(maps).numpy(), axis=1))
    n_wanted = truth.sum(1)
    first = torch.arange(truth.shape[1]) < n_wanted[:, None]
    return (truth.gather(1, order) & first).sum(1).double() / n_wanted
