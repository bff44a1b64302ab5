"""Predictions, accuracies and intervals of classifiers against closed forms."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from torch import nn

from sonolens.score import classification
from sonolens.stats import person_bootstrap


def table(truth: list[int], predicted: list[int], persons: list[str]) -> pd.DataFrame:
    return pd.DataFrame({"class_index": truth, "predicted": predicted, "person_id": persons})


def test_predict_is_evaluation_without_gradient_whatever_the_batch(generator):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3)
    ).double()
    inputs = torch.from_numpy(generator.random((11, 4)))
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    logits = classification.predict(model, inputs)
    assert logits.shape == (11, 3)
    assert not logits.requires_grad
    torch.testing.assert_close(classification.predict(model, inputs, batch_size=3), logits)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_prediction_table_holds_probability_and_margin_of_the_true_class():
    logits = torch.log(torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]))
    labels = np.array([0, 1, 2])
    found = classification.prediction_table(
        ("a", "b", "c"), np.array(["p", "p", "q"]), labels, logits
    )
    assert found.columns.tolist() == [
        "item_id",
        "person_id",
        "class_index",
        "predicted",
        "p_true",
        "margin",
    ]
    assert found["predicted"].tolist() == [0, 0, 2]
    np.testing.assert_allclose(found["p_true"], [0.7, 0.25, 0.8], rtol=1e-6)
    np.testing.assert_allclose(
        found["margin"], np.log([0.7 / 0.2, 0.25 / 0.5, 0.8 / 0.1]), rtol=1e-5
    )


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.lists(st.floats(-40, 40), min_size=3, max_size=3, unique=True), min_size=1, max_size=6
    )
)
def test_the_margin_is_positive_exactly_where_the_prediction_is_right(rows):
    labels = np.arange(len(rows)) % 3
    ids = tuple(map(str, range(len(rows))))
    logits = torch.tensor(rows, dtype=torch.float64)
    found = classification.prediction_table(ids, np.array(ids), labels, logits)
    best = logits.numpy().argmax(1)
    assert ((found["margin"] > 0) == (best == labels)).all()
    assert found["p_true"].between(0, 1).all()


def test_logits_of_any_size_give_finite_probabilities():
    found = classification.prediction_table(
        ("a",), np.array(["p"]), np.array([1]), torch.tensor([[3e4, -3e4]])
    )
    assert found["p_true"].tolist() == [0.0]
    assert found["margin"].tolist() == [-6e4]


def test_accuracy_weighs_persons_or_items():
    rows = table([0, 0, 0, 1, 1], [0, 0, 0, 0, 1], ["a", "a", "a", "b", "b"])
    options = {"seed": 0, "level": 0.9, "n_resamples": 200}
    by_person = classification.accuracy(rows, **options)
    by_item = classification.accuracy(rows, weight="item", **options)
    assert by_person.value == pytest.approx((1 + 0.5) / 2)
    assert by_item.value == pytest.approx(4 / 5)
    correct = np.array([1.0, 1, 1, 0, 1])
    assert by_person == person_bootstrap(correct, rows["person_id"].to_numpy(), **options)


def test_confusion_counts_true_classes_in_rows():
    rows = table([0, 0, 1, 2, 2, 2], [0, 1, 1, 0, 2, 2], list("abcabc"))
    counts = classification.confusion(rows, 4)
    assert counts.tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [1, 0, 2, 0], [0, 0, 0, 0]]
    assert counts.sum() == len(rows)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.floats(0, 1), st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_wilson_is_scipys(n_item, share, level):
    n_correct = round(share * n_item)
    expected = binomtest(n_correct, n_item).proportion_ci(level, method="wilson")
    assert classification.wilson_interval(n_correct, n_item, level) == pytest.approx(
        tuple(expected), abs=1e-12
    )


def test_wilson_of_nothing_and_of_all():
    assert np.isnan(classification.wilson_interval(0, 0)).all()
    # z**2 = 3.8415: 10 of 10 gives 10 / (10 + z**2) to 1.
    assert classification.wilson_interval(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)
