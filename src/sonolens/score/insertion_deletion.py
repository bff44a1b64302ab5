"""Insertion and deletion: area under the output while cells come or go in the order of the map.

Deletion fills the strongest cells first: a good map makes the output fall at once. Insertion starts
from the fill and brings the strongest cells first. The output is the probability of the class, or,
where the target is no class, the target on a scale from 0 (all filled) to 1 (nothing filled).

References
----------
Petsiuk, V., Das, A., Saenko, K. (2018). RISE: randomized input sampling for explanation of
black-box models. BMVC, section 4.3.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from sonolens import rng
from sonolens.explain import segments
from sonolens.score.contract import Context, ScoreError, Scores, flat_map
from sonolens.store import batches


def score(
    attributions: Tensor,
    context: Context,
    *,
    mode: Literal["insertion", "deletion"],
    unit: Literal["patches", "cells"] = "patches",
    n_patches: int = 8,
    n_steps: int = 32,
    batch_size: int = 64,
) -> Scores:
    """Area under the curve of each item, trapezoid rule.

    Parameters
    ----------
    attributions, shape=(batch, [channel,] freq, time)
        Signed maps; channels are summed.
    context
        Needs `predict`, `edit`, `fill`, `item_seeds`, and `probabilities` for class targets.
    mode
        Whether cells come or go.
    unit
        What is ordered: patches of a grid by their mean attribution, or single cells. Ties are
        broken at random, alike for all methods.
    n_patches
        The grid has n_patches x n_patches patches, fewer where the map is smaller.
    n_steps
        Evaluations after the first; each edits as many units more, up to rounding.
    batch_size
        Inputs per call of the model; items never share a call.

    Returns
    -------
    Scores
        NaN for a map of one value; for other targets than classes also where F(x) = F(fill). Curve
        ``insertion`` or ``deletion``: x = share of the units, y = output.

    Raises
    ------
    ScoreError
        Maps on other axes, or fewer than one step.
    """
    if n_steps < 1:
        raise ScoreError(f"{mode}: n_steps {n_steps}, need at least 1")
    maps = flat_map(attributions, context.inputs).cpu()
    plane = tuple(context.inputs.shape[2 if context.inputs.ndim >= 4 else 1 :])
    n_cells = maps.shape[1]
    labels = torch.arange(n_cells)
    if unit == "patches":
        labels = segments.patches(context.inputs, n_patches).cpu().reshape(-1, n_cells)[0]
    n_units = int(labels.max()) + 1
    sizes = torch.zeros(n_units, dtype=torch.float64).scatter_add_(
        0, labels, torch.ones(n_cells, dtype=torch.float64)
    )
    zeros = torch.zeros(len(maps), n_units, dtype=torch.float64)
    means = zeros.scatter_add_(1, labels.expand(len(maps), -1), maps) / sizes
    counts = torch.from_numpy(np.unique(np.linspace(0, n_units, n_steps + 1).round().astype(int)))
    shares = counts.double() / n_units
    columns, rows = [], []
    for item, item_id in enumerate(context.items.ids):
        places = _places(means[item], int(context.item_seeds[item]))[labels]
        edited = places[None] < counts[:, None]  # (steps, cells): the strongest come first
        filled = edited if mode == "deletion" else ~edited
        outputs = _outputs(context, item, filled.view(-1, *plane), batch_size)
        columns.append(torch.trapezoid(outputs, shares))
        rows += [
            {"item_id": item_id, "curve": mode, "x": float(x), "y": float(y)}
            for x, y in zip(shares, outputs, strict=True)
        ]
    constant = maps.amax(1) == maps.amin(1)
    return Scores(torch.where(constant, torch.nan, torch.stack(columns)), pd.DataFrame(rows))


def _places(values: Tensor, seed: int) -> Tensor:
    """Place of each unit in the order from strong to weak, (units,)."""
    mixed = torch.from_numpy(rng.numpy_generator(seed, "ties").permutation(len(values)))
    order = mixed[values[mixed].argsort(descending=True, stable=True)]
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(values)))


def _outputs(context: Context, item: int, filled: Tensor, batch_size: int) -> Tensor:
    """Output (n,), float64, of one item with the cells of each mask (n, freq, time) filled."""
    original, fill = context.inputs[item], context.fill[item]
    masks = filled.to(original)
    masks = masks.view(len(masks), *[1] * (original.ndim - masks.ndim + 1), *masks.shape[1:])
    classes = context.classes("insertion") if context.probabilities is not None else None
    values = []
    for chunk in batches(len(masks), batch_size):
        shape = (len(chunk), *original.shape)
        mask = masks[chunk.start : chunk.stop].expand(shape)
        edited = context.edit(original.expand(shape), mask, fill.expand(shape))
        if classes is not None:
            probabilities, class_index = classes
            values.append(probabilities(edited)[:, class_index[item]])
        else:
            values.append(context.predict(edited, torch.full((len(chunk),), item)))
    found = torch.cat(values).double().cpu()
    if classes is not None:
        return found
    # both ends are among the steps: the one where all is filled is where the mask is full
    n_filled = filled.flatten(1).sum(1)
    whole, nothing = found[n_filled.argmin()], found[n_filled.argmax()]
    return (found - nothing) / (whole - nothing) if whole != nothing else found * torch.nan
