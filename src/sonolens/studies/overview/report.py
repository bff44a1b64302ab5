"""Scores of other studies to the leaderboard of methods against exact truth."""

from __future__ import annotations

from typing import Any

import pandas as pd

from sonolens.params import StageParams
from sonolens.pipeline import StageFiles
from sonolens.report import comparisons, summaries
from sonolens.store import read_json, read_parquet, whole, write_csv, write_json
from sonolens.studies.overview.leaderboard import leaderboard, summary_metrics
from sonolens.studies.overview.params import Params
from sonolens.track import Record

PAGES = "plots/overview/pages/report"


def run(params: StageParams[Params], files: StageFiles, record: Record) -> None:
    """Write the leaderboard, its summary and its picture."""
    section = params.study.report
    scores = pd.concat([_scores(files, study) for study in section.studies])
    told = {study: read_json(files.dep(f"metrics/{study}/summary.json"))
            for study in section.studies}  # fmt: skip
    board = leaderboard(scores, told, section, seed=params.common.seed)
    write_csv(files.out("metrics/overview/leaderboard.csv"), board)
    write_json(files.out("metrics/overview/summary.json"), summary_metrics(board, section))

    pages = files.out(PAGES)
    pages.mkdir(parents=True)
    first = next(iter(section.metrics))
    controls = [section.energy, *section.controls]
    shown: dict[str, Any] = {"level": section.level, "controls": controls}
    comparisons.leaderboard(board[board["metric"] == first], pages / "leaderboard.png", **shown)
    trained = board[board["variant"] == "trained"]
    for (study, corpus, cell), table in trained.groupby(["study", "corpus", "cell"]):
        name = f"ranks_{study}_{corpus}_{cell}.png"
        comparisons.rank_heatmap(table, section.metrics, pages / name)
    with whole(pages / "leaderboard_summary.md", "w") as stream:
        stream.write(summaries.leaderboard(board, **shown))


def _scores(files: StageFiles, study: str) -> pd.DataFrame:
    """Scores of a study with the corpus of each item."""
    manifest = read_parquet(files.dep(f"data/{study}/prepare/manifest.parquet"))
    scores = read_parquet(files.dep(f"data/{study}/score/scores.parquet"))
    # Items of other manifests, e.g. pictures, have no exact truth and no score of it.
    return scores.merge(manifest[["item_id", "corpus"]], on="item_id", how="left")
