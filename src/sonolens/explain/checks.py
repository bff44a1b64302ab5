"""Check that a model is built so that hooks see every one of its activations.

Guided back-propagation and DeepLIFT change the backward pass of activation modules. A functional,
re-used or in-place activation escapes them, and the map is silently that of another method.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
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


# Autograd nodes, without the number at their end, that are linear in what they are called on.
LINEAR_NODES = frozenset(
    f"{name}Backward"
    for name in (
        "AdaptiveAvgPool2D", "AdaptiveAvgPool3D", "Add", "AddBmm", "Alias",
        "AsStrided",
        "AvgPool2D", "AvgPool3D", "Cat", "Clone", "ConstantPadNd", "Contiguous", "Copy",
        "Cumsum", "Diagonal", "Expand", "Flip", "Gather", "Identity", "Im2Col", "Index",
        "IndexSelect", "MaskedFill", "Mean", "MkldnnAdaptiveAvgPool2D", "Narrow", "Neg",
        "NewZeros", "Permute", "PixelShuffle", "PixelUnshuffle", "ReflectionPad1D",
        "ReflectionPad2D", "ReflectionPad3D", "Repeat", "ReplicationPad1D", "ReplicationPad2D",
        "ReplicationPad3D", "ReshapeAlias", "Roll", "Rsub", "Select", "Slice", "Split",
        "SplitWithSizes", "Squeeze", "Stack", "Sub", "Sum", "T", "ToCopy", "Transpose",
        "Unbind", "Unfold", "UnsafeSplit", "UnsafeView", "Unsqueeze", "UpsampleBicubic2D",
        "UpsampleBilinear2D", "UpsampleLinear1D", "UpsampleNearest1D", "UpsampleNearest2D",
        "UpsampleNearest3D", "UpsampleTrilinear3D", "View", "Where",
    )
)  # fmt: skip
# Nodes that multiply: linear while only one of the inputs at these places depends on the model's.
PRODUCT_NODES = {
    "MulBackward": (0, 1),
    "DivBackward": (0, 1),
    "MmBackward": (0, 1),
    "BmmBackward": (0, 1),
    "MvBackward": (0, 1),
    "DotBackward": (0, 1),
    "AddmmBackward": (1, 2),
    "AddmvBackward": (1, 2),
    "BaddbmmBackward": (1, 2),
    "LinearBackward": (0, 1),
    "ConvolutionBackward": (0, 1),
    "NativeBatchNormBackward": (0, 1),
    "CudnnBatchNormBackward": (0, 1),
}


class InPlaceActivationError(ExplainError):
    """An activation module overwrites its input."""


class ReusedActivationError(ExplainError):
    """An activation module is called more than once in a forward pass."""


class FunctionalActivationError(ExplainError):
    """An activation is called as a function, so no hook sees it."""


class NonLinearError(ExplainError):
    """The model or the target computes something non-linear that the method has no rule for."""


def require_finite(values: Tensor, names: Sequence[str], what: str) -> None:
    """Refuse NaN and infinite numbers: they would spread over the whole map.

    Parameters
    ----------
    values, shape=(1 or batch, ...)
        What is checked.
    names
        Names of the rows; the message gives the first bad one.
    what
        What `values` are, in words.

    Raises
    ------
    ExplainError
        A number is not finite.
    """
    bad = ~values.flatten(1).isfinite().all(1)
    if bad.any():
        row = int(bad.nonzero()[0])
        n_bad = int((~values[row].isfinite()).sum())
        name = names[row] if len(values) == len(names) else "all items"
        raise ExplainError(
            f"item {name}: {what} has {n_bad} of {values[row].numel()} values that are NaN or "
            f"infinite ({int(bad.sum())} of {len(values)} items); repair them in the features stage"
        )


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
def counted_activations(
    model: nn.Module, node_of: Mapping[type[nn.Module], str] = NODE_OF
) -> Iterator[Counter[str]]:
    """Count the calls of activation modules inside the block, by name of their autograd node.

    Parameters
    ----------
    model
        Looked at, not changed.
    node_of
        Which modules are activations, and their nodes.

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
            if type(module) not in node_of:
                continue
            if getattr(module, "inplace", False):
                raise InPlaceActivationError(
                    f"activation {name!r} works in place; build it with inplace=False"
                )
            handles.append(module.register_forward_hook(hook(name, node_of[type(module)])))
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


def check_linear(
    values: Tensor, node_of: Mapping[type[nn.Module], str], rules: Collection[str]
) -> None:
    """Refuse what is not linear in the graph of `values`, apart from nodes with a rule.

    Parameters
    ----------
    values
        Target values, with their graph; parameters frozen.
    node_of
        Modules with a rule and the node they would have: such a node is a functional call.
    rules
        Names of the nodes that stand for modules with a rule.

    Raises
    ------
    FunctionalActivationError
        What a module of `node_of` computes was called as a function.
    NonLinearError
        Any other node that is not known to be linear.
    """
    for node in _walk(values):
        name = node.name()
        if name in rules or name.endswith("AccumulateGrad"):
            continue
        kind = name.rstrip("0123456789")
        functional = [module.__name__ for module, known in node_of.items() if known == name]
        if functional:
            raise FunctionalActivationError(
                f"{name}: called as a function, so no hook sees it; replace it by a module of its "
                f"own (nn.{functional[0]}) or, in a target, leave it out"
            )
        if kind in LINEAR_NODES:
            continue
        if kind in PRODUCT_NODES and not getattr(node, "_saved_training", False):
            sources = [following for following, _ in node.next_functions]
            factors = [sources[place] for place in PRODUCT_NODES[kind] if place < len(sources)]
            divided = kind == "DivBackward" and any(factors[1:])
            if not divided and sum(factor is not None for factor in factors) == 1:
                continue
        allowed = ", ".join(module.__name__ for module in node_of)
        raise NonLinearError(
            f"{name}: the model or the target computes something non-linear without a rule; "
            f"allowed are linear operations and {allowed} as modules; choose "
            "integrated_gradients, which needs no rules"
        )


def _graph_nodes(outputs: Tensor) -> Iterator[str]:
    return (node.name() for node in _walk(outputs))


def _walk(outputs: Tensor) -> Iterator[Any]:
    """Every node of the graph of `outputs` once."""
    waiting: list[Any] = [outputs.grad_fn]
    seen: set[Any] = set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        waiting += [following for following, _ in node.next_functions]
