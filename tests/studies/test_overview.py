"""Methods against exact truth on scores made by hand: chance, energy, ranks, few persons."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from sonolens import cli, stages
from sonolens.explain import registry as explain_registry
from sonolens.params import Common, Runtime, StageParams
from sonolens.pipeline import StageFiles, load_pipeline
from sonolens.score import registry as score_registry
from sonolens.studies.overview import report
from sonolens.studies.overview.leaderboard import (
    COLUMNS,
    SHARE_METRICS,
    OverviewError,
    leaderboard,
    summary_metrics,
)
from sonolens.studies.overview.params import Params, Report
from sonolens.track import Record

ROOT = Path(__file__).parents[2]
VALUES = yaml.safe_load((ROOT / "params.yaml").read_text())
RRA = "relevance_rank_accuracy"
# Level of each method; energy is best at its first baseline.
LEVELS = {
    ("good", "none"): 0.8,
    ("like_energy", "none"): 0.5,
    ("bad", "silence"): 0.2,
    ("energy", "silence"): 0.5,
    ("energy", "loud"): 0.1,
    ("random", "none"): 0.12,
}
SUMMARIES = {"digits": {f"xai_{RRA}_chance": 0.125, f"xai_{RRA}_chance_audio-32": 0.25}}


def section(**changes: object) -> Report:
    return Report(**VALUES["overview"]["report"] | {"n_resamples": 100} | changes)


def scores(
    n_person: int = 8, variants: tuple[str, ...] = ("trained", "permuted"), metric: str = RRA
) -> pd.DataFrame:
    """Scores of three items per person; persons differ more than methods."""
    generator = np.random.default_rng(0)
    rows = [
        {
            "study": "digits", "cell": "audio-64", "protocol": "person", "fold": person % 2,
            "model_seed": seed, "variant": variant, "method": method, "baseline": baseline,
            "target": "predicted", "metric": metric, "fill": "none",
            "metric_params": '{"mask": null}',
            "item_id": f"p{person}_{item}", "person_id": f"p{person}", "corpus": "words",
            "score": level * (1 if variant == "trained" else 0.2) + person / 10
            + (generator.normal(0, 0.01) if method != "like_energy"
               else 0.01 * (-1) ** person * (person + 1)),
        }
        for variant in variants
        for (method, baseline), level in LEVELS.items()
        for seed in (0, 1)
        for person in range(n_person)
        for item in range(3)
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    if metric == RRA:
        table.loc[table["method"].eq("bad") & table["item_id"].eq("p0_0"), "score"] = np.nan
    return table


def board(table: pd.DataFrame, **changes: object) -> pd.DataFrame:
    return leaderboard(table, SUMMARIES, section(**changes), seed=0)


def row(table: pd.DataFrame, method: str, baseline: str = "none", **where: str) -> pd.Series:
    wanted = {"variant": "trained", "method": method, "baseline": baseline} | where
    (found,) = table[(table[list(wanted)] == pd.Series(wanted)).all(axis=1)].to_dict("records")
    return pd.Series(found)


def test_every_method_stands_beside_chance_random_energy_and_shuffled_labels():
    table = board(scores())
    assert list(table.columns) == list(COLUMNS)
    assert set(table["variant"]) == {"trained", "permuted"}
    assert len(table) == 2 * len(LEVELS)
    assert (table["chance"] == 0.125).all()
    assert (table["direction"] == "higher").all()
    good = row(table, "good")
    assert (good["n_person"], good["n_item"], good["n_ranked"]) == (8, 24, 6)
    assert good["ci_low"] < good["value"] < good["ci_high"]
    assert good["rank"] == 1
    assert table.iloc[0]["method"] == "good"
    trained = table[table["variant"] == "trained"]
    assert trained["rank"].tolist() == sorted(trained["rank"])
    assert row(table, "bad", "silence")["share_nan"] == pytest.approx(2 / 48)


def test_methods_are_tested_against_the_best_energy_and_controls_are_not():
    table = board(scores())
    good, bad, same = row(table, "good"), row(table, "bad", "silence"), row(table, "like_energy")
    assert good["energy_baseline"] == "silence"
    assert good["difference"] == pytest.approx(0.3, abs=0.02)
    # Persons differ by 0.7, pairs by 0.02.
    assert good["difference_ci_high"] - good["difference_ci_low"] < 0.05
    assert (good["beats_energy"], bad["beats_energy"], same["beats_energy"]) == (
        "yes",
        "no",
        "open",
    )
    # All eight differ the same way: 2 / 2^8, of three tests.
    assert good["p"] == pytest.approx(2 / 256)
    assert good["p_holm"] == good["smallest_p_holm"] == pytest.approx(3 * 2 / 256)
    assert (good["rank_biserial"], bad["rank_biserial"]) == (1, -1)
    assert bad["n_person_paired"] == 8
    for control in (("energy", "silence"), ("energy", "loud"), ("random", "none")):
        own = row(table, *control)
        assert pd.isna(own["beats_energy"])
        assert math.isnan(own["p"])
        assert own["rank"] > 0


def test_few_persons_decide_nothing_and_say_so():
    table = board(scores(n_person=4))
    good = row(table, "good")
    assert good["beats_energy"] == "few"
    assert good["smallest_p_holm"] == pytest.approx(3 * 2 / 16)
    assert set(table["beats_energy"].dropna()) == {"few"}


def test_lower_can_be_better():
    table = board(scores(metric="average_sensitivity"), metrics={"average_sensitivity": "lower"})
    assert row(table, "energy", "loud")["rank"] == 1
    assert row(table, "good")["energy_baseline"] == "loud"
    assert row(table, "good")["difference"] < 0
    assert row(table, "good")["beats_energy"] == "no"
    assert math.isnan(row(table, "good")["chance"])  # of this metric nobody knows it


def test_a_method_without_scores_is_ranked_last():
    table = scores()
    table.loc[table["method"] == "good", "score"] = np.nan
    good = row(board(table), "good")
    assert (good["rank"], good["share_nan"], good["n_person"]) == (6, 1, 0)
    assert math.isnan(good["value"])
    assert pd.isna(good["beats_energy"])


def test_only_what_is_asked_for_is_compared():
    table = pd.concat([scores(), scores(metric="sparseness"), scores().assign(protocol="leaky")])
    assert set(board(table)["metric"]) == {RRA}
    assert len(board(table)) == len(board(scores()))
    nothing = board(scores(metric="sparseness"))
    assert nothing.empty
    assert list(nothing.columns) == list(COLUMNS)
    without = board(scores()[lambda rows: rows["method"] != "energy"])
    assert without["beats_energy"].isna().all()


def test_each_corpus_and_cell_is_a_board_of_its_own():
    more = scores(variants=("trained",)).assign(corpus="more", cell="audio-32")
    table = board(pd.concat([scores(variants=("trained",)), more]))
    own = table[table["corpus"] == "more"]
    assert own["rank"].tolist() == [1, 2, 3, 4, 5, 6]
    assert (own["chance"] == 0.25).all()  # of its cell
    # A share of a widened truth is not the truth's share.
    wide = scores(metric="pointing_game").assign(metric_params='{"tolerance_cells": 2}')
    assert board(wide)["chance"].isna().all()


def test_scores_of_unknown_items_are_refused():
    table = scores()
    table.loc[5, "corpus"] = None
    with pytest.raises(OverviewError, match=r"is not in data/digits/prepare/manifest\.parquet"):
        board(table)


def test_summary_is_flat_and_has_intervals_and_counts():
    table = board(pd.concat([scores(), scores(metric="pointing_game")]))
    metrics = summary_metrics(table, section())
    name = f"xai_{RRA}_good_digits_words_audio-64"
    assert metrics[name] == row(table, "good", metric=RRA)["value"]
    assert metrics[f"{name}_ci_low"] < metrics[name] < metrics[f"{name}_ci_high"]
    assert f"xai_{RRA}_bad_silence_digits_words_audio-64_permuted" in metrics
    assert metrics[f"xai_{RRA}_chance_digits_words_audio-64"] == 0.125
    assert metrics["n_person_digits_words_audio-64"] == 8
    assert metrics["n_method_tested_digits_words_audio-64"] == 3
    verdicts = {end: metrics[f"n_method_beats_energy_{end}_digits_words_audio-64"]
                for end in ("yes", "no", "open", "few")}  # fmt: skip
    assert verdicts == {"yes": 1, "no": 1, "open": 1, "few": 0}
    assert metrics["metric_agreement_w_digits_words_audio-64"] > 0.9
    assert all(isinstance(value, (int, float)) for value in metrics.values())
    assert summary_metrics(board(scores(metric="mprt")), section())["n_row"] == 0


def test_params_agree_with_the_registries():
    """They are typed there so that the stage need not import torch."""
    asked = Params(**VALUES["overview"]).report
    for metric, direction in asked.metrics.items():
        assert score_registry.info(metric).direction == direction
    truth = {name for name, info in score_registry.METRICS.items() if "mask" in info.needs}
    assert set(SHARE_METRICS) <= truth
    controls = {name for name, info in explain_registry.METHODS.items() if info.control}
    assert {asked.energy, *asked.controls} == controls


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with what `digits` leaves behind."""
    for name in ("dvc.yaml", "params.yaml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    table = scores(variants=("trained", "permuted"))
    for folder in ("data/digits/prepare", "data/digits/score", "metrics/digits"):
        (tmp_path / folder).mkdir(parents=True)
    pictures = table.assign(cell="image-32", metric="sparseness", item_id="picture")
    pd.concat([table, pictures]).drop(columns="corpus").to_parquet(
        tmp_path / "data/digits/score/scores.parquet"
    )
    items = table[["item_id", "corpus"]].drop_duplicates()
    items.to_parquet(tmp_path / "data/digits/prepare/manifest.parquet")
    (tmp_path / "metrics/digits/summary.json").write_text(json.dumps(SUMMARIES["digits"]))
    return tmp_path


def draw(root: Path, staging: Path) -> None:
    spec = load_pipeline(root)["overview-report"]
    values = VALUES["overview"] | {"report": section().model_dump()}
    params = StageParams(Params(**values), Common(seed=0), Runtime(**VALUES["runtime"]))
    report.run(params, StageFiles(root, spec, staging), Record())


def test_the_stage_writes_its_files_the_same_every_time(root, tmp_path):
    draw(root, tmp_path / "a")
    draw(root, tmp_path / "b")
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*"))
    names = {path.as_posix() for path in files}
    pages = "plots/overview/pages/report"
    assert names == {
        "metrics/overview/leaderboard.csv", "metrics/overview/summary.json",
        f"{pages}/leaderboard.png", f"{pages}/leaderboard_summary.md",
        f"{pages}/ranks_digits_words_audio-64.png",
    }  # fmt: skip
    for path in files:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes()
    table = pd.read_csv(tmp_path / "a/metrics/overview/leaderboard.csv")
    assert list(table.columns) == list(COLUMNS)
    assert not {"item_id", "person_id"} & set(table.columns)
    text = (tmp_path / "a" / pages / "leaderboard_summary.md").read_text()
    assert "## words, audio-64 (digits)" in text
    assert "8 persons, 24 items" in text
    assert "model of shuffled labels" in text


def test_without_truth_the_stage_says_so(root, tmp_path):
    path = root / "data/digits/score/scores.parquet"
    pd.read_parquet(path).query("metric == 'sparseness'").to_parquet(path)
    draw(root, tmp_path / "a")
    assert len(pd.read_csv(tmp_path / "a/metrics/overview/leaderboard.csv")) == 0
    assert json.loads((tmp_path / "a/metrics/overview/summary.json").read_text())["n_corpus"] == 0


def test_the_stage_loads_no_torch():
    code = "import sys, sonolens.studies.overview.report; print('torch' in sys.modules)"
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={"PYTHONPATH": str(ROOT / "src"), "PATH": ""},
    )  # fmt: skip
    assert said.stdout.strip() == "False"


def test_figures_for_print_leave_the_results_alone(root, monkeypatch):
    (root / "src").symlink_to(ROOT / "src")
    monkeypatch.chdir(root)
    before = sorted(path for path in root.rglob("*") if path.is_file())
    command = ["figures", "--output-dir", "print", "--study", "overview"]
    done = CliRunner().invoke(cli.app, command)
    assert done.exit_code == 0, done.output
    added = {path.name for path in (root / "print/overview").iterdir()}
    names = ("leaderboard", "ranks_digits_words_audio-64")
    assert added == {f"{name}.{kind}" for name in names for kind in ("pdf", "png")}
    assert "print/overview/leaderboard.pdf" in done.output
    left = sorted(path for path in root.rglob("*") if path.is_file())
    assert [path for path in left if "print" not in path.parts] == before

    with pytest.raises(stages.StageError, match="no stage voice-report; it has digits-report"):
        stages.redraw(root, "voice", root / "print")
    (root / "metrics/digits/summary.json").unlink()
    with pytest.raises(stages.StageError, match="missing input metrics/digits/summary.json"):
        stages.redraw(root, "overview", root / "print")


def test_a_study_for_print_needs_a_folder():
    done = CliRunner().invoke(cli.app, ["figures", "--study", "overview"])
    assert done.exit_code == 2
    assert "--output-dir" in done.output
