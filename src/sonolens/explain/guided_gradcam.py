"""Guided Grad-CAM: what raises the target (Grad-CAM, coarse) times where from (guided backprop).

ReLU(sum_c mean(dF/da_c) a_c), enlarged to the input, times the gradient whose negative parts are
cut at every ReLU. Differs from captum's: the coarse map is enlarged bilinearly
(`interpolation="nearest"` gives captum's), and a model whose activations escape hooks or whose
layer is 1 x 1 is refused. All-zero maps are possible and are kept.

References
----------
Selvaraju, R. R. et al. (2017). Grad-CAM. ICCV, equations 1 and 2, section 3.2.
Springenberg, J. T. et al. (2015). Striving for simplicity: the all convolutional net. ICLR
workshop, section 3.4.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from sonolens.explain.checks import check_graph, counted_activations
from sonolens.explain.contract import Attribution, ExplainError, Target, all_rows, frozen, grouped

SMOOTH_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


def attribute(
    model: nn.Module,
    inputs: Tensor,
    target: Target,
    *,
    baseline: Tensor | None,
    item_seeds: Tensor,
    segments: Tensor | None = None,
    layer: str | None = None,
    interpolation: Literal["bilinear", "nearest"] = "bilinear",
) -> Attribution:
    """Guided Grad-CAM.

    Parameters
    ----------
    model, inputs, target, baseline, item_seeds, segments
        See `contract.Method`; the model's activations are nn.ReLU modules, each called once.
    layer
        Name of the module whose output is the coarse map; None: the model's `gradcam_layer`.
    interpolation
        How the coarse map is enlarged.

    Returns
    -------
    Attribution
        values (batch, *shape), signed.

    Raises
    ------
    ExplainError
        No layer, or one without at least two cells along each axis; in-place, re-used or functional
        activations.
    """
    chosen = _layer(model, layer)
    # guided backprop first: it says what is wrong with the model's activations
    fine = guided_backprop(model, inputs, target)
    coarse = gradcam(model, chosen, inputs, target)
    mode = interpolation if interpolation == "nearest" else SMOOTH_MODES[coarse.ndim - 2]
    enlarged = functional.interpolate(coarse, size=fine.shape[2:], mode=mode)
    return Attribution(grouped(fine * enlarged, segments), n_evaluations=2)


def gradcam(model: nn.Module, layer: nn.Module, inputs: Tensor, target: Target) -> Tensor:
    """Rectified Grad-CAM map of `layer`, shape (batch, 1, *layer's map shape)."""
    outputs: list[Tensor] = []
    handle = layer.register_forward_hook(lambda module, args, output: outputs.append(output))
    try:
        with torch.enable_grad(), frozen(model):
            values = target(model(inputs.detach().clone().requires_grad_()), all_rows(inputs))
            activation = _single(outputs)
            (grad,) = torch.autograd.grad(values.sum(), activation)
    finally:
        handle.remove()
    weights = grad.mean(tuple(range(2, grad.ndim)), keepdim=True)
    return functional.relu((weights * activation).sum(1, keepdim=True)).detach()


def guided_backprop(model: nn.Module, inputs: Tensor, target: Target) -> Tensor:
    """Gradient whose negative parts are cut at every ReLU, shape (batch, *shape).

    Raises
    ------
    ExplainError
        In-place, re-used or functional activations, or none at all.
    """
    inputs = inputs.detach().clone().requires_grad_()
    with torch.enable_grad(), frozen(model), counted_activations(model) as calls, _cut(model):
        values = target(model(inputs), all_rows(inputs))
        check_graph(values, calls)
        if not calls["ReluBackward0"]:
            raise ExplainError(
                "guided_gradcam: no nn.ReLU module was called; the method is defined for ReLU"
            )
        (grad,) = torch.autograd.grad(values.sum(), inputs)
    return grad.detach()


@contextmanager
def _cut(model: nn.Module) -> Iterator[None]:
    def positive(module: nn.Module, grad_inputs: Any, grad_outputs: Any) -> tuple[Tensor, ...]:
        return (functional.relu(grad_inputs[0]),)

    rectifiers = [module for module in model.modules() if type(module) is nn.ReLU]
    handles = [module.register_full_backward_hook(positive) for module in rectifiers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _layer(model: nn.Module, name: str | None) -> nn.Module:
    if name is not None:
        try:
            return model.get_submodule(name)
        except AttributeError as error:
            raise ExplainError(
                f"guided_gradcam: layer {name!r}: {error}; name one of the model's modules"
            ) from error
    layer = getattr(model, "gradcam_layer", None)
    if not isinstance(layer, nn.Module):
        raise ExplainError(
            f"guided_gradcam: {type(model).__name__} has no `gradcam_layer`; add the property "
            "or name a layer"
        )
    return layer


def _single(outputs: list[Tensor]) -> Tensor:
    if len(outputs) != 1:
        raise ExplainError(
            f"guided_gradcam: the layer was called {len(outputs)} times, need exactly one call"
        )
    (activation,) = outputs
    if activation.ndim < 3 or min(activation.shape[2:]) < 2:
        raise ExplainError(
            f"guided_gradcam: the layer's output is {tuple(activation.shape)}, need at least 2 "
            "cells along each axis after (batch, channel): a single cell says nothing about where; "
            "choose an earlier layer"
        )
    return activation
