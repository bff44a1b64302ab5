"""Class activation maps against captum and the equations written out, float64."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import toys
from sonolens import rng
from sonolens.explain import registry, targets
from sonolens.explain.cam import LayerTooCoarseError, coarse_map
from sonolens.explain.contract import ExplainError, seed_array
from sonolens.models.alexnet_small import AlexNetSmall
from sonolens.models.resnet18 import ResNet18

NAMES = ("gradcam", "hirescam", "layercam")
CLASSES = (0, 1, 2)


def clips(n=3, *shape):
    generator = rng.torch_generator("cams", *shape)
    return torch.rand(n, *(shape or (1, 16, 16)), generator=generator, dtype=torch.float64)


def explain(name, model, inputs, **options):
    return registry.load(name)(
        model,
        inputs,
        targets.ClassLogit(CLASSES),
        baseline=None,
        item_seeds=seed_array(range(3)),
        **options | registry.info(name).fixed,
    ).values


@pytest.fixture
def cnn():
    return toys.SmallCNN().double().eval()


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_maps_are_the_equations_written_out(cnn, name, relu):
    inputs = clips()
    activations = []
    with cnn.relu2.register_forward_hook(lambda m, a, output: activations.append(output)):
        cnn(inputs.clone().requires_grad_()).gather(1, torch.tensor(CLASSES)[:, None]).sum()
    (activation,) = activations
    logits = cnn.fc(functional.adaptive_avg_pool2d(activation, 4).flatten(1))
    (grad,) = torch.autograd.grad(
        logits.gather(1, torch.tensor(CLASSES)[:, None]).sum(), activation
    )
    expected = torch.zeros(3, 1, 8, 8).double()
    for channel in range(6):
        slope = grad[:, channel]
        if name == "gradcam":
            slope = slope.mean((1, 2), keepdim=True)
        elif name == "layercam":
            slope = slope.clamp_min(0)
        expected[:, 0] += (slope * activation[:, channel]).detach()
    expected = expected.clamp_min(0) if relu else expected
    target = targets.ClassLogit(CLASSES)
    found = coarse_map(cnn, cnn.relu2, inputs, target, name, relu)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    nearest = explain(name, cnn, inputs, relu=relu, interpolation="nearest")
    twice = expected.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(nearest, twice, rtol=1e-9, atol=1e-12)
    assert (found < 0).any() or relu or name == "layercam"


@pytest.mark.parametrize("model", [AlexNetSmall(4, width=4), ResNet18(4, width=4)])
def test_gradcam_agrees_with_captum_on_networks_in_use(model):
    from captum.attr import LayerAttribution, LayerGradCam

    model, inputs = model.double().eval(), clips(3, 1, 32, 32)
    peer = LayerGradCam(model, model.gradcam_layer)
    coarse = peer.attribute(inputs, target=list(CLASSES), relu_attributions=True).detach()
    expected = LayerAttribution.interpolate(coarse, inputs.shape[2:], "nearest")
    found = toys.unchanged(
        model, lambda: explain("gradcam", model, inputs, interpolation="nearest")
    )
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    smooth = functional.interpolate(coarse, size=(32, 32), mode="bilinear", align_corners=False)
    torch.testing.assert_close(explain("gradcam", model, inputs), smooth, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_linear_readers_make_gradcam_and_hirescam_what_they_claim(cnn, name):
    # behind relu2 everything is linear, so HiResCAM's cells sum to the logit without its bias
    found = coarse_map(cnn, cnn.relu2, clips(), targets.ClassLogit(CLASSES), name, relu=False)
    logits = cnn(clips())[range(3), CLASSES] - cnn.fc.bias[list(CLASSES)]
    if name == "hirescam":
        torch.testing.assert_close(found.sum((1, 2, 3)), logits, rtol=1e-9, atol=1e-12)
    else:
        assert not torch.allclose(found.sum((1, 2, 3)), logits)


class Waves(nn.Module):
    def __init__(self, with_channel):
        super().__init__()
        self.with_channel = with_channel
        with rng.forked("waves"):
            self.conv, self.relu = nn.Conv1d(1, 4, 3, 2, 1), nn.ReLU()
            self.fc = nn.Linear(4, 3)

    def forward(self, inputs):
        hidden = self.conv(inputs if self.with_channel else inputs.unsqueeze(1))
        return self.fc(self.relu(hidden).square().mean(2))


@pytest.mark.parametrize("name", NAMES)
def test_maps_have_the_shape_of_the_input(name):
    for shape, with_channel in (((32,), False), ((1, 32), True)):
        found = explain(name, Waves(with_channel).double(), clips(3, *shape), layer="conv")
        assert found.shape == (3, *shape) and found.any()
    colours = AlexNetSmall(4, width=4, n_channels=3).double()
    found = explain(name, colours, clips(3, 3, 32, 32))
    assert found.shape == (3, 3, 32, 32) and torch.equal(found[:, 0], found[:, 2])


def test_an_in_place_activation_behind_the_layer_does_not_change_the_map():
    models = [toys.SmallCNN(inplace=inplace).double() for inplace in (False, True)]
    maps = [explain("hirescam", model, clips(), layer="conv2") for model in models]
    assert torch.equal(*maps)


@pytest.mark.parametrize("name", NAMES)
def test_coarse_unknown_missing_and_reused_layers_are_refused(cnn, name):
    with pytest.raises(LayerTooCoarseError, match=f"{name}: layer too coarse: its output is"):
        explain(name, ResNet18(4, width=2).double(), clips(3, 1, 32, 32), layer="layer4")
    with pytest.raises(LayerTooCoarseError, match="layer too coarse"):
        explain(name, cnn, clips(), layer="fc")
    with pytest.raises(ExplainError, match=f"{name}: layer 'conv9'"):
        explain(name, cnn, clips(), layer="conv9")
    with pytest.raises(ExplainError, match="no `gradcam_layer`"):
        explain(name, toys.Linear(), clips())
    with pytest.raises(ExplainError, match="called 2 times"):
        explain(name, toys.ReusedCNN().double(), clips(), layer="relu1")
    with pytest.raises(ExplainError, match="bicubic"):
        explain(name, cnn, clips(), interpolation="bicubic")


def test_a_refused_layer_leaves_no_trace(cnn):
    def refused():
        with pytest.raises(LayerTooCoarseError):
            explain("gradcam", cnn, clips(), layer="fc")

    toys.unchanged(cnn.train(), refused)
