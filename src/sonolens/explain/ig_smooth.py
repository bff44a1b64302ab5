"""Integrated gradients whose map is spread over the neighbouring cells of frequency and time.

A Gaussian of one cell removes the scatter of single cells, which neither listeners nor nets
resolve; the map's sum stays, its edges blur. The inner map is that of `integrated_gradients`, or
of `ig_noisefloor` where no number of steps is given.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from sonolens.dsp.blur import spread
from sonolens.explain import expected_gradients, integrated_gradients
from sonolens.explain.contract import Attribution, ExplainError, Target, grouped


def attribute(
    model: nn.Module,
    inputs: Tensor,
    target: Target,
    *,
    baseline: Tensor | None,
    item_seeds: Tensor,
    segments: Tensor | None = None,
    n_steps: int | None = 32,
    chunk_size: int = 32,
    smoothing_bins: float = 1.0,
) -> Attribution:
    """Smoothed integrated gradients.

    Parameters
    ----------
    model, inputs, target, baseline, item_seeds, segments
        See `contract.Method`; inputs (batch, [channel,] freq, time).
    n_steps
        Steps from each baseline; None: one for each draw of the baseline.
    chunk_size
        Path points per call of the model.
    smoothing_bins
        Standard deviation of the Gaussian in cells.

    Returns
    -------
    Attribution
        values (batch, *shape) in units of the target, with the completeness error.

    Raises
    ------
    ExplainError
        Inputs without two axes; what the inner method refuses.
    """
    if inputs.ndim < 3:
        raise ExplainError(
            f"ig_smooth: inputs {tuple(inputs.shape)}, need (batch, [channel,] freq, time)"
        )
    if n_steps is None:
        rough = expected_gradients.attribute(
            model,
            inputs,
            target,
            baseline=baseline,
            item_seeds=item_seeds,
            n_draws=None,
            chunk_size=chunk_size,
        )
    else:
        rough = integrated_gradients.attribute(
            model,
            inputs,
            target,
            baseline=baseline,
            item_seeds=item_seeds,
            n_steps=n_steps,
            chunk_size=chunk_size,
        )
    return replace(rough, values=grouped(spread(rough.values, smoothing_bins), segments))
