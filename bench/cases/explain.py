"""Attribution against captum, on a small convolutional network."""

from __future__ import annotations

import warnings

import torch
from run import Case
from torch import Tensor, nn

from sonolens.explain import integrated_gradients, saliency
from sonolens.explain.targets import ClassLogit

N_ITEMS, N_STEPS, SIZE = 32, 50, 64


def cases() -> list[Case]:
    """Rows ig_small, saliency_small, kernelshap and occlusion."""
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
        *_removal_cases(),
    ]  # fmt: skip


def _removal_cases() -> list[Case]:
    """Rows kernelshap and occlusion: 64 patches of 8 x 8, 8 maps of 64 x 64.

    Ours includes the preparation of the model, as in `explain.cells`.
    """
    from sonolens.explain import kernel_shap, occlusion, segments
    from sonolens.explain.prepare import prepared

    n_items, n_samples, width = 8, 200, SIZE // 8
    inputs = torch.rand(n_items, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    classes = tuple(number % 10 for number in range(n_items))
    labels, seeds = segments.patches(inputs), torch.arange(n_items)
    torch.manual_seed(1)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(SIZE * SIZE, 10)).eval().double()
    model, exact = _network(), _network().double()

    def peer_shap(net: nn.Module, values: Tensor) -> Tensor:
        from captum.attr import KernelShap

        with warnings.catch_warnings():  # that it goes through the items one by one
            warnings.simplefilter("ignore")
            return KernelShap(net).attribute(
                values, baselines=0, target=torch.tensor(classes), feature_mask=labels[None],
                n_samples=n_samples, perturbations_per_eval=50,
            )  # fmt: skip

    def ours_shap(net: nn.Module, values: Tensor) -> Tensor:
        return kernel_shap.attribute(
            prepared(net, values[:1]), values, ClassLogit(classes),
            baseline=torch.zeros_like(values[:1, None]), item_seeds=seeds, segments=labels,
            n_samples=n_samples, chunk_size=50,
        ).values  # fmt: skip

    def peer_occlusion(net: nn.Module, values: Tensor) -> Tensor:
        from captum.attr import Occlusion

        return Occlusion(net).attribute(
            values, (1, width, width), strides=(1, width, width), baselines=0,
            target=torch.tensor(classes),
        )  # fmt: skip

    def ours_occlusion(net: nn.Module, values: Tensor) -> Tensor:
        return occlusion.attribute(
            prepared(net, values[:1]), values, ClassLogit(classes),
            baseline=torch.zeros_like(values[:1, None]), item_seeds=seeds, window=width,
            stride=width,
        ).values  # fmt: skip

    def agree(peer: object, ours: object, net: nn.Module, tolerance: float) -> str:
        # captum gives every cell the whole value of its patch, we its share
        theirs = peer(net, inputs.double())  # type: ignore[operator]
        mine = ours(net, inputs.double()) * width**2  # type: ignore[operator]
        error = float((theirs - mine).abs().max() / theirs.abs().max())
        assert error < tolerance, f"maps differ by {error:.2g} of the largest value"
        return f"equal within {error:.1g}"

    size = f"{n_items} maps of {SIZE} x {SIZE}, 64 patches"
    return [
        # Both sample; on an additive net all samples lead to the same values. captum's are float32
        # and meet the two ends by a large weight, not exactly.
        Case(
            "kernelshap", "explain", lambda: peer_shap(model, inputs),
            lambda: ours_shap(model, inputs), lambda: agree(peer_shap, ours_shap, flat, 5e-3), 2,
            f"{size}, {n_samples} samples",
        ),
        Case(
            "occlusion", "explain", lambda: peer_occlusion(model, inputs),
            lambda: ours_occlusion(model, inputs),
            lambda: agree(peer_occlusion, ours_occlusion, exact, 1e-6), 1.5,
            f"{size}, default call",
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
