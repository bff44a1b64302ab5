"""Every format the pipeline writes has the same bytes whenever, wherever and by whom it is written.

DVC tells results apart by their bytes. As a program, this file writes one of each into a folder.
"""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sonolens import store
from sonolens.data import audio, splits
from sonolens.dsp.spectrogram import LogMel
from sonolens.models import checkpoint
from sonolens.report import figures, page_images

ROOT = Path(__file__).resolve().parent.parent
GO = "go\n"
TICK_S = 1.1  # more than the second that file formats count time in
MEL = LogMel(8000, 512, 250, 32, 32, 50.0, 4000.0)
# Made of a set, so in another order in each process, as dictionaries filled from sets are.
UNORDERED = {name: len(name) / 7 for name in {"saliency", "ΔdB", "random", "energy"}}
MANY = {name: float(name[4:]) for name in {f"item{row:04d}" for row in range(200)}}


def a_map(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((32, 32))


TABLE = pd.DataFrame(
    {
        "item_id": [f"ö{row:03d}" for row in range(300)],
        "score": np.where(np.arange(300) % 7, a_map(0).ravel()[:300], np.nan),
        "fold": np.arange(300) % 3,
        "kept": np.arange(300) % 2 == 0,
        "method": pd.Categorical(["saliency", "random", "energy"] * 100),
    }
)
HISTORY = pd.DataFrame(
    {
        "cell": "audio-32",
        "protocol": "speaker",
        "variant": "trained",
        "fold": 0,
        "model_seed": 0,
        "epoch": range(3),
        "val_loss": [1.0, 0.5, 0.25],
        "val_accuracy": [0.1, 0.5, 0.9],
    }
)
SCORES = pd.DataFrame(
    {
        "variant": "trained",
        "metric": ["mprt", "mprt", "sparseness", "sparseness"],
        "method": ["saliency", "random"] * 2,
        "baseline": "none",
        "value": 0.5,
        "ci_low": 0.4,
        "ci_high": 0.6,
    }
)


def _store(folder: Path) -> None:
    with store.write_store(folder / "equal", MEL.axes() | {"more": UNORDERED}) as writer:
        writer.append(a_map(1)[None], [{"item_id": "a"} | {"label": "ä"}])
        writer.append(a_map(2)[None], [{"item_id": "b"} | {"label": "ö"}])
    with store.write_store(folder / "ragged", {"unit": "s"}, ragged=True) as writer:
        writer.append(a_map(3)[0].astype(np.float32), {"item_id": "a"})
        writer.append(a_map(4)[0, :7].astype(np.float32), {"item_id": "b"})


def _splits(folder: Path) -> None:
    ids = tuple(sorted(MANY))
    fold = splits.Fold(train=ids[:100], val=ids[100:150], test=ids[150:])
    splits.write(folder / "splits.json", {name: [fold] for name in UNORDERED})


def _grid(folder: Path) -> None:
    grid = figures.Grid(
        axes=MEL.axes(),
        inputs=np.abs(a_map(1)[None]) / 5,
        maps={"saliency": a_map(2)[None], "random": a_map(3)[None]},
        masks=a_map(4)[None] > 1,
        titles=["ia → ia (p = 0.90)"],
    )
    figures.attribution_grid(grid, folder / "grid.png")


def _weights(folder: Path) -> None:
    import torch

    state = {name: torch.full((3, 2), value) for name, value in MANY.items()}
    checkpoint.save(folder / "weights.safetensors", state, {"options": UNORDERED})


def _picture(folder: Path) -> None:
    figures.confusion_matrix(np.eye(2, dtype=int), ["a", "b"], folder / "page.png")
    (folder / "page.webp").write_bytes(page_images.shrink(folder / "page.png", 400, 50_000))


WRITERS: dict[Callable, Callable[[Path], object]] = {
    store.write_json: lambda folder: store.write_json(folder / "a.json", UNORDERED | MANY),
    store.write_csv: lambda folder: store.write_csv(folder / "a.csv", TABLE),
    store.write_parquet: lambda folder: store.write_parquet(folder / "a.parquet", TABLE),
    store.write_store: _store,
    splits.write: _splits,
    audio.write_wav: lambda folder: audio.write_wav(folder / "a.wav", a_map(5).ravel(), 8000),
    checkpoint.save: _weights,
    figures.attribution_grid: _grid,
    figures.training_curves: lambda folder: figures.training_curves(HISTORY, folder / "curves.png"),
    figures.confusion_matrix: lambda folder: figures.confusion_matrix(
        np.eye(2, dtype=int), ["a", "b"], folder / "confusion.png"
    ),
    figures.score_table: lambda folder: figures.score_table(
        SCORES, {"sparseness": "higher", "mprt": "lower"}, folder / "scores.png"
    ),
    page_images.shrink: _picture,
}


def main(folder: Path) -> None:
    """Write all, once told so: by then everything is imported."""
    sys.stdin.readline()
    for write in WRITERS.values():
        write(folder)


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Files of two processes that differ in all that must not matter, by name."""
    folders = [tmp_path_factory.mktemp(name) for name in ("one", "another place")]
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(folder)],
            cwd=folder,
            env=os.environ
            | {"PYTHONPATH": str(ROOT / "src"), "PYTHONHASHSEED": seed, "TZ": zone, "LC_ALL": "C"},
            stdin=subprocess.PIPE,
            text=True,
        )
        for folder, seed, zone in zip(folders, "12", ("UTC-3", "UTC+8"), strict=True)
    ]
    try:
        for process in processes:
            process.communicate(GO, timeout=300)
            assert process.returncode == 0
            time.sleep(TICK_S)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    first, second = (
        {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        for folder in folders
    )
    return first, second


def test_bytes_are_the_same(written):
    first, second = written
    assert first.keys() == second.keys()
    assert not [name for name in first if first[name] != second[name]]


def test_every_format_is_there(written):
    assert {Path(name).suffix for name in written[0]} == {
        ".json", ".csv", ".parquet", ".npy", ".wav", ".safetensors", ".png", ".webp"
    }  # fmt: skip


def test_every_writer_is_in_the_table():
    found = {
        function
        for module in (store, splits, audio, checkpoint, figures, page_images)
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__
        and (
            name.startswith(("write", "save", "shrink"))
            or (module is figures and "path" in inspect.signature(function).parameters)
        )
        and not name.startswith("_")
        and function is not figures.sheet  # what the others draw on
    }
    assert found == set(WRITERS)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
