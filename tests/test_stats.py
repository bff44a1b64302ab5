"""Intervals whose unit is the person: closed forms, invariances, coverage."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
