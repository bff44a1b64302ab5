"""The figures of `digits` that stand in summary.json and its tables."""

from __future__ import annotations

import numpy as np
import pandas as pd

from sonolens.data.corpora import registry
from sonolens.explain.contract import NO_BASELINE, CellKey, Items
from sonolens.params import StageParams
from sonolens.score import classification
from sonolens.score.tables import CELL_COLUMNS
from sonolens.store import ArrayStore
from sonolens.studies.digits.adapter import DigitsAdapter
from sonolens.studies.digits.cells import by_cell, first_cells, suffix_of
from sonolens.studies.digits.datasets import Dataset
from sonolens.studies.digits.headline import bootstrap_options, headline_cell
from sonolens.studies.digits.params import Params


def accuracies(
    params: StageParams[Params], predictions: pd.DataFrame, data: Dataset
) -> tuple[dict[str, float], pd.DataFrame]:
    """Summary metrics by level, cell, protocol and variant; and one row per fold of each."""
    options = bootstrap_options(params)
    metrics: dict[str, float] = {}
    for (cell, protocol, variant), table in predictions.groupby(CELL_COLUMNS, sort=True):
        suffix = _suffix(params, str(cell), str(protocol), str(variant))
        metrics[f"n_item{suffix}"] = table["item_id"].nunique()
        # Where nobody knows who made the items there is no figure of persons.
        has_persons = data.items(str(cell)).has_persons
        for level in ("person", "item") if has_persons else ("item",):
            interval = classification.accuracy(table, weight=level, **options)
            metrics |= interval.as_metrics(f"accuracy_{level}{suffix}")
        if has_persons:
            metrics[f"n_person{suffix}"] = interval.n_person
    for cell in first_cells(params.study):
        metrics[f"accuracy_chance{suffix_of(params.study, cell)}"] = 1 / len(
            data.items(cell).classes
        )
    # Speakers of one's own recordings are not named in files that git keeps.
    named = params.study.source in registry.NAMES
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
            | {"test_group": persons[0] if named and len(persons) == 1 else f"fold {key[3]}"}
            | {"n_person": len(persons), "n_item": len(table)}
            | {
                "accuracy": interval.value,
                "accuracy_ci_low": bounds[0],
                "accuracy_ci_high": bounds[1],
            }
        )
    return metrics, pd.DataFrame(rows)


def xai_metrics(
    params: StageParams[Params], table: pd.DataFrame, scores: pd.DataFrame
) -> dict[str, float]:
    """Rows of `score_table` under their summary names; the headline cell keeps the short one.

    Of several fills the first has the place: how fills differ is told by the table.
    """
    metrics: dict[str, float] = {}
    for row in with_first_fill(params, table).to_dict("records"):
        if row["protocol"] != "person":
            continue
        parts = ["xai", row["metric"], row["method"], row["baseline"]]
        parts += [row["cell"] if row["cell"] != headline_cell(params) else ""]
        parts += [row["variant"] if row["variant"] != "trained" else ""]
        name = "_".join(part for part in parts if isinstance(part, str) and part and part != "none")
        metrics[name] = row["value"]
        metrics |= {f"{name}_ci_low": row["ci_low"], f"{name}_ci_high": row["ci_high"]}
    return metrics | {
        "xai_n_item": scores["item_id"].nunique(),
        "xai_n_person": scores["person_id"].nunique(),
        "xai_n_nan": int(scores["score"].isna().sum()),
    }


def with_first_fill(params: StageParams[Params], table: pd.DataFrame) -> pd.DataFrame:
    """Rows of metrics that remove nothing, or put the first fill of their cell in its place."""
    fills = by_cell(params.study, params.study.score.fills)
    first = table["cell"].map({cell: names[0] for cell, names in fills.items()})
    return table[(table["fill"] == NO_BASELINE) | (table["fill"] == first)]


def chance_metrics(adapter: DigitsAdapter, store: ArrayStore) -> dict[str, float]:
    """What a map without any knowledge reaches: the mean share of cells inside the truth."""
    rows = store.index.drop_duplicates(["cell", "item_id"])
    shares = []
    for cell, table in rows.groupby("cell", sort=True):
        if not adapter.data.items(str(cell)).truth:
            continue
        key = CellKey(str(cell), "person", 0, 0)
        ids = tuple(table["item_id"])
        items = Items(ids, ids, (0,) * len(ids))
        shares.append(adapter.truth_masks(key, items)["cues"].double().mean())
    return {"xai_relevance_rank_accuracy_chance": float(np.mean(shares))} if shares else {}


def _suffix(params: StageParams[Params], cell: str, protocol: str, variant: str) -> str:
    first = headline_cell(params)
    parts = ["" if cell == first else cell, "" if protocol == "person" else protocol]
    parts += ["" if variant == "trained" else variant]
    return "".join(f"_{part}" for part in parts if part)
