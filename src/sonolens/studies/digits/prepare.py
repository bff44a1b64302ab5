"""Recordings to manifest, one mono audio store, splits and truth."""

from __future__ import annotations

import pandas as pd

from sonolens.data import manifest, splits
from sonolens.data.corpora import formant_words, registry
from sonolens.data.corpora.contract import Recording
from sonolens.dsp.regions import TRACK_COLUMNS
from sonolens.params import StageParams
from sonolens.pipeline import StageFiles
from sonolens.store import write_json, write_parquet
from sonolens.studies.digits.params import Params
from sonolens.track import Record

OUT = "data/digits/prepare"


def run(params: StageParams[Params], files: StageFiles, record: Record) -> None:
    """Write manifest, audio store, truth and splits."""
    section, seed = params.study.prepare, params.common.seed
    found, tracks = _recordings(params, files)
    table = manifest.build(
        found, files.out(f"{OUT}/audio"), sample_rate=section.sample_rate,
        on_bad_file=section.on_bad_file, source=params.study.source, partial=section.partial,
    )  # fmt: skip
    write_parquet(files.out(f"{OUT}/manifest.parquet"), table)
    owner = table.set_index("recording_id")["item_id"]
    tracks["item_id"] = tracks.pop("recording_id").map(owner)
    write_parquet(
        files.out(f"{OUT}/truth.parquet"), tracks.sort_values(["item_id", "component", "time_s"])
    )
    units: dict[splits.ValUnit, splits.CheckUnit] = {"person": "person", "item": "test_person"}
    protocols = {
        "person": _speaker_folds(params, table),
        "leaky": splits.leaky_folds(table, section.n_folds, seed),
    }
    for protocol, folds in protocols.items():
        splits.check(
            folds, table, "item" if protocol == "leaky" else units[section.val_unit], protocol
        )
    splits.write(files.out(f"{OUT}/splits.json"), protocols)
    write_json(files.out("metrics/digits/prepare.json"), manifest.report(table))


def _recordings(
    params: StageParams[Params], files: StageFiles
) -> tuple[list[Recording], pd.DataFrame]:
    source, section = params.study.source, params.study.prepare
    if source == formant_words.INFO.name:
        words = section.formant_words
        return formant_words.recordings(
            words.n_speakers, words.n_repetitions, words.snr_db, params.common.seed
        )
    folder = files.dep(f"data/raw/{source}") / "recordings"
    found = registry.load(source).recordings(folder, task=section.task, partial=section.partial)
    return found, pd.DataFrame(columns=["recording_id", *TRACK_COLUMNS])


def _speaker_folds(params: StageParams[Params], table: pd.DataFrame) -> list[splits.Fold]:
    section = params.study.prepare
    corpus = registry.load(params.study.source)
    if section.speaker_folds == "published" and hasattr(corpus, "published_blocks"):
        return splits.published_folds(table, corpus.published_blocks(section.task))
    return splits.grouped_folds(table, section.n_folds, params.common.seed, section.val_unit)
