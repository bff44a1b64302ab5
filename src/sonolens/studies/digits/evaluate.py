"""Trained classifiers to predictions of their test parts, and the leakage report."""

from __future__ import annotations

import numpy as np
import pandas as pd

from sonolens.models import checkpoint
from sonolens.params import StageParams
from sonolens.pipeline import StageFiles
from sonolens.score import classification, leakage
from sonolens.stats import person_bootstrap
from sonolens.store import write_csv, write_json, write_parquet
from sonolens.studies.digits.cells import first_cells, modality_of, suffix_of
from sonolens.studies.digits.datasets import Dataset, model_path
from sonolens.studies.digits.headline import bootstrap_options, headline, headline_cell
from sonolens.studies.digits.networks import model_keys
from sonolens.studies.digits.params import Params
from sonolens.track import Record

# What the plain classifier of the leakage report sees.
SUMMARIES = {"audio": leakage.summary_features, "image": leakage.pooled_features}
OUT = "data/digits/evaluate/predictions.parquet"


def run(params: StageParams[Params], files: StageFiles, record: Record) -> None:
    """Write predictions, confusion counts and the leakage report."""
    data = Dataset(files.root)
    tables = []
    for key in model_keys(params.study):
        model, _ = checkpoint.load(files.root / model_path(key))
        part = data.part(key.cell, key.protocol, key.fold, "test")
        persons = data.items(key.cell).manifest.loc[list(part.ids), "person_id"].to_numpy()
        table = classification.prediction_table(
            part.ids, persons, part.labels.numpy(), classification.predict(model, part.inputs)
        )
        tables.append(table.assign(**key.as_row()))
    predictions = pd.concat(tables, ignore_index=True)
    write_parquet(files.out(OUT), predictions)
    shown = headline(params, predictions)
    names = pd.Series(data.items(headline_cell(params)).classes)
    write_csv(
        files.out("plots/digits/confusion.csv"),
        pd.DataFrame({"actual": shown["class_index"].map(names),
                      "predicted": shown["predicted"].map(names)})
        .sort_values(["actual", "predicted"]),
    )  # fmt: skip
    report: dict[str, float] = {}
    for cell in first_cells(params.study):
        report |= _leakage(params, data, predictions, cell)
    write_json(files.out("metrics/digits/leakage.json"), report)


def _leakage(
    params: StageParams[Params], data: Dataset, predictions: pd.DataFrame, cell: str
) -> dict[str, float]:
    items = data.items(cell)
    manifest = items.manifest
    row_of = pd.Series(range(len(manifest)), index=manifest["item_id"])
    summarise = SUMMARIES[modality_of(cell)]
    features = summarise(data.features(cell).take(list(manifest["item_id"])))
    # The same training items as the networks have; validation items are theirs alone.
    folds = {
        name: [
            (row_of[list(fold.train)].to_numpy(), row_of[list(fold.test)].to_numpy())
            for fold in folds
        ]
        for name, folds in items.folds.items()
    }
    options = bootstrap_options(params)
    correct = leakage.reference_correct(
        manifest, features, folds["leaky"], folds["person"],
        seed=params.common.seed, n_permutations=params.study.evaluate.n_permutations,
    )  # fmt: skip
    persons = manifest["person_id"].to_numpy()
    suffix = suffix_of(params.study, cell)
    if not items.has_persons:  # nobody knows whom to recognise
        del correct["identity"]
    metrics: dict[str, float] = {f"n_item{suffix}": len(manifest)}
    if items.has_persons:
        metrics[f"n_person{suffix}"] = len(set(persons))
        metrics[f"accuracy_identity_chance{suffix}"] = 1 / len(set(persons))
    for name, values in correct.items():
        metrics |= person_bootstrap(values, persons, **options).as_metrics(
            f"accuracy_{name}{suffix}"
        )
    gain = _gain(headline(params, predictions, cell), correct["person"], row_of)
    gain_interval = person_bootstrap(
        gain["gain"].to_numpy(), gain["person_id"].to_numpy(), **options
    )
    metrics |= gain_interval.as_metrics(f"accuracy_gain_person{suffix}")
    return metrics | {f"accuracy_chance{suffix}": 1 / len(items.classes)}


def _gain(table: pd.DataFrame, reference: np.ndarray, row_of: pd.Series) -> pd.DataFrame:
    """Network minus reference on the same test items, by item and training."""
    correct = (table["class_index"] == table["predicted"]).astype(float)
    return table.assign(gain=correct - reference[row_of[table["item_id"]].to_numpy()])
