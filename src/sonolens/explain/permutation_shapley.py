"""Shapley values of groups of cells by permutations: groups enter in turn, each has its gain.

The value of a coalition is that of `kernel_shap`. Each permutation is walked forwards and
backwards (antithetic), so what is bilinear in the groups is met exactly, and every walk sums to
F(x) - mean_k F(b_k). Where all coalitions cost no more than the walks, all are evaluated and the
values are exact. The cells of a group share its value evenly.

References
----------
Castro, J., Gomez, D., Tejada, J. (2009). Polynomial calculation of the Shapley value based on
sampling. Computers & Operations Research 36(5). Mitchell, R. et al. (2022). Sampling permutations
for Shapley value estimation. JMLR 23, section 3 (antithetic).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sonolens import rng
from sonolens.explain.contract import Attribution, ExplainError, Target, frozen
from sonolens.explain.removal import (
    Item,
    by_group,
    groups,
    items,
    n_groups,
    share_missing,
    spread,
)


def attribute(
    model: nn.Module,
    inputs: Tensor,
    target: Target,
    *,
    baseline: Tensor | None,
    item_seeds: Tensor,
    segments: Tensor | None = None,
    n_permutations: int = 4,
    chunk_size: int = 32,
) -> Attribution:
    """Shapley values, shape=(batch, *shape), in units of the target; they sum to its change.

    Parameters
    ----------
    model, inputs, target, baseline, item_seeds, segments
        See `contract.Method`; `segments` are the players, the values of K baselines are averaged.
    n_permutations
        Walks per item, backward ones included; an even number. M groups cost M - 1 evaluations a
        walk.
    chunk_size
        Inputs per call of the model.

    Raises
    ------
    ExplainError
        No or ill-shaped baseline or segments; a target that is not finite; n_permutations odd or
        below 2; chunk_size below 1.
    """
    if n_permutations < 2 or n_permutations % 2:
        raise ExplainError(
            f"permutation_shapley: n_permutations {n_permutations}; need an even number from 2: "
            "each goes forwards and backwards"
        )
    labels = groups(inputs, segments)
    maps, errors, n_evaluations = [], [], 0
    with torch.no_grad(), frozen(model):
        for item, own, seed in zip(
            items(model, inputs, target, baseline, chunk_size, "permutation_shapley"),
            labels,
            item_seeds.tolist(),
            strict=True,
        ):
            full, empty = item.full(), item.empty()
            n_players = n_groups(own)
            n_edits = n_permutations * (n_players - 1)
            if 2**n_players - 2 <= n_edits:
                n_edits = 2**n_players - 2
                values = _exact(item, own, empty, full)
            else:
                generator = rng.torch_generator(seed, "permutation_shapley")
                orders = torch.stack(
                    [
                        torch.randperm(n_players, generator=generator)
                        for _ in range(n_permutations // 2)
                    ]
                )
                values = _walked(item, own, torch.cat([orders, orders.flip(1)]), empty, full)
            maps.append(spread(values, own, inputs))
            errors.append(share_missing(maps[-1], empty, full))
            n_evaluations = max(n_evaluations, 1 + (n_edits + 1) * len(item.starts))
    return Attribution(
        torch.stack(maps),
        completeness_error=torch.tensor(errors, dtype=torch.float64),
        n_evaluations=n_evaluations,
    )


def _walked(item: Item, labels: Tensor, orders: Tensor, empty: float, full: float) -> Tensor:
    """Mean gain of each player over the walks `orders` (walks, players), (players,)."""
    n_walks, n_players = orders.shape
    # Place of each cell's group in every walk; the edits of a walk keep its first 1 … M - 1.
    places = orders.argsort(1).to(labels.device)[:, labels]
    column = (-1, *[1] * labels.ndim)

    def kept(edits: Tensor) -> Tensor:
        n_inside = (edits % (n_players - 1) + 1).view(column)
        return places[edits // (n_players - 1)] < n_inside

    found = item.values(n_walks * (n_players - 1), kept).view(n_walks, n_players - 1)
    ends = found.new_tensor([[empty, full]]).expand(n_walks, 2)
    gains = torch.cat([ends[:, :1], found, ends[:, 1:]], 1).diff(dim=1)
    return torch.zeros_like(gains).scatter_(1, orders, gains).mean(0)


def _exact(item: Item, labels: Tensor, empty: float, full: float) -> Tensor:
    """Shapley values (players,) from the values of all coalitions, numbered by their bits."""
    n_players = n_groups(labels)
    numbers = torch.arange(2**n_players)
    present = (numbers[:, None] >> torch.arange(n_players)) % 2 == 1
    found = item.values(len(numbers) - 2, by_group(present[1:-1], labels))
    gains = torch.cat([found.new_tensor([empty]), found, found.new_tensor([full])])
    sizes = present.sum(1)
    weights = torch.tensor(
        [1 / (n_players * math.comb(n_players - 1, size)) for size in range(n_players)],
        dtype=torch.float64,
    )
    values = []
    for player in range(n_players):
        without = numbers[~present[:, player]]
        gain = gains[without + 2**player] - gains[without]
        values.append((weights[sizes[without]] * gain).sum())
    return torch.stack(values)
