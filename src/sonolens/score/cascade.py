"""Copies of a model whose topmost layers have weights drawn anew."""

from __future__ import annotations

import copy

from torch import nn

from sonolens import rng
from sonolens.score.contract import ScoreError


def layers(model: nn.Module) -> list[str]:
    """Names of modules with own parameters, from the head down (reverse order of definition)."""
    own = [
        name
        for name, module in model.named_modules()
        if next(module.parameters(recurse=False), None) is not None
    ]
    return own[::-1]


def cascade(model: nn.Module, k: int, seed: int) -> nn.Module:
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
    for name in names[:k]:
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
