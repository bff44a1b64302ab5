"""Attribution against captum.

Ours gets the model as the engine hands it to a method, see `sonolens.explain.prepare` (frozen,
normalisation folded, channels last); captum gets the model as it was built, as its users do.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from run import Case
from torch import Tensor, nn

from sonolens import rng
from sonolens.explain import deeplift, expected_gradients, integrated_gradients, saliency
from sonolens.explain.prepare import prepared
from sonolens.explain.targets import ClassLogit
from sonolens.models.resnet18 import ResNet18

N_ITEMS, N_STEPS, SIZE = 16, 50, 64
N_SHAP, N_REFERENCES = 8, 10
SMALL = "small: 4 x (convolution, norm, ReLU, pool), 16-32-64-64 channels"
Maps = Callable[[nn.Module, Tensor], Tensor]


def cases() -> list[Case]:
    """Rows ig_*, deepliftshap, gradshap and saliency_small."""
    small, r18 = network(), resnet()
    inputs, pictures = clips(N_ITEMS), clips(2, 224)
    few = f"{N_ITEMS} maps of {SIZE} x {SIZE}, {SMALL}; ours on the prepared copy"
    shap = f"{N_SHAP} inputs x {N_REFERENCES} references of {SIZE} x {SIZE}, small with mean pools"
    return [
        _case("ig_small", small, inputs, peer_ig(None), ours_ig(N_STEPS), 3, 1e-6,
              f"{few}; {N_STEPS} steps, captum's default call"),
        _case("ig_small_batched", small, inputs, peer_ig(64), ours_ig(N_STEPS), 1.4, 1e-6,
              f"{few}; {N_STEPS} steps, captum's internal_batch_size 64"),
        _memory_case(),
        _case("deepliftshap", network(nn.AvgPool2d), clips(N_SHAP), peer_deepliftshap,
              ours_deepliftshap, 4, 1e-9, f"{shap}; ours on the prepared copy"),
        _case("gradshap", small, inputs, peer_gradshap, ours_gradshap, 3, None,
              f"{few}; {N_STEPS} draws from {N_REFERENCES} references"),
        _case("saliency_small", small, inputs, peer_saliency, ours_saliency, 2, 1e-9, few),
        _case("ig_r18", r18, pictures, peer_ig(4, 16), ours_ig(16, 8), 1.25, 1e-6,
              "2 maps of 224 x 224, 16 steps, ResNet-18 of width 64, captum's internal_batch_size "
              "4; ours on the prepared copy"),
    ]  # fmt: skip


def _case(
    name: str,
    model: nn.Module,
    inputs: Tensor,
    peer: Maps,
    ours: Maps,
    target: float,
    tolerance: float | None,
    size: str,
) -> Case:
    fast = cache(lambda: prepared(model, inputs[:1]))

    def check() -> str:
        # In float32 a rectifier on its edge may switch; both are compared where it does not.
        if tolerance is None:
            return _same_mean(model.double(), inputs.double())
        some, exact = inputs[:2].double(), model.double()
        theirs, mine = peer(exact, some), ours(prepared(exact, some[:1]), some)
        error = float((theirs - mine).abs().max() / theirs.abs().max())
        model.float()
        assert error < tolerance, f"maps differ by {error:.2g} of the largest value, in float64"
        return f"equal within {error:.1g}, float64"

    return Case(
        name, "explain", lambda: peer(model, inputs), lambda: ours(fast(), inputs), check, target,
        size,
    )  # fmt: skip


def peer_ig(internal_batch_size: int | None, n_steps: int = N_STEPS) -> Maps:
    """Captum's integrated gradients from zero."""

    def call(model: nn.Module, inputs: Tensor) -> Tensor:
        from captum.attr import IntegratedGradients

        return IntegratedGradients(model).attribute(
            inputs, baselines=0, target=classes(inputs), n_steps=n_steps,
            internal_batch_size=internal_batch_size,
        )  # fmt: skip

    return call


def ours_ig(n_steps: int, chunk_size: int = 32) -> Maps:
    """Our integrated gradients from zero."""
    return lambda model, inputs: integrated_gradients.attribute(
        model, inputs, ClassLogit(tuple(classes(inputs))),
        baseline=inputs.new_zeros(1, 1, *inputs.shape[1:]), item_seeds=torch.arange(len(inputs)),
        n_steps=n_steps, chunk_size=chunk_size,
    ).values  # fmt: skip


def peer_saliency(model: nn.Module, inputs: Tensor) -> Tensor:
    """Captum's saliency, signed."""
    from captum.attr import Saliency

    inputs = inputs.clone().requires_grad_()  # without it, captum warns in every call
    return Saliency(model).attribute(inputs, target=classes(inputs), abs=False)


def ours_saliency(model: nn.Module, inputs: Tensor) -> Tensor:
    """Our saliency."""
    target = ClassLogit(tuple(classes(inputs)))
    seeds = torch.arange(len(inputs))
    return saliency.attribute(model, inputs, target, baseline=None, item_seeds=seeds).values


def peer_deepliftshap(model: nn.Module, inputs: Tensor) -> Tensor:
    """Captum's DeepLiftShap."""
    import warnings

    from captum.attr import DeepLiftShap

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says in every call that it sets hooks
        maps = DeepLiftShap(model).attribute(inputs, references(inputs), target=classes(inputs))
    return maps.detach()


def ours_deepliftshap(model: nn.Module, inputs: Tensor) -> Tensor:
    """Our DeepLIFT, mean over the references."""
    return deeplift.attribute(
        model, inputs, ClassLogit(tuple(classes(inputs))), baseline=references(inputs)[None],
        item_seeds=torch.arange(len(inputs)), reference="each", chunk_size=40,
    ).values  # fmt: skip


def peer_gradshap(model: nn.Module, inputs: Tensor) -> Tensor:
    """Captum's GradientShap; it draws from NumPy's and torch's global generators."""
    from captum.attr import GradientShap

    with rng.forked("gradshap"):
        return GradientShap(model).attribute(
            inputs, references(inputs), n_samples=N_STEPS, target=classes(inputs)
        )


def ours_gradshap(
    model: nn.Module, inputs: Tensor, n_draws: int = N_STEPS, stratified: bool = False
) -> Tensor:
    """Our gradient_shap."""
    return expected_gradients.attribute(
        model, inputs, ClassLogit(tuple(classes(inputs))), baseline=references(inputs)[None],
        item_seeds=torch.arange(len(inputs)), n_draws=n_draws, stratified=stratified,
    ).values  # fmt: skip


def _same_mean(exact: nn.Module, inputs: Tensor) -> str:
    """Draws differ, so both have to lie within their own spread of the expectation.

    On the same draws both are equal, see tests/explain/test_gradient_methods.py.
    """
    some = inputs[:2]
    expectation = ours_gradshap(exact, some, 40 * N_STEPS, stratified=True)
    theirs = (peer_gradshap(exact, some).detach() - expectation).norm()
    mine = (ours_gradshap(exact, some) - expectation).norm()
    exact.float()
    share = float(mine / theirs)
    assert 0.5 < share < 2, f"distance from the expectation is {share:.2g} of captum's"
    return f"distance from the expectation is {share:.2f} of captum's, float64"


def _memory_case() -> Case:
    found: dict[str, float] = {}

    def side(name: str) -> float:
        if name not in found:
            found[name] = _peak_mib(name)
        return found[name]

    def check() -> str:
        # the maps are those of ig_small, which compares them
        return f"captum {side('peer'):.0f} MiB, ours {side('ours'):.0f} MiB"

    return Case(
        "ig_memory", "explain", lambda: side("peer"), lambda: side("ours"), check, 2,
        f"peak memory above the level before the call, {N_ITEMS} maps of {SIZE} x {SIZE}, "
        f"{N_STEPS} steps, {SMALL}; captum's default call",
        clock="memory", repeat=False,
    )  # fmt: skip


def _peak_mib(side: str) -> float:
    """Peak of a process of its own that makes the maps of ig_small."""
    folders = os.pathsep.join(path for path in sys.path if path)
    environment = os.environ | {"PYTHONPATH": folders}
    done = subprocess.run(
        [sys.executable, str(Path(__file__)), side],
        env=environment, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return float(json.loads(done.stdout))


def main(side: str) -> None:
    """Print the MiB that the call of one side adds to the process's peak."""
    torch.set_num_threads(1)
    model, inputs = network(), clips(N_ITEMS)
    call = peer_ig(None) if side == "peer" else ours_ig(N_STEPS)
    model = model if side == "peer" else prepared(model, inputs[:1])
    import captum.attr  # noqa: F401 - its import is no part of the call

    (peer_ig(None, 1) if side == "peer" else ours_ig(1))(model, inputs[:1])  # kernels are loaded
    before = _peak_kib()
    call(model, inputs)
    print((_peak_kib() - before) / 1024)


def _peak_kib() -> int:
    """Peak memory of this process; Linux hands a parent's ru_maxrss on to its child, not VmHWM."""
    import resource

    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def clips(n: int, size: int = SIZE) -> Tensor:
    """Uniform numbers (n, 1, size, size)."""
    return torch.rand(n, 1, size, size, generator=rng.torch_generator("clips"))


def references(inputs: Tensor) -> Tensor:
    """Uniform numbers, N_REFERENCES of the inputs' shape."""
    shape = (N_REFERENCES, *inputs.shape[1:])
    return torch.rand(shape, generator=rng.torch_generator("references")).to(inputs)


def classes(inputs: Tensor) -> list[int]:
    """A class per item."""
    return [number % 10 for number in range(len(inputs))]


def network(pool: type[nn.Module] = nn.MaxPool2d) -> nn.Module:
    """What SMALL describes."""
    with rng.forked("small"):
        layers: list[nn.Module] = []
        for n_in, n_out in ((1, 16), (16, 32), (32, 64), (64, 64)):
            layers += [nn.Conv2d(n_in, n_out, 3, padding=1), nn.BatchNorm2d(n_out), nn.ReLU()]
            layers += [pool(2)]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(1024, 10)).eval()


def resnet() -> nn.Module:
    """ResNet-18 as in the paper, 10 classes."""
    with rng.forked("r18"):
        return ResNet18(10).eval()


if __name__ == "__main__":
    main(sys.argv[1])
