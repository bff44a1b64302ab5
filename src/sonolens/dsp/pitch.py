"""Fundamental frequency by YIN, steps 2 to 5, on frames that are centred as those of the STFT.

References
----------
de Cheveigne, A., Kawahara, H. (2002). YIN, a fundamental frequency estimator for speech and music.
JASA 111(4), 1917-1930, equations 6 and 8.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

THRESHOLD = 0.15


def yin(
    waveform: Tensor, sample_rate: int, hop_length: int, f0_min_hz: float, f0_max_hz: float
) -> Tensor:
    """Fundamental frequency of each frame.

    Parameters
    ----------
    waveform, shape=(batch, time)
        Sound.
    sample_rate, hop_length
        In Hz, and samples between frames; frame t is centred on sample t * hop_length.
    f0_min_hz, f0_max_hz
        Range of the search. A frame holds two periods of the lowest.

    Returns
    -------
    Tensor, shape=(batch, 1 + time // hop_length), Hz, float64
        NaN where no period explains the frame: the normalised difference stays above 0.15.
    """
    longest = math.ceil(sample_rate / f0_min_hz)
    shortest = max(2, math.floor(sample_rate / f0_max_hz))
    width = 2 * longest
    n_frames = 1 + waveform.shape[-1] // hop_length
    padded = functional.pad(waveform.double(), (width // 2, width // 2 + width))
    frames = padded.unfold(-1, width, hop_length)[:, :n_frames]
    # d(lag) over a window of `longest` samples, by FFT
    window, n_fft = frames[..., :longest], 2 * width
    spectra = torch.fft.rfft(frames, n_fft) * torch.fft.rfft(window, n_fft).conj()
    product = torch.fft.irfft(spectra, n_fft)[..., : longest + 1]
    squares = functional.pad(frames.square().cumsum(-1), (1, 0))
    energy = squares[..., longest:] - squares[..., : longest + 1]
    difference = (energy[..., :1] + energy - 2 * product).clamp_min(0)[..., 1:]
    lags = torch.arange(1, longest + 1, dtype=torch.float64, device=waveform.device)
    normalised = difference * lags / difference.cumsum(-1).clamp_min(1e-300)
    silent = energy[..., 0] <= 1e-12
    inner = normalised[..., shortest - 1 : -1]
    left, right = normalised[..., shortest - 2 : -2], normalised[..., shortest:]
    dips = (inner < THRESHOLD) & (inner <= left) & (inner <= right)
    first = dips.double().argmax(-1, keepdim=True)
    low, middle, high = (values.gather(-1, first)[..., 0] for values in (left, inner, right))
    bend = low - 2 * middle + high
    shift = torch.where(bend > 0, (low - high) / (2 * bend).clamp_min(1e-300), 0.0).clamp(-1, 1)
    f0_hz = sample_rate / (first[..., 0] + shortest + shift)
    return torch.where(dips.any(-1) & ~silent, f0_hz, torch.nan)
