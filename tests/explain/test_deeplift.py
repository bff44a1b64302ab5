"""DeepLIFT against captum where captum keeps the sum, against the rule written out, float64."""

import warnings

import captum.attr._core.deep_lift as captum_deeplift
import pytest
import torch
from captum.attr import DeepLift, DeepLiftShap
from torch import nn
from torch.nn import functional

import toys
from sonolens import rng
from sonolens.explain import checks, registry, targets
from sonolens.explain.contract import ExplainError, evaluate, seed_array
from sonolens.explain.prepare import prepared
from sonolens.models.alexnet_small import AlexNetSmall
from sonolens.models.resnet18 import ResNet18

CLASSES = (0, 1, 2)


def draw(name, n, *shape):
    generator = rng.torch_generator(name)
    return torch.rand(n, *shape, generator=generator, dtype=torch.float64)


def clips(size=16, n=3):
    return draw("clips", n, 1, size, size)


def references(size=16, n=4):
    return draw("references", n, 1, size, size)


def explain(name, model, inputs, baseline, target=None, **options):
    return registry.load(name)(
        model,
        inputs,
        targets.ClassLogit(CLASSES) if target is None else target,
        baseline=baseline,
        item_seeds=seed_array(range(len(inputs))),
        **options | registry.info(name).fixed,
    )


class Copy(nn.Module):
    def forward(self, inputs):
        return inputs.clone()


def spaced(model):
    """With a copy before every pooling: captum's rule for it is lost directly behind a ReLU."""
    for name, module in list(model.named_modules()):
        if type(module) in (nn.MaxPool1d, nn.MaxPool2d):
            model.set_submodule(name, nn.Sequential(Copy(), module))
    return model


def added(values, places, kernel, stride, padding, shape):
    """As max_unpool, but what windows give to one cell is added up."""
    flat = values.new_zeros(shape).flatten(2)
    return flat.scatter_add(2, places.flatten(2), values.flatten(2)).view(shape)


def lively(model):
    with rng.forked("lively"):
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
                module.weight.data.normal_(1, 0.2)
    return model.double().eval()


def networks():
    with rng.forked("networks"):
        return {
            "toy": (lively(toys.SmallCNN()), 16),
            "alexnet": (lively(AlexNetSmall(4, width=4)), 32),
            "resnet": (lively(ResNet18(4, width=4)), 32),
            "many": (lively(many_kinds()), 16),
        }


def many_kinds():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ELU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 3, padding=1), nn.LeakyReLU(), nn.AvgPool2d(2), nn.Dropout(0.5),
        nn.Flatten(), nn.Linear(64, 8), nn.Sigmoid(), nn.Linear(8, 8), nn.Tanh(),
        nn.Linear(8, 8), nn.Softplus(), nn.Linear(8, 4),
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore:Setting forward", "ignore:Input Tensor 0")
@pytest.mark.parametrize("name", list(networks()))
def test_maps_agree_with_captum(name, monkeypatch):
    model, size = networks()[name]
    inputs, baseline = clips(size), references(size)
    found = toys.unchanged(model, lambda: explain("deeplift_shap", model, inputs, baseline[None]))
    alone = explain("deeplift", model, inputs, baseline[None])
    assert found.completeness_error.max() < 1e-9 and alone.completeness_error.max() < 1e-9
    assert (found.n_evaluations, alone.n_evaluations) == (5, 2)
    # pooling in ResNet has overlapping windows, which captum does not add up
    monkeypatch.setattr(captum_deeplift.F, "max_unpool2d", added)
    peer = spaced(networks()[name][0])
    expected = DeepLiftShap(peer).attribute(inputs, baseline, target=list(CLASSES)).detach()
    torch.testing.assert_close(found.values, expected, rtol=1e-9, atol=1e-12)
    mean = baseline.mean(0, keepdim=True).expand_as(inputs)
    expected = DeepLift(peer).attribute(inputs, mean, target=list(CLASSES)).detach()
    torch.testing.assert_close(alone.values, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.filterwarnings("ignore:Setting forward", "ignore:Input Tensor 0")
def test_captum_as_it_is_loses_the_sum_at_pools_and_ours_does_not():
    model = networks()["alexnet"][0]
    inputs, baseline = clips(32), references(32)
    change = evaluate(model, inputs, targets.ClassLogit(CLASSES))
    change = change - model(baseline).detach()[:, list(CLASSES)].mean(0)
    theirs = DeepLiftShap(model).attribute(inputs, baseline, target=list(CLASSES)).detach()
    assert ((theirs.sum((1, 2, 3)) - change).abs() / change.abs()).max() > 0.01
    ours = explain("deeplift_shap", model, inputs, baseline[None]).values
    torch.testing.assert_close(ours.sum((1, 2, 3)), change, rtol=1e-9, atol=1e-12)


def test_pooling_over_time_agrees_with_captum():
    with rng.forked("waves"):
        model = nn.Sequential(
            nn.Conv1d(1, 4, 5, padding=2), nn.ReLU(), nn.MaxPool1d(4), nn.Conv1d(4, 4, 3),
            nn.ReLU(), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(28, 3),
        ).double().eval()  # fmt: skip
    inputs, baseline = draw("waves", 3, 1, 64) - 0.5, draw("silences", 2, 1, 64) - 0.5
    found = explain("deeplift_shap", model, inputs, baseline[None]).values
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = DeepLiftShap(spaced(model))
        expected = peer.attribute(inputs, baseline, target=list(CLASSES)).detach()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_rescale_rule_written_out():
    with rng.forked("written out"):
        first, second = nn.Linear(5, 7).double(), nn.Linear(7, 3).double()
    model = nn.Sequential(first, nn.GELU(), second)
    inputs, baseline = draw("x", 3, 5), draw("b", 3, 2, 5)
    found = explain("deeplift_shap", model, inputs, baseline)
    expected = torch.zeros(3, 5).double()
    with torch.no_grad():
        for item in range(3):
            for start in baseline[item]:
                before, before_start = first(inputs[item]), first(start)
                slope = functional.gelu(before) - functional.gelu(before_start)
                slope = second.weight[CLASSES[item]] * slope / (before - before_start)
                expected[item] += (inputs[item] - start) * (slope @ first.weight) / 2
    torch.testing.assert_close(found.values, expected, rtol=1e-9, atol=1e-12)
    assert found.completeness_error.max() < 1e-9


def test_equal_inputs_of_an_activation_take_the_gradient():
    model = nn.Sequential(nn.Linear(4, 4), nn.SiLU(), nn.Linear(4, 3)).double()
    inputs = draw("x", 3, 4)
    from sonolens.explain import deeplift
    from sonolens.explain.contract import frozen, gradient

    with torch.enable_grad(), frozen(model):
        ends = inputs.clone().requires_grad_()
        with deeplift._rules(model) as rules:
            values = model(ends)[range(3), CLASSES]
        rules.refer(model, inputs[None])
        found = rules.multipliers(values.sum(), ends, 0)
    expected, _ = gradient(model, inputs, targets.ClassLogit(CLASSES))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    assert not explain("deeplift", model, inputs, inputs[:, None]).values.any()
    assert explain("deeplift", model, inputs, inputs[:, None]).completeness_error.isnan().all()


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("chunk_size", [1, 4, 6, 100])
def test_maps_depend_on_no_chunk_and_no_company(shared, chunk_size):
    model, size = networks()["alexnet"]
    inputs = clips(size)
    baseline = references(size)[None] if shared else references(size, 12).unflatten(0, (3, 4))
    expected = [
        explain(
            "deeplift_shap", model, inputs[[item]], baseline[[0 if shared else item]][:, [k]],
            targets.ClassLogit((CLASSES[item],)),
        ).values
        for item in range(3) for k in range(4)
    ]  # fmt: skip
    expected = torch.cat(expected).unflatten(0, (3, 4)).mean(1)
    found = explain("deeplift_shap", model, inputs, baseline, chunk_size=chunk_size)
    torch.testing.assert_close(found.values, expected, rtol=1e-9, atol=1e-12)
    assert found.completeness_error.max() < 1e-9


def test_shared_baselines_run_once_for_all_items():
    model = toys.SmallCNN().double()
    toys.SmallCNN.n_forward = 0
    explain("deeplift_shap", model, clips(n=3), references(n=4)[None])
    assert toys.SmallCNN.n_forward == 3 + 4


@pytest.mark.parametrize("name", ["toy", "resnet"])
def test_maps_of_the_prepared_model_are_the_same(name):
    model, size = networks()[name]
    inputs, baseline = clips(size), references(size)[None]
    expected = explain("deeplift_shap", model, inputs, baseline).values
    found = explain("deeplift_shap", prepared(model, inputs[:1]), inputs, baseline).values
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


def test_linear_models_have_the_maps_of_their_weights():
    model, baseline = toys.Linear(), references()
    found = explain("deeplift_shap", model, clips(), baseline[None])
    expected = model.weights * (clips() - baseline.mean(0))
    torch.testing.assert_close(found.values, expected.detach(), rtol=0, atol=1e-12)


class Headed(nn.Module):
    """SmallCNN with something at its end."""

    def __init__(self, head):
        super().__init__()
        self.body, self.head = toys.SmallCNN(), head

    def forward(self, inputs):
        return self.head(self.body(inputs))


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, inputs):
        return self.function(inputs)


class Pooled(toys.SmallCNN):
    def activate(self, number, hidden):
        return functional.max_pool2d(super().activate(number, hidden), 3, 1, 1)


class TwicePooled(toys.SmallCNN):
    def __init__(self):
        super().__init__()
        self.pool = nn.MaxPool2d(3, 1, 1)

    def activate(self, number, hidden):
        return self.pool(super().activate(number, hidden))


@pytest.mark.parametrize("method", ["deeplift", "deeplift_shap"])
@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (toys.FunctionalCNN(), checks.FunctionalActivationError, "nn.ReLU"),
        (toys.ReusedCNN(), checks.ReusedActivationError, "'relu1' is called twice"),
        (toys.SmallCNN(inplace=True), checks.InPlaceActivationError, "'relu1' works in place"),
        (Pooled(), checks.FunctionalActivationError, "nn.MaxPool2d"),
        (TwicePooled(), checks.ReusedActivationError, "'pool' is called twice"),
        (Headed(nn.Softmax(1)), checks.NonLinearError, "module 'head' is a Softmax"),
        (Headed(nn.LayerNorm(4)), checks.NonLinearError, "module 'head' is a LayerNorm"),
        (Headed(nn.GRU(4, 4)), checks.NonLinearError, "module 'head' is a GRU"),
        (Headed(nn.LSTM(4, 4)), checks.NonLinearError, "module 'head' is a LSTM"),
        (Headed(Function(torch.sigmoid)), checks.FunctionalActivationError, "nn.Sigmoid"),
        (Headed(Function(lambda x: x.softmax(1))), checks.NonLinearError, "SoftmaxBackward"),
        (Headed(Function(lambda x: x * x)), checks.NonLinearError, "MulBackward"),
        (Headed(Function(lambda x: 1 / x)), checks.NonLinearError, "ReciprocalBackward"),
        (Headed(Function(lambda x: x / x.sum())), checks.NonLinearError, "DivBackward"),
    ],
)
def test_what_has_no_rule_is_refused_by_name(method, model, error, message):
    model = model.double()
    with pytest.raises(error, match=message):
        explain(method, model, clips(), references()[None])
    assert not any(module._forward_hooks for module in model.modules())


def test_linear_functions_pass_and_targets_are_checked_too():
    model = Headed(Function(lambda x: ((2 * x - x.mean(1, keepdim=True)) / 3).roll(1, 1))).double()
    assert explain("deeplift", model, clips(), references()[None]).completeness_error.max() < 1e-9
    with pytest.raises(checks.NonLinearError, match="PowBackward"):
        explain(
            "deeplift", model, clips(), references()[None], lambda outputs, rows: outputs[:, 0] ** 2
        )


def test_own_batch_statistics_are_not_linear():
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, track_running_stats=False), nn.Flatten(),
        nn.Linear(392, 4),
    ).double()  # fmt: skip
    with pytest.raises(checks.NonLinearError, match="NativeBatchNorm"):
        explain("deeplift", model, clips(), references()[None])


def test_options_out_of_range_are_refused():
    with pytest.raises(ExplainError, match="chunk_size 0"):
        explain("deeplift", toys.SmallCNN().double(), clips(), references()[None], chunk_size=0)
    ceiled = nn.Sequential(nn.MaxPool2d(3, ceil_mode=True), nn.Flatten(), nn.Linear(36, 4)).double()
    with pytest.raises(checks.NonLinearError, match="ceil_mode"):
        explain("deeplift", ceiled, clips(), references()[None])
