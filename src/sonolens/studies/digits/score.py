"""Attribution maps to scores, every metric against the same draws, truth and controls."""

from __future__ import annotations

from sonolens.params import StageParams
from sonolens.pipeline import StageFiles, scratch
from sonolens.score import cells
from sonolens.store import ArrayStore, write_parquet
from sonolens.studies.digits.adapter import DigitsAdapter
from sonolens.studies.digits.params import Params
from sonolens.track import NullRecord as Record


def run(params: StageParams[Params], files: StageFiles, record: Record) -> None:
    section, explain = params.study.score, params.study.explain
    faithfulness = {"n_coalitions": section.n_coalitions}
    scores, curves = cells.run_cells(
        DigitsAdapter(files.root, params.study, params.common.seed),
        ArrayStore(files.dep("data/digits/explain")),
        metrics=section.metrics,
        metric_options={
            "faithfulness_patch": faithfulness,
            "faithfulness_scattered": faithfulness,
            "average_sensitivity": {"n_draws": section.n_noise_draws, "radius": section.noise_radius},
        },
        method_options={"integrated_gradients": {"n_steps": explain.n_steps}},
        chunk_size=explain.chunk_size,
        n_items_costly=section.n_items_costly,
        seed=params.common.seed,
        runtime=params.runtime,
        scratch=scratch(files.root, "shards"),
    )
    write_parquet(files.out("data/digits/score/scores.parquet"), scores)
    write_parquet(files.out("data/digits/score/curves.parquet"), curves)
