"""Feature stores to trained classifiers, one per cell, protocol, fold, seed and variant."""

from __future__ import annotations

import logging
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from sonolens import fit, rng
from sonolens.explain.contract import CellKey
from sonolens.models import checkpoint
from sonolens.params import StageParams
from sonolens.pipeline import StageFiles, scratch
from sonolens.store import write_csv
from sonolens.studies.digits.datasets import Dataset, cell_name, model_path, parse_key, permuted
from sonolens.studies.digits.front_end import front_end
from sonolens.studies.digits.params import Params
from sonolens.track import Record, curve_name

UNTRAINED = "random_weights"
log = logging.getLogger(__name__)


def run(params: StageParams[Params], files: StageFiles, record: Record) -> None:
    """Train every model asked for; write checkpoints and history."""
    keys = [key for key in model_keys(params.study) if key.variant != UNTRAINED]
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
        checkpoint.save(path, result.state, _description(params.study, key, data.classes))
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
    shutil.rmtree(folder)


def model_keys(study: Params) -> list[CellKey]:
    """Every model that the params ask for, in a fixed order.

    Controls only where they are compared.
    """
    section = study.train
    return [
        CellKey(cell_name(size), protocol, fold, seed, variant)
        for size in study.features.sizes
        for protocol in section.protocols
        for fold in section.folds
        for seed in section.model_seeds
        for variant in section.variants
        if variant == "trained" or (protocol == "speaker" and seed == section.model_seeds[0])
    ]


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


def _description(study: Params, key: CellKey, classes: tuple[str, ...]) -> dict:
    size = int(key.cell.split("-")[1])
    return {
        "architecture": study.train.architecture,
        "options": {"n_classes": len(classes), "width": study.train.width},
        "classes": list(classes),
        "key": key.as_row(),
        "front_end": asdict(front_end(study, size)),
        "placement": study.features.placement,
    }


@dataclass(frozen=True)
class Preparation:
    """Makes the training of a name in the worker."""

    root: Path
    study: Params
    seed: int

    def __call__(self, name: str) -> fit.Prepared:
        key, section, data = parse_key(name), self.study.train, Dataset(self.root)
        train, val = (
            data.part(key.cell, key.protocol, key.fold, part) for part in ("train", "val")
        )
        seed = rng.seed_for(self.seed, key.model_seed, "train", key.protocol, key.fold)
        if key.variant == "permuted":
            train, val = (
                permuted(train, rng.seed_for(seed, "train")),
                permuted(val, rng.seed_for(seed, "val")),
            )
        model = initial(self.study, len(data.classes), seed)
        model.standardise.fit(train.inputs)
        config = fit.FitConfig(
            epochs=section.epochs,
            batch_size=section.batch_size,
            learning_rate=section.learning_rate,
            weight_decay=section.weight_decay,
            patience=section.patience,
            augment=fit.Augment(**section.augment.model_dump()),
        )
        return fit.Prepared(model, train, val, config, seed)


def initial(study: Params, n_classes: int, seed: int):
    """Model with its first weights, a function of the seed."""
    with rng.forked(seed, "initial"):
        return checkpoint.build(
            study.train.architecture, n_classes=n_classes, width=study.train.width
        )
