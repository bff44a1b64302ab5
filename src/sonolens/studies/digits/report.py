"""Predictions and scores to the summary, small tables, curves and pictures."""

from __future__ import annotations

import pandas as pd

from sonolens.params import StageParams
from sonolens.pipeline import StageFiles
from sonolens.report import figures
from sonolens.score import registry
from sonolens.store import ArrayStore, read_parquet, write_csv, write_json
from sonolens.studies.digits import headline, summary
from sonolens.studies.digits.adapter import DigitsAdapter
from sonolens.studies.digits.params import Params
from sonolens.track import Record

PAGES = "plots/digits/pages/report"


def run(params: StageParams[Params], files: StageFiles, record: Record) -> None:
    """Write summary, tables, curves and pictures."""
    predictions = read_parquet(files.dep("data/digits/evaluate/predictions.parquet"))
    scores = read_parquet(files.dep("data/digits/score/scores.parquet"))
    history = pd.read_csv(files.dep("plots/digits/history.csv"))
    accuracy, folds = summary.accuracies(params, predictions)
    xai = summary.score_table(params, scores)
    adapter = DigitsAdapter(files.root, params.study, params.common.seed)
    store = ArrayStore(files.dep("data/digits/explain"))
    chance = summary.chance_metrics(adapter, store)
    write_json(
        files.out("metrics/digits/summary.json"),
        accuracy | summary.xai_metrics(xai, scores) | chance,
    )
    write_csv(files.out("metrics/digits/folds.csv"), folds)
    write_csv(files.out("metrics/digits/scores.csv"), xai)
    write_csv(files.out("metrics/digits/seeds.csv"), summary.seed_table(scores))
    write_csv(files.out("plots/digits/mprt.csv"), summary.mprt_curves(files))

    pages = files.out(PAGES)
    pages.mkdir(parents=True)
    figures.training_curves(history, pages / "training_curves.png")
    shown = headline.headline(params, predictions)
    figures.confusion_matrix(shown, list(adapter.data.classes), pages / "confusion.png")
    directions = {name: info.direction for name, info in registry.METRICS.items()}
    figures.score_table(xai, directions, pages / "scores.png")
    for name, grid in summary.grids(params, adapter, store, shown).items():
        figures.attribution_grid(grid, pages / f"{name}.png")
