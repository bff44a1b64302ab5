"""Class activation maps: which cells of a layer's output raise the target, enlarged to the input.

With activations a_c of channel c and their gradients g_c = dF/da_c:

gradcam   ReLU(sum_c mean(g_c) a_c): one weight per channel
hirescam  ReLU(sum_c g_c a_c): a weight per cell, so the map shows only what the layer's reader uses
layercam  ReLU(sum_c ReLU(g_c) a_c): per cell, rising cells alone; made for early layers

Differs from captum's LayerGradCam: rectified by default (the paper's equation 2) and enlarged
bilinearly (`interpolation="nearest"` gives captum's `interpolate`).

References
----------
Selvaraju, R. R. et al. (2017). Grad-CAM. ICCV, equations 1 and 2.
Draelos, R. L., Carin, L. (2020). Use HiResCAM instead of Grad-CAM for faithful explanations of
convolutional neural networks. arXiv:2011.08891, section 3.3.
Jiang, P.-T. et al. (2021). LayerCAM. IEEE TIP 30, equations 5 to 7.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from sonolens.explain.contract import Attribution, ExplainError, Target, all_rows, frozen, grouped

Interpolation = Literal["bilinear", "nearest"]
SMOOTH_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


class LayerTooCoarseError(ExplainError):
    """The layer's output has a single cell along an axis, so it says nothing about where."""


def _channel_means(grad: Tensor) -> Tensor:
    return grad.mean(tuple(range(2, grad.ndim)), keepdim=True)


WEIGHTS: dict[str, Callable[[Tensor], Tensor]] = {
    "gradcam": _channel_means,
    "hirescam": lambda grad: grad,
    "layercam": functional.relu,
}


def attribute(
    model: nn.Module,
    inputs: Tensor,
    target: Target,
    *,
    baseline: Tensor | None,
    item_seeds: Tensor,
    segments: Tensor | None = None,
    layer: str | None = None,
    interpolation: Interpolation = "bilinear",
    relu: bool = True,
    weights: Literal["gradcam", "hirescam", "layercam"] = "gradcam",
) -> Attribution:
    """Class activation map.

    Parameters
    ----------
    model, inputs, target, baseline, item_seeds, segments
        See `contract.Method`.
    layer
        Name of the module whose output is the coarse map; None: the model's `gradcam_layer`.
    interpolation
        How the coarse map is enlarged.
    relu
        Cut what lowers the target, as the papers do.
    weights
        Which of the three maps, see the module.

    Returns
    -------
    Attribution
        values (batch, *shape), in units of target times activation; the same for every channel of
        the input.

    Raises
    ------
    ExplainError
        No layer, a layer called more than once.
    LayerTooCoarseError
        Fewer than two cells along an axis of the layer's output.
    """
    chosen = choose_layer(model, layer, weights)
    coarse = coarse_map(model, chosen, inputs, target, weights, relu)
    return Attribution(grouped(enlarged(coarse, inputs, interpolation), segments))


def coarse_map(
    model: nn.Module,
    layer: nn.Module,
    inputs: Tensor,
    target: Target,
    weights: str = "gradcam",
    relu: bool = True,
) -> Tensor:
    """Map of `layer` in its own size, shape (batch, 1, *layer's map shape); see the module."""
    outputs: list[Tensor] = []

    def keep(module: nn.Module, args: object, output: Tensor) -> Tensor:
        outputs.append(output)
        return output.clone()  # an in-place activation behind the layer would overwrite it

    handle = layer.register_forward_hook(keep)
    try:
        with torch.enable_grad(), frozen(model):
            values = target(model(inputs.detach().clone().requires_grad_()), all_rows(inputs))
            activation = _single(outputs, weights)
            (grad,) = torch.autograd.grad(values.sum(), activation)
    finally:
        handle.remove()
    coarse = (WEIGHTS[weights](grad) * activation).sum(1, keepdim=True).detach()
    return functional.relu(coarse) if relu else coarse


def enlarged(coarse: Tensor, inputs: Tensor, interpolation: Interpolation) -> Tensor:
    """Coarse map (batch, 1, *map shape) in the size and shape of the inputs, channels alike.

    Raises
    ------
    ExplainError
        Unknown interpolation; inputs with fewer axes than the map.
    """
    n_axes = coarse.ndim - 2
    if interpolation not in ("bilinear", "nearest") or inputs.ndim <= n_axes:
        raise ExplainError(
            f"map {tuple(coarse.shape)} to inputs {tuple(inputs.shape)} by {interpolation!r}; "
            "need bilinear or nearest, and an input axis per axis of the layer's map"
        )
    mode = interpolation if interpolation == "nearest" else SMOOTH_MODES[n_axes]
    fine = functional.interpolate(coarse, size=inputs.shape[-n_axes:], mode=mode)
    if inputs.ndim == n_axes + 1:  # waveforms (batch, time) have no channel
        return fine.squeeze(1)
    return fine.expand(inputs.shape)


def choose_layer(model: nn.Module, name: str | None, method: str) -> nn.Module:
    """Module called `name`, or the model's `gradcam_layer`. Raises ExplainError without one."""
    if name is not None:
        try:
            return model.get_submodule(name)
        except AttributeError as error:
            raise ExplainError(
                f"{method}: layer {name!r}: {error}; name one of the model's modules"
            ) from error
    layer = getattr(model, "gradcam_layer", None)
    if not isinstance(layer, nn.Module):
        raise ExplainError(
            f"{method}: {type(model).__name__} has no `gradcam_layer`; add the property "
            "or name a layer"
        )
    return layer


def _single(outputs: list[Tensor], method: str) -> Tensor:
    if len(outputs) != 1:
        raise ExplainError(
            f"{method}: the layer was called {len(outputs)} times, need exactly one call"
        )
    (activation,) = outputs
    if activation.ndim < 3 or min(activation.shape[2:]) < 2:
        raise LayerTooCoarseError(
            f"{method}: layer too coarse: its output is {tuple(activation.shape)}, need at least 2 "
            "cells along each axis after (batch, channel): a single cell says nothing about where; "
            "choose an earlier layer"
        )
    return activation
