"""Scores of items to small tables of groups, with intervals over persons."""

from __future__ import annotations

import pandas as pd

from sonolens.stats import person_bootstrap

CELL_COLUMNS = ["cell", "protocol", "variant"]


def method_label(method: str, baseline: str) -> str:
    """Name of a method with its baseline in legends and tables.

    >>> method_label("saliency", "none"), method_label("energy", "silence")
    ('saliency', 'energy, silence')
    """
    return method if baseline == "none" else f"{method}, {baseline}"


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
