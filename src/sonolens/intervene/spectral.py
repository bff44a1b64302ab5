"""Keep or remove part of the complex spectrum, with the original phase, and resynthesise."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sonolens.dsp.spectrogram import LogMel, istft, stft


def keep(waveform: np.ndarray, mask: Tensor, front_end: LogMel) -> np.ndarray:
    """The part of a recording that lies under a mask on the mel grid.

    Parameters
    ----------
    waveform, shape=(time,)
        The recording at the front end's rate.
    mask, shape=(n_mels, n_frames), in [0, 1]
        Share of the amplitude to keep in each cell; 1 - mask removes instead.
    front_end
        The grid of the mask.

    Returns
    -------
    ndarray, shape=(time,), float32
        mask + (1 - mask) add up to the recording, up to bins outside all mel bands.
    """
    sound = torch.from_numpy(np.ascontiguousarray(waveform, np.float32)).unsqueeze(0)
    spectrum = stft(sound, front_end.n_fft, front_end.hop_length)
    linear = front_end.linear_mask(mask.to(torch.float32))
    linear = torch.nn.functional.pad(
        linear, (0, max(0, spectrum.shape[-1] - linear.shape[-1])), mode="replicate"
    )
    kept = spectrum * linear[:, : spectrum.shape[-1]]
    return istft(kept, front_end.n_fft, front_end.hop_length, sound.shape[-1])[0].numpy()


def top_share(attribution: Tensor, quantile: float = 0.99) -> Tensor:
    """Soft mask of a map: positive part over its `quantile`, clipped to [0, 1]; same shape."""
    positive = attribution.clamp_min(0)
    level = torch.quantile(positive.flatten(), quantile)
    return (positive / level.clamp_min(torch.finfo(positive.dtype).tiny)).clamp(0, 1)
