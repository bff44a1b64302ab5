import pytest
import torch

import toys
from sonolens import rng
from sonolens.explain import checks, registry, segments, targets
from sonolens.explain.cam import coarse_map
from sonolens.explain.contract import ExplainError, evaluate, gradient, seed_array
from sonolens.explain.guided_backprop import guided_backprop
from sonolens.explain.integrated_gradients import gauss_legendre

# Methods that remove whole groups: their map is not that of single cells pooled afterwards.
BY_GROUP = ["feature_ablation", "kernel_shap", "permutation_shapley", "lime"]

FAST = {"meaningful_perturbation": {"n_steps": 10}}
SAME_AXES = [name for name, info in registry.METHODS.items() if info.same_axes]


def clips(n=5, size=16, dtype=torch.float64):
    generator = rng.torch_generator("clips")
    return torch.rand(n, 1, size, size, generator=generator, dtype=dtype)


def explain(name, model, inputs, target=None, baseline=None, seeds=None, **options):
    if target is None:
        target = targets.predicted(model, inputs)
    if baseline is None:
        baseline = torch.zeros(1, 1, *inputs.shape[1:], dtype=inputs.dtype)
    seeds = seed_array(range(len(inputs)) if seeds is None else seeds)
    options = options | registry.info(name).fixed
    method = registry.load(name)
    if name in BY_GROUP and "segments" not in options:
        options["segments"] = segments.make("patches", inputs, {})
    options = FAST.get(name, {}) | options
    return method(model, inputs, target, baseline=baseline, item_seeds=seeds, **options)


def captum_forward(model):
    return lambda inputs: model(inputs)


@pytest.fixture
def cnn():
    return toys.SmallCNN().double()


@pytest.mark.parametrize("n_steps", [1, 2, 7])
def test_integrated_gradients_of_a_linear_model_are_exact_for_any_number_of_steps(n_steps):
    model, inputs = toys.Linear(), clips()
    baseline = torch.rand(
        1, 1, *toys.SHAPE, generator=rng.torch_generator("b"), dtype=torch.float64
    )
    result = explain(
        "integrated_gradients",
        model,
        inputs,
        targets.ClassLogit((0, 1, 2, 1, 0)),
        baseline,
        n_steps=n_steps,
    )
    expected = model.weights[[0, 1, 2, 1, 0]] * (inputs - baseline[0])
    torch.testing.assert_close(result.values, expected.detach(), rtol=0, atol=1e-12)
    assert result.completeness_error.max() < 1e-9
    assert result.n_evaluations == n_steps + 2


def test_integrated_gradients_average_over_several_baselines():
    model, inputs = toys.OneBin(), clips(3)
    baseline = torch.rand(
        3, 4, *toys.SHAPE, generator=rng.torch_generator("b"), dtype=torch.float64
    )
    target = targets.ClassLogit((0, 0, 0))
    result = explain("integrated_gradients", model, inputs, target, baseline, n_steps=2)
    cell, cell_baseline = inputs[:, 0, 2, 3], baseline[:, :, 0, 2, 3]
    torch.testing.assert_close(
        result.values[:, 0, 2, 3], (cell[:, None] ** 2 - cell_baseline**2).mean(1)
    )
    assert result.values.count_nonzero() == 3
    single = [
        explain("integrated_gradients", model, inputs, target, baseline[:, [k]], n_steps=2).values
        for k in range(4)
    ]
    torch.testing.assert_close(result.values, torch.stack(single).mean(0))


@pytest.mark.parametrize("n_steps", [1, 2, 5, 16])
def test_quadrature_weights_sum_to_one_and_integrate_polynomials(n_steps):
    nodes, weights = gauss_legendre(n_steps)
    degree = 2 * n_steps - 1
    assert weights.sum().item() == pytest.approx(1, abs=1e-14)
    assert (weights * nodes**degree).sum().item() == pytest.approx(1 / (degree + 1), abs=1e-13)


def test_completeness_error_shrinks_with_steps(cnn):
    errors = [
        explain("integrated_gradients", cnn, clips(), n_steps=n).completeness_error.median()
        for n in (2, 64)
    ]
    assert errors[1] < 0.01 and errors[1] < errors[0]


@pytest.mark.parametrize("chunk_size", [1, 5, 100])
def test_chunk_size_changes_integrated_gradients_by_rounding_alone(cnn, chunk_size):
    options = {"n_steps": 8}
    expected = explain("integrated_gradients", cnn, clips(), **options).values
    found = explain("integrated_gradients", cnn, clips(), chunk_size=chunk_size, **options).values
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_integrated_gradients_bytes_do_not_depend_on_the_batch():
    cnn, inputs = toys.SmallCNN(), clips(dtype=torch.float32)
    target = targets.ClassLogit((0, 1, 2, 3, 0))
    together = explain("integrated_gradients", cnn, inputs, target).values
    alone = explain("integrated_gradients", cnn, inputs[[3]], target.select([3])).values
    assert torch.equal(together[[3]], alone)


def test_saliency_agrees_with_captum(cnn):
    from captum.attr import Saliency

    inputs, target = clips(), targets.predicted(cnn.eval(), clips())
    expected = Saliency(captum_forward(cnn)).attribute(
        inputs.clone().requires_grad_(), target=list(target.class_index), abs=False
    )
    torch.testing.assert_close(
        explain("saliency", cnn, inputs).values, expected, rtol=0, atol=1e-12
    )


def test_integrated_gradients_agree_with_captum(cnn):
    from captum.attr import IntegratedGradients

    inputs, target = clips(), targets.predicted(cnn.eval(), clips())
    expected = IntegratedGradients(captum_forward(cnn)).attribute(
        inputs,
        torch.zeros_like(inputs),
        target=list(target.class_index),
        n_steps=20,
        method="gausslegendre",
    )
    found = explain("integrated_gradients", cnn, inputs, n_steps=20).values
    # captum casts the step weights and positions to float32, also for float64 models
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6 * expected.abs().max().item())


def test_guided_backprop_and_gradcam_agree_with_captum(cnn):
    from captum.attr import GuidedBackprop, GuidedGradCam, LayerGradCam

    cnn.eval()
    inputs, target = clips(), targets.predicted(cnn, clips())
    classes = list(target.class_index)
    fine = GuidedBackprop(cnn).attribute(inputs.clone().requires_grad_(), target=classes)
    torch.testing.assert_close(guided_backprop(cnn, inputs, target), fine, rtol=0, atol=1e-12)
    coarse = LayerGradCam(cnn, cnn.relu2).attribute(inputs, target=classes, relu_attributions=True)
    torch.testing.assert_close(
        coarse_map(cnn, cnn.relu2, inputs, target), coarse.detach(), rtol=0, atol=1e-12
    )
    expected = GuidedGradCam(cnn, cnn.relu2).attribute(
        inputs.clone().requires_grad_(), target=classes
    )
    found = explain("guided_gradcam", cnn, inputs, interpolation="nearest").values
    torch.testing.assert_close(found, expected.detach(), rtol=0, atol=1e-12)
    named = explain("guided_gradcam", cnn, inputs, interpolation="nearest", layer="relu2").values
    assert torch.equal(named, found)
    smooth = explain("guided_gradcam", cnn, inputs).values
    assert smooth.shape == inputs.shape and not torch.equal(smooth, found)


def test_guided_backprop_equals_the_paper_written_out(cnn):
    cnn.eval()
    inputs = clips(2)
    target = targets.ClassLogit((1, 2))
    with torch.no_grad():
        before1 = cnn.bn1(cnn.conv1(inputs))
        before2 = cnn.conv2(before1.relu())
        signal = torch.nn.functional.one_hot(torch.tensor([1, 2]), 4).double() @ cnn.fc.weight
        signal = signal.view(2, 6, 4, 4).repeat_interleave(2, 2).repeat_interleave(2, 3) / 4
        signal = (before2 > 0) * signal.clamp_min(0)
        signal = torch.nn.functional.conv_transpose2d(
            signal, cnn.conv2.weight, stride=2, padding=1, output_padding=1
        )
        signal = (before1 > 0) * signal.clamp_min(0)
        scale = cnn.bn1.weight / (cnn.bn1.running_var + cnn.bn1.eps).sqrt()
        signal = torch.nn.functional.conv_transpose2d(
            signal * scale.view(1, -1, 1, 1), cnn.conv1.weight, padding=1
        )
    torch.testing.assert_close(guided_backprop(cnn, inputs, target), signal, rtol=1e-9, atol=1e-12)


def test_random_map_is_a_function_of_the_item_seed(cnn):
    values = explain("random", cnn, clips(64), seeds=range(64)).values
    again = explain("random", cnn, clips(2), seeds=[63, 0]).values
    assert torch.equal(values[[63, 0]], again)
    assert abs(values.mean()) < 0.05 and abs(values.std() - 1) < 0.05


def test_energy_is_the_distance_from_the_mean_baseline(cnn):
    baseline = torch.stack([torch.full(toys.SHAPE, 0.2), torch.full(toys.SHAPE, 0.4)])[
        None
    ].double()
    torch.testing.assert_close(
        explain("energy", cnn, clips(), baseline=baseline).values, clips() - 0.3
    )


@pytest.mark.parametrize("name", SAME_AXES)
def test_every_method_leaves_no_trace_and_ignores_order_and_company(name, cnn):
    inputs = clips()
    target = targets.ClassLogit((0, 1, 2, 3, 0))
    cnn.train()
    cnn.conv1.weight.requires_grad_(False)
    result = toys.unchanged(cnn, lambda: explain(name, cnn, inputs, target, seeds=range(5)))
    assert result.values.shape == inputs.shape and not result.values.requires_grad
    order = [4, 2, 0]
    some = explain(name, cnn, inputs[order], target.select(order), seeds=order)
    torch.testing.assert_close(some.values, result.values[order], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", [name for name in SAME_AXES if name not in BY_GROUP])
def test_segments_share_their_sum_evenly(name, cnn):
    labels = (torch.arange(16)[:, None] // 4 * 4 + torch.arange(16)[None] // 4)[None]
    plain = explain(name, cnn, clips()).values
    pooled = explain(name, cnn, clips(), segments=labels).values
    torch.testing.assert_close(pooled.sum((1, 2, 3)), plain.sum((1, 2, 3)))
    torch.testing.assert_close(
        pooled[:, 0, :4, 4:8].mean((1, 2)), plain[:, 0, :4, 4:8].mean((1, 2))
    )
    assert (pooled[:, 0, :4, 4:8] == pooled[:, 0, :1, 4:5]).all()


def test_methods_without_a_baseline_say_what_they_need(cnn):
    method = registry.load("integrated_gradients")
    with pytest.raises(ExplainError, match="no baseline; zero is not silence"):
        method(
            cnn,
            clips(),
            targets.ClassLogit((0,) * 5),
            baseline=None,
            item_seeds=seed_array(range(5)),
        )
    with pytest.raises(ExplainError, match=r"baseline \(1, 1, 3, 3\), need \(1 or 5, K"):
        explain("energy", cnn, clips(), baseline=torch.zeros(1, 1, 3, 3))


def test_unknown_method_proposes_the_nearest():
    with pytest.raises(ExplainError, match="did you mean integrated_gradients?"):
        registry.info("integrated_gradient")


def test_registry_and_method_signatures_agree():
    import inspect

    from sonolens.explain.contract import Method

    common = set(inspect.signature(Method.__call__).parameters) - {"self", "options"}
    for info in registry.METHODS.values():
        parameters = inspect.signature(info.load()).parameters
        own = {name: one for name, one in info.options.items() if name != "segmentation"}
        assert set(parameters) - common == set(own) | set(info.fixed)
        assert all(parameters[name].default == default for name, default in own.items())


@pytest.mark.parametrize(
    ("model", "error"),
    [
        (toys.FunctionalCNN(), checks.FunctionalActivationError),
        (toys.ReusedCNN(), checks.ReusedActivationError),
        (toys.SmallCNN(inplace=True), checks.InPlaceActivationError),
    ],
)
def test_models_whose_activations_escape_hooks_are_refused(model, error):
    inputs = clips(dtype=torch.float32)
    with pytest.raises(error):
        checks.assert_explainable(model, inputs[:1])
    with pytest.raises(error):
        explain("guided_gradcam", model, inputs, targets.ClassLogit((0,) * 5))
    handles = [
        len(module._forward_hooks) + len(module._backward_hooks) for module in model.modules()
    ]
    assert not any(handles)


def test_explainable_model_passes_the_check_unchanged(cnn):
    toys.unchanged(cnn, lambda: checks.assert_explainable(cnn, clips(1)))


def test_guided_gradcam_refuses_layers_that_say_nothing(cnn):
    with pytest.raises(ExplainError, match="no `gradcam_layer`"):
        explain("guided_gradcam", toys.Linear(), clips())
    with pytest.raises(ExplainError, match="name one of the model's modules"):
        explain("guided_gradcam", cnn, clips(), layer="conv9")
    with pytest.raises(ExplainError, match="at least 2 cells"):
        explain("guided_gradcam", cnn, clips(), layer="fc")
    tiny = clips(2, size=2)
    with pytest.raises(ExplainError, match="at least 2 cells"):
        explain("guided_gradcam", cnn, tiny, targets.ClassLogit((0, 0)))


def test_targets():
    import pickle

    outputs = torch.arange(12.0).view(4, 3)
    target = pickle.loads(pickle.dumps(targets.ClassLogit((2, 0))))
    assert target(outputs, torch.tensor([0, 1, 1, 0])).tolist() == [2, 3, 6, 11]
    assert targets.mask_bin(1, 2)(torch.arange(24.0).view(2, 3, 4), torch.arange(2)).tolist() == [
        6,
        18,
    ]
    with pytest.raises(ExplainError, match="class 5"):
        targets.ClassLogit((5,))(outputs, torch.tensor([0]))
    model = toys.Linear()
    grads, values = gradient(model, clips(), targets.ClassLogit((1,) * 5))
    torch.testing.assert_close(values, evaluate(model, clips(), targets.ClassLogit((1,) * 5)))
    assert torch.equal(grads, model.weights[[1] * 5].detach())
