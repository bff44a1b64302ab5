"""What every metric takes and returns.

score(attributions, context, **options) -> Scores with values (batch,); NaN marks an undefined score
and is counted, an exception fails the stage. Whatever does not depend on the attribution
(coalitions, model drops, noise) is drawn and evaluated once per context and shared by all methods.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import pandas as pd
import torch
from torch import Tensor

from sonolens.explain.contract import Items, Target

Direction = Literal["higher", "lower", "none"]


class ScoreError(ValueError):
    """A metric cannot be computed as asked for; the message says why."""


class Explainer(Protocol):
    """The method under test, with its options, baseline and item seeds; see `Context.explain`."""

    n_layers: int

    def __call__(
        self, inputs: Tensor, target: Target | None = None, weights: str = "trained"
    ) -> Tensor: ...


@dataclass
class Context:
    """Everything about one batch of items that a metric may need.

    inputs      (batch, *shape)
    target      scalar that was explained
    predict     edited inputs (n, *shape), rows (n,) -> target values (n,), no gradient
    edit        inputs (n, *shape), mask (n, *shape), fill (n, *shape) -> edited inputs
    fill        removal values (batch, *shape), e.g. silence
    masks       named truth masks (batch, *shape), boolean; empty when there is no truth
    item_seeds  int64 (batch,)
    explain     (inputs, target or None, weights) -> attribution values (batch, *map shape) of the
                method under test, same item seeds; `weights` is "trained" or "cascade:k" (the k
                topmost layers with parameters drawn anew, 1 = the head alone); `explain.n_layers`
                is the largest k
    scale       (silence, loudest) of the inputs' scale; None where the scale has no such ends
    n_classes   number of logits; None where the target is no class
    cache       results shared by all methods of this batch, filled by `shared`
    """

    items: Items
    inputs: Tensor
    target: Target
    predict: Callable[[Tensor, Tensor], Tensor]
    edit: Callable[[Tensor, Tensor, Tensor], Tensor]
    fill: Tensor
    masks: dict[str, Tensor]
    item_seeds: Tensor
    scale: tuple[float, float] | None = None
    n_classes: int | None = None
    explain: Explainer | None = None
    cache: dict[Any, Any] = field(default_factory=dict)

    def shared(self, key: Any, make: Callable[[], Any]) -> Any:
        """`make()` once per batch for equal `key`, whatever the number of methods."""
        if key not in self.cache:
            self.cache[key] = make()
        return self.cache[key]


@dataclass(frozen=True)
class Scores:
    """values (batch,); `curves`: long table with item_id, x, y and curve, or None."""

    values: Tensor
    curves: pd.DataFrame | None = None


class Metric(Protocol):
    """Signature of every metric; `score` in its module."""

    def __call__(self, attributions: Tensor, context: Context, **options: Any) -> Scores: ...


@dataclass(frozen=True)
class MetricInfo:
    """Registry row of a metric.

    needs       subset of {draws, predict, explain, mask, audio}
    options     every option a user may set, with its default
    fixed       options that make this row differ from another of the same module
    """

    name: str
    module: str
    direction: Direction
    needs: frozenset[str] = frozenset()
    options: dict[str, Any] = field(default_factory=dict)
    fixed: dict[str, Any] = field(default_factory=dict)

    @property
    def explains(self) -> bool:
        """Whether maps are computed anew, which costs most."""
        return "explain" in self.needs

    @property
    def removes(self) -> bool:
        """Whether cells are replaced by a fill."""
        return "predict" in self.needs

    def load(self) -> Metric:
        """Import the metric."""
        import importlib

        metric: Metric = importlib.import_module(self.module).score
        return metric

    def compute(self, attributions: Tensor, context: Context, **options: Any) -> Scores:
        """Score maps (batch, *map shape) with this row's fixed options, `options` and defaults."""
        return self.load()(attributions, context, **(self.options | options), **self.fixed)


def flat_map(attributions: Tensor, inputs: Tensor) -> Tensor:
    """Flatten maps to (batch, cells) in float64, channels summed: a value per (freq, time) cell.

    Films (batch, channel, frame, height, width) have a value per (frame, height, width) cell.

    Raises
    ------
    ScoreError
        The map does not live on the axes of the inputs.
    """
    first = 2 if inputs.ndim >= 4 else 1  # a map may have one channel where the input has several
    fits = attributions.ndim == inputs.ndim and len(attributions) == len(inputs)
    if not fits or attributions.shape[first:] != inputs.shape[first:]:
        raise ScoreError(
            f"map {tuple(attributions.shape)}, need the axes of the inputs {tuple(inputs.shape)}; "
            "this metric edits inputs and needs maps on their axes"
        )
    maps = attributions.double()
    return (maps.sum(1) if maps.ndim >= 4 else maps).flatten(1)


def flat_mask(context: Context, name: str | None) -> Tensor | None:
    """Truth mask (batch, cells), boolean, any channel; None where the data carry no truth.

    Raises
    ------
    ScoreError
        Several masks and no `name`, or a name that is not there.
    """
    if not context.masks:
        return None
    if name is None and len(context.masks) == 1:
        (name,) = context.masks
    if name is None or name not in context.masks:
        raise ScoreError(f"mask: found {name!r}, need one of {', '.join(sorted(context.masks))}")
    mask = context.masks[name].bool()
    return (mask.any(1) if mask.ndim >= 4 else mask).flatten(1)


def positive(attributions: Tensor, context: Context) -> Tensor:
    """Positive part of the maps as (batch, cells): what speaks for the target can lie in a mask."""
    return flat_map(attributions, context.inputs).clamp_min(0)


def undefined(attributions: Tensor) -> Tensor:
    """NaN for every item."""
    return torch.full((len(attributions),), torch.nan, dtype=torch.float64)
