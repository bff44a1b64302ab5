"""Keep, remove or amplify part of the complex spectrum, with the original phase; resynthesise."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from sonolens.dsp.spectrogram import LogMel, istft, stft


class InterveneError(ValueError):
    """A sound cannot be edited as asked for; the message says why."""


class Parts:
    """A recording, ready to be taken apart under masks on the grid of its front end.

    The spectrum is the front end's own where its frames overlap by half or more. Else there is no
    way back from them, and a whole number of frames as long takes the place of each.

    waveform    (time,), at the front end's rate

    Raises
    ------
    InterveneError
        The waveform is not (time,).
    """

    def __init__(self, waveform: np.ndarray, front_end: LogMel) -> None:
        if waveform.ndim != 1 or not len(waveform):
            raise InterveneError(f"waveform {waveform.shape}, need (time,) with time > 0")
        self.front_end = front_end
        self.waveform = np.array(waveform, np.float64)
        n_parts = math.ceil(front_end.hop_length / (front_end.n_fft // 2))
        self._hop_length = math.ceil(front_end.hop_length / n_parts)
        sound = torch.from_numpy(self.waveform).unsqueeze(0)
        self._spectrum = stft(sound, front_end.n_fft, self._hop_length)

    def under(self, mask: Tensor) -> np.ndarray:
        """The part under a mask, shape=(time,), float64; linear in the mask.

        `mask` (n_mels, n_frames) is the share of the amplitude to keep in each cell: ones give the
        recording (to 1e-12), zeros silence, and mask and 1 - mask add up to the recording. What
        goes on behind the last frame goes with it. Raises InterveneError for another shape.
        """
        front_end = self.front_end
        if mask.shape != (front_end.n_mels, front_end.n_frames):
            raise InterveneError(
                f"mask {tuple(mask.shape)}, need ({front_end.n_mels}, {front_end.n_frames}): "
                "the cells of the front end"
            )
        linear = front_end.linear_mask(mask.to("cpu", torch.float64))
        at = torch.arange(self._spectrum.shape[-1]) * self._hop_length / front_end.hop_length
        nearest = at.round().long().clamp_max(front_end.n_frames - 1)
        kept = self._spectrum * linear[:, nearest]
        return istft(kept, front_end.n_fft, self._hop_length, len(self.waveform))[0].numpy()


def keep(waveform: np.ndarray, mask: Tensor, front_end: LogMel) -> np.ndarray:
    """The part of a recording under a mask, shape=(time,), float32; 1 - mask removes it instead.

    See `Parts.under`. Raises InterveneError.
    """
    return Parts(waveform, front_end).under(mask).astype(np.float32)


def amplify(waveform: np.ndarray, mask: Tensor, front_end: LogMel, gain_db: float) -> np.ndarray:
    """The recording with the part under a mask louder (or softer) by `gain_db`, float32.

    Where the mask is between 0 and 1 the amplitude changes in proportion; -inf removes the part.
    The result may exceed full scale: see `dsp.level.safe_gain`. Raises InterveneError.
    """
    parts = Parts(waveform, front_end)
    return (parts.waveform + (10 ** (gain_db / 20) - 1) * parts.under(mask)).astype(np.float32)


def top_share(attribution: Tensor, quantile: float = 0.99) -> Tensor:
    """Soft mask of a map: positive part over its `quantile`, clipped to [0, 1]; same shape."""
    positive = attribution.clamp_min(0)
    level = torch.quantile(positive.flatten(), quantile)
    return (positive / level.clamp_min(torch.finfo(positive.dtype).tiny)).clamp(0, 1)


def top_cells(attribution: Tensor, share: float) -> Tensor:
    """Mask of the `share` of cells with the largest values, 1 or 0; same shape and type.

    Fewer where fewer are positive: what speaks against the target is never kept. Of equal values
    the first cells are taken.
    """
    values = attribution.flatten()
    n_cells = min(round(share * len(values)), int((values > 0).sum()))
    mask = torch.zeros_like(values)
    mask[torch.argsort(values, descending=True, stable=True)[:n_cells]] = 1
    return mask.reshape(attribution.shape)
