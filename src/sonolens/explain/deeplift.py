"""DeepLIFT, rescale rule: which input differences made the target differ from a reference.

A_i = (x_i - b_i) m_i with multipliers m handed back from the target: linear layers pass them on as
they pass gradients, an activation y = f(z) multiplies by (y_x - y_b) / (z_x - z_b), or by f'(z_x)
where the two z are equal up to rounding. Max pooling gives the difference of a window to where its
larger maximum lies, so sums stay exact. The map sums to F(x) - F(b), up to rounding.

deeplift        one reference, the mean of the K baselines
deeplift_shap   the mean map over K references

The references run once without gradient and are shared by all items where the baseline is. The
items' graph is built once and serves every reference: only backward passes grow with K.

Allowed modules: linear layers, convolutions, batch normalisation, average and adaptive average
pooling, padding, shaping, dropout; ReLU, LeakyReLU, ReLU6, ELU, GELU, SiLU, Sigmoid, Tanh,
Softplus, MaxPool1d, MaxPool2d, each called once and as a module. Softmax, GRU, LSTM, attention,
layer normalisation and every functional activation are refused by name.

Differs from captum's (0.9) in three points, each of which costs captum's maps the sum: max pooling
directly behind an activation (there the activation reads the plain gradient, not what the pooling
rule hands back; a copy between the two makes both equal); overlapping windows, as in ResNet (what
windows give to a cell they share is added up; captum's `max_unpool` keeps the last alone); GELU,
SiLU and ReLU6 have the rule (captum silently takes the gradient).

References
----------
Shrikumar, A., Greenside, P., Kundaje, A. (2017). Learning important features through propagating
activation differences. ICML, equations 1 to 3, section 3.5.1.
Ancona, M. et al. (2018). Towards better understanding of gradient-based attribution methods for
deep neural networks. ICLR, proposition 2 (as a modified gradient).
Lundberg, S. M., Lee, S.-I. (2017). NeurIPS, section 4.2 (Deep SHAP: mean over references).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from sonolens.explain.checks import NODE_OF, NonLinearError, check_linear, counted_activations
from sonolens.explain.contract import (
    Attribution,
    ExplainError,
    Target,
    completeness_error,
    even_chunks,
    frozen,
    grouped,
    require_baseline,
)

POOLS: dict[type[nn.Module], Any] = {
    nn.MaxPool1d: functional.max_pool1d,
    nn.MaxPool2d: functional.max_pool2d,
}
RULE_NODE_OF: dict[type[nn.Module], str] = NODE_OF | {
    nn.Sigmoid: "SigmoidBackward0",
    nn.Tanh: "TanhBackward0",
    nn.Softplus: "SoftplusBackward0",
    nn.MaxPool2d: "MaxPool2DWithIndicesBackward0",
    nn.MaxPool1d: "MaxPool2DWithIndicesBackward0",
}
LINEAR_MODULES = (
    nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d,
    nn.ConvTranspose3d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.AvgPool1d, nn.AvgPool2d,
    nn.AvgPool3d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.Flatten,
    nn.Unflatten, nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.Upsample,
    nn.ZeroPad1d, nn.ZeroPad2d, nn.ConstantPad1d, nn.ConstantPad2d, nn.ReflectionPad1d,
    nn.ReflectionPad2d, nn.ReplicationPad1d, nn.ReplicationPad2d, nn.Sequential, nn.ModuleList,
    nn.ModuleDict,
)  # fmt: skip
# Below this the quotient of differences is rounding error.
MIN_CHANGE = {torch.float64: 1e-10}
MIN_CHANGE_FLOAT32 = 1e-6


def attribute(
    model: nn.Module,
    inputs: Tensor,
    target: Target,
    *,
    baseline: Tensor | None,
    item_seeds: Tensor,
    segments: Tensor | None = None,
    chunk_size: int = 32,
    reference: Literal["mean", "each"] = "mean",
) -> Attribution:
    """DeepLIFT with the rescale rule.

    Parameters
    ----------
    model, inputs, target, baseline, item_seeds, segments
        See `contract.Method`; for models and targets see the module.
    chunk_size
        Inputs per forward pass of the references, at least one reference of all items; what
        activations put out is kept for so many.
    reference
        "mean": one reference, the mean of the K baselines. "each": mean of the K maps.

    Returns
    -------
    Attribution
        values (batch, *shape) in units of the target, with the completeness error.

    Raises
    ------
    ExplainError
        No or ill-shaped baseline; chunk_size below 1; in-place, re-used or functional activations.
    NonLinearError
        A module, function or target that is not linear and has no rule.
    """
    name = "deeplift" if reference == "mean" else "deeplift_shap"
    if chunk_size < 1:
        raise ExplainError(f"{name}: chunk_size {chunk_size}; need at least 1")
    inputs = inputs.detach()
    starts = require_baseline(baseline, inputs, name).detach()
    if reference == "mean":
        starts = starts.mean(1, keepdim=True) if starts.stride(0) else _mean_of_shared(starts)
    _check_modules(model, name)
    n_items, n_draws = starts.shape[:2]
    items = torch.arange(n_items, device=inputs.device)
    total = torch.zeros(inputs.shape, dtype=torch.float64, device=inputs.device)
    ends = inputs.clone().requires_grad_()
    with torch.enable_grad(), frozen(model):
        with _rules(model) as rules:
            values = target(model(ends), items)
        check_linear(values, RULE_NODE_OF, RULE_NODES)
        change = values.detach().double()
        if n_items == 1 or starts.stride(0) == 0:
            starts = starts[:1]  # the baseline is shared: its rows are evaluated once
        for draws in even_chunks(n_draws, max(1, chunk_size // len(starts))):
            some = starts[:, draws].transpose(0, 1)
            outputs = rules.refer(model, some)
            for draw, output in enumerate(outputs):
                expanded = output.expand(n_items, *output.shape[1:])
                change -= target(expanded, items).double() / n_draws
                total += (inputs - some[draw]) * rules.multipliers(values.sum(), ends, draw)
    maps = (total / n_draws).to(inputs.dtype)
    return Attribution(
        grouped(maps, segments),
        completeness_error=completeness_error(maps, change),
        n_evaluations=n_draws + 1,
    )


def _mean_of_shared(starts: Tensor) -> Tensor:
    return starts[:1].mean(1, keepdim=True).expand(len(starts), *[-1] * (starts.ndim - 1))


def _check_modules(model: nn.Module, method: str) -> None:
    """Refuse modules of PyTorch that are neither linear nor have a rule; the graph shows others."""
    for name, module in model.named_modules():
        kind = type(module)
        known = kind in RULE_NODE_OF or isinstance(module, LINEAR_MODULES)
        if kind.__module__.startswith("torch.nn.") and not known:
            raise NonLinearError(
                f"{method}: module {name!r} is a {kind.__name__}, which has no rule; see "
                "sonolens.explain.deeplift for those allowed, or choose integrated_gradients"
            )
        pool = kind in POOLS and (module.return_indices, module.ceil_mode)
        if pool and any(pool):
            raise NonLinearError(f"{method}: {name!r}: no rule for return_indices or ceil_mode")


@dataclass
class _Rules:
    """Modules with a rule: what they read and put out, for the items and for the references.

    references   by module name, (n_draws, 1 or batch, *shape) each of input and output
    now          the same of one reference, while a backward pass runs
    """

    modules: dict[str, nn.Module]
    references: dict[str, tuple[Tensor, ...]] = field(default_factory=dict)
    now: dict[str, tuple[Tensor, ...]] = field(default_factory=dict)

    def refer(self, model: nn.Module, starts: Tensor) -> Tensor:
        """Run the references (n_draws, n, *shape); outputs (n_draws, n, *output shape)."""
        shape = starts.shape[:2]

        def keep(name: str) -> Any:
            def hook(module: nn.Module, args: Any, output: Tensor) -> None:
                kept = (args[0], *_pooled(module, args[0], output))
                self.references[name] = tuple(_split(value, shape) for value in kept)

            return hook

        handles = [self.modules[name].register_forward_hook(keep(name)) for name in self.modules]
        try:
            with torch.no_grad():
                outputs = model(starts.flatten(0, 1))
        finally:
            for handle in handles:
                handle.remove()
        return _split(outputs, shape)

    def multipliers(self, value: Tensor, ends: Tensor, draw: int) -> Tensor:
        """Multipliers of the input for reference `draw` of the last `refer`, (batch, *shape)."""
        self.now = {
            name: tuple(one[draw] for one in kept) for name, kept in self.references.items()
        }
        try:
            (grad,) = torch.autograd.grad(value, ends, retain_graph=True)
        finally:
            self.now = {}
        return grad


@contextmanager
def _rules(model: nn.Module) -> Iterator[_Rules]:
    """Put rules behind modules for the forward pass in the block; the graph keeps them."""
    modules = {name: one for name, one in model.named_modules() if type(one) in RULE_NODE_OF}
    rules = _Rules(modules)

    def replace(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
            rule: Any = _MaxPool if type(module) in POOLS else _Rescale
            changed: Tensor = rule.apply(args[0], module, name, rules)
            return changed

        return hook

    with counted_activations(model, RULE_NODE_OF):
        handles = [one.register_forward_hook(replace(name)) for name, one in modules.items()]
        try:
            yield rules
        finally:
            for handle in handles:
                handle.remove()


def _split(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """First axis as axes of `shape`."""
    return values.view(*shape, *values.shape[1:])


def _pooled(module: nn.Module, read: Tensor, output: Tensor) -> tuple[Tensor, ...]:
    """Output, for max pooling with the places of the maxima, flat over the plane."""
    if type(module) not in POOLS:
        return (output,)
    pool: Any = module
    found: tuple[Tensor, Tensor] = POOLS[type(module)](
        read, pool.kernel_size, pool.stride, pool.padding, pool.dilation, return_indices=True
    )
    return found


def _quotient(change_out: Tensor, change_in: Tensor, otherwise: Tensor) -> Tensor:
    """change_out / change_in, `otherwise` where the inputs are equal up to rounding."""
    equal = change_in.abs() < MIN_CHANGE.get(change_in.dtype, MIN_CHANGE_FLOAT32)
    # what a division by 0 puts out is not chosen; masking it before would lose the memory layout
    return torch.where(equal, otherwise, change_out / change_in)


class _Rescale(torch.autograd.Function):
    """An activation whose backward pass multiplies by the quotient of differences."""

    @staticmethod
    def forward(ctx: Any, read: Tensor, module: nn.Module, name: str, rules: _Rules) -> Tensor:
        with torch.enable_grad():
            leaf = read.detach().requires_grad_()
            output: Tensor = module.forward(leaf)  # not called: hooks run once
            (slope,) = torch.autograd.grad(output.sum(), leaf)
        output = output.detach()
        ctx.of, ctx.rules = name, rules
        ctx.save_for_backward(read.detach(), output, slope)
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        read, output, slope = ctx.saved_tensors
        read_b, output_b = ctx.rules.now[ctx.of]
        return grad * _quotient(output - output_b, read - read_b, slope), None, None, None


class _MaxPool(torch.autograd.Function):
    """Max pooling: a window's difference goes to the place of the larger of the two maxima."""

    @staticmethod
    def forward(ctx: Any, read: Tensor, module: nn.Module, name: str, rules: _Rules) -> Tensor:
        output, places = _pooled(module, read.detach(), read)
        ctx.of, ctx.rules, ctx.module = name, rules, module
        ctx.save_for_backward(read.detach(), output, places)
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        read, output, places = ctx.saved_tensors
        read_b, output_b, places_b = ctx.rules.now[ctx.of]
        higher = torch.maximum(output, output_b)
        given = _unpooled(ctx.module, grad * (higher - output_b), read, places)
        given += _unpooled(ctx.module, grad * (output - higher), read, places_b.expand_as(places))
        slope = _unpooled(ctx.module, grad, read, places)
        return _quotient(given, read - read_b, slope), None, None, None


def _unpooled(pool: Any, values: Tensor, read: Tensor, places: Tensor) -> Tensor:
    """Values of windows at their places in the plane, added up, in the shape of `read`."""
    settings = [pool.kernel_size, pool.stride, pool.padding, pool.dilation]
    if type(pool) is nn.MaxPool2d:
        pairs = [_pair(one) for one in settings]
        found: Tensor = torch.ops.aten.max_pool2d_with_indices_backward(
            values, read, *pairs, False, places
        )
        return found
    flat = torch.zeros_like(read)
    return flat.scatter_add_(-1, places, values)


def _pair(setting: Any) -> list[int]:
    return [setting, setting] if isinstance(setting, int) else list(setting)


RULE_NODES = frozenset(f"{rule.__name__}Backward" for rule in (_Rescale, _MaxPool))
