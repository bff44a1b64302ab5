"""Random logit: how alike the maps of different classes are.

Similarity of the map of the target class with that of another class, averaged over all other
classes (the paper draws one). A method that shows the same for every class explains none of them.

References
----------
Sixt, L., Granz, M., Landgraf, T. (2020). When explanations lie: why many modified BP attributions
fail. ICML, section 4.3 (random logit, SSIM).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from sonolens.explain.targets import ClassLogit
from sonolens.score.compat import QUANTUS_SEED, Compat, as_quantus, scaled
from sonolens.score.contract import Context, Explainer, ScoreError, Scores
from sonolens.score.similarity import cosine, spearman, ssim, unscaled_ssim


def score(
    attributions: Tensor,
    context: Context,
    *,
    similarity: Literal["ssim", "cosine", "spearman"] = "ssim",
    compat: Compat = None,
) -> Scores:
    """Mean similarity with the maps of all other classes.

    Parameters
    ----------
    attributions, shape=(batch, *map shape)
        Signed maps of a ClassLogit target.
    context
        Needs `explain`, `n_classes` and a ClassLogit target.
    similarity
        ``ssim`` of the maps (window 7, each scaled by its largest magnitude), ``cosine``, or
        ``spearman`` of the magnitudes. The other two are in the curves.
    compat
        ``quantus``: one other class drawn after `np.random.seed(42)`, SSIM along the flattened
        maps, each batch of maps scaled by its largest magnitude; no curves.

    Returns
    -------
    Scores, in [-1, 1]
        NaN for a map that is zero everywhere; other classes with a zero map are left out. Curves
        ``ssim``, ``cosine``, ``spearman``: x = other class.

    Raises
    ------
    ScoreError
        The target is no class, or there is no other class.
    """
    target, n_classes = context.target, context.n_classes
    explain = context.explain
    if explain is None or not isinstance(target, ClassLogit) or n_classes is None or n_classes < 2:
        raise ScoreError(
            f"random_logit: target {type(target).__name__} with {n_classes} classes; "
            "needs a class logit of at least two"
        )
    if as_quantus(compat, "random_logit"):
        return Scores(_quantus(attributions, context, explain, target, n_classes))
    table, others = context.once(
        "random_logit",
        attributions,
        lambda: _all_classes(attributions, context, explain, target, n_classes),
    )
    return Scores(table[similarity].nanmean(1), _curves(context, table, others))


def _all_classes(
    attributions: Tensor, context: Context, explain: Explainer, target: ClassLogit, n_classes: int
) -> tuple[dict[str, Tensor], Tensor]:
    """Similarities with every other class, (batch, n_classes - 1) each, and those classes."""
    classes = torch.tensor(target.class_index)
    found: dict[str, list[Tensor]] = {"ssim": [], "cosine": [], "spearman": []}
    others = []
    for shift in range(1, n_classes):
        other = (classes + shift) % n_classes
        maps = explain(context.inputs, ClassLogit(tuple(other.tolist())))
        for name, values in _similarities(attributions.cpu(), maps.cpu()).items():
            found[name].append(values)
        others.append(other)
    return {name: torch.stack(values, 1) for name, values in found.items()}, torch.stack(others, 1)


def _quantus(
    attributions: Tensor, context: Context, explain: Explainer, target: ClassLogit, n_classes: int
) -> Tensor:
    generator = np.random.RandomState(QUANTUS_SEED)
    drawn = torch.from_numpy(generator.randint(0, n_classes - 1, len(attributions)))
    other = drawn + (drawn >= torch.tensor(target.class_index))
    maps = explain(context.inputs, ClassLogit(tuple(other.tolist())))
    return unscaled_ssim(scaled(attributions).flatten(1), scaled(maps).flatten(1))


def _similarities(first: Tensor, second: Tensor) -> dict[str, Tensor]:
    defined = (first.flatten(1).abs().amax(1) > 0) & (second.flatten(1).abs().amax(1) > 0)
    planes = [maps.sum(1) if maps.ndim == 4 else maps for maps in (first, second)]
    if planes[0].ndim != 3:
        raise ScoreError(
            f"random_logit: map {tuple(first.shape)}, need (batch, [channel,] freq, time)"
        )
    values = {
        "ssim": ssim(planes[0], planes[1]),
        "cosine": cosine(first.flatten(1), second.flatten(1)),
        "spearman": spearman(first.flatten(1).abs(), second.flatten(1).abs()),
    }
    return {name: torch.where(defined, value, torch.nan) for name, value in values.items()}


def _curves(context: Context, table: dict[str, Tensor], others: Tensor) -> pd.DataFrame:
    rows = [
        {
            "item_id": item_id,
            "curve": name,
            "x": float(others[row, column]),
            "y": float(values[row, column]),
        }
        for name, values in table.items()
        for row, item_id in enumerate(context.items.ids)
        for column in others[row].argsort().tolist()
    ]
    return pd.DataFrame(rows)
