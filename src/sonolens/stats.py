"""Intervals and tests whose unit is the person, never the segment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sonolens import rng


@dataclass(frozen=True)
class Interval:
    """An estimate with its bootstrap interval.

    `n_person` persons, `n_item` valid items, `n_nan` left out.
    """

    value: float
    low: float
    high: float
    n_person: int
    n_item: int
    n_nan: int = 0

    def as_metrics(self, name: str) -> dict[str, float]:
        return {name: self.value, f"{name}_ci_low": self.low, f"{name}_ci_high": self.high}


def person_bootstrap(
    values: np.ndarray,
    persons: np.ndarray,
    *,
    seed: int,
    level: float = 0.95,
    n_resamples: int = 2000,
    weight: str = "person",
) -> Interval:
    """Mean of `values` with a percentile interval from resampling whole persons.

    Parameters
    ----------
    values, shape=(n_items,)
        Scores; NaN are left out and counted.
    persons, shape=(n_items,)
        Who each item is from.
    seed
        Root of the resampling.
    level
        Coverage of the interval.
    weight
        ``person``: mean of the persons' means; ``item``: mean over items, persons still resampled.

    Returns
    -------
    Interval
        NaN bounds with fewer than two persons: one person carries no interval.

    References
    ----------
    Davison and Hinkley, Bootstrap Methods and their Application (1997), section 3.8 (cluster
    resampling).
    """
    values, persons = np.asarray(values, float), np.asarray(persons)
    if values.shape != persons.shape or values.ndim != 1:
        raise ValueError(
            f"person_bootstrap: values {values.shape} and persons {persons.shape} "
            "must be equal vectors"
        )
    if weight not in ("person", "item"):
        raise ValueError(f"person_bootstrap: weight {weight!r}, need person or item")
    valid = ~np.isnan(values)
    names, owner = np.unique(persons[valid], return_inverse=True)
    n_person, n_item = len(names), int(valid.sum())
    if n_person == 0:
        return Interval(np.nan, np.nan, np.nan, 0, 0, int((~valid).sum()))
    counts = np.bincount(owner, minlength=n_person).astype(float)
    sums = np.bincount(owner, weights=values[valid], minlength=n_person)
    if weight == "person":
        sums, counts = sums / counts, np.ones(n_person)
    estimate = sums.sum() / counts.sum()
    low = high = np.nan
    if n_person > 1:
        draws = rng.numpy_generator(seed, "person_bootstrap").integers(
            0, n_person, (n_resamples, n_person)
        )
        resampled = sums[draws].sum(1) / counts[draws].sum(1)
        low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(estimate), float(low), float(high), n_person, n_item, int((~valid).sum()))
