"""Blur integrated gradients: from a blurred recording to the sharp one, no baseline.

x(t) = G_{sigma (1 - t)} * x, the Gaussian along frequency (spectral shape), time (timing) or both;
A = sum dF/dx(middle of the step) * change in the step. The sum is F(x) - F(blurred x), not the
distance from silence: it says what the detail is worth, so the sums along frequency and along time
can be compared.

References
----------
Xu, S., Venugopalan, S., Sundararajan, M. (2020). Attribution in scale and space. CVPR, equation 4.
Differs: one axis alone is possible, the kernel is cut and normalised at the borders.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from sonolens.dsp.blur import gaussian_matrix
from sonolens.explain.contract import Attribution, ExplainError, Target
from sonolens.explain.paths import Curve, along_curves, check_steps

Along = Literal["freq", "time", "both"]


def attribute(
    model: nn.Module,
    inputs: Tensor,
    target: Target,
    *,
    baseline: Tensor | None,
    item_seeds: Tensor,
    segments: Tensor | None = None,
    along: Along = "both",
    sigma_max_bins: float = 12.0,
    n_steps: int = 32,
    chunk_size: int = 32,
) -> Attribution:
    """Blur integrated gradients.

    Parameters
    ----------
    model, inputs, target, baseline, item_seeds, segments
        See `contract.Method`; inputs (batch, [channel,] freq, time), the baseline is not read.
    along
        Axes that are blurred.
    sigma_max_bins
        Standard deviation at the start, in cells.
    n_steps
        Equal steps of the standard deviation.
    chunk_size
        Path points per call of the model.

    Returns
    -------
    Attribution
        values (batch, *shape) in units of the target, with the completeness error against
        F(x) - F(blurred x).

    Raises
    ------
    ExplainError
        Inputs without two axes; n_steps or chunk_size below 1.
    """
    check_steps("ig_blur", n_steps, chunk_size)
    if inputs.ndim < 3:
        raise ExplainError(
            f"ig_blur: inputs {tuple(inputs.shape)}, need (batch, [channel,] freq, time)"
        )
    inputs = inputs.detach()
    curves = [[sharpen(item, along, sigma_max_bins)] for item in inputs]
    return along_curves(
        model, inputs, target, curves, n_steps=n_steps, chunk_size=chunk_size, segments=segments
    )


def sharpen(item: Tensor, along: Along, sigma_max_bins: float) -> Curve:
    """Path of an item ([channel,] freq, time) from its blurred copy."""
    item = item.double()

    def curve(positions: Tensor) -> Tensor:
        sigma = sigma_max_bins * (1 - positions)
        points = item.expand(len(positions), *item.shape)
        extra = [1] * (item.ndim - 2)
        n_freq, n_time = item.shape[-2:]
        if along != "time":
            matrix = gaussian_matrix(n_freq, sigma)
            points = matrix.view(-1, *extra, n_freq, n_freq) @ points
        if along != "freq":
            matrix = gaussian_matrix(n_time, sigma).transpose(1, 2)
            points = points @ matrix.reshape(-1, *extra, n_time, n_time)
        return points

    return curve
