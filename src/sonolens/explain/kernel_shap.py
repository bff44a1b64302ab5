"""Kernel SHAP: Shapley values of groups of cells, by weighted least squares over coalitions.

The value of a coalition S is v(S) = mean_k F(x with the groups outside S from b_k). The values phi
minimise sum_S w(S) (v(S) - v({}) - sum_{g in S} phi_g)^2 under the efficiency constraint
sum_g phi_g = F(x) - mean_k F(b_k), which is eliminated: phi = mean share + a part that sums to 0.
The kernel w(S) = (M - 1) / (C(M, |S|) |S| (M - |S|)) of M groups is met as in the library SHAP:
sizes of coalitions are enumerated from the outside in while the budget allows, the rest is sampled
from the kernel, each coalition with its complement. With all of them the values are the exact
Shapley values (theorem 2). The cells of a group share its value evenly.

References
----------
Lundberg, S. M., Lee, S.-I. (2017). A unified approach to interpreting model predictions. NeurIPS,
theorem 2. Covert, I., Lee, S.-I. (2021). Improving KernelSHAP: practical Shapley value estimation
via linear regression. AISTATS (pairs).
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from torch import Tensor, nn

from sonolens import rng
from sonolens.explain.contract import Attribution, ExplainError, Target, frozen
from sonolens.explain.removal import by_group, groups, items, n_groups, share_missing, spread


def attribute(
    model: nn.Module,
    inputs: Tensor,
    target: Target,
    *,
    baseline: Tensor | None,
    item_seeds: Tensor,
    segments: Tensor | None = None,
    n_samples: int = 256,
    chunk_size: int = 32,
) -> Attribution:
    """Shapley values, shape=(batch, *shape), in units of the target; they sum to its change.

    Parameters
    ----------
    model, inputs, target, baseline, item_seeds, segments
        See `contract.Method`; `segments` are the players, the values of K baselines are averaged.
    n_samples
        Coalitions per item, at least two for each group; fewer where there are no more.
    chunk_size
        Inputs per call of the model.

    Raises
    ------
    ExplainError
        No or ill-shaped baseline or segments; a target that is not finite; n_samples or chunk_size
        too small.
    """
    labels = groups(inputs, segments)
    maps, errors, n_evaluations = [], [], 0
    with torch.no_grad(), frozen(model):
        for item, own, seed in zip(
            items(model, inputs, target, baseline, chunk_size, "kernel_shap"),
            labels,
            item_seeds.tolist(),
            strict=True,
        ):
            generator = rng.numpy_generator(seed, "kernel_shap")
            present, weights = coalitions(n_groups(own), n_samples, generator)
            full, empty = item.full(), item.empty()
            found = item.values(len(present), by_group(torch.from_numpy(present), own))
            values = solve(present, weights, found.numpy() - empty, full - empty)
            maps.append(spread(torch.from_numpy(values), own, inputs))
            errors.append(share_missing(maps[-1], empty, full))
            n_evaluations = max(n_evaluations, 1 + (len(present) + 1) * len(item.starts))
    return Attribution(
        torch.stack(maps),
        completeness_error=torch.tensor(errors, dtype=torch.float64),
        n_evaluations=n_evaluations,
    )


def coalitions(
    n_players: int, n_samples: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Coalitions (n, n_players), boolean, neither empty nor full, and their weights (n,).

    At most `n_samples`; weights sum to 1. All coalitions with the kernel's own weights where
    `n_samples` allows. Raises ExplainError for fewer samples than twice the players.
    """
    n_all = 2**n_players - 2
    if n_samples < min(2 * n_players, n_all):
        raise ExplainError(
            f"kernel_shap: n_samples {n_samples} for {n_players} groups; need at least "
            f"{min(2 * n_players, n_all)}, or coarser segments"
        )
    mass = {size: 1 / (size * (n_players - size)) for size in range(1, n_players)}
    total = sum(mass.values())
    budget = min(n_samples, n_all)
    parts: list[np.ndarray] = []
    weights: list[np.ndarray] = []
    for size in range(1, n_players // 2 + 1):
        pair = {size, n_players - size}
        n_subsets = len(pair) * math.comb(n_players, size)
        share = sum(mass[one] for one in pair)
        # Enumerated as soon as sampling would take each of these coalitions once on average.
        if budget * share < n_subsets * sum(mass.values()) * (1 - 1e-8):
            break
        chosen = np.zeros((math.comb(n_players, size), n_players), bool)
        members = np.array(list(itertools.combinations(range(n_players), size)))
        np.put_along_axis(chosen, members, True, axis=1)
        parts += [chosen, ~chosen][: len(pair)]
        weights.append(np.full(n_subsets, share / total / n_subsets))
        budget -= n_subsets
        for one in pair:
            del mass[one]
    n_pairs = budget // 2
    if mass and n_pairs:
        left = np.array(list(mass.values()))
        drawn = generator.choice(list(mass), n_pairs, p=left / left.sum())
        ranks = generator.random((n_pairs, n_players)).argsort(1).argsort(1)
        chosen = ranks < drawn[:, None]
        parts += [chosen, ~chosen]
        weights.append(np.full(2 * n_pairs, left.sum() / total / (2 * n_pairs)))
    if not parts:  # one player
        return np.zeros((0, n_players), bool), np.zeros(0)
    return np.concatenate(parts), np.concatenate(weights)


def solve(present: np.ndarray, weights: np.ndarray, gains: np.ndarray, change: float) -> np.ndarray:
    """Values (players,) that sum to `change` and fit the gains of the coalitions best.

    Rows that sum to 0 make the deviation from the mean share sum to 0 in the solution of least
    norm; that solution also shares evenly what the coalitions leave open.
    """
    n_players = present.shape[1]
    share = change / n_players
    design = present - present.mean(1, keepdims=True)
    roots = np.sqrt(weights)[:, None]
    goal = (gains - share * present.sum(1))[:, None]
    deviation, *_ = np.linalg.lstsq(roots * design, roots * goal, rcond=None)
    values: np.ndarray = share + deviation[:, 0]
    return values
