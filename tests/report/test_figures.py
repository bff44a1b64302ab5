"""Data, labels and units of the pictures; not their pixels."""

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from PIL import Image

from sonolens.dsp.spectrogram import LogMel
from sonolens.report import figures

MEL = LogMel(8000, 512, 250, 32, 32, 50.0, 4000.0)


@pytest.fixture
def ax():
    figure, ax = plt.subplots()
    yield ax
    plt.close(figure)


def a_map(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((32, 32))


def test_ticks_stand_at_their_frequencies(ax):
    figures.draw_map(ax, a_map(), MEL.axes(), signed=True)
    for position, label in zip(ax.get_yticks(), ax.get_yticklabels(), strict=True):
        assert np.interp(position, np.arange(32), MEL.frequencies_hz) == pytest.approx(
            float(label.get_text()), rel=1e-3
        )
    assert len(ax.get_yticks()) >= 4


def test_time_axis_covers_the_frames(ax):
    mesh = figures.draw_map(ax, a_map(), MEL.axes(), signed=True)
    corners = mesh.get_coordinates()[0, :, 0]
    assert corners[0] == pytest.approx(-0.5 * 250 / 8000)
    assert corners[-1] == pytest.approx(31.5 * 250 / 8000)


def test_signed_maps_are_white_at_zero(ax):
    mesh = figures.draw_map(ax, a_map(), MEL.axes(), signed=True)
    low, high = mesh.get_clim()
    assert low == -high
    assert high == pytest.approx(np.quantile(np.abs(a_map()), 0.99))


def test_inputs_are_shown_in_decibel(ax):
    mesh = figures.draw_map(ax, np.full((32, 32), 0.5), MEL.axes(), signed=False)
    assert mesh.get_clim() == (-80, 0)
    assert np.allclose(mesh.get_array(), -40)


def test_a_map_of_zeros_can_be_drawn(ax):
    figures.draw_map(ax, np.zeros((32, 32)), MEL.axes(), signed=True)


PICTURE = {"rows": [0.0] * 16, "columns": [0.0] * 16,
           "scale": {"unit": "grey level", "min": 0.0, "max": 1.0}}  # fmt: skip


def test_pictures_stand_upright_in_grey(ax):
    mesh = figures.draw_map(ax, a_map()[:16, :16], PICTURE, signed=False)
    assert mesh.get_clim() == (0, 1)
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # row 0 on top
    assert ax.get_aspect() == 1


def test_maps_of_pictures_have_pixels_on_their_axes(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(plt, "close", lambda figure: seen.append(figure))
    maps = a_map()[None, :16, :16]
    grid = figures.Grid(PICTURE, maps, {"saliency": maps}, None, ["7"])
    figures.attribution_grid(grid, tmp_path / "grid.png")
    texts = {ax.get_xlabel() for ax in seen[0].axes} | {ax.get_ylabel() for ax in seen[0].axes}
    assert {"column (pixels)", "row (pixels)", "grey level"} <= texts
    monkeypatch.undo()
    plt.close(seen[0])


def scores() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"variant": "trained", "metric": metric, "method": method, "baseline": "none",
             "value": 0.5, "ci_low": 0.4, "ci_high": 0.6}
            for metric in ("sparseness", "mprt")
            for method in ("saliency", "random")
        ]
    )  # fmt: skip


def test_every_picture_is_written_and_the_same_again(tmp_path):
    grid = figures.Grid(
        axes=MEL.axes(), inputs=np.abs(a_map()[None]) / 5,
        maps={"saliency": a_map(1)[None], "random": a_map(2)[None]},
        masks=a_map(3)[None] > 1, titles=["ia → ia (p = 0.90)"],
    )  # fmt: skip
    history = pd.DataFrame(
        [
            {"cell": "audio-32", "protocol": "speaker", "variant": "trained", "fold": 0,
             "model_seed": 0, "epoch": epoch, "val_loss": 1.0 / (1 + epoch), "val_accuracy": 0.5}
            for epoch in range(3)
        ]
    )  # fmt: skip
    counts = np.array([[1, 0], [1, 1]])
    draw = {
        "grid": lambda path: figures.attribution_grid(grid, path),
        "curves": lambda path: figures.training_curves(history, path),
        "confusion": lambda path: figures.confusion_matrix(counts, ["a", "b"], path),
        "scores": lambda path: figures.score_table(
            scores(), {"sparseness": "higher", "mprt": "lower"}, path
        ),
    }
    for name, make in draw.items():
        first, second = tmp_path / f"{name}1.png", tmp_path / f"{name}2.png"
        make(first)
        make(second)
        assert first.read_bytes() == second.read_bytes()
        assert first.read_bytes().startswith(b"\x89PNG")


def test_for_print_there_is_a_pdf_and_a_fine_picture(tmp_path):
    counts = np.array([[1, 0], [1, 1]])

    def draw(page, folder):
        with figures.publication(folder):
            figures.confusion_matrix(counts, ["a", "b"], page)

    draw(tmp_path / "page.png", tmp_path / "print")
    draw(tmp_path / "page.png", tmp_path / "again")
    assert {path.name for path in (tmp_path / "print").iterdir()} == {"page.pdf", "page.png"}
    with Image.open(tmp_path / "page.png") as page, Image.open(tmp_path / "print/page.png") as fine:
        assert fine.info["dpi"] == pytest.approx((300, 300), abs=0.1)
        assert fine.width / page.width == pytest.approx(300 / figures.DPI, abs=0.01)
    pdf = (tmp_path / "print/page.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert b"/FontFile2" in pdf  # TrueType: letters stay letters
    assert pdf == (tmp_path / "again/page.pdf").read_bytes()
    (tmp_path / "print/page.pdf").unlink()
    figures.confusion_matrix(counts, ["a", "b"], tmp_path / "page.png")
    assert not (tmp_path / "print/page.pdf").exists()  # outside of the block nothing is added
