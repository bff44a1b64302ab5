"""Integrated gradients along a fade-in: the recording played from silence to its own level.

Playing it g dB softer shifts every level by -g until it meets the floor, x(t) = max(x - D (1 - t),
b), so equal steps of t are equal steps in dB and no spectrum is computed anew. D is the distance of
the loudest cell from the floor: softer, nothing sounds and nothing changes. A cell gets exactly 0
until it emerges. The path is that of fading the waveform; in amplitude or power it is the same
curve, but uniform steps there miss most of it.

For inputs on a scale of levels (dB, any factor); levels are relative to the recording's own peak.

References
----------
Sundararajan, M., Taly, A., Yan, Q. (2017). Axiomatic attribution for deep networks. ICML, section
2, path methods; the path is ours.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sonolens.explain.contract import Attribution, Target, require_baseline
from sonolens.explain.paths import Curve, along_curves, check_steps


def attribute(
    model: nn.Module,
    inputs: Tensor,
    target: Target,
    *,
    baseline: Tensor | None,
    item_seeds: Tensor,
    segments: Tensor | None = None,
    n_steps: int = 32,
    chunk_size: int = 32,
) -> Attribution:
    """Integrated gradients along a fade-in.

    Parameters
    ----------
    model, inputs, target, baseline, item_seeds, segments
        See `contract.Method`; the baseline is the floor, the maps of several are averaged.
    n_steps
        Equal steps in dB.
    chunk_size
        Path points per call of the model.

    Returns
    -------
    Attribution
        values (batch, *shape) in units of the target, with the completeness error against
        F(x) - F(floor). Cells below the floor stay as they are and get 0.

    Raises
    ------
    ExplainError
        No or ill-shaped baseline; n_steps or chunk_size below 1.
    """
    check_steps("ig_gain", n_steps, chunk_size)
    inputs = inputs.detach()
    floors = require_baseline(baseline, inputs, "ig_gain").detach()
    curves = [
        [fade_in(item, floor) for floor in some] for item, some in zip(inputs, floors, strict=True)
    ]
    return along_curves(
        model, inputs, target, curves, n_steps=n_steps, chunk_size=chunk_size, segments=segments
    )


def fade_in(item: Tensor, floor: Tensor) -> Curve:
    """Path of an item (*shape) from its floor (*shape)."""
    item = item.double()
    lowest = torch.minimum(floor.double(), item)
    distance = (item - lowest).max()

    def curve(positions: Tensor) -> Tensor:
        softer = distance * (1 - positions).view(-1, *[1] * item.ndim)
        return torch.maximum(item - softer, lowest)

    return curve
