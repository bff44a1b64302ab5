"""Model parameter randomisation test: the map must depend on what the model has learnt.

Weights are drawn anew from the head down, cumulatively; after each step the rank correlation of the
magnitudes with the original map is taken. A method whose map survives shows the input, not the
model.

References
----------
Adebayo, J. et al. (2018). Sanity checks for saliency maps. NeurIPS, section 4.1 (cascading
randomisation, Spearman without sign). The original model, whose correlation is 1 by definition, is
not part of the mean.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from sonolens.score.contract import Context, ScoreError, Scores
from sonolens.score.similarity import spearman


def score(attributions: Tensor, context: Context, *, n_cascade_steps: int = 6) -> Scores:
    """Mean rank correlation over the steps of the cascade.

    Parameters
    ----------
    attributions, shape=(batch, *map shape)
        Signed maps of the trained model.
    context
        Needs `explain` with weights ``cascade:k``.
    n_cascade_steps
        How many k between 1 (the head alone) and the number of layers, evenly spaced, both ends
        included.

    Returns
    -------
    Scores, in [-1, 1]
        NaN for a map of constant magnitude; steps whose map is constant are left out. Curve
        ``mprt``: x = share of layers drawn anew.

    Raises
    ------
    ScoreError
        No `explain`, or fewer than one step.
    """
    if context.explain is None or n_cascade_steps < 1:
        raise ScoreError(f"mprt: needs `explain` and at least one step, found {n_cascade_steps}")
    n_layers = context.explain.n_layers
    # endpoint first for a single step: the whole model drawn anew says most
    spaced = np.linspace(n_layers, 1, n_cascade_steps).round().astype(int)
    steps = sorted(set(spaced.tolist()))
    original = attributions.flatten(1).abs().cpu()
    columns = []
    for k in steps:
        maps = context.explain(context.inputs, weights=f"cascade:{k}")
        columns.append(spearman(original, maps.flatten(1).abs().cpu()))
    values = torch.stack(columns, 1)
    rows = [
        {"item_id": item_id, "curve": "mprt", "x": k / n_layers, "y": float(values[row, column])}
        for row, item_id in enumerate(context.items.ids)
        for column, k in enumerate(steps)
    ]
    return Scores(values.nanmean(1), pd.DataFrame(rows))
