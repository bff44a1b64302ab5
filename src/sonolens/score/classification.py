"""Accuracy and confusion of classifiers, with the person as the unit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from sonolens.stats import Interval, person_bootstrap


def predict(model: nn.Module, inputs: Tensor, batch_size: int = 256) -> Tensor:
    """Logits (n, n_classes), without gradient, in fixed batches."""
    model.eval()
    with torch.inference_mode():
        return torch.cat([model(batch) for batch in torch.split(inputs, batch_size)])


def prediction_table(
    item_ids: tuple[str, ...], persons: np.ndarray, labels: np.ndarray, logits: Tensor
) -> pd.DataFrame:
    """One row per item: item_id, person_id, class_index, predicted, p_true, margin.

    The margin is the true logit minus the best other one.
    """
    probabilities = torch.softmax(logits.double(), 1).numpy()
    rows = np.arange(len(labels))
    others = logits.double().numpy().copy()
    own = others[rows, labels].copy()
    others[rows, labels] = -np.inf
    return pd.DataFrame(
        {
            "item_id": item_ids,
            "person_id": persons,
            "class_index": labels,
            "predicted": probabilities.argmax(1),
            "p_true": probabilities[rows, labels],
            "margin": own - others.max(1),
        }
    )


def accuracy(
    predictions: pd.DataFrame, *, seed: int, level: float, n_resamples: int, weight: str = "person"
) -> Interval:
    """Share of correct items, by person or by item, with an interval from resampling persons."""
    correct = (predictions["class_index"] == predictions["predicted"]).to_numpy(float)
    persons = predictions["person_id"].to_numpy()
    return person_bootstrap(
        correct, persons, seed=seed, level=level, n_resamples=n_resamples, weight=weight
    )


def confusion(predictions: pd.DataFrame, n_classes: int) -> np.ndarray:
    """Counts, shape=(true class, predicted class)."""
    counts = np.zeros((n_classes, n_classes), int)
    np.add.at(
        counts, (predictions["class_index"].to_numpy(), predictions["predicted"].to_numpy()), 1
    )
    return counts


def wilson_interval(n_correct: int, n_item: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of a share inside one person, where there is nobody to resample.

    References
    ----------
    Wilson, E. B. (1927). Probable inference, the law of succession, and statistical inference. JASA
    22, 209-212.
    """
    from statistics import NormalDist

    if n_item == 0:
        return np.nan, np.nan
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = n_correct / n_item
    centre = (share + z**2 / (2 * n_item)) / (1 + z**2 / n_item)
    half = z * np.sqrt(share * (1 - share) / n_item + z**2 / (4 * n_item**2)) / (1 + z**2 / n_item)
    return float(centre - half), float(centre + half)
