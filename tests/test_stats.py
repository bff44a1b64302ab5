"""Intervals whose unit is the person: closed forms, invariances, coverage."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from sonolens import stats
from sonolens.stats import Interval, person_bootstrap

VALUES = np.array([1.0, 1, 1, 0, 0, 1])
PERSONS = np.array(["a", "a", "a", "b", "b", "c"])


def fields(interval: Interval) -> list[float]:
    return [interval.value, interval.low, interval.high]


@pytest.mark.parametrize(("weight", "expected"), [("person", (1 + 0 + 1) / 3), ("item", 4 / 6)])
def test_weights_are_means_of_persons_or_of_items(weight, expected):
    interval = person_bootstrap(VALUES, PERSONS, seed=0, weight=weight)
    assert interval.value == pytest.approx(expected)
    assert (interval.n_person, interval.n_item, interval.n_nan) == (3, 6, 0)
    assert interval.low <= interval.value <= interval.high


def test_weights_differ_where_persons_have_different_numbers_of_items():
    values, persons = np.array([1.0] + 9 * [0.0]), np.array(["a"] + 9 * ["b"])
    assert person_bootstrap(values, persons, seed=0, weight="person").value == pytest.approx(1 / 2)
    assert person_bootstrap(values, persons, seed=0, weight="item").value == pytest.approx(1 / 10)
    with pytest.raises(ValueError, match="weight 'speaker', need person or item"):
        person_bootstrap(values, persons, seed=0, weight="speaker")


def test_two_persons_have_the_bounds_of_all_four_resamples():
    # Resamples of {0, 1}: mean 0 and 1 with chance 1/4 each, 1/2 with 1/2.
    interval = person_bootstrap(np.array([0.0, 1]), np.array(["a", "b"]), seed=0)
    assert fields(interval) == [0.5, 0, 1]
    narrow = person_bootstrap(np.array([0.0, 1]), np.array(["a", "b"]), seed=0, level=0.3)
    assert fields(narrow) == [0.5, 0.5, 0.5]


def test_items_of_one_person_do_not_narrow_the_interval():
    values, persons = np.array([0.0, 1, 1]), np.array(["a", "b", "c"])
    once = person_bootstrap(values, persons, seed=3)
    often = person_bootstrap(np.repeat(values, 50), np.repeat(persons, 50), seed=3)
    assert fields(often) == pytest.approx(fields(once))
    assert often.n_item == 150


def test_one_person_carries_no_interval():
    interval = person_bootstrap(np.array([1.0, 0, np.nan]), np.array(["a", "a", "a"]), seed=0)
    assert interval.value == 0.5
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)
    assert (interval.n_person, interval.n_item, interval.n_nan) == (1, 2, 1)


@pytest.mark.parametrize("n", [0, 3])
def test_nobody_valid_has_no_value(n):
    interval = person_bootstrap(np.full(n, np.nan), np.array(["a", "b", "b"])[:n], seed=0)
    assert all(math.isnan(value) for value in fields(interval))
    assert (interval.n_person, interval.n_item, interval.n_nan) == (0, 0, n)


def test_nan_is_left_out_and_counted():
    with_nan = person_bootstrap(
        np.append(VALUES, [np.nan, np.nan]), np.append(PERSONS, ["a", "d"]), seed=0
    )
    without = person_bootstrap(VALUES, PERSONS, seed=0)
    assert fields(with_nan) == fields(without)
    assert (with_nan.n_person, with_nan.n_item, with_nan.n_nan) == (3, 6, 2)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-9, 9), st.sampled_from("abcde")), min_size=2, max_size=20),
    st.randoms(use_true_random=False),
    st.sampled_from(["person", "item"]),
)
def test_the_order_of_items_does_not_matter(items, random, weight):
    shuffled = items.copy()
    random.shuffle(shuffled)
    one, other = (
        person_bootstrap(
            *(np.array(column) for column in zip(*rows, strict=True)),
            seed=1,
            n_resamples=200,
            weight=weight,
        )
        for rows in (items, shuffled)
    )
    assert fields(one) == pytest.approx(fields(other), abs=1e-9, nan_ok=True)
    assert one.n_person == other.n_person


@settings(max_examples=15, deadline=None)
@given(st.floats(0.1, 5), st.floats(-5, 5))
def test_bounds_move_and_stretch_with_the_values(scale, shift):
    one = person_bootstrap(VALUES, PERSONS, seed=1, n_resamples=300)
    other = person_bootstrap(VALUES * scale + shift, PERSONS, seed=1, n_resamples=300)
    assert fields(other) == pytest.approx(
        [value * scale + shift for value in fields(one)], abs=1e-9
    )


def test_draws_are_a_function_of_the_seed(generator):
    values, persons = generator.random(60), np.repeat(np.arange(20), 3)
    first = person_bootstrap(values, persons, seed=0)
    np.random.seed(5)  # noqa: NPY002
    assert person_bootstrap(values, persons, seed=0) == first
    other = person_bootstrap(values, persons, seed=1)
    assert other.value == first.value
    assert other.low != first.low


def test_a_higher_level_is_wider(generator):
    values, persons = generator.random(60), np.repeat(np.arange(20), 3)
    widths = []
    for level in (0.5, 0.8, 0.95, 0.99):
        interval = person_bootstrap(values, persons, seed=0, level=level)
        widths.append(interval.high - interval.low)
    assert widths == sorted(widths)
    assert len(set(widths)) == 4


def test_coverage_is_near_the_level_where_persons_differ(generator):
    # Persons vary more than their items, so resampling items would cover about half.
    n_person, n_item, covered, naive = 30, 8, 0, 0
    for trial in range(200):
        values = (
            0.3
            + generator.normal(0, 1, (n_person, 1))
            + generator.normal(0, 0.3, (n_person, n_item))
        )
        persons = np.repeat(np.arange(n_person), n_item)
        interval = person_bootstrap(values.ravel(), persons, seed=trial, level=0.9, n_resamples=300)
        covered += interval.low <= 0.3 <= interval.high
        items = person_bootstrap(
            values.ravel(), np.arange(values.size), seed=trial, level=0.9, n_resamples=300
        )
        naive += items.low <= 0.3 <= items.high
    assert 0.82 <= covered / 200 <= 0.96
    assert naive / 200 < 0.65


@pytest.mark.parametrize(
    ("values", "persons"), [(np.ones(3), np.ones(2)), (np.ones((2, 2)), np.ones((2, 2)))]
)
def test_shapes_must_fit(values, persons):
    with pytest.raises(ValueError, match="must be equal vectors"):
        person_bootstrap(values, persons, seed=0)


def test_metrics_carry_their_bounds():
    assert Interval(0.5, 0.4, 0.6, 3, 9).as_metrics("accuracy_person") == {
        "accuracy_person": 0.5,
        "accuracy_person_ci_low": 0.4,
        "accuracy_person_ci_high": 0.6,
    }


# --- Tests of paired differences ---


def by_enumeration(differences: np.ndarray) -> float:
    """Two-sided p of the signed-rank test by all sign flips, ranks of ties averaged."""
    size = np.abs(differences)
    ranks = np.array([(size < one).sum() + ((size == one).sum() + 1) / 2 for one in size])
    centre = ranks.sum() / 2
    flips = np.array(list(itertools.product((0, 1), repeat=len(ranks))))
    found = abs(ranks[differences > 0].sum() - centre)
    return float((np.abs(flips @ ranks - centre) >= found - 1e-9).mean())


@pytest.mark.parametrize(
    "differences", [[1, 2, 3, 4, 5, 6], [1, -2, 3, 4, -5, 6, 7], [1, 1, -1, 2, 2, 3], [2], [1, -1]]
)
def test_signed_rank_is_the_share_of_sign_flips(differences):
    differences = np.array(differences, float)
    n = len(differences)
    found = stats.signed_rank(differences, np.zeros(n), np.arange(n))
    assert found.p == pytest.approx(by_enumeration(differences), abs=1e-12)
    assert found.p >= found.smallest_p
    assert found.n_person == n


def test_signed_rank_is_scipys_on_the_means_of_persons(generator):
    first, second = generator.random(120), generator.random(120)
    persons = np.repeat(np.arange(30), 4)
    means = (first - second).reshape(30, 4).mean(1)
    found = stats.signed_rank(first, second, persons)
    reference = scipy.stats.wilcoxon(means, method="exact")
    assert (found.statistic, found.p) == pytest.approx((reference.statistic, reference.pvalue))


def test_effect_is_the_difference_of_the_shares_of_ranks():
    # Ranks 1 2 3 4, of which 2 is negative: (8 - 2) / 10.
    found = stats.signed_rank(np.array([1.0, -2, 3, 4]), np.zeros(4), np.arange(4))
    assert found.effect == pytest.approx(0.6)
    assert found.statistic == 2
    swapped = stats.signed_rank(np.zeros(4), np.array([1.0, -2, 3, 4]), np.arange(4))
    assert swapped.effect == pytest.approx(-0.6)
    assert swapped.p == found.p


@pytest.mark.parametrize(
    ("n", "smallest"), [(1, 1.0), (2, 0.5), (3, 0.25), (5, 0.0625), (6, 1 / 32)]
)
def test_few_persons_cannot_reach_a_small_p(n, smallest):
    found = stats.signed_rank(np.ones(n) + np.arange(n), np.zeros(n), np.arange(n))
    assert found.p == found.smallest_p == smallest
    assert found.effect == 1


def test_pairs_need_both_scores_and_zeros_carry_no_rank():
    nan = np.nan
    first = np.array([0.1 + 0.2, 2, nan, 5, 7])
    second = np.array([0.3, 1, 4, nan, 3])
    found = stats.signed_rank(first, second, np.array(list("abcde")))
    assert (found.n_person, found.n_zero, found.p, found.effect) == (3, 1, 0.5, 1)
    difference = stats.paired_difference(first, second, np.array(list("abcde")), seed=0)
    assert difference.value == pytest.approx((0 + 1 + 4) / 3)
    assert (difference.n_person, difference.n_nan) == (3, 2)


def test_without_differences_or_pairs_nothing_is_claimed():
    same = stats.signed_rank(np.ones(4), np.ones(4), np.arange(4))
    assert same.p == 1
    assert math.isnan(same.effect)
    nobody = stats.signed_rank(np.full(2, np.nan), np.ones(2), np.arange(2))
    assert nobody.n_person == 0
    assert math.isnan(nobody.p)
    with pytest.raises(ValueError, match="must be equal vectors"):
        stats.signed_rank(np.ones(2), np.ones(3), np.arange(2))


def test_a_paired_difference_is_narrower_than_the_two_means(generator):
    persons = np.repeat(np.arange(12), 3)
    level = np.repeat(generator.normal(0, 5, 12), 3)
    first, second = level + 1 + generator.normal(0, 0.1, 36), level
    paired = stats.paired_difference(first, second, persons, seed=0)
    alone = person_bootstrap(first, persons, seed=0)
    assert 0.8 < paired.low < 1 < paired.high < 1.2
    assert alone.high - alone.low > 10 * (paired.high - paired.low)


@pytest.mark.parametrize(
    ("p", "adjusted"),
    [
        ([0.01, 0.02, 0.03, 0.04], [0.04, 0.06, 0.06, 0.06]),
        ([0.04, 0.01, 0.03], [0.06, 0.03, 0.06]),
        ([0.005, 0.011, 0.02, 0.04, 0.13], [0.025, 0.044, 0.06, 0.08, 0.13]),
        ([0.9, 0.8], [1.0, 1.0]),
        ([0.02, np.nan, 0.02], [0.04, np.nan, 0.04]),
        ([], []),
    ],
)
def test_holm_by_hand(p, adjusted):
    assert stats.holm(p) == pytest.approx(adjusted, nan_ok=True)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_the_raw_and_bonferronis(p):
    adjusted = stats.holm(p)
    assert (adjusted >= np.array(p) - 1e-12).all()
    assert (adjusted <= np.minimum(1, len(p) * np.array(p)) + 1e-12).all()
    assert adjusted[np.argmin(p)] == pytest.approx(min(1, len(p) * min(p)))
    order = np.argsort(p, kind="stable")
    assert (np.diff(adjusted[order]) >= 0).all()


# --- Ranks ---


def test_ranks_follow_the_direction_and_put_nan_last():
    values = np.array([0.2, np.nan, 0.7, 0.2, np.nan])
    ranks, n_nan = stats.directed_ranks(values, "higher")
    assert (ranks.tolist(), n_nan) == ([2.5, 4.5, 1, 2.5, 4.5], 2)
    assert stats.directed_ranks(values, "lower")[0].tolist() == [1.5, 4.5, 3, 1.5, 4.5]
    with pytest.raises(ValueError, match="need higher or lower"):
        stats.directed_ranks(values, "none")


def test_equal_up_to_rounding_is_equal():
    assert stats.directed_ranks(np.array([0.1 + 0.2, 0.3]), "higher")[0].tolist() == [1.5, 1.5]


# Demsar (2006), table 5(a): critical values of the two-tailed Nemenyi test.
@pytest.mark.parametrize(
    ("alpha", "table"),
    [
        (0.05, [1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164]),
        (0.10, [1.645, 2.052, 2.291, 2.459, 2.589, 2.693, 2.780, 2.855, 2.920]),
    ],
)
def test_nemenyi_has_the_published_critical_values(alpha, table):
    for k, quantile in enumerate(table, start=2):
        found = stats.nemenyi_critical_difference(k, 7, alpha=alpha)
        assert found == pytest.approx(quantile * math.sqrt(k * (k + 1) / 42), abs=1.5e-3)


def test_friedman_of_the_published_example():
    # Demsar (2006), table 6: AUC of C4.5 and three variants on 14 data sets.
    auc = np.array([
        [0.763, 0.768, 0.771, 0.798], [0.599, 0.591, 0.590, 0.569], [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657], [0.882, 0.888, 0.886, 0.898], [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685], [0.583, 0.583, 0.563, 0.625], [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000], [0.940, 0.962, 0.965, 0.962], [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.9751, 0.975], [0.957, 0.978, 0.946, 0.970],
    ])  # fmt: skip
    found = stats.friedman(auc, "higher")
    assert found.mean_ranks == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=1e-3)
    assert found.critical_difference == pytest.approx(1.25, abs=0.01)
    assert stats.friedman(auc, "higher", alpha=0.1).critical_difference == pytest.approx(
        1.12, abs=0.01
    )
    reference = scipy.stats.friedmanchisquare(*auc.T)
    assert (found.statistic, found.p) == pytest.approx((reference.statistic, reference.pvalue))
    assert stats.friedman(-auc, "lower").mean_ranks == pytest.approx(found.mean_ranks)


def test_persons_without_every_score_are_left_out_of_friedman():
    scores = np.array([[1, 2, 3], [1, 2, 3], [np.nan, 2, 3], [1, 3, 2.0]])
    found = stats.friedman(scores, "higher")
    assert (found.n_person, found.n_left_out) == (3, 1)
    assert found.mean_ranks == pytest.approx([3, 5 / 3, 4 / 3])
    two = stats.friedman(scores[:, :2], "higher")
    assert math.isnan(two.p)
    nobody = stats.friedman(np.full((2, 3), np.nan), "higher")
    assert math.isnan(nobody.critical_difference)
    assert np.isnan(nobody.mean_ranks).all()
    assert math.isnan(stats.friedman(np.ones((4, 3)), "higher").p)


@pytest.mark.parametrize(
    ("rankings", "w"),
    [
        ([[1, 2, 3, 4]] * 3, 1.0),
        ([[1, 2, 3], [3, 2, 1]], 0.0),
        ([[1, 2, 2], [1, 2.5, 2.5], [1, 2, 3]], None),  # ties
        # Siegel's 12 S / (m^2 n (n^2 - 1)): sums 4 8 9 9, S = 17, 12 * 17 / (9 * 60).
        ([[1, 2, 3, 4], [2, 3, 4, 1], [1, 3, 2, 4]], 12 * 17 / 540),
    ],
)
def test_kendall_w_by_hand(rankings, w):
    rankings = np.array(rankings, float)
    m, n = rankings.shape
    found = stats.kendall_w(rankings)
    if w is not None:
        assert found.w == pytest.approx(w)
    # W and Friedman's statistic are the same thing: chi2 = m (n - 1) W, ties included.
    if n >= 3:
        reference = scipy.stats.friedmanchisquare(*rankings.T)
        assert found.w == pytest.approx(reference.statistic / (m * (n - 1)), abs=1e-12)
        assert found.p == pytest.approx(reference.pvalue)


def test_kendall_w_of_two_rankings_is_half_one_plus_spearman(generator):
    rankings = np.array([generator.permutation(9), generator.permutation(9)])
    rho = scipy.stats.spearmanr(*rankings).statistic
    assert stats.kendall_w(rankings).w == pytest.approx((1 + rho) / 2)


def test_kendall_w_is_undefined_where_nothing_is_ranked():
    for rankings in (np.ones((1, 4)), np.ones((3, 1)), np.ones((3, 4))):
        assert math.isnan(stats.kendall_w(rankings).w)
    with pytest.raises(ValueError, match="1 NaN"):
        stats.kendall_w(np.array([[1, 2], [1, np.nan]]))


# --- Permutations and draws ---


def test_permutation_counts_arrangements_within_persons():
    # Per person the condition has the largest of three: 1 of 3 arrangements each, 1 of 9 together.
    values = np.array([3.0, 1, 2, 30, 10, 20])
    condition = np.array([1, 0, 0, 1, 0, 0], bool)
    persons = np.array(list("aaabbb"))
    found = stats.permutation_within_persons(values, condition, persons, seed=0, n_resamples=20_000)
    assert found.difference == pytest.approx((1.5 + 15) / 2)
    assert found.smallest_p == pytest.approx(1 / 9)
    # As extreme: both largest (16.5), and both smallest (-16.5).
    assert found.p == pytest.approx(2 / 9, abs=0.01)
    assert (found.n_person, found.n_left_out, found.n_nan) == (2, 0, 0)


def test_differences_between_persons_are_no_effect():
    values = np.array([0.0] * 6 + [9.0] * 6)
    condition = np.array([1, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 0], bool)
    found = stats.permutation_within_persons(values, condition, np.repeat(["a", "b"], 6), seed=0)
    assert (found.difference, found.p) == (0, 1)


def test_permutation_is_a_valid_test_and_finds_an_effect(generator):
    persons = np.repeat(np.arange(5), 8)
    condition = np.tile([True, False], 20)
    p = []
    for trial in range(150):
        values = generator.normal(0, 1, 40) + persons
        found = stats.permutation_within_persons(
            values, condition, persons, seed=trial, n_resamples=199
        )
        p.append(found.p)
    assert 0.02 <= (np.array(p) <= 0.1).mean() <= 0.18
    shifted = stats.permutation_within_persons(values + 3 * condition, condition, persons, seed=0)
    assert shifted.p == shifted.smallest_p == pytest.approx(1 / 2001)


def test_permutation_leaves_out_what_has_no_contrast():
    values = np.array([1.0, 2, np.nan, 4])
    found = stats.permutation_within_persons(
        values, np.array([1, 0, 1, 1], bool), np.array(list("aabb")), seed=0
    )
    assert (found.n_person, found.n_left_out, found.n_nan) == (1, 1, 1)
    nobody = stats.permutation_within_persons(np.ones(2), np.ones(2), np.arange(2), seed=0)
    assert math.isnan(nobody.p)
    with pytest.raises(ValueError, match="must be equal vectors"):
        stats.permutation_within_persons(np.ones(2), np.ones(3), np.arange(2), seed=0)


def test_monte_carlo_error_is_the_spread_of_the_seeds(generator):
    persons = np.repeat(np.arange(6), 2)
    level = np.repeat(np.array([1.0, 2, 3, 4, 5, 6]), 2)
    values = level + np.array([[-0.1], [0.0], [0.1]])
    found = stats.monte_carlo(values, persons)
    assert found.value == pytest.approx(3.5)
    assert found.error == pytest.approx(0.1)
    assert found.share == pytest.approx(0.1 / (np.std([1, 2, 3, 4, 5, 6], ddof=1) / math.sqrt(6)))
    assert found.resolves(0.41)
    assert not found.resolves(-0.39)
    values[0, 0] = np.nan
    assert stats.monte_carlo(values, persons).error == pytest.approx(0.1, rel=0.3)
    with pytest.raises(ValueError, match="two seeds or more"):
        stats.monte_carlo(values[:1], persons)


def test_person_means_leave_nan_out():
    names, means = stats.person_means(np.append(VALUES, np.nan), np.append(PERSONS, "d"))
    assert (names.tolist(), means.tolist()) == (["a", "b", "c"], [1, 0, 1])
