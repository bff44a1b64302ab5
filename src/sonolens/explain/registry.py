"""Names of the attribution methods; importing this file imports none of them."""

from __future__ import annotations

import importlib
from functools import partial

from sonolens.explain.contract import ExplainError, Method, MethodInfo, Relator
from sonolens.explain.options import look_up

_ROWS = (
    MethodInfo("saliency", "sonolens.explain.saliency"),
    MethodInfo(
        "integrated_gradients",
        "sonolens.explain.integrated_gradients",
        needs_baseline=True,
        options={"n_steps": 32, "chunk_size": 32},
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
    MethodInfo("random", "sonolens.explain.random_map", control=True),
    MethodInfo("energy", "sonolens.explain.energy", needs_baseline=True, control=True),
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

    return partial(fallback.relate, row.load())
