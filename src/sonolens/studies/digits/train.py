"""Feature stores to trained classifiers, one per cell, protocol, fold, seed and variant."""

from __future__ import annotations

import logging

import pandas as pd

from sonolens import fit
from sonolens.explain.contract import CellKey
from sonolens.models import checkpoint
from sonolens.params import StageParams
from sonolens.pipeline import StageFiles, scratch
from sonolens.store import write_csv
from sonolens.studies.digits.datasets import Dataset, model_path, parse_key
from sonolens.studies.digits.networks import Preparation, description, model_keys
from sonolens.studies.digits.params import Params
from sonolens.track import Record, curve_name

log = logging.getLogger(__name__)


def run(params: StageParams[Params], files: StageFiles, record: Record) -> None:
    """Train every model asked for; write checkpoints and history."""
    keys = model_keys(params.study)
    folder = scratch(files.root, "ckpt", files.key)
    fitted = fit.fit_jobs(
        Preparation(files.root, params.study, params.common.seed),
        [key.name for key in keys],
        folder=folder,
        runtime=params.runtime,
        device=checkpoint.device,
        on_epoch=lambda name, row: _note(record, name, row),
    )
    data = Dataset(files.root)
    models = files.out("models/digits/train")
    for key in keys:
        result = fitted[key.name]
        path = models / f"{key.name}.safetensors"
        classes = data.items(key.cell).classes
        checkpoint.save(path, result.state, description(params.study, key, classes))
        best = result.history[result.best_epoch]
        record.checkpoint(
            key.name, path, model_path(key), key.as_row(), {"val_accuracy": best["val_accuracy"]}
        )
    rows = [
        {"series": series(key)} | key.as_row() | row
        for key in keys
        for row in fitted[key.name].history
    ]
    write_csv(files.out("plots/digits/history.csv"), pd.DataFrame(rows))
    record.artifact(files.out("plots/digits/history.csv"), "plots")


def series(key: CellKey) -> str:
    """Name of a model in a legend."""
    return f"{key.cell}, {key.protocol}, {key.variant}, fold {key.fold}, seed {key.model_seed}"


def _note(record: Record, name: str, row: dict[str, float]) -> None:
    key = parse_key(name)
    values = {
        curve_name(metric, **key.as_row()): value
        for metric, value in row.items()
        if metric != "epoch"
    }
    record.metrics(values, step=int(row["epoch"]))
    log.info(
        "%s epoch %d: train loss %.3f, validation loss %.3f, accuracy %.3f",
        name, row["epoch"], row["train_loss"], row["val_loss"], row["val_accuracy"],
    )  # fmt: skip
