"""Copies of models that compute the same function faster; explaining evaluates them often."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from sonolens.explain.contract import frozen

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
# Folding changes rounding alone; a convolution that is also read elsewhere changes far more.
MAX_CHANGE = 1e-3


def prepared(model: nn.Module, example: Tensor) -> nn.Module:
    """Copy of `model`: eval mode, frozen, batch norm folded into convolutions, channels last.

    Parameters
    ----------
    model
        Left as it is. Modules keep their names; a folded normalisation becomes the identity.
    example, shape=(batch, *shape)
        Valid inputs; they show which normalisation reads which convolution, and that the copy
        agrees. Where it does not (the output of a convolution is read twice), nothing is folded.

    Returns
    -------
    nn.Module
        The same function up to rounding (1e-12 relative in float64).
    """
    fast = _copy(model)
    pairs = _pairs(fast, example)
    for convolution, norm in pairs:
        both: Any = (fast.get_submodule(convolution), fast.get_submodule(norm))
        fast.set_submodule(convolution, fuse_conv_bn_eval(*both))
        fast.set_submodule(norm, nn.Identity())
    if pairs and not _agree(model, fast, example):
        fast = _copy(model)
    fast = fast.eval().requires_grad_(False)
    # PyTorch's kernels for the CPU read and write this layout without a conversion per layer; it is
    # one of pictures, and refuses the weights of convolutions over films.
    if any(parameter.ndim > 4 for parameter in fast.parameters()):
        return fast
    return fast.to(memory_format=torch.channels_last)  # type: ignore[no-any-return, call-overload]


def _copy(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).eval().requires_grad_(False)


def _pairs(model: nn.Module, example: Tensor) -> list[tuple[str, str]]:
    """Names of (convolution, normalisation that reads its output); both called once."""
    made_by: dict[int, str] = {}
    calls: list[str] = []
    pairs: list[tuple[str, str]] = []
    alive: list[Any] = []  # an id is only unique among living objects
    handles = []

    def convolved(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            alive.append(output)
            made_by[id(output)] = name
            calls.append(name)

        return hook

    def normalised(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            alive.append(inputs[0])
            calls.append(name)
            if id(inputs[0]) in made_by and getattr(module, "running_mean", None) is not None:
                pairs.append((made_by[id(inputs[0])], name))

        return hook

    try:
        for name, module in model.named_modules():
            if type(module) in CONVOLUTIONS:
                handles.append(module.register_forward_hook(convolved(name)))
            elif type(module) in NORMS:
                handles.append(module.register_forward_hook(normalised(name)))
        with torch.no_grad():
            model(example)
    finally:
        for handle in handles:
            handle.remove()
    return [pair for pair in pairs if all(calls.count(name) == 1 for name in pair)]


def _agree(model: nn.Module, fast: nn.Module, example: Tensor) -> bool:
    with torch.no_grad(), frozen(model):
        wanted, found = model(example), fast(example)
    return bool((wanted - found).abs().max() <= MAX_CHANGE * wanted.abs().max())
