"""Methods beside each other: ranks, curves, baselines by removal value; pictures and words."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from sonolens.explain.contract import NO_BASELINE
from sonolens.params import StageParams
from sonolens.report import comparisons, summaries
from sonolens.score import registry, tables
from sonolens.stats import Friedman, friedman
from sonolens.store import whole
from sonolens.studies.digits.cells import by_cell
from sonolens.studies.digits.headline import bootstrap_options, headline
from sonolens.studies.digits.params import Params

TESTED = "faithfulness_patch"
VARIED = "integrated_gradients"


def write(
    params: StageParams[Params],
    scores: pd.DataFrame,
    curves: pd.DataFrame,
    shown: pd.DataFrame,
    folder: Path,
) -> None:
    """Write every comparison of the trained models, a set per cell.

    Parameters
    ----------
    scores, curves
        What the score stage wrote.
    shown
        `tables.score_table` with the first fill of every cell.
    folder
        Where to; it is there.
    """
    directions = {name: info.direction for name, info in registry.METRICS.items()}
    persons = scores.drop_duplicates("item_id").set_index("item_id")["person_id"]
    for cell, fills in by_cell(params.study, params.study.score.fills).items():
        own, table = headline(params, scores, cell), headline(params, shown, cell)
        if table.empty:
            continue
        ranked = tables.with_ranks(table, directions)
        comparisons.rank_heatmap(ranked, directions, folder / f"ranks_{cell}.png")
        first = own[own["fill"].isin([NO_BASELINE, fills[0]])]
        wide = _by_person(first, TESTED)
        tests: dict[str, Friedman] = {}
        if len(wide) > 1 and wide.shape[1] > 2:
            direction = registry.info(TESTED).direction
            assert direction != "none"
            test = tests[TESTED] = friedman(wide.to_numpy(), direction)
            comparisons.critical_difference(
                dict(zip(wide.columns, test.mean_ranks.tolist(), strict=True)),
                test.critical_difference, folder / f"critical_difference_{cell}.png",
                n_person=test.n_person, p=test.p, metric=TESTED,
            )  # fmt: skip
        lines = headline(params, curves, cell)
        lines = lines[lines["fill"].isin([NO_BASELINE, fills[0]])]
        lines = lines[lines["curve"].isin(comparisons.CURVE_HEADS)]
        if len(lines):
            lines = lines.assign(person_id=lines["item_id"].map(persons))
            bands = tables.curve_table(lines, **bootstrap_options(params))
            comparisons.curve_bands(bands, comparisons.CURVE_HEADS, folder / f"curves_{cell}.png")
        text = summaries.method_comparison(
            ranked, directions, level=params.study.report.level, tests=tests,
            title=f"Comparison of methods, {cell}",
        )  # fmt: skip
        with whole(folder / f"methods_{cell}_summary.md") as stream:
            stream.write(text.encode())


def removal_matrix(params: StageParams[Params], xai: pd.DataFrame, cell: str, folder: Path) -> None:
    """Patch faithfulness of integrated gradients by its baseline and by what removes a cell."""
    table = headline(params, xai, cell)
    table = table[(table["metric"] == TESTED) & (table["method"] == VARIED)]
    if len(table):
        path = folder / f"baselines_{cell}.png"
        comparisons.baseline_matrix(table, path, metric="patch faithfulness")


def _by_person(scores: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Mean score of each person (rows) by method (columns), of methods that have all of them."""
    own = scores[scores["metric"] == metric]
    pairs = zip(own["method"], own["baseline"], strict=True)
    own = own.assign(name=[comparisons.label(*pair) for pair in pairs])
    return own.pivot_table(index="person_id", columns="name", values="score").dropna(axis=1)
