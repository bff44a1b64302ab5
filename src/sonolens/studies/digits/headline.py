"""Which models the bare figures of `digits` speak of."""

from __future__ import annotations

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
