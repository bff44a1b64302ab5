"""How much of an accuracy may come from knowing the person or the recording conditions.

One plain reference classifier (logistic regression) sees the same items four times: split by items
so that persons are in both parts (leaky), split by person, with nothing but metadata, and with
permuted labels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from sonolens import rng
from sonolens.stats import Interval, person_bootstrap

METADATA = (
    "duration_s", "sample_rate_native", "n_channels_native", "height_native", "width_native",
)  # fmt: skip
RowFold = tuple[np.ndarray, np.ndarray]
"""Row numbers of the training and of the test part."""


def summary_features(maps: np.ndarray) -> np.ndarray:
    """Mean and standard deviation over time.

    Shape (n, channel, freq, time) -> (n, 2 * channel * freq).
    """
    flat = maps.reshape(len(maps), -1, maps.shape[-1])
    return np.concatenate([flat.mean(2), flat.std(2)], axis=1).astype(np.float64)


def pooled_features(maps: np.ndarray, size: int = 8) -> np.ndarray:
    """Means of `size` x `size` equal parts of pictures.

    Shape (n, channel, height, width), both a multiple of `size` -> (n, channel * size * size).
    """
    n_items, n_channels, height, width = maps.shape
    parts = maps.reshape(n_items, n_channels, size, height // size, size, width // size)
    means: np.ndarray = parts.mean((3, 5), dtype=np.float64)
    return means.reshape(n_items, -1)


def metadata_features(manifest: pd.DataFrame) -> np.ndarray:
    """What is known without listening or looking, shape=(n, n_columns).

    Those of METADATA that the manifest has, and the corpus.
    """
    numbers = manifest[[name for name in METADATA if name in manifest]].to_numpy(float)
    corpus = pd.get_dummies(manifest["corpus"]).to_numpy(float)
    return np.concatenate([numbers, corpus], axis=1)


def reference_predictions(
    features: np.ndarray, labels: np.ndarray, folds: Sequence[RowFold]
) -> np.ndarray:
    """Out-of-fold predictions of a logistic regression on standardised features.

    -1 where never tested.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    predicted = np.full(len(labels), -1)
    for train, test in folds:
        if len(np.unique(labels[train])) == 1:  # nothing to fit
            predicted[test] = labels[train][0]
            continue
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300, tol=1e-3))
        predicted[test] = model.fit(features[train], labels[train]).predict(features[test])
    return predicted


def reference_correct(
    manifest: pd.DataFrame,
    features: np.ndarray,
    leaky: Sequence[RowFold],
    by_person: Sequence[RowFold],
    *,
    seed: int,
    n_permutations: int,
) -> dict[str, np.ndarray]:
    """Right (1) or wrong (0) answers of the reference: leaky, person, metadata, permuted, identity.

    `identity`: who made the item instead of what its label is, items split at random. Far above
    chance, a split that shares persons lets a classifier answer by recognising them, and a label
    mistaken for the person (a folder per speaker read as a class) gives a fine accuracy too.

    Parameters
    ----------
    manifest
        Rows of `features`, with class_index, person_id and the columns of `metadata_features`.
    features, shape=(n, n_columns)
        See `summary_features`.
    leaky, by_person
        Folds of both protocols, as row numbers.
    seed, n_permutations
        Permuted labels are drawn and tested n_permutations times under the person split; items are
        averaged.

    Returns
    -------
    dict of ndarray, shape=(n,)
        NaN where an item was never tested; permuted answers are means over draws.
    """
    labels = manifest["class_index"].to_numpy()
    persons = pd.factorize(manifest["person_id"], sort=True)[0]

    def is_correct(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
        return np.where(predicted < 0, np.nan, predicted == truth)

    shuffled = []
    for draw in range(n_permutations):
        order = rng.numpy_generator(seed, "leakage", draw).permutation(len(labels))
        fold = [by_person[draw % len(by_person)]]
        shuffled.append(
            is_correct(reference_predictions(features, labels[order], fold), labels[order])
        )
    with np.errstate(invalid="ignore"):
        n_tested = np.sum(~np.isnan(shuffled), axis=0)
        permuted = np.where(
            n_tested > 0, np.nansum(shuffled, axis=0) / np.maximum(n_tested, 1), np.nan
        )
    return {
        "leaky": is_correct(reference_predictions(features, labels, leaky), labels),
        "person": is_correct(reference_predictions(features, labels, by_person), labels),
        "metadata": is_correct(
            reference_predictions(metadata_features(manifest), labels, by_person), labels
        ),
        "permuted": permuted,
        "identity": is_correct(reference_predictions(features, persons, leaky), persons),
    }


def leakage_report(
    manifest: pd.DataFrame,
    features: np.ndarray,
    leaky: Sequence[RowFold],
    by_person: Sequence[RowFold],
    *,
    seed: int,
    n_permutations: int,
    level: float = 0.95,
    n_resamples: int = 2000,
) -> dict[str, Interval]:
    """Accuracy of `reference_correct`: mean over persons, intervals from resampling them."""
    correct = reference_correct(
        manifest, features, leaky, by_person, seed=seed, n_permutations=n_permutations
    )
    persons = manifest["person_id"].to_numpy()
    return {
        name: person_bootstrap(values, persons, seed=seed, level=level, n_resamples=n_resamples)
        for name, values in correct.items()
    }
