"""Section `overview` of params.yaml."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sonolens.params import Section


class Report(Section):
    """Whose scores are compared, by which metrics and against what."""

    studies: list[str] = Field(min_length=1)
    protocol: str
    metrics: dict[str, Literal["higher", "lower"]] = Field(
        min_length=1, description="which end is better; the first is the one that is drawn"
    )
    energy: str = Field(description="the control that each method is tested against")
    controls: list[str] = Field(description="methods that explain nothing; ranked, not tested")
    n_resamples: int = Field(ge=100)
    level: float = Field(gt=0.5, lt=1)


class Params(Section):
    """All of `overview`."""

    report: Report
