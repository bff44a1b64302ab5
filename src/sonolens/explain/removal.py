"""Target values of inputs some of whose cells are replaced by the baseline.

What the perturbation methods share: (edit, baseline) pairs of one item are streamed in chunks, so
memory grows neither with the number of edits nor with that of baselines, and a chunk never mixes
items, so a value does not depend on what else is in the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sonolens.explain.contract import ExplainError, Target, labels_of, require_baseline

Kept = Callable[[Tensor], Tensor]
"""kept(rows) -> (len(rows), *shape): what stays of the input in these edits, boolean or 0 to 1."""


@dataclass(frozen=True)
class Item:
    """One item of a batch whose cells can be replaced; call within `no_grad` and `frozen`.

    number      of the item in the batch
    end         the input, (*shape)
    starts      its baselines, (K, *shape)
    method      named in errors
    """

    model: nn.Module
    target: Target
    number: int
    end: Tensor
    starts: Tensor
    chunk_size: int
    method: str

    def stream(self, n_edits: int, kept: Kept) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield (edits, what they kept, target values) of every chunk, one row per model input.

        An edit comes once for each baseline. Raises ExplainError where a value is not finite.
        """
        n_draws = len(self.starts)
        for first in range(0, n_edits * n_draws, self.chunk_size):
            last = min(first + self.chunk_size, n_edits * n_draws)
            pairs = torch.arange(first, last, device=self.end.device)
            edits = pairs // n_draws
            mask = kept(edits)
            starts = self.starts if n_draws == 1 else self.starts[pairs % n_draws]
            edited = (
                torch.where(mask, self.end, starts)
                if mask.dtype == torch.bool
                else starts + mask * (self.end - starts)
            )
            yield edits, mask, self._values(edited)

    def values(self, n_edits: int, kept: Kept) -> Tensor:
        """Target of every edit, mean over the baselines, (n_edits,), float64, on the CPU."""
        if not n_edits:
            return torch.zeros(0, dtype=torch.float64)
        found = [values for _, _, values in self.stream(n_edits, kept)]
        return torch.cat(found).view(n_edits, -1).mean(1).cpu()

    def full(self) -> float:
        """Target of the input."""
        return float(self._values(self.end[None]))

    def empty(self) -> float:
        """Target of the baseline, mean over the baselines."""
        nothing = torch.zeros_like(self.end, dtype=torch.bool)
        return float(self.values(1, lambda edits: nothing.expand(len(edits), *nothing.shape)))

    def _values(self, points: Tensor) -> Tensor:
        rows = torch.full((len(points),), self.number, device=points.device)
        values = self.target(self.model(points), rows).double()
        if not values.isfinite().all():
            raise ExplainError(
                f"{self.method}: the target of item {self.number} is not finite where cells are "
                "removed; check input, baseline and model for NaN"
            )
        return values


def items(
    model: nn.Module,
    inputs: Tensor,
    target: Target,
    baseline: Tensor | None,
    chunk_size: int,
    method: str,
) -> list[Item]:
    """Every item of a batch; see `contract.Method`.

    Parameters
    ----------
    chunk_size
        Inputs per call of the model.
    method
        Named in errors.

    Raises
    ------
    ExplainError
        No or ill-shaped baseline; a chunk_size below 1.
    """
    if chunk_size < 1:
        raise ExplainError(f"{method}: chunk_size {chunk_size}; need at least 1")
    inputs = inputs.detach()
    starts = require_baseline(baseline, inputs, method).detach()
    return [
        Item(model, target, number, inputs[number], starts[number], chunk_size, method)
        for number in range(len(inputs))
    ]


def groups(inputs: Tensor, segments: Tensor | None) -> list[Tensor]:
    """Label of the group of every cell, (*shape) for each item; None: every cell alone.

    Raises
    ------
    ExplainError
        Segments of another shape, or that are no labels.
    """
    if segments is None:
        n_cells = inputs[0].numel()
        alone = torch.arange(n_cells, device=inputs.device).view(inputs.shape[1:])
        return [alone] * len(inputs)
    return list(labels_of(segments, inputs))


def n_groups(labels: Tensor) -> int:
    """Number of groups of one item."""
    return int(labels.max()) + 1


def by_group(present: Tensor, labels: Tensor) -> Kept:
    """`Kept` of coalitions of groups, from membership (n_edits, groups), boolean."""
    present, flat = present.to(labels.device), labels.flatten()
    return lambda edits: present[edits].index_select(1, flat).view(-1, *labels.shape)


def spread(values: Tensor, labels: Tensor, like: Tensor) -> Tensor:
    """Map (*shape) whose cells share the value (groups,) of their group evenly.

    The cells of a group sum to its value. `like` decides precision and device.
    """
    flat = labels.flatten()
    sizes = torch.bincount(flat, minlength=len(values)).clamp_min(1)
    shares = values.to(labels.device).double() / sizes
    return shares[flat].view(labels.shape).to(like)


def share_missing(values: Tensor, empty: float, full: float) -> float:
    """|sum(values) - (F(x) - F(b))| / |F(x) - F(b)|; NaN where the target does not change."""
    change = full - empty
    return abs(float(values.sum()) - change) / abs(change) if change else float("nan")


def plane_of(shape: torch.Size) -> tuple[int, int]:
    """Size of the last two axes of an input (*shape), the first of them 1 where it has one axis."""
    return (1 if len(shape) < 2 else shape[-2]), shape[-1]
