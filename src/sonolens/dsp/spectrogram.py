"""STFT and log-mel spectrogram, equal to librosa's, without its start-up cost."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sonolens.dsp.scale import SCALE, Reference, power_to_unit


def hz_to_mel(frequency_hz: np.ndarray) -> np.ndarray:
    """Slaney's mel scale: linear below 1 kHz, logarithmic above.

    >>> hz_to_mel(np.array([0.0, 1000.0])).tolist()
    [0.0, 15.0]
    """
    frequency_hz = np.asarray(frequency_hz, float)
    log_part = 15 + 27 * np.log(np.maximum(frequency_hz, 1e-9) / 1000) / math.log(6.4)
    return np.where(frequency_hz < 1000, frequency_hz * 3 / 200, log_part)


def mel_to_hz(mel: np.ndarray) -> np.ndarray:
    """Inverse of `hz_to_mel`.

    >>> mel_to_hz(np.array([15.0])).tolist()
    [1000.0]
    """
    mel = np.asarray(mel, float)
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * math.log(6.4) / 27))


def mel_filters(
    sample_rate: int, n_fft: int, n_mels: int, f_min: float, f_max: float
) -> np.ndarray:
    """Triangular filters of unit area, shape=(n_mels, n_fft // 2 + 1), as librosa's default.

    References
    ----------
    Slaney, M. (1998). Auditory Toolbox, technical report 1998-010, Interval Research.
    """
    lowest, highest = hz_to_mel(np.array([f_min, f_max]))
    edges_hz = mel_to_hz(np.linspace(lowest, highest, n_mels + 2))
    bins_hz = np.linspace(0, sample_rate / 2, n_fft // 2 + 1)
    low, centre, high = edges_hz[:-2, None], edges_hz[1:-1, None], edges_hz[2:, None]
    rising, falling = (bins_hz - low) / (centre - low), (high - bins_hz) / (high - centre)
    filters: np.ndarray = np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low)
    return filters


@dataclass(frozen=True)
class LogMel:
    """Front end: waveform (batch, time) to log-mel (batch, 1, n_mels, n_frames) on the unit scale.

    Frames are centred on multiples of hop_length, the ends padded with zeros; the Hann window has
    n_fft samples. f_min, f_max in Hz; `reference` as in `dsp.scale`.
    """

    sample_rate: int
    n_fft: int
    hop_length: int
    n_mels: int
    n_frames: int
    f_min: float
    f_max: float
    reference: Reference = "clip_max"

    @property
    def n_samples(self) -> int:
        """Samples that n_frames frames cover."""
        return self.hop_length * self.n_frames

    @property
    def frequencies_hz(self) -> np.ndarray:
        """Centre of each mel band, shape=(n_mels,)."""
        low, high = hz_to_mel(np.array([self.f_min, self.f_max]))
        return mel_to_hz(np.linspace(low, high, self.n_mels + 2))[1:-1]

    @property
    def times_s(self) -> np.ndarray:
        """Centre of each frame, shape=(n_frames,)."""
        return np.arange(self.n_frames) * self.hop_length / self.sample_rate

    def power(self, waveform: Tensor) -> Tensor:
        """Mel power, shape=(batch, n_mels, n_frames)."""
        spectrum = stft(waveform, self.n_fft, self.hop_length)[..., : self.n_frames]
        return self.filters(waveform.dtype) @ spectrum.abs().square()

    def __call__(self, waveform: Tensor) -> Tensor:
        """Log-mel on the unit scale, shape=(batch, 1, n_mels, n_frames)."""
        return power_to_unit(self.power(waveform), self.reference).unsqueeze(1)

    def filters(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Mel filters, shape=(n_mels, n_fft // 2 + 1)."""
        return _filters(self.sample_rate, self.n_fft, self.n_mels, self.f_min, self.f_max, dtype)

    def linear_mask(self, mask: Tensor) -> Tensor:
        """Mask on mel bands to STFT bins.

        Shape (n_mels, n_frames) -> (n_fft // 2 + 1, n_frames + 1). Each bin gets the mean of the
        bands it feeds, weighted by their filters. Bins outside all bands, which the model does not
        hear, go with the nearest band: a mask of ones is one everywhere.
        """
        weights = self.filters(mask.dtype).T.clone()
        unheard = (weights.sum(1) == 0).numpy()
        bins_hz = np.linspace(0, self.sample_rate / 2, len(weights))[unheard]
        nearest = np.abs(bins_hz[:, None] - self.frequencies_hz).argmin(1)
        weights[np.flatnonzero(unheard), nearest] = 1
        linear = (weights / weights.sum(1, keepdim=True)) @ mask
        return torch.cat([linear, linear[:, -1:]], dim=1)

    def axes(self) -> dict[str, Any]:
        """Physical axes for ArrayStore."""
        return {
            **asdict(self),
            "names": ["channel", "freq", "time"],
            "frequencies_hz": [round(float(value), 4) for value in self.frequencies_hz],
            "times_s": [round(float(value), 6) for value in self.times_s],
            "frequency_scale": "mel (Slaney)",
            "scale": SCALE,
        }


@lru_cache(maxsize=32)
def _filters(
    sample_rate: int, n_fft: int, n_mels: int, f_min: float, f_max: float, dtype: torch.dtype
) -> Tensor:
    return torch.from_numpy(mel_filters(sample_rate, n_fft, n_mels, f_min, f_max)).to(dtype)


def stft(waveform: Tensor, n_fft: int, hop_length: int) -> Tensor:
    """Complex spectrum, Hann window, zero-padded.

    Shape (batch, time) -> (batch, n_fft // 2 + 1, 1 + time // hop_length).
    """
    window = torch.hann_window(n_fft, dtype=waveform.dtype, device=waveform.device)
    return torch.stft(
        waveform,
        n_fft,
        hop_length,
        window=window,
        center=True,
        pad_mode="constant",
        return_complex=True,
    )


def istft(spectrum: Tensor, n_fft: int, hop_length: int, n_samples: int) -> Tensor:
    """Inverse of `stft`, shape (batch, freq, time) -> (batch, n_samples)."""
    window = torch.hann_window(n_fft, dtype=spectrum.real.dtype, device=spectrum.device)
    return torch.istft(spectrum, n_fft, hop_length, window=window, center=True, length=n_samples)
