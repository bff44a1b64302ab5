import logging

import numpy as np
import pandas as pd
import pytest

import toys
from sonolens.explain import cells as explain_cells
from sonolens.explain.contract import CellKey
from sonolens.explain.shards import Shards
from sonolens.params import Runtime
from sonolens.score import cells, registry
from sonolens.score.contract import ScoreError
from sonolens.store import ArrayStore

KEYS = (CellKey("main", "speaker", 0, 0), CellKey("main", "speaker", 1, 0))
METHODS = ["saliency", "integrated_gradients", "guided_gradcam", "random", "energy"]
OPTIONS = {
    "n_coalitions": 6,
    "n_noise_draws": 2,
    "noise_radius": 0.02,
    "mprt": {"n_cascade_steps": 2},
    "smooth_mprt": {"n_cascade_steps": 1, "n_smooth_draws": 2},
    "n_steps": 4,
}
CHEAP = ["faithfulness_patch", "sparseness", "relevance_mass_accuracy"]


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


def explain(folder, methods=METHODS, adapter=None, keys=KEYS):
    explain_cells.run_cells(
        adapter or toys.ToyAdapter(), keys, methods=methods, baselines=["silence"],
        options={"n_steps": 3, "chunk_size": 4}, n_items=6, part="test", seed=0, runtime=runtime(),
        shards=Shards(folder / "explain"), out=folder / f"maps{len(methods)}",
    )  # fmt: skip
    return ArrayStore(folder / f"maps{len(methods)}")


@pytest.fixture(scope="module")
def maps(tmp_path_factory):
    return explain(tmp_path_factory.mktemp("maps"))


def run(maps, folder, metrics=CHEAP, engine="serial", workers=1, adapter=None, **changes):
    arguments = {"metrics": metrics, "options": OPTIONS, "n_items_costly": 3, "seed": 0} | changes
    return cells.run_cells(
        adapter or toys.ToyAdapter(),
        maps,
        runtime=runtime(engine, workers),
        shards=Shards(folder),
        **arguments,
    )


def test_all_metrics_score_all_maps(maps, tmp_path):
    tables = run(maps, tmp_path, list(registry.METRICS))
    scores = tables.scores
    assert list(scores.columns) == cells.SCORE_COLUMNS
    assert not scores.duplicated(cells.SCORE_COLUMNS[:-2]).any()
    counts = scores.groupby("metric")["item_id"].nunique()
    costly = [name for name, info in registry.METRICS.items() if info.explains]
    mute = {name for name, info in registry.METRICS.items() if "audio" in info.needs}
    assert set(counts.index) == set(registry.METRICS) - mute  # the toy has no sound
    assert all(counts[name] == (3 if name in costly else 6) for name in counts.index)
    assert len(scores) == sum(2 * 5 * 2 * counts)
    assert set(scores["study"]) == {"toy"} and set(scores["variant"]) == {"trained"}
    assert (
        scores["person_id"].str[-1].astype(int) == scores["item_id"].str[-2:].astype(int) % 3
    ).all()
    params = scores.groupby("metric")["metric_params"].first()
    assert '"n_coalitions": 6' in params["faithfulness_patch"]
    removing = {name for name, info in registry.METRICS.items() if info.removes}
    assert set(scores.query("fill == 'silence'")["metric"]) == removing
    others = registry.METRICS.keys() - removing - mute
    assert set(scores.query("fill == 'none'")["metric"]) == others
    assert params["sparseness"] == "{}"
    means = scores.groupby(["metric", "method"])["score"].mean()
    assert means["mprt", "random"] == 1 and means["mprt", "energy"] == 1
    assert (
        means["random_logit", "energy"] == pytest.approx(1)
        and means["average_sensitivity", "random"] == 0
    )
    assert means["faithfulness_patch", "integrated_gradients"] > 0.5
    assert abs(means["faithfulness_scattered", "random"]) < 0.5
    curves = tables.curves
    assert list(curves.columns) == cells.CURVE_COLUMNS
    assert set(curves["curve"]) == {
        *("mprt", "smooth_mprt", "ssim", "cosine", "spearman", "insertion", "deletion")
    }
    assert len(curves[curves["curve"] == "mprt"]) == 2 * 5 * 2 * 3 * 2


def test_undefined_scores_are_rows_with_nan(maps, tmp_path):
    scores = run(maps, tmp_path, ["relevance_mass_accuracy"]).scores
    # the toy's first item of every block has an empty mask
    assert (
        scores.groupby(["method", "fold", "target"])["score"].apply(lambda s: s.isna().sum()).min()
        >= 2
    )


def test_without_truth_metrics_that_need_masks_have_no_rows(maps, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    every = run(maps, tmp_path).scores
    assert not caplog.messages
    kept = every[every["metric"] != "relevance_mass_accuracy"].reset_index(drop=True)
    bare = run(maps, tmp_path, adapter=toys.ToyAdapter(truth="none")).scores
    pd.testing.assert_frame_equal(bare, kept, check_exact=True)
    assert caplog.messages == [
        "toy: no truth masks for 2 of 2 models; no scores of relevance_mass_accuracy"
    ]
    half = run(maps, tmp_path, adapter=toys.ToyAdapter(truth="fold0")).scores
    assert set(half[half["metric"] == "relevance_mass_accuracy"]["fold"]) == {0}
    none = run(maps, tmp_path, ["pointing_game"], adapter=toys.ToyAdapter(truth="none"))
    assert list(none.scores.columns) == cells.SCORE_COLUMNS and not len(none.scores)
    assert (none.n_blocks, none.n_reused) == (0, 0)


@pytest.mark.parametrize("metrics", [CHEAP, ["average_sensitivity", "mprt"]])
def test_rows_do_not_depend_on_the_engine(maps, tmp_path, metrics, eager_workers):
    serial = run(maps, tmp_path / "a", metrics)
    loky = run(maps, tmp_path / "b", metrics, engine="loky", workers=2)
    assert loky.n_reused == 0
    pd.testing.assert_frame_equal(serial.scores, loky.scores, check_exact=True)
    pd.testing.assert_frame_equal(serial.curves, loky.curves, check_exact=True)


def test_second_run_takes_shards_and_fresh_computes_anew(maps, tmp_path, monkeypatch):
    first = run(maps, tmp_path, [*CHEAP, "mprt"])
    before = toys.SmallCNN.n_forward
    second = run(maps, tmp_path, [*CHEAP, "mprt"])
    assert (
        toys.SmallCNN.n_forward == before and second.n_reused == second.n_blocks == first.n_blocks
    )
    pd.testing.assert_frame_equal(first.scores, second.scores, check_exact=True)
    pd.testing.assert_frame_equal(first.curves, second.curves, check_exact=True)
    more = run(maps, tmp_path, [*CHEAP, "mprt", "faithfulness_scattered"])
    assert more.n_blocks - more.n_reused == 2 * 2 * 5
    monkeypatch.setenv("SONOLENS_FRESH", "1")
    fresh = run(maps, tmp_path, [*CHEAP, "mprt"])
    assert fresh.n_reused == 0
    pd.testing.assert_frame_equal(first.scores, fresh.scores, check_exact=True)


def test_a_new_method_computes_only_itself_and_changes_no_other_score(maps, tmp_path):
    few = explain(tmp_path, METHODS[:3])
    some = run(few, tmp_path / "shards", [*CHEAP, "mprt"])
    every = run(maps, tmp_path / "shards", [*CHEAP, "mprt"])
    assert every.n_blocks - every.n_reused == every.n_blocks * 2 // 5
    kept = every.scores[every.scores["method"].isin(METHODS[:3])].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, some.scores, check_exact=True)


def test_damaged_shard_is_computed_anew(maps, tmp_path):
    first = run(maps, tmp_path)
    victim = sorted(tmp_path.glob("??/*.npz"))[0]
    victim.write_bytes(victim.read_bytes()[:40])
    second = run(maps, tmp_path)
    assert second.n_blocks - second.n_reused == 1
    pd.testing.assert_frame_equal(first.scores, second.scores, check_exact=True)


def test_options_and_fill_are_in_the_key(maps, tmp_path):
    first = run(maps, tmp_path, ["faithfulness_patch"])
    for change in ({"options": {"n_coalitions": 7}}, {"fills": ["train_mean"]}, {"seed": 1}):
        other = run(maps, tmp_path, ["faithfulness_patch"], **change)
        assert other.n_reused == 0
        assert not np.allclose(first.scores["score"], other.scores["score"], equal_nan=True)


def test_metrics_that_remove_cells_run_with_every_fill(maps, tmp_path):
    fills = ["silence", "train_mean"]
    both = run(maps, tmp_path, ["faithfulness_patch", "sparseness"], fills=fills).scores
    assert both.groupby("metric")["fill"].unique().map(list).to_dict() == {
        "faithfulness_patch": fills,
        "sparseness": ["none"],
    }
    for fill in fills:
        alone = run(maps, tmp_path / "alone", ["faithfulness_patch"], fills=[fill]).scores
        found = both.query("fill == @fill").reset_index(drop=True)
        pd.testing.assert_frame_equal(found, alone, check_exact=True)


def test_maps_of_different_sizes(tmp_path):
    adapter = toys.ToyAdapter(sizes=(("16", 16), ("24", 24)))
    keys = (CellKey("16", "speaker", 0, 0), CellKey("24", "speaker", 0, 0))
    maps = explain(tmp_path, adapter=adapter, keys=keys)
    assert set(run(maps, tmp_path / "shards", adapter=adapter).scores["cell"]) == {"16", "24"}


def test_wrong_names_are_refused_and_a_failing_metric_fails_the_run(maps, tmp_path, monkeypatch):
    with pytest.raises(ScoreError, match="did you mean sparseness"):
        run(maps, tmp_path, ["sparsness"])
    with pytest.raises(ScoreError, match="'n_coalition': unknown; did you mean n_coalitions"):
        run(maps, tmp_path, options={"n_coalition": 3})
    with pytest.raises(ScoreError, match="at least 3"):
        run(maps, tmp_path, options={"n_coalitions": 2})


class InHz(toys.ToyAdapter):
    """With bands in Hz."""

    def axes(self, key):
        return super().axes(key) | {"frequencies_hz": np.linspace(50, 4000, 16).tolist()}


def test_maps_explained_anew_see_the_same_draws_of_the_baseline(tmp_path):
    maps = explain(tmp_path, ["ig_noisefloor", "ig_band"], InHz(), KEYS[:1])
    options = {"noise_radius": 1e-7, "n_noise_draws": 1}
    tables = run(maps, tmp_path, ["average_sensitivity"], adapter=InHz(), options=options)
    assert set(tables.scores["method"]) == {"ig_noisefloor", "ig_band"}
    assert tables.scores["score"].max() < 1e-3
