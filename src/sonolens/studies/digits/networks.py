"""The networks of `digits`: which are asked for, and how each is made and trained."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sonolens import fit, rng
from sonolens.data.corpora import registry
from sonolens.explain.contract import CellKey
from sonolens.models import checkpoint
from sonolens.studies.digits.cells import AUDIO, IMAGE, cell_names, modality_of, size_of
from sonolens.studies.digits.datasets import Dataset, parse_key, permuted
from sonolens.studies.digits.front_end import front_end
from sonolens.studies.digits.params import Params

UNTRAINED = "random_weights"


def model_keys(study: Params) -> list[CellKey]:
    """Every model that the params ask for, in a fixed order.

    Seeds are repeated for the trained models of the person protocol; the leaky protocol and the
    permuted labels, which are controls, are trained with the first seed.
    """
    section = study.train
    headline, first = ("person", "trained"), section.model_seeds[0]
    return [
        CellKey(cell, protocol, fold, seed, variant)
        for cell in cell_names(study)
        for protocol in section.protocols
        for fold in _folds(study, cell)
        for seed in section.model_seeds
        for variant in section.variants
        if (protocol, variant) == headline
        or (seed == first and (protocol == "person" or variant == "trained"))
    ]


def _folds(study: Params, cell: str) -> list[int]:
    """Folds of a cell; a corpus with an official test part has one."""
    info = registry.info(study.image_source) if modality_of(cell) == IMAGE else None
    return [0] if info is not None and info.official_split else study.train.folds


def description(study: Params, key: CellKey, classes: tuple[str, ...]) -> dict[str, Any]:
    """What a checkpoint must tell those who have nothing else."""
    size, modality = size_of(key.cell), modality_of(key.cell)
    sound: dict[str, Any] = {}
    if modality == AUDIO:
        sound = {
            "front_end": asdict(front_end(study, size)),
            "placement": study.features.placement,
        }
    return {
        "architecture": study.train.architecture,
        "options": {"n_classes": len(classes), "width": study.train.width},
        "classes": list(classes),
        "key": key.as_row(),
        "modality": modality,
        "input_shape": [1, size, size],
    } | sound


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
        model = initial(self.study, len(data.items(key.cell).classes), seed)
        model.standardise.fit(train.inputs)
        config = fit.FitConfig(
            epochs=section.epochs,
            batch_size=section.batch_size,
            learning_rate=section.learning_rate,
            weight_decay=section.weight_decay,
            patience=section.patience,
            schedule=section.schedule,
            augment=fit.Augment(**section.augment.model_dump()),
        )
        return fit.Prepared(model, train, val, config, seed)


def initial(study: Params, n_classes: int, seed: int):
    """Model with its first weights, a function of the seed."""
    with rng.forked(seed, "initial"):
        return checkpoint.build(
            study.train.architecture, n_classes=n_classes, width=study.train.width
        )
