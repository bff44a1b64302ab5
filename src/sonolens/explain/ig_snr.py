"""Integrated gradients times the Wiener gain: what drowns in the recording's noise counts less.

The gain of a cell is max(0, 1 - N / P), P its power and N that of its band's noise floor, the 10 %
quantile over time. The map's sum is no longer F(x) - F(b): what is lost is the completeness error.

References
----------
Loizou, P. C. (2013). Speech enhancement, 2nd edition. CRC Press, section 6.2 (gain from the
estimated signal-to-noise ratio).
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from sonolens.explain import integrated_gradients
from sonolens.explain.baselines import floor_level
from sonolens.explain.contract import (
    Attribution,
    ExplainError,
    Target,
    completeness_error,
    grouped,
    require_baseline,
    target_change,
)


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
    db_per_unit: float = 80.0,
) -> Attribution:
    """Integrated gradients weighted by the signal-to-noise ratio.

    Parameters
    ----------
    model, inputs, target, baseline, item_seeds, segments
        See `contract.Method`; inputs are levels, their last axis is time.
    n_steps, chunk_size
        See `integrated_gradients`.
    db_per_unit
        dB in one unit of the inputs; 80 for (dB + 80) / 80.

    Returns
    -------
    Attribution
        values (batch, *shape) in units of the target. The completeness error holds the lost mass.

    Raises
    ------
    ExplainError
        What `integrated_gradients` refuses; db_per_unit not above 0.
    """
    if db_per_unit <= 0:
        raise ExplainError(f"ig_snr: db_per_unit {db_per_unit}, need more than 0")
    whole = integrated_gradients.attribute(
        model,
        inputs,
        target,
        baseline=baseline,
        item_seeds=item_seeds,
        n_steps=n_steps,
        chunk_size=chunk_size,
    )
    values = whole.values * wiener_gain(inputs.detach(), db_per_unit)
    starts = require_baseline(baseline, inputs, "ig_snr")
    change = target_change(model, inputs.detach(), starts, target, chunk_size)
    return replace(
        whole,
        values=grouped(values, segments),
        completeness_error=completeness_error(values, change),
        n_evaluations=whole.n_evaluations + starts.shape[1] + 1,
    )


def wiener_gain(inputs: Tensor, db_per_unit: float) -> Tensor:
    """max(0, 1 - N / P) of every cell (batch, *shape), in [0, 1]."""
    above_db = (inputs.double() - floor_level(inputs)) * db_per_unit
    return (1 - 10 ** (-above_db / 10)).clamp_min(0).to(inputs.dtype)
