"""One engine for any model, input and target: recurrent nets of masks and films, all shapes."""

import importlib

import numpy as np
import pytest
import torch
from torch import nn

import toys
from sonolens import rng
from sonolens.explain import cells, registry, segments, targets
from sonolens.explain.contract import (
    CellKey,
    ExplainError,
    all_rows,
    evaluate,
    map_of,
    seed_array,
)
from sonolens.explain.shards import Shards
from sonolens.params import Runtime
from sonolens.score import cells as score_cells
from sonolens.store import ArrayStore

KEYS = (CellKey("main", "speaker", 0, 0), CellKey("main", "speaker", 0, 1))
METHODS = [
    "saliency", "integrated_gradients", "energy", "random", "occlusion", "feature_ablation",
    "kernel_shap", "permutation_shapley", "lime", "rise", "meaningful_perturbation",
]  # fmt: skip
OPTIONS = {
    "n_steps": 3,
    "chunk_size": 4,
    "n_permutations": 2,
    "n_masks": 6,
    "window": 3,
    "kernel_shap": {"segmentation": "slices", "n_samples": 30},
    "lime": {"segmentation": "bands", "n_samples": 12},
    "feature_ablation": {"segmentation": "frames"},
    "permutation_shapley": {"segmentation": "slices"},
}
ADAPTERS = {
    "mask": (toys.MaskAdapter(), toys.FrameGRU, "silence"),
    "film": (toys.FilmAdapter(), toys.LipReader, "black"),
}
METRICS = [
    "faithfulness_patch", "faithfulness_scattered", "sparseness", "average_sensitivity", "mprt",
    "relevance_rank_accuracy", "relevance_mass_accuracy",
]  # fmt: skip
RUNTIME = Runtime(
    threads=1, workers=1, engine="serial", dask_address=None, device="cpu",
    tracking={"enabled": False, "system_metrics_interval_s": 1.0},
)  # fmt: skip


def options_for(name):
    options = dict(OPTIONS)
    if name == "mask":  # a spectrogram has no frames of a film
        options["feature_ablation"] = {"segmentation": "patches"}
    return options


def run(folder, name, out="maps", keys=KEYS, **changes):
    adapter, _, baseline = ADAPTERS[name]
    arguments = {
        "methods": METHODS, "baselines": [baseline], "options": options_for(name), "n_items": 3,
    } | changes  # fmt: skip
    report = cells.run_cells(
        adapter, keys, part="test", seed=0, runtime=RUNTIME, shards=Shards(folder / "shards"),
        out=folder / out, **arguments,
    )  # fmt: skip
    return report, ArrayStore(folder / out)


@pytest.fixture(scope="module", params=["mask", "film"])
def explained(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, folder, *run(folder, request.param)


def test_every_method_explains_every_model(explained):
    name, _, report, store = explained
    adapter = ADAPTERS[name][0]
    assert report.n_blocks == len(METHODS) * len(KEYS) and report.n_reused == 0
    assert len(store) == len(METHODS) * len(KEYS) * 2 * 3
    items = adapter.items(KEYS[0], "test").select([0])
    assert store.values.shape[1:] == adapter.inputs(KEYS[0], items).shape[1:]
    assert np.isfinite(store.values).all()
    of_method = store.index.groupby("method").indices
    assert all(store.values[of_method[method]].any() for method in METHODS)
    errors = store.index.groupby("method")["completeness_error"].max()
    assert errors["kernel_shap"] < 1e-4 and errors["permutation_shapley"] < 1e-4
    by_target = store.index[store.index["method"] == "saliency"].groupby("target").indices
    first, second = (store.values[rows] for rows in by_target.values())
    assert not np.array_equal(first, second)


def test_maps_are_those_of_the_method_alone_in_float64(explained):
    name, _, _, store = explained
    adapter, _, kind = ADAPTERS[name]
    for number in range(0, len(store), 7):
        row = store.index.iloc[number]
        key = CellKey(row["cell"], row["protocol"], row["fold"], row["model_seed"])
        items = adapter.items(key, "test").named([row["item_id"]])
        inputs = adapter.inputs(key, items).double()
        model = adapter.load(key).double()
        info = registry.info(row["method"])
        chosen = cells.all_options(info, options_for(name))
        found = info.load()(
            model, inputs, adapter.targets(key, items, model, inputs)[row["target"]],
            baseline=adapter.baseline(key, kind, items, inputs, 1),
            item_seeds=seed_array(cells.item_seeds(0, items)),
            **cells.call_options(info, chosen, inputs, adapter.axes(key)),
        ).values[0]  # fmt: skip
        largest = max(found.abs().max().item(), 1e-6)
        np.testing.assert_allclose(map_of(store, number), found, rtol=0, atol=2e-3 * largest)


@pytest.mark.parametrize("name", list(ADAPTERS))
def test_maps_of_every_model_are_scored(name, tmp_path):
    methods = ["saliency", "integrated_gradients", "energy", "feature_ablation", "kernel_shap"]
    _, store = run(tmp_path, name, keys=KEYS[:1], methods=methods, n_items=2)
    scores = score_cells.run_cells(
        ADAPTERS[name][0], store, metrics=METRICS, n_items_costly=1, seed=0, runtime=RUNTIME,
        options={"n_coalitions": 6, "n_noise_draws": 1, "n_cascade_steps": 2, "n_patches": 3},
        shards=Shards(tmp_path), fills=[ADAPTERS[name][2]],
    ).scores  # fmt: skip
    assert set(scores["metric"]) == set(METRICS) and set(scores["method"]) == set(methods)
    means = scores.groupby(["metric", "method"])["score"].mean()
    assert means.drop(index=["relevance_rank_accuracy", "relevance_mass_accuracy"]).notna().all()
    assert means["faithfulness_patch", "integrated_gradients"] > 0.5
    assert means["mprt", "energy"] == pytest.approx(1)


def test_a_run_broken_off_computes_only_the_rest(explained, tmp_path, monkeypatch):
    name, _, _, whole = explained
    kind = ADAPTERS[name][1]
    module = "sonolens.explain.kernel_shap"
    attribute, calls = importlib.import_module(module).attribute, []

    def breaks(*arguments, **options):
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("the lights went out")
        return attribute(*arguments, **options)

    chosen = {"methods": ["saliency", "kernel_shap"]}
    with monkeypatch.context() as patched:
        patched.setattr(f"{module}.attribute", breaks)
        with pytest.raises(RuntimeError, match="lights"):
            run(tmp_path, name, **chosen)
    assert not (tmp_path / "maps").exists()
    kind.n_forward = 0
    report, store = run(tmp_path, name, **chosen)
    rest = kind.n_forward
    # Of saliency and kernel_shap for two models, the last is left: two targets a block.
    assert report.n_blocks - report.n_reused == 1
    kind.n_forward = 0
    fresh, again = run(tmp_path / "fresh", name, **chosen)
    assert fresh.n_reused == 0 and rest < 0.55 * kind.n_forward
    np.testing.assert_array_equal(store.values, again.values)
    rows = whole.index.index[whole.index["method"].isin(chosen["methods"])]
    np.testing.assert_array_equal(store.values, whole.values[rows])
    kind.n_forward = 0
    report, _ = run(tmp_path, name, "third", **chosen)
    assert report.n_reused == report.n_blocks and kind.n_forward == 0


COSTLY = {
    "integrated_gradients": ("n_steps", 4, 40),
    "meaningful_perturbation": ("n_steps", 4, 12),
    "kernel_shap": ("n_samples", 30, 120),
    "permutation_shapley": ("n_permutations", 2, 12),
    "lime": ("n_samples", 8, 80),
    "rise": ("n_masks", 8, 80),
    "occlusion": ("stride", 2, 1),
}


class Memory:
    """Bytes that a model's forward pass and the graph above it keep at once, at most."""

    def __init__(self, model):
        self.now = self.most = 0
        model.register_forward_pre_hook(self.start)

    def start(self, module, inputs):
        self.now = 0

    def pack(self, tensor):
        self.now += tensor.numel() * tensor.element_size()
        self.most = max(self.most, self.now)
        return tensor


@pytest.mark.parametrize("name", list(ADAPTERS))
@pytest.mark.parametrize("method", list(COSTLY))
def test_memory_does_not_grow_with_the_number_of_steps(method, name):
    adapter, kind, baseline = ADAPTERS[name]
    items = adapter.items(KEYS[0], "test").select([0, 1])
    inputs, peaks = adapter.inputs(KEYS[0], items), []
    info, (option, few, many) = registry.info(method), COSTLY[method]
    for amount in (few, many):
        model = adapter.load(KEYS[0])
        kind.largest_batch, memory = 0, Memory(model)
        options = cells.all_options(
            info, {option: amount, "chunk_size": 4, "segmentation": "slices"}
        )
        with torch.autograd.graph.saved_tensors_hooks(memory.pack, lambda tensor: tensor):
            info.load()(
                model, inputs, targets_of(adapter, items, model, inputs)[0],
                baseline=adapter.baseline(KEYS[0], baseline, items, inputs, 1),
                item_seeds=seed_array([0, 1]), **cells.call_options(info, options, inputs, {}),
            )  # fmt: skip
        peaks.append((kind.largest_batch, memory.most))
    # integrated gradients puts the ends of the path into its chunks
    assert peaks[0][0] <= (6 if method == "integrated_gradients" else 4)
    assert all(later <= first for first, later in zip(*peaks, strict=True))


def targets_of(adapter, items, model, inputs):
    return list(adapter.targets(KEYS[0], items, model, inputs).values())


@pytest.mark.parametrize("name", list(ADAPTERS))
@pytest.mark.parametrize("method", METHODS)
def test_every_call_leaves_the_model_as_it_was(method, name):
    adapter, _, kind = ADAPTERS[name]
    items = adapter.items(KEYS[0], "test").select([0, 1])
    inputs = adapter.inputs(KEYS[0], items)
    model = adapter.load(KEYS[0]).train()
    next(model.parameters()).requires_grad_(True)
    target = targets_of(adapter, items, model, inputs)[0]
    info = registry.info(method)
    options = cells.call_options(info, cells.all_options(info, options_for(name)), inputs, {})
    toys.unchanged(
        model,
        lambda: info.load()(
            model, inputs, target, baseline=adapter.baseline(KEYS[0], kind, items, inputs, 1),
            item_seeds=seed_array([0, 1]), **options,
        ),
    )  # fmt: skip


@pytest.mark.parametrize("method", ["saliency", "integrated_gradients", "occlusion", "kernel_shap"])
def test_all_bins_of_a_mask_without_a_channel_axis(method):
    model = toys.FrameGRU(2, 4).double()
    generator = rng.torch_generator("bins")
    inputs = torch.rand(1, 2, 4, generator=generator, dtype=torch.float64)
    options = {
        "integrated_gradients": {"n_steps": 20},
        "occlusion": {"window": 1, "stride": 1},
        "kernel_shap": {"n_samples": 254},
    }.get(method, {})
    blocks = list(
        registry.relate(method)(
            model, inputs, baseline=torch.zeros_like(inputs)[None], block=2, **options
        )
    )
    values = torch.cat([block.values for block in blocks], 1)
    assert values.shape == (2, 4, 2, 4)
    later = torch.arange(4)[:, None] < torch.arange(4)[None]
    by_frames = values.transpose(1, 2)[:, :, later]
    assert by_frames.abs().max() < 1e-9 and values.abs().max() > 1e-3  # the net is causal
    if method != "saliency" and method != "occlusion":
        residual = torch.cat([block.residual for block in blocks], 1)
        assert residual.abs().max() < 1e-6


def test_a_film_is_explained_frame_by_frame():
    adapter = toys.FilmAdapter()
    items = adapter.items(KEYS[0], "test").select([0])
    films = adapter.inputs(KEYS[0], items).double()
    model = adapter.load(KEYS[0]).double()
    labels = segments.make("frames", films, {})
    target = targets.BandEnergy(1, 4)
    found = registry.load("kernel_shap")(
        model, films, target, baseline=torch.zeros_like(films)[:, None],
        item_seeds=seed_array([0]), segments=labels, n_samples=14,
    )  # fmt: skip
    per_frame = found.values.sum((0, 1, 3, 4))
    spread = found.values[0, 0].flatten(1)
    assert (spread == spread[:, :1]).all()
    change = evaluate(model, films, target) - evaluate(model, films * 0, target)
    torch.testing.assert_close(per_frame.sum(), change[0], rtol=1e-10, atol=1e-12)


def test_energy_of_a_band():
    outputs = torch.arange(1.0, 25.0).view(2, 3, 4)
    rows = all_rows(outputs)
    assert targets.BandEnergy(1, 3)(outputs, rows).tolist() == [8.5, 20.5]
    assert targets.BandEnergy(0, 1, "sum")(outputs, rows).tolist() == [10, 58]
    with_channel = targets.BandEnergy(0, 1, "sum", log=True)(outputs[:, None], rows)
    torch.testing.assert_close(with_channel, torch.tensor([10.0, 58.0]).log())
    silent = targets.BandEnergy(0, 3, log=True, floor=1e-3)(outputs * 0, rows)
    torch.testing.assert_close(silent, torch.full((2,), 1e-3).log())
    for low, high in ((0, 4), (2, 2), (-1, 2)):
        with pytest.raises(ExplainError, match=f"band {low} to {high}: the model's outputs are"):
            targets.BandEnergy(low, high)(outputs, rows)
    with pytest.raises(ExplainError, match="reduction 'max'"):
        targets.BandEnergy(0, 1, "max")(outputs, rows)
    for wrong in ((3, 0), (0, 4), (-1, 0)):
        with pytest.raises(ExplainError, match="bin "):
            targets.mask_bin(*wrong)(outputs, rows)


# --- any shape ----------------------------------------------------------------------------------

SHAPES = {
    "image": (1, 12, 12),
    "colour image": (3, 10, 10),
    "mel": (1, 16, 20),
    "mel without channel": (16, 20),
    "STFT, real and imaginary": (2, 17, 12),
    "CQT": (1, 36, 8),
    "waveform": (1, 64),
    "waveform without channel": (64,),
    "film": (1, 3, 8, 8),
}


class Curved(nn.Module):
    """Two logits of any input, smooth in every cell."""

    def __init__(self, shape):
        super().__init__()
        with rng.forked(0, "Curved"):
            self.first = nn.Linear(int(np.prod(shape)), 5)
            self.tanh = nn.Tanh()
            self.second = nn.Linear(5, 2)

    def forward(self, inputs):
        return self.second(self.tanh(self.first(inputs.flatten(1))))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("method", list(registry.METHODS))
def test_inputs_of_any_shape(method, shape):
    model, info = Curved(shape), registry.info(method)
    inputs = torch.rand(2, *shape, generator=rng.torch_generator("any", *shape))
    quick = {"n_steps": 4, "n_masks": 6, "lime": {"n_samples": 10}}
    chosen = cells.all_options(info, quick)
    try:
        result = info.load()(
            model, inputs, targets.ClassLogit((0, 1)), baseline=torch.zeros(1, 2, *shape),
            item_seeds=seed_array([0, 1]), **cells.call_options(info, chosen, inputs, {}),
        )  # fmt: skip
    except ExplainError:
        assert method not in METHODS, f"{method} is for any input"
        return
    assert result.values.isfinite().all() and len(result.values) == 2
    if info.same_axes:
        assert result.values.shape == inputs.shape
    if method in METHODS:
        assert result.values.flatten(1).any(1).all()
