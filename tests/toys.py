"""Models with known maps, and a study of ten lines around one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sonolens import rng
from sonolens.dsp.spectrogram import LogMel
from sonolens.explain import baselines, targets
from sonolens.explain.contract import CellKey, Items, Target
from sonolens.intervene import spectral

SHAPE = (1, 16, 16)
SCALE = {"min": 0.0, "max": 1.0, "range_db": 80.0, "silence": 0.0}


class Linear(nn.Module):
    """Logits w_c . x + c; the map of class c is w_c * (x - baseline)."""

    def __init__(self, n_classes: int = 3, shape: tuple[int, ...] = SHAPE, seed: int = 0) -> None:
        super().__init__()
        weights = torch.randn(n_classes, *shape, generator=rng.torch_generator(seed))
        self.weights = nn.Parameter(weights.double())

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.flatten(1) @ self.weights.flatten(1).T.to(inputs) + torch.arange(
            len(self.weights)
        )


class Sum(nn.Module):
    """One logit, the sum of the input: gradient 1 everywhere."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.flatten(1).sum(1, keepdim=True)


class OneBin(nn.Module):
    """One logit, the square of one cell: every other cell of a map is 0."""

    def __init__(self, freq: int = 2, frame: int = 3) -> None:
        super().__init__()
        self.freq, self.frame = freq, frame

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs[:, 0, self.freq, self.frame, None] ** 2


class SmallCNN(nn.Module):
    """Two convolutions, one ReLU module per activation."""

    n_forward = 0

    def __init__(self, n_classes: int = 4, seed: int = 0, inplace: bool = False) -> None:
        super().__init__()
        with rng.forked(seed, "SmallCNN"):
            self.conv1 = nn.Conv2d(1, 6, 3, padding=1)
            self.bn1 = nn.BatchNorm2d(6)
            self.relu1 = nn.ReLU(inplace)
            self.conv2 = nn.Conv2d(6, 6, 3, stride=2, padding=1)
            self.relu2 = nn.ReLU(inplace)
            self.fc = nn.Linear(6 * 16, n_classes)
            with torch.no_grad():
                self.bn1.running_mean.normal_()
                self.bn1.weight.normal_(1, 0.2)

    @property
    def gradcam_layer(self) -> nn.Module:
        return self.relu2

    def activate(self, number: int, hidden: Tensor) -> Tensor:
        return (self.relu1, self.relu2)[number](hidden)

    def forward(self, inputs: Tensor) -> Tensor:
        SmallCNN.n_forward += len(inputs)
        hidden = self.activate(0, self.bn1(self.conv1(inputs)))
        hidden = self.activate(1, self.conv2(hidden))
        return self.fc(functional.adaptive_avg_pool2d(hidden, 4).flatten(1))


class FunctionalCNN(SmallCNN):
    """As SmallCNN, but its activations are functions: hooks see none."""

    def activate(self, number: int, hidden: Tensor) -> Tensor:
        return functional.relu(hidden)


class ReusedCNN(SmallCNN):
    """As SmallCNN, but one ReLU module serves twice."""

    def activate(self, number: int, hidden: Tensor) -> Tensor:
        return self.relu1(hidden)


class LinearMask(nn.Module):
    """Mask W . x (batch, f_out, t_out) of an input (batch, [channel,] freq, time)."""

    def __init__(self, shape_out: tuple[int, int], shape_in: tuple[int, ...]) -> None:
        super().__init__()
        weights = torch.randn(*shape_out, *shape_in, generator=rng.torch_generator("LinearMask"))
        self.weights = nn.Parameter(weights.double())

    def forward(self, inputs: Tensor) -> Tensor:
        weights = self.weights.flatten(2).to(inputs)
        return torch.einsum("fti,bi->bft", weights, inputs.flatten(1))


class GRUMask(nn.Module):
    """Mask (batch, 1, freq, time) by a GRU over the frames of (batch, 1, freq, time)."""

    def __init__(self, n_freq: int = 4, n_hidden: int = 6, seed: int = 0) -> None:
        super().__init__()
        with rng.forked(seed, "GRUMask"):
            self.gru = nn.GRU(n_freq, n_hidden, batch_first=True)
            self.head = nn.Linear(n_hidden, n_freq)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden, _ = self.gru(inputs.squeeze(1).transpose(1, 2))
        return torch.sigmoid(self.head(hidden)).transpose(1, 2).unsqueeze(1)


def unchanged(model: nn.Module, call: Callable[[], Any]) -> Any:
    """`call()`, which must leave generators, modes, hooks, requires_grad and weights alone."""
    import random

    def state() -> tuple[Any, ...]:
        hooks = [
            len(getattr(module, name))
            for module in model.modules()
            for name in (
                "_forward_hooks",
                "_forward_pre_hooks",
                "_backward_hooks",
                "_backward_pre_hooks",
            )
        ]
        flags = [module.training for module in model.modules()]
        grads = [(parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
        weights = [value.tolist() for value in model.state_dict().values()]
        legacy = str(np.random.get_state())  # noqa: NPY002 - the state to be left alone
        generators = (random.getstate(), legacy, torch.get_rng_state().tolist())
        return hooks, flags, grads, weights, generators, torch.is_grad_enabled()

    before = state()
    result = call()
    assert state() == before
    return result


@dataclass(frozen=True)
class ToyAdapter:
    """A study of 12 items of 3 persons and 4 classes around SmallCNN.

    sizes           map size by cell
    truth           whether there are truth masks: "all", "fold0" or "none"
    architecture    SmallCNN, or one whose activations escape hooks
    """

    sizes: tuple[tuple[str, int], ...] = (("main", 16),)
    loud: bool = False
    study: str = "toy"
    truth: str = "all"
    architecture: type[SmallCNN] = SmallCNN

    def load(self, key: CellKey) -> nn.Module:
        return self.architecture(seed=key.model_seed).eval().requires_grad_(False)

    def items(self, key: CellKey, part: str) -> Items:
        numbers = range(12)
        return Items(
            tuple(f"item{number:02d}" for number in numbers),
            tuple(f"person{number % 3}" for number in numbers),
            tuple(number % 4 for number in numbers),
        )

    def inputs(self, key: CellKey, items: Items) -> Tensor:
        size = dict(self.sizes)[key.cell]
        clips = [
            torch.rand(1, size, size, generator=rng.torch_generator("clip", name))
            for name in items.ids
        ]
        return torch.stack(clips) * (0.2 if self.loud else 1)

    def targets(
        self, key: CellKey, items: Items, model: nn.Module, inputs: Tensor
    ) -> dict[str, Target]:
        return {
            "predicted": targets.predicted(model, inputs),
            "label": targets.ClassLogit(items.class_index),
        }

    def baseline(
        self, key: CellKey, kind: str, items: Items, inputs: Tensor, n_draws: int
    ) -> Tensor:
        seeds = [rng.seed_for(0, "baseline", item_id) for item_id in items.ids]
        mean = torch.full(tuple(inputs.shape[1:]), 0.5)
        return baselines.make(
            kind, inputs, self.axes(key), item_seeds=seeds, n_draws=n_draws, train_mean=mean
        )

    def truth_masks(self, key: CellKey, items: Items) -> dict[str, Tensor]:
        if self.truth == "none" or (self.truth == "fold0" and key.fold):
            return {}
        inputs = self.inputs(key, items)
        mask = inputs > 0.8
        mask[0] = False
        return {"loud_cells": mask}

    def edit(self, key: CellKey, inputs: Tensor, mask: Tensor, fill: Tensor) -> Tensor:
        return inputs * (1 - mask) + fill * mask

    def listen(self, key: CellKey, item_id: str, mask: Tensor) -> np.ndarray | None:
        return None

    def analyse(self, key: CellKey, waveforms: np.ndarray) -> Tensor:
        raise AssertionError("there is no sound to analyse")

    def n_classes(self, key: CellKey) -> int:
        return 4

    def axes(self, key: CellKey) -> dict[str, Any]:
        return {"scale": SCALE, "names": ["channel", "freq", "time"]}

    def code_modules(self) -> tuple[str, ...]:
        return ("sonolens.explain.targets",)

    def data_key(self, key: CellKey) -> str:
        return "toy"


class Counted(nn.Module):
    """Counts the inputs that all models of a class have read, and the largest batch of them."""

    n_forward = 0
    largest_batch = 0

    def count(self, inputs: Tensor) -> None:
        kind = type(self)
        kind.n_forward += len(inputs)
        kind.largest_batch = max(kind.largest_batch, len(inputs))


class FrameGRU(Counted):
    """Mask (batch, freq, time) in [0, 1] of a spectrogram (batch, freq, time), by a causal GRU."""

    def __init__(self, n_freq: int = 6, n_hidden: int = 5, seed: int = 0) -> None:
        super().__init__()
        self.mask = GRUMask(n_freq, n_hidden, seed)

    def forward(self, inputs: Tensor) -> Tensor:
        self.count(inputs)
        return self.mask(inputs.unsqueeze(1)).squeeze(1)


class LipReader(Counted):
    """Mel (batch, n_mels, frames) of a film (batch, 1, frames, height, width), by a CNN-LSTM."""

    def __init__(self, n_mels: int = 5, seed: int = 0) -> None:
        super().__init__()
        with rng.forked(seed, "LipReader"):
            self.conv = nn.Conv3d(1, 4, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
            self.norm = nn.BatchNorm3d(4)
            self.relu = nn.ReLU()
            self.lstm = nn.LSTM(4 * 4, 6, batch_first=True, bidirectional=True)
            self.head = nn.Linear(12, n_mels)
            with torch.no_grad():
                self.norm.running_mean.normal_()

    def forward(self, inputs: Tensor) -> Tensor:
        self.count(inputs)
        seen = self.relu(self.norm(self.conv(inputs)))
        pooled = functional.adaptive_avg_pool3d(seen, (inputs.shape[2], 2, 2))
        hidden, _ = self.lstm(pooled.transpose(1, 2).flatten(2))
        return self.head(hidden).transpose(1, 2)


@dataclass(frozen=True)
class MaskAdapter(ToyAdapter):
    """A study of a mask-estimating net, two bins of its mask are explained."""

    study: str = "toy_mask"

    def load(self, key: CellKey) -> nn.Module:
        return FrameGRU(seed=key.model_seed).eval().requires_grad_(False)

    def inputs(self, key: CellKey, items: Items) -> Tensor:
        clips = [torch.rand(6, 9, generator=rng.torch_generator(name)) for name in items.ids]
        return torch.stack(clips)

    def targets(
        self, key: CellKey, items: Items, model: nn.Module, inputs: Tensor
    ) -> dict[str, Target]:
        return {"bin_2_7": targets.mask_bin(2, 7), "bin_0_3": targets.mask_bin(0, 3)}

    def n_classes(self, key: CellKey) -> None:
        return None

    def axes(self, key: CellKey) -> dict[str, Any]:
        return {"scale": SCALE, "names": ["freq", "time"]}


@dataclass(frozen=True)
class FilmAdapter(MaskAdapter):
    """A study of a net from film to mel; the energy of a band of the mel is explained."""

    study: str = "toy_film"

    def load(self, key: CellKey) -> nn.Module:
        return LipReader(seed=key.model_seed).eval().requires_grad_(False)

    def inputs(self, key: CellKey, items: Items) -> Tensor:
        films = [torch.rand(1, 4, 8, 8, generator=rng.torch_generator(name)) for name in items.ids]
        return torch.stack(films)

    def targets(
        self, key: CellKey, items: Items, model: nn.Module, inputs: Tensor
    ) -> dict[str, Target]:
        return {"low_band": targets.BandEnergy(0, 2), "high_band": targets.BandEnergy(2, 5, "sum")}

    def axes(self, key: CellKey) -> dict[str, Any]:
        scale = {"min": 0.0, "max": 1.0, "black": 0.0}
        return {"scale": scale, "names": ["channel", "frame", "height", "width"]}


@dataclass(frozen=True)
class AudioToyAdapter(ToyAdapter):
    """As ToyAdapter, but the inputs are log-mels of harmonic tones with noise."""

    @property
    def mel(self) -> LogMel:
        return LogMel(
            sample_rate=8000, n_fft=512, hop_length=128, n_mels=16, n_frames=16, f_min=0, f_max=4000
        )

    def sound(self, item_id: str) -> np.ndarray:
        """A voice of five harmonics that swells and fades, shape=(2048,)."""
        draw = rng.numpy_generator("sound", item_id)
        times_s = np.arange(self.mel.n_samples) / self.mel.sample_rate
        f0_hz = draw.uniform(150, 300)
        tones = [np.sin(2 * np.pi * k * f0_hz * times_s) / k for k in range(1, 6)]
        swell = np.sin(np.pi * np.arange(self.mel.n_samples) / self.mel.n_samples)
        noise = 0.01 * draw.standard_normal(self.mel.n_samples)
        return (0.2 * swell * np.sum(tones, 0) + noise).astype(np.float32)

    def inputs(self, key: CellKey, items: Items) -> Tensor:
        return self.mel(torch.from_numpy(np.stack([self.sound(name) for name in items.ids])))

    def listen(self, key: CellKey, item_id: str, mask: Tensor) -> np.ndarray:
        return spectral.keep(self.sound(item_id), mask, self.mel)

    def analyse(self, key: CellKey, waveforms: np.ndarray) -> Tensor:
        return self.mel(torch.from_numpy(waveforms))

    def axes(self, key: CellKey) -> dict[str, Any]:
        return self.mel.axes()
