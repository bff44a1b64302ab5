"""Scores of items to tables of groups: ranks, paired comparisons, curves with bands."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from sonolens import stats
from sonolens.score import tables

OPTIONS = {"seed": 0, "level": 0.95, "n_resamples": 200}


def scores(levels: dict[str, float], generator: np.random.Generator) -> pd.DataFrame:
    """Six persons with four items, two training seeds."""
    rows = [
        {"cell": "main", "protocol": "person", "variant": "trained", "fold": person // 3,
         "model_seed": seed, "method": method, "baseline": "none", "metric": metric,
         "fill": "none", "metric_params": "{}",
         "item_id": f"{person}-{item}", "person_id": f"p{person}",
         "score": level + person + generator.normal(0, 0.01)}
        for metric in ("up", "down", "neither")
        for method, level in levels.items()
        for seed in (0, 1)
        for person in range(6)
        for item in range(4)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_ranks_follow_each_metrics_direction(generator):
    table = tables.score_table(scores({"a": 0.1, "b": 0.3, "c": np.nan}, generator), **OPTIONS)
    ranked = tables.with_ranks(table, {"up": "higher", "down": "lower", "neither": "none"})
    own = ranked.set_index(["metric", "method"])["rank"]
    assert own["up"].to_dict() == {"a": 2, "b": 1, "c": 3}
    assert own["down"].to_dict() == {"a": 1, "b": 2, "c": 3}
    assert "neither" not in set(ranked["metric"])
    assert (ranked["n_ranked"] == 3).all()
    assert ranked.index.is_monotonic_increasing
    assert tables.with_ranks(table, {}).empty


def test_pairs_are_of_the_same_item_fold_and_seed(generator):
    table = scores({"a": 0.1, "b": 0.3}, generator)
    a, b = (table[(table["method"] == name) & (table["metric"] == "up")] for name in "ab")
    found = tables.compare(b.sample(frac=1, random_state=0), a, direction="higher", **OPTIONS)
    first, second = b["score"].to_numpy(), a["score"].to_numpy()
    test = stats.signed_rank(first, second, a["person_id"].to_numpy())
    assert found["difference"] == pytest.approx((first - second).mean())
    assert found["difference_ci_high"] - found["difference_ci_low"] < 0.03  # persons differ by 5
    assert (found["p"], found["rank_biserial"]) == (test.p, 1) == (1 / 32, 1)
    assert (found["n_person_paired"], found["n_score_paired"]) == (6, 48)
    worse = tables.compare(b, a, direction="lower", **OPTIONS)
    assert worse["difference"] == pytest.approx(-found["difference"])
    assert worse["rank_biserial"] == -1


def test_scores_without_a_partner_are_not_compared(generator):
    table = scores({"a": 0.1, "b": 0.3}, generator)
    a, b = (table[(table["method"] == name) & (table["metric"] == "up")] for name in "ab")
    half = tables.compare(b[b["person_id"] < "p3"], a, direction="higher", **OPTIONS)
    assert (half["n_person_paired"], half["n_score_paired"]) == (3, 24)
    assert half["smallest_p"] == 0.25
    nothing = tables.compare(b.iloc[:0], a, direction="higher", **OPTIONS)
    assert nothing["n_person_paired"] == 0
    assert math.isnan(nothing["p"])


def test_curves_are_means_over_persons_with_bands():
    rows = [
        {"cell": "main", "protocol": "person", "variant": "trained", "curve": "deletion",
         "method": "a", "baseline": "none", "item_id": f"{person}{item}", "person_id": person,
         "x": x, "y": value * x}
        for person, values in {"p": [1.0, 1.0, 1.0], "q": [0.0]}.items()
        for item, value in enumerate(values)
        for x in (0.0, 1.0)
    ]  # fmt: skip
    table = tables.curve_table(pd.DataFrame(rows), **OPTIONS)
    assert table["y"].tolist() == [0, 0.5]
    last = table.iloc[-1]
    assert (last["ci_low"], last["ci_high"], last["n_person"], last["n_item"]) == (0, 1, 2, 4)
