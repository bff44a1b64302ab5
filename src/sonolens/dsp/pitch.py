"""Fundamental frequency of a waveform (`yin`), or of a spectrogram alone (`f0_track`).

References
----------
de Cheveigne, A., Kawahara, H. (2002). YIN, a fundamental frequency estimator for speech and music.
JASA 111(4), 1917-1930, equations 6 and 8 (steps 2 to 5, on frames centred as those of the STFT).
Hermes, D. J. (1988). Measurement of pitch by subharmonic summation. JASA 83(1), equation 1.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

YIN_THRESHOLD = 0.15
F0_MIN_HZ, F0_MAX_HZ = 60.0, 400.0
STEPS_PER_OCTAVE = 48
N_HARMONICS = 8
HARMONIC_DECAY = 0.84
MIN_CONTRAST_DB = 3.0
MIN_LEVEL_DB = -40.0
N_MEDIAN_FRAMES = 5


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
    dips = (inner < YIN_THRESHOLD) & (inner <= left) & (inner <= right)
    first = dips.double().argmax(-1, keepdim=True)
    low, middle, high = (values.gather(-1, first)[..., 0] for values in (left, inner, right))
    bend = low - 2 * middle + high
    shift = torch.where(bend > 0, (low - high) / (2 * bend).clamp_min(1e-300), 0.0).clamp(-1, 1)
    f0_hz = sample_rate / (first[..., 0] + shortest + shift)
    return torch.where(dips.any(-1) & ~silent, f0_hz, torch.nan)


def f0_track(level_db: np.ndarray, frequencies_hz: np.ndarray) -> np.ndarray:
    """Fundamental frequency of every frame by the contrast between harmonics and their gaps.

    The score of a candidate is the mean over its first harmonics of the level at k f0 less the mean
    level at (k - 1/2) f0 and (k + 1/2) f0, weights 0.84 ** (k - 1). Half and double of the true
    frequency score about 0, as they exchange harmonics and gaps. Only harmonics that the frequency
    axis resolves (bands no further apart than f0 / 2) count.

    Parameters
    ----------
    level_db, shape=(freq, time)
        Levels in dB, any reference.
    frequencies_hz, shape=(freq,)
        Centres of the bands in Hz, rising.

    Returns
    -------
    ndarray, shape=(time,)
        Hz between 60 and 400, a median over five frames; NaN in frames without voice: more than 40
        dB below the loudest frame, or with a contrast below 3 dB.

    Raises
    ------
    ValueError
        The bands resolve no harmonics.

    References
    ----------
    Hermes, D. J. (1988). Measurement of pitch by subharmonic summation. JASA 83(1), equation 1
    (weights; the gaps are ours).
    """
    candidates_hz, weights = _weights(np.asarray(frequencies_hz, float))
    if not len(candidates_hz):
        raise ValueError(
            f"f0_track: bands {np.diff(frequencies_hz).min():.0f} Hz apart or more resolve no "
            f"harmonics; need at most {F0_MAX_HZ / 2:.0f} Hz"
        )
    scores = weights @ level_db
    best = scores.argmax(0)
    loudness_db = level_db.max(0)
    voiced = (scores.max(0) >= MIN_CONTRAST_DB) & (loudness_db >= loudness_db.max() + MIN_LEVEL_DB)
    track = np.where(voiced, candidates_hz[best], np.nan)
    half = N_MEDIAN_FRAMES // 2
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(track, half, constant_values=np.nan), N_MEDIAN_FRAMES
    )
    smooth = np.full(len(track), np.nan)
    smooth[voiced] = np.nanmedian(windows[voiced], axis=1)
    return smooth


def _weights(frequencies_hz: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Candidates (n,) in Hz and the matrix (n, freq) from levels to their scores."""
    n_steps = int(STEPS_PER_OCTAVE * np.log2(F0_MAX_HZ / F0_MIN_HZ))
    candidates_hz = F0_MIN_HZ * 2 ** (np.arange(n_steps + 1) / STEPS_PER_OCTAVE)
    spacing_hz = np.gradient(frequencies_hz)
    order = np.arange(1, N_HARMONICS + 1)
    kept, rows = [], []
    for f0_hz in candidates_hz:
        harmonics_hz = order * f0_hz
        resolved = (
            (harmonics_hz - f0_hz / 2 >= frequencies_hz[0])
            & (harmonics_hz + f0_hz / 2 <= frequencies_hz[-1])
            & (np.interp(harmonics_hz, frequencies_hz, spacing_hz) <= f0_hz / 2)
        )
        if not resolved.any():
            continue
        weight = np.where(resolved, HARMONIC_DECAY ** (order - 1), 0)
        weight /= weight.sum()
        rows.append(
            sum(
                weight[k] * share * _reader(harmonics_hz[k] + shift * f0_hz, frequencies_hz)
                for k in range(N_HARMONICS)
                for shift, share in ((0.0, 1.0), (-0.5, -0.5), (0.5, -0.5))
            )
        )
        kept.append(f0_hz)
    return np.array(kept), np.array(rows).reshape(len(kept), len(frequencies_hz))


def _reader(frequency_hz: float, frequencies_hz: np.ndarray) -> np.ndarray:
    """Weights (freq,) of the linear interpolation at one frequency."""
    above = int(np.clip(np.searchsorted(frequencies_hz, frequency_hz), 1, len(frequencies_hz) - 1))
    low_hz, high_hz = frequencies_hz[above - 1 : above + 1]
    share = np.clip((frequency_hz - low_hz) / (high_hz - low_hz), 0, 1)
    weights = np.zeros(len(frequencies_hz))
    weights[above - 1 : above + 1] = 1 - share, share
    return weights
