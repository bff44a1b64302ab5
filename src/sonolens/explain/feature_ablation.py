"""Feature ablation: how much the target drops when a group of cells is replaced by the baseline.

A group's value is F(x) - mean_k F(x with the group from b_k); its cells share the value evenly, so
that they sum to it. captum's FeatureAblation gives each cell the whole value of its group: the same
map times the cells of the group.

References
----------
Zeiler, M. D., Fergus, R. (2014). Visualizing and understanding convolutional networks. ECCV,
section 4.2 (occlusion); Kokhlikyan, N. et al. (2020). Captum. arXiv:2009.07896 (groups).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sonolens.explain.contract import Attribution, Target, frozen
from sonolens.explain.removal import Item, groups, items, n_groups, spread


def attribute(
    model: nn.Module,
    inputs: Tensor,
    target: Target,
    *,
    baseline: Tensor | None,
    item_seeds: Tensor,
    segments: Tensor | None = None,
    chunk_size: int = 32,
) -> Attribution:
    """Drop of the target without each group, shape=(batch, *shape), in units of the target.

    Parameters
    ----------
    model, inputs, target, baseline, item_seeds, segments
        See `contract.Method`; `segments` are the groups, the drops of K baselines are averaged.
    chunk_size
        Inputs per call of the model.

    Raises
    ------
    ExplainError
        No or ill-shaped baseline or segments; a target that is not finite; chunk_size below 1.
    """
    labels = groups(inputs, segments)
    maps = []
    with torch.no_grad(), frozen(model):
        for item, own in zip(
            items(model, inputs, target, baseline, chunk_size, "feature_ablation"),
            labels,
            strict=True,
        ):
            maps.append(spread(_drops(item, own), own, inputs))
    n_draws = 1 if baseline is None else baseline.shape[1]
    return Attribution(
        torch.stack(maps), n_evaluations=1 + n_draws * max(n_groups(own) for own in labels)
    )


def _drops(item: Item, labels: Tensor) -> Tensor:
    """Drop of the target without each group, (groups,)."""
    column = (-1, *[1] * labels.ndim)
    return item.full() - item.values(n_groups(labels), lambda edits: labels != edits.view(column))
