"""Which models the bare figures of `digits` speak of, and how their intervals are made."""

from __future__ import annotations

from typing import Any

import pandas as pd

from sonolens.params import StageParams
from sonolens.studies.digits.datasets import cell_name
from sonolens.studies.digits.params import Params


def headline_cell(params: StageParams[Params]) -> str:
    """The first resolution."""
    return cell_name(params.study.features.sizes[0])


def headline(params: StageParams[Params], table: pd.DataFrame) -> pd.DataFrame:
    """Rows of the trained models of the first cell in the speaker protocol."""
    wanted = {"cell": headline_cell(params), "protocol": "speaker", "variant": "trained"}
    return table[(table[list(wanted)] == pd.Series(wanted)).all(axis=1)]


def bootstrap_options(params: StageParams[Params]) -> dict[str, Any]:
    """How intervals are made."""
    section = params.study.report
    return {"seed": params.common.seed, "level": section.level, "n_resamples": section.n_resamples}
