"""Names of the metrics; importing this file imports none of them."""

from __future__ import annotations

from typing import Any

from sonolens.explain.options import look_up
from sonolens.score.contract import Direction, Metric, MetricInfo, ScoreError

_FAITHFULNESS = "sonolens.score.faithfulness_correlation"
_SENSITIVITY = "sonolens.score.average_sensitivity"
_RANDOM_LOGIT = "sonolens.score.random_logit"
_CURVES = "sonolens.score.insertion_deletion"
_SEGMENT = "sonolens.score.segment_share"
_RESYNTHESIS = "sonolens.score.resynthesis"
_COMPAT: dict[str, Any] = {"compat": None}
_COMPAT_DRAWS = _COMPAT | {"legacy_seed": None}
_COALITIONS = {"n_coalitions": 100, "n_patches": 8, "subset_size": 8, "batch_size": 64}
_CURVE_ROWS: tuple[tuple[str, Direction], ...] = (("insertion", "higher"), ("deletion", "lower"))
_RESYNTHESIS_ROWS: tuple[tuple[str, Direction, str], ...] = (
    ("average_increase", "higher", "increase"),
    ("average_drop", "lower", "drop"),
    ("average_gain", "higher", "gain"),
    ("faithfulness_fidelity", "higher", "faithfulness"),
    ("fidelity_in", "higher", "fidelity"),
)
_ROWS = (
    MetricInfo(
        "faithfulness_patch",
        _FAITHFULNESS,
        "higher",
        frozenset({"draws", "predict"}),
        options=_COALITIONS,
        fixed={"mode": "patch"},
    ),
    MetricInfo(
        "faithfulness_scattered",
        _FAITHFULNESS,
        "higher",
        frozenset({"draws", "predict"}),
        options={"n_coalitions": 100, "subset_size": 224, "batch_size": 64} | _COMPAT_DRAWS,
        fixed={"mode": "scattered"},
    ),
    MetricInfo(
        "infidelity",
        "sonolens.score.infidelity",
        "lower",
        frozenset({"draws", "predict"}),
        options=_COALITIONS | {"multiplied_by_inputs": True},
    ),
    *(
        MetricInfo(
            mode,
            _CURVES,
            direction,
            frozenset({"draws", "predict"}),
            options={"unit": "patches", "n_patches": 8, "n_steps": 32, "batch_size": 64},
            fixed={"mode": mode},
        )
        for mode, direction in _CURVE_ROWS
    ),
    *(
        MetricInfo(
            f"{name}_sensitivity",
            _SENSITIVITY,
            "lower",
            frozenset({"draws", "explain"}),
            options={"n_noise_draws": 5, "noise_radius": 0.02} | _COMPAT_DRAWS,
            fixed={"reduce": reduce},
        )
        for name, reduce in (("average", "mean"), ("max", "max"))
    ),
    MetricInfo("sparseness", "sonolens.score.sparseness", "higher", options=_COMPAT),
    MetricInfo("complexity", "sonolens.score.complexity", "lower", options=_COMPAT),
    MetricInfo(
        "effective_complexity",
        "sonolens.score.effective_complexity",
        "lower",
        options={"threshold": 1e-5} | _COMPAT,
    ),
    MetricInfo("energy_correlation", "sonolens.score.energy_correlation", "none"),
    MetricInfo(
        "random_logit",
        _RANDOM_LOGIT,
        "lower",
        frozenset({"explain"}),
        options={"similarity": "ssim"} | _COMPAT,
    ),
    MetricInfo(
        "class_specificity",
        _RANDOM_LOGIT,
        "lower",
        frozenset({"explain"}),
        fixed={"similarity": "cosine"},
    ),
    MetricInfo(
        "mprt",
        "sonolens.score.mprt",
        "lower",
        frozenset({"explain"}),
        options={"n_cascade_steps": 6} | _COMPAT,
    ),
    MetricInfo(
        "smooth_mprt",
        "sonolens.score.smooth_mprt",
        "lower",
        frozenset({"draws", "explain"}),
        options={"n_cascade_steps": 6, "n_smooth_draws": 50, "noise_share": 0.1} | _COMPAT_DRAWS,
    ),
    MetricInfo(
        "efficient_mprt",
        "sonolens.score.efficient_mprt",
        "higher",
        frozenset({"explain"}),
        options={"n_bins": 100} | _COMPAT,
    ),
    MetricInfo(
        "relevance_rank_accuracy",
        "sonolens.score.relevance_rank_accuracy",
        "higher",
        frozenset({"mask"}),
        options={"mask": None} | _COMPAT,
    ),
    MetricInfo(
        "relevance_mass_accuracy",
        "sonolens.score.relevance_mass_accuracy",
        "higher",
        frozenset({"mask"}),
        options={"mask": None} | _COMPAT,
    ),
    MetricInfo(
        "pointing_game",
        "sonolens.score.pointing_game",
        "higher",
        frozenset({"mask"}),
        options={"mask": None, "tolerance_cells": 0},
    ),
    *(
        MetricInfo(
            name,
            _RESYNTHESIS,
            direction,
            frozenset({"audio", "predict"}),
            fixed={"quantity": quantity},
        )
        for name, direction, quantity in _RESYNTHESIS_ROWS
    ),
    MetricInfo(
        "harmonic_consistency",
        "sonolens.score.harmonic_consistency",
        "higher",
        frozenset({"audio"}),
        options={"f0_min_hz": 65.0, "f0_max_hz": 500.0, "n_harmonics": 20},
    ),
    MetricInfo(
        "temporal_coherence", "sonolens.score.temporal_coherence", "none", frozenset({"time"})
    ),
    *(
        MetricInfo(
            f"{segment}_share",
            _SEGMENT,
            "none",
            frozenset({"time"}),
            options={"floor_share": 0.1, "top_share": 0.9},
            fixed={"segment": segment},
        )
        for segment in ("onset", "steady", "decay")
    ),
)
METRICS: dict[str, MetricInfo] = {row.name: row for row in _ROWS}


def info(name: str) -> MetricInfo:
    """Registry row of `name`. Raises ScoreError that proposes the nearest name."""
    return look_up(METRICS, "metric", name, ScoreError)


def load(name: str) -> Metric:
    """Import the metric called `name`. Raises ScoreError that proposes the nearest name."""
    return info(name).load()
