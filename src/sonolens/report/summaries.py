"""Summaries in Markdown, `<analysis>_summary.md`: every figure comes from a table.

Beside each headline stand n, interval and controls. Tables are those of `score.tables`: a row per
method, baseline and metric with value, ci_low, ci_high, n_person, n_item, n_score and n_nan.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pandas as pd

from sonolens.report.comparisons import CONTROLS, MODELS, VERDICTS, label
from sonolens.report.markdown import EMPTY, interval, markdown_table
from sonolens.score.tables import rows_of
from sonolens.stats import Agreement, Friedman

BETTER = {"higher": "higher is better", "lower": "lower is better"}


def leaderboard(board: pd.DataFrame, *, level: float, controls: Collection[str] = CONTROLS) -> str:
    """Methods against exact truth, from the rows of leaderboard.csv."""
    lines = ["# Methods against exact truth", ""]
    if board.empty:
        return "\n".join([*lines, "No corpus with exact truth is among the scores.", ""])
    lines += [
        f"Values are means over persons with {100 * level:g} % intervals by resampling persons. "
        "Each method is compared with the best energy control on the same items "
        "(Wilcoxon's signed-rank test on the persons' means, corrected by Holm over the methods); "
        "a positive difference speaks for the method.",
        "",
    ]
    for (study, corpus, cell), table in board.groupby(["study", "corpus", "cell"], sort=False):
        lines += [f"## {corpus}, {cell} ({study})", ""]
        for (variant, metric, _), rows in table.groupby(
            ["variant", "metric", "metric_params"], sort=False, dropna=False
        ):
            model = "" if variant == "trained" else f", {MODELS.get(str(variant), str(variant))}"
            end = BETTER[rows["direction"].iloc[0]]
            lines += [f"### {str(metric).replace('_', ' ')} ({end}){model}", ""]
            lines += [*_board_sentences(rows, controls), "", _board_table(rows), ""]
    return "\n".join(lines)


def _board_sentences(rows: pd.DataFrame, controls: Collection[str]) -> list[str]:
    methods = rows[~rows["method"].isin(list(controls))]
    said = [f"- {_count(rows)}."]
    if methods["value"].notna().any():
        best = rows_of(methods.sort_values("rank", kind="stable"))[0]
        said += [f"- Best method: {_name(best)}, {_value(best)}, rank {best['rank']:g} of "
                 f"{best['n_ranked']:.0f}."]  # fmt: skip
    said += _control_lines(rows, controls)
    chance = rows["chance"].iloc[0]
    said += [f"- Chance: {chance:.2f}."] if not math.isnan(chance) else ["- Chance: not reported."]
    tested = methods[methods["p"].notna()]
    if len(tested):
        counts = tested["beats_energy"].value_counts()
        found = [f"{counts[key]} {text}" for key, text in VERDICTS.items() if key in counts]
        persons = tested["n_person_paired"].max()
        said += [
            f"- Methods tested: {len(tested)} ({', '.join(found)}); with {persons:.0f} persons the "
            f"smallest corrected p that can be reached is {tested['smallest_p_holm'].min():.2g}."
        ]
    return said


def _board_table(rows: pd.DataFrame) -> str:
    body = [
        [
            f"{row['rank']:g}",
            _name(row),
            _value(row),
            interval(row["difference"], row["difference_ci_low"], row["difference_ci_high"]),
            _number(row["rank_biserial"], "{:.2f}"),
            _number(row["p_holm"], "{:.2g}"),
            VERDICTS.get(str(row["beats_energy"]), EMPTY),
            _number(100 * row["share_nan"], "{:.0f} %"),
        ]
        for row in rows_of(rows)
    ]
    heading = ["rank", "method", "value", "difference to energy", "effect (rank-biserial)"]
    return markdown_table([*heading, "p (Holm)", "verdict", "undefined"], body)


def method_comparison(
    table: pd.DataFrame,
    directions: Mapping[str, str],
    *,
    level: float,
    title: str = "Comparison of methods",
    tests: Mapping[str, Friedman] | None = None,
    agreement: Agreement | None = None,
    chance: Mapping[str, float] | None = None,
    controls: Collection[str] = CONTROLS,
) -> str:
    """All metrics of one cell and model.

    Parameters
    ----------
    table
        `tables.with_ranks` of one cell, protocol and variant.
    directions
        Which end of each metric is better; the order of the columns.
    level
        Of the intervals.
    title
        Heading.
    tests, agreement
        Friedman's test by metric and Kendall's W of the metrics' rankings, where they were made.
    chance
        By metric, where it is known.
    controls
        Methods that explain nothing.
    """
    lines = [f"# {title}", "", f"{_count(table)}; means over persons with {100 * level:g} % "
             "intervals by resampling persons.", ""]  # fmt: skip
    for metric in _metrics(directions, table):
        rows = table[table["metric"] == metric]
        methods = rows[~rows["method"].isin(list(controls))].sort_values("rank", kind="stable")
        said = [f"**{metric.replace('_', ' ')}** ({BETTER[directions[metric]]}):"]
        if methods["value"].notna().any():
            best = rows_of(methods)[0]
            said += [f"best is {_name(best)} with {_value(best)}{_n(best)};"]
        own = [row for row in rows_of(rows) if row["method"] in controls]
        said += ["controls: " + ", ".join(f"{_name(row)} {_value(row)}" for row in own) + ";"]
        if chance and metric in chance:
            said += [f"chance {chance[metric]:.2f};"]
        n_nan = int(rows["n_nan"].sum())
        said += [f"{n_nan} of {int(rows['n_score'].sum()) + n_nan} scores undefined."]
        lines += ["- " + " ".join(said)]
        if tests and metric in tests:
            lines += [f"  {_friedman(tests[metric])}"]
    if agreement is not None:
        lines += ["", f"Agreement of {agreement.n_ranking} metrics on {agreement.n_object} "
                  f"methods: Kendall's W = {_number(agreement.w, '{:.2f}')}, "
                  f"p = {_number(agreement.p, '{:.2g}')}."]  # fmt: skip
    columns = _metrics(directions, table)
    body = []
    for (method, baseline), rows in table.groupby(["method", "baseline"], sort=False):
        cells = {row["metric"]: f"{_value(row)}, rank {row['rank']:g}"
                 for row in rows_of(rows)}  # fmt: skip
        body += [
            [label(str(method), str(baseline)), *(cells.get(metric, EMPTY) for metric in columns)]
        ]
    heading = ["method", *(metric.replace("_", " ") for metric in columns)]
    return "\n".join([*lines, "", markdown_table(heading, body), ""])


def baselines(
    table: pd.DataFrame,
    differences: pd.DataFrame,
    directions: Mapping[str, str],
    *,
    reference: str,
    level: float,
    title: str = "Comparison of baselines",
) -> str:
    """What the baseline of a method changes.

    Parameters
    ----------
    table
        A row per method, baseline and metric.
    differences
        Rows with method, baseline, metric and the columns of `tables.compare` and `p_holm`,
        against `reference` of the same method.
    directions
        Which end of each metric is better.
    reference
        Baseline that the others are compared with.
    level
        Of the intervals.
    title
        Heading.
    """
    lines = [
        f"# {title}", "",
        f"{_count(table)}; {100 * level:g} % intervals by resampling persons. Differences are to "
        f"the baseline {label(reference)} of the same method on the same items; positive is "
        "better.", "",
    ]  # fmt: skip
    found = {(row["method"], row["baseline"], row["metric"]): row for row in rows_of(differences)}
    body = []
    for metric in _metrics(directions, table):
        for row in rows_of(table[table["metric"] == metric]):
            other: dict[str, Any] = found.get((row["method"], row["baseline"], metric), {})
            nothing = math.nan
            body += [[
                metric.replace("_", " "), label(row["method"]), label(row["baseline"]), _value(row),
                interval(*(other.get(f"difference{end}", nothing)
                           for end in ("", "_ci_low", "_ci_high"))),
                _number(other.get("rank_biserial", nothing), "{:.2f}"),
                _number(other.get("p_holm", nothing), "{:.2g}"),
            ]]  # fmt: skip
    heading = ["metric", "method", "baseline", "value", "difference", "effect", "p (Holm)"]
    if found:
        persons = int(differences["n_person_paired"].max())
        smallest = differences["smallest_p"].min()
        lines += [f"With {persons} persons no single test can reach a p below "
                  f"{_number(smallest, '{:.2g}')}.", ""]  # fmt: skip
    return "\n".join([*lines, markdown_table(heading, body), ""])


def resolution(
    table: pd.DataFrame,
    directions: Mapping[str, str],
    *,
    level: float,
    title: str = "Metrics by resolution",
    controls: Collection[str] = CONTROLS,
) -> str:
    """Metric by size of the map, a column per size.

    Parameters
    ----------
    table
        A row per method, baseline, metric and `size`, and `modality` where there are several.
    directions
        Which end of each metric is better.
    level
        Of the intervals.
    title
        Heading.
    controls
        Methods that explain nothing, listed last.
    """
    sizes = sorted(table["size"].unique())
    table = table if "modality" in table else table.assign(modality=EMPTY)
    lines = [f"# {title}", "", f"{_count(table)}; {100 * level:g} % intervals by resampling "
             "persons; n beside a value are persons.", ""]  # fmt: skip
    body = []
    for metric in _metrics(directions, table):
        rows = table[table["metric"] == metric]
        order = rows.assign(last=rows["method"].isin(list(controls)))
        order = order.sort_values(["modality", "last"], kind="stable")
        for (modality, method, baseline), own in order.groupby(
            ["modality", "method", "baseline"], sort=False
        ):
            cells = {row["size"]: f"{_value(row)}{_n(row)}" for row in rows_of(own)}
            body += [[metric.replace("_", " "), str(modality), label(str(method), str(baseline)),
                      *(cells.get(size, EMPTY) for size in sizes)]]  # fmt: skip
    heading = ["metric", "modality", "method", *(f"{size:g}" for size in sizes)]
    return "\n".join([*lines, markdown_table(heading, body), ""])


def _metrics(directions: Mapping[str, str], table: pd.DataFrame) -> Sequence[str]:
    there = set(table["metric"])
    return [metric for metric, end in directions.items() if metric in there and end in BETTER]


def _friedman(test: Friedman) -> str:
    if math.isnan(test.p):
        return f"Friedman's test is undefined for {test.n_person} persons."
    return (
        f"Friedman's test over {test.n_person} persons: p = {test.p:.2g}; mean ranks further apart "
        f"than {test.critical_difference:.2f} differ (Nemenyi); {test.n_left_out} persons without "
        "every score left out."
    )


def _control_lines(rows: pd.DataFrame, controls: Collection[str]) -> list[str]:
    own = [row for row in rows_of(rows) if row["method"] in controls]
    return [f"- Control {_name(row)}: {_value(row)}, rank {row['rank']:g}." for row in own]


def _count(table: pd.DataFrame) -> str:
    """`6 persons, 48 items`, or the range over the rows that have a score."""
    parts = []
    table = table[table["value"].notna()]
    for column, unit in (("n_person", "persons"), ("n_item", "items")):
        low, high = table[column].min(), table[column].max()
        if pd.isna(high):
            continue  # nobody knows who made the items
        parts += [f"{high:.0f} {unit}" if low == high else f"{low:.0f} to {high:.0f} {unit}"]
    return ", ".join(parts)


def _n(row: Mapping[str, Any]) -> str:
    return "" if pd.isna(row["n_person"]) else f" (n = {row['n_person']:.0f})"


def _name(row: Mapping[str, Any]) -> str:
    return label(row["method"], row["baseline"])


def _value(row: Mapping[str, Any]) -> str:
    return interval(row["value"], row["ci_low"], row["ci_high"])


def _number(value: float, form: str) -> str:
    return EMPTY if value is None or math.isnan(value) else form.format(value)
