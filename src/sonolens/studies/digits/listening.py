"""What the listening page of `digits` lets one hear."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import torch

from sonolens import rng
from sonolens.explain import registry
from sonolens.explain.contract import CellKey, map_of
from sonolens.intervene import versions
from sonolens.intervene.spectral import top_share
from sonolens.params import StageParams
from sonolens.report.listening import Clip
from sonolens.score.tables import method_label
from sonolens.store import ArrayStore
from sonolens.studies.digits.adapter import DigitsAdapter
from sonolens.studies.digits.cells import AUDIO, modality_of, size_of
from sonolens.studies.digits.front_end import front_end
from sonolens.studies.digits.params import Params
from sonolens.studies.digits.pictures import one_per_class

TITLE = "What the model listens to"
PREFERRED = "integrated_gradients"


@dataclass(frozen=True)
class Audible:
    """Maps of one model by one method with one baseline; `rows` of the index of maps."""

    key: CellKey
    method: str
    baseline: str
    rows: pd.DataFrame

    @property
    def label(self) -> str:
        return method_label(self.method, self.baseline)


def audible(params: StageParams[Params], store: ArrayStore) -> Audible | None:
    """The maps that are made audible; None where no sound is explained.

    Those of the first model of sounds, by integrated gradients if asked for, else by the first
    method that is no control, else by the first; with its first baseline.
    """
    rows = store.index[[modality_of(str(cell)) == AUDIO for cell in store.index["cell"]]]
    if rows.empty:
        return None
    first = rows.iloc[0]
    key = CellKey(
        str(first["cell"]), str(first["protocol"]), int(first["fold"]), int(first["model_seed"]),
        str(first["variant"]),
    )  # fmt: skip
    rows = rows[(rows[list(key.as_row())] == pd.Series(key.as_row())).all(axis=1)]
    methods = list(dict.fromkeys(rows["method"]))
    method = min(methods, key=lambda name: (name != PREFERRED, registry.info(name).control))
    rows = rows[rows["method"] == method]
    baseline = rows["baseline"].iloc[0]
    return Audible(key, method, str(baseline), rows[rows["baseline"] == baseline])


def clips(
    params: StageParams[Params],
    adapter: DigitsAdapter,
    store: ArrayStore,
    maps: Audible,
    scores: pd.DataFrame,
) -> list[Clip]:
    """The items that the pictures show, too; the model is asked about every version of each."""
    key = maps.key
    items = adapter.items(key, "test").named(list(maps.rows["item_id"]))
    items = one_per_class(items, params.study.report.n_examples)
    model, mel = adapter.load(key), front_end(params.study, size_of(key.cell))
    ask = versions.asking(model, mel)
    inputs = adapter.inputs(key, items)
    truth = adapter.truth_masks(key, items).get("cues")
    row_of = dict(zip(maps.rows["item_id"], maps.rows.index, strict=True))
    prepared = adapter.data.items(key.cell)
    own = scores[(scores["method"] == maps.method) & (scores["baseline"] == maps.baseline)]
    own = own[(own[list(key.as_row())] == pd.Series(key.as_row())).all(axis=1)]
    result = []
    for row, item_id in enumerate(items.ids):
        values = torch.tensor(map_of(store, row_of[item_id])[0])
        heard = versions.make(
            adapter.window(key, item_id), top_share(values), mel, ask,
            rng.seed_for(params.common.seed, item_id, "listening"),
        )  # fmt: skip
        item = prepared.manifest.loc[item_id]
        result.append(
            Clip(
                title=f"{item['label']}, spoken by {item['person_id']}",
                sample_rate=mel.sample_rate,
                versions=heard,
                classes=prepared.classes,
                explained=int(heard[0].probabilities.argmax()),
                axes=adapter.axes(key),
                inputs=inputs[row, 0].numpy(),
                attribution=values.numpy(),
                method=maps.label,
                truth=None if truth is None else truth[row, 0].numpy(),
                facts={"Item": item_id, "Label": str(item["label"])},
                scores=_scores(own[own["item_id"] == item_id]),
            )
        )
    return result


def _scores(rows: pd.DataFrame) -> dict[str, float]:
    means = rows.groupby("metric", sort=True)["score"].mean()
    return {str(metric): float(value) for metric, value in means.items()}


def about(adapter: DigitsAdapter, maps: Audible, n_clips: int) -> list[str]:
    """What the page says of its clips."""
    key = maps.key
    corpus = adapter.data.items(key.cell).manifest["corpus"].iloc[0]
    n_items = maps.rows["item_id"].nunique()
    return [
        f"{n_clips} of {n_items} explained recordings of the corpus {corpus}, by speakers the "
        "model was not trained on; the first of each class, not the best.",
        f"Model {key.name}; maps by {maps.label.replace('_', ' ')}.",
    ]
