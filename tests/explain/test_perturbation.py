"""Methods that remove cells, against captum, scikit-learn and slow references, in float64."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

import toys
from sonolens import rng
from sonolens.explain import registry, segments, targets
from sonolens.explain.contract import ExplainError, evaluate, frozen, seed_array
from sonolens.explain.kernel_shap import coalitions
from sonolens.explain.lime import samples
from sonolens.explain.meaningful_perturbation import Weights, learn
from sonolens.explain.removal import items
from sonolens.explain.rise import masks

BY_GROUP = ["feature_ablation", "kernel_shap", "permutation_shapley", "lime"]
FAST = {
    "rise": {"n_masks": 20},
    "meaningful_perturbation": {"n_steps": 10},
    "lime": {"n_samples": 40},
    "kernel_shap": {"n_samples": 40},
}
METHODS = ["occlusion", *BY_GROUP, "rise", "meaningful_perturbation"]
N_ITEMS, SIZE = 3, 16


def draw(*shape):
    return torch.rand(*shape, generator=rng.torch_generator("draw", *shape), dtype=torch.float64)


CLIPS = draw(N_ITEMS, 1, SIZE, SIZE)
LABEL = targets.ClassLogit((0, 3, 1))
QUARTERS = segments.patches(CLIPS, n_patches=2)
NINE = segments.patches(CLIPS, n_patches=3)
ONE = draw(1, 1, 1, SIZE, SIZE) * 0.3
THREE = draw(N_ITEMS, 3, 1, SIZE, SIZE) * 0.3


@pytest.fixture
def cnn():
    return toys.SmallCNN().double().eval()


def explain(name, model, inputs=CLIPS, target=LABEL, baseline=ONE, seeds=None, **options):
    if name in BY_GROUP and "segments" not in options:
        options["segments"] = NINE
    seeds = seed_array(range(len(inputs)) if seeds is None else seeds)
    return registry.load(name)(
        model, inputs, target, baseline=baseline, item_seeds=seeds, **FAST.get(name, {}) | options
    )


def group_sums(values, labels=NINE):
    """(batch, groups)."""
    flat = labels.expand(values.shape).flatten(1)
    return torch.zeros(len(values), int(labels.max()) + 1, dtype=values.dtype).scatter_add(
        1, flat, values.flatten(1)
    )


def worth(model, present, labels, item, baseline=ONE):
    """Target of one item with only the groups of `present`, written out."""
    starts = baseline.expand(N_ITEMS, *baseline.shape[1:])[item]
    found = []
    for start in starts:
        edited = CLIPS[[item]].clone()
        for group, there in enumerate(present):
            if not there:
                where = (labels == group)[None]
                edited[where] = start[None][where]
        found.append(evaluate(model, edited, LABEL, torch.tensor([item])).item())
    return sum(found) / len(found)


def shapley(model, labels, item, baseline=ONE):
    """Exact values by the definition: the mean gain over all orders."""
    n = int(labels.max()) + 1
    known = {
        bits: worth(model, bits, labels, item, baseline)
        for bits in itertools.product((0, 1), repeat=n)
    }
    values = [0.0] * n
    for order in itertools.permutations(range(n)):
        present = [0] * n
        for player in order:
            before = known[tuple(present)]
            present[player] = 1
            values[player] += (known[tuple(present)] - before) / math.factorial(n)
    return torch.tensor(values, dtype=torch.float64)


# --- occlusion and ablation ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("window", "stride"), [((4, 4), (4, 4)), ((4, 2), (2, 1)), ((16, 4), (16, 3))]
)
def test_occlusion_agrees_with_captum(cnn, window, stride):
    from captum.attr import Occlusion

    expected = Occlusion(cnn).attribute(
        CLIPS, (1, *window), strides=(1, *stride), baselines=ONE[0], target=list(LABEL.class_index)
    )
    found = explain("occlusion", cnn, window=window, stride=stride).values
    # captum gives every cell the whole drop, we its share
    assert expected.dtype == torch.float32  # captum rounds its sums, also for float64 models
    scaled = (found * window[0] * window[1]).float()
    torch.testing.assert_close(scaled, expected, rtol=0, atol=1e-7 * expected.abs().max().item())


def test_occlusion_with_windows_cut_at_the_border_is_the_definition(cnn):
    window, stride = 5, 3
    found = explain("occlusion", cnn, window=window, stride=stride, baseline=THREE)
    corners = range(0, SIZE - window + stride, stride)
    assert list(corners)[-1] + window > SIZE
    total, count = torch.zeros(SIZE, SIZE).double(), torch.zeros(SIZE, SIZE).double()
    for top, left in itertools.product(corners, corners):
        hidden = torch.zeros(1, SIZE, SIZE, dtype=torch.int64)
        hidden[:, top : top + window, left : left + window] = 1
        drop = worth(cnn, (1, 1), hidden, 1, THREE) - worth(cnn, (1, 0), hidden, 1, THREE)
        total += hidden[0].double() * drop / hidden.sum()
        count += hidden[0]
    torch.testing.assert_close(found.values[1, 0], total / count, rtol=0, atol=1e-12)
    assert found.n_evaluations == 1 + 3 * len(corners) ** 2


def test_windows_side_by_side_are_groups(cnn):
    by_window = explain("occlusion", cnn, window=4, stride=4).values
    by_group = explain("feature_ablation", cnn, segments=segments.patches(CLIPS, 4)).values
    torch.testing.assert_close(by_window, by_group, rtol=0, atol=1e-14)


def test_feature_ablation_agrees_with_captum(cnn):
    from captum.attr import FeatureAblation

    expected = FeatureAblation(cnn).attribute(
        CLIPS, baselines=ONE[0], target=list(LABEL.class_index), feature_mask=NINE[None]
    )
    sizes = torch.bincount(NINE.flatten())[NINE]
    found = explain("feature_ablation", cnn).values
    torch.testing.assert_close(found * sizes, expected, rtol=0, atol=1e-12)


# --- Shapley values -----------------------------------------------------------------------------


@pytest.mark.parametrize("baseline", [ONE, THREE])
@pytest.mark.parametrize(
    ("name", "options"), [("kernel_shap", {}), ("permutation_shapley", {"n_permutations": 16})]
)
def test_with_all_coalitions_shapley_values_are_exact(cnn, name, options, baseline):
    labels = segments.bands(CLIPS, 5)
    result = explain(name, cnn, segments=labels, baseline=baseline, **options)
    for item in range(N_ITEMS):
        torch.testing.assert_close(
            group_sums(result.values, labels)[item],
            shapley(cnn, labels, item, baseline), rtol=0, atol=1e-9,
        )  # fmt: skip
    assert result.n_evaluations == 1 + (2**5 - 1) * baseline.shape[1]
    assert result.completeness_error.max() < 1e-9


@pytest.mark.parametrize("name", ["kernel_shap", "permutation_shapley"])
def test_sampled_shapley_values_sum_to_the_change_and_approach_the_exact(cnn, name):
    many = {"kernel_shap": {"n_samples": 400}, "permutation_shapley": {"n_permutations": 64}}[name]
    labels = segments.bands(CLIPS, 10)
    few = explain(name, cnn, segments=labels)
    exact = explain("kernel_shap", cnn, segments=labels, n_samples=2**10).values
    change = evaluate(cnn, CLIPS, LABEL) - evaluate(cnn, ONE[0].expand_as(CLIPS), LABEL)
    torch.testing.assert_close(few.values.sum((1, 2, 3)), change, rtol=1e-10, atol=1e-12)
    errors = [
        (explain(name, cnn, segments=labels, **options).values - exact).norm() / exact.norm()
        for options in ({}, many)
    ]
    assert errors[1] < errors[0] < 0.5 and errors[1] < 0.1


@pytest.mark.parametrize("name", ["kernel_shap", "permutation_shapley"])
def test_what_is_additive_or_bilinear_in_the_groups_needs_few_samples(name):
    labels = segments.patches(CLIPS, 4)
    model = toys.Linear(4)
    expected = group_sums(model.weights[[0, 3, 1]].detach() * (CLIPS - ONE[0]), labels)
    found = explain(name, model, segments=labels)
    torch.testing.assert_close(group_sums(found.values, labels), expected, rtol=0, atol=1e-9)


def test_one_group_gets_the_whole_change(cnn):
    change = evaluate(cnn, CLIPS, LABEL) - evaluate(cnn, ONE[0].expand_as(CLIPS), LABEL)
    for name in ("kernel_shap", "permutation_shapley", "feature_ablation"):
        values = explain(name, cnn, segments=torch.zeros_like(NINE)).values
        torch.testing.assert_close(values.sum((1, 2, 3)), change, rtol=0, atol=1e-12)


@pytest.mark.parametrize("n_samples", [18, 19, 60, 200, 509, 510, 5000])
def test_coalitions_come_in_pairs_with_the_weights_of_the_kernel(n_samples):
    present, weights = coalitions(9, n_samples, rng.numpy_generator("coalitions"))
    assert len(present) <= min(n_samples, 510) and len(present) >= min(n_samples, 510) - 1
    assert weights.sum() == pytest.approx(1) and (weights > 0).all()
    sizes = present.sum(1)
    assert sizes.min() >= 1 and sizes.max() <= 8
    rows = {tuple(row) for row in present}
    assert all(tuple(~row) in rows for row in present)
    mass = np.array([1 / (size * (9 - size)) for size in range(1, 9)])
    if n_samples >= 510:
        assert len(rows) == 510
        expected = mass / mass.sum() / [math.comb(9, size) for size in range(1, 9)]
        np.testing.assert_allclose(weights, expected[sizes - 1], rtol=1e-12)
    if n_samples == 200:  # the outermost sizes are there as a whole
        found = np.bincount(sizes, weights, minlength=9)[1:]
        assert found[0] == pytest.approx(mass[0] / mass.sum()) and (sizes == 1).sum() == 9


@pytest.mark.filterwarnings("ignore:You are providing multiple inputs")
def test_kernel_shap_agrees_with_captum_where_both_are_exact():
    from captum.attr import KernelShap

    model, labels = toys.Linear(4).double(), segments.patches(CLIPS, 3)
    with rng.forked(0):
        expected = KernelShap(model).attribute(
            CLIPS, ONE[0], target=list(LABEL.class_index), feature_mask=labels[None],
            n_samples=100, perturbations_per_eval=50,
        )  # fmt: skip
    found = explain("kernel_shap", model).values * torch.bincount(labels.flatten())[labels]
    # captum's samples are float32, and its two ends weigh 1e6 instead of being constraints
    torch.testing.assert_close(found, expected.double(), rtol=0, atol=1e-4)


# --- LIME, RISE, meaningful perturbation --------------------------------------------------------


@pytest.mark.parametrize(("kernel_width", "alpha"), [(0.25, 1.0), (None, 0.1), (1.0, 10.0)])
def test_lime_is_the_weighted_ridge_of_scikit_learn(cnn, kernel_width, alpha):
    from sklearn.linear_model import Ridge
    from sklearn.metrics import pairwise_distances

    options = {"kernel_width": kernel_width, "alpha": alpha}
    found = group_sums(explain("lime", cnn, seeds=[5, 6, 7], **options).values)
    for item in range(N_ITEMS):
        present, _ = samples(9, 40, kernel_width, 5 + item)
        assert present[0].all() and not present[1:].all(1).any()
        distances = pairwise_distances(present.astype(float), np.ones((1, 9)), metric="cosine")
        weights = np.ones(40)
        if kernel_width is not None:
            weights = np.sqrt(np.exp(-((distances[:, 0] / kernel_width) ** 2)))
        values = [worth(cnn, row, NINE, item) for row in present]
        ridge = Ridge(alpha=alpha).fit(present, values, sample_weight=weights)
        np.testing.assert_allclose(found[item], ridge.coef_, rtol=0, atol=1e-10)


def test_rise_is_the_mean_target_of_the_masks_that_keep_a_cell(cnn):
    found = explain("rise", cnn, seeds=[4, 5, 6], baseline=THREE).values
    kept = masks(CLIPS[1], 20, 7, 0.5, 5)(torch.arange(20))
    assert kept.shape == (20, 1, SIZE, SIZE) and kept.min() >= 0 and kept.max() <= 1
    total = torch.zeros(1, SIZE, SIZE).double()
    for mask in kept:
        edited = THREE[1] * (1 - mask) + CLIPS[1] * mask
        values = evaluate(cnn, edited, LABEL, torch.full((3,), 1))
        total += values.mean() * mask
    torch.testing.assert_close(found[1], total / kept.sum(0), rtol=0, atol=1e-12)


def test_rise_masks_keep_a_cell_with_the_given_probability_and_are_shifted():
    kept = masks(draw(1, 1, 30, 44), 4000, 7, 0.3, 0)(torch.arange(4000))
    assert kept.shape == (4000, 1, 1, 30, 44)
    means = kept.mean((0, 1, 2))
    assert (means - 0.3).abs().max() < 0.04
    flat = torch.ones(1, 1, 5, 5).double()
    constant = explain("rise", toys.Sum(), flat, targets.ClassLogit((0,)), flat[:, None]).values
    torch.testing.assert_close(constant, torch.full_like(constant, 25))


@pytest.mark.parametrize("name", ["rise", "meaningful_perturbation"])
def test_masks_find_the_one_cell_that_counts(name):
    inputs = CLIPS.clone()
    inputs[:, 0, 5, 9] = 2
    options = {"rise": {"n_masks": 400}, "meaningful_perturbation": {"n_steps": 40}}[name]
    values = explain(
        name, toys.OneBin(5, 9), inputs, targets.ClassLogit((0, 0, 0)), ONE * 0, **options
    ).values
    best = values.flatten(1).argmax(1)
    distance = torch.stack([best // SIZE - 5, best % SIZE - 9]).abs().max()
    assert distance <= 2
    if name == "meaningful_perturbation":
        assert values.min() >= 0 and values.max() <= 1
        assert values[:, 0, 5, 9].min() > 5 * values.mean()


def test_the_learnt_mask_lowers_its_objective(cnn):
    with frozen(cnn):
        item = items(cnn, CLIPS, LABEL, THREE, 2, "test")[0]
        weights = Weights(0.1, 0.2, 3.0)
        mask, objectives = learn(item, 30, 0.1, 8, weights, 0, 0)
        again, _ = learn(item, 30, 0.1, 8, weights, 2, 0)
        twice, _ = learn(item, 30, 0.1, 8, weights, 2, 0)
    with torch.no_grad():
        full, empty = item.full(), item.empty()
    assert objectives[0] == pytest.approx(full / abs(full - empty))
    assert objectives[-1] < objectives[0] and mask.shape == (1, SIZE, SIZE)
    assert torch.equal(again, twice) and not torch.equal(again, mask)


def test_the_slope_of_the_mask_is_that_of_the_objective(cnn):
    from sonolens.explain.meaningful_perturbation import _slope

    mask = draw(1, SIZE, SIZE).requires_grad_()
    with frozen(cnn):
        item = items(cnn, CLIPS, LABEL, THREE, 2, "test")[2]
        edited = (THREE[2] * (1 - mask) + CLIPS[2] * mask).roll(1, -1)
        value = cnn(edited)[:, LABEL.class_index[2]].mean()
        (expected,) = torch.autograd.grad(value, mask)
        slope, found = _slope(item, mask.detach(), 1)
    torch.testing.assert_close(slope, expected, rtol=0, atol=1e-12)
    assert found == pytest.approx(value.item())


def test_a_blurred_fill_needs_no_baseline(cnn):
    options = {"fill": "blur", "blur_sigma_cells": 3.0}
    values = explain("meaningful_perturbation", cnn, baseline=None, **options).values
    assert values.shape == CLIPS.shape and values.isfinite().all() and values.any()
    wave = draw(2, 1, 40)
    found = explain(
        "meaningful_perturbation", toys.Linear(2, (1, 40)), wave, targets.ClassLogit((0, 1)), None,
        **options,
    )  # fmt: skip
    assert found.values.shape == wave.shape


# --- what holds for all -------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_maps_depend_neither_on_company_nor_on_chunks(name, cnn):
    model = cnn
    whole = explain(name, model, baseline=THREE)
    for chunk_size in (1, 7):
        found = explain(name, model, baseline=THREE, chunk_size=chunk_size).values
        torch.testing.assert_close(found, whole.values, rtol=1e-9, atol=1e-9)
    order = [2, 0]
    some = explain(name, model, CLIPS[order], LABEL.select(order), THREE[order], seeds=order).values
    assert torch.equal(some, whole.values[order])


# Of a learnt mask the target, not the map, is the mean over the baselines.
@pytest.mark.parametrize("name", METHODS[:-1])
def test_several_baselines_are_averaged(name, cnn):
    one_by_one = [explain(name, cnn, baseline=THREE[:, [k]]).values for k in range(3)]
    torch.testing.assert_close(
        explain(name, cnn, baseline=THREE).values, torch.stack(one_by_one).mean(0),
        rtol=0, atol=1e-9,
    )  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_calls_of_the_model_are_counted_and_never_larger_than_a_chunk(name, cnn):
    seen = []
    handle = cnn.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    result = explain(name, cnn, CLIPS[:1], baseline=THREE[:1], chunk_size=4)
    handle.remove()
    assert max(seen) <= 4 and sum(seen) == result.n_evaluations


@pytest.mark.parametrize("name", BY_GROUP)
def test_cells_of_a_group_share_its_value_and_items_may_have_their_own_groups(name, cnn):
    own = torch.stack([NINE, NINE * 0 + QUARTERS, NINE.transpose(1, 2)])
    values = explain(name, cnn, segments=own).values
    assert (values[0, 0, :5, :5] == values[0, 0, 0, 0]).all()
    for item in range(N_ITEMS):
        alone = explain(
            name, cnn, CLIPS[[item]], LABEL.select([item]), seeds=[item], segments=own[item]
        ).values
        assert torch.equal(values[[item]], alone)


@pytest.mark.parametrize("name", METHODS)
def test_constant_targets_and_inputs_like_the_baseline_have_flat_finite_maps(name, cnn):
    same = ONE[0].expand_as(CLIPS).clone()
    silent = torch.zeros_like(CLIPS)
    for inputs, baseline in ((same, ONE), (silent, torch.zeros_like(ONE))):
        result = explain(name, cnn, inputs, baseline=baseline)
        assert result.values.isfinite().all()
        assert torch.allclose(result.values, result.values[:, :, :1, :1], atol=1e-9)
        if result.completeness_error is not None:
            assert result.completeness_error.isnan().all()


@pytest.mark.parametrize("name", METHODS)
def test_bad_input_is_named(name, cnn):
    with pytest.raises(ExplainError, match=f"{name}: no baseline"):
        explain(name, cnn, baseline=None)
    with pytest.raises(ExplainError, match=rf"{name}: baseline \(1, 1, 3, 3\), need \(1 or 3, K"):
        explain(name, cnn, baseline=torch.zeros(1, 1, 3, 3))
    with pytest.raises(ExplainError, match=r"segments \(3, 3\), need \(1, 16, 16\)"):
        explain(name, cnn, segments=torch.zeros(3, 3, dtype=torch.int64))
    with pytest.raises(ExplainError, match=r"found torch.float64 from"):
        explain(name, cnn, segments=CLIPS)
    with pytest.raises(ExplainError, match="found torch.int64 from -1"):
        explain(name, cnn, segments=NINE - 1)
    with pytest.raises(ExplainError, match="class 4: the model's outputs"):
        explain(name, cnn, target=targets.ClassLogit((0, 4, 1)))
    with pytest.raises(ExplainError, match="class -1: the model's outputs"):
        explain(name, cnn, target=targets.ClassLogit((0, -1, 1)))
    with pytest.raises(ExplainError, match=f"{name}: chunk_size 0"):
        explain(name, cnn, chunk_size=0)
    broken = CLIPS.clone()
    broken[1, 0, 3, 3] = torch.nan
    with pytest.raises(ExplainError, match=f"{name}: the target of item 1 is not finite"):
        explain(name, cnn, broken)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("occlusion", {"window": [17, 2]}, "window"),
        ("occlusion", {"window": 4, "stride": 5}, "cells are left out"),
        ("occlusion", {"window": [1, 1, 1, 2]}, "at most 3 axes"),
        ("kernel_shap", {"n_samples": 17}, "n_samples 17 for 9 groups; need at least 18"),
        ("kernel_shap", {"segments": None}, "for 256 groups; need at least 512, or coarser"),
        ("permutation_shapley", {"n_permutations": 3}, "an even number"),
        ("lime", {"n_samples": 1}, "at least 2 samples"),
        ("lime", {"kernel_width": 0}, "numbers above 0"),
        ("rise", {"keep_probability": 1}, "between 0 and 1"),
        ("meaningful_perturbation", {"fill": "white"}, "'baseline' or 'blur'"),
        ("meaningful_perturbation", {"fill": "blur", "blur_sigma_cells": 0}, "blur_sigma_cells 0"),
    ],
)
def test_options_out_of_range_are_named(name, options, message, cnn):
    with pytest.raises(ExplainError, match=message):
        explain(name, cnn, **options)


def test_a_model_that_is_undefined_without_sound_is_named():
    class Ratio(nn.Module):
        def forward(self, inputs):
            return inputs.flatten(1).sum(1, keepdim=True).log()

    with pytest.raises(ExplainError, match="feature_ablation: the target of item 0 is not finite"):
        explain(
            "feature_ablation", Ratio(), CLIPS, targets.ClassLogit((0, 0, 0)), ONE * 0,
            segments=torch.zeros_like(NINE),
        )  # fmt: skip
