"""The figures of `digits` that stand in summary.json and its tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from sonolens.explain.contract import CellKey, Items
from sonolens.params import StageParams
from sonolens.pipeline import StageFiles
from sonolens.report.figures import Grid
from sonolens.score import classification
from sonolens.stats import person_bootstrap
from sonolens.store import ArrayStore, read_parquet
from sonolens.studies.digits.adapter import DigitsAdapter
from sonolens.studies.digits.datasets import parse_key
from sonolens.studies.digits.headline import headline_cell
from sonolens.studies.digits.params import Params

CELL_COLUMNS = ["cell", "protocol", "variant"]


def accuracies(
    params: StageParams[Params], predictions: pd.DataFrame
) -> tuple[dict[str, float], pd.DataFrame]:
    """Summary metrics by level, cell, protocol and variant; and one row per fold of each."""
    options = _bootstrap(params)
    metrics: dict[str, float] = {}
    for (cell, protocol, variant), table in predictions.groupby(CELL_COLUMNS, sort=True):
        suffix = _suffix(params, str(cell), str(protocol), str(variant))
        for level in ("person", "item"):
            interval = classification.accuracy(table, weight=level, **options)
            metrics |= interval.as_metrics(f"accuracy_{level}{suffix}")
        metrics |= {f"n_person{suffix}": interval.n_person, f"n_item{suffix}": len(table)}
    metrics["accuracy_chance"] = 1 / predictions["class_index"].nunique()
    rows = []
    for key, table in predictions.groupby([*CELL_COLUMNS, "fold", "model_seed"], sort=True):
        interval = classification.accuracy(table, **options)
        persons = sorted(table["person_id"].unique())
        if len(persons) == 1:
            n_correct = int((table["class_index"] == table["predicted"]).sum())
            bounds = classification.wilson_interval(n_correct, len(table), options["level"])
        else:
            bounds = (interval.low, interval.high)
        rows.append(
            dict(zip([*CELL_COLUMNS, "fold", "model_seed"], key, strict=True))
            | {"test_group": persons[0] if len(persons) == 1 else f"{len(persons)} persons"}
            | {"n_person": len(persons), "n_item": len(table)}
            | {
                "accuracy": interval.value,
                "accuracy_ci_low": bounds[0],
                "accuracy_ci_high": bounds[1],
            }
        )
    return metrics, pd.DataFrame(rows)


def score_table(params: StageParams[Params], scores: pd.DataFrame) -> pd.DataFrame:
    """Mean of each metric by cell, method and baseline.

    With person-bootstrap intervals and the number of NaN.
    """
    options = _bootstrap(params)
    columns = [*CELL_COLUMNS, "method", "baseline", "metric", "metric_params"]
    rows = []
    for key, table in scores.groupby(columns, sort=True, dropna=False):
        interval = person_bootstrap(
            table["score"].to_numpy(), table["person_id"].to_numpy(), **options
        )
        rows.append(
            dict(zip(columns, key, strict=True))
            | {"value": interval.value, "ci_low": interval.low, "ci_high": interval.high}
            | {"n_person": interval.n_person, "n_item": interval.n_item, "n_nan": interval.n_nan}
        )
    return pd.DataFrame(rows)


def seed_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean of each metric by training seed: how far a finding hangs on one training."""
    columns = [*CELL_COLUMNS, "model_seed", "method", "baseline", "metric"]
    means = scores.groupby(columns, sort=True, dropna=False)["score"].mean()
    return means.rename("value").reset_index()


def xai_metrics(table: pd.DataFrame, scores: pd.DataFrame) -> dict[str, float]:
    """Rows of `score_table` under their summary names.

    Controls and the first cell keep the short name.
    """
    metrics: dict[str, float] = {}
    cells = list(table["cell"].unique())
    for row in table.to_dict("records"):
        if row["protocol"] != "speaker":
            continue
        parts = ["xai", row["metric"], row["method"], row["baseline"]]
        parts += [row["cell"] if len(cells) > 1 else ""]
        parts += [row["variant"] if row["variant"] != "trained" else ""]
        name = "_".join(part for part in parts if isinstance(part, str) and part and part != "none")
        metrics[name] = row["value"]
        metrics |= {f"{name}_ci_low": row["ci_low"], f"{name}_ci_high": row["ci_high"]}
    return metrics | {
        "xai_n_item": scores["item_id"].nunique(),
        "xai_n_person": scores["person_id"].nunique(),
        "xai_n_nan": int(scores["score"].isna().sum()),
    }


def mprt_curves(files: StageFiles) -> pd.DataFrame:
    """Mean over items and models of the parameter-randomisation curves, by method and baseline."""
    curves = read_parquet(files.dep("data/digits/score/curves.parquet"))
    curves = curves[curves["curve"] == "mprt"]
    columns = ["cell", "protocol", "variant", "method", "baseline", "x"]
    means = curves.groupby(columns, sort=True, dropna=False)["y"].mean().reset_index()
    named = means["method"] + means["baseline"].map(
        lambda kind: "" if kind == "none" else f", {kind}"
    )
    means.insert(0, "series", named + means["cell"].radd(", ") + means["variant"].radd(", "))
    return means


def chance_metrics(adapter: DigitsAdapter, store: ArrayStore) -> dict[str, float]:
    """What a map without any knowledge reaches: the mean share of cells inside the truth."""
    if not adapter.data.truth:
        return {}
    rows = store.index.drop_duplicates(["cell", "item_id"])
    shares = []
    for cell, table in rows.groupby("cell", sort=True):
        key = CellKey(str(cell), "speaker", 0, 0)
        ids = tuple(table["item_id"])
        items = Items(ids, ids, (0,) * len(ids))
        shares.append(adapter.truth_masks(key, items)["cues"].double().mean())
    return {"xai_relevance_rank_accuracy_chance": float(np.mean(shares))}


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
        if key.fold or key.protocol != "speaker":
            continue
        items = adapter.items(key, "test")
        items = items.select(
            [items.ids.index(item_id) for item_id in dict.fromkeys(rows["item_id"])]
        )
        items = _one_per_class(items, params.study.report.n_examples)
        same = (predictions["fold"] == key.fold) & (predictions["model_seed"] == key.model_seed)
        chosen = predictions[same].set_index("item_id")
        masks = adapter.truth_masks(key, items).get("cues")
        result[f"attributions_{key.cell}_{key.variant}"] = Grid(
            axes=adapter.axes(key),
            inputs=adapter.inputs(key, items)[:, 0].numpy(),
            maps=_maps(store, rows, items.ids),
            masks=None if masks is None else masks[:, 0].numpy(),
            titles=[_title(adapter, chosen, item_id) for item_id in items.ids],
        )
    return result


def _maps(
    store: ArrayStore, rows: pd.DataFrame, item_ids: tuple[str, ...]
) -> dict[str, np.ndarray]:
    maps: dict[str, np.ndarray] = {}
    for (method, baseline), group in rows.groupby(["method", "baseline"], sort=False, dropna=False):
        label = (
            str(method)
            if not isinstance(baseline, str) or baseline in ("", "none")
            else f"{method}\n{baseline}"
        )
        at = dict(zip(group["item_id"], group.index, strict=True))
        maps[label] = np.stack([store[at[item_id]][0] for item_id in item_ids])
    return maps


def _one_per_class(items: Items, n_items: int) -> Items:
    """The first items whose classes differ, then the others."""
    first = [
        row for row, index in enumerate(items.class_index) if index not in items.class_index[:row]
    ]
    others = [row for row in range(len(items)) if row not in first]
    return items.select((first + others)[:n_items])


def _title(adapter: DigitsAdapter, predictions: pd.DataFrame, item_id: str) -> str:
    classes, row = adapter.data.classes, predictions.loc[item_id].to_dict()
    return f"{classes[row['class_index']]} → {classes[row['predicted']]} (p = {row['p_true']:.2f})"


def _bootstrap(params: StageParams[Params]) -> dict[str, Any]:
    section = params.study.report
    return {"seed": params.common.seed, "level": section.level, "n_resamples": section.n_resamples}


def _suffix(params: StageParams[Params], cell: str, protocol: str, variant: str) -> str:
    first = headline_cell(params)
    parts = ["" if cell == first else cell, "" if protocol == "speaker" else protocol]
    parts += ["" if variant == "trained" else variant]
    return "".join(f"_{part}" for part in parts if part)
