"""What the pictures of `digits` show."""

from __future__ import annotations

import numpy as np
import pandas as pd

from sonolens.explain.contract import Items, map_of
from sonolens.params import StageParams
from sonolens.report.figures import Grid
from sonolens.score.tables import method_label
from sonolens.store import ArrayStore
from sonolens.studies.digits.adapter import DigitsAdapter
from sonolens.studies.digits.datasets import parse_key
from sonolens.studies.digits.params import Params


def grids(
    params: StageParams[Params],
    adapter: DigitsAdapter,
    store: ArrayStore,
    predictions: pd.DataFrame,
) -> dict[str, Grid]:
    """A picture per explained model of the first fold: examples by method, with axes and truth."""
    result = {}
    for columns, rows in store.index.groupby(
        ["cell", "protocol", "fold", "model_seed", "variant"], sort=True
    ):
        key = parse_key("{}_{}_fold{}_seed{}_{}".format(*columns))
        if key.fold or key.protocol != "person":
            continue
        items = adapter.items(key, "test")
        items = items.select(
            [items.ids.index(item_id) for item_id in dict.fromkeys(rows["item_id"])]
        )
        items = one_per_class(items, params.study.report.n_examples)
        own = (predictions[list(key.as_row())] == pd.Series(key.as_row())).all(axis=1)
        answers = predictions[own].set_index("item_id")
        masks = adapter.truth_masks(key, items).get("cues")
        seed = f"_seed{key.model_seed}" if key.model_seed else ""
        result[f"attributions_{key.cell}_{key.variant}{seed}"] = Grid(
            axes=adapter.axes(key),
            inputs=adapter.inputs(key, items)[:, 0].numpy(),
            maps=_maps(store, rows, items.ids),
            masks=None if masks is None else masks[:, 0].numpy(),
            titles=[_title(adapter, key.cell, answers, item_id) for item_id in items.ids],
        )
    return result


def _maps(
    store: ArrayStore, rows: pd.DataFrame, item_ids: tuple[str, ...]
) -> dict[str, np.ndarray]:
    maps: dict[str, np.ndarray] = {}
    for (method, baseline), group in rows.groupby(["method", "baseline"], sort=False, dropna=False):
        label = method_label(str(method), str(baseline)).replace(", ", "\n")
        at = dict(zip(group["item_id"], group.index, strict=True))
        maps[label] = np.stack([map_of(store, at[item_id])[0] for item_id in item_ids])
    return maps


def one_per_class(items: Items, n_items: int) -> Items:
    """The first items whose classes differ, then the others."""
    first = [
        row for row, index in enumerate(items.class_index) if index not in items.class_index[:row]
    ]
    others = [row for row in range(len(items)) if row not in first]
    return items.select((first + others)[:n_items])


def _title(adapter: DigitsAdapter, cell: str, answers: pd.DataFrame, item_id: str) -> str:
    """Truth, and the answer of the model where it was tested."""
    prepared = adapter.data.items(cell)
    classes = prepared.classes
    label = str(prepared.manifest.loc[item_id, "label"])
    if item_id not in answers.index:
        return label
    row = answers.loc[item_id].to_dict()
    return f"{label}, answer {classes[row['predicted']]} (p({label}) = {row['p_true']:.2f})"
