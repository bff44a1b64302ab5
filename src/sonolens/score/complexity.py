"""Complexity: entropy of a map's magnitudes as shares of their sum; ln n when all are equal.

References
----------
Bhatt, U., Weller, A., Moura, J. M. F. (2020). Evaluating and aggregating feature-based model
explanations. IJCAI, definition 3 (complexity).
"""

from __future__ import annotations

import torch
from torch import Tensor

from sonolens.score.compat import Compat, as_quantus
from sonolens.score.contract import Context, Scores


def score(attributions: Tensor, context: Context, *, compat: Compat = None) -> Scores:
    """Entropy of each item, - sum_i p_i ln p_i with p = |a| / sum |a|, in nats.

    Parameters
    ----------
    attributions, shape=(batch, *map shape)
        Signed maps.
    context
        Not read.
    compat
        ``quantus``: ln(p + 1e-12) in place of ln p.

    Returns
    -------
    Scores, in [0, ln n]
        NaN for a map that is zero everywhere.

    Examples
    --------
    >>> score(torch.tensor([[0.0, 3.0, 0.0, 0.0], [2.0, -2.0, 0.0, 0.0]]), None).values.tolist()
    [0.0, 0.6931471805599453]
    """
    sizes = attributions.double().flatten(1).abs().cpu()
    shares = sizes / sizes.sum(1, keepdim=True)
    if as_quantus(compat, "complexity"):
        return Scores(-(shares * (shares + 1e-12).log()).sum(1))
    return Scores(torch.special.entr(shares).sum(1))
