"""Gradients, noise, sampled baselines, signs and edges against captum and slow loops, float64."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

import toys
from sonolens import rng
from sonolens.explain import cells, checks, registry, segments, targets
from sonolens.explain.contract import (
    ExplainError,
    evaluate,
    even_chunks,
    gradient,
    normal_draws,
    seed_array,
    target_change,
)
from sonolens.explain.expected_gradients import draw_positions
from sonolens.explain.shards import Shards
from sonolens.models.alexnet_small import AlexNetSmall
from sonolens.models.resnet18 import ResNet18
from sonolens.params import Runtime

CLASSES = (0, 1, 2)
RUNTIME = Runtime(
    threads=1,
    workers=1,
    engine="serial",
    dask_address=None,
    device="cpu",
    tracking={"enabled": False, "system_metrics_interval_s": 1.0},
)


def clips(n=3, size=16, dtype=torch.float64):
    generator = rng.torch_generator("gradient_methods")
    return torch.rand(n, 1, size, size, generator=generator, dtype=dtype)


def references(n=4, size=16):
    generator = rng.torch_generator("references")
    return torch.rand(n, 1, size, size, generator=generator, dtype=torch.float64)


def explain(name, model, inputs, baseline=None, target=None, seeds=range(3), **options):
    return registry.load(name)(
        model,
        inputs,
        targets.ClassLogit(CLASSES) if target is None else target,
        baseline=None if baseline is None else baseline[None],
        item_seeds=seed_array(seeds),
        **options | registry.info(name).fixed,
    )


def networks():
    with rng.forked("networks"):
        models = [toys.SmallCNN(), AlexNetSmall(4, width=4), ResNet18(4, width=4)]
        for module in (module for model in models for module in model.modules()):
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
    return [model.double().eval() for model in models]


NETWORKS = pytest.mark.parametrize(
    ("model", "size"),
    list(zip(networks(), (16, 32, 32), strict=True)),
    ids=["toy", "alexnet", "resnet"],
)


@pytest.mark.filterwarnings("ignore:Setting backward")
@NETWORKS
def test_input_x_gradient_and_guided_backprop_agree_with_captum(model, size):
    from captum.attr import GuidedBackprop, InputXGradient

    inputs = clips(size=size)
    for name, peer in (("input_x_gradient", InputXGradient), ("guided_backprop", GuidedBackprop)):
        expected = peer(model).attribute(inputs.clone().requires_grad_(), target=list(CLASSES))
        found = toys.unchanged(model, lambda name=name: explain(name, model, inputs)).values
        torch.testing.assert_close(found, expected.detach(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("chunk_size", [1, 3, 32])
def test_smoothgrad_is_the_mean_over_its_own_draws_for_any_chunk(chunk_size):
    model, inputs = networks()[0], clips()
    found = explain("smoothgrad", model, inputs, n_draws=7, noise_stdev=0.2, chunk_size=chunk_size)
    expected = torch.zeros_like(inputs)
    for item, clip in enumerate(inputs):
        noise = normal_draws(rng.torch_generator(item, "smoothgrad"), 7, clip)
        for draw in noise:
            noisy = clip + 0.2 * (clip.max() - clip.min()) * draw
            target = targets.ClassLogit((CLASSES[item],))
            expected[item] += gradient(model, noisy[None], target)[0][0] / 7
    torch.testing.assert_close(found.values, expected, rtol=1e-9, atol=1e-12)
    assert found.n_evaluations == 7


def test_smoothgrad_agrees_with_captum_on_the_same_noise():
    from captum.attr import Saliency

    model, inputs = networks()[2], clips(1, 32)
    target = targets.ClassLogit((1,))
    noise = normal_draws(rng.torch_generator(5, "smoothgrad"), 6, inputs[0])
    noisy = (inputs + 0.1 * (inputs.max() - inputs.min()) * noise).requires_grad_()
    expected = Saliency(model).attribute(noisy, target=1, abs=False).mean(0, keepdim=True)
    found = explain("smoothgrad", model, inputs, target=target, seeds=[5], n_draws=6)
    torch.testing.assert_close(found.values, expected, rtol=1e-9, atol=1e-12)
    plain = explain("smoothgrad", model, inputs, target=target, seeds=[5], noise_stdev=0.0)
    torch.testing.assert_close(
        plain.values, explain("saliency", model, inputs, target=target).values
    )


def slow_expected_gradients(model, inputs, baseline, n_draws, stratified, noise_stdev):
    expected = torch.zeros_like(inputs)
    for item, clip in enumerate(inputs):
        which, positions = draw_positions(item, n_draws, len(baseline), stratified)
        generator = rng.torch_generator(item, "gradient_shap_noise")
        noise = normal_draws(generator, n_draws, clip) * (clip.max() - clip.min()) * noise_stdev
        for draw in range(n_draws):
            start = baseline[which[draw]]
            end = clip + noise[draw]
            point = start + positions[draw] * (end - start)
            target = targets.ClassLogit((CLASSES[item],))
            slope = gradient(model, point[None], target)[0][0]
            expected[item] += (end - start) * slope / n_draws
    return expected


@pytest.mark.parametrize("chunk_size", [1, 4, 32])
@pytest.mark.parametrize(("name", "noise"), [("gradient_shap", 0.05), ("expected_gradients", 0.0)])
def test_expected_gradients_equal_the_slow_loop_for_any_chunk(name, noise, chunk_size):
    model, inputs, baseline = networks()[0], clips(), references()
    options = {"noise_stdev": noise} if noise else {}
    found = explain(name, model, inputs, baseline, n_draws=9, chunk_size=chunk_size, **options)
    stratified = registry.info(name).fixed["stratified"]
    expected = slow_expected_gradients(model, inputs, baseline, 9, stratified, noise)
    torch.testing.assert_close(found.values, expected, rtol=1e-9, atol=1e-12)
    change = target_change(model, inputs, baseline[None], targets.ClassLogit(CLASSES), 32)
    missing = (found.values.sum((1, 2, 3)) - change).abs() / change.abs()
    torch.testing.assert_close(found.completeness_error, missing)


def test_gradient_shap_agrees_with_captum_on_the_same_draws(monkeypatch):
    from captum.attr import GradientShap

    model, inputs, baseline = networks()[1], clips(1, 32), references(size=32)
    target = targets.ClassLogit((2,))
    found = explain("gradient_shap", model, inputs, baseline, target, [3], n_draws=6).values
    which, positions = draw_positions(3, 6, len(baseline), False)
    # captum draws from numpy's global generator: hand it ours
    monkeypatch.setattr(np.random, "choice", lambda *args, **kwargs: which.numpy())
    monkeypatch.setattr(np.random, "uniform", lambda *args, **kwargs: positions.numpy())
    expected = GradientShap(model).attribute(inputs, baseline, n_samples=6, stdevs=0.0, target=2)
    # captum rounds positions to float32
    torch.testing.assert_close(found, expected.detach(), rtol=1e-5, atol=1e-6)


def test_expected_gradients_of_a_linear_model_need_each_baseline_once():
    model, baseline = toys.Linear(), references()
    result = explain("expected_gradients", model, clips(), baseline, n_draws=8)
    expected = model.weights * (clips() - baseline.mean(0))
    torch.testing.assert_close(result.values, expected.detach(), rtol=0, atol=1e-12)
    assert result.completeness_error.max() < 1e-9


def test_stratified_draws_cover_the_way_and_the_baselines_evenly():
    which, positions = draw_positions(1, 12, 4, True)
    assert (positions * 12).floor().tolist() == list(range(12))
    assert torch.bincount(which).tolist() == [3, 3, 3, 3]
    assert all(sorted(turn.tolist()) == [0, 1, 2, 3] for turn in which.split(4))
    ragged = [draw_positions(seed, 3, 4, True)[0] for seed in range(400)]
    share = torch.bincount(torch.cat(ragged)) / 1200
    assert (share - 0.25).abs().max() < 0.03
    assert not torch.equal(which, draw_positions(2, 12, 4, True)[0])


def test_stratified_draws_have_less_variance():
    model, inputs, baseline = networks()[0], clips(1), references()
    target = targets.ClassLogit((1,))

    def spread(name):
        maps = [
            explain(name, model, inputs, baseline, target, [seed], n_draws=8).values
            for seed in range(30)
        ]
        return torch.stack(maps).var(0).sum()

    assert spread("expected_gradients") < 0.8 * spread("gradient_shap")


def test_fgsm_spreads_the_change_over_the_cells_that_move():
    model, inputs = networks()[0], clips()
    found = explain("fgsm", model, inputs, epsilon=0.05)
    for item, clip in enumerate(inputs):
        own = targets.ClassLogit((CLASSES[item],))
        slope = gradient(model, clip[None], own)[0]
        step = 0.05 * (clip.max() - clip.min()) * slope.sign()
        change = evaluate(model, clip[None], own) - evaluate(model, clip[None] - step, own)
        expected = slope.sign() * change / (slope != 0).sum()
        torch.testing.assert_close(found.values[[item]], expected, rtol=1e-9, atol=1e-12)
    linear = explain("fgsm", toys.Linear(), inputs, epsilon=0.1)
    weights = toys.Linear().weights.detach()
    drop = 0.1 * (inputs.amax((1, 2, 3)) - inputs.amin((1, 2, 3))) * weights.abs().sum((1, 2, 3))
    torch.testing.assert_close(linear.values.abs().sum((1, 2, 3)), drop)
    constant = torch.full((3, 1, 16, 16), 0.5).double()
    assert not explain("fgsm", model, constant).values.any()


def test_edges_are_those_of_scipy():
    inputs = clips().expand(-1, 2, -1, -1)
    found = explain("edges", toys.Sum(), inputs).values
    for plane, expected in zip(found.flatten(0, 1), inputs.flatten(0, 1).numpy(), strict=True):
        slopes = [ndimage.sobel(expected, axis, mode="nearest") for axis in (0, 1)]
        np.testing.assert_allclose(plane.numpy(), np.hypot(*slopes), rtol=0, atol=1e-12)
    waves = torch.zeros(3, 9).double()
    waves[:, 4:] = 1
    assert explain("edges", toys.Sum(), waves).values[0].nonzero().flatten().tolist() == [3, 4]


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("chunk_size", [1, 2, 100])
def test_target_change_is_that_of_single_evaluations(shared, chunk_size):
    model, inputs, target = networks()[0], clips(), targets.ClassLogit(CLASSES)
    baseline = references()[None] if shared else references(12).unflatten(0, (3, 4))
    found = target_change(model, inputs, baseline, target, chunk_size)
    starts = baseline.expand(3, -1, -1, -1, -1)
    mean = torch.stack([evaluate(model, starts[:, k], target) for k in range(4)]).mean(0)
    torch.testing.assert_close(found, evaluate(model, inputs, target) - mean)


def test_chunks_are_even_and_never_larger_than_asked_for():
    assert [len(chunk) for chunk in even_chunks(50, 32)] == [25, 25]
    assert torch.cat(tuple(even_chunks(7, 3))).tolist() == list(range(7))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("smoothgrad", {"n_draws": 0}, "n_draws 0"),
        ("smoothgrad", {"noise_stdev": -0.1}, "noise_stdev -0.1"),
        ("gradient_shap", {"n_draws": 0}, "n_draws 0"),
        ("expected_gradients", {"chunk_size": 0}, "chunk_size 0"),
        ("fgsm", {"epsilon": 0.0}, "epsilon 0.0"),
        ("fgsm", {"epsilon": float("nan")}, "epsilon nan"),
    ],
)
def test_options_out_of_range_are_refused(name, options, message):
    with pytest.raises(ExplainError, match=message):
        explain(name, networks()[0], clips(), references(), **options)


def grouping(name):
    """Segments for the methods that are made for groups."""
    grouped = registry.info(name).options.get("segmentation") == "patches"
    return {"segments": segments.patches(clips())} if grouped else {}


@pytest.mark.parametrize(
    "name",
    [name for name, info in registry.METHODS.items() if info.same_axes and not info.control],
)
@pytest.mark.parametrize("classes", [(0, 1, 4), (0, -1, 1)])
def test_targets_out_of_range_are_refused(name, classes):
    target = targets.ClassLogit(classes)
    with pytest.raises(ExplainError, match="class (4|-1)"):
        explain(name, networks()[0], clips(), references(), target, **grouping(name))


def test_bins_out_of_range_are_refused():
    with pytest.raises(ExplainError, match=r"bin \(2, 5\): the mask is \(1, 3, 5\)"):
        targets.mask_bin(2, 5)(torch.zeros(1, 3, 5), torch.arange(1))
    with pytest.raises(ExplainError, match="below"):
        targets.mask_bin(-1, 0)(torch.zeros(1, 3, 5), torch.arange(1))


@pytest.mark.parametrize(
    "name",
    [name for name, info in registry.METHODS.items() if info.same_axes and info.needs_baseline],
)
def test_baselines_of_another_shape_or_none_are_refused(name):
    with pytest.raises(ExplainError, match="baseline"):
        explain(name, networks()[0], clips(), torch.zeros(1, 1, 8, 16).double())
    with pytest.raises(ExplainError, match="no baseline"):
        explain(name, networks()[0], clips())


class NotFinite(toys.ToyAdapter):
    def inputs(self, key, items):
        inputs = super().inputs(key, items)
        bad = items.ids.index("item03") if "item03" in items.ids else None
        if bad is not None:
            inputs[bad, 0, 2, :3] = torch.tensor([torch.nan, torch.inf, -torch.inf])
        return inputs


def test_the_engine_refuses_inputs_that_are_not_finite(tmp_path):
    key = cells.CellKey("main", "main", 0, 0)
    with pytest.raises(ExplainError, match="item item03: the input has 3 of 256 values"):
        cells.run_cells(
            NotFinite(),
            [key],
            methods=["saliency"],
            baselines=["silence"],
            options={},
            n_items=12,
            part="test",
            seed=0,
            runtime=RUNTIME,
            shards=Shards(tmp_path / "shards"),
            out=tmp_path / "maps",
        )


def test_baselines_that_are_not_finite_are_named():
    with pytest.raises(ExplainError, match="item all items: baseline mean has 1 of 4 values"):
        checks.require_finite(torch.tensor([[0, 1, torch.nan, 2]]), ["a", "b"], "baseline mean")
    checks.require_finite(torch.zeros(2, 3), ["a", "b"], "the input")
