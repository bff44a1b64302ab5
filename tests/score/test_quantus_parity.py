"""compat: quantus against Quantus 0.6 itself, in float64, with the same draws.

Quantus casts inputs to float32, so the network is wrapped: it casts them back, and inputs are
numbers that float32 holds exactly. Without Quantus the numbers of one run stand in.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import toys
from sonolens import rng
from sonolens.explain.contract import Items, evaluate
from sonolens.explain.saliency import attribute as saliency
from sonolens.explain.targets import ClassLogit
from sonolens.score import registry
from sonolens.score.cascade import randomised, resettable
from sonolens.score.contract import Context, ScoreError

GOLDEN = Path(__file__).parent.parent / "resources" / "quantus_0_6.json"
N, SIZE, SEED = 5, 16, 7
CLASSES = (0, 1, 2, 3, 1)


class Double(nn.Module):
    """A float64 network for float32 inputs."""

    def __init__(self):
        super().__init__()
        self.net = toys.SmallCNN().double()

    def forward(self, inputs):
        return self.net(inputs.double())


@pytest.fixture(scope="module")
def model():
    return Double().eval()


def inputs_of():
    drawn = torch.rand(N, 1, SIZE, SIZE, generator=rng.torch_generator("parity"))
    return (drawn * 1024).round() / 1024


def maps_of(model, inputs, classes=CLASSES):
    target = ClassLogit(tuple(classes))
    return saliency(model, inputs, target, baseline=None, item_seeds=None).values


class Explainer:
    """Saliency; noisy inputs are cast to float32 first, as Quantus does."""

    def __init__(self, model, magnitude=False):
        self.model, self.magnitude = model, magnitude
        self.n_layers = self.n_resettable = len(resettable(model))

    def __call__(self, inputs, target=None, weights="trained"):
        model = self.model if weights == "trained" else randomised(self.model, weights, 0)
        classes = CLASSES if target is None else target.class_index
        maps = maps_of(model, inputs.float(), classes).double()
        return maps.abs() if self.magnitude else maps


def context_of(model, inputs, mask=None, magnitude=False):
    target = ClassLogit(CLASSES)
    return Context(
        Items(tuple(f"item{i}" for i in range(N)), ("p",) * N, CLASSES),
        inputs,
        target,
        lambda edited, rows: evaluate(model, edited, target, rows),
        lambda x, cells, fill: torch.where(cells > 0, fill, x),
        torch.zeros_like(inputs),
        {} if mask is None else {"truth": mask},
        torch.arange(N),
        n_classes=4,
        explain=Explainer(model, magnitude),
    )


def ours(name, model, maps=None, mask=None, magnitude=False, **options):
    inputs = inputs_of()
    context = context_of(model, inputs, mask, magnitude)
    maps = maps_of(model, inputs).double() if maps is None else maps
    row = registry.info(name)
    return toys.unchanged(model, lambda: row.compute(maps, context, compat="quantus", **options))


def explain(model, inputs, targets, **_):
    """What Quantus calls: arrays in, arrays out."""
    maps = maps_of(model, torch.as_tensor(np.asarray(inputs), dtype=torch.float32), targets)
    return maps.double().numpy()


def theirs(metric, model, maps=None, mask=None, **call):
    inputs = inputs_of()
    maps = maps_of(model, inputs).double() if maps is None else maps
    np.random.seed(SEED)  # noqa: NPY002 - what Quantus draws from
    with torch.random.fork_rng():
        return metric(
            model=model, x_batch=inputs.numpy(), y_batch=np.array(CLASSES),
            a_batch=maps.numpy().copy(), s_batch=None if mask is None else mask.numpy(),
            device="cpu", **call,
        )  # fmt: skip


def check(name, found, wanted, tolerance):
    """Compare with Quantus, or with its numbers of one run where it is not installed."""
    golden = json.loads(GOLDEN.read_text())[name]
    if wanted is not None:
        np.testing.assert_allclose(wanted, golden, rtol=0, atol=max(tolerance, 1e-7))
    np.testing.assert_allclose(
        np.asarray(found), golden if wanted is None else wanted, rtol=0,
        atol=max(tolerance, 1e-7) if wanted is None else tolerance,
    )  # fmt: skip


@pytest.fixture(scope="module")
def quantus():
    """Quantus, or None; what it prints about its parameters is off."""
    try:
        import quantus
    except ImportError:
        return None
    return quantus


QUIET = {"disable_warnings": True}


def scattered_map(model):
    """Signed maps of very different sizes: what is scaled by the whole array shows."""
    return maps_of(model, inputs_of()).double() * torch.logspace(-3, 3, N).view(-1, 1, 1, 1)


def test_faithfulness_correlation(model, quantus):
    found = ours(
        "faithfulness_scattered", model, n_coalitions=20, subset_size=30, legacy_seed=SEED
    ).values
    wanted = quantus and theirs(
        quantus.FaithfulnessCorrelation(
            nr_runs=20, subset_size=30, return_aggregate=False, **QUIET
        ),
        model,
    )
    check("faithfulness_correlation", found, wanted, 1e-9)


@pytest.mark.parametrize(
    ("name", "theirs_name"),
    [("average_sensitivity", "AvgSensitivity"), ("max_sensitivity", "MaxSensitivity")],
)
def test_sensitivity(model, quantus, name, theirs_name):
    options = {"n_noise_draws": 4, "noise_radius": 0.2, "legacy_seed": SEED}
    found = ours(name, model, **options).values
    wanted = quantus and theirs(
        getattr(quantus, theirs_name)(nr_samples=4, lower_bound=0.2, **QUIET),
        model,
        explain_func=explain,
    )
    check(name, found, wanted, 1e-8)


@pytest.mark.parametrize(
    ("name", "theirs_name"),
    [
        ("sparseness", "Sparseness"),
        ("complexity", "Complexity"),
        ("effective_complexity", "EffectiveComplexity"),
    ],
)
def test_complexities_scaled_by_the_whole_array(model, quantus, name, theirs_name):
    maps = scattered_map(model)
    found = ours(name, model, maps).values
    wanted = quantus and theirs(getattr(quantus, theirs_name)(**QUIET), model, maps)
    check(name, found, wanted, 1e-6)
    alone = registry.info(name).compute(maps, None).values
    if name != "complexity":
        assert (found - alone).abs().max() > 1e-3


def test_random_logit(model, quantus):
    found = ours("random_logit", model).values
    wanted = quantus and theirs(
        quantus.RandomLogit(num_classes=4, **QUIET), model, explain_func=explain
    )
    check("random_logit", found, wanted, 1e-6)
    plane = registry.info("random_logit").compute(
        maps_of(model, inputs_of()), context_of(model, inputs_of())
    )
    assert (found - plane.values).abs().max() > 0.01


def by_layer(result):
    """Curve as a list of layers, each with a number per item."""
    table = result.curves.pivot(index="x", columns="item_id", values="y")
    return table.to_numpy()


def test_mprt_per_layer(model, quantus):
    result = ours("mprt", model)
    found = by_layer(result)
    wanted = quantus and np.array(
        list(theirs(quantus.MPRT(**QUIET), model, explain_func=explain).values())
    )
    check("mprt", found, wanted, 1e-6)
    # the mean takes in the original model, whose correlation is 1
    np.testing.assert_allclose(result.values, found.mean(0), atol=1e-12)
    assert np.allclose(found[0], 1)


def test_smooth_mprt_per_layer(model, quantus):
    smooth = maps_of(model, inputs_of()).double().abs()
    options = {"n_smooth_draws": 3, "legacy_seed": SEED}
    found = by_layer(ours("smooth_mprt", model, smooth, magnitude=True, **options))
    wanted = quantus and np.array(
        list(
            theirs(
                quantus.SmoothMPRT(nr_samples=3, **QUIET), model, smooth,
                explain_func=quantus.explain, explain_func_kwargs={"method": "Saliency"},
            ).values()
        )
    )  # fmt: skip
    check("smooth_mprt", found, wanted, 1e-6)


def test_efficient_mprt(model, quantus):
    found = ours("efficient_mprt", model).values
    wanted = quantus and theirs(quantus.EfficientMPRT(**QUIET), model, explain_func=explain)
    check("efficient_mprt", found, wanted, 1e-6)


@pytest.mark.parametrize(
    ("name", "theirs_name"),
    [
        ("relevance_rank_accuracy", "RelevanceRankAccuracy"),
        ("relevance_mass_accuracy", "RelevanceMassAccuracy"),
    ],
)
def test_localisation_is_exact(model, quantus, name, theirs_name):
    mask = torch.rand(N, 1, SIZE, SIZE, generator=rng.torch_generator("mask")) > 0.8
    mask[2] = False
    found = ours(name, model, mask=mask).values
    wanted = quantus and theirs(getattr(quantus, theirs_name)(**QUIET), model, mask=mask)
    check(name, found, wanted, 1e-12)
    assert found.isnan().tolist() == [False, False, True, False, False]


def test_what_compat_lacks_is_named(model):
    with pytest.raises(ScoreError, match="legacy_seed"):
        ours("average_sensitivity", model)
    with pytest.raises(ScoreError, match="fewer than the input has"):
        ours("faithfulness_scattered", model, subset_size=256, legacy_seed=0)
    with pytest.raises(ScoreError, match="compat 'captum', need null or quantus"):
        registry.info("sparseness").compute(torch.ones(1, 1, 2, 2), None, compat="captum")
