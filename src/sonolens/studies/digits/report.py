"""Predictions and scores to the summary, small tables, curves and pictures."""

from __future__ import annotations

import pandas as pd

from sonolens.params import StageParams
from sonolens.pipeline import StageFiles
from sonolens.report import figures
from sonolens.report.listening import write as write_page
from sonolens.score import classification, registry, tables
from sonolens.store import ArrayStore, read_parquet, write_csv, write_json
from sonolens.studies.digits import comparison, listening, pictures, summary
from sonolens.studies.digits.adapter import DigitsAdapter
from sonolens.studies.digits.cells import cell_names
from sonolens.studies.digits.headline import bootstrap_options, headline
from sonolens.studies.digits.params import Params
from sonolens.track import Record

PAGES = "plots/digits/pages/report"


def run(params: StageParams[Params], files: StageFiles, record: Record) -> None:
    """Write summary, tables, curves and pictures."""
    predictions = read_parquet(files.dep("data/digits/evaluate/predictions.parquet"))
    scores = read_parquet(files.dep("data/digits/score/scores.parquet"))
    curves = read_parquet(files.dep("data/digits/score/curves.parquet"))
    store = ArrayStore(files.dep("data/digits/explain"))
    adapter = DigitsAdapter(files.root, params.study, params.common.seed)

    accuracy, folds = summary.accuracies(params, predictions, adapter.data)
    xai = tables.score_table(scores, **bootstrap_options(params))
    nameless = [cell for cell in xai["cell"].unique() if not adapter.data.items(cell).has_persons]
    xai["n_person"] = xai["n_person"].mask(xai["cell"].isin(nameless)).astype("Int64")
    metrics = accuracy | summary.xai_metrics(params, xai, scores)
    metrics |= summary.chance_metrics(adapter, store)
    write_json(files.out("metrics/digits/summary.json"), metrics)
    write_csv(files.out("metrics/digits/folds.csv"), folds)
    write_csv(files.out("metrics/digits/scores.csv"), xai)
    write_csv(files.out("metrics/digits/seeds.csv"), tables.seed_table(scores))
    write_csv(files.out("plots/digits/mprt.csv"), tables.mean_curve(curves, "mprt"))

    pages = files.out(PAGES)
    pages.mkdir(parents=True)
    history = pd.read_csv(files.dep("plots/digits/history.csv"))
    figures.training_curves(history, pages / "training_curves.png")
    for cell in cell_names(params.study):
        classes = list(adapter.data.items(cell).classes)
        counts = classification.confusion(headline(params, predictions, cell), len(classes))
        figures.confusion_matrix(counts, classes, pages / f"confusion_{cell}.png")
    directions = {name: info.direction for name, info in registry.METRICS.items()}
    shown = summary.with_first_fill(params, xai)
    for cell in sorted(shown["cell"].unique()):
        figures.score_table(shown[shown["cell"] == cell], directions, pages / f"scores_{cell}.png")
    comparison.write(params, scores, curves, shown, pages)
    for cell in sorted(xai["cell"].unique()):
        comparison.removal_matrix(params, xai, cell, pages)
    for name, grid in pictures.grids(params, adapter, store, predictions).items():
        figures.attribution_grid(grid, pages / f"{name}.png")
    if (maps := listening.audible(params, store)) is not None:
        heard = summary.with_first_fill(params, scores)
        clips = listening.clips(params, adapter, store, maps, heard)
        about = listening.about(adapter, maps, len(clips))
        write_page(pages / "listening.html", clips, listening.TITLE, about)
