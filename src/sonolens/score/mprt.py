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

from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from sonolens.score.compat import Compat, as_quantus
from sonolens.score.contract import Context, Explainer, ScoreError, Scores
from sonolens.score.similarity import spearman


def score(
    attributions: Tensor,
    context: Context,
    *,
    n_cascade_steps: int = 6,
    compat: Compat = None,
) -> Scores:
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
    compat
        ``quantus``: every layer, weights drawn as there, and the mean takes in the original model,
        explained once more; its point of the curve is x = 0.

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
    explain = context.explain
    if explain is None or n_cascade_steps < 1:
        raise ScoreError(f"mprt: needs `explain` and at least one step, found {n_cascade_steps}")
    scheme, n_layers, steps = plan(explain, n_cascade_steps, "top_down", compat)
    original = attributions.flatten(1).abs().cpu()
    columns = []
    for k in steps:
        maps = explain(context.inputs, weights=f"{scheme}:{k}" if k else "trained")
        columns.append(spearman(original, maps.flatten(1).abs().cpu()))
    return layer_scores(context, columns, [k / n_layers for k in steps], "mprt", compat)


def plan(
    explain: Explainer, n_steps: int, order: Literal["top_down", "bottom_up"], compat: Compat
) -> tuple[str, int, list[int]]:
    """(scheme of `cascade.randomised`, number of layers, how many are drawn anew in each step)."""
    if as_quantus(compat, "mprt"):
        return f"quantus_{order}", explain.n_resettable, list(range(explain.n_resettable + 1))
    n_layers = explain.n_layers
    # endpoint first for a single step: the whole model drawn anew says most
    spaced = np.linspace(n_layers, 1, n_steps).round().astype(int)
    return "cascade" if order == "top_down" else order, n_layers, sorted(set(spaced.tolist()))


def layer_scores(
    context: Context, columns: list[Tensor], shares: list[float], curve: str, compat: Compat
) -> Scores:
    """Mean over steps, with the curve; one column (batch,) and one share per step."""
    values = torch.stack(columns, 1)
    rows = [
        {"item_id": item_id, "curve": curve, "x": share, "y": float(values[row, column])}
        for row, item_id in enumerate(context.items.ids)
        for column, share in enumerate(shares)
    ]
    mean = values.mean(1) if as_quantus(compat, curve) else values.nanmean(1)
    return Scores(mean, pd.DataFrame(rows))
