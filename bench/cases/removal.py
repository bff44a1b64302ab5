"""Attribution by removal against captum, on the same small net as `explain`."""

from __future__ import annotations

import warnings

import torch
from run import Case
from torch import Tensor, nn

from cases.explain import SIZE, SMALL, network
from sonolens import rng
from sonolens.explain import kernel_shap, occlusion, segments
from sonolens.explain.prepare import prepared
from sonolens.explain.targets import ClassLogit


def cases() -> list[Case]:
    """Rows kernelshap and occlusion: 64 patches of 8 x 8, 8 maps of 64 x 64.

    Ours includes the preparation of the model, as in `explain.cells`.
    """
    n_items, n_samples, width = 8, 200, SIZE // 8
    inputs = torch.rand(n_items, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    classes = tuple(number % 10 for number in range(n_items))
    labels, seeds = segments.patches(inputs), torch.arange(n_items)
    with rng.forked("flat"):
        flat = nn.Sequential(nn.Flatten(), nn.Linear(SIZE * SIZE, 10)).eval().double()
    model, exact = network(), network().double()

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

    size = f"{n_items} maps of {SIZE} x {SIZE}, 64 patches, {SMALL}"
    return [
        # Both sample; on an additive net all samples lead to the same values. captum's are float32
        # and meet the two ends by a large weight, not exactly.
        Case(
            "kernelshap", "removal", lambda: peer_shap(model, inputs),
            lambda: ours_shap(model, inputs), lambda: agree(peer_shap, ours_shap, flat, 5e-3), 2,
            f"{size}, {n_samples} samples",
        ),
        Case(
            "occlusion", "removal", lambda: peer_occlusion(model, inputs),
            lambda: ours_occlusion(model, inputs),
            lambda: agree(peer_occlusion, ours_occlusion, exact, 1e-6), 1.5,
            f"{size}, default call",
        ),
    ]  # fmt: skip
