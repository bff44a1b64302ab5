"""Summaries in Markdown say what the tables say: value, interval, n, controls, undefined scores."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sonolens.report import summaries
from sonolens.stats import Agreement, Friedman

DIRECTIONS = {"faithfulness_patch": "higher", "mprt": "lower", "sparseness": "none"}


def table() -> pd.DataFrame:
    rows = [
        {"method": method, "baseline": baseline, "metric": metric, "value": value,
         "ci_low": value - 0.04, "ci_high": value + 0.04, "n_person": n_person, "n_item": 48,
         "n_score": n_score, "n_nan": 48 - n_score, "rank": rank}
        for metric in DIRECTIONS
        for rank, (method, baseline, value, n_person, n_score) in enumerate(
            [("ig", "silence", 0.71, 6, 48), ("energy", "silence", 0.5, 6, 48),
             ("random", "none", 0.02, 6, 48), ("saliency", "none", np.nan, 0, 0)], start=1)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def board(n_person: int = 6) -> pd.DataFrame:
    own = table()[lambda rows: rows["metric"] == "mprt"]
    return own.assign(
        study="digits", corpus="words", cell="audio-64", variant="trained", metric="pointing_game",
        metric_params="{}", direction="higher", n_ranked=4, chance=0.13,
        difference=[0.21, np.nan, np.nan, np.nan], difference_ci_low=[0.1, *3 * [np.nan]],
        difference_ci_high=[0.3, *3 * [np.nan]], rank_biserial=[1.0, *3 * [np.nan]],
        p=[0.03125, *3 * [np.nan]], p_holm=[0.0625, *3 * [np.nan]],
        smallest_p_holm=[0.0625, *3 * [np.nan]], n_person_paired=[n_person, *3 * [np.nan]],
        beats_energy=["few", None, None, None], share_nan=[0, 0, 0, 1.0],
    )  # fmt: skip


def test_leaderboard_says_who_leads_beside_controls_chance_and_reach():
    text = summaries.leaderboard(board(), level=0.9)
    assert text.endswith("\n")
    for line in (
        "## words, audio-64 (digits)",
        "### pointing game (higher is better)",
        "- 6 persons, 48 items.",
        "- Best method: ig, silence, 0.71 [0.67, 0.75], rank 1 of 4.",
        "- Control energy, silence: 0.50 [0.46, 0.54], rank 2.",
        "- Control random: 0.02 [-0.02, 0.06], rank 3.",
        "- Chance: 0.13.",
        "- Methods tested: 1 (1 too few persons); with 6 persons the smallest corrected p that can "
        "be reached is 0.062.",
        "| 1 | ig, silence | 0.71 [0.67, 0.75] | 0.21 [0.10, 0.30] | 1.00 | 0.062 "
        "| too few persons | 0 % |",
        "| 4 | saliency | – | – | – | – | – | 100 % |",
    ):
        assert line in text.splitlines()
    assert "90 % intervals" in text


def test_leaderboard_without_truth_says_so():
    text = summaries.leaderboard(board().iloc[:0], level=0.95)
    assert "No corpus with exact truth" in text
    unknown = summaries.leaderboard(board().assign(chance=np.nan), level=0.95)
    assert "- Chance: not reported." in unknown


def test_comparison_of_methods():
    tests = {
        "mprt": Friedman(9.0, 0.012, np.array([1, 2, 3.0]), 1.4, 5, 1),
        "faithfulness_patch": Friedman(np.nan, np.nan, np.array([1.0]), np.nan, 1, 0),
    }
    text = summaries.method_comparison(
        table(), DIRECTIONS, level=0.95, title="audio-64", tests=tests,
        agreement=Agreement(0.8, 0.01, 2, 4), chance={"faithfulness_patch": 0.0},
    )  # fmt: skip
    assert text.startswith("# audio-64\n\n6 persons, 48 items; means over persons with 95 %")
    assert (
        "- **faithfulness patch** (higher is better): best is ig, silence with 0.71 [0.67, 0.75] "
        "(n = 6); controls: energy, silence 0.50 [0.46, 0.54], random 0.02 [-0.02, 0.06]; chance "
        "0.00; 48 of 192 scores undefined." in text
    )
    assert "Friedman's test over 5 persons: p = 0.012; mean ranks further apart than 1.40" in text
    assert "Friedman's test is undefined for 1 persons." in text
    assert "Kendall's W = 0.80, p = 0.01." in text
    assert "| ig, silence | 0.71 [0.67, 0.75], rank 1 | 0.71 [0.67, 0.75], rank 1 |" in text
    assert "sparseness" not in text  # has no better end
    plain = summaries.method_comparison(table(), DIRECTIONS, level=0.95)
    assert "Friedman" not in plain
    assert "chance" not in plain


def test_comparison_of_baselines():
    rows = table().assign(method="ig", baseline=["silence", "legacy_zero", "noise", "mean"] * 3)
    own = {"method": "ig", "baseline": "legacy_zero", "metric": "mprt", "difference": -0.2,
           "difference_ci_low": -0.3, "difference_ci_high": -0.1, "rank_biserial": -1.0,
           "p_holm": 0.09375, "smallest_p": 0.03125, "n_person_paired": 6}  # fmt: skip
    text = summaries.baselines(
        rows, pd.DataFrame([own]), DIRECTIONS, reference="silence", level=0.95
    )
    assert "the baseline silence of the same method" in text
    assert "With 6 persons no single test can reach a p below 0.031." in text
    assert (
        "| mprt | ig | legacy zero | 0.50 [0.46, 0.54] | -0.20 [-0.30, -0.10] | -1.00 | 0.094 |"
        in text
    )
    assert "| mprt | ig | silence | 0.71 [0.67, 0.75] | – | – | – |" in text


@pytest.mark.parametrize("modality", [None, "audio"])
def test_resolution_has_a_column_per_size(modality):
    rows = pd.concat([table().assign(size=32), table().assign(size=128, value=0.9)])
    rows = rows.assign(modality=modality) if modality else rows
    text = summaries.resolution(rows, DIRECTIONS, level=0.95)
    assert "| metric | modality | method | 32 | 128 |" in text
    assert (
        f"| mprt | {modality or '–'} | ig, silence | 0.71 [0.67, 0.75] (n = 6) | 0.90 [0.67, 0.75] "
        "(n = 6) |" in text
    )
    methods = [line.split(" | ")[2] for line in text.splitlines() if line.startswith("| mprt")]
    assert methods == ["ig, silence", "saliency", "energy, silence", "random"]
