"""Metrics of sound: resynthesis against its formulas, and closed forms of the rest."""

import logging

import numpy as np
import pytest
import torch

import toys
from sonolens.explain import cells as explain_cells
from sonolens.explain.contract import CellKey, evaluate
from sonolens.explain.saliency import attribute as saliency
from sonolens.explain.shards import Shards
from sonolens.explain.targets import ClassLogit, predicted
from sonolens.intervene import spectral
from sonolens.params import Runtime
from sonolens.score import cells, registry
from sonolens.score.contract import Context, ScoreError
from sonolens.score.harmonic_consistency import harmonic_cells
from sonolens.store import ArrayStore

KEY = CellKey("main", "speaker", 0, 0)
RESYNTHESIS = [
    "average_increase", "average_drop", "average_gain", "faithfulness_fidelity", "fidelity_in",
]  # fmt: skip
AUDIO = [*RESYNTHESIS, "harmonic_consistency"]
SHARES = ["onset_share", "steady_share", "decay_share"]


@pytest.fixture
def sound():
    """(adapter, model, context) of five items; logits are stretched so that probabilities vary."""
    adapter = toys.AudioToyAdapter()
    items = adapter.items(KEY, "test").select(range(5))
    model, inputs = adapter.load(KEY), adapter.inputs(KEY, items)
    likely = predicted(model, inputs).class_index
    target = ClassLogit((*likely[:3], (likely[3] + 1) % 4, (likely[4] + 1) % 4))

    def outputs(edited, rows=None):
        return evaluate(model, edited, lambda out, rows: 8 * out.double())

    context = Context(
        items, inputs, target, lambda edited, rows: target(outputs(edited), rows), adapter.edit,
        torch.zeros_like(inputs), {}, torch.arange(5), scale=(0.0, 1.0), n_classes=4,
    )  # fmt: skip
    context.edit = lambda *arguments: adapter.edit(KEY, *arguments)
    context.probabilities = lambda edited: outputs(edited).softmax(1)
    context.listen = lambda masks: torch.from_numpy(
        np.stack([adapter.listen(KEY, *one) for one in zip(items.ids, masks, strict=True)])
    )
    context.analyse = lambda waveforms: adapter.analyse(KEY, waveforms.numpy())
    context.axes = adapter.axes(KEY)
    return adapter, model, context


def maps_of(model, context):
    return saliency(
        model, context.inputs, context.target, baseline=None, item_seeds=context.item_seeds
    ).values


def values(name, maps, context, **options):
    return registry.info(name).compute(maps, context, **options).values


def test_a_map_that_keeps_everything_gives_the_recording_back(sound):
    _, _, context = sound
    kept, _ = context.resynthesise(torch.ones_like(context.inputs))
    assert (kept - context.inputs).abs().max() < 0.02
    assert values("fidelity_in", torch.ones_like(context.inputs), context).tolist() == [1] * 5


def test_resynthesis_equals_its_formulas_item_by_item(sound):
    adapter, model, context = sound
    maps = maps_of(model, context)
    maps[3:] *= -1  # what speaks against the class
    found = {name: values(name, maps, context) for name in RESYNTHESIS}
    for item, name in enumerate(context.items.ids):
        a = np.maximum(maps[item, 0].numpy(), 0)
        mask = torch.from_numpy(np.clip(a / np.quantile(a, 0.99), 0, 1))
        kept, removed = (
            adapter.mel(torch.from_numpy(spectral.keep(adapter.sound(name), m, adapter.mel))[None])
            for m in (mask, 1 - mask)
        )
        with torch.no_grad():
            whole, kept, removed = (
                (8 * model(x).double()).softmax(1)[0].tolist()
                for x in (context.inputs[[item]], kept, removed)
            )
        c = context.target.class_index[item]
        p, o, r = whole[c], kept[c], removed[c]
        wanted = [
            100 * (o > p), 100 * max(0, p - o) / p, 100 * max(0, o - p) / (1 - p), p - r,
            float(int(np.argmax(whole)) == int(np.argmax(kept))),
        ]  # fmt: skip
        assert [found[one][item].item() for one in RESYNTHESIS] == pytest.approx(wanted, abs=2e-3)
    assert 0 < found["average_increase"].mean() < 100


def test_a_map_with_nothing_positive_is_undefined_and_no_class_or_sound_is_refused(sound):
    _, model, context = sound
    maps = maps_of(model, context)
    maps[1] = -maps[1].abs()
    for name in RESYNTHESIS:
        assert values(name, maps, context).isnan().tolist() == [False, True, False, False, False]
    context.listen = None
    with pytest.raises(ScoreError, match="no way from a map back to sound"):
        values("average_drop", maps + 1, context)
    context.probabilities = None
    with pytest.raises(ScoreError, match="needs a class logit"):
        values("average_drop", maps, context)


def test_harmonic_consistency_of_maps_on_and_beside_the_harmonics(sound):
    _, _, context = sound
    level = context.inputs.clone()
    assert values("harmonic_consistency", level, context).abs().max() < 1e-6
    on = context.cache[("harmonics", 65.0, 500.0, 20)].view_as(level).double()
    assert 0 < on.mean() < 1
    shares = (level * on).flatten(1).sum(1) / level.flatten(1).sum(1)
    torch.testing.assert_close(values("harmonic_consistency", on, context), 1 - shares.double())
    beside = values("harmonic_consistency", 1 - on, context)
    torch.testing.assert_close(beside, -shares.double())
    assert values("harmonic_consistency", -level, context).isnan().all()
    context.axes = {}
    with pytest.raises(ScoreError, match="missing .'frequencies_hz', 'hop_length', 'sample_rate'"):
        values("harmonic_consistency", level, context)


def test_harmonic_cells_are_those_of_the_definition():
    frequencies_hz = np.geomspace(100, 3000, 40)
    f0_hz = np.array([120.0, np.nan, 210.0])
    found = harmonic_cells(f0_hz, frequencies_hz, 4)
    middles = (frequencies_hz[1:] + frequencies_hz[:-1]) / 2
    for band, centre in enumerate(frequencies_hz[1:-1], start=1):
        low = min(middles[band - 1], centre * 2 ** (-0.5 / 12))
        high = max(middles[band], centre * 2 ** (0.5 / 12))
        for frame, pitch in enumerate(f0_hz):
            wanted = any(low <= k * pitch <= high for k in range(1, 5))
            assert found[band, frame] == wanted


def test_temporal_coherence_closed_forms(sound):
    _, _, context = sound
    bands = torch.arange(16.0).view(1, 1, 16, 1).expand(5, 1, 16, 16)
    assert torch.allclose(values("temporal_coherence", bands, context), torch.ones(5).double())
    turns = (-1.0) ** torch.arange(16).expand(5, 1, 16, 16)
    assert torch.allclose(values("temporal_coherence", turns, context), -torch.ones(5).double())
    assert values("temporal_coherence", torch.ones_like(bands), context).isnan().all()
    maps = torch.rand(5, 1, 16, 16, generator=torch.Generator().manual_seed(0)).double()
    a = maps[0, 0].numpy()
    wanted = np.corrcoef(a[:, :-1].flatten(), a[:, 1:].flatten())[0, 1]
    assert values("temporal_coherence", maps, context)[0].item() == pytest.approx(wanted, abs=1e-9)


def test_shares_of_onset_steady_part_and_decay(sound):
    _, _, context = sound
    level = torch.tensor([0, 0, 0.2, 0.6, 1, 0.95, 0.3, 0.99, 0.8, 0.5, 0.2, 0.05, 0, 0, 0, 0])
    context.inputs = level.expand(5, 1, 16, 16).clone()
    even = torch.ones(5, 1, 16, 16)
    found = [values(name, even, context)[0].item() for name in SHARES]
    # frames 2-3 rise, 4-7 are loud with a gap, 8-10 fade, frame 11 is below the floor
    assert found == pytest.approx([2 / 16, 4 / 16, 3 / 16])
    assert values("onset_share", -even, context).isnan().all()
    context.inputs = even
    assert values("steady_share", even, context).isnan().all()


def test_energy_correlation_exposes_a_copy_of_the_input(sound):
    _, _, context = sound
    ones = torch.ones(5).double()
    copy = context.inputs - 0.3
    assert torch.allclose(values("energy_correlation", copy, context), ones)
    assert torch.allclose(values("energy_correlation", -copy, context), -ones)


class Counting(toys.AudioToyAdapter):
    n_heard = 0

    def listen(self, key, item_id, mask):
        Counting.n_heard += 1
        return super().listen(key, item_id, mask)


def scores_of(adapter, folder, metrics):
    runtime = Runtime(
        threads=1, workers=1, engine="serial", dask_address=None, device="cpu",
        tracking={"enabled": False, "system_metrics_interval_s": 1.0},
    )  # fmt: skip
    if not (folder / "maps").exists():
        explain_cells.run_cells(
            adapter, [KEY], methods=["saliency", "energy"], baselines=["silence"],
            options={"chunk_size": 4}, n_items=6, part="test", seed=0, runtime=runtime,
            shards=Shards(folder / "explain"), out=folder / "maps",
        )  # fmt: skip
    return cells.run_cells(
        adapter, ArrayStore(folder / "maps"), metrics=metrics, options={}, n_items_costly=3,
        seed=0, runtime=runtime, shards=Shards(folder / "score"),
    ).scores  # fmt: skip


def test_the_stage_scores_sound_once_for_all_metrics_of_resynthesis(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    scores = scores_of(Counting(), tmp_path, [*AUDIO, "temporal_coherence", *SHARES])
    assert set(scores["metric"]) == {*AUDIO, "temporal_coherence", *SHARES}
    counts = scores.groupby(["metric", "method", "target"])["item_id"].nunique()
    assert all(n == (3 if metric in AUDIO else 6) for (metric, _, _), n in counts.items())
    # a look whether there is sound; kept and removed of 3 maps by method and target; f0 by target
    assert Counting.n_heard == 1 + 2 * 3 * 2 * 2 + 3 * 2
    assert not caplog.messages
    means = scores.groupby(["metric", "method"])["score"].mean()
    assert 0 <= means["average_drop", "energy"] <= 100
    assert abs(means["harmonic_consistency", "energy"]) < 1e-6


def test_pictures_have_no_scores_of_sound_and_the_log_says_so(tmp_path, caplog):
    class Pictures(toys.ToyAdapter):
        def axes(self, key):
            return super().axes(key) | {"names": ["channel", "row", "column"]}

    caplog.set_level(logging.INFO)
    scores = scores_of(Pictures(), tmp_path, [*AUDIO, "temporal_coherence", "sparseness"])
    assert set(scores["metric"]) == {"sparseness"}
    assert caplog.messages == [
        f"toy: no way back to sound for 1 of 1 models; no scores of {', '.join(AUDIO)}",
        "toy: no time axis for 1 of 1 models; no scores of temporal_coherence",
    ]
