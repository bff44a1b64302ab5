"""Copies of a model whose topmost layers have weights drawn anew."""

from __future__ import annotations

import copy

from torch import nn

from sonolens import rng
from sonolens.score.compat import QUANTUS_SEED
from sonolens.score.contract import ScoreError


def layers(model: nn.Module) -> list[str]:
    """Names of modules with own parameters, from the head down (reverse order of definition)."""
    own = [
        name
        for name, module in model.named_modules()
        if next(module.parameters(recurse=False), None) is not None
    ]
    return own[::-1]


def resettable(model: nn.Module) -> list[str]:
    """Names of modules that have `reset_parameters`, in order of definition."""
    return [name for name, module in model.named_modules() if hasattr(module, "reset_parameters")]


def randomised(model: nn.Module, weights: str, seed: int) -> nn.Module:
    """Copy of `model` with weights drawn anew as `weights` says; `model` stays as it is.

    Parameters
    ----------
    model
        The trained model.
    weights
        ``cascade:k`` for the k topmost layers, ``bottom_up:k`` for the k lowest, see `cascade`;
        ``quantus_top_down:k`` and ``quantus_bottom_up:k`` as Quantus 0.6 draws them, see
        `quantus_cascade`.
    seed
        Root of the new weights.

    Raises
    ------
    ScoreError
        Unknown scheme, k out of range, or a layer that cannot be initialised anew.
    """
    scheme, _, number = weights.partition(":")
    if scheme in ("cascade", "bottom_up") and number.isdigit():
        return cascade(model, int(number), seed, bottom_up=scheme == "bottom_up")
    if scheme in ("quantus_top_down", "quantus_bottom_up") and number.isdigit():
        return quantus_cascade(model, int(number), bottom_up=scheme == "quantus_bottom_up")
    raise ScoreError(
        f"weights {weights!r}: need trained, cascade:k, bottom_up:k, quantus_top_down:k or "
        "quantus_bottom_up:k"
    )


def quantus_cascade(model: nn.Module, k: int, bottom_up: bool = False) -> nn.Module:
    """Copy of `model` with k layers initialised anew as Quantus 0.6 does.

    Every module that has `reset_parameters` counts, and torch's generator is seeded with 43 before
    each: layers of the same shape get identical weights.

    Raises
    ------
    ScoreError
        k out of range.
    """
    names = resettable(model)
    if not 1 <= k <= len(names):
        raise ScoreError(f"quantus: k = {k}, need 1 to {len(names)} for {type(model).__name__}")
    changed = copy.deepcopy(model)
    for name in (names if bottom_up else names[::-1])[:k]:
        with rng.seeded(QUANTUS_SEED + 1):
            changed.get_submodule(name).reset_parameters()  # type: ignore[operator]
    return changed


def cascade(model: nn.Module, k: int, seed: int, bottom_up: bool = False) -> nn.Module:
    """Copy of `model` whose k topmost layers are initialised anew; `model` stays as it is.

    A layer's new weights are a function of (seed, its name): layers of the same shape differ, and
    the copy for k + 1 extends that for k. Normalisation layers lose their running statistics too.

    Parameters
    ----------
    model
        Its layers with parameters have `reset_parameters`.
    k
        1 = the head alone, len(layers(model)) = all.
    seed
        Root of the new weights.
    bottom_up
        The k lowest layers instead.

    Raises
    ------
    ScoreError
        k out of range, or a layer that cannot be initialised anew.

    References
    ----------
    Adebayo, J. et al. (2018). Sanity checks for saliency maps. NeurIPS, section 4.1 (cascading
    randomisation).
    """
    names = layers(model)
    if not 1 <= k <= len(names):
        raise ScoreError(f"cascade: k = {k}, need 1 to {len(names)} for {type(model).__name__}")
    changed = copy.deepcopy(model)
    for name in (names[::-1] if bottom_up else names)[:k]:
        layer = changed.get_submodule(name)
        reset = getattr(layer, "reset_parameters", None)
        if reset is None:
            raise ScoreError(
                f"cascade: layer {name!r} ({type(layer).__name__}) has no reset_parameters; "
                "add the method, so that its weights can be drawn anew"
            )
        with rng.forked(seed, "cascade", name):
            reset()
    return changed
