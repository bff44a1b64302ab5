"""Trained classifiers to attribution maps, every method on the same items."""

from __future__ import annotations

from sonolens.explain import cells
from sonolens.explain.contract import CellKey
from sonolens.explain.registry import METHODS
from sonolens.explain.shards import Shards
from sonolens.params import StageParams
from sonolens.pipeline import StageFiles, scratch
from sonolens.studies.digits.adapter import DigitsAdapter
from sonolens.studies.digits.cells import by_cell
from sonolens.studies.digits.networks import UNTRAINED, model_keys
from sonolens.studies.digits.params import Params
from sonolens.track import Record


def run(params: StageParams[Params], files: StageFiles, record: Record) -> None:
    """Write the maps of every explained model."""
    section = params.study.explain
    cells.run_cells(
        DigitsAdapter(files.root, params.study, params.common.seed),
        explained_keys(params.study),
        methods=by_cell(params.study, section.methods),
        baselines=by_cell(params.study, section.baselines),
        options={
            "chunk_size": section.chunk_size,
        }
        | {name: {"n_steps": section.n_steps} for name in stepped()},
        n_items=section.n_items,
        part="test",
        seed=params.common.seed,
        runtime=params.runtime,
        shards=Shards(scratch(files.root, "shards")),
        out=files.out("data/digits/explain"),
    )


def stepped() -> list[str]:
    """Methods along a path with equal steps; a guided path needs more of them than others."""
    return [
        name
        for name, info in METHODS.items()
        if "n_steps" in info.options
        and name.startswith(("integrated_gradients", "ig_"))
        and name != "ig_guided"
    ]


def explained_keys(study: Params) -> list[CellKey]:
    """The trained models that are explained, and a control with random weights where asked for."""
    section = study.explain
    trained = [key for key in model_keys(study) if key.protocol in section.protocols]
    keys = [key for key in trained if key.variant in section.variants]
    if UNTRAINED in section.variants:
        keys += [CellKey(key.cell, key.protocol, key.fold, key.model_seed, UNTRAINED)
                 for key in trained if key.variant == "trained"]  # fmt: skip
    return keys
