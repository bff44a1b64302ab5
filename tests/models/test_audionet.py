"""The waveform net: its sizes are the paper's, hooks see its activations, methods run on it."""

import pytest
import torch
from torch import nn

from sonolens import rng
from sonolens.explain import checks, registry, targets
from sonolens.explain.contract import seed_array
from sonolens.explain.prepare import prepared
from sonolens.models import checkpoint
from sonolens.models.audionet import AudioNet

N_SAMPLES = 512


def small(seed: int = 0, **options) -> nn.Module:
    with rng.forked(seed, "audionet"):
        return checkpoint.build(
            "audionet", n_classes=10, width=0.08, n_samples=N_SAMPLES, **options
        ).eval()


def waveforms(n_items: int = 3, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = rng.torch_generator("waveforms")
    return torch.randn(n_items, 1, N_SAMPLES, generator=generator, dtype=dtype)


def test_sizes_are_those_of_the_paper():
    with torch.device("meta"):
        model = AudioNet(10)
        hidden = model.features(torch.zeros(1, 1, 8000))
        assert model.classifier(hidden.flatten(1)).shape == (1, 10)
    assert hidden.shape == (1, 128, 125)
    channels = [one.out_channels for one in model.features if isinstance(one, nn.Conv1d)]
    units = [one.out_features for one in model.classifier if isinstance(one, nn.Linear)]
    assert channels == [100, 64, 128, 128, 128, 128] and units == [1024, 512, 10]
    assert not any(isinstance(one, nn.ReLU) for one in model.classifier)


@pytest.mark.parametrize("n_samples", [64, 301, 512, 1000])
def test_any_length(n_samples):
    model = AudioNet(4, width=0.05, n_samples=n_samples)
    assert model(torch.zeros(2, 1, n_samples)).shape == (2, 4)


def test_published_initialisation_is_gaussian():
    model = small(init_std=0.1)
    weights = torch.cat(
        [one.weight.flatten() for one in model.classifier if hasattr(one, "weight")]
    )
    assert weights.std().item() == pytest.approx(0.1, rel=0.05)


def test_hooks_see_every_activation_and_gradient_reaches_every_parameter():
    model = small()
    checks.assert_explainable(model, waveforms())
    model.train()(waveforms()).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_save_and_load_give_the_same_logits(tmp_path):
    model = small()
    model.standardise.fit(waveforms(8) * 3 + 1)
    options = {"n_classes": 10, "width": 0.08, "n_samples": N_SAMPLES}
    checkpoint.save(
        tmp_path / "a", model.state_dict(), {"architecture": "audionet", "options": options}
    )
    loaded, _ = checkpoint.load(tmp_path / "a")
    assert torch.equal(loaded(waveforms()), model(waveforms()))
    assert loaded.standardise.mean.item() == pytest.approx(1, abs=0.2)


def test_overfits_one_batch():
    model = small().train(False)
    inputs, labels = waveforms(8), torch.arange(8)
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(60):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimiser.step()
    assert (model(inputs).argmax(1) == labels).all()


@pytest.mark.parametrize("name", ["saliency", "integrated_gradients", "guided_gradcam", "ig_tf"])
def test_methods_explain_waveforms(name):
    model, inputs = small().double(), waveforms(dtype=torch.float64)
    result = registry.load(name)(
        prepared(model, inputs[:1]),
        inputs,
        targets.predicted(model, inputs),
        baseline=torch.zeros(1, 1, 1, N_SAMPLES, dtype=torch.float64),
        item_seeds=seed_array(range(3)),
    )
    shape = (3, 129, 5) if name == "ig_tf" else inputs.shape
    assert result.values.shape == shape and result.values.isfinite().all()
    assert result.values.flatten(1).any(1).all()


def test_deep_lift_rules_are_complete_on_it():
    from captum.attr import DeepLift

    model, inputs = small().double(), waveforms(dtype=torch.float64)
    values, delta = DeepLift(model).attribute(
        inputs, torch.zeros_like(inputs), target=[0, 1, 2], return_convergence_delta=True
    )
    assert values.shape == inputs.shape and delta.abs().max() < 1e-6
