"""Pictures of digits to manifest, one store of pixels, and splits."""

from __future__ import annotations

import pandas as pd

from sonolens.data import pictures, splits
from sonolens.data.corpora import registry, sklearn_digits
from sonolens.data.corpora.contract import Picture
from sonolens.params import StageParams
from sonolens.pipeline import StageFiles
from sonolens.store import write_json, write_parquet
from sonolens.studies.digits.params import Params
from sonolens.track import Record

OUT = "data/digits/prepare_image"


def run(params: StageParams[Params], files: StageFiles, record: Record) -> None:
    """Write manifest, pixel store and splits."""
    section, source = params.study.prepare_image, params.study.image_source
    seed = params.common.seed
    info = registry.load(source).INFO
    table = pictures.build(_pictures(params, files), files.out(f"{OUT}/pixels"), source=source)
    write_parquet(files.out(f"{OUT}/manifest.parquet"), table)
    protocols = {
        "person": _person_folds(params, table),
        "leaky": splits.leaky_folds(table, section.n_folds, seed),
    }
    for protocol, folds in protocols.items():
        by_person = protocol == "person" and info.has_persons
        splits.check(folds, table, "person" if by_person else "item", protocol)
    splits.write(files.out(f"{OUT}/splits.json"), protocols)
    write_json(
        files.out("metrics/digits/prepare_image.json"), pictures.report(table, info.has_persons)
    )


def _pictures(params: StageParams[Params], files: StageFiles) -> list[Picture]:
    source = params.study.image_source
    if source == sklearn_digits.INFO.name:
        return sklearn_digits.pictures()
    folder = files.dep(f"data/raw/{source}") / "recordings"
    found: list[Picture] = registry.load(source).pictures(
        folder, partial=params.study.prepare_image.partial
    )
    return found


def _person_folds(params: StageParams[Params], table: pd.DataFrame) -> list[splits.Fold]:
    """By writer where the corpus tells; else its official test part, whose writers are others."""
    section, seed = params.study.prepare_image, params.common.seed
    if registry.load(params.study.image_source).INFO.official_split:
        return [splits.held_out_fold(table, table["is_test"], seed)]
    return splits.grouped_folds(table, section.n_folds, seed, "person")
