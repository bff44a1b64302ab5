"""Check that a model is built so that hooks see every one of its activations.

Guided back-propagation and DeepLIFT change the backward pass of activation modules. A functional,
re-used or in-place activation escapes them, and the map is silently that of another method.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sonolens.explain.contract import ExplainError, frozen

# Module of an activation -> name of its node in the autograd graph.
NODE_OF: dict[type[nn.Module], str] = {
    nn.ReLU: "ReluBackward0",
    nn.LeakyReLU: "LeakyReluBackward0",
    nn.ReLU6: "HardtanhBackward0",
    nn.ELU: "EluBackward0",
    nn.GELU: "GeluBackward0",
    nn.SiLU: "SiluBackward0",
}


class InPlaceActivationError(ExplainError):
    """An activation module overwrites its input."""


class ReusedActivationError(ExplainError):
    """An activation module is called more than once in a forward pass."""


class FunctionalActivationError(ExplainError):
    """An activation is called as a function, so no hook sees it."""


def assert_explainable(model: nn.Module, example: Tensor) -> None:
    """Refuse a model whose activations escape hooks; the model is left as it was.

    Parameters
    ----------
    model
        Any model that puts out one tensor.
    example, shape=(batch, *shape)
        Valid inputs; one item is enough.

    Raises
    ------
    InPlaceActivationError, ReusedActivationError, FunctionalActivationError
        Named after what was found; the message names the module and the repair.
    """
    with torch.enable_grad(), frozen(model), counted_activations(model) as calls:
        outputs = model(example.detach().clone().requires_grad_())
    check_graph(outputs, calls)


@contextmanager
def counted_activations(model: nn.Module) -> Iterator[Counter[str]]:
    """Count the calls of activation modules inside the block, by name of their autograd node.

    Raises
    ------
    InPlaceActivationError, ReusedActivationError
        At once, or when the second call happens.
    """
    calls: Counter[str] = Counter()
    seen: set[str] = set()
    handles = []

    def hook(name: str, node: str) -> Any:
        def count(module: nn.Module, inputs: Any, output: Any) -> None:
            if name in seen:
                raise ReusedActivationError(
                    f"activation {name!r} is called twice; give each call a module of its own"
                )
            seen.add(name)
            calls[node] += 1

        return count

    try:
        for name, module in model.named_modules():
            if type(module) not in NODE_OF:
                continue
            if getattr(module, "inplace", False):
                raise InPlaceActivationError(
                    f"activation {name!r} works in place; build it with inplace=False"
                )
            handles.append(module.register_forward_hook(hook(name, NODE_OF[type(module)])))
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def check_graph(outputs: Tensor, calls: Counter[str]) -> None:
    """Compare the activations in the graph of `outputs` with the module calls that were counted.

    Raises
    ------
    FunctionalActivationError
        The graph holds more activations than modules were called.
    """
    nodes = Counter(name for name in _graph_nodes(outputs) if name in NODE_OF.values())
    for name, n_nodes in sorted(nodes.items()):
        if n_nodes > calls[name]:
            kind = next(module.__name__ for module, node in NODE_OF.items() if node == name)
            raise FunctionalActivationError(
                f"{n_nodes} activations of kind {kind} were computed, {calls[name]} of them "
                f"by modules; replace the functional ones by nn.{kind}(), so that hooks see them"
            )


def _graph_nodes(outputs: Tensor) -> Iterator[str]:
    waiting: list[Any] = [outputs.grad_fn]
    seen: set[Any] = set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node.name()
        waiting += [following for following, _ in node.next_functions]
