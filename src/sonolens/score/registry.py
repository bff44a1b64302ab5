"""Names of the metrics; importing this file imports none of them."""

from __future__ import annotations

from sonolens.explain.options import look_up
from sonolens.score.contract import Metric, MetricInfo, ScoreError

_FAITHFULNESS = "sonolens.score.faithfulness_correlation"
_ROWS = (
    MetricInfo(
        "faithfulness_patch",
        _FAITHFULNESS,
        "higher",
        frozenset({"draws", "predict"}),
        options={"n_coalitions": 100, "n_patches": 8, "subset_size": 8, "batch_size": 64},
        fixed={"mode": "patch"},
    ),
    MetricInfo(
        "faithfulness_scattered",
        _FAITHFULNESS,
        "higher",
        frozenset({"draws", "predict"}),
        options={"n_coalitions": 100, "subset_size": 224, "batch_size": 64},
        fixed={"mode": "scattered"},
    ),
    MetricInfo(
        "average_sensitivity",
        "sonolens.score.average_sensitivity",
        "lower",
        frozenset({"draws", "explain"}),
        options={"n_noise_draws": 5, "noise_radius": 0.02},
    ),
    MetricInfo("sparseness", "sonolens.score.sparseness", "higher"),
    MetricInfo(
        "random_logit",
        "sonolens.score.random_logit",
        "lower",
        frozenset({"explain"}),
        options={"similarity": "ssim"},
    ),
    MetricInfo(
        "mprt",
        "sonolens.score.mprt",
        "lower",
        frozenset({"explain"}),
        options={"n_cascade_steps": 6},
    ),
    MetricInfo(
        "relevance_rank_accuracy",
        "sonolens.score.relevance_rank_accuracy",
        "higher",
        frozenset({"mask"}),
        options={"mask": None},
    ),
    MetricInfo(
        "relevance_mass_accuracy",
        "sonolens.score.relevance_mass_accuracy",
        "higher",
        frozenset({"mask"}),
        options={"mask": None},
    ),
    MetricInfo(
        "pointing_game",
        "sonolens.score.pointing_game",
        "higher",
        frozenset({"mask"}),
        options={"mask": None, "tolerance_cells": 0},
    ),
)
METRICS: dict[str, MetricInfo] = {row.name: row for row in _ROWS}


def info(name: str) -> MetricInfo:
    """Registry row of `name`. Raises ScoreError that proposes the nearest name."""
    return look_up(METRICS, "metric", name, ScoreError)


def load(name: str) -> Metric:
    """Import the metric called `name`. Raises ScoreError that proposes the nearest name."""
    return info(name).load()
