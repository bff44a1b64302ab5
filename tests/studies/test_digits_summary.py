"""Names and values of the study's figures on tables made by hand: two cells, seeds and variants."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from sonolens.params import Common, Runtime, StageParams
from sonolens.score import tables
from sonolens.studies.digits import headline, summary
from sonolens.studies.digits.networks import model_keys
from sonolens.studies.digits.params import Params

VALUES = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text())
PERSONS, N_ITEMS = ("ann", "bob", "cid"), 4


def params(source: str = "formant_words", **train) -> StageParams[Params]:
    values = VALUES["digits"] | {"source": source}
    values["features"] = values["features"] | {"sizes": {"audio": [64, 32], "image": []}}
    values["train"] = values["train"] | train
    return StageParams(Params(**values), Common(seed=0), Runtime(**VALUES["runtime"]))


class Data:
    """Of a Dataset what the summary asks: who is known, and the classes."""

    def __init__(self, has_persons: bool = True) -> None:
        self.has_persons, self.classes = has_persons, ("a", "b")

    def items(self, cell: str) -> "Data":
        return self


def predictions() -> pd.DataFrame:
    """Of audio-64 trained, seed 0 is always right, seed 1 for ann alone; all others wrong."""
    rows = [
        {
            "cell": cell, "protocol": "person", "fold": fold, "model_seed": seed,
            "variant": variant, "item_id": f"{person}{item}", "person_id": person,
            "class_index": item % 2,
            "predicted": item % 2
            if cell == "audio-64" and variant == "trained" and (seed == 0 or person == "ann")
            else 1 - item % 2,
        }
        for cell in ("audio-32", "audio-64")
        for variant in ("trained", "permuted")
        for seed in (0, 1)
        for fold, person in enumerate(PERSONS)
        for item in range(N_ITEMS)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def scores() -> pd.DataFrame:
    table = predictions()
    right = (table["class_index"] == table["predicted"]).astype(float)
    table = table.assign(
        method="saliency", baseline="none", metric="sparseness", fill="none", metric_params="{}",
        score=right,
    )  # fmt: skip
    table.loc[table["item_id"] == "bob0", "score"] = np.nan
    return table


def test_headline_names_are_bare_and_others_say_what_they_are():
    metrics, _ = summary.accuracies(params(), predictions(), Data())
    assert metrics["accuracy_person"] == pytest.approx((1 + 0.5 + 0.5) / 3)
    for name in ("audio-32", "permuted", "audio-32_permuted"):
        assert metrics[f"accuracy_person_{name}"] == 0
    assert metrics["accuracy_chance"] == 0.5


def test_nothing_is_said_of_persons_whom_nobody_knows():
    metrics, _ = summary.accuracies(params(), predictions(), Data(has_persons=False))
    assert {"accuracy_item", "n_item", "accuracy_item_audio-32"} <= set(metrics)
    assert not [name for name in metrics if "person" in name]


def test_items_are_counted_once_however_many_seeds():
    metrics, _ = summary.accuracies(params(), predictions(), Data())
    assert (metrics["n_item"], metrics["n_person"]) == (12, 3)
    table = tables.score_table(scores(), **headline.bootstrap_options(params()))
    row = table.query("cell == 'audio-64' and variant == 'trained'").iloc[0]
    assert (row["n_item"], row["n_score"], row["n_nan"], row["n_person"]) == (12, 22, 2, 3)


def test_a_fold_of_one_person_has_an_interval_over_its_items():
    _, folds = summary.accuracies(params("fsdd"), predictions(), Data())
    row = folds.query("cell == 'audio-64' and variant == 'trained' and fold == 0").iloc[0]
    assert (row["test_group"], row["n_person"], row["n_item"]) == ("ann", 1, 4)
    assert row["accuracy_ci_low"] < row["accuracy"] == 1 <= row["accuracy_ci_high"] + 1e-9


def test_persons_of_own_recordings_are_not_named():
    _, folds = summary.accuracies(params("my_words"), predictions(), Data())
    assert set(folds["test_group"]) == {"fold 0", "fold 1", "fold 2"}


def test_score_names_follow_the_same_grammar():
    table = tables.score_table(scores(), **headline.bootstrap_options(params()))
    metrics = summary.xai_metrics(params(), table, scores())
    names = {name for name in metrics if "_ci_" not in name and not name.startswith("xai_n_")}
    assert names == {
        "xai_sparseness_saliency",
        "xai_sparseness_saliency_audio-32",
        "xai_sparseness_saliency_permuted",
        "xai_sparseness_saliency_audio-32_permuted",
    }


def test_of_several_fills_the_first_stands_in_the_summary():
    table = scores().assign(metric="faithfulness_patch", fill="silence")
    other = table.assign(fill="legacy_zero", score=-1.0)
    both = tables.score_table(pd.concat([other, table]), **headline.bootstrap_options(params()))
    assert len(both) == 2 * len(summary.with_first_fill(params(), both))
    metrics = summary.xai_metrics(params(), both, table)
    assert metrics["xai_faithfulness_patch_saliency"] > 0


def test_seed_table_keeps_seeds_apart():
    table = tables.seed_table(scores())
    own = table.query("cell == 'audio-64' and variant == 'trained'").set_index("model_seed")
    assert own.loc[0, "value"] == 1
    assert own.loc[1, "value"] == pytest.approx(4 / 11)


def test_controls_are_trained_once_and_the_headline_with_every_seed():
    keys = model_keys(params(folds=[0, 1], model_seeds=[0, 1, 2]).study)
    counts = pd.Series([(key.protocol, key.variant) for key in keys]).value_counts()
    assert counts["person", "trained"] == 2 * 2 * 3
    assert counts["person", "permuted"] == counts["leaky", "trained"] == 2 * 2
    assert ("leaky", "permuted") not in counts
    assert len(set(keys)) == len(keys)


def test_each_modality_has_its_cells():
    values = VALUES["digits"] | {"image_source": "mnist"}
    values["features"] = values["features"] | {"sizes": {"audio": [32], "image": [16, 32]}}
    values["train"] = values["train"] | {"folds": [0, 1]}
    keys = model_keys(Params(**values))
    folds = {cell: {key.fold for key in keys if key.cell == cell} for cell in ("audio-32",)}
    assert list(dict.fromkeys(key.cell for key in keys)) == ["audio-32", "image-16", "image-32"]
    assert folds["audio-32"] == {0, 1}
    assert {key.fold for key in keys if key.cell == "image-16"} == {0}  # its one official part


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_source": "fsdd"}, "image_source: 'fsdd' is no corpus of the modality image"),
        ({"image_source": "mine"}, "need one of mnist, sklearn_digits"),
        ({"source": "mnist"}, "source: 'mnist' is no corpus of the modality audio"),
    ],
)
def test_sources_belong_to_a_modality(changes, message):
    with pytest.raises(ValueError, match=message):
        Params(**VALUES["digits"] | changes)


def test_one_modality_has_to_stay():
    values = VALUES["digits"]["features"] | {"sizes": {"audio": [], "image": []}}
    with pytest.raises(ValueError, match=r"features\.sizes: no size"):
        Params(**VALUES["digits"] | {"features": values})


def test_only_trained_models_can_be_explained():
    values = VALUES["digits"] | {"train": VALUES["digits"]["train"] | {"protocols": ["leaky"]}}
    with pytest.raises(ValueError, match=r"explain\.protocols: person is not among"):
        Params(**values)
