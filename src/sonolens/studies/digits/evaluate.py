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
from sonolens.studies.digits.datasets import Dataset, model_path
from sonolens.studies.digits.headline import bootstrap_options, headline, headline_cell
from sonolens.studies.digits.networks import model_keys
from sonolens.studies.digits.params import Params
from sonolens.track import Record

OUT = "data/digits/evaluate/predictions.parquet"


def run(params: StageParams[Params], files: StageFiles, record: Record) -> None:
    """Write predictions, confusion counts and the leakage report."""
    data = Dataset(files.root)
    tables = []
    for key in model_keys(params.study):
        model, _ = checkpoint.load(files.root / model_path(key))
        part = data.part(key.cell, key.protocol, key.fold, "test")
        persons = data.manifest.loc[list(part.ids), "person_id"].to_numpy()
        table = classification.prediction_table(
            part.ids, persons, part.labels.numpy(), classification.predict(model, part.inputs)
        )
        tables.append(table.assign(**key.as_row()))
    predictions = pd.concat(tables, ignore_index=True)
    write_parquet(files.out(OUT), predictions)
    shown = headline(params, predictions)
    names = pd.Series(data.classes)
    write_csv(
        files.out("plots/digits/confusion.csv"),
        pd.DataFrame({"actual": shown["class_index"].map(names),
                      "predicted": shown["predicted"].map(names)})
        .sort_values(["actual", "predicted"]),
    )  # fmt: skip
    write_json(files.out("metrics/digits/leakage.json"), _leakage(params, data, predictions))


def _leakage(
    params: StageParams[Params], data: Dataset, predictions: pd.DataFrame
) -> dict[str, float]:
    manifest = data.manifest
    row_of = pd.Series(range(len(manifest)), index=manifest["item_id"])
    features = leakage.summary_features(
        data.features(headline_cell(params)).take(list(manifest["item_id"]))
    )
    # The same training items as the networks have; validation items are theirs alone.
    folds = {
        name: [
            (row_of[list(fold.train)].to_numpy(), row_of[list(fold.test)].to_numpy())
            for fold in folds
        ]
        for name, folds in data.folds.items()
    }
    options = bootstrap_options(params)
    correct = leakage.reference_correct(
        manifest, features, folds["leaky"], folds["speaker"],
        seed=params.common.seed, n_permutations=params.study.evaluate.n_permutations,
    )  # fmt: skip
    persons = manifest["person_id"].to_numpy()
    metrics: dict[str, float] = {"n_person": len(set(persons)), "n_item": len(manifest)}
    for name, values in correct.items():
        metrics |= person_bootstrap(values, persons, **options).as_metrics(f"accuracy_{name}")
    gain = _gain(headline(params, predictions), correct["person"], row_of)
    gain_interval = person_bootstrap(
        gain["gain"].to_numpy(), gain["person_id"].to_numpy(), **options
    )
    metrics |= gain_interval.as_metrics("accuracy_gain_person")
    return metrics | {"accuracy_chance": 1 / len(data.classes)}


def _gain(table: pd.DataFrame, reference: np.ndarray, row_of: pd.Series) -> pd.DataFrame:
    """Network minus reference on the same test items, by item and training."""
    correct = (table["class_index"] == table["predicted"]).astype(float)
    return table.assign(gain=correct - reference[row_of[table["item_id"]].to_numpy()])
