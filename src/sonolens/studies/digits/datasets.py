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
from sonolens.explain.contract import CellKey
from sonolens.fit import Part
from sonolens.store import ArrayStore, read_parquet

PREPARE = "data/digits/prepare"
FEATURES = "data/digits/features"
MODELS = "models/digits/train"


def cell_name(size: int) -> str:
    """Name of the audio cell with `size` bands and frames."""
    return f"audio-{size}"


def cell_size(cell: str) -> int:
    """Inverse of `cell_name`."""
    return int(cell.removeprefix("audio-"))


@dataclass(frozen=True)
class Dataset:
    """Outputs of `prepare` and `features` below `root`.

    Opened when first used, so it pickles as a path.
    """

    root: Path

    def __getstate__(self) -> dict[str, Path]:
        return {"root": self.root}

    @cached_property
    def manifest(self) -> pd.DataFrame:
        """Kept items, by item_id."""
        table = read_parquet(self.root / PREPARE / "manifest.parquet")
        return table[table["kept"]].set_index("item_id", drop=False)

    @cached_property
    def folds(self) -> dict[str, list[splits.Fold]]:
        return splits.read(self.root / PREPARE / "splits.json")

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Labels by class index."""
        pairs = self.manifest[["class_index", "label"]].drop_duplicates().sort_values("class_index")
        return tuple(pairs["label"])

    @cached_property
    def truth(self) -> dict[str, pd.DataFrame]:
        """Cue tracks by item_id; empty for recordings."""
        table = read_parquet(self.root / PREPARE / "truth.parquet")
        return {str(item_id): tracks for item_id, tracks in table.groupby("item_id")}

    def features(self, cell: str) -> ArrayStore:
        return ArrayStore(self.root / FEATURES / cell)

    def ids(self, protocol: str, fold: int, part: str) -> tuple[str, ...]:
        """Items of a part. Raises FoldError that names the protocol's number of folds."""
        folds = self.folds[protocol]
        if fold >= len(folds):
            raise FoldError(
                f"digits.train.folds: {fold}, "
                f"but protocol {protocol} has folds 0 to {len(folds) - 1}"
            )
        return tuple(getattr(folds[fold], part))

    def part(self, cell: str, protocol: str, fold: int, name: str) -> Part:
        ids = self.ids(protocol, fold, name)
        labels = self.manifest.loc[list(ids), "class_index"].to_numpy(np.int64, copy=True)
        return Part(torch.from_numpy(self.features(cell).take(ids)), torch.from_numpy(labels), ids)


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
