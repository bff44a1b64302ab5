"""The real thing: a fresh repository in the `tiny` profile, its experiments, its tracker."""

import json
import sys

import pytest

import project
from project import level, rows, run

pytestmark = pytest.mark.pipeline
CELLS = ("audio-32", "image-16")  # of the tiny profile


def test_metrics_of_every_stage_are_there(repro):
    summary = json.loads((repro / "metrics/digits/summary.json").read_text())
    for name in ("accuracy_person", "accuracy_person_leaky", "accuracy_person_permuted"):
        assert 0 <= summary[name] <= 1
        assert {f"{name}_ci_low", f"{name}_ci_high"} <= set(summary)
    for method in (
        "random",
        "energy_silence",
        "integrated_gradients_silence",
        "integrated_gradients_legacy_zero",
    ):
        assert f"xai_faithfulness_patch_{method}" in summary
    leakage = json.loads((repro / "metrics/digits/leakage.json").read_text())
    assert {f"accuracy_{name}" for name in ("leaky", "person", "metadata", "permuted")} <= set(
        leakage
    )


def test_pictures_are_there(repro):
    pages = {path.name for path in (repro / "plots/digits/pages/report").glob("*.png")}
    assert {
        "training_curves.png",
        *(f"confusion_{cell}.png" for cell in CELLS),
        *(f"scores_{cell}.png" for cell in CELLS),
        *(f"attributions_{cell}_trained.png" for cell in CELLS),
    } <= pages


def test_the_overview_has_its_leaderboard_and_its_row(repro):
    summary = json.loads((repro / "metrics/overview/summary.json").read_text())
    assert summary["n_corpus"] == 1
    pages = {path.name for path in (repro / "plots/overview/pages/report").iterdir()}
    assert {"leaderboard.png", "leaderboard_summary.md"} <= pages
    (row,) = level(rows(repro), "experiment", "overview")
    assert row["status"] == "FINISHED"
    assert row["metrics"]["n_corpus"] == 1


def test_nothing_is_left_in_staging(repro):
    assert not list((repro / ".dvc/tmp/sonolens/staging").glob("*"))
    assert not list((repro / ".dvc/tmp/sonolens/ckpt").glob("*/"))


def test_second_repro_runs_nothing(repro):
    assert "Running stage" not in run(repro, "dvc", "repro")


def test_dvc_shows_metrics_and_plots(repro):
    assert "accuracy_person" in run(repro, "dvc", "metrics", "show")
    run(repro, "dvc", "plots", "show")
    html = (repro / "dvc_plots/index.html").read_text()
    for name in ("history.csv", "confusion.csv", "mprt.csv"):
        assert name in html


def test_one_complete_row_with_live_children(repro):
    found = rows(repro)
    (top,) = level(found, "experiment")
    assert top["status"] == "FINISHED"
    assert top["params"]["digits.train.epochs"] == "1"
    summary = json.loads((repro / "metrics/digits/summary.json").read_text())
    for name in ("accuracy_person", "xai_sparseness_saliency"):
        assert top["metrics"][name] == pytest.approx(summary[name])
    assert any(name.endswith("val_loss") for name in top["metrics"])
    assert {"plots", "metrics"} <= {path.split("/")[0] for path in top["artifacts"]}
    children = {row["tags"]["mlflow.runName"]: row for row in level(found, "stage")}
    assert all(row["status"] == "FINISHED" for row in children.values())
    assert any("train" in name for name in children)
    assert any("explain" in name for name in children)


def test_forced_repro_gives_the_same_bytes(repro):
    before = (repro / "dvc.lock").read_text()
    run(repro, "dvc", "repro", "-f", SONOLENS_FRESH="1", SONOLENS_TRACKING="off")
    assert (repro / "dvc.lock").read_text() == before
    assert not run(repro, "git", "status", "--porcelain", "metrics", "plots")


def test_a_run_that_makes_what_git_has_completes_its_row(repro, tmp_path):
    """As the first run in a fresh clone does; the tracker of the copy is empty."""
    root = project.copy(repro, tmp_path / "clone")
    output = run(root, "dvc", "repro", "-f", "-s", "digits-report")
    output += run(root, "dvc", "repro")
    assert "Running stage 'digits-publish'" in output
    (row,) = level(rows(root), "experiment")
    assert row["status"] == "FINISHED"
    assert "accuracy_person" in row["metrics"]
    assert not run(root, "git", "status", "--porcelain", "metrics", "dvc.lock")


def test_experiment_in_place_is_one_complete_row_and_recomputes_only_scores(repro, tmp_path):
    root = project.copy(repro, tmp_path / "copy")
    output = run(root, "dvc", "exp", "run", "-S", "digits.score.n_coalitions=12", "digits-publish")
    assert "Running stage 'digits-train'" not in output
    (new,) = level(rows(root), "experiment")
    assert new["params"]["digits.score.n_coalitions"] == "12"
    assert new["status"] == "FINISHED"
    assert any(name.endswith("val_loss") for name in new["metrics"])
    summary = json.loads((root / "metrics/digits/summary.json").read_text())
    assert new["metrics"]["accuracy_person"] == pytest.approx(summary["accuracy_person"])


def test_own_recording_with_the_trained_checkpoint(repro, tmp_path):
    from sonolens.data.audio import write_wav
    from sonolens.data.synth import formant_words as synth

    path = tmp_path / "my word.wav"
    write_wav(path, synth.render(synth.utterance("ia", synth.speaker(50, 9), 0, (40, 50), 9)), 8000)
    output = tmp_path / "out"
    run(repro, sys.executable, "-m", "sonolens.cli", "digits", "explain", str(path),
        "--output-dir", str(output), "--method", "integrated_gradients", "--method", "saliency",
        PYTHONPATH=str(repro / "src"))  # fmt: skip
    names = {file.name for file in output.iterdir()}
    assert {"my word.png", "my word.npz", "explanations.csv", "my word_saliency_kept.wav"} <= names
