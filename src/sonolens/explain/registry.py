"""Names of the attribution methods; importing this file imports none of them."""

from __future__ import annotations

import importlib
from functools import partial

from sonolens.explain.contract import ExplainError, Method, MethodInfo, Relator
from sonolens.explain.options import look_up

_LINE = "sonolens.explain.integrated_gradients"
_STEPS = {"n_steps": 32, "chunk_size": 32}
_FLOOR_DRAWS = 32
_ROWS = (
    MethodInfo("saliency", "sonolens.explain.saliency"),
    MethodInfo(
        "integrated_gradients",
        _LINE,
        needs_baseline=True,
        options=_STEPS,
    ),
    MethodInfo(
        "guided_gradcam",
        "sonolens.explain.guided_gradcam",
        hooks=True,
        options={"layer": None, "interpolation": "bilinear"},
    ),
    MethodInfo("input_x_gradient", "sonolens.explain.input_x_gradient"),
    MethodInfo(
        "smoothgrad",
        "sonolens.explain.smoothgrad",
        options={"n_draws": 50, "noise_stdev": 0.1, "chunk_size": 32},
    ),
    MethodInfo(
        "gradient_shap",
        "sonolens.explain.expected_gradients",
        needs_baseline=True,
        options={"n_draws": 32, "noise_stdev": 0.0, "chunk_size": 32},
        fixed={"stratified": False},
    ),
    MethodInfo(
        "expected_gradients",
        "sonolens.explain.expected_gradients",
        needs_baseline=True,
        options={"n_draws": 32, "chunk_size": 32},
        fixed={"stratified": True, "noise_stdev": 0.0},
    ),
    MethodInfo(
        "deeplift",
        "sonolens.explain.deeplift",
        needs_baseline=True,
        hooks=True,
        options={"chunk_size": 32},
        fixed={"reference": "mean"},
    ),
    MethodInfo(
        "deeplift_shap",
        "sonolens.explain.deeplift",
        needs_baseline=True,
        hooks=True,
        options={"chunk_size": 32},
        fixed={"reference": "each"},
    ),
    MethodInfo("guided_backprop", "sonolens.explain.guided_backprop", hooks=True),
    *(
        MethodInfo(
            name,
            "sonolens.explain.cam",
            options={"layer": None, "interpolation": "bilinear", "relu": True},
            fixed={"weights": name},
        )
        for name in ("gradcam", "hirescam", "layercam")
    ),
    MethodInfo("fgsm", "sonolens.explain.fgsm", options={"epsilon": 0.01}),
    MethodInfo("edges", "sonolens.explain.edges", control=True),
    MethodInfo(
        "ig_silence",
        _LINE,
        needs_baseline=True,
        baselines=("silence",),
        options=_STEPS,
    ),
    MethodInfo(
        "ig_noisefloor",
        "sonolens.explain.expected_gradients",
        needs_baseline=True,
        baselines=("noise_floor",),
        n_baseline_draws=_FLOOR_DRAWS,
        options={"chunk_size": 32},
        fixed={"n_draws": None, "stratified": True, "noise_stdev": 0.0},
    ),
    MethodInfo(
        "ig_gain",
        "sonolens.explain.ig_gain",
        needs_baseline=True,
        baselines=("silence",),
        options=_STEPS,
    ),
    MethodInfo(
        "ig_tf",
        "sonolens.explain.ig_tf",
        needs_baseline=True,
        same_axes=False,
        baselines=("silence",),
        options=_STEPS | {"win_length": 256},
    ),
    *(
        MethodInfo(
            name,
            "sonolens.explain.ig_blur",
            options=_STEPS | {"sigma_max_bins": 12.0},
            fixed={"along": along},
        )
        for name, along in (("ig_blur_f", "freq"), ("ig_blur_t", "time"), ("ig_blur_ft", "both"))
    ),
    MethodInfo(
        "ig_band",
        _LINE,
        needs_baseline=True,
        baselines=("silence",),
        options=_STEPS | {"segmentation": "bark"},
    ),
    MethodInfo(
        "ig_smooth",
        "sonolens.explain.ig_smooth",
        needs_baseline=True,
        baselines=("silence",),
        options=_STEPS | {"smoothing_bins": 1.0},
    ),
    MethodInfo(
        "ig_smooth_noisefloor",
        "sonolens.explain.ig_smooth",
        needs_baseline=True,
        baselines=("noise_floor",),
        n_baseline_draws=_FLOOR_DRAWS,
        options={"chunk_size": 32, "smoothing_bins": 1.0},
        fixed={"n_steps": None},
    ),
    MethodInfo(
        "ig_guided",
        "sonolens.explain.ig_guided",
        needs_baseline=True,
        options={"n_steps": 64, "chunk_size": 32, "fraction": 0.25, "max_deviation": 0.02},
    ),
    MethodInfo(
        "ig_snr",
        "sonolens.explain.ig_snr",
        needs_baseline=True,
        baselines=("silence",),
        options=_STEPS | {"db_per_unit": 80.0},
    ),
    MethodInfo("random", "sonolens.explain.random_map", control=True),
    MethodInfo("energy", "sonolens.explain.energy", needs_baseline=True, control=True),
    MethodInfo(
        "occlusion",
        "sonolens.explain.occlusion",
        needs_baseline=True,
        options={"window": 5, "stride": 2, "chunk_size": 32},
    ),
    MethodInfo(
        "feature_ablation",
        "sonolens.explain.feature_ablation",
        needs_baseline=True,
        options={"segmentation": "patches", "chunk_size": 32},
    ),
    MethodInfo(
        "kernel_shap",
        "sonolens.explain.kernel_shap",
        needs_baseline=True,
        options={"segmentation": "patches", "n_samples": 256, "chunk_size": 32},
    ),
    MethodInfo(
        "permutation_shapley",
        "sonolens.explain.permutation_shapley",
        needs_baseline=True,
        options={"segmentation": "patches", "n_permutations": 4, "chunk_size": 32},
    ),
    MethodInfo(
        "lime",
        "sonolens.explain.lime",
        needs_baseline=True,
        options={
            "segmentation": "patches",
            "n_samples": 256,
            "kernel_width": 0.25,
            "alpha": 1.0,
            "chunk_size": 32,
        },
    ),
    MethodInfo(
        "rise",
        "sonolens.explain.rise",
        needs_baseline=True,
        options={"n_masks": 512, "grid_size": 7, "keep_probability": 0.5, "chunk_size": 32},
    ),
    MethodInfo(
        "meaningful_perturbation",
        "sonolens.explain.meaningful_perturbation",
        needs_baseline=True,
        options={
            "n_steps": 100,
            "learning_rate": 0.1,
            "mask_size": 16,
            "l1": 0.1,
            "tv": 0.2,
            "tv_beta": 3.0,
            "fill": "baseline",
            "blur_sigma_cells": 5.0,
            "jitter_cells": 0,
            "chunk_size": 32,
        },
    ),
)
METHODS: dict[str, MethodInfo] = {row.name: row for row in _ROWS}


def info(name: str) -> MethodInfo:
    """Registry row of `name`. Raises ExplainError that proposes the nearest name."""
    return look_up(METHODS, "method", name, ExplainError)


def load(name: str) -> Method:
    """Import the method called `name`. Raises ExplainError that proposes the nearest name."""
    return info(name).load()


def relate(name: str) -> Relator:
    """The method called `name` for all bins of a mask: its own `relate`, or the loop over bins.

    Raises ExplainError that proposes the nearest name.
    """
    row = info(name)
    if row.all_targets:
        own: Relator = importlib.import_module(row.module).relate
        return own
    from sonolens.explain import relate as fallback

    return partial(fallback.relate, row.load(), **row.fixed)
