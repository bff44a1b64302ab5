"""Every metric against its closed forms and a slow reference written from the paper."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn

import toys
from sonolens import rng
from sonolens.explain.contract import CellKey, Items, evaluate
from sonolens.explain.saliency import attribute as saliency
from sonolens.explain.targets import ClassLogit
from sonolens.score import registry, similarity
from sonolens.score.cascade import cascade, layers, randomised, resettable
from sonolens.score.contract import Context, ScoreError


class Explainer:
    """Saliency of a toy model, with the cascade."""

    def __init__(self, model, target):
        self.model, self.target, self.n_layers, self.n_calls = model, target, len(layers(model)), 0
        self.n_resettable = len(resettable(model))

    def __call__(self, inputs, target=None, weights="trained"):
        self.n_calls += 1
        model = self.model if weights == "trained" else randomised(self.model, weights, 0)
        return saliency(model, inputs, target or self.target, baseline=None, item_seeds=None).values


def clips(n=4, size=16):
    return torch.rand(n, 1, size, size, generator=rng.torch_generator("clips"), dtype=torch.float64)


def noise(*shape, name="noise"):
    return torch.randn(*shape, generator=rng.torch_generator(name), dtype=torch.float64)


def context_of(model, inputs, classes=None, masks=None, fill=0.0, n_classes=4):
    n = len(inputs)
    target = ClassLogit(tuple(classes or [0] * n))
    return Context(
        items=Items(tuple(f"item{i}" for i in range(n)), ("p",) * n, (0,) * n),
        inputs=inputs,
        target=target,
        predict=lambda edited, rows: evaluate(model, edited, target, rows),
        edit=lambda x, mask, filling: torch.where(mask > 0, filling, x),
        fill=torch.full_like(inputs, fill),
        masks=masks or {},
        item_seeds=torch.arange(n),
        scale=(0.0, 1.0),
        n_classes=n_classes,
        explain=Explainer(model, target),
        probabilities=lambda edited: evaluate(model, edited, lambda out, rows: out).softmax(1),
    )


def run(name, maps, context, **options):
    return registry.info(name).compute(maps, context, **options)


def values(name, maps, context, **options):
    return run(name, maps, context, **options).values


@pytest.fixture
def cnn():
    return toys.SmallCNN().double().eval()


FAITHFULNESS = ["faithfulness_patch", "faithfulness_scattered"]


@pytest.mark.parametrize("name", FAITHFULNESS)
@pytest.mark.parametrize("fill", [0.0, 0.7])
def test_faithfulness_of_a_linear_model_is_one(name, fill):
    model, inputs = toys.Linear(), clips()
    context = context_of(model, inputs, [0, 1, 2, 1], fill=fill)
    maps = model.weights[[0, 1, 2, 1]].detach() * (inputs - fill)
    torch.testing.assert_close(values(name, maps, context, subset_size=5), torch.ones(4).double())
    torch.testing.assert_close(values(name, -maps, context, subset_size=5), -torch.ones(4).double())


@pytest.mark.parametrize("name", FAITHFULNESS)
def test_faithfulness_of_a_random_map_is_small_and_of_a_constant_one_undefined(name, cnn):
    context = context_of(cnn, clips())
    scores = values(name, noise(4, 1, 16, 16), context)
    assert scores.abs().max() < 4 / math.sqrt(100)
    assert values(name, torch.zeros(4, 1, 16, 16), context).isnan().all()
    constant = values(name, torch.full((4, 1, 16, 16), 0.3), context)
    assert constant.isnan().all()


def reference_faithfulness(model, inputs, maps, mode, n_coalitions, size, classes):
    """Bhatt et al., equation 1, one coalition and one cell at a time; same generators."""
    scores = []
    for item, (x, a) in enumerate(zip(inputs, maps, strict=True)):
        n_groups = 64 if mode == "patch" else 256
        draws = rng.numpy_generator(item, "faithfulness").random((n_coalitions, n_groups))
        whole = model(x[None])[0, classes[item]].item()
        sums, drops = [], []
        for draw in draws:
            chosen = set(np.argsort(draw)[:size].tolist())
            edited, total = x.clone(), 0.0
            for f in range(16):
                for t in range(16):
                    group = (f // 2) * 8 + t // 2 if mode == "patch" else f * 16 + t
                    if group in chosen:
                        edited[0, f, t] = 0
                        total += a[0, f, t].item()
            sums.append(total)
            drops.append(whole - model(edited[None])[0, classes[item]].item())
        scores.append(np.corrcoef(sums, drops)[0, 1])
    return torch.tensor(scores)


@pytest.mark.parametrize(
    ("name", "mode", "size"), [(FAITHFULNESS[0], "patch", 8), (FAITHFULNESS[1], "scattered", 30)]
)
def test_faithfulness_equals_the_slow_reference(name, mode, size, cnn):
    inputs, maps = clips(2), noise(2, 1, 16, 16)
    found = values(
        name, maps, context_of(cnn, inputs, [1, 3]), n_coalitions=12, subset_size=size, batch_size=5
    )
    with torch.no_grad():
        expected = reference_faithfulness(cnn, inputs, maps, mode, 12, size, [1, 3])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


def test_drops_are_evaluated_once_for_all_methods(cnn):
    context = context_of(cnn, clips())
    first = values("faithfulness_patch", noise(4, 1, 16, 16), context)
    before = toys.SmallCNN.n_forward
    values("faithfulness_patch", noise(4, 1, 16, 16, name="other"), context)
    again = values("faithfulness_patch", noise(4, 1, 16, 16), context)
    assert toys.SmallCNN.n_forward == before and torch.equal(first, again)
    values("faithfulness_scattered", noise(4, 1, 16, 16), context)
    assert toys.SmallCNN.n_forward == before + 4 * 101


def test_fewer_than_three_coalitions_and_wrong_maps_are_refused(cnn):
    with pytest.raises(ScoreError, match="at least 3"):
        values("faithfulness_patch", noise(4, 1, 16, 16), context_of(cnn, clips()), n_coalitions=2)
    with pytest.raises(ScoreError, match="need the axes of the inputs"):
        values("faithfulness_patch", noise(4, 1, 8, 16), context_of(cnn, clips()))


def test_average_sensitivity_of_a_linear_model_is_zero():
    model = toys.Linear()
    maps = model.weights[[0] * 4].detach()
    assert values("average_sensitivity", maps, context_of(model, clips())).max() < 1e-12


def test_average_sensitivity_equals_the_slow_reference(cnn):
    context = context_of(cnn, clips(), [0, 1, 2, 3])
    maps = context.explain(context.inputs)
    found = values("average_sensitivity", maps, context, n_noise_draws=3, noise_radius=0.1)
    for item in range(4):
        terms = []
        for draw in range(3):
            generator = rng.torch_generator(item, "noise", draw)
            epsilon = 0.1 * (
                2 * torch.rand(1, 16, 16, generator=generator, dtype=torch.float64) - 1
            )
            x = (context.inputs[item] + epsilon)[None].requires_grad_()
            (grad,) = torch.autograd.grad(cnn(x)[0, item], x)
            change = math.sqrt(sum(d**2 for d in (grad[0] - maps[item]).flatten().tolist()))
            terms.append(change / math.sqrt(sum(a**2 for a in maps[item].flatten().tolist())))
        assert found[item].item() == pytest.approx(sum(terms) / 3, abs=1e-9)
    maps[1] = 0
    assert values("average_sensitivity", maps, context).isnan().tolist() == [
        False,
        True,
        False,
        False,
    ]


def test_noise_radius_is_a_share_of_the_scale(cnn):
    context = context_of(cnn, clips())
    maps = context.explain(context.inputs)
    small = values("average_sensitivity", maps, context, noise_radius=0.02)
    context.scale, context.cache = (-80.0, 0.0), {}
    assert torch.allclose(
        values("average_sensitivity", maps, context, noise_radius=0.02 / 80), small
    )
    context.scale = None
    with pytest.raises(ScoreError, match="a scale with `min` and `max`"):
        values("average_sensitivity", maps, context)


def test_sparseness_closed_forms_and_reference():
    n = 16
    one_hot, constant = torch.zeros(1, 1, 4, 4), torch.full((1, 1, 4, 4), -0.2)
    one_hot[0, 0, 1, 2] = -3
    assert values("sparseness", one_hot, None).item() == pytest.approx((n - 1) / n, abs=1e-12)
    assert values("sparseness", constant, None).item() == pytest.approx(0, abs=1e-7)
    assert values("sparseness", torch.zeros(1, 1, 4, 4), None).isnan().all()
    maps = noise(3, 1, 4, 4)
    for score, a in zip(values("sparseness", maps, None), maps, strict=True):
        v = np.abs(a.numpy().flatten())
        mean_difference = np.abs(v[:, None] - v[None]).sum() / (2 * n * v.sum())
        assert score.item() == pytest.approx(mean_difference, abs=1e-12)
    scaled = maps * torch.tensor([1e6, 1.0, 1e-6]).view(3, 1, 1, 1)
    torch.testing.assert_close(values("sparseness", scaled, None), values("sparseness", maps, None))


def test_correlations_equal_scipy_and_constants_are_undefined():
    first, second = noise(3, 50), noise(3, 50, name="b").round()
    second[2] = 4.2
    for name, function in (("pearson", scipy.stats.pearsonr), ("spearman", scipy.stats.spearmanr)):
        found = getattr(similarity, name)(first, second)
        for row in range(2):
            assert found[row].item() == pytest.approx(
                function(first[row], second[row])[0], abs=1e-12
            )
        assert found[2].isnan()


def reference_ssim(a, b, window=7):
    a, b = a / np.abs(a).max(), b / np.abs(b).max()
    data_range = max(a.max(), b.max()) - min(a.min(), b.min())
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    terms = []
    for i in range(a.shape[0] - window + 1):
        for j in range(a.shape[1] - window + 1):
            p, q = (m[i : i + window, j : j + window].flatten() for m in (a, b))
            (vp, c), (_, vq) = np.cov(p, q)
            numerator = (2 * p.mean() * q.mean() + c1) * (2 * c + c2)
            terms.append(numerator / ((p.mean() ** 2 + q.mean() ** 2 + c1) * (vp + vq + c2)))
    return np.mean(terms)


def test_ssim_equals_the_slow_reference():
    first, second = noise(3, 11, 13), noise(3, 11, 13, name="b")
    second[1] = 5 * first[1]
    second[2] = 0
    found = similarity.ssim(first, second)
    assert found[0].item() == pytest.approx(
        reference_ssim(first[0].numpy(), second[0].numpy()), abs=1e-9
    )
    assert found[1].item() == pytest.approx(1, abs=1e-9)
    assert found[2].isnan()
    assert similarity.ssim(noise(1, 4, 4), noise(1, 4, 4)).item() == pytest.approx(1)


def test_random_logit_equals_the_slow_reference(cnn):
    context = context_of(cnn, clips(), [0, 1, 2, 3])
    maps = context.explain(context.inputs)
    result = run("random_logit", maps, context)
    curves = result.curves.set_index(["curve", "item_id", "x"])["y"]
    for item in range(4):
        others = [c for c in range(4) if c != item]
        terms = []
        for other in others:
            x = context.inputs[[item]].clone().requires_grad_()
            (grad,) = torch.autograd.grad(cnn(x)[0, other], x)
            a, b = maps[item, 0].numpy(), grad[0, 0].numpy()
            terms.append(reference_ssim(a, b))
            where = (f"item{item}", float(other))
            cosine = (a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum())
            assert curves["cosine", *where] == pytest.approx(cosine, abs=1e-9)
            spearman = scipy.stats.spearmanr(np.abs(a.flatten()), np.abs(b.flatten()))[0]
            assert curves["spearman", *where] == pytest.approx(spearman, abs=1e-9)
        assert result.values[item].item() == pytest.approx(np.mean(terms), abs=1e-9)


def test_random_logit_is_one_for_a_map_that_ignores_the_class_and_nan_for_zero(cnn):
    context = context_of(cnn, clips())
    fixed = noise(4, 1, 16, 16)
    context.explain = lambda inputs, target=None, weights="trained": fixed
    assert torch.allclose(values("random_logit", fixed, context), torch.ones(4).double())
    zero = fixed.clone()
    zero[2] = 0
    assert values("random_logit", zero, context).isnan().tolist() == [False, False, True, False]
    context.n_classes = None
    with pytest.raises(ScoreError, match="needs a class logit"):
        values("random_logit", fixed, context)


def test_cascade_draws_layers_anew_from_the_head_down(cnn):
    assert layers(cnn) == ["fc", "conv2", "bn1", "conv1"]
    one, three, four = (toys.unchanged(cnn, lambda k=k: cascade(cnn, k, 0)) for k in (1, 3, 4))
    assert torch.equal(one.conv2.weight, cnn.conv2.weight) and not torch.equal(
        one.fc.weight, cnn.fc.weight
    )
    assert torch.equal(one.fc.weight, four.fc.weight) and torch.equal(
        three.conv1.weight, cnn.conv1.weight
    )
    assert not three.bn1.running_mean.any() and not torch.equal(four.conv1.weight, cnn.conv1.weight)
    twins = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    drawn = cascade(twins, 2, 0)
    assert not torch.equal(drawn[0].weight, drawn[1].weight)
    with pytest.raises(ScoreError, match="need 1 to 4"):
        cascade(cnn, 5, 0)
    with pytest.raises(ScoreError, match="no reset_parameters"):
        cascade(toys.Linear(), 1, 0)


def test_mprt_equals_the_slow_reference_without_the_original_model(cnn):
    context = context_of(cnn, clips())
    maps = context.explain(context.inputs)
    result = run("mprt", maps, context, n_cascade_steps=4)
    for item in range(4):
        terms = []
        for k in (1, 2, 3, 4):
            x = context.inputs[[item]].clone().requires_grad_()
            (grad,) = torch.autograd.grad(cascade(cnn, k, 0)(x)[0, 0], x)
            terms.append(
                scipy.stats.spearmanr(maps[item].abs().flatten(), grad[0].abs().flatten())[0]
            )
        assert result.values[item].item() == pytest.approx(np.mean(terms), abs=1e-9)
        curve = result.curves[result.curves["item_id"] == f"item{item}"]
        assert curve["x"].tolist() == [0.25, 0.5, 0.75, 1.0] and np.allclose(curve["y"], terms)
    maps[0] = 0
    assert values("mprt", maps, context, n_cascade_steps=1).isnan().tolist() == [
        True,
        False,
        False,
        False,
    ]


def masks_of():
    mask = torch.rand(4, 1, 16, 16, generator=rng.torch_generator("mask")) > 0.8
    mask[3] = False
    return {"truth": mask}


LOCALISATION = ["relevance_rank_accuracy", "relevance_mass_accuracy", "pointing_game"]


@pytest.mark.parametrize("name", LOCALISATION)
def test_localisation_is_one_when_the_map_is_the_mask(name, cnn):
    masks = masks_of()
    context = context_of(cnn, clips(), masks=masks)
    scores = values(name, masks["truth"].double(), context)
    assert scores[:3].tolist() == [1, 1, 1] and scores[3].isnan()
    inverse = values(name, (~masks["truth"]).double(), context)
    assert inverse[:3].tolist() == [0, 0, 0]
    assert values(name, -masks["truth"].double(), context).isnan().all()
    assert values(name, torch.zeros(4, 1, 16, 16), context).isnan().all()


@pytest.mark.parametrize("name", LOCALISATION)
def test_localisation_without_truth_is_undefined_and_several_masks_need_a_name(name, cnn):
    maps = noise(4, 1, 16, 16)
    assert values(name, maps, context_of(cnn, clips())).isnan().all()
    two = masks_of() | {"other": masks_of()["truth"]}
    with pytest.raises(ScoreError, match="need one of other, truth"):
        values(name, maps, context_of(cnn, clips(), masks=two))
    named = values(name, maps, context_of(cnn, clips(), masks=two), mask="other")
    assert named[:3].isfinite().all()


def test_localisation_equals_the_slow_references(cnn):
    masks, maps = masks_of(), noise(4, 1, 16, 16)
    context = context_of(cnn, clips(), masks=masks)
    for row in range(3):
        truth, a = masks["truth"][row].flatten().tolist(), maps[row].flatten().clamp_min(0).tolist()
        k = sum(truth)
        ranked = sorted(range(len(a)), key=lambda cell: -a[cell])[:k]
        rank = sum(truth[cell] for cell in ranked) / k
        mass = sum(value for value, inside in zip(a, truth, strict=True) if inside) / sum(a)
        hit = float(truth[ranked[0]])
        found = [values(name, maps, context)[row].item() for name in LOCALISATION]
        assert found == pytest.approx([rank, mass, hit], abs=1e-12)


def test_ties_share_the_last_places_evenly(cnn):
    masks = {"truth": torch.zeros(1, 1, 16, 16, dtype=torch.bool)}
    masks["truth"][0, 0, 0, :4] = True
    maps = torch.zeros(1, 1, 16, 16)
    maps[0, 0, 0, 0] = 1
    context = context_of(cnn, clips(1), masks=masks)
    # one sure hit, three places left for 255 equal cells of which three are in the mask
    expected = (1 + 3 * 3 / 255) / 4
    assert values("relevance_rank_accuracy", maps, context).item() == pytest.approx(
        expected, abs=1e-12
    )
    maps[0, 0, 15, 15] = 1
    assert values("pointing_game", maps, context).item() == 0.5
    maps[0, 0, 0, 0], maps[0, 0, 15, 15] = 0, 0
    maps[0, 0, 2, 2] = 1
    assert values("pointing_game", maps, context).item() == 0
    assert values("pointing_game", maps, context, tolerance_cells=2).item() == 1


@pytest.mark.parametrize("name", list(registry.METRICS))
def test_every_metric_leaves_no_trace_and_ignores_order_and_company(name, cnn):
    cnn.train()
    masks = {"truth": torch.rand(4, 1, 16, 16, generator=rng.torch_generator("m")) > 0.8}
    adapter, key = toys.AudioToyAdapter(), CellKey("main", "speaker", 0, 0)
    items = adapter.items(key, "test").select(range(4))
    inputs = adapter.inputs(key, items).double()

    def scores(rows):
        context = context_of(cnn, inputs[rows], [[0, 1, 2, 3][row] for row in rows])
        sounds = [items.ids[row] for row in rows]
        context.listen = lambda masks: torch.from_numpy(
            np.stack([adapter.listen(key, *one) for one in zip(sounds, masks, strict=True)])
        )
        context.analyse = lambda waveforms: adapter.analyse(key, waveforms.numpy()).double()
        context.axes = adapter.axes(key)
        context.item_seeds, context.masks = torch.tensor(rows), {"truth": masks["truth"][rows]}
        maps = context.explain(context.inputs)
        before = maps.clone(), context.inputs.clone()
        few = {"n_smooth_draws": 3} if name == "smooth_mprt" else {}
        result = toys.unchanged(cnn, lambda: values(name, maps, context, **few))
        assert torch.equal(maps, before[0]) and torch.equal(context.inputs, before[1])
        return result

    together = scores([0, 1, 2, 3])
    assert together.isfinite().all() and together.dtype == torch.float64
    torch.testing.assert_close(scores([3, 1]), together[[3, 1]], rtol=0, atol=1e-9)


def test_unknown_metric_proposes_the_nearest():
    with pytest.raises(ScoreError, match="did you mean sparseness?"):
        registry.info("sparsness")


def test_a_metric_is_computed_with_its_fixed_and_default_options(cnn):
    from sonolens.score.faithfulness_correlation import score

    context = context_of(cnn, clips(), [0, 1, 2, 3])
    maps = context.explain(context.inputs)
    info = registry.info("faithfulness_patch")
    options = info.options | {"n_coalitions": 6, "mode": "patch"}
    expected = score(maps, context, **options).values
    assert torch.equal(info.compute(maps, context, n_coalitions=6).values, expected)
    with pytest.raises(TypeError, match="mode"):
        info.compute(maps, context, mode="scattered")


def test_registry_and_metric_signatures_agree():
    import inspect

    for info in registry.METRICS.values():
        parameters = set(inspect.signature(info.load()).parameters) - {"attributions", "context"}
        assert set(info.options) | set(info.fixed) <= parameters
        assert info.direction in ("higher", "lower", "none")


def test_max_sensitivity_is_the_largest_of_the_same_draws(cnn):
    context = context_of(cnn, clips(), [0, 1, 2, 3])
    maps = context.explain(context.inputs)
    before = context.explain.n_calls
    each = []
    for draw in range(3):
        generator = [rng.torch_generator(item, "noise", draw) for item in range(4)]
        noises = [torch.rand(1, 16, 16, generator=g, dtype=torch.float64) for g in generator]
        noisy = context.inputs + 0.1 * (2 * torch.stack(noises) - 1)
        change = (Explainer(cnn, context.target)(noisy) - maps).flatten(1).norm(dim=1)
        each.append(change / maps.flatten(1).norm(dim=1))
    options = {"n_noise_draws": 3, "noise_radius": 0.1}
    largest = values("max_sensitivity", maps, context, **options)
    torch.testing.assert_close(largest, torch.stack(each).amax(0), rtol=0, atol=1e-9)
    mean = values("average_sensitivity", maps, context, **options)
    torch.testing.assert_close(mean, torch.stack(each).mean(0), rtol=0, atol=1e-9)
    assert context.explain.n_calls == before + 3  # the second metric takes the maps of the first


def test_complexity_closed_forms():
    one_hot, constant = torch.zeros(1, 1, 4, 4), torch.full((1, 1, 4, 4), -0.2)
    one_hot[0, 0, 1, 2] = -3
    assert values("complexity", one_hot, None).item() == 0
    assert values("complexity", constant, None).item() == pytest.approx(math.log(16), abs=1e-12)
    assert values("effective_complexity", one_hot, None).item() == 1
    assert values("effective_complexity", constant, None).item() == 16
    trace = torch.tensor([[1.0, 2e-5, 0.5e-5, -3e-5, 0.0]])
    assert values("effective_complexity", trace, None).item() == 3
    maps = noise(3, 1, 4, 4)
    for found, a in zip(values("complexity", maps, None), maps, strict=True):
        p = np.abs(a.numpy().flatten())
        assert found.item() == pytest.approx(scipy.stats.entropy(p / p.sum()), abs=1e-12)
    for name in ("complexity", "effective_complexity"):
        assert values(name, torch.zeros(2, 1, 4, 4), None).isnan().all()
        scaled = maps * torch.tensor([1e6, 1.0, 1e-6]).view(3, 1, 1, 1)
        torch.testing.assert_close(values(name, scaled, None), values(name, maps, None))


@pytest.mark.parametrize("name", ["insertion", "deletion"])
@pytest.mark.parametrize("unit", ["cells", "patches"])
def test_insertion_and_deletion_equal_the_slow_reference(name, unit, cnn):
    context = context_of(cnn, clips(3), [1, 2, 3], fill=0.3)
    maps = noise(3, 1, 16, 16)
    result = run(name, maps, context, unit=unit, n_patches=4, n_steps=5, batch_size=2)
    for item in range(3):
        groups = {}
        for f in range(16):
            for t in range(16):
                groups.setdefault((f // 4, t // 4) if unit == "patches" else (f, t), []).append(
                    (f, t)
                )
        means = {
            g: np.mean([maps[item, 0, f, t].item() for f, t in own]) for g, own in groups.items()
        }
        order = sorted(groups, key=lambda group: -means[group])
        xs, ys = [], []
        for step in range(6):
            n = int(np.round(step * len(order) / 5))
            x = context.inputs[item].clone()
            changed = order[:n] if name == "deletion" else order[n:]
            for group in changed:
                for f, t in groups[group]:
                    x[0, f, t] = 0.3
            with torch.no_grad():
                ys.append(cnn(x[None]).softmax(1)[0, item + 1].item())
            xs.append(n / len(order))
        assert result.values[item].item() == pytest.approx(np.trapezoid(ys, xs), abs=1e-12)
        curve = result.curves[result.curves["item_id"] == f"item{item}"]
        assert np.allclose(curve["x"], xs) and np.allclose(curve["y"], ys, atol=1e-12)
    assert set(result.curves["curve"]) == {name}


def test_insertion_of_a_target_that_is_no_class_runs_from_0_to_1():
    model = toys.Linear()
    context = context_of(model, clips(2), [0, 0], fill=0.1)
    context.probabilities = None
    maps = model.weights[[0, 0]].detach() * (context.inputs - 0.1)
    curves = {
        name: run(name, maps, context, unit="cells")
        .curves.query("item_id == 'item0'")["y"]
        .tolist()
        for name in ("insertion", "deletion")
    }
    assert curves["insertion"][0] == 0 and curves["insertion"][-1] == pytest.approx(1, abs=1e-12)
    assert curves["deletion"][0] == pytest.approx(1, abs=1e-12) and curves["deletion"][-1] == 0
    both = [values(name, maps, context, unit="cells") for name in ("insertion", "deletion")]
    other = [values(name, -maps, context, unit="cells") for name in ("insertion", "deletion")]
    # what comes with a cell of a linear model is what goes with it
    torch.testing.assert_close(both[0], 1 - both[1])
    gain = (model(context.inputs)[:, 0] - model(context.fill)[:, 0]).detach().sign()
    assert ((both[0] - other[0]) * gain > 0).all() and ((both[1] - other[1]) * gain < 0).all()


def test_ties_are_broken_at_random_and_a_constant_map_is_undefined(cnn):
    context = context_of(cnn, clips())
    maps = torch.zeros(4, 1, 16, 16)
    assert values("deletion", maps, context).isnan().all()
    maps[:, 0, 3, 3] = 1
    curve = run("deletion", maps, context, unit="cells", n_steps=256).curves
    y = curve[curve["item_id"] == "item0"]["y"].to_numpy()
    row = context.inputs[:1].clone()
    row[0, 0, 3, 3] = 0
    first = cnn(row).softmax(1)[0, 0].item()
    row[0, 0, 0, 0] = 0
    assert y[1] == pytest.approx(first, abs=1e-12)
    assert y[2] != pytest.approx(cnn(row).softmax(1)[0, 0].item(), abs=1e-12)


@pytest.mark.parametrize("multiplied", [False, True])
def test_infidelity_equals_captum(multiplied, cnn):
    from captum.metrics import infidelity

    context = context_of(cnn, clips(), [0, 1, 2, 3], fill=0.2)
    maps = noise(4, 1, 16, 16)
    found = values("infidelity", maps, context, n_coalitions=12, multiplied_by_inputs=multiplied)
    masks = torch.zeros(4, 12, 1, 16, 16, dtype=torch.float64)
    for item in range(4):
        draws = rng.numpy_generator(item, "faithfulness").random((12, 64))
        for draw, chosen in enumerate(np.argsort(draws, axis=1)[:, :8]):
            for group in chosen.tolist():
                f, t = 2 * (group // 8), 2 * (group % 8)
                masks[item, draw, 0, f : f + 2, t : t + 2] = 1

    def perturb(x):
        change = masks.flatten(0, 1) * (x - 0.2)
        return (masks.flatten(0, 1) if multiplied else change), x - change

    wanted = infidelity(
        cnn, perturb, context.inputs, maps, target=[0, 1, 2, 3], n_perturb_samples=12,
        max_examples_per_batch=48, normalize=True,
    )  # fmt: skip
    torch.testing.assert_close(found, wanted.double(), rtol=0, atol=1e-9)
    torch.testing.assert_close(
        found,
        values("infidelity", 7 * maps, context, n_coalitions=12, multiplied_by_inputs=multiplied),
    )
    assert values("infidelity", 0 * maps, context).isnan().all()


def test_infidelity_of_a_linear_model_is_zero():
    model, inputs = toys.Linear(), clips()
    context = context_of(model, inputs, [0, 1, 2, 1], fill=0.4)
    weights = model.weights[[0, 1, 2, 1]].detach()
    assert values("infidelity", weights * (inputs - 0.4), context).max() < 1e-12
    assert values("infidelity", weights, context, multiplied_by_inputs=False).max() < 1e-12


def test_class_specificity_is_the_cosine_with_the_maps_of_other_classes(cnn):
    context = context_of(cnn, clips(), [0, 1, 2, 3])
    maps = context.explain(context.inputs)
    before = context.explain.n_calls
    found = values("class_specificity", maps, context)
    table = run("random_logit", maps, context).curves.query("curve == 'cosine'")
    assert context.explain.n_calls == before + 3
    wanted = table.groupby("item_id")["y"].mean().to_numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_efficient_mprt_equals_the_slow_reference(cnn):
    context = context_of(cnn, clips())
    maps = context.explain(context.inputs)
    other = context.explain(context.inputs, weights="cascade:4")
    found = values("efficient_mprt", maps, context, n_bins=20)
    for item in range(4):
        entropies = []
        for a in (maps[item].flatten().tolist(), other[item].flatten().tolist()):
            width = (max(a) - min(a)) / 20
            places = [min(int((value - min(a)) / width), 19) for value in a]
            shares = [places.count(place) / 256 for place in set(places)]
            entropies.append(-sum(p * math.log(p) for p in shares))
        wanted = (entropies[1] - entropies[0]) / entropies[0]
        assert found[item].item() == pytest.approx(wanted, abs=1e-9)
    constant = torch.full_like(maps, 0.2)
    assert values("efficient_mprt", constant, context).isnan().all()


def test_smooth_mprt_equals_the_slow_reference(cnn):
    context = context_of(cnn, clips(2))
    found = values(
        "smooth_mprt", context.inputs, context, n_cascade_steps=4, n_smooth_draws=3, noise_share=0.2
    )
    for item in range(2):
        x = context.inputs[[item]]

        def smooth(model, x=x, item=item):
            total = torch.zeros_like(x)
            for draw in range(3):
                noisy = x.clone()
                if draw < 2:
                    generator = rng.torch_generator(item, "smooth_mprt", draw)
                    epsilon = torch.randn(1, 16, 16, generator=generator, dtype=torch.float64)
                    noisy = noisy + 0.2 * (x.max() - x.min()) * epsilon
                noisy = noisy.requires_grad_()
                total += torch.autograd.grad(model(noisy)[0, 0], noisy)[0] / 3
            return total.abs().flatten()

        original = smooth(cnn)
        terms = []
        for k in (1, 2, 3, 4):
            changed = cascade(cnn, k, 0, bottom_up=True)
            terms.append(scipy.stats.spearmanr(original, smooth(changed))[0])
        assert found[item].item() == pytest.approx(np.mean(terms), abs=1e-9)


def test_weights_are_drawn_anew_from_either_end_and_as_quantus_does(cnn):
    low = toys.unchanged(cnn, lambda: randomised(cnn, "bottom_up:1", 0))
    assert torch.equal(low.fc.weight, cnn.fc.weight)
    assert not torch.equal(low.conv1.weight, cnn.conv1.weight)
    whole = [randomised(cnn, weights, 0) for weights in ("cascade:4", "bottom_up:4")]
    assert torch.equal(whole[0].conv1.weight, whole[1].conv1.weight)
    twins = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    drawn = toys.unchanged(twins, lambda: randomised(twins, "quantus_top_down:2", 0))
    assert torch.equal(drawn[0].weight, drawn[1].weight)
    for weights in ("cascade", "sideways:1", "quantus_top_down:9", "cascade:9"):
        with pytest.raises(ScoreError, match="need"):
            randomised(cnn, weights, 0)
