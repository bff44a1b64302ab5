"""Scalars that are explained: target(outputs, rows) -> (len(rows),)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from sonolens.explain.contract import ExplainError, frozen


@dataclass(frozen=True)
class ClassLogit:
    """One logit per item.

    class_index     class of each item of the batch; `rows` picks from it
    """

    class_index: tuple[int, ...]

    def __call__(self, outputs: Tensor, rows: Tensor) -> Tensor:
        """(n, n_classes) and rows (n,) -> (n,). Raises ExplainError for a class the model lacks."""
        lowest, highest = min(self.class_index), max(self.class_index)
        if outputs.ndim != 2 or lowest < 0 or highest >= outputs.shape[1]:
            raise ExplainError(
                f"class {lowest if lowest < 0 else highest}: the model's outputs are "
                f"{tuple(outputs.shape)}; need (items, classes) and a class among them"
            )
        classes = torch.tensor(self.class_index, device=outputs.device)
        return outputs.gather(1, classes[rows.to(outputs.device)][:, None]).squeeze(1)

    def select(self, rows: Sequence[int]) -> ClassLogit:
        """Target of the items at `rows`."""
        return ClassLogit(tuple(self.class_index[row] for row in rows))


def predicted(model: nn.Module, inputs: Tensor) -> ClassLogit:
    """The largest logit of every item, fixed now: edits of the input do not change the class.

    Raises
    ------
    ExplainError
        The model's outputs are not (batch, n_classes).
    """
    with torch.no_grad(), frozen(model):
        logits = model(inputs)
    if logits.ndim != 2:
        raise ExplainError(
            f"predicted: outputs {tuple(logits.shape)}, need logits (batch, n_classes)"
        )
    return ClassLogit(tuple(logits.argmax(1).tolist()))


@dataclass(frozen=True)
class MaskBin:
    """One bin of a mask (batch, [channel,] freq, time); a channel axis must have size 1."""

    freq: int
    frame: int

    def __call__(self, outputs: Tensor, rows: Tensor) -> Tensor:
        """Mask (n, freq, time), rows (n,) -> (n,). Raises ExplainError for a bin outside of it."""
        n_freq, n_frames = outputs.shape[-2:]
        if not (0 <= self.freq < n_freq and 0 <= self.frame < n_frames):
            raise ExplainError(
                f"bin ({self.freq}, {self.frame}): the mask is {tuple(outputs.shape)}; need "
                f"(freq, frame) below ({n_freq}, {n_frames})"
            )
        return outputs[..., self.freq, self.frame].reshape(len(rows))


def mask_bin(freq: int, frame: int) -> MaskBin:
    """Target "bin (freq, frame) of the mask the model puts out"."""
    return MaskBin(freq, frame)


@dataclass(frozen=True)
class BandEnergy:
    """Energy in a band of a spectrogram (batch, [channel,] freq, time) that a model puts out.

    low, high       first row of the band and the one after its last
    reduction       over the cells of the band, all frames and channels: their mean or their sum
    log             natural logarithm of that, for models that put out magnitude or power; a model
                    whose output is logarithmic needs none
    floor           smallest value under the logarithm
    """

    low: int
    high: int
    reduction: Literal["mean", "sum"] = "mean"
    log: bool = False
    floor: float = 1e-10

    def __call__(self, outputs: Tensor, rows: Tensor) -> Tensor:
        """Spectrograms (n, freq, time), rows (n,) -> (n,). Raises ExplainError for a wrong band."""
        if outputs.ndim < 3 or not 0 <= self.low < self.high <= outputs.shape[-2]:
            raise ExplainError(
                f"band {self.low} to {self.high}: the model's outputs are {tuple(outputs.shape)}; "
                "need a spectrogram (items, [channel,] freq, time) with those rows, low < high"
            )
        if self.reduction not in ("mean", "sum"):
            raise ExplainError(f"band: reduction {self.reduction!r}; need 'mean' or 'sum'")
        band = outputs[..., self.low : self.high, :].flatten(1)
        energy = band.mean(1) if self.reduction == "mean" else band.sum(1)
        return energy.clamp_min(self.floor).log() if self.log else energy
