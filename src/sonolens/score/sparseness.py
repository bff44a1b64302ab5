"""Sparseness: Gini index of a map's magnitudes; 0 when all are equal, near 1 when one has all.

References
----------
Chalasani, P. et al. (2020). Concise explanations of neural networks using adversarial training.
ICML, section 5. Hurley, N., Rickard, S. (2009). Comparing measures of sparsity. IEEE Transactions
on Information Theory 55(10), table 1 (Gini).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sonolens.score.compat import Compat, as_quantus, scaled
from sonolens.score.contract import Context, Scores, undefined


def score(attributions: Tensor, context: Context, *, compat: Compat = None) -> Scores:
    """Gini index of each item, sum_j (2 j - n - 1) v_j / (n sum v), v sorted from small to large.

    Every map is taken by itself, so a score does not depend on the other items.

    Parameters
    ----------
    attributions, shape=(batch, *map shape)
        Signed maps.
    context
        Not read.
    compat
        ``quantus``: magnitudes over the largest of the whole array, plus 1e-7.

    Returns
    -------
    Scores, in [0, 1)
        NaN for a map that is zero everywhere.

    Examples
    --------
    >>> score(torch.tensor([[0.0, 0.0, 0.0, 5.0], [1.0, 1.0, 1.0, 1.0]]), None).values.tolist()
    [0.75, 0.0]
    """
    if as_quantus(compat, "sparseness"):
        attributions = scaled(attributions).abs() + 1e-7
    # NumPy sorts several times as fast as torch
    sizes = torch.from_numpy(np.sort(attributions.double().flatten(1).abs().cpu().numpy(), axis=1))
    n_cells = sizes.shape[1]
    weights = 2 * torch.arange(1, n_cells + 1, dtype=torch.float64) - n_cells - 1
    total = sizes.sum(1)
    return Scores(
        torch.where(total > 0, sizes @ weights / (n_cells * total), undefined(attributions))
    )
