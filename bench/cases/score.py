"""Metrics against Quantus 0.6, with its own draws and definitions (`compat: quantus`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from run import Case
from torch import Tensor, nn

from cases.explain import network as small_network
from sonolens import rng
from sonolens.explain import integrated_gradients
from sonolens.explain.contract import Items
from sonolens.explain.prepare import prepared
from sonolens.explain.targets import ClassLogit
from sonolens.score import registry
from sonolens.score.contract import Context

N_ITEMS, N_CLASSES, SIZE, SEED = 16, 10, 64, 0
N_COALITIONS, SUBSET, N_METHODS = 100, 64, 9
N_SENSITIVE, N_DRAWS, RADIUS, N_STEPS = 8, 3, 0.2, 50
CLASSES = tuple(number % N_CLASSES for number in range(N_ITEMS))
INSTALL = "uv pip install --no-deps quantus==0.6.0 scikit-image cachetools"


class _Free(nn.Module):
    """Logits that cost next to nothing: sums of a tenth of the cells each."""

    def forward(self, inputs: Tensor) -> Tensor:
        cells = inputs.flatten(1)
        return (
            cells[:, : cells.shape[1] // N_CLASSES * N_CLASSES].unflatten(1, (N_CLASSES, -1)).sum(2)
        )


def cases() -> list[Case]:
    """Rows fc_1, fc_9methods, fc_overhead, sparseness and average_sensitivity."""
    network, free = small_network().requires_grad_(False), _Free().eval()
    inputs = torch.rand(N_ITEMS, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    maps = torch.randn(
        N_METHODS, N_ITEMS, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(1)
    )

    def faithfulness(model: nn.Module, n_methods: int) -> list[Tensor]:
        # anew: its cache would hold the model's drops
        context = _context(prepared(model, inputs[:1]), inputs)
        info = registry.info("faithfulness_scattered")
        options = {"n_coalitions": N_COALITIONS, "subset_size": SUBSET, "legacy_seed": SEED}
        return [
            info.compute(one, context, compat="quantus", **options).values
            for one in maps[:n_methods]
        ]

    def their_faithfulness(model: nn.Module, n_methods: int) -> list[Any]:
        def metric(quantus: Any) -> Any:
            return quantus.FaithfulnessCorrelation(
                nr_runs=N_COALITIONS, subset_size=SUBSET, return_aggregate=False,
                disable_warnings=True,
            )  # fmt: skip

        return [_quantus(metric, model, inputs, one) for one in maps[:n_methods]]

    def own_draws() -> Tensor:
        info = registry.info("faithfulness_scattered")
        options = {"n_coalitions": N_COALITIONS, "subset_size": SUBSET}
        return info.compute(maps[0], _context(free, inputs), **options).values

    def check_overhead() -> str:
        # Draws of our own are a function of the item and cost less; equal under the same draws.
        _equal(lambda: their_faithfulness(free, 1), lambda: faithfulness(free, 1), 1e-5)
        plain = [_plain(free, inputs[item], maps[0, item], item) for item in range(N_ITEMS)]
        return _equal(lambda: [plain], lambda: [own_draws()], 1e-5)

    def sparseness() -> list[Tensor]:
        return [registry.info("sparseness").compute(maps[0], None, compat="quantus").values]  # type: ignore[arg-type]

    def their_sparseness() -> list[Any]:
        return [
            _quantus(lambda quantus: quantus.Sparseness(disable_warnings=True), network, inputs,
                     maps[0])
        ]  # fmt: skip

    few = inputs[:N_SENSITIVE]
    explained = _explained(network, few, CLASSES[:N_SENSITIVE])

    def sensitivity() -> list[Tensor]:
        context = _context(network, few)
        context.explain = _Explainer(prepared(network, few[:1]))
        options = {"n_noise_draws": N_DRAWS, "noise_radius": RADIUS, "legacy_seed": SEED}
        info = registry.info("average_sensitivity")
        return [info.compute(explained, context, compat="quantus", **options).values]

    def their_sensitivity() -> list[Any]:
        def explain(model: nn.Module, inputs: np.ndarray, targets: np.ndarray, **_: Any) -> Any:
            from captum.attr import IntegratedGradients

            values = torch.as_tensor(np.asarray(inputs), dtype=torch.float32)
            return (
                IntegratedGradients(model)
                .attribute(values, target=torch.as_tensor(targets), n_steps=N_STEPS)
                .numpy()
            )

        def metric(quantus: Any) -> Any:
            return quantus.AvgSensitivity(
                nr_samples=N_DRAWS, lower_bound=RADIUS, disable_warnings=True
            )

        return [_quantus(metric, network, few, explained, explain_func=explain)]

    def case(
        name: str, peer: Callable[[], Any], ours: Callable[[], Any], tolerance: float,
        target: float, size: str,
    ) -> Case:  # fmt: skip
        return Case(name, "score", peer, ours, lambda: _equal(peer, ours, tolerance), target, size)

    coalitions = f"{N_ITEMS} maps of {SIZE} x {SIZE}, {N_COALITIONS} coalitions of {SUBSET} cells"
    return [
        case("fc_1", lambda: their_faithfulness(network, 1), lambda: faithfulness(network, 1),
             1e-5, 2, f"{coalitions}, small network"),
        case("fc_9methods", lambda: their_faithfulness(network, N_METHODS),
             lambda: faithfulness(network, N_METHODS), 1e-5, 16,
             f"{N_METHODS} x {coalitions}, small network"),
        Case("fc_overhead", "score", lambda: their_faithfulness(free, 1), own_draws,
             check_overhead, 7, f"{coalitions}, free model, draws of our own"),
        case("sparseness", their_sparseness, sparseness, 1e-5, 6,
             f"{N_ITEMS} maps of {SIZE} x {SIZE}"),
        case("average_sensitivity", their_sensitivity, sensitivity, 1e-3, 1.9,
             f"{N_SENSITIVE} maps, {N_DRAWS} draws, IG of {N_STEPS} steps, small network"),
    ]  # fmt: skip


def _context(model: nn.Module, inputs: Tensor) -> Context:
    classes = CLASSES[: len(inputs)]
    target = ClassLogit(classes)

    def predict(edited: Tensor, rows: Tensor) -> Tensor:
        with torch.no_grad():
            return target(model(edited), rows)

    return Context(
        Items(tuple(map(str, range(len(inputs)))), ("a",) * len(inputs), classes),
        inputs,
        target,
        predict,
        lambda values, mask, fill: torch.lerp(values, fill, mask),
        torch.zeros_like(inputs),
        {},
        torch.arange(len(inputs)),
        n_classes=N_CLASSES,
    )


class _Explainer:
    """Our integrated gradients against zero."""

    n_layers = n_resettable = 0

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __call__(self, inputs: Tensor, target: Any = None, weights: str = "trained") -> Tensor:
        return _explained(self.model, inputs, CLASSES[: len(inputs)])


def _explained(model: nn.Module, inputs: Tensor, classes: tuple[int, ...]) -> Tensor:
    return integrated_gradients.attribute(
        model, inputs, ClassLogit(classes), baseline=torch.zeros(1, 1, *inputs.shape[1:]),
        item_seeds=torch.arange(len(inputs)), n_steps=N_STEPS,
    ).values  # fmt: skip


def _plain(model: nn.Module, values: Tensor, attribution: Tensor, item: int) -> float:
    """The definition with our draws, one coalition at a time."""
    draws = rng.numpy_generator(item, "faithfulness").random((N_COALITIONS, SIZE**2))
    whole = model(values[None])[0, CLASSES[item]]
    sums, drops = [], []
    for chosen in np.argsort(draws, axis=1)[:, :SUBSET]:
        edited = values.flatten().clone()
        edited[torch.from_numpy(chosen)] = 0
        drops.append(float(whole - model(edited.view(1, *values.shape))[0, CLASSES[item]]))
        sums.append(float(attribution.flatten()[torch.from_numpy(chosen)].double().sum()))
    return float(np.corrcoef(sums, drops)[0, 1])


def _quantus(
    make: Callable[[Any], Any], model: nn.Module, inputs: Tensor, maps: Tensor, **call: Any
) -> Any:
    """Scores of Quantus' metric, drawn after `np.random.seed(SEED)`."""
    try:
        import quantus
    except ImportError as error:
        raise AssertionError(f"Quantus is not installed: {INSTALL}") from error
    np.random.seed(SEED)  # noqa: NPY002 - the generator Quantus draws from
    return make(quantus)(
        model=model, x_batch=inputs.numpy(), y_batch=np.array(CLASSES[: len(inputs)]),
        a_batch=maps.numpy().copy(), device="cpu", **call,
    )  # fmt: skip


def _equal(peer: Callable[[], Any], ours: Callable[[], Any], tolerance: float) -> str:
    pairs = zip(peer(), ours(), strict=True)
    error = max(np.abs(np.asarray(a) - b.numpy()).max() for a, b in pairs)
    assert error < tolerance, f"scores differ by {error:.2g}"
    return f"equal within {error:.1g}"
