import numpy as np
import pytest

import toys
from sonolens import rng
from sonolens.dsp.scale import WAVEFORM_SCALE
from sonolens.explain import cells, checks
from sonolens.explain.contract import CellKey, ExplainError, Items, map_of
from sonolens.explain.shards import Shards
from sonolens.models.audionet import AudioNet
from sonolens.params import Runtime
from sonolens.store import ArrayStore

KEYS = (CellKey("main", "speaker", 0, 0), CellKey("main", "speaker", 0, 1))
METHODS = ["saliency", "integrated_gradients", "guided_gradcam", "random", "energy"]
INDEX = [
    "cell", "protocol", "fold", "model_seed", "variant", "method", "baseline", "target", "item_id",
    "completeness_error", "n_evaluations",
]  # fmt: skip


def runtime(engine="serial", workers=1):
    tracking = {"enabled": False, "system_metrics_interval_s": 1.0}
    return Runtime(
        threads=1,
        workers=workers,
        engine=engine,
        dask_address=None,
        device="cpu",
        tracking=tracking,
    )


def run(
    tmp_path, name="maps", adapter=None, engine="serial", workers=1, shards="shards", **changes
):
    arguments = {
        "keys": KEYS,
        "methods": METHODS,
        "baselines": ["silence", "legacy_zero"],
        "options": {"n_steps": 4, "chunk_size": 4},
        "n_items": 6,
        "part": "test",
        "seed": 0,
        "shards": Shards(tmp_path / shards),
        "out": tmp_path / name,
        "runtime": runtime(engine, workers),
    } | changes
    return cells.run_cells(adapter or toys.ToyAdapter(), **arguments)


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_rows_values_and_axes(tmp_path):
    report = run(tmp_path)
    store = ArrayStore(tmp_path / "maps")
    assert list(store.index.columns) == INDEX
    # 2 models, 3 methods without baseline + 2 methods with 2, 2 targets, 6 items
    assert len(store) == 2 * (3 + 2 * 2) * 2 * 6 == store.index.drop_duplicates(INDEX[:9]).shape[0]
    assert store.values.dtype == np.float32 and store.values.shape[1:] == (1, 16, 16)
    assert report == cells.CellRun(2 * 7 * 2, 0, 2 * 2 * 6 * (1 + 2 * 6 + 2))
    assert set(store.index[store.index["method"] == "saliency"]["baseline"]) == {"none"}
    errors = store.index.groupby("method")["completeness_error"].count()
    assert errors["integrated_gradients"] == 2 * 2 * 2 * 6 and errors["saliency"] == 0
    assert store.axes["cells"]["main"]["scale"] == toys.SCALE
    assert store.axes["explain"]["methods"]["integrated_gradients"] == {
        "n_steps": 4,
        "chunk_size": 4,
    }
    assert (
        store.index.groupby(INDEX[:8])["item_id"].apply(lambda ids: ids.is_monotonic_increasing)
    ).all()


def test_maps_are_those_of_the_method(tmp_path):
    run(tmp_path, methods=["energy"], baselines=["silence"])
    store = ArrayStore(tmp_path / "maps")
    adapter = toys.ToyAdapter()
    for row in (0, 7, 20):
        items = adapter.items(KEYS[0], "test").named([store.index["item_id"][row]])
        np.testing.assert_array_equal(map_of(store, row), adapter.inputs(KEYS[0], items)[0])


def test_bytes_do_not_depend_on_the_engine(tmp_path, eager_workers):
    run(tmp_path, "serial")
    report = run(tmp_path, "loky", engine="loky", workers=2, shards="other")
    assert report.n_reused == 0
    assert bytes_of(tmp_path / "serial") == bytes_of(tmp_path / "loky")


def test_second_run_takes_shards_and_a_new_method_computes_only_itself(tmp_path, monkeypatch):
    first = run(tmp_path, "first", methods=METHODS[:-1])
    before = toys.SmallCNN.n_forward
    second = run(tmp_path, "second", methods=METHODS[:-1])
    assert (second.n_reused, second.n_evaluations) == (first.n_blocks, 0)
    assert toys.SmallCNN.n_forward == before
    assert bytes_of(tmp_path / "first") == bytes_of(tmp_path / "second")
    third = run(tmp_path, "third")
    assert third.n_blocks - third.n_reused == 2 * 2 * 2
    monkeypatch.setenv("SONOLENS_FRESH", "1")
    fresh = run(tmp_path, "fresh")
    assert fresh.n_reused == 0
    assert bytes_of(tmp_path / "third") == bytes_of(tmp_path / "fresh")


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"options": {"n_steps": 5, "chunk_size": 4}}, {"part": "validation"}]
)
def test_what_decides_the_maps_is_in_the_key(tmp_path, change):
    arguments = {"methods": ["integrated_gradients"], "baselines": ["silence"], "keys": KEYS[:1]}
    run(tmp_path, **arguments)
    assert run(tmp_path, **arguments, **change).n_reused == 0


def test_an_option_of_another_method_is_not_in_the_key(tmp_path):
    arguments = {"methods": ["saliency"], "baselines": ["silence"]}
    report = run(tmp_path, **arguments)
    changed = run(tmp_path, options={"n_steps": 9, "chunk_size": 4}, **arguments)
    assert changed.n_reused == report.n_blocks


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-30], lambda data: b"", lambda data: flip(data)]
)
def test_damaged_shards_are_computed_anew(tmp_path, damage):
    arguments = {"methods": ["saliency"], "keys": KEYS[:1]}
    run(tmp_path, "first", **arguments)
    victim = sorted((tmp_path / "shards").glob("??/*.npz"))[0]
    victim.write_bytes(damage(victim.read_bytes()))
    report = run(tmp_path, "second", **arguments)
    assert report.n_blocks - report.n_reused == 1
    assert bytes_of(tmp_path / "first") == bytes_of(tmp_path / "second")


def flip(data):
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :]


def test_shards_stay_below_their_bound(tmp_path):
    import os

    shards = Shards(tmp_path, max_bytes=5000)
    for number in range(6):
        shards.write(f"{number}{number}key", {"values": np.zeros(200)})
        os.utime(shards._path(f"{number}{number}key"), (number, number))
    shards.read("00key")
    shards.evict()
    kept = sorted(path.stem[0] for path in tmp_path.glob("??/*.npz"))
    assert kept == ["0", "5"]


def test_what_killed_writers_left_of_a_shard_goes_when_it_is_old(tmp_path):
    import os

    shards = Shards(tmp_path)
    shards.write("00key", {"values": np.zeros(2)})
    old, new = (tmp_path / "00" / f".00key.npz.{pid}.part" for pid in (4711, 4712))
    old.write_bytes(b"half")
    new.write_bytes(b"half")
    os.utime(old, (0, 0))
    shards.evict()
    assert sorted(path.name for path in (tmp_path / "00").iterdir()) == [new.name, "00key.npz"]


def test_maps_of_different_sizes_are_kept_flat(tmp_path):
    adapter = toys.ToyAdapter(sizes=(("16", 16), ("24", 24)))
    keys = [CellKey("16", "speaker", 0, 0), CellKey("24", "speaker", 0, 0)]
    run(tmp_path, adapter=adapter, keys=keys, methods=["saliency"])
    store = ArrayStore(tmp_path / "maps")
    assert map_of(store, 0).shape == (1, 16, 16)
    assert map_of(store, len(store) - 1).shape == (1, 24, 24)


def test_a_loud_baseline_and_wrong_names_are_refused(tmp_path):
    with pytest.raises(ExplainError, match="'train_mean_map': louder"):
        run(tmp_path, adapter=toys.ToyAdapter(loud=True), baselines=["train_mean_map"])
    assert not (tmp_path / "maps").exists()
    with pytest.raises(ExplainError, match="'n_step': unknown; did you mean n_steps"):
        run(tmp_path, options={"n_step": 3})
    with pytest.raises(ExplainError, match="'width': unknown"):
        run(tmp_path, options={"saliency": {"width": 3}})
    with pytest.raises(ExplainError, match="did you mean saliency"):
        run(tmp_path, methods=["salience"])


def test_models_are_checked_once_for_each_method_with_hooks(tmp_path, monkeypatch):
    checked, check = [], checks.assert_explainable

    def noted(model, example):
        checked.append(len(example))
        check(model, example)

    monkeypatch.setattr(checks, "assert_explainable", noted)
    run(tmp_path)
    assert checked == [1] * len(KEYS)
    run(tmp_path, "again")
    assert len(checked) == len(KEYS)
    functional = toys.ToyAdapter(architecture=toys.FunctionalCNN)
    run(tmp_path, "plain", adapter=functional, methods=["saliency"], shards="functional")
    assert len(checked) == len(KEYS)
    with pytest.raises(checks.FunctionalActivationError):
        run(tmp_path, "hooked", adapter=functional, shards="functional")
    assert len(checked) == len(KEYS) + 1


def test_one_rule_for_the_device(monkeypatch):
    import torch

    from sonolens import keys, parallel
    from sonolens.models import checkpoint

    def chosen(kind):
        by_key = keys.device_kind({"runtime": {"device": kind}}, load_torch=True)
        return {by_key, parallel.resolve_device(kind), checkpoint.device(kind).type}

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert chosen("cpu") == {"cpu"} and chosen("auto") == chosen("cuda") == {"cuda"}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert chosen("cpu") == chosen("auto") == {"cpu"}
    assert keys.device_kind({"runtime": {"device": "cuda"}}, load_torch=True) == "cuda"
    with pytest.raises(parallel.EngineError, match="torch finds no CUDA device"):
        parallel.resolve_device("cuda")


def items_of(n_persons, n_classes, n_repetitions):
    rows = [
        (p, c, r) for p in range(n_persons) for c in range(n_classes) for r in range(n_repetitions)
    ]
    return Items(
        tuple(f"{c}_{p}_{r}" for p, c, r in rows),
        tuple(f"p{p}" for p, _, _ in rows),
        tuple(c for _, c, _ in rows),
    )


def test_selection_is_spread_nested_and_independent_of_order():
    items = items_of(4, 10, 6)
    chosen = cells.select_items(items, 48, 0)
    assert list(chosen.ids) == sorted(chosen.ids) and len(set(chosen.ids)) == 48
    assert (
        np.bincount(chosen.class_index).tolist() == [4] * 10
        or np.ptp(np.bincount(chosen.class_index)) <= 1
    )
    assert {chosen.person_ids.count(person) for person in set(chosen.person_ids)} == {12}
    order = rng.numpy_generator("order").permutation(len(items)).tolist()
    assert cells.select_items(items.select(order), 48, 0) == chosen
    few = cells.select_items(items, 10, 0)
    assert set(few.ids) <= set(chosen.ids) and len(set(few.class_index)) == 10
    assert cells.select_items(chosen, 10, 0) == few
    assert cells.select_items(items, 48, 1) != chosen
    assert len(cells.select_items(items, 1000, 0)) == 240


def test_methods_bring_their_own_baseline_and_number_of_draws(tmp_path, monkeypatch):
    asked = []
    baseline = toys.ToyAdapter.baseline

    def noted(self, key, kind, items, inputs, n_draws):
        asked.append((kind, n_draws))
        return baseline(self, key, kind, items, inputs, n_draws)

    monkeypatch.setattr(toys.ToyAdapter, "baseline", noted)
    chosen = {"keys": KEYS[:1], "n_items": 2, "baselines": ["noise_floor"]}
    run(tmp_path, methods=["ig_noisefloor", "ig_gain", "energy"], **chosen)
    assert set(asked) == {("noise_floor", 32), ("silence", 8), ("noise_floor", 8)}
    draws = ArrayStore(tmp_path / "maps").axes["explain"]["n_draws"]
    assert draws == {"ig_noisefloor": 32, "ig_gain": 8, "energy": 8}
    asked.clear()
    options = {"chunk_size": 4, "n_baseline_draws": 5}
    report = run(tmp_path, "few", methods=["ig_noisefloor"], options=options, **chosen)
    assert set(asked) == {("noise_floor", 5)} and report.n_reused == 0


def test_maps_on_other_axes_are_kept_flat_with_their_names(tmp_path):
    class Waveforms(toys.ToyAdapter):
        def inputs(self, key, items):
            return super().inputs(key, items).flatten(2)[..., :200] - 0.5

        def load(self, key):
            with rng.forked(key.model_seed, "net"):
                return AudioNet(4, width=0.05, n_samples=200).eval().requires_grad_(False)

        def axes(self, key):
            return {"scale": WAVEFORM_SCALE, "names": ["channel", "time"]}

    options = {"n_steps": 4, "chunk_size": 4, "ig_tf": {"win_length": 32}}
    run(
        tmp_path, adapter=Waveforms(), keys=KEYS[:1], methods=["ig_tf", "saliency"], options=options
    )
    store = ArrayStore(tmp_path / "maps")
    assert store.axes["map_axes"] == {"ig_tf": ["freq", "time"]}
    assert map_of(store, 0).shape == (17, 14) and map_of(store, len(store) - 1).shape == (1, 200)
