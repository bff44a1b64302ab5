"""Methods of every corpus against its truth, beside chance and energy: one row each."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from sonolens import stats
from sonolens.score.tables import CELL_COLUMNS, compare, rows_of, score_table, with_ranks
from sonolens.studies.overview.params import Report

# Methods of one corpus and cell, explained on one kind of model and judged by one metric.
BOARD = ["study", "corpus", "cell", "variant", "metric", "fill", "metric_params"]
ROW = ["method", "baseline"]
# For a map that knows nothing each of these is expected to be the truth's share of all cells, the
# one figure of chance that a study reports.
SHARE_METRICS = ("relevance_rank_accuracy", "relevance_mass_accuracy", "pointing_game")
COLUMNS = (
    *(
        "study",
        "corpus",
        "cell",
        "variant",
        "method",
        "baseline",
        "metric",
        "fill",
        "metric_params",
    ),
    *("direction", "n_person", "n_item", "value", "ci_low", "ci_high", "chance", "rank"),
    *("n_ranked", "beats_energy", "energy_baseline", "difference", "difference_ci_low"),
    *("difference_ci_high", "n_person_paired", "rank_biserial", "p", "p_holm"),
    *("smallest_p_holm", "share_nan"),
)


class OverviewError(ValueError):
    """Scores of a study cannot be compared; the message says why."""


def leaderboard(
    scores: pd.DataFrame, summaries: Mapping[str, Mapping[str, Any]], report: Report, *, seed: int
) -> pd.DataFrame:
    """Rows of metrics/overview/leaderboard.csv.

    Parameters
    ----------
    scores
        Rows of the studies' scores.parquet with a column `corpus`.
    summaries
        Content of each study's summary.json, where chance stands.
    report
        Which rows, and how they are compared.
    seed
        Root of the resampling.

    Returns
    -------
    pd.DataFrame
        `rank` is among all methods and controls of a board, 1 the best, those without a score
        last. `difference` to the best baseline of the energy control on the same items, positive
        where the method is better; its p-value is corrected by Holm over the methods of the
        board. `beats_energy` is yes, no (energy is better), open, or few: even equal signs of all
        persons would not have reached the level.
    """
    asked = scores[
        (scores["protocol"] == report.protocol) & scores["metric"].isin(list(report.metrics))
    ]
    if asked["corpus"].isna().any():
        lost = asked[asked["corpus"].isna()].iloc[0]
        raise OverviewError(
            f"{lost['study']}, {lost['cell']}: {lost['item_id']} has a score of {lost['metric']} "
            f"but is not in data/{lost['study']}/prepare/manifest.parquet; run "
            f"`dvc repro {lost['study']}-score`"
        )
    options = {"seed": seed, "level": report.level, "n_resamples": report.n_resamples}
    boards = [
        _board(key, table, summaries[str(key[0])], report, options)
        for key, table in asked.groupby(BOARD, sort=False, dropna=False)
    ]
    if not boards:
        return pd.DataFrame(columns=list(COLUMNS))
    order = {metric: number for number, metric in enumerate(report.metrics)}
    table = pd.concat(boards).assign(order=lambda rows: rows["metric"].map(order))
    # The trained model before its controls.
    table = table.assign(control=table["variant"] != "trained").sort_values(
        [*BOARD[:3], "control", "variant", "order", "metric_params", "rank", *ROW], kind="stable"
    )
    return table[list(COLUMNS)].reset_index(drop=True)


def _board(
    key: tuple[Any, ...],
    scores: pd.DataFrame,
    summary: Mapping[str, Any],
    report: Report,
    options: dict[str, Any],
) -> pd.DataFrame:
    named = dict(zip(BOARD, key, strict=True))
    direction = report.metrics[named["metric"]]
    rows = with_ranks(score_table(scores, **options), report.metrics)
    rows["share_nan"] = rows["n_nan"] / (rows["n_nan"] + rows["n_score"])
    rows = rows.drop(columns=CELL_COLUMNS[1]).assign(
        **named, direction=direction, chance=_chance(named, summary)
    )
    by_row = {pair: table for pair, table in scores.groupby(ROW, sort=False)}
    energy = rows[rows["method"] == report.energy].sort_values("rank", kind="stable")
    methods = rows[~rows["method"].isin([report.energy, *report.controls])]
    if energy.empty or methods.empty:
        return rows.reindex(columns=list(COLUMNS))
    best = str(energy["baseline"].iloc[0])
    tests = pd.DataFrame(
        [
            compare(by_row[pair], by_row[report.energy, best], direction=direction, **options)
            for pair in zip(methods["method"], methods["baseline"], strict=True)
        ],
        index=methods.index,
    )
    tests["p_holm"] = stats.holm(tests["p"].to_numpy())
    n_test = int(tests["p"].notna().sum())
    tests["smallest_p_holm"] = (tests["smallest_p"] * n_test).clip(upper=1)
    tests["energy_baseline"] = best
    tests["beats_energy"] = [
        _verdict(row["difference"], row["p_holm"], row["smallest_p_holm"], 1 - report.level)
        for row in rows_of(tests)
    ]
    return rows.join(tests).reindex(columns=list(COLUMNS))


def _verdict(difference: float, p_holm: float, smallest: float, alpha: float) -> str | None:
    if math.isnan(p_holm):
        return None
    if p_holm <= alpha:
        return "yes" if difference > 0 else "no"
    return "few" if smallest > alpha else "open"


def _chance(named: Mapping[str, Any], summary: Mapping[str, Any]) -> float:
    """What a map without any knowledge reaches; NaN where the study does not say."""
    if named["metric"] not in SHARE_METRICS:
        return math.nan
    if json.loads(named["metric_params"]).get("tolerance_cells"):
        return math.nan  # a widened truth has a larger share
    name = "xai_relevance_rank_accuracy_chance"
    value = summary.get(f"{name}_{named['cell']}", summary.get(name))
    return math.nan if value is None else float(value)


def summary_metrics(board: pd.DataFrame, report: Report) -> dict[str, float]:
    """Flat figures of metrics/overview/summary.json: the first metric by method, and how many."""
    first = next(iter(report.metrics))
    metrics: dict[str, float] = {
        "n_study": board["study"].nunique(),
        "n_corpus": len(board[BOARD[:2]].drop_duplicates()),
        "n_row": len(board),
        "xai_share_nan": float(board["share_nan"].mean()) if len(board) else math.nan,
    }
    for row in rows_of(board[board["metric"] == first]):
        parts = [row["method"], "" if row["baseline"] == "none" else row["baseline"]]
        where = [row["study"], row["corpus"], row["cell"]]
        where += [row["variant"]] if row["variant"] != "trained" else []
        name = "_".join(part for part in ["xai", first, *parts, *where] if part)
        metrics |= {name: row["value"], f"{name}_ci_low": row["ci_low"]}
        metrics[f"{name}_ci_high"] = row["ci_high"]
    trained = board[board["variant"] == "trained"]
    for (study, corpus, cell), table in trained.groupby(BOARD[:3], sort=True):
        own, suffix = table[table["metric"] == first], f"{study}_{corpus}_{cell}"
        if own.empty:
            continue
        metrics[f"xai_{first}_chance_{suffix}"] = float(own["chance"].iloc[0])
        metrics[f"n_person_{suffix}"] = int(own["n_person"].max())
        metrics[f"n_item_{suffix}"] = int(own["n_item"].max())
        metrics[f"n_method_tested_{suffix}"] = int(own["p"].notna().sum())
        for verdict in ("yes", "no", "open", "few"):
            metrics[f"n_method_beats_energy_{verdict}_{suffix}"] = int(
                (own["beats_energy"] == verdict).sum()
            )
        metrics[f"metric_agreement_w_{suffix}"] = agreement(table).w
    return metrics


def agreement(board: pd.DataFrame) -> stats.Agreement:
    """Kendall's W of the metrics' rankings of the same methods."""
    ranks = board.pivot(index=["metric", "fill", "metric_params"], columns=ROW, values="rank")
    return stats.kendall_w(ranks.dropna(axis=1).to_numpy())
