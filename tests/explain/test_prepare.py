import pytest
import torch
from torch import nn

import toys
from sonolens import rng
from sonolens.explain import targets
from sonolens.explain.cells import call_options
from sonolens.explain.contract import seed_array
from sonolens.explain.prepare import prepared
from sonolens.explain.registry import METHODS


def clips(n=3):
    generator = rng.torch_generator("clips")
    return torch.rand(n, 1, 16, 16, generator=generator, dtype=torch.float64)


def test_prepared_model_is_the_same_function_without_normalisation():
    model = toys.SmallCNN().double().train()
    fast = toys.unchanged(model, lambda: prepared(model, clips(1)))
    assert isinstance(fast.bn1, nn.Identity) and not fast.training
    assert not any(parameter.requires_grad for parameter in fast.parameters())
    torch.testing.assert_close(fast(clips()), model.eval()(clips()), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", [name for name, info in METHODS.items() if info.same_axes])
def test_maps_of_the_prepared_model_are_the_same(name):
    model, inputs = toys.SmallCNN().double(), clips()
    arguments = {"baseline": torch.zeros(1, 1, 1, 16, 16), "item_seeds": seed_array(range(3))}
    axes = {"frequencies_hz": [100.0 * band for band in range(1, 17)]}
    arguments |= call_options(METHODS[name], METHODS[name].options, inputs, axes)
    target = targets.ClassLogit((0, 1, 2))
    expected = METHODS[name].load()(model, inputs, target, **arguments).values
    found = METHODS[name].load()(prepared(model, inputs[:1]), inputs, target, **arguments).values
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


class ReadTwice(toys.SmallCNN):
    def forward(self, inputs):
        hidden = self.conv1(inputs)
        return self.bn1(hidden).mean((1, 2, 3)) + hidden.mean((1, 2, 3))


def test_a_convolution_that_is_read_twice_is_not_folded():
    model = ReadTwice().double().eval()
    fast = prepared(model, clips(1))
    assert isinstance(fast.bn1, nn.BatchNorm2d)
    torch.testing.assert_close(fast(clips()), model(clips()))


def test_models_without_convolutions_pass():
    model = toys.Linear()
    torch.testing.assert_close(prepared(model, clips(1))(clips()), model(clips()))


def test_recurrent_nets_over_films_are_folded_too():
    model = toys.LipReader().double().eval()
    films = torch.rand(2, 1, 4, 8, 8, generator=rng.torch_generator("films"), dtype=torch.float64)
    fast = toys.unchanged(model, lambda: prepared(model, films[:1]))
    assert isinstance(fast.norm, nn.Identity)
    torch.testing.assert_close(fast(films), model(films), rtol=1e-10, atol=1e-12)
