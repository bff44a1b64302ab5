"""Scores of items to small tables of groups, with intervals over persons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from sonolens.stats import (
    Direction,
    directed_ranks,
    paired_difference,
    person_bootstrap,
    signed_rank,
)

CELL_COLUMNS = ["cell", "protocol", "variant"]


def method_label(method: str, baseline: str) -> str:
    """Name of a method with its baseline in legends and tables.

    >>> method_label("saliency", "none"), method_label("energy", "silence")
    ('saliency', 'energy, silence')
    """
    return method if baseline == "none" else f"{method}, {baseline}"


def rows_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as dictionaries by column name."""
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def score_table(scores: pd.DataFrame, *, seed: int, level: float, n_resamples: int) -> pd.DataFrame:
    """Mean of each metric by cell, method, baseline and fill, with interval and NaN count.

    `n_item` counts different items, `n_score` scores: items times folds and training seeds.
    """
    columns = [*CELL_COLUMNS, "method", "baseline", "metric", "fill", "metric_params"]
    rows = []
    for key, table in scores.groupby(columns, sort=True, dropna=False):
        interval = person_bootstrap(
            table["score"].to_numpy(), table["person_id"].to_numpy(),
            seed=seed, level=level, n_resamples=n_resamples,
        )  # fmt: skip
        rows.append(
            dict(zip(columns, key, strict=True))
            | {"value": interval.value, "ci_low": interval.low, "ci_high": interval.high}
            | {"n_person": interval.n_person, "n_item": table["item_id"].nunique()}
            | {"n_score": interval.n_item, "n_nan": interval.n_nan}
        )
    return pd.DataFrame(rows)


def with_ranks(table: pd.DataFrame, directions: Mapping[str, str]) -> pd.DataFrame:
    """A `score_table` with `rank` among the methods of a cell and model, 1 the best.

    Methods without a score come last; `n_ranked` counts the methods. Metrics that `directions`
    gives no better end (higher or lower) are left out.
    """
    ordered = [metric for metric, end in directions.items() if end in ("higher", "lower")]
    table = table[table["metric"].isin(ordered)]
    ranked = []
    for key, rows in table.groupby(
        [*CELL_COLUMNS, "metric", "fill", "metric_params"], dropna=False
    ):
        direction: Any = directions[str(key[3])]
        ranks, _ = directed_ranks(rows["value"].to_numpy(), direction)
        ranked.append(rows.assign(rank=ranks, n_ranked=len(rows)))
    if not ranked:
        return table.assign(rank=pd.Series(dtype=float), n_ranked=pd.Series(dtype=int))
    return pd.concat(ranked).sort_index()


def compare(
    own: pd.DataFrame,
    other: pd.DataFrame,
    *,
    direction: Direction,
    seed: int,
    level: float,
    n_resamples: int,
) -> dict[str, Any]:
    """Paired comparison of two methods by one metric, person by person.

    Parameters
    ----------
    own, other
        Rows of scores.parquet, paired by item, fold and training seed.
    direction
        Which end is better.

    Returns
    -------
    dict
        `difference`, positive where `own` is better, with its interval over persons; effect, p and
        smallest reachable p of Wilcoxon's signed-rank test on the persons' means, to be corrected
        by `stats.holm` over the family; persons and items compared.
    """
    pairs = own.merge(other, on=["fold", "model_seed", "item_id"], suffixes=("", "_other"))
    sign = 1 if direction == "higher" else -1
    first, second = (sign * pairs[name].to_numpy() for name in ("score", "score_other"))
    persons = pairs["person_id"].to_numpy()
    gain = paired_difference(
        first, second, persons, seed=seed, level=level, n_resamples=n_resamples
    )
    test = signed_rank(first, second, persons)
    return {
        "difference": gain.value,
        "difference_ci_low": gain.low,
        "difference_ci_high": gain.high,
        "n_person_paired": gain.n_person,
        "n_score_paired": gain.n_item,
        "rank_biserial": test.effect,
        "p": test.p,
        "smallest_p": test.smallest_p,
    }


def curve_table(curves: pd.DataFrame, *, seed: int, level: float, n_resamples: int) -> pd.DataFrame:
    """Mean curves over persons with an interval at every x.

    Parameters
    ----------
    curves
        Rows of curves.parquet with a column `person_id`.

    Returns
    -------
    pd.DataFrame
        By cell, model, curve, method, baseline and `x`: y, ci_low, ci_high, n_person, n_item.
    """
    columns = [*CELL_COLUMNS, "curve", "method", "baseline", "x"]
    rows = []
    for key, table in curves.groupby(columns, sort=True, dropna=False):
        interval = person_bootstrap(
            table["y"].to_numpy(), table["person_id"].to_numpy(),
            seed=seed, level=level, n_resamples=n_resamples,
        )  # fmt: skip
        rows.append(
            dict(zip(columns, key, strict=True))
            | {"y": interval.value, "ci_low": interval.low, "ci_high": interval.high}
            | {"n_person": interval.n_person, "n_item": table["item_id"].nunique()}
        )
    return pd.DataFrame(rows)


def seed_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean of each metric by training seed: how far a finding hangs on one training."""
    columns = [*CELL_COLUMNS, "model_seed", "method", "baseline", "metric", "fill"]
    means = scores.groupby(columns, sort=True, dropna=False)["score"].mean()
    return means.rename("value").reset_index()


def mean_curve(curves: pd.DataFrame, curve: str) -> pd.DataFrame:
    """Mean over items, folds and seeds of one kind of curve; `series` names a line."""
    curves = curves[curves["curve"] == curve]
    columns = [*CELL_COLUMNS, "method", "baseline", "x"]
    means = curves.groupby(columns, sort=True, dropna=False)["y"].mean().reset_index()
    rows = zip(means["method"], means["baseline"], means["cell"], means["variant"], strict=True)
    series = [f"{method_label(a, b)}, {cell}, {variant}" for a, b, cell, variant in rows]
    means.insert(0, "series", series)
    return means
