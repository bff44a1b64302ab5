"""What every metric takes and returns.

score(attributions, context, **options) -> Scores with values (batch,); NaN marks an undefined score
and is counted, an exception fails the stage. Whatever does not depend on the attribution
(coalitions, model drops, noise) is drawn and evaluated once per context and shared by all methods.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from sonolens.explain.contract import Items, Target
from sonolens.explain.targets import ClassLogit
from sonolens.intervene import spectral

Direction = Literal["higher", "lower", "none"]


class ScoreError(ValueError):
    """A metric cannot be computed as asked for; the message says why."""


class Explainer(Protocol):
    """The method under test, with its options, baseline and item seeds; see `Context.explain`.

    n_layers        layers of the model with own parameters
    n_resettable    modules that have `reset_parameters`: the layers Quantus counts
    """

    n_layers: int
    n_resettable: int

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
                method under test, same item seeds; `weights` is "trained" or how they are drawn
                anew, e.g. "cascade:1" for the head alone, see `cascade.randomised`
    scale       (silence, loudest) of the inputs' scale; None where the scale has no such ends
    n_classes   number of logits; None where the target is no class
    cache       results shared by all methods of this batch, filled by `shared`
    own         results shared by metrics of one method, baseline and target, filled by `once`
    probabilities
                edited inputs (n, *shape) -> (n, n_classes), no gradient; None where the target is
                no class
    listen      masks (batch, freq, time) -> waveforms (batch, time) of the items with only the
                cells of the mask; None where there is no way back to sound
    analyse     waveforms (n, time) -> inputs (n, *shape), the study's front end
    axes        physical axes of the inputs
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
    own: dict[Any, Any] = field(default_factory=dict)
    probabilities: Callable[[Tensor], Tensor] | None = None
    listen: Callable[[Tensor], Tensor] | None = None
    analyse: Callable[[Tensor], Tensor] | None = None
    axes: dict[str, Any] = field(default_factory=dict)

    def shared(self, key: Any, make: Callable[[], Any]) -> Any:
        """`make()` once per batch for equal `key`, whatever the number of methods."""
        if key not in self.cache:
            self.cache[key] = make()
        return self.cache[key]

    def once(self, key: Any, attributions: Tensor, make: Callable[[], Any]) -> Any:
        """`make()` once for equal `key` and maps of a method, whatever the number of metrics."""
        content = np.ascontiguousarray(attributions.detach().cpu().numpy())
        full = (key, hashlib.md5(content.data, usedforsecurity=False).hexdigest())
        if full not in self.own:
            self.own[full] = make()
        return self.own[full]

    def classes(self, metric: str) -> tuple[Callable[[Tensor], Tensor], Tensor]:
        """`probabilities`, and the class of each item, shape (batch,).

        Raises
        ------
        ScoreError
            The target is no class.
        """
        if self.probabilities is None or not isinstance(self.target, ClassLogit):
            raise ScoreError(
                f"{metric}: target {type(self.target).__name__}; needs a class logit, since it "
                "compares probabilities"
            )
        return self.probabilities, torch.tensor(self.target.class_index)

    def resynthesise(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs (batch, *shape) of the sound that a map keeps, and of the sound it leaves over.

        The soft mask M is the positive part over its 99 % quantile, clipped to [0, 1]; the
        recording's complex spectrum times M (or 1 - M), phase kept, becomes a waveform and passes
        the front end once more.

        Parameters
        ----------
        maps, shape=(batch, [channel,] freq, time)
            Signed maps on the axes of the inputs.

        Raises
        ------
        ScoreError
            No way back to sound, or maps on other axes.
        """
        if self.listen is None or self.analyse is None:
            raise ScoreError("no way from a map back to sound; the metric needs `audio`")
        planes = flat_map(maps, self.inputs).view(len(maps), *self.inputs.shape[-2:])
        masks = torch.stack([spectral.top_share(plane) for plane in planes])
        kept, removed = (self.analyse(self.listen(mask)) for mask in (masks, 1 - masks))
        return kept, removed


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

    needs       subset of {draws, predict, explain, mask, audio, time}; data without truth masks,
                without a way back to sound, or whose last axis is not time have no such scores
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
        """Whether cells are replaced by a fill; in sound they fall silent instead."""
        return "predict" in self.needs and "audio" not in self.needs

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
    """Positive part of the maps as (batch, cells), on the CPU: what speaks for the target."""
    return flat_map(attributions, context.inputs).clamp_min(0).cpu()


def signed_and_truth(
    attributions: Tensor, context: Context, mask: str | None
) -> tuple[Tensor, Tensor] | None:
    """Maps and truth mask, (batch, cells) both, on the CPU; None where there is no truth.

    Raises
    ------
    ScoreError
        Unknown mask, or a map on other axes than the input.
    """
    truth = flat_mask(context, mask)
    return None if truth is None else (flat_map(attributions, context.inputs).cpu(), truth.cpu())


def undefined(attributions: Tensor) -> Tensor:
    """NaN for every item."""
    return torch.full((len(attributions),), torch.nan, dtype=torch.float64)
