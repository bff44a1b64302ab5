"""Which models the bare figures of `digits` speak of, and how their intervals are made."""

from __future__ import annotations

from typing import Any

import pandas as pd

from sonolens.params import StageParams
from sonolens.studies.digits.cells import cell_names
from sonolens.studies.digits.params import Params


def headline_cell(params: StageParams[Params]) -> str:
    """The first cell: the first size of the sounds."""
    return cell_names(params.study)[0]


def headline(
    params: StageParams[Params], table: pd.DataFrame, cell: str | None = None
) -> pd.DataFrame:
    """Rows of the trained models of a cell, by default the first, in the person protocol."""
    wanted = {
        "cell": cell or headline_cell(params),
        "protocol": "person",
        "variant": "trained",
    }
    return table[(table[list(wanted)] == pd.Series(wanted)).all(axis=1)]


def bootstrap_options(params: StageParams[Params]) -> dict[str, Any]:
    """How intervals are made."""
    section = params.study.report
    return {"seed": params.common.seed, "level": section.level, "n_resamples": section.n_resamples}
