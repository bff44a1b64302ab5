import pytest
import torch

from sonolens import rng
from sonolens.models import checkpoint
from sonolens.models.alexnet import MIN_SIZE, AlexNet
from sonolens.models.resnet18 import ResNet18
from sonolens.store import StoreError

PLANES = sorted(set(checkpoint.ARCHITECTURES) - {"audionet"})  # waveforms: test_audionet.py


def small(architecture: str, seed: int = 0):
    with rng.forked(seed):
        return checkpoint.build(architecture, n_classes=10, width=8).eval()


def example(n_items: int = 4, size: int = 64) -> torch.Tensor:
    return torch.rand(n_items, 1, size, size, generator=rng.torch_generator("example", size))


def test_resnet_equals_torchvision():
    from torchvision.models import resnet18

    with rng.forked(1):
        theirs = resnet18(num_classes=7).eval()
        ours = ResNet18(7, width=64, n_channels=3).eval()
    missing, unexpected = ours.load_state_dict(theirs.state_dict(), strict=False)
    assert set(missing) == {"standardise.mean", "standardise.std"}
    assert not unexpected
    inputs = torch.rand(2, 3, 96, 96, generator=rng.torch_generator(0))
    torch.testing.assert_close(ours(inputs), theirs(inputs), atol=1e-5, rtol=1e-5)


def test_alexnet_equals_torchvision():
    from torchvision.models import alexnet

    with rng.forked(1):
        theirs = alexnet(num_classes=7).eval()
        ours = AlexNet(7, n_channels=3).eval()
    missing, unexpected = ours.load_state_dict(theirs.state_dict(), strict=False)
    assert set(missing) == {"standardise.mean", "standardise.std"}
    assert not unexpected
    inputs = torch.rand(2, 3, 128, 128, generator=rng.torch_generator(0))
    torch.testing.assert_close(ours(inputs), theirs(inputs), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", PLANES)
@pytest.mark.parametrize("size", [32, 64, 128])
def test_any_resolution(architecture, size):
    if architecture == "alexnet" and size < MIN_SIZE:
        with pytest.raises(RuntimeError, match="too small"):
            small(architecture)(example(2, size))
        return
    assert small(architecture)(example(2, size)).shape == (2, 10)


@pytest.mark.parametrize("architecture", PLANES)
def test_every_activation_is_a_module_of_its_own(architecture):
    model, calls = small(architecture), []
    hooks = [
        module.register_forward_hook(lambda module, *_: calls.append(id(module)))
        for module in model.modules()
        if isinstance(module, torch.nn.ReLU)
    ]
    model(example())
    assert len(calls) == len(set(calls)) == len(hooks)
    assert not any(
        module.inplace for module in model.modules() if isinstance(module, torch.nn.ReLU)
    )


@pytest.mark.parametrize("architecture", PLANES)
def test_gradient_reaches_every_parameter(architecture):
    model = small(architecture).train()
    model(example()).square().sum().backward()
    assert all(
        parameter.grad is not None and parameter.grad.abs().sum() > 0
        for parameter in model.parameters()
    )


@pytest.mark.parametrize("architecture", PLANES)
def test_save_and_load_give_the_same_logits_and_the_same_bytes(architecture, tmp_path):
    model = small(architecture)
    description = {
        "architecture": architecture,
        "options": {"n_classes": 10, "width": 8},
        "classes": list("abc"),
    }
    for name in ("a", "b"):
        checkpoint.save(tmp_path / name, model.state_dict(), description)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    loaded, found = checkpoint.load(tmp_path / "a")
    assert found == description
    torch.testing.assert_close(loaded(example()), model(example()), atol=0, rtol=0)
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_same_seed_same_weights():
    a, b, c = (small("resnet18_narrow", seed).conv1.weight for seed in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_damaged_and_foreign_checkpoints_are_named(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "cut.safetensors"
    description = {"architecture": "resnet18_narrow", "options": {"n_classes": 10, "width": 8}}
    checkpoint.save(path, small("resnet18_narrow").state_dict(), description)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(StoreError, match=r"cut.safetensors.*dvc"):
        checkpoint.load(path)
    save_file({"x": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(StoreError, match="metadata"):
        checkpoint.load(tmp_path / "foreign.safetensors")
    checkpoint.save(path, {"x": torch.zeros(1)}, description)
    with pytest.raises(StoreError, match="do not fit"):
        checkpoint.load(path)
    with pytest.raises(StoreError):
        checkpoint.load(tmp_path / "absent.safetensors")


def test_unknown_architecture_lists_the_known():
    with pytest.raises(KeyError, match="resnet18_narrow"):
        checkpoint.build("resnet19")
