"""What every metric takes and returns.

score(attributions, context, **options) -> Scores with values (batch,); NaN marks an undefined score and is
counted, an exception fails the stage. Whatever does not depend on the attribution (coalitions, model
drops, noise) is drawn and evaluated once per context and shared by all methods.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import pandas as pd
from torch import Tensor

from sonolens.explain.contract import Items, Target

Direction = Literal["higher", "lower", "none"]


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
    explain     (inputs, target or None, weights) -> attribution values (batch, *map shape) of the method under
                test, same item seeds; `weights` is "trained" or "cascade:k" (the k topmost layers with parameters
                drawn anew, 1 = the head alone); `explain.n_layers` is the largest k
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
    n_classes: int | None = None
    explain: Any = None
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
    def __call__(self, attributions: Tensor, context: Context, **options: Any) -> Scores: ...


@dataclass(frozen=True)
class MetricInfo:
    """Registry row of a metric. `needs`: subset of {draws, predict, explain, mask, audio}."""

    name: str
    module: str
    direction: Direction
    needs: frozenset[str] = frozenset()
    options: dict[str, Any] = field(default_factory=dict)

    def load(self) -> Metric:
        import importlib

        return importlib.import_module(self.module).score
