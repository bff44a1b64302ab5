"""Results under the names that audio-xai's README and scripts gave to them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from sonolens.explain.contract import map_of
from sonolens.report import figures
from sonolens.score.tables import method_label
from sonolens.store import ArrayStore, read_parquet, whole, write_csv
from sonolens.studies.digits.cells import cell_names, modality_of, size_of
from sonolens.studies.digits.datasets import FEATURES, Dataset, model_path
from sonolens.studies.digits.networks import model_keys
from sonolens.studies.digits.params import Params

DATASETS = {"audiomnist": "AudioMNIST", "mnist": "MNIST"}
ADAPTED = ("integrated_gradients", "ig_", "expected_gradients")
COLUMNS = ["cell", "item_id", "fold", "model_seed", "baseline", "fill", "score"]


def run(root: Path, study: Params, folder: Path, n_maps: int) -> list[Path]:
    """Write checkpoints, metrics, explanations and overlays; of trained models, speakers apart.

    Parameters
    ----------
    root
        Folder with dvc.yaml, after `dvc repro digits-report`.
    folder
        Where the folders `checkpoints` and `results` are made.
    n_maps
        Items per cell whose maps are written, as array and picture.

    Returns
    -------
    list of Path
        What was written.
    """
    written = [*_checkpoints(root, study, folder / "checkpoints")]
    scores = read_parquet(root / "data/digits/score/scores.parquet")
    scores = scores.query("variant == 'trained' and protocol == 'person'")
    written += _metrics(study, scores, folder / "results/metrics")
    written += _maps(root, study, folder / "results/visualizations", n_maps)
    return written


def dataset_name(study: Params, cell: str) -> str:
    """The cell's corpus, as audio-xai spelt it."""
    source = study.source if modality_of(cell) == "audio" else study.image_source
    return DATASETS.get(source, source)


def _checkpoints(root: Path, study: Params, folder: Path) -> Iterator[Path]:
    first = {key.cell: key for key in reversed(model_keys(study)) if key.variant == "trained"
             and key.protocol == "person"}  # fmt: skip
    for cell, key in sorted(first.items()):
        name = f"{dataset_name(study, cell)}_{study.train.architecture}_{size_of(cell)}"
        yield _copied(root / model_path(key), folder / f"{name}.safetensors")


def _copied(source: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as stream, whole(target) as out:
        shutil.copyfileobj(stream, out)
    return target


def _metrics(study: Params, scores: pd.DataFrame, folder: Path) -> Iterator[Path]:
    """`{metric}_{dataset}_{method}_{resolution}.csv`, and `{metric}_{adaptation}.csv`."""
    for (metric, cell, method), table in scores.groupby(["metric", "cell", "method"], sort=True):
        name = f"{metric}_{dataset_name(study, str(cell))}_{method}_{size_of(str(cell))}"
        yield _table(table, folder / f"{name}.csv")
    sound = scores[scores["cell"].map(modality_of) == "audio"]
    adapted = sound[sound["method"].str.startswith(ADAPTED)]
    for (metric, method, baseline), table in adapted.groupby(["metric", "method", "baseline"]):
        name = method_label(str(method), str(baseline)).replace(", ", "_")
        yield _table(table, folder / f"{metric}_{name}.csv")


def _table(table: pd.DataFrame, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_csv(path, table[COLUMNS].sort_values(COLUMNS[:-1]))
    return path


def _maps(root: Path, study: Params, folder: Path, n_maps: int) -> Iterator[Path]:
    """`{dataset}_{method}_{resolution}_{sample}.npy` and `.png`, the map over the input."""
    store, data = ArrayStore(root / "data/digits/explain"), Dataset(root)
    folder.mkdir(parents=True, exist_ok=True)
    index = store.index.query("variant == 'trained' and protocol == 'person' and fold == 0")
    for cell in cell_names(study):
        own = index[index["cell"] == cell]
        shown = sorted(own["item_id"].unique())[:n_maps]
        axes = ArrayStore(root / FEATURES / cell).axes
        inputs = dict(zip(shown, data.features(cell).take(shown), strict=True))
        for number, row in own[own["item_id"].isin(shown)].iterrows():
            label = method_label(row["method"], row["baseline"]).replace(", ", "_")
            parts = (dataset_name(study, cell), label, size_of(cell), row["item_id"])
            path = folder / "_".join(str(part).replace("/", "-") for part in parts)
            values = map_of(store, int(str(number)))[0]
            with whole(path.with_name(f"{path.name}.npy")) as stream:
                np.save(stream, values)
            grid = figures.Grid(axes, inputs[row["item_id"]], {label: values[None]}, None,
                                [row["item_id"]])  # fmt: skip
            figures.attribution_grid(grid, path.with_name(f"{path.name}.png"))
            yield path.with_name(f"{path.name}.npy")
            yield path.with_name(f"{path.name}.png")
