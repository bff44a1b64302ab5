import sys
import types
from dataclasses import replace

import pytest
import torch

import toys
from sonolens import rng
from sonolens.explain import registry, targets
from sonolens.explain.contract import ExplainError, evaluate, seed_array

SHAPE = (1, 1, 4, 7)
OPTIONS = {
    "smoothgrad": {"n_draws": 3},
    "kernel_shap": {"n_samples": 60},
    "permutation_shapley": {"n_permutations": 2},
    "lime": {"n_samples": 12},
    "rise": {"n_masks": 8},
    "meaningful_perturbation": {"n_steps": 2},
}
FEW = {"n_steps": 3}
# Methods that need activations of their own or a layer have none in a GRU.
NAMES = [
    name
    for name, info in registry.METHODS.items()
    if not info.hooks and "layer" not in info.options and info.same_axes
]


def draw(*shape):
    generator = rng.torch_generator("relate", *shape)
    return torch.rand(*shape, generator=generator, dtype=torch.float64)


def gathered(blocks):
    blocks = list(blocks)
    assert all(block.values.shape[1] == len(block.t_out) for block in blocks)
    assert [frame for block in blocks for frame in block.t_out] == list(
        range(sum(len(block.t_out) for block in blocks))
    )
    return tuple(
        torch.cat([getattr(block, name) for block in blocks], 1) for name in ("values", "residual")
    )


def test_linear_map_is_the_weights_times_the_change():
    model, inputs, baseline = (
        toys.LinearMask((3, 5), (2, 4, 7)),
        draw(1, 2, 4, 7),
        draw(1, 3, 2, 4, 7),
    )
    blocks = registry.relate("integrated_gradients")(model, inputs, baseline=baseline, block=2)
    values, residual = gathered(blocks)
    expected = (model.weights * (inputs - baseline.mean(1))).sum(2).detach()
    torch.testing.assert_close(values, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(residual, torch.zeros(3, 5).double(), rtol=0, atol=1e-12)
    slopes, residual = gathered(
        registry.relate("saliency")(model, inputs, baseline=baseline, block=2)
    )
    torch.testing.assert_close(slopes, model.weights.sum(2).detach(), rtol=0, atol=1e-12)
    torch.testing.assert_close(residual, (expected - slopes).sum((2, 3)), rtol=0, atol=1e-11)


# Their paths start elsewhere than in the baseline, so their completeness error is another.
OWN_STARTS = ("ig_gain", "ig_blur_f", "ig_blur_t", "ig_blur_ft")


@pytest.mark.parametrize("name", NAMES)
def test_slices_are_the_maps_of_single_bins_for_any_block(name):
    model, inputs, baseline = toys.GRUMask().double(), draw(*SHAPE), draw(1, 2, *SHAPE[1:])
    info, seeds = registry.info(name), seed_array([5])
    options = {option: value for option, value in FEW.items() if option in info.options}
    arguments = {"baseline": baseline, "item_seeds": seeds} | options
    arguments |= OPTIONS.get(name, {})
    values, residual = toys.unchanged(
        model, lambda: gathered(registry.relate(name)(model, inputs, block=3, **arguments))
    )
    assert values.shape == (4, 7, 4, 7) and residual.shape == (4, 7)
    for freq, frame in ((0, 0), (2, 4), (3, 6)):
        target = targets.mask_bin(freq, frame)
        alone = info.load()(model, inputs, target, **arguments, **info.fixed)
        torch.testing.assert_close(values[freq, frame], alone.values[0, 0], rtol=0, atol=1e-12)
        starts = torch.cat([evaluate(model, start[None], target) for start in baseline[0]])
        gap = evaluate(model, inputs, target) - starts.mean() - alone.values.sum()
        torch.testing.assert_close(residual[freq, frame], gap[0], rtol=0, atol=1e-12)
        if alone.completeness_error is not None and name not in OWN_STARTS:
            change = (evaluate(model, inputs, target) - starts.mean()).abs()
            error = residual[freq, frame].abs() / change
            torch.testing.assert_close(error, alone.completeness_error, rtol=1e-6, atol=1e-12)
    for block in (1, 7, 100):
        others = gathered(registry.relate(name)(model, inputs, block=block, **arguments))
        torch.testing.assert_close(others, (values, residual), rtol=0, atol=1e-12)


def test_a_causal_net_depends_on_no_later_frame():
    arguments = {"baseline": draw(1, 1, *SHAPE[1:]), "block": 4}
    values, _ = gathered(
        registry.relate("integrated_gradients")(
            toys.GRUMask().double(), draw(*SHAPE), n_steps=2, **arguments
        )
    )
    later = torch.arange(7)[:, None] < torch.arange(7)[None]
    assert not values.transpose(1, 2)[:, :, later].any() and values.any()


def test_without_a_baseline_the_residual_is_undefined():
    relate = registry.relate("saliency")
    blocks = list(relate(toys.GRUMask().double(), draw(*SHAPE), baseline=None, block=5))
    assert all(block.residual.isnan().all() and block.values.isfinite().all() for block in blocks)


def test_blocks_are_made_one_at_a_time():
    model, calls = toys.GRUMask().double(), []
    model.register_forward_hook(lambda module, inputs, output: calls.append(1))
    blocks = registry.relate("saliency")(model, draw(*SHAPE), baseline=None, block=2)
    assert not calls
    next(blocks)
    assert len(calls) == 1 + 4 * 2


def test_what_is_no_mask_of_one_item_is_refused():
    relate, model = registry.relate("saliency"), toys.GRUMask().double()
    with pytest.raises(ExplainError, match="2 items"):
        next(relate(model, draw(2, 1, 4, 7), baseline=None, block=1))
    with pytest.raises(ExplainError, match="block 0"):
        next(relate(model, draw(*SHAPE), baseline=None, block=0))
    with pytest.raises(ExplainError, match="need a mask"):
        next(relate(toys.Linear(), draw(1, *toys.SHAPE), baseline=None, block=1))
    with pytest.raises(ExplainError, match="did you mean saliency"):
        registry.relate("salience")


def test_a_method_with_all_targets_brings_its_own(monkeypatch):
    module = types.ModuleType("own_method")
    module.relate = lambda model, inputs, **options: iter(())
    monkeypatch.setitem(sys.modules, "own_method", module)
    row = replace(registry.info("saliency"), name="own", module="own_method", all_targets=True)
    monkeypatch.setitem(registry.METHODS, "own", row)
    assert registry.relate("own") is module.relate
