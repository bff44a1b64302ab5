"""LIME on groups of cells, as audioLIME: a weighted ridge regression on which groups are there.

Half of the groups, drawn at random, are replaced by the baseline; the first sample is the input
itself. A sample with share s of the groups weighs sqrt(exp(-d^2 / kernel_width^2)), where
d = 1 - sqrt(s) is its cosine distance from the input. The value of a group is its coefficient; its
cells share it evenly. Ridge instead of LIME's Lasso: a penalty on magnitudes puts every coefficient
to 0 where the target varies little (captum's default does).

References
----------
Ribeiro, M. T., Singh, S., Guestrin, C. (2016). "Why should I trust you?" Explaining the predictions
of any classifier. KDD, section 3. Haunschmid, V., Manilow, E., Widmer, G. (2020). audioLIME:
listenable explanations using source separation. MML workshop.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from sonolens import rng
from sonolens.explain.contract import Attribution, ExplainError, Target, frozen
from sonolens.explain.removal import by_group, groups, items, n_groups, spread


def attribute(
    model: nn.Module,
    inputs: Tensor,
    target: Target,
    *,
    baseline: Tensor | None,
    item_seeds: Tensor,
    segments: Tensor | None = None,
    n_samples: int = 256,
    kernel_width: float | None = 0.25,
    alpha: float = 1.0,
    chunk_size: int = 32,
) -> Attribution:
    """Coefficients of the groups, shape=(batch, *shape), in units of the target.

    Parameters
    ----------
    model, inputs, target, baseline, item_seeds, segments
        See `contract.Method`; `segments` are the groups, the values of K baselines are averaged.
    n_samples
        Samples per item, the input among them.
    kernel_width
        In cosine distance; None: every sample weighs the same.
    alpha
        Strength of the ridge penalty, as scikit-learn's.
    chunk_size
        Inputs per call of the model.

    Raises
    ------
    ExplainError
        No or ill-shaped baseline or segments; a target that is not finite; n_samples below 2,
        kernel_width or alpha not above 0, chunk_size below 1.
    """
    if n_samples < 2 or alpha <= 0 or (kernel_width is not None and kernel_width <= 0):
        raise ExplainError(
            f"lime: n_samples {n_samples}, kernel_width {kernel_width}, alpha {alpha}; need at "
            "least 2 samples and numbers above 0"
        )
    maps = []
    with torch.no_grad(), frozen(model):
        for item, own, seed in zip(
            items(model, inputs, target, baseline, chunk_size, "lime"),
            groups(inputs, segments),
            item_seeds.tolist(),
            strict=True,
        ):
            present, weights = samples(n_groups(own), n_samples, kernel_width, seed)
            found = item.values(n_samples, by_group(torch.from_numpy(present), own))
            values = ridge(present, weights, found.numpy(), alpha)
            maps.append(spread(torch.from_numpy(values), own, inputs))
    n_draws = 1 if baseline is None else baseline.shape[1]
    return Attribution(torch.stack(maps), n_evaluations=n_samples * n_draws)


def samples(
    n_players: int, n_samples: int, kernel_width: float | None, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Which groups are there (n_samples, n_players), boolean, and the weights (n_samples,)."""
    present = rng.numpy_generator(seed, "lime").random((n_samples, n_players)) < 0.5
    present[0] = True
    if kernel_width is None:
        return present, np.ones(n_samples)
    distances = 1 - np.sqrt(present.mean(1))
    return present, np.sqrt(np.exp(-((distances / kernel_width) ** 2)))


def ridge(present: np.ndarray, weights: np.ndarray, values: np.ndarray, alpha: float) -> np.ndarray:
    """Coefficients (players,) of the weighted ridge regression; the intercept is not penalised."""
    design = present - np.average(present, axis=0, weights=weights)
    goal = values - np.average(values, weights=weights)
    square = design.T @ (weights[:, None] * design) + alpha * np.eye(present.shape[1])
    found: np.ndarray = np.linalg.solve(square, design.T @ (weights * goal))
    return found
