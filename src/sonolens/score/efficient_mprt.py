"""Efficient MPRT: by how much a map becomes more disordered when the whole model is drawn anew.

One fully randomised model is explained, none of the steps between; entropies need no pairing of
cells, so noise in a gradient cannot fake a loss of similarity.

References
----------
Hedstrom, A., Weber, L., Lapuschkin, S., Hohne, M. (2023). Sanity checks revisited: an exploration
to repair the model parameter randomisation test. arXiv:2401.06465, section 3.2.
"""

from __future__ import annotations

import numpy as np
import scipy.stats
import torch
from torch import Tensor

from sonolens.score.compat import Compat, as_quantus
from sonolens.score.contract import Context, ScoreError, Scores


def score(
    attributions: Tensor, context: Context, *, n_bins: int = 100, compat: Compat = None
) -> Scores:
    """Relative rise of the entropy of each map, (H(a_random) - H(a)) / H(a).

    Parameters
    ----------
    attributions, shape=(batch, *map shape)
        Signed maps of the trained model.
    context
        Needs `explain` with weights ``cascade:n_layers``.
    n_bins
        Of the histogram of the map's values between its smallest and largest.
    compat
        ``quantus``: weights drawn as there, and the trained model is explained anew.

    Returns
    -------
    Scores, at least -1
        NaN for a constant map, whose entropy is 0.

    Raises
    ------
    ScoreError
        No `explain`.
    """
    explain = context.explain
    if explain is None:
        raise ScoreError("efficient_mprt: needs `explain`")
    if as_quantus(compat, "efficient_mprt"):
        attributions = explain(context.inputs)
        weights = f"quantus_bottom_up:{explain.n_resettable}"
    else:
        weights = f"cascade:{explain.n_layers}"
    before = _entropy(attributions, n_bins)
    after = _entropy(explain(context.inputs, weights=weights), n_bins)
    return Scores(torch.where(before > 0, (after - before) / before, torch.nan))


def _entropy(maps: Tensor, n_bins: int) -> Tensor:
    """Entropy in nats of each map's histogram, (batch,)."""
    counts = [np.histogram(one, bins=n_bins)[0] for one in maps.flatten(1).cpu().numpy()]
    return torch.from_numpy(np.asarray(scipy.stats.entropy(np.stack(counts), axis=1)))
