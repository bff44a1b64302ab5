"""What every attribution method takes and returns, and what a study offers to the engine.

Tensors are (batch, *shape); a target picks one scalar per output row, so a class logit, one bin of a
mask and the energy of a band are the same thing to a method.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

Target = Callable[[Tensor, Tensor], Tensor]
"""target(outputs, rows) -> (len(rows),); `rows` int64: which item each output row belongs to."""


@dataclass(frozen=True)
class Attribution:
    """Signed map of one batch.

    values, shape=(batch, *map shape), float; the map may live on other axes than the input: see `axes`
    axes                names of the map's axes after the batch, e.g. ("channel", "freq", "time")
    completeness_error  shape=(batch,), |sum(values) - (F(x) - F(b))| / |F(x) - F(b)|; NaN where undefined
    n_evaluations       forward or forward-and-backward passes per item
    """

    values: Tensor
    axes: tuple[str, ...] = ("channel", "freq", "time")
    completeness_error: Tensor | None = None
    n_evaluations: int = 1


class Method(Protocol):
    """Signature of every attribution method.

    inputs      (batch, *shape)
    target      see `Target`
    baseline    (1 or batch, K, *shape), or None for methods registered without `baseline`
    item_seeds  int64 (batch,): all randomness of item i is a function of item_seeds[i]
    segments    integer labels of groups of input cells, (*shape) or (batch, *shape); None: every cell alone
    """

    def __call__(
        self,
        model: nn.Module,
        inputs: Tensor,
        target: Target,
        *,
        baseline: Tensor | None,
        item_seeds: Tensor,
        segments: Tensor | None = None,
        **options: Any,
    ) -> Attribution: ...


@dataclass(frozen=True)
class CellKey:
    """Which trained (or control) model is looked at."""

    cell: str
    protocol: str
    fold: int
    model_seed: int
    variant: str = "trained"

    def as_row(self) -> dict[str, Any]:
        return {
            "cell": self.cell,
            "protocol": self.protocol,
            "fold": self.fold,
            "model_seed": self.model_seed,
            "variant": self.variant,
        }

    @property
    def name(self) -> str:
        return f"{self.cell}_{self.protocol}_fold{self.fold}_seed{self.model_seed}_{self.variant}"


@dataclass(frozen=True)
class Items:
    """The items of one part of one fold, in the order of their ids.

    `target_names`: what is explained of each item, per row of `ids` ("predicted", a class name, a mask bin …).
    """

    ids: tuple[str, ...]
    person_ids: tuple[str, ...]
    class_index: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, rows: Sequence[int]) -> Items:
        return Items(*(tuple(column[row] for row in rows) for column in (self.ids, self.person_ids, self.class_index)))


class Explainable(Protocol):
    """How a study presents itself to the engine; picklable, closures are built inside the worker."""

    study: str

    def load(self, key: CellKey) -> nn.Module:
        """The model of `key` in eval mode, parameters frozen."""

    def items(self, key: CellKey, part: str) -> Items: ...

    def inputs(self, key: CellKey, items: Items) -> Tensor:
        """(batch, *shape) on the scale the model reads."""

    def targets(self, key: CellKey, items: Items, model: nn.Module, inputs: Tensor) -> dict[str, Target]:
        """Named targets, e.g. {"predicted": …}."""

    def baseline(self, key: CellKey, kind: str, items: Items, inputs: Tensor, n_draws: int) -> Tensor:
        """(1 or batch, K, *shape)."""

    def truth_masks(self, key: CellKey, items: Items) -> dict[str, Tensor]:
        """Named boolean masks (batch, *shape) of what caused the label; empty when there is no truth."""

    def edit(self, key: CellKey, inputs: Tensor, mask: Tensor, fill: Tensor) -> Tensor:
        """Inputs whose cells under `mask` (0 to 1) are replaced by `fill`."""

    def axes(self, key: CellKey) -> dict[str, Any]:
        """Physical axes of the input: frequencies_hz, times_s, scale …; see ArrayStore's axes.json."""

    def code_modules(self) -> tuple[str, ...]:
        """Modules whose sources decide what this adapter yields; part of every shard's key."""

    def data_key(self, key: CellKey) -> str:
        """Digest of the data and checkpoint that stand behind `key`."""


class ExplainError(ValueError):
    """A model, target or baseline does not fit a method; the message says why."""


@contextmanager
def frozen(model: nn.Module) -> Iterator[nn.Module]:
    """Model in eval mode with frozen parameters inside the block; all as before after it."""
    modes = [(module, module.training) for module in model.modules()]
    grads = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    model.eval()
    model.requires_grad_(False)
    try:
        yield model
    finally:
        for module, training in modes:
            module.training = training
        for parameter, requires_grad in grads:
            parameter.requires_grad_(requires_grad)


def all_rows(inputs: Tensor) -> Tensor:
    """Row numbers when every output row is an item of its own."""
    return torch.arange(len(inputs), device=inputs.device)


def evaluate(model: nn.Module, inputs: Tensor, target: Target, rows: Tensor | None = None) -> Tensor:
    """Target values (batch,) without gradient."""
    with torch.no_grad(), frozen(model):
        return target(model(inputs), all_rows(inputs) if rows is None else rows)


def gradient(model: nn.Module, inputs: Tensor, target: Target, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(d target / d inputs, target values): shapes (batch, *shape) and (batch,).

    Exact because rows do not mix in eval mode, so the sum over the batch has the items' own gradients.
    """
    inputs = inputs.detach().clone().requires_grad_()
    with torch.enable_grad(), frozen(model):
        values = target(model(inputs), all_rows(inputs) if rows is None else rows)
        (grad,) = torch.autograd.grad(values.sum(), inputs)
    return grad.detach(), values.detach()


@dataclass(frozen=True)
class MethodInfo:
    """Registry row of a method: where it lives and what it needs."""

    name: str
    module: str
    needs_baseline: bool = False
    stochastic: bool = False
    hooks: bool = False
    all_targets: bool = False
    control: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    def load(self) -> Method:
        import importlib

        return importlib.import_module(self.module).attribute


def seed_array(seeds: Sequence[int]) -> Tensor:
    """Item seeds as the int64 tensor the contract asks for."""
    return torch.from_numpy(np.asarray(seeds, dtype=np.int64))
