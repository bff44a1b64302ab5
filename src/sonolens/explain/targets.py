"""Scalars that are explained: target(outputs, rows) -> (len(rows),)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
