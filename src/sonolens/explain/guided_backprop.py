"""Guided back-propagation: the gradient whose negative parts are cut at every ReLU.

Sharp and easy on the eye, but it hardly depends on the weights above the first layers (Adebayo et
al. 2018): read it beside its randomisation score.

References
----------
Springenberg, J. T. et al. (2015). Striving for simplicity: the all convolutional net. ICLR
workshop, section 3.4.
Adebayo, J. et al. (2018). Sanity checks for saliency maps. NeurIPS.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sonolens.explain.checks import check_graph, counted_activations
from sonolens.explain.contract import Attribution, ExplainError, Target, all_rows, frozen, grouped


def attribute(
    model: nn.Module,
    inputs: Tensor,
    target: Target,
    *,
    baseline: Tensor | None,
    item_seeds: Tensor,
    segments: Tensor | None = None,
) -> Attribution:
    """Guided gradient, shape=(batch, *shape), signed; see `contract.Method` and `guided_backprop`.

    Raises
    ------
    ExplainError
        In-place, re-used or functional activations, or no nn.ReLU at all.
    """
    return Attribution(grouped(guided_backprop(model, inputs, target), segments))


def guided_backprop(
    model: nn.Module, inputs: Tensor, target: Target, method: str = "guided_backprop"
) -> Tensor:
    """Gradient whose negative parts are cut at every ReLU, shape (batch, *shape).

    Raises
    ------
    ExplainError
        In-place, re-used or functional activations, or none at all; begins with `method`.
    """
    inputs = inputs.detach().clone().requires_grad_()
    with torch.enable_grad(), frozen(model), counted_activations(model) as calls, _cut(model):
        values = target(model(inputs), all_rows(inputs))
        check_graph(values, calls)
        if not calls["ReluBackward0"]:
            raise ExplainError(
                f"{method}: no nn.ReLU module was called; the method is defined for ReLU"
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
