"""Attribution maps to scores, every metric against the same draws, truth and controls."""

from __future__ import annotations

from sonolens.explain.shards import Shards
from sonolens.params import StageParams
from sonolens.pipeline import StageFiles, scratch
from sonolens.score import cells
from sonolens.store import ArrayStore, write_parquet
from sonolens.studies.digits.adapter import DigitsAdapter
from sonolens.studies.digits.cells import by_cell
from sonolens.studies.digits.params import Params
from sonolens.track import Record


def run(params: StageParams[Params], files: StageFiles, record: Record) -> None:
    """Write the scores and curves of every map."""
    section = params.study.score
    tables = cells.run_cells(
        DigitsAdapter(files.root, params.study, params.common.seed),
        ArrayStore(files.dep("data/digits/explain")),
        metrics=section.metrics,
        options={
            "n_coalitions": section.n_coalitions,
            "n_noise_draws": section.n_noise_draws,
            "noise_radius": section.noise_radius,
        },
        n_items_costly=section.n_items_costly,
        seed=params.common.seed,
        runtime=params.runtime,
        shards=Shards(scratch(files.root, "shards")),
        fills=by_cell(params.study, section.fills),
    )
    write_parquet(files.out("data/digits/score/scores.parquet"), tables.scores)
    write_parquet(files.out("data/digits/score/curves.parquet"), tables.curves)
