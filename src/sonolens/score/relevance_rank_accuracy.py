"""Relevance rank accuracy: share of the truth mask its K strongest cells find.

References
----------
Arras, L., Osman, A., Samek, W. (2022). CLEVR-XAI: a benchmark dataset for the ground truth
evaluation of neural network explanations. Information Fusion 81, section 3.3, equation 4.
"""

from __future__ import annotations

from torch import Tensor

from sonolens.score.contract import Context, Scores, flat_mask, positive, undefined


def score(attributions: Tensor, context: Context, *, mask: str | None = None) -> Scores:
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
    truth = truth.cpu()
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
