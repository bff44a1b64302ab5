"""What an input is compared with. On a dB scale zero is not silence, so no baseline is the default.

A scale is axes["scale"]. Of levels: `min` is `silence`, `max` the loudest value, `range_db` the dB
between them. A waveform's has `silence` (0) and no `range_db`, a picture's `black`.

References
----------
Sturmfels, P., Lundberg, S., Lee, S.-I. (2020). Visualizing the impact of feature attribution
baselines. Distill. Erion, G. et al. (2021). Improving performance of deep learning models with
axiomatic attribution priors and expected gradients. Nature Machine Intelligence 3 (several
baselines, averaged).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sonolens import rng
from sonolens.explain.contract import ExplainError

KINDS = (
    "silence",
    "legacy_zero",
    "noise_floor",
    "low_energy",
    "train_mean",
    "train_mean_map",
    "black",
)
LEGACY = "legacy_zero"
OF_TRAINING = ("train_mean", "train_mean_map")
MAX_LOUDER_SHARE = 0.95
FLOOR_QUANTILE = 0.10
FLOOR_SPREAD_DB = 3.0
LOW_ENERGY_QUANTILE = 0.20


def make(
    kind: str,
    inputs: Tensor,
    axes: dict[str, Any],
    *,
    item_seeds: Sequence[int] | None = None,
    n_draws: int = 1,
    train_mean: Tensor | None = None,
) -> Tensor:
    """Baseline by name.

    Parameters
    ----------
    kind
        One of KINDS.
    inputs, shape=(batch, *shape)
        Inputs on the scale of `axes`.
    axes
        Axes of the inputs, with `scale`.
    item_seeds
        A seed per item, for the kinds that draw.
    n_draws
        Number K of draws, for the kinds that draw.
    train_mean, shape=(*shape)
        Mean input of the training fold, for the kinds OF_TRAINING.

    Returns
    -------
    Tensor, shape=(1 or batch, K, *shape)

    Raises
    ------
    ExplainError
        Unknown kind, or what the kind needs was not given.
    """
    if kind == "silence":
        return silence(inputs, axes)
    if kind == "black":
        return black(inputs, axes)
    if kind == LEGACY:
        return legacy_zero(inputs, axes)
    if kind == "noise_floor":
        if item_seeds is None:
            raise ExplainError(
                "baseline noise_floor: no item_seeds; it draws, so give a seed per item"
            )
        return noise_floor(inputs, axes, item_seeds, n_draws)
    if kind == "low_energy":
        return low_energy(inputs, axes)
    if kind in OF_TRAINING:
        if train_mean is None or train_mean.shape != inputs.shape[1:]:
            found = None if train_mean is None else tuple(train_mean.shape)
            raise ExplainError(
                f"baseline {kind}: found {found}, need a map {tuple(inputs.shape[1:])}"
            )
        mean = train_mean.to(inputs)
        return (flat_mean(mean, axes) if kind == "train_mean" else mean)[None, None]
    raise ExplainError(f"baseline {kind!r}: unknown; need one of {', '.join(KINDS)}")


def silence(inputs: Tensor, axes: dict[str, Any]) -> Tensor:
    """Silence everywhere, the lowest value of a scale of levels, shape (1, 1, *shape)."""
    return _constant(inputs, _scale(axes, "silence"))


def black(inputs: Tensor, axes: dict[str, Any]) -> Tensor:
    """Black everywhere, the lowest value of a scale of grey, shape (1, 1, *shape)."""
    return _constant(inputs, _scale(axes, "black"))


def legacy_zero(inputs: Tensor, axes: dict[str, Any]) -> Tensor:
    """0 dB everywhere, shape (1, 1, *shape): the loudest value, once used as if it were silence."""
    _scale(axes, "range_db")  # 0 dB is a level; pictures and waveforms have none
    return _constant(inputs, _scale(axes, "max"))


def flat_mean(mean: Tensor, axes: dict[str, Any]) -> Tensor:
    """Mean map (*shape) without its shape: every band its mean over time, a picture one grey."""
    if "black" in axes.get("scale", {}):
        return mean.mean().expand_as(mean)
    return mean.mean(-1, keepdim=True).expand_as(mean)


def low_energy(inputs: Tensor, axes: dict[str, Any]) -> Tensor:
    """Input without its louder cells, shape (batch, 1, *shape).

    Cells above the 20 % quantile of their item are set to silence. After audio-xai's
    `low_energy_mask`, which took the quantile over a batch and set them to 0 dB.
    """
    limit = torch.quantile(inputs.flatten(1).double(), LOW_ENERGY_QUANTILE, dim=1)
    quiet = inputs <= limit.view(-1, *[1] * (inputs.ndim - 1))
    _scale(axes, "range_db")  # only levels are quiet or loud
    return torch.where(quiet, inputs, _scale(axes, "silence")).unsqueeze(1)


def noise_floor(
    inputs: Tensor, axes: dict[str, Any], item_seeds: Sequence[int], n_draws: int
) -> Tensor:
    """Draws of each recording's own noise floor, shape (batch, n_draws, *shape).

    Every cell is the 10 % quantile over time of its band plus 3 dB times a standard normal number,
    kept inside the scale. The last axis of the inputs is time.
    """
    low, high = _scale(axes, "min"), _scale(axes, "max")
    spread = FLOOR_SPREAD_DB * (high - low) / _scale(axes, "range_db")
    draws = []
    for item_floor, seed in zip(floor_level(inputs), item_seeds, strict=True):
        generator = rng.torch_generator(int(seed), "noise_floor")
        shape = (n_draws, *inputs.shape[1:])
        noise = torch.randn(shape, generator=generator, dtype=torch.float64).to(inputs.device)
        draws.append((item_floor + spread * noise).clamp(low, high))
    return torch.stack(draws).to(inputs.dtype)


def floor_level(inputs: Tensor) -> Tensor:
    """10 % quantile over time of every band, shape (batch, *shape but 1 frame), float64."""
    return torch.quantile(inputs.double(), FLOOR_QUANTILE, dim=-1, keepdim=True)


def loudness(inputs: Tensor, baseline: Tensor, axes: dict[str, Any]) -> tuple[int, int]:
    """(cells with sound where the mean baseline is louder than the input, cells with sound).

    A cell has sound when it lies above silence. (0, 0) where the scale has none: a waveform or a
    grey picture has no order of loudness.
    """
    if not {"silence", "range_db"} <= set(axes.get("scale", {})):
        return 0, 0
    sounding = inputs > _scale(axes, "silence")
    louder = baseline.to(inputs).mean(1) > inputs
    return int((louder & sounding).sum()), int(sounding.sum())


def check_loudness(inputs: Tensor, baseline: Tensor, kind: str, axes: dict[str, Any]) -> None:
    """Refuse a baseline that is louder than what it is compared with.

    Parameters
    ----------
    inputs, shape=(batch, *shape)
    baseline, shape=(1 or batch, K, *shape)
    kind
        Name of the baseline; ``legacy_zero`` is loud on purpose.
    axes
        Axes of the inputs, with `scale`.

    Raises
    ------
    ExplainError
        Louder than the inputs in more than 95 % of the cells with sound.
    """
    check_counts(*loudness(inputs, baseline, axes), kind)


def check_counts(n_louder: int, n_sounding: int, kind: str) -> None:
    """`check_loudness` from counts that were summed over several batches."""
    if kind != LEGACY and n_sounding and n_louder > MAX_LOUDER_SHARE * n_sounding:
        raise ExplainError(
            f"baseline {kind!r}: louder than the input in {n_louder / n_sounding:.1%} of the cells "
            "with sound; an attribution against it has the wrong sign. Use silence, check the "
            "scale in axes.json, or ask for legacy_zero if that is what you want to show"
        )


def _constant(inputs: Tensor, value: float) -> Tensor:
    return torch.full_like(inputs[:1], value).unsqueeze(1)


def _scale(axes: dict[str, Any], end: str) -> float:
    scale = axes.get("scale", {})
    if end not in scale:
        raise ExplainError(
            f"axes.json: scale has {sorted(scale)}, need {end!r}; write it in the features stage"
        )
    return float(scale[end])
