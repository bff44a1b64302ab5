"""Attribution against captum, on a small convolutional network."""

from __future__ import annotations

import torch
from run import Case
from torch import Tensor, nn

from sonolens.explain import integrated_gradients, saliency
from sonolens.explain.targets import ClassLogit

N_ITEMS, N_STEPS, SIZE = 32, 50, 64


def cases() -> list[Case]:
    """Rows ig_small and saliency_small."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(N_ITEMS, 1, SIZE, SIZE, generator=generator)
    classes = tuple(number % 10 for number in range(N_ITEMS))
    model, exact = _network(), _network().double()
    seeds = torch.arange(N_ITEMS)

    def peer_ig(net: nn.Module, values: Tensor) -> Tensor:
        from captum.attr import IntegratedGradients

        return IntegratedGradients(net).attribute(
            values, baselines=0, target=list(classes), n_steps=N_STEPS
        )

    def ours_ig(net: nn.Module, values: Tensor) -> Tensor:
        return integrated_gradients.attribute(
            net,
            values,
            ClassLogit(classes),
            baseline=values.new_zeros(1, 1, *values.shape[1:]),
            item_seeds=seeds,
            n_steps=N_STEPS,
        ).values

    def peer_saliency(net: nn.Module, values: Tensor) -> Tensor:
        from captum.attr import Saliency

        values = values.clone().requires_grad_()  # without it, captum warns in every call
        return Saliency(net).attribute(values, target=list(classes), abs=False)

    def ours_saliency(net: nn.Module, values: Tensor) -> Tensor:
        return saliency.attribute(
            net, values, ClassLogit(classes), baseline=None, item_seeds=seeds
        ).values

    def agree(peer: object, ours: object, tolerance: float) -> str:
        # In float32 a rectifier on its edge may switch; both are compared where it does not.
        theirs, mine = peer(exact, inputs.double()), ours(exact, inputs.double())  # type: ignore[operator]
        error = float((theirs - mine).abs().max() / theirs.abs().max())
        assert error < tolerance, f"maps differ by {error:.2g} of the largest value, in float64"
        return f"equal within {error:.1g}, float64"

    size = f"{N_ITEMS} maps of {SIZE} x {SIZE}"
    return [
        Case(
            "ig_small", "explain", lambda: peer_ig(model, inputs), lambda: ours_ig(model, inputs),
            lambda: agree(peer_ig, ours_ig, 1e-6), 3, f"{size}, {N_STEPS} steps, default call",
        ),
        Case(
            "saliency_small", "explain", lambda: peer_saliency(model, inputs),
            lambda: ours_saliency(model, inputs),
            lambda: agree(peer_saliency, ours_saliency, 1e-12), 1, size,
        ),
    ]  # fmt: skip


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(4),
        nn.Flatten(), nn.Linear(512, 10),
    ).eval()  # fmt: skip
