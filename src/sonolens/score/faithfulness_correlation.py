"""Faithfulness correlation: larger attribution, larger drop when its cells are removed.

For r = 1..R a coalition S of cells is replaced by the fill, delta_r = F(x) - F(x with S filled) and
sigma_r = sum of the attribution over S; the score is Pearson's r of sigma and delta. Coalitions are
groups of patches (`patch`: sound is made of regions, not of single cells) or scattered single cells
(`scattered`, the definition). Coalitions and drops do not depend on the attribution: they are
computed once and shared by all methods.

References
----------
Bhatt, U., Weller, A., Moura, J. M. F. (2020). Evaluating and aggregating feature-based model
explanations. IJCAI, equation 1.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from sonolens import rng
from sonolens.score.contract import Context, ScoreError, Scores, flat_map
from sonolens.score.similarity import pearson
from sonolens.store import batches


def score(
    attributions: Tensor,
    context: Context,
    *,
    mode: Literal["patch", "scattered"] = "patch",
    n_coalitions: int = 100,
    n_patches: int = 8,
    subset_size: int = 8,
    batch_size: int = 64,
) -> Scores:
    """Faithfulness correlation of each item.

    Parameters
    ----------
    attributions, shape=(batch, [channel,] freq, time)
        Signed maps; channels are summed.
    context
        Needs `predict`, `edit`, `fill`, `item_seeds`.
    mode
        What a coalition is made of: patches of a grid, or single cells.
    n_coalitions
        R, at least 3.
    n_patches
        The grid has n_patches x n_patches patches (fewer where the map is smaller), mode ``patch``.
    subset_size
        Patches or cells in a coalition, at most half of all.
    batch_size
        Inputs per call of the model.

    Returns
    -------
    Scores, in [-1, 1]
        NaN when the sums or the drops are constant.

    Raises
    ------
    ScoreError
        The map does not live on the input's axes, or fewer than 3 coalitions.
    """
    if n_coalitions < 3:
        raise ScoreError(f"n_coalitions: found {n_coalitions}, need at least 3 for a correlation")
    maps = flat_map(attributions, context.inputs)
    plane = tuple(context.inputs.shape[2 if context.inputs.ndim >= 4 else 1 :])
    labels = _grid(plane, n_patches) if mode == "patch" else torch.arange(maps.shape[1])
    key = ("faithfulness", mode, n_coalitions, n_patches, subset_size, batch_size)
    members, drops = context.shared(
        key,
        lambda: _coalitions_and_drops(
            context, labels, plane, n_coalitions, subset_size, batch_size
        ),
    )
    n_groups = members.shape[2]
    sums = torch.zeros(len(maps), n_groups, dtype=torch.float64)
    sums.scatter_add_(1, labels.expand(len(maps), -1), maps.cpu())
    sigma = torch.stack([member.double() @ one for member, one in zip(members, sums, strict=True)])
    return Scores(pearson(sigma, drops))


def _grid(plane: tuple[int, ...], n_patches: int) -> Tensor:
    """Patch number of every cell, (cells,)."""
    labels = torch.zeros(plane, dtype=torch.int64)
    for axis, size in enumerate(plane):
        n_parts = min(n_patches, size)
        part = torch.arange(size) * n_parts // size
        labels = labels * n_parts + part.view(
            [-1 if axis == other else 1 for other in range(len(plane))]
        )
    return labels.flatten()


def _coalitions_and_drops(
    context: Context,
    labels: Tensor,
    plane: tuple[int, ...],
    n_coalitions: int,
    subset_size: int,
    batch_size: int,
) -> tuple[Tensor, Tensor]:
    """Membership (batch, R, groups), boolean, and drops (batch, R); items never share a call."""
    n_groups = int(labels.max()) + 1
    size = max(1, min(subset_size, n_groups // 2))
    inputs = context.inputs
    members, drops = [], []
    for item in range(len(inputs)):
        generator = rng.numpy_generator(int(context.item_seeds[item]), "faithfulness")
        chosen = np.argpartition(generator.random((n_coalitions, n_groups)), size - 1, axis=1)[
            :, :size
        ]
        member = torch.zeros(n_coalitions, n_groups, dtype=torch.bool)
        member.scatter_(1, torch.from_numpy(chosen), True)
        masks = member[:, labels].view(n_coalitions, *[1] * (inputs.ndim - 1 - len(plane)), *plane)
        whole = context.predict(inputs[[item]], torch.tensor([item]))
        values = []
        for chunk in batches(n_coalitions, batch_size):
            n = len(chunk)
            mask = masks[chunk.start : chunk.stop].to(inputs).expand(n, *inputs.shape[1:])
            original = inputs[item].expand(n, *inputs.shape[1:])
            fill = context.fill[item].expand(n, *inputs.shape[1:])
            edited = context.edit(original, mask, fill)
            values.append(context.predict(edited, torch.full((n,), item)))
        members.append(member)
        drops.append((whole.double() - torch.cat(values).double()).cpu())
    return torch.stack(members), torch.stack(drops)
