"""The image half of `digits`: from files of pictures to cells, splits and features."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from sonolens import pipeline
from sonolens.data import splits
from sonolens.params import Common, Runtime, StageParams
from sonolens.studies.digits import features, prepare_image
from sonolens.studies.digits.adapter import DigitsAdapter
from sonolens.studies.digits.datasets import Dataset
from sonolens.studies.digits.params import Params
from sonolens.track import Record

ROOT = Path(__file__).parents[2]


def params(**changes) -> StageParams[Params]:
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    return StageParams(
        Params(**values["digits"] | changes), Common(seed=0), Runtime(**values["runtime"])
    )


def prepare(root: Path, chosen: StageParams[Params]) -> dict:
    """Outputs of the stage below `root`; the report."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["digits"]["image_source"] = chosen.study.image_source
    shutil.copy(ROOT / "dvc.yaml", root)
    spec = pipeline.load_pipeline(root, values)["digits-prepare_image"]
    with pipeline.open_files(root, spec, "key") as files:
        prepare_image.run(chosen, files, Record())
        files.commit()
    return json.loads((root / "metrics/digits/prepare_image.json").read_text())


def test_forms_of_the_embedded_pictures_are_kept_apart(tmp_path):
    report = prepare(tmp_path, params())
    assert (report["n_item"], report["n_person"]) == (1797, 14)
    table = pd.read_parquet(tmp_path / "data/digits/prepare_image/manifest.parquet")
    form = table.set_index("item_id")["person_id"]
    folds = splits.read(tmp_path / "data/digits/prepare_image/splits.json")
    for fold in folds["person"]:
        parts = [set(form[list(ids)]) for ids in fold]
        assert not parts[0] & parts[2] and not parts[1] & parts[2] and not parts[0] & parts[1]
    assert set(form[list(folds["leaky"][0].test)]) & set(form[list(folds["leaky"][0].train)])
    assert {item for fold in folds["person"] for item in fold.test} == set(form.index)


def test_mnist_is_tested_on_its_official_part(tmp_path, make_mnist):
    make_mnist(tmp_path / "data/raw/mnist/recordings", {"t10k": 40, "train": 100})
    report = prepare(tmp_path, params(image_source="mnist"))
    assert (report["n_item"], report["n_person"]) == (140, None)
    (fold,) = splits.read(tmp_path / "data/digits/prepare_image/splits.json")["person"]
    assert len(fold.test) == 40
    assert all("/t10k_" in item_id for item_id in fold.test)
    data = Dataset(tmp_path)
    assert not data.items("image-16").has_persons
    with pytest.raises(ValueError, match=r"folds: 1, but protocol person of image-16 has folds 0 "):
        data.ids("image-16", "person", 1, "test")


def test_enlarged_pictures_equal_those_of_opencv():
    levels = np.random.default_rng(0).random((3, 8, 8))
    expected = [
        cv2.resize(one.astype(np.float32), (32, 32), interpolation=cv2.INTER_LINEAR)
        for one in levels
    ]
    np.testing.assert_allclose(features.resized(levels, 32)[:, 0], expected, atol=1e-5)


def test_reduced_pictures_equal_those_of_pillow():
    levels = np.random.default_rng(0).random((3, 28, 28))
    expected = [
        np.asarray(
            Image.fromarray(one.astype(np.float32)).resize((16, 16), Image.Resampling.BILINEAR)
        )
        for one in levels
    ]
    np.testing.assert_allclose(features.resized(levels, 16)[:, 0], expected, atol=1e-5)


def test_a_picture_has_neither_sound_nor_truth(tmp_path):
    prepare(tmp_path, params())
    adapter = DigitsAdapter(tmp_path, params().study, 0)
    from sonolens.explain.contract import CellKey

    key = CellKey("image-32", "person", 0, 0)
    items = adapter.items(key, "test")
    assert set(items.person_ids) <= {f"form{number:02d}" for number in range(14)}
    assert adapter.truth_masks(key, items) == {}
    assert adapter.listen(key, items.ids[0], None) is None
