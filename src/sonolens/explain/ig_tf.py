"""Integrated gradients of a waveform net, read on a time-frequency grid.

A virtual layer, an inverse STFT, is put in front of the net; the map is that of the coefficients Z
behind it, Re(dZ conj(G)) with G the gradient with respect to Z averaged along the line. For a
square root of a Hann window of N samples and a hop of N / 2 the windows' squares add up to c = 1,
and

    A = Re(STFT(w - b) conj(STFT(g))) / (N c),

with g the averaged gradient of the waveform: an FFT beside the usual integrated gradients, no more
calls of the net. A bin and its mirror are one cell. The sum of the map is that of the usual one,
F(w) - F(b) up to the steps' error.

References
----------
Vielhaben, J. et al. (2024). Explainable AI for time series via virtual inspection layers. Pattern
Recognition 150, section 3.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from sonolens.explain.contract import (
    Attribution,
    ExplainError,
    Target,
    completeness_error,
    require_baseline,
    target_change,
)
from sonolens.explain.integrated_gradients import gauss_legendre
from sonolens.explain.paths import check_steps, integrate


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
    win_length: int = 256,
) -> Attribution:
    """Time-frequency integrated gradients of a waveform net.

    Parameters
    ----------
    model, inputs, target, baseline, item_seeds
        See `contract.Method`; inputs (batch, [1,] time). The maps of K baselines are averaged.
    segments
        None: the map lives on other axes than the input.
    n_steps
        Steps from each baseline, Gauss-Legendre.
    chunk_size
        Path points per call of the model.
    win_length
        N, even, in samples; the hop is N / 2.

    Returns
    -------
    Attribution
        values (batch, freq, time), freq = N / 2 + 1 bins of sample_rate / N Hz, frame t centred on
        sample t N / 2; with the completeness error.

    Raises
    ------
    ExplainError
        Inputs are no waveforms, or segments are given; no or ill-shaped baseline; an odd
        win_length; n_steps or chunk_size below 1.
    """
    check_steps("ig_tf", n_steps, chunk_size)
    if inputs.ndim not in (2, 3) or (inputs.ndim == 3 and inputs.shape[1] != 1):
        raise ExplainError(
            f"ig_tf: inputs {tuple(inputs.shape)}, need waveforms (batch, [1,] time)"
        )
    if segments is not None:
        raise ExplainError("ig_tf: segments of the waveform; its map is on frequency and time")
    if win_length < 2 or win_length % 2:
        raise ExplainError(f"ig_tf: win_length {win_length}, need an even number of samples")
    inputs = inputs.detach()
    baselines = require_baseline(baseline, inputs, "ig_tf").detach()
    nodes, weights = (column.to(inputs.device) for column in gauss_legendre(n_steps))
    maps = []
    for item, (end, starts) in enumerate(zip(inputs, baselines, strict=True)):
        total: Tensor | float = 0.0
        for start in starts.double():
            line = end.double() - start

            def steps(
                numbers: Tensor, start: Tensor = start, line: Tensor = line
            ) -> tuple[Tensor, Tensor]:
                column = (-1, *[1] * line.ndim)
                shares = weights[numbers].view(column).expand(-1, *line.shape)
                return start + nodes[numbers].view(column) * line, shares

            mean_grad = integrate(model, end, target, item, steps, n_steps, chunk_size)
            total = total + relevance(line.flatten(), mean_grad.flatten(), win_length)
        assert isinstance(total, Tensor)
        maps.append(total / len(starts))
    n_draws = baselines.shape[1]
    values = torch.stack(maps)
    change = target_change(model, inputs, baselines, target, chunk_size)
    return Attribution(
        values.to(inputs.dtype),
        axes=("freq", "time"),
        completeness_error=completeness_error(values, change),
        n_evaluations=n_draws * (n_steps + 1) + 1,
    )


def relevance(difference: Tensor, gradient: Tensor, win_length: int) -> Tensor:
    """Product of a waveform and a gradient, both (time,), cell by cell; (freq, time).

    The sum is their scalar product.
    """
    both = frames_of(torch.stack([difference, gradient]), win_length)
    spectrum, grad = torch.fft.rfft(both, dim=2)
    product: Tensor = (spectrum * grad.conj()).real / win_length
    product[:, 1 : win_length // 2] *= 2  # the mirrored bins; c is 1
    return product.T


def frames_of(waveform: Tensor, win_length: int) -> Tensor:
    """Windowed frames (batch, frame, win_length) of (batch, time), hop win_length / 2.

    Zeros before and after, so that two frames cover every sample.
    """
    hop_length = win_length // 2
    n_hops = -(-waveform.shape[-1] // hop_length)
    padded: Tensor = functional.pad(
        waveform, (hop_length, (n_hops + 1) * hop_length - waveform.shape[-1])
    )
    window = torch.hann_window(win_length, dtype=waveform.dtype, device=waveform.device).sqrt()
    frames: Tensor = padded.unfold(-1, win_length, hop_length) * window
    return frames
