"""What pictures of comparisons show: values, order, labels, legends; not their pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from sonolens.report import comparisons

METHODS = {("ig", "silence"): 0.6, ("saliency", "none"): 0.3, ("energy", "silence"): 0.5,
           ("random", "none"): 0.1}  # fmt: skip
DIRECTIONS = {"faithfulness_patch": "higher", "mprt": "lower"}


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., plt.Figure]]:
    """Draw twice, which gives equal bytes; the figure is left open to look at."""
    kept: list[plt.Figure] = []
    close = plt.close
    monkeypatch.setattr(plt, "close", kept.append)

    def draw(make: Callable[[Path], None]) -> plt.Figure:
        first, second = tmp_path / "a.png", tmp_path / "b.png"
        make(first)
        make(second)
        assert first.read_bytes() == second.read_bytes()
        assert first.read_bytes().startswith(b"\x89PNG")
        return kept[-1]

    yield draw
    for figure in kept:
        close(figure)


def interval(value: float) -> dict[str, float]:
    return {"value": value, "ci_low": value - 0.05, "ci_high": value + 0.05}


def board(**changes: object) -> pd.DataFrame:
    ranks = {pair: rank for rank, pair in enumerate(
        sorted(METHODS, key=lambda pair: -METHODS[pair]), start=1)}  # fmt: skip
    rows = [
        {"study": "digits", "corpus": "formant_words", "cell": "audio-64", "variant": variant,
         "method": method, "baseline": baseline, "metric": "relevance_rank_accuracy",
         "direction": "higher", "n_person": 6, "n_item": 48, "chance": 0.13,
         "rank": ranks[method, baseline], "beats_energy": verdict if variant == "trained" else None,
         "share_nan": 0.2 if method == "saliency" else 0.0}
        | interval(level if variant == "trained" else 0.1)
        for variant in ("trained", "permuted")
        for ((method, baseline), level), verdict in zip(
            METHODS.items(), ("yes", "few", None, None), strict=True)
    ]  # fmt: skip
    return pd.DataFrame(rows).assign(**changes)


def texts(ax: plt.Axes, axis: str = "y") -> list[str]:
    return [text.get_text() for text in getattr(ax, f"get_{axis}ticklabels")()]


def test_leaderboard_has_the_best_on_top_and_its_controls_as_lines(drawn):
    figure = drawn(lambda path: comparisons.leaderboard(board(), path, level=0.9))
    (ax,) = figure.axes
    assert texts(ax) == ["ig, silence", "energy, silence", "saliency", "random"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]
    verdicts = [text.get_text() for text in ax.child_axes[0].get_yticklabels()]
    assert verdicts == ["above energy", "", "too few persons, 20 % undefined", ""]
    lines = sorted(float(line.get_xdata()[0]) for line in ax.lines if line.get_linestyle() != "None"
                   and len(set(line.get_xdata())) == 1 and len(line.get_xdata()) == 2)  # fmt: skip
    assert lines == pytest.approx([0.1, 0.13, 0.5])  # random, chance, energy
    assert "6 persons, 48 items" in ax.get_title()
    assert ax.get_xlabel() == "relevance rank accuracy\N{NO-BREAK SPACE}↑"
    (legend,) = figure.legends
    said = [text.get_text() for text in legend.get_texts()]
    assert said[0] == "method, 90 % interval over persons"
    assert "model of shuffled labels" in said
    hollow = [bars.lines[0] for bars in ax.containers
              if bars.lines[0].get_markerfacecolor() == "white"]  # fmt: skip
    assert len(hollow) == len(METHODS)


def test_leaderboard_has_a_panel_per_corpus_and_bears_gaps(drawn):
    table = pd.concat([board(), board(corpus="other", chance=np.nan), board(study="enhance")])
    table.loc[table["method"] == "ig", ["value", "ci_low", "ci_high"]] = np.nan
    figure = drawn(lambda path: comparisons.leaderboard(table, path, level=0.95))
    assert sum(ax.get_visible() for ax in figure.axes) == 3
    empty = drawn(lambda path: comparisons.leaderboard(board().iloc[:0], path, level=0.95))
    assert "no corpus with exact truth" in empty.axes[0].texts[0].get_text()


def ranked() -> pd.DataFrame:
    rows = [
        {"method": method, "baseline": baseline, "metric": metric,
         "rank": rank + 1.5 * (metric == "mprt"),
         "value": np.nan if (method, metric) == ("random", "mprt") else 0.5}
        for metric in DIRECTIONS
        for rank, (method, baseline) in enumerate(METHODS, start=1)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_heat_map_says_every_rank_and_marks_what_has_no_score(drawn):
    figure = drawn(lambda path: comparisons.rank_heatmap(ranked(), DIRECTIONS, path))
    ax, bar = figure.axes
    assert texts(ax) == ["ig, silence", "saliency", "energy, silence", "random"]
    assert texts(ax, "x") == ["faithfulness\npatch\N{NO-BREAK SPACE}↑", "mprt\N{NO-BREAK SPACE}↓"]
    said = [text.get_text() for text in ax.texts]
    assert said == ["1", "2.5", "2", "3.5", "3", "4.5", "4", "5.5 –"]
    assert "1 = best" in bar.get_ylabel()
    assert bar.get_ylim()[0] > bar.get_ylim()[1]


@pytest.mark.parametrize(
    ("ranks", "difference", "runs"),
    [
        ([1.0, 1.5, 3.0, 3.4], 0.5, [(0, 1), (2, 3)]),
        ([1.0, 1.5, 2.0, 3.4], 1.0, [(0, 2)]),
        ([1.0, 1.6, 2.2, 2.8], 0.7, [(0, 1), (1, 2), (2, 3)]),
        ([1.0, 3.0], 0.5, []),
        ([1.0, 1.1], np.nan, []),
    ],
)
def test_bars_join_what_does_not_differ(ranks, difference, runs):
    assert comparisons._joined(np.array(ranks), difference) == runs


def test_critical_difference_names_all_methods(drawn):
    ranks = {"ig": 1.2, "saliency": 2.0, "random": 2.8}
    figure = drawn(lambda path: comparisons.critical_difference(
        ranks, 1.0, path, n_person=9, p=0.004, metric="pointing_game"))  # fmt: skip
    (ax,) = figure.axes
    said = [text.get_text() for text in ax.texts]
    assert {"ig (1.2)", "saliency (2.0)", "random (2.8)", "critical difference 1.00"} <= set(said)
    assert (
        ax.get_title()
        == "pointing game: mean ranks over 9 persons; Friedman's test: p = 0.004; Nemenyi's at 0.05"
    )
    bars = [line for line in ax.lines if line.get_linewidth() > 3]
    assert len(bars) == 2
    few = drawn(lambda path: comparisons.critical_difference(
        ranks, np.nan, path, n_person=1, p=np.nan))  # fmt: skip
    assert "undefined" in few.axes[0].get_title()


def test_resolution_has_a_panel_per_metric_and_modality(drawn):
    rows = [
        {"modality": modality, "size": size, "method": method, "baseline": baseline,
         "metric": metric} | interval(level + size / 1000)
        for modality, sizes in (("audio", (32, 64, 128)), ("image", (28, 32)))
        for size in sizes
        for metric in DIRECTIONS
        for (method, baseline), level in METHODS.items()
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    figure = drawn(lambda path: comparisons.resolution_lines(table, DIRECTIONS, path))
    assert len(figure.axes) == 4
    assert texts(figure.axes[0], "x") == ["32", "64", "128"]
    assert texts(figure.axes[1], "x") == ["28", "32"]
    assert figure.axes[1].get_title().endswith("image")
    assert figure.legends[0].get_texts()[0].get_text() == "ig, silence"
    alone = table[table["modality"] == "audio"].drop(columns="modality")
    figure = drawn(lambda path: comparisons.resolution_lines(alone, DIRECTIONS, path))
    assert len(figure.axes) == 2
    assert figure.axes[0].get_title() == "faithfulness patch\N{NO-BREAK SPACE}↑"


def test_curves_have_bands_and_every_method_its_own_look(drawn):
    rows = [
        {"curve": curve, "method": method, "baseline": baseline, "x": x, "y": level * x,
         "ci_low": level * x - 0.05, "ci_high": level * x + 0.05}
        for curve in ("deletion", "insertion", "mprt")
        for (method, baseline), level in METHODS.items()
        for x in np.linspace(0, 1, 33)
    ]  # fmt: skip
    figure = drawn(lambda path: comparisons.curve_bands(
        pd.DataFrame(rows), comparisons.CURVE_HEADS, path))  # fmt: skip
    assert [ax.get_title().split(":")[0] for ax in figure.axes] == [
        "deletion", "insertion", "model parameter randomisation"]  # fmt: skip
    for ax in figure.axes:
        assert len(ax.collections) == len(METHODS)
        assert ax.get_xlabel()
        assert ax.get_ylabel()
    looks = {(line.get_color(), line.get_linestyle(), line.get_marker())
             for line in figure.axes[0].lines}  # fmt: skip
    assert len(looks) == len(METHODS)


def test_looks_differ_for_many_methods(drawn):
    rows = [
        {"curve": "mprt", "method": f"m{at}", "baseline": "none", "x": x, "y": x,
         "ci_low": x, "ci_high": x}
        for at in range(26)
        for x in (0.0, 1.0)
    ]  # fmt: skip
    figure = drawn(lambda path: comparisons.curve_bands(
        pd.DataFrame(rows), comparisons.CURVE_HEADS, path))  # fmt: skip
    looks = {(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines}
    assert len(looks) == 26


def test_violins_count_what_is_undefined(drawn, generator):
    rows = [
        {"method": method, "baseline": baseline, "metric": metric,
         "score": np.nan if method == "saliency" and item < 3 else level + generator.normal(0, 0.1)}
        for metric in DIRECTIONS
        for (method, baseline), level in METHODS.items()
        for item in range(10)
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    table.loc[table["method"] == "random", "score"] = 0.25  # no spread
    figure = drawn(lambda path: comparisons.violins(table, DIRECTIONS, path))
    ax = figure.axes[0]
    assert texts(ax) == ["ig, silence", "saliency", "energy, silence", "random"]
    assert [text.get_text() for text in ax.texts] == ["3 of 10 undefined"]
    assert len(ax.collections) == 3
    medians = [line.get_xdata()[0] for line in ax.lines if line.get_marker() == "o"]
    own = table[(table["metric"] == "faithfulness_patch") & (table["method"] == "ig")]
    assert medians[0] == pytest.approx(own["score"].median())


def test_baseline_matrix_says_value_and_interval(drawn):
    rows = [
        {"baseline": baseline, "fill": fill} | interval(0.8 if baseline == fill else -0.4)
        for baseline in ("silence", "legacy_zero")
        for fill in ("silence", "legacy_zero", "noise_floor")
        if (baseline, fill) != ("silence", "noise_floor")
    ]
    figure = drawn(lambda path: comparisons.baseline_matrix(
        pd.DataFrame(rows), path, metric="faithfulness_patch"))  # fmt: skip
    ax, bar = figure.axes
    said = [text.get_text() for text in ax.texts]
    assert said[:4] == ["0.80", "[0.75, 0.85]", "−0.40", "[−0.45, −0.35]"]
    assert len(said) == 2 * 5  # one pair was not measured
    assert texts(ax) == ["silence", "legacy zero"]
    assert ax.images[0].get_clim() == (-1, 1)
    assert bar.get_ylabel() == "faithfulness patch"


def test_completeness_is_drawn_on_logarithmic_axes(drawn):
    rows = [
        {"path": name, "n_steps": n, "value": a / n, "ci_low": a / n / 2, "ci_high": 2 * a / n}
        for name, a in (("straight_line", 0.5), ("power_uniform", 5.0))
        for n in (8, 32)
    ]
    figure = drawn(lambda path: comparisons.completeness(pd.DataFrame(rows), path))
    (ax,) = figure.axes
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert texts(ax, "x") == ["8", "32"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "straight line", "power uniform"]  # fmt: skip
    assert ax.texts[0].get_text() == "1 %"


def test_strip_joins_the_dots_of_a_person(drawn, generator):
    rows = [
        {"method": method, "baseline": baseline, "person": f"p{person}",
         "group": "female" if person < 2 else "male", "value": level + generator.normal(0, 0.05)}
        for (method, baseline), level in METHODS.items()
        for person in range(5)
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    figure = drawn(lambda path: comparisons.person_strip(
        table, path, metric="sparseness", direction="higher", groups="sex"))  # fmt: skip
    (ax,) = figure.axes
    assert "5 persons" in ax.get_title()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["female", "male"]
    joined = [line for line in ax.lines if line.get_linewidth() == 0.5]
    assert len(joined) == 5
    assert all(len(line.get_xdata()) == len(METHODS) for line in joined)
    means = [collection.get_segments()[0][0][1] for collection in ax.collections]
    assert means == pytest.approx(list(
        table.groupby(["method", "baseline"], sort=False)["value"].mean()))  # fmt: skip
    alone = drawn(lambda path: comparisons.person_strip(
        table.drop(columns="group"), path, metric="sparseness", direction="higher"))  # fmt: skip
    assert alone.axes[0].get_legend() is None
