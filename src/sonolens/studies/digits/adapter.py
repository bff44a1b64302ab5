"""How `digits` presents itself to the engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sonolens import rng, sources
from sonolens.dsp.regions import mask_from_tracks
from sonolens.explain import baselines, targets
from sonolens.explain.contract import CellKey, Items, Target
from sonolens.intervene import spectral
from sonolens.models import checkpoint
from sonolens.store import ArrayStore
from sonolens.studies.digits.cells import AUDIO, IMAGE, modality_of, size_of
from sonolens.studies.digits.datasets import (
    FEATURES,
    PREPARE,
    Dataset,
    model_path,
    parse_key,
)
from sonolens.studies.digits.front_end import front_end
from sonolens.studies.digits.networks import UNTRAINED, initial
from sonolens.studies.digits.params import Params


@dataclass(frozen=True)
class DigitsAdapter:
    """See `sonolens.explain.contract.Explainable`. Picklable: holds a path and params."""

    root: Path
    params: Params
    seed: int
    study: str = "digits"

    @cached_property
    def data(self) -> Dataset:
        return Dataset(self.root)

    def load(self, key: CellKey) -> nn.Module:
        model, _ = checkpoint.load(self.root / model_path(self._trained(key)))
        if key.variant == UNTRAINED:
            fresh = initial(
                self.params,
                len(self.data.items(key.cell).classes),
                rng.seed_for(self.seed, key.model_seed, UNTRAINED),
            )
            fresh.standardise.load_state_dict(model.get_submodule("standardise").state_dict())
            model = fresh
        return model.eval().requires_grad_(False)

    def items(self, key: CellKey, part: str) -> Items:
        ids = self.data.ids(key.cell, key.protocol, key.fold, part)
        rows = self.data.items(key.cell).manifest.loc[list(ids)]
        return Items(
            ids, tuple(rows["person_id"]), tuple(int(index) for index in rows["class_index"])
        )

    def inputs(self, key: CellKey, items: Items) -> Tensor:
        return torch.from_numpy(self.data.features(key.cell).take(items.ids))

    def targets(
        self, key: CellKey, items: Items, model: nn.Module, inputs: Tensor
    ) -> dict[str, Target]:
        return {"predicted": targets.predicted(model, inputs)}

    def baseline(
        self, key: CellKey, kind: str, items: Items, inputs: Tensor, n_draws: int
    ) -> Tensor:
        seeds = [rng.seed_for(self.seed, item_id, "baseline") for item_id in items.ids]
        train = (key.cell, key.protocol, key.fold, "train")
        mean = self.data.part(*train).inputs.mean(0) if kind in baselines.OF_TRAINING else None
        return baselines.make(
            kind, inputs, self.axes(key), item_seeds=seeds, n_draws=n_draws, train_mean=mean
        )

    def truth_masks(self, key: CellKey, items: Items) -> dict[str, Tensor]:
        truth = self.data.items(key.cell).truth
        if not truth:
            return {}
        axes, store = self.axes(key), self.data.features(key.cell)
        frequencies_hz, times_s = np.array(axes["frequencies_hz"]), np.array(axes["times_s"])
        offsets_s = store.index["offset_s"].to_numpy()[store.rows(items.ids)]
        masks = [
            mask_from_tracks(truth[item_id], frequencies_hz, times_s, offset_s)
            for item_id, offset_s in zip(items.ids, offsets_s, strict=True)
        ]
        return {"cues": torch.from_numpy(np.stack(masks)).unsqueeze(1)}

    def edit(self, key: CellKey, inputs: Tensor, mask: Tensor, fill: Tensor) -> Tensor:
        return torch.lerp(inputs, fill, mask)

    def listen(self, key: CellKey, item_id: str, mask: Tensor) -> np.ndarray | None:
        """The recording with only the cells of `mask`, as a waveform in the cell's window.

        `mask` has shape (n_mels, n_frames). None for a picture.
        """
        if modality_of(key.cell) == IMAGE:
            return None
        mel = front_end(self.params, size_of(key.cell))
        return spectral.keep(self.window(key, item_id), mask, mel)

    def analyse(self, key: CellKey, waveforms: np.ndarray) -> Tensor:
        """Windows (n, n_samples) to log-mel, the level of each anew as `reference` says."""
        return front_end(self.params, size_of(key.cell))(torch.from_numpy(waveforms))

    def window(self, key: CellKey, item_id: str) -> np.ndarray:
        """The waveform that the cell's features were made of, shape=(n_samples,)."""
        mel = front_end(self.params, size_of(key.cell))
        store, audio = (
            self.data.features(key.cell),
            ArrayStore(self.root / PREPARE[AUDIO] / "audio"),
        )
        offset = round(store.index["offset_s"].iloc[store.rows([item_id])[0]] * mel.sample_rate)
        waveform = audio[audio.rows([item_id])[0]]
        window = np.zeros(mel.n_samples, np.float32)
        kept = waveform[max(0, -offset) :][: mel.n_samples]
        window[max(0, offset) : max(0, offset) + len(kept)] = kept
        return window

    def axes(self, key: CellKey) -> dict[str, Any]:
        return self.data.features(key.cell).axes

    def n_classes(self, key: CellKey) -> int:
        return len(self.data.items(key.cell).classes)

    def code_modules(self) -> tuple[str, ...]:
        return (__name__,)

    def data_key(self, key: CellKey) -> str:
        paths = [model_path(self._trained(key)), f"{FEATURES}/{key.cell}"]
        if modality_of(key.cell) == AUDIO:
            paths.append(f"{PREPARE[AUDIO]}/truth.parquet")
        return sources.content_key(files=[sources.file_digest(self.root / path) for path in paths])

    def _trained(self, key: CellKey) -> CellKey:
        return (
            CellKey(key.cell, key.protocol, key.fold, key.model_seed)
            if key.variant == UNTRAINED
            else key
        )


def registrable(root: Path, name: str) -> tuple[Callable[[], nn.Module], np.ndarray]:
    """Loader and an example input of the checkpoint `name`, for the model registry.

    The example has shape (1, 1, n_mels, n_frames) or (1, 1, height, width).
    """
    path = root / model_path(parse_key(name))
    _, description = checkpoint.load(path)
    example = np.zeros((1, *description["input_shape"]), np.float32)
    return lambda: checkpoint.load(path)[0], example
