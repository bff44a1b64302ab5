"""Pictures that compare methods: scores, ranks, curves, controls; they draw, they do not compute.

Tables have a row per group with `value`, `ci_low` and `ci_high`, or a row per item with `score`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator

from sonolens.report.figures import sheet
from sonolens.score.tables import method_label, rows_of

SMALL, TINY = 8, 7  # points
ARROWS = {"higher": "↑", "lower": "↓"}
CONTROL_COLOUR, CHANCE_COLOUR, ENERGY_COLOUR = "#707070", "#404040", "#d95f02"
# A line is told by colour and by dashes, so that it can be told in grey, too.
DASHES = ("-", "--", "-.", ":")
MARKERS = "osD^vPX*<>"
MODELS = {"permuted": "model of shuffled labels", "random_weights": "model of random weights"}
VERDICTS = {
    "yes": "above energy",
    "no": "below energy",
    "open": "undecided",
    "few": "too few persons",
}
# Methods that explain nothing; the same as in explain/registry.py, which would load torch.
CONTROLS = ("energy", "random")
Style = tuple[str, str, str]  # colour, dashes, marker
Kind = TypeVar("Kind")


def label(method: str, baseline: str = "none") -> str:
    """Name of a method as it stands in a picture.

    >>> label("integrated_gradients", "legacy_zero")
    'integrated gradients, legacy zero'
    """
    return method_label(method, baseline).replace("_", " ")


def metric_label(metric: str, direction: str | None = None, width: int = 18) -> str:
    """Name of a metric with an arrow towards the better end, broken into lines."""
    arrow = f"\N{NO-BREAK SPACE}{ARROWS[direction]}" if direction in ARROWS else ""
    return "\n".join(textwrap.wrap(metric.replace("_", " ") + arrow, width, break_long_words=False))


def leaderboard(
    board: pd.DataFrame, path: Path, *, level: float, controls: Collection[str] = CONTROLS
) -> None:
    """Methods by one metric against truth, a panel per corpus and cell, best on top.

    Parameters
    ----------
    board
        Rows of leaderboard.csv of one metric; hollow marks are control models.
    path
        Where to.
    level
        Of the intervals.
    controls
        Methods drawn in grey.
    """
    panels = list(board.groupby(["study", "corpus", "cell"], sort=False))
    if not panels:
        _nothing(path, "no corpus with exact truth is among the scores")
        return
    tallest = max(len(_rows_of(table)) for _, table in panels)
    columns = min(2, len(panels))
    lines = -(-len(panels) // columns)
    height = lines * (0.27 * tallest + 1.1) + 0.6
    with sheet(path, lines, columns, 7.4 * columns + 0.4, height) as axes:
        for ax, ((study, corpus, cell), table) in zip(axes.flat, panels, strict=False):
            _board_panel(ax, table, f"{str(corpus).replace('_', ' ')}, {cell} ({study})", controls)
        for ax in axes.flat[len(panels) :]:
            ax.set_visible(False)
        variants = [name for name in board["variant"].unique() if name != "trained"]
        axes[0, 0].figure.legend(
            handles=[
                _mark("C0", "o", f"method, {100 * level:g} % interval over persons"),
                _mark(CONTROL_COLOUR, "o", "control that explains nothing"),
                *(
                    _mark("C0", MARKERS[1 + at], MODELS.get(name, name), hollow=True)
                    for at, name in enumerate(variants)
                ),
                Line2D([], [], color=ENERGY_COLOUR, ls="--", label="best energy control"),
                Line2D([], [], color=CONTROL_COLOUR, ls="-.", label="random map"),
                Line2D([], [], color=CHANCE_COLOUR, ls=":", label="chance: truth's share of cells"),
            ],
            loc="outside lower center", ncols=2, fontsize=SMALL, frameon=False,
        )  # fmt: skip


def _rows_of(table: pd.DataFrame) -> pd.DataFrame:
    """A row per method and baseline, best of the trained model first."""
    ordered = table.assign(late=table["variant"] != "trained").sort_values(
        ["late", "rank"], kind="stable"
    )
    return ordered.drop_duplicates(["method", "baseline"])


def _board_panel(ax: plt.Axes, table: pd.DataFrame, title: str, controls: Collection[str]) -> None:
    rows = _rows_of(table)
    places = {pair: place for place, pair in enumerate(_pairs(rows))}
    trained = table[table["variant"] == "trained"]
    others = [name for name in table["variant"].unique() if name != "trained"]
    for at, variant in enumerate(["trained", *others]):
        for row in rows_of(table[table["variant"] == variant]):
            colour = CONTROL_COLOUR if row["method"] in controls else "C0"
            place = places[row["method"], row["baseline"]] + 0.22 * at
            _interval(ax, row, place, colour, MARKERS[at], hollow=variant != "trained")
    first = table.iloc[0]
    if not np.isnan(first["chance"]):
        ax.axvline(first["chance"], color=CHANCE_COLOUR, ls=":", lw=1.2, zorder=0)
    for method, colour, style in (
        ("energy", ENERGY_COLOUR, "--"),
        ("random", CONTROL_COLOUR, "-."),
    ):
        own = trained[trained["method"] == method]
        if len(own) and own["value"].notna().any():
            best = own.sort_values("rank", kind="stable")["value"].iloc[0]
            ax.axvline(best, color=colour, ls=style, lw=1.2, zorder=0)
    names = [label(row["method"], row["baseline"]) for row in rows_of(rows)]
    ax.set_yticks(range(len(rows)), names, fontsize=SMALL)
    for text, method in zip(ax.get_yticklabels(), rows["method"], strict=True):
        if method in controls:
            text.set_color(CONTROL_COLOUR)
    ax.set_ylim(len(rows) - 0.4 + 0.22 * len(others), -0.6)
    verdicts = ax.secondary_yaxis("right")
    verdicts.set_yticks(range(len(rows)), [_verdict(row) for row in rows_of(rows)])
    verdicts.tick_params(length=0, labelsize=TINY, colors=CONTROL_COLOUR)
    n_person, n_item = (
        int(trained[name].max()) if len(trained) else 0 for name in ("n_person", "n_item")
    )
    ax.set_title(f"{title}\n{n_person} persons, {n_item} items", fontsize=SMALL + 1)
    ax.set_xlabel(metric_label(first["metric"], first["direction"], 60), fontsize=SMALL)
    ax.tick_params(axis="x", labelsize=SMALL)
    ax.grid(axis="x", alpha=0.25)


def _verdict(row: Mapping[str, Any]) -> str:
    """Beside a row: whether it beats energy, and the share of undefined scores if there is any."""
    parts = [VERDICTS.get(str(row["beats_energy"]), "")]
    share = row["share_nan"]
    parts += [f"{100 * share:.0f} % undefined" if share >= 0.005 else ""]
    return ", ".join(part for part in parts if part)


def _interval(
    ax: plt.Axes,
    row: Mapping[str, Any],
    place: float,
    colour: str,
    marker: str,
    *,
    hollow: bool = False,
) -> None:
    value, low, high = (row[name] for name in ("value", "ci_low", "ci_high"))
    bars = np.nan_to_num([[value - low], [high - value]]).clip(min=0)
    ax.errorbar(
        [value], [place], xerr=bars, fmt=marker, ms=5, capsize=2.5, lw=1.2, color=colour,
        mfc="white" if hollow else colour,
    )  # fmt: skip


def _mark(colour: str, marker: str, text: str, *, hollow: bool = False) -> Line2D:
    return Line2D(
        [], [], color=colour, marker=marker, ms=5, lw=0, label=text,
        mfc="white" if hollow else colour,
    )  # fmt: skip


def _nothing(path: Path, why: str) -> None:
    with sheet(path, 1, 1, 5, 1.2) as axes:
        axes[0, 0].axis("off")
        axes[0, 0].text(0.5, 0.5, why, ha="center", va="center", fontsize=SMALL + 1)


def rank_heatmap(table: pd.DataFrame, directions: Mapping[str, str], path: Path) -> None:
    """Ranks of methods (rows, best mean rank first) by metric (columns), 1 the best.

    Parameters
    ----------
    table
        A row per method, baseline and metric, with `rank` (see `stats.directed_ranks`) and
        `value`; a method without a score is ranked last and marked by a dash.
    directions
        Which end of each metric is better.
    path
        Where to.
    """
    named = table.assign(
        row=[label(*pair) for pair in zip(table["method"], table["baseline"], strict=True)]
    )
    metrics = _of(directions, table["metric"])
    wide, shown = (
        named.pivot(index="row", columns="metric", values=part)[metrics].astype(float)
        for part in ("rank", "value")
    )
    names = list(wide.mean(axis=1).sort_values(kind="stable").index)
    ranks, values = wide.loc[names].to_numpy(), shown.loc[names].to_numpy()
    n_rows, n_columns = ranks.shape
    with sheet(path, 1, 1, 0.95 * n_columns + 3.4, 0.33 * n_rows + 1.6) as axes:
        ax = axes[0, 0]
        image = ax.imshow(ranks, cmap="viridis_r", vmin=1, vmax=max(n_rows, 2), aspect="auto")
        for row, column in np.ndindex(n_rows, n_columns):
            rank = ranks[row, column]
            if np.isnan(rank):
                continue
            missing = np.isnan(values[row, column])
            ax.text(
                column, row, f"{rank:g} –" if missing else f"{rank:g}", ha="center", va="center",
                fontsize=SMALL, color="white" if rank > 0.45 * n_rows else "black",
            )  # fmt: skip
        ax.set_yticks(range(n_rows), names, fontsize=SMALL)
        heads = [metric_label(metric, directions[metric], 12) for metric in metrics]
        ax.set_xticks(range(n_columns), heads, fontsize=TINY)
        ax.xaxis.tick_top()
        ax.tick_params(length=0)
        bar = ax.figure.colorbar(image, ax=ax, pad=0.02)
        bar.set_label("rank (1 = best; –: no score)", fontsize=SMALL)
        bar.ax.tick_params(labelsize=TINY)
        bar.ax.invert_yaxis()


def critical_difference(
    mean_ranks: Mapping[str, float],
    difference: float,
    path: Path,
    *,
    n_person: int,
    p: float,
    alpha: float = 0.05,
    metric: str = "",
) -> None:
    """Mean ranks on a line; methods joined by a bar do not differ at `alpha` (Nemenyi).

    Parameters
    ----------
    mean_ranks
        By name, 1 the best; see `stats.friedman`.
    difference
        Critical difference; NaN draws no bars.
    path
        Where to.
    n_person, p
        Blocks and p-value of Friedman's test, for the title.
    metric
        Whose ranks, for the title.

    References
    ----------
    Demšar (2006), figure 1.
    """
    ordered = sorted(mean_ranks.items(), key=lambda pair: pair[1])
    names, ranks = [name for name, _ in ordered], np.array([rank for _, rank in ordered])
    n = len(ranks)
    groups = _joined(ranks, difference)
    depth = 0.32 * len(groups) + 0.3  # below the axis, then the names
    step = 0.42
    n_left = -(-n // 2)
    bottom = depth + step * n_left
    span = max(n - 1, 1)
    with sheet(path, 1, 1, 9.0, 0.42 * bottom + 1.5) as axes:
        ax = axes[0, 0]
        margin = 0.62 * span
        ax.set_xlim(1 - margin, n + margin)
        ax.set_ylim(-bottom - 0.2, 1.5)
        ax.axis("off")
        ax.plot([1, n], [0, 0], color="black", lw=1)
        for tick in range(1, n + 1):
            ax.plot([tick, tick], [0, 0.12], color="black", lw=1)
            ax.text(tick, 0.2, str(tick), ha="center", va="bottom", fontsize=SMALL)
        for at, (first, last) in enumerate(groups):
            height = -0.3 - 0.32 * at
            ax.plot(
                [ranks[first] - 0.02 * span, ranks[last] + 0.02 * span], [height, height],
                color="black", lw=3.5, solid_capstyle="butt",
            )  # fmt: skip
        for place, (name, rank) in enumerate(zip(names, ranks, strict=True)):
            left = place < n_left
            at = place if left else n - 1 - place
            height = -depth - step * (at + 0.5)
            side = 1 - 0.06 * span if left else n + 0.06 * span
            ax.plot([rank, rank, side], [0, height, height], color="#555555", lw=0.8)
            ax.text(
                side - 0.015 * span if left else side + 0.015 * span, height,
                f"{name} ({rank:.1f})", ha="right" if left else "left", va="center", fontsize=SMALL,
            )  # fmt: skip
        if not np.isnan(difference):
            end = min(1 + difference, n + margin)
            ax.plot([1, end], [0.95, 0.95], color="black", lw=1.2)
            for x in (1, end):
                ax.plot([x, x], [0.87, 1.03], color="black", lw=1.2)
            ax.text((1 + end) / 2, 1.05, f"critical difference {difference:.2f}", ha="center",
                    va="bottom", fontsize=SMALL)  # fmt: skip
        ax.set_title(
            f"{metric_label(metric, width=60)}{': ' if metric else ''}mean ranks over {n_person} "
            "persons; Friedman's test: "
            f"{'undefined' if np.isnan(p) else f'p = {p:.2g}'}; Nemenyi's at {alpha:g}",
            fontsize=SMALL + 1,
        )


def _joined(ranks: np.ndarray, difference: float) -> list[tuple[int, int]]:
    """Longest runs (first, last) of sorted ranks that lie within `difference`."""
    runs: list[tuple[int, int]] = []
    for first, rank in enumerate(ranks):
        last = int(np.flatnonzero(ranks <= rank + difference)[-1]) if difference >= 0 else first
        if last > first and (not runs or last > runs[-1][1]):
            runs.append((first, last))
    return runs


def resolution_lines(table: pd.DataFrame, directions: Mapping[str, str], path: Path) -> None:
    """Metric against size, a panel per metric and a line with interval per method.

    Parameters
    ----------
    table
        Rows with `size` (bands or pixels), method, baseline, metric, value, ci_low, ci_high and,
        where there are several, `modality`: dashed lines for the second.
    directions
        Which end of each metric is better.
    path
        Where to.
    """
    several = "modality" in table and table["modality"].nunique() > 1
    modalities = list(table["modality"].unique()) if several else [""]
    kinds = [
        (metric, modality) for metric in _of(directions, table["metric"]) for modality in modalities
    ]
    n_pairs = len(_pairs(table))
    with _panels(path, kinds, table, columns=len(modalities) if several else 3) as draw:
        for ax, (metric, modality), styles in draw:
            title = metric_label(metric, directions[metric], 40)
            ax.set_title(f"{title}, {modality}" if several else title, fontsize=SMALL)
            rows = table[table["metric"] == metric]
            rows = rows[rows["modality"] == modality] if several else rows
            for at, ((method, baseline), (colour, dash, marker)) in enumerate(styles.items()):
                own = rows[(rows["method"] == method) & (rows["baseline"] == baseline)]
                own = own.sort_values("size")
                # Beside each other, so that bars do not hide bars.
                beside = own["size"] * 2 ** (0.1 * ((at + 0.5) / n_pairs - 0.5))
                bars = np.nan_to_num(
                    [own["value"] - own["ci_low"], own["ci_high"] - own["value"]]
                ).clip(min=0)
                ax.errorbar(beside, own["value"], yerr=bars, capsize=1.5, lw=1.3, elinewidth=0.8,
                            ms=4, color=colour, marker=marker, ls=dash)  # fmt: skip
            sizes = sorted(rows["size"].unique())
            ax.set_xscale("log", base=2)
            ax.set_xticks(sizes, [f"{size:g}" for size in sizes])
            ax.xaxis.set_minor_locator(NullLocator())
            ax.set_xlabel("size of the map (bands = frames, or pixels)", fontsize=SMALL)


def curve_bands(table: pd.DataFrame, heads: Mapping[str, tuple[str, str, str]], path: Path) -> None:
    """Mean curves with bands, a panel per kind and a line per method.

    Parameters
    ----------
    table
        Rows with `curve`, method, baseline, `x`, `y`, ci_low, ci_high; see
        `score.tables.curve_table`.
    heads
        Kinds to draw: title, label of x and label of y; see CURVE_HEADS.
    path
        Where to.
    """
    with _panels(path, _of(heads, table["curve"]), table) as draw:
        for ax, kind, styles in draw:
            title, x_label, y_label = heads[kind]
            ax.set_title(title, fontsize=SMALL + 1)
            rows = table[table["curve"] == kind]
            for (method, baseline), (colour, dash, marker) in styles.items():
                own = rows[(rows["method"] == method) & (rows["baseline"] == baseline)]
                own = own.sort_values("x")
                if own.empty:
                    continue
                ax.plot(own["x"], own["y"], color=colour, ls=dash, lw=1.4, marker=marker, ms=3.5,
                        markevery=max(1, len(own) // 8))  # fmt: skip
                ax.fill_between(
                    own["x"], own["ci_low"], own["ci_high"], color=colour, alpha=0.12, lw=0
                )
            ax.set_xlabel(x_label, fontsize=SMALL)
            ax.set_ylabel(y_label, fontsize=SMALL)


CURVE_HEADS = {
    "deletion": ("deletion: lower is better", "share of cells removed, most relevant first",
                 "probability of the predicted class"),
    "insertion": ("insertion: higher is better", "share of cells shown, most relevant first",
                  "probability of the predicted class"),
    "mprt": ("model parameter randomisation: lower is better",
             "share of layers with new weights, from the top",
             "rank correlation with the original map"),
}  # fmt: skip


def violins(scores: pd.DataFrame, directions: Mapping[str, str], path: Path) -> None:
    """Scores of items by method, a panel per metric: violin, quartiles and median.

    Parameters
    ----------
    scores
        A row per item with method, baseline, metric and score; NaN are counted beside the name.
    directions
        Which end of each metric is better.
    path
        Where to.
    """
    metrics = _of(directions, scores["metric"])
    pairs = _pairs(scores)
    columns = min(3, len(metrics))
    lines = -(-len(metrics) // columns)
    with sheet(path, lines, columns, 3.3 * columns + 1.9, lines * (0.3 * len(pairs) + 0.9)) as axes:
        for at, (ax, metric) in enumerate(zip(axes.flat, metrics, strict=False)):
            own = scores[scores["metric"] == metric]
            for place, (method, baseline) in enumerate(pairs):
                values = own[(own["method"] == method) & (own["baseline"] == baseline)]["score"]
                valid = values.dropna().to_numpy()
                colour = CONTROL_COLOUR if method in CONTROLS else "C0"
                _violin(ax, valid, place, colour)
                n_nan = len(values) - len(valid)
                if n_nan:
                    ax.text(
                        0.99, place + 0.47, f"{n_nan} of {len(values)} undefined",
                        transform=ax.get_yaxis_transform(), ha="right", va="bottom", fontsize=6,
                        color=CONTROL_COLOUR,
                        bbox={"fc": "white", "ec": "none", "alpha": 0.75, "pad": 0.4},
                    )  # fmt: skip
            names = [label(*pair) for pair in pairs] if at % columns == 0 else []
            ax.set_yticks(range(len(pairs)), names or [""] * len(pairs), fontsize=SMALL)
            ax.set_ylim(len(pairs) - 0.4, -0.6)
            ax.set_title(metric_label(metric, directions[metric], 40), fontsize=SMALL)
            ax.tick_params(axis="x", labelsize=TINY)
            ax.grid(axis="x", alpha=0.25)
        for ax in axes.flat[len(metrics) :]:
            ax.set_visible(False)


def _violin(ax: plt.Axes, values: np.ndarray, place: float, colour: str) -> None:
    if len(values) > 1 and np.ptp(values) > 0:
        parts = ax.violinplot(
            values, positions=[place], orientation="horizontal", widths=0.85, showextrema=False
        )
        bodies: Any = parts["bodies"]
        for body in bodies:
            body.set(facecolor=colour, alpha=0.35, edgecolor=colour)
    if len(values):
        low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
        ax.plot([low, high], [place, place], color=colour, lw=3, solid_capstyle="butt")
        ax.plot([median], [place], "o", ms=4, mfc="white", mec=colour)


def baseline_matrix(
    table: pd.DataFrame, path: Path, *, metric: str, limits: tuple[float, float] = (-1, 1)
) -> None:
    """Score by the baseline of the method (rows) and by the value that removes (columns).

    Parameters
    ----------
    table
        Rows with baseline, fill, value, ci_low, ci_high.
    path
        Where to.
    metric
        Name on the bar.
    limits
        Ends of the diverging colours.
    """
    rows, columns = list(dict.fromkeys(table["baseline"])), list(dict.fromkeys(table["fill"]))
    cells = {(row["baseline"], row["fill"]): row for row in rows_of(table)}
    nothing: dict[str, Any] = {"value": np.nan}
    values = np.array([[cells.get((a, b), nothing)["value"] for b in columns] for a in rows])
    with sheet(path, 1, 1, 1.25 * len(columns) + 2.8, 0.55 * len(rows) + 1.5) as axes:
        ax = axes[0, 0]
        image = ax.imshow(values, cmap="RdBu_r", vmin=limits[0], vmax=limits[1], aspect="auto")
        for (first, second), cell in cells.items():
            at, to = rows.index(first), columns.index(second)
            strong = abs(cell["value"] - np.mean(limits)) > 0.3 * np.ptp(limits)
            colour = "white" if strong else "black"
            low, high = cell["ci_low"], cell["ci_high"]
            ax.text(to, at - 0.12, _signed(f"{cell['value']:.2f}"), ha="center", va="center",
                    fontsize=SMALL + 1, color=colour)  # fmt: skip
            ax.text(to, at + 0.24, _signed(f"[{low:.2f}, {high:.2f}]"), ha="center",
                    va="center", fontsize=6.5, color=colour)  # fmt: skip
        ax.set_yticks(range(len(rows)), [label(name) for name in rows], fontsize=SMALL)
        ax.set_xticks(range(len(columns)), [label(name) for name in columns], fontsize=SMALL)
        ax.set_ylabel("baseline of the method", fontsize=SMALL)
        ax.set_xlabel("removed cells become", fontsize=SMALL)
        bar = ax.figure.colorbar(image, ax=ax, pad=0.02)
        bar.set_label(metric.replace("_", " "), fontsize=SMALL)
        bar.ax.tick_params(labelsize=TINY)


def completeness(table: pd.DataFrame, path: Path, *, tolerance: float = 0.01) -> None:
    """Completeness error against the number of steps, a line per path on logarithmic axes.

    Parameters
    ----------
    table
        Rows with `path`, n_steps, value (relative error), ci_low, ci_high.
    path
        Where to.
    tolerance
        Drawn as a line.
    """
    with sheet(path, 1, 1, 6.4, 3.8) as axes:
        ax = axes[0, 0]
        for at, (name, own) in enumerate(table.groupby("path", sort=False)):
            own = own.sort_values("n_steps")
            bars = np.nan_to_num(
                [own["value"] - own["ci_low"], own["ci_high"] - own["value"]]
            ).clip(min=0)
            ax.errorbar(
                own["n_steps"], own["value"], yerr=bars, capsize=2, lw=1.4, ms=4,
                color=f"C{at % 10}", marker=MARKERS[at % len(MARKERS)],
                ls=DASHES[at % len(DASHES)], label=label(str(name)),
            )  # fmt: skip
        ax.axhline(tolerance, color=CHANCE_COLOUR, ls=":", lw=1.2)
        ax.annotate(f"{100 * tolerance:g} %", (1, tolerance), xycoords=("axes fraction", "data"),
                    xytext=(3, 0), textcoords="offset points", va="center", fontsize=7)  # fmt: skip
        steps = sorted(table["n_steps"].unique())
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        ax.set_xticks(steps, [f"{step:g}" for step in steps])
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xlabel("steps of the path", fontsize=SMALL)
        ax.set_ylabel("|sum of map − (F(x) − F(b))| / |F(x) − F(b)|", fontsize=SMALL)
        ax.tick_params(labelsize=SMALL)
        ax.grid(alpha=0.25)
        ax.legend(fontsize=SMALL, frameon=False, loc="lower left")


def person_strip(
    table: pd.DataFrame, path: Path, *, metric: str, direction: str, groups: str = "persons"
) -> None:
    """Mean of each person by method, one person's dots joined; bar: mean over persons.

    Parameters
    ----------
    table
        Rows with method, baseline, person and value; with `group`, e.g. the sex, its colour.
    path
        Where to.
    metric, direction
        For the axis.
    groups
        Title of the legend.
    """
    pairs = _pairs(table)
    named = [str(name) for name in dict.fromkeys(table["group"])] if "group" in table else []
    places = {pair: place for place, pair in enumerate(pairs)}
    at = [places[pair] for pair in zip(table["method"], table["baseline"], strict=True)]
    table = table.assign(place=at)
    persons = list(dict.fromkeys(table["person"]))
    with sheet(path, 1, 1, 0.85 * len(pairs) + 1.8, 4.4) as axes:
        ax = axes[0, 0]
        for number, person in enumerate(persons):
            own = table[table["person"] == person].sort_values("place")
            group = named.index(str(own["group"].iloc[0])) if named else 0
            shift = 0.3 * ((number + 0.5) / len(persons) - 0.5)
            x = own["place"] + shift
            ax.plot(x, own["value"], color=f"C{group % 10}", lw=0.5, alpha=0.3, zorder=1)
            ax.plot(x, own["value"], MARKERS[group % len(MARKERS)], ms=4, alpha=0.75,
                    color=f"C{group % 10}", mew=0, zorder=2)  # fmt: skip
        for place in range(len(pairs)):
            mean = table[table["place"] == place]["value"].mean()
            ax.hlines(mean, place - 0.3, place + 0.3, color="black", lw=1.8)
        names = [label(*pair) for pair in pairs]
        ax.set_xticks(range(len(pairs)), [_broken(name, 12) for name in names], fontsize=TINY)
        ax.set_ylabel(metric_label(metric, direction, 40), fontsize=SMALL)
        ax.set_xlim(-0.6, len(pairs) - 0.4)
        ax.set_title(f"{len(persons)} persons; bar: their mean", fontsize=SMALL + 1)
        ax.tick_params(axis="y", labelsize=SMALL)
        ax.grid(axis="y", alpha=0.25)
        if named:
            handles = [_mark(f"C{at % 10}", MARKERS[at % len(MARKERS)], name)
                       for at, name in enumerate(named)]  # fmt: skip
            ax.legend(handles=handles, title=groups, fontsize=TINY, title_fontsize=TINY,
                      frameon=False, loc="best")  # fmt: skip


@contextmanager
def _panels(
    path: Path, kinds: Sequence[Kind], table: pd.DataFrame, *, columns: int = 3
) -> Iterator[list[tuple[plt.Axes, Kind, dict[tuple[str, str], Style]]]]:
    """Axes for each of `kinds` with the styles of the methods, and one legend below them."""
    pairs = _pairs(table)
    styles = {
        pair: (
            CONTROL_COLOUR if pair[0] in CONTROLS else f"C{at % 7}",  # C7 is the controls' grey
            DASHES[at // 7 % len(DASHES)] if pair[0] not in CONTROLS else DASHES[1 + at % 3],
            MARKERS[at % len(MARKERS)],
        )
        for at, pair in enumerate(pairs)
    }
    columns = min(columns, len(kinds))
    lines = -(-len(kinds) // columns)
    keys = min(3, len(pairs))
    height = 3.0 * lines + 0.2 * -(-len(pairs) // keys) + 0.3
    with sheet(path, lines, columns, max(3.7 * columns, 6.4), height) as axes:
        shown = list(zip(axes.flat, kinds, strict=False))
        yield [(ax, kind, styles) for ax, kind in shown]
        for ax in axes.flat[len(kinds) :]:
            ax.set_visible(False)
        for ax, _ in shown:
            ax.tick_params(labelsize=TINY)
            ax.grid(alpha=0.25)
        handles = [
            Line2D([], [], color=colour, ls=dash, marker=marker, ms=4, label=label(*pair))
            for pair, (colour, dash, marker) in styles.items()
        ]
        axes[0, 0].figure.legend(
            handles=handles, loc="outside lower center", ncols=keys, fontsize=TINY, frameon=False
        )


def _pairs(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Methods with their baselines, in the order of the rows."""
    return list(dict.fromkeys(zip(table["method"], table["baseline"], strict=True)))


def _of(wanted: Iterable[str], found: pd.Series) -> list[str]:
    """Those of `wanted` that are there."""
    there = set(found)
    return [name for name in wanted if name in there]


def _signed(text: str) -> str:
    return text.replace("-", "−")


def _broken(text: str, width: int) -> str:
    return "\n".join(textwrap.wrap(text, width, break_long_words=False))
