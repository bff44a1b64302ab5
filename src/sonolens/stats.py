"""Intervals, tests and ranks whose unit is the person, never the segment.

SciPy's statistics are imported where they are called: to load them takes longer than most calls.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sonolens import rng

Direction = Literal["higher", "lower"]
# Means of equal scores differ by rounding; what is closer than this is the same.
DECIMALS = 12


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


def person_means(values: np.ndarray, persons: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Names of the persons with a valid item, sorted, and the mean of each one's valid items.

    Parameters
    ----------
    values, shape=(n_items,)
        Scores; NaN are left out.
    persons, shape=(n_items,)
        Who each item is from.
    """
    values, persons = np.asarray(values, float), np.asarray(persons)
    valid = ~np.isnan(values)
    names, owner = np.unique(persons[valid], return_inverse=True)
    sums = np.bincount(owner, weights=values[valid], minlength=len(names))
    return names, sums / np.maximum(np.bincount(owner, minlength=len(names)), 1)


@dataclass(frozen=True)
class SignedRank:
    """Wilcoxon's signed-rank test of paired differences, a pair per person.

    statistic   the smaller of the two sums of ranks
    p           two-sided; NaN without any pair
    effect      matched-pairs rank-biserial correlation in [-1, 1]: share of the rank sum that is
                positive minus the share that is negative
    n_person    pairs, those without a difference included
    n_zero      pairs without a difference; they carry no rank
    smallest_p  what the test reaches when all differences have the same sign
    """

    statistic: float
    p: float
    effect: float
    n_person: int
    n_zero: int
    smallest_p: float


def smallest_signed_rank_p(n_person: int) -> float:
    """Two-sided p-value of `n_person` differences of the same sign; NaN without persons.

    >>> [smallest_signed_rank_p(n) for n in (1, 3, 5, 6)]
    [1.0, 0.25, 0.0625, 0.03125]
    """
    return math.ldexp(1.0, 1 - n_person) if n_person else math.nan


def signed_rank(first: np.ndarray, second: np.ndarray, persons: np.ndarray) -> SignedRank:
    """Whether `first` is larger than `second`: Wilcoxon on the persons' mean differences.

    Parameters
    ----------
    first, second, shape=(n_items,)
        Scores of the same items; items with a NaN in either are left out.
    persons, shape=(n_items,)
        Who each item is from.

    Returns
    -------
    SignedRank
        The p-value is exact for up to 50 persons, with ties or zeros for up to 13; above that the
        normal approximation with its corrections for ties and continuity.

    References
    ----------
    Wilcoxon (1945); zero differences are dropped as there. Effect: Kerby, The simple difference
    formula (2014), equation for matched pairs.
    """
    from scipy import stats

    _, means = person_means(_difference(first, second, persons), persons)
    means = np.round(means, DECIMALS)
    moved = means[means != 0]
    n_zero = len(means) - len(moved)
    if not len(moved):
        nothing = math.nan if not len(means) else 1.0
        smallest = smallest_signed_rank_p(len(means))
        return SignedRank(math.nan, nothing, math.nan, len(means), n_zero, smallest)
    found = stats.wilcoxon(moved)
    ranks = stats.rankdata(np.abs(moved))
    effect = float((ranks * np.sign(moved)).sum() / ranks.sum())
    return SignedRank(
        float(found.statistic), float(found.pvalue), effect, len(means), n_zero,
        smallest_signed_rank_p(len(means)),
    )  # fmt: skip


def paired_difference(
    first: np.ndarray,
    second: np.ndarray,
    persons: np.ndarray,
    *,
    seed: int,
    level: float = 0.95,
    n_resamples: int = 2000,
    weight: str = "person",
) -> Interval:
    """Mean of `first` minus `second` over the same items, with an interval over persons.

    Items with a NaN in either are left out and counted; see `person_bootstrap`.
    """
    return person_bootstrap(
        _difference(first, second, persons), persons,
        seed=seed, level=level, n_resamples=n_resamples, weight=weight,
    )  # fmt: skip


def _difference(first: np.ndarray, second: np.ndarray, persons: np.ndarray) -> np.ndarray:
    first, second = np.asarray(first, float), np.asarray(second, float)
    if first.ndim != 1 or not first.shape == second.shape == np.shape(persons):
        raise ValueError(
            f"pairs: first {first.shape}, second {second.shape} and persons {np.shape(persons)} "
            "must be equal vectors"
        )
    difference: np.ndarray = first - second
    return difference


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Adjusted p-values of a family of tests; NaN are no tests and stay NaN.

    References
    ----------
    Holm, A simple sequentially rejective multiple test procedure (1979).

    >>> holm([0.01, 0.04, 0.03]).round(3).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, float)
    adjusted = np.full(p.shape, np.nan)
    tests = np.flatnonzero(~np.isnan(p))
    order = tests[np.argsort(p[tests], kind="stable")]
    scaled = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return adjusted


def directed_ranks(values: np.ndarray, direction: Direction) -> tuple[np.ndarray, int]:
    """Ranks along the last axis, 1 for the best, ties averaged; and how many values are NaN.

    NaN come last and share the mean of the last ranks: a method without a score is no better than
    the worst of those that have one.

    >>> ranks, n_nan = directed_ranks([0.3, np.nan, 0.9, 0.3], "higher")
    >>> ranks.tolist(), n_nan
    ([2.5, 4.0, 1.0, 2.5], 1)
    """
    from scipy import stats

    if direction not in ("higher", "lower"):
        raise ValueError(f"directed_ranks: direction {direction!r}, need higher or lower")
    values = np.round(np.asarray(values, float), DECIMALS)
    signed = -values if direction == "higher" else values
    last = np.where(np.isnan(signed), np.inf, signed)
    ranks: np.ndarray = stats.rankdata(last, axis=-1)
    return ranks, int(np.isnan(values).sum())


@dataclass(frozen=True)
class Friedman:
    """Friedman's test over persons, and the Nemenyi critical difference of its mean ranks.

    statistic, p         chi-square approximation; NaN for fewer than three methods or two persons
    mean_ranks           shape=(n_methods,), 1 would be the best for every person
    critical_difference  mean ranks further apart than this differ at `alpha`
    n_person             persons ranked
    n_left_out           persons without a score of every method
    """

    statistic: float
    p: float
    mean_ranks: np.ndarray
    critical_difference: float
    n_person: int
    n_left_out: int


def friedman(scores: np.ndarray, direction: Direction, *, alpha: float = 0.05) -> Friedman:
    """Whether methods differ, persons being the blocks.

    Parameters
    ----------
    scores, shape=(n_persons, n_methods)
        Mean score of each person; persons with a NaN are left out and counted.
    direction
        Which end is the best.
    alpha
        Level of the critical difference.

    References
    ----------
    Friedman (1937); Demšar, Statistical comparisons of classifiers over multiple data sets (2006).
    """
    from scipy import stats

    scores = np.asarray(scores, float)
    if scores.ndim != 2:
        raise ValueError(f"friedman: scores {scores.shape}, need (n_persons, n_methods)")
    complete = scores[~np.isnan(scores).any(axis=1)]
    n_person, n_method = complete.shape
    ranks, _ = directed_ranks(complete, direction)
    mean_ranks = ranks.mean(axis=0) if n_person else np.full(n_method, np.nan)
    statistic = p = math.nan
    if n_method >= 3 and n_person >= 2 and np.ptp(ranks, axis=1).any():
        found = stats.friedmanchisquare(*ranks.T)
        statistic, p = float(found.statistic), float(found.pvalue)
    return Friedman(
        statistic, p, mean_ranks, nemenyi_critical_difference(n_method, n_person, alpha=alpha),
        n_person, len(scores) - n_person,
    )  # fmt: skip


def nemenyi_critical_difference(n_method: int, n_person: int, *, alpha: float = 0.05) -> float:
    """Least difference of mean ranks that counts; NaN for fewer than two methods or no person.

    References
    ----------
    Demšar (2006), section 3.2.2: q_alpha sqrt(k (k + 1) / (6 N)), q_alpha being the studentized
    range of k groups and infinite degrees of freedom over sqrt(2).
    """
    from scipy import stats

    if n_method < 2 or n_person < 1:
        return math.nan
    quantile = float(stats.studentized_range.ppf(1 - alpha, n_method, np.inf)) / math.sqrt(2)
    return quantile * math.sqrt(n_method * (n_method + 1) / (6 * n_person))


@dataclass(frozen=True)
class Agreement:
    """Kendall's W of several rankings of the same objects: 1 when equal, 0 without any agreement.

    `p` by the chi-square approximation, which needs more than seven objects to be close.
    """

    w: float
    p: float
    n_ranking: int
    n_object: int


def kendall_w(rankings: np.ndarray) -> Agreement:
    """Agreement between rankings, corrected for ties.

    Parameters
    ----------
    rankings, shape=(n_rankings, n_objects)
        Ranks, e.g. by `directed_ranks`: of metrics that rank methods. Any scores that rank the
        same way do, too.

    Returns
    -------
    Agreement
        NaN for fewer than two rankings or objects, or when every ranking is all ties.

    References
    ----------
    Kendall and Babington Smith (1939); Siegel and Castellan, Nonparametric Statistics (1988),
    section 9.6, equation 9.18 for ties.
    """
    from scipy import stats

    rankings = np.asarray(rankings, float)
    if rankings.ndim != 2 or np.isnan(rankings).any():
        raise ValueError(
            f"kendall_w: rankings {rankings.shape} with {int(np.isnan(rankings).sum())} NaN, need "
            "(n_rankings, n_objects) without NaN; directed_ranks puts them last"
        )
    m, n = rankings.shape
    if m < 2 or n < 2:
        return Agreement(math.nan, math.nan, m, n)
    ranks = stats.rankdata(rankings, axis=1)
    ties = sum(
        (count.astype(float) ** 3 - count).sum()
        for count in (np.unique(row, return_counts=True)[1] for row in ranks)
    )
    sums = ranks.sum(axis=0)
    possible = m**2 * n * (n**2 - 1) - m * ties
    if possible <= 0:
        return Agreement(math.nan, math.nan, m, n)
    w = float((12 * (sums**2).sum() - 3 * m**2 * n * (n + 1) ** 2) / possible)
    return Agreement(w, float(stats.chi2.sf(m * (n - 1) * w, n - 1)), m, n)


@dataclass(frozen=True)
class Permutation:
    """Permutation test within persons.

    difference    mean over persons of the mean with the condition minus that without
    p             two-sided, (1 + as extreme draws) / (1 + draws)
    smallest_p    what the number of draws and of different arrangements allow
    n_person      persons with items of both conditions
    n_left_out    persons with one of them only
    n_nan         items without a score
    """

    difference: float
    p: float
    smallest_p: float
    n_person: int
    n_left_out: int
    n_nan: int


def permutation_within_persons(
    values: np.ndarray,
    condition: np.ndarray,
    persons: np.ndarray,
    *,
    seed: int,
    n_resamples: int = 2000,
) -> Permutation:
    """Whether items with a condition score otherwise than those without, person by person.

    For conditions whose items are not paired, e.g. right and wrong predictions: the labels are
    exchanged within each person only, so differences between persons cannot pass for an effect.

    Parameters
    ----------
    values, shape=(n_items,)
        Scores; NaN are left out and counted.
    condition, shape=(n_items,)
        True or False.
    persons, shape=(n_items,)
        Who each item is from.
    """
    values, condition = np.asarray(values, float), np.asarray(condition, bool)
    persons = np.asarray(persons)
    if values.ndim != 1 or not values.shape == condition.shape == persons.shape:
        raise ValueError(
            f"permutation_within_persons: values {values.shape}, condition {condition.shape} and "
            f"persons {persons.shape} must be equal vectors"
        )
    valid = ~np.isnan(values)
    n_nan, names = int((~valid).sum()), np.unique(persons[valid])
    generator = rng.numpy_generator(seed, "permutation_within_persons")
    found, drawn, n_person, log_arrangements = 0.0, np.zeros(n_resamples), 0, 0.0
    for name in names:
        own = valid & (persons == name)
        scores, labels = values[own], condition[own]
        n, k = len(scores), int(labels.sum())
        if not 0 < k < n:
            continue
        n_person += 1
        log_arrangements += math.log(math.comb(n, k))
        weights = np.where(labels, 1 / k, -1 / (n - k))
        found += float(scores @ weights)
        drawn += generator.permuted(np.tile(weights, (n_resamples, 1)), axis=1) @ scores
    if not n_person:
        return Permutation(math.nan, math.nan, math.nan, 0, len(names), n_nan)
    # Equal sums come out unequal by rounding in another order.
    as_extreme = int((np.abs(drawn) >= abs(found) - 10.0**-DECIMALS).sum())
    smallest = max(1 / (1 + n_resamples), math.exp(-log_arrangements))
    return Permutation(
        found / n_person, (1 + as_extreme) / (1 + n_resamples), smallest,
        n_person, len(names) - n_person, n_nan,
    )  # fmt: skip


@dataclass(frozen=True)
class MonteCarlo:
    """How much of a stochastic metric's mean is owed to its draws.

    value      mean over persons and draw seeds
    error      standard error of the mean from one draw seed: deviation between the seeds' means
    share      `error` over the standard error between persons; NaN where that is 0 or undefined
    n_seed     draw seeds
    """

    value: float
    error: float
    share: float
    n_seed: int

    def resolves(self, difference: float) -> bool:
        """Whether `difference` is at least four times the error."""
        return self.error <= abs(difference) / 4


def monte_carlo(values: np.ndarray, persons: np.ndarray) -> MonteCarlo:
    """Error of a metric's mean from repeats with other draws, everything else equal.

    Parameters
    ----------
    values, shape=(n_seeds, n_items)
        Scores of the same items by draw seed; NaN are left out.
    persons, shape=(n_items,)
        Who each item is from.

    Raises
    ------
    ValueError
        Fewer than two seeds: one repeat shows no spread.
    """
    values = np.asarray(values, float)
    if values.ndim != 2 or len(values) < 2 or values.shape[1:] != np.shape(persons):
        raise ValueError(
            f"monte_carlo: values {values.shape} for {np.shape(persons)} persons, need "
            "(n_seeds, n_items) with two seeds or more"
        )
    means = [person_means(row, persons)[1] for row in values]
    by_seed = np.array([row.mean() if len(row) else np.nan for row in means])
    error = float(by_seed.std(ddof=1))
    counts = (~np.isnan(values)).sum(axis=0)
    average = np.where(counts > 0, np.nansum(values, axis=0) / np.maximum(counts, 1), np.nan)
    _, own = person_means(average, persons)
    between = float(own.std(ddof=1) / math.sqrt(len(own))) if len(own) > 1 else math.nan
    share = error / between if between > 0 else math.nan
    return MonteCarlo(float(by_seed.mean()), error, share, len(values))
