"""What the stages of `digits` read.

Manifest, splits, feature stores, parts of folds and trained models.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from sonolens import rng
from sonolens.data import splits
from sonolens.data.corpora import registry
from sonolens.explain.contract import CellKey
from sonolens.fit import Part
from sonolens.store import ArrayStore, read_parquet
from sonolens.studies.digits.cells import AUDIO, IMAGE, Modality, modality_of

PREPARE = {AUDIO: "data/digits/prepare", IMAGE: "data/digits/prepare_image"}
FEATURES = "data/digits/features"
MODELS = "models/digits/train"


@dataclass(frozen=True)
class PreparedItems:
    """What the prepare stage of one modality wrote; opened when first used."""

    root: Path
    modality: Modality

    @property
    def folder(self) -> Path:
        return self.root / PREPARE[self.modality]

    @cached_property
    def manifest(self) -> pd.DataFrame:
        """Kept items, by item_id."""
        table = read_parquet(self.folder / "manifest.parquet")
        return table[table["kept"]].set_index("item_id", drop=False)

    @cached_property
    def folds(self) -> dict[str, list[splits.Fold]]:
        return splits.read(self.folder / "splits.json")

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Labels by class index."""
        pairs = self.manifest[["class_index", "label"]].drop_duplicates().sort_values("class_index")
        return tuple(pairs["label"])

    @cached_property
    def truth(self) -> dict[str, pd.DataFrame]:
        """Cue tracks by item_id; empty for recordings and pictures."""
        if self.modality == IMAGE:
            return {}
        table = read_parquet(self.folder / "truth.parquet")
        return {str(item_id): tracks for item_id, tracks in table.groupby("item_id")}

    @cached_property
    def has_persons(self) -> bool:
        """Whether anybody knows who made the items."""
        info = registry.info(str(self.manifest["corpus"].iloc[0]))
        return info is None or info.has_persons


@dataclass(frozen=True)
class Dataset:
    """Outputs of `prepare`, `prepare_image` and `features` below `root`.

    Opened when first used, so it pickles as a path.
    """

    root: Path

    def __getstate__(self) -> dict[str, Path]:
        return {"root": self.root}

    @cached_property
    def _items(self) -> dict[Modality, PreparedItems]:
        return {modality: PreparedItems(self.root, modality) for modality in (AUDIO, IMAGE)}

    def items(self, cell: str) -> PreparedItems:
        """Manifest, folds, classes and truth of a cell's modality."""
        return self._items[modality_of(cell)]

    def features(self, cell: str) -> ArrayStore:
        return ArrayStore(self.root / FEATURES / cell)

    def ids(self, cell: str, protocol: str, fold: int, part: str) -> tuple[str, ...]:
        """Items of a part. Raises FoldError that names the protocol's number of folds."""
        folds = self.items(cell).folds[protocol]
        if fold >= len(folds):
            raise FoldError(
                f"digits.train.folds: {fold}, "
                f"but protocol {protocol} of {cell} has folds 0 to {len(folds) - 1}"
            )
        return tuple(getattr(folds[fold], part))

    def part(self, cell: str, protocol: str, fold: int, name: str) -> Part:
        ids = self.ids(cell, protocol, fold, name)
        table = self.items(cell).manifest.loc[list(ids), "class_index"]
        labels = torch.from_numpy(table.to_numpy(np.int64, copy=True))
        return Part(torch.from_numpy(self.features(cell).take(ids)), labels, ids)


class FoldError(ValueError):
    """A fold that the splits do not have."""


def permuted(part: Part, seed: int) -> Part:
    """The part with its labels shuffled among its items.

    A control that keeps everything but the meaning.
    """
    order = rng.numpy_generator(seed, "permuted").permutation(len(part.labels))
    return Part(part.inputs, part.labels[torch.from_numpy(order)], part.ids)


def parse_key(name: str) -> CellKey:
    """Inverse of `CellKey.name`."""
    cell, protocol, fold, seed, variant = name.split("_", 4)
    return CellKey(
        cell, protocol, int(fold.removeprefix("fold")), int(seed.removeprefix("seed")), variant
    )


def model_path(key: CellKey) -> str:
    """Checkpoint of a trained cell, relative to the root."""
    return f"{MODELS}/{key.name}.safetensors"
