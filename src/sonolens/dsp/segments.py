"""Cutting recordings to windows of fixed length."""

from __future__ import annotations

from typing import Literal

import numpy as np

Placement = Literal["start", "centre", "random"]


def place(
    waveform: np.ndarray, n_samples: int, placement: Placement, draw: float
) -> tuple[np.ndarray, int]:
    """Put a recording into a window, or cut the window out of a longer one.

    Parameters
    ----------
    waveform, shape=(time,)
        The recording.
    n_samples
        Length of the window.
    placement
        Where a shorter recording lies; of a longer one the loudest stretch is kept, whatever the
        placement.
    draw
        In [0, 1): position for ``random``.

    Returns
    -------
    window, shape=(n_samples,), float32
    offset_samples
        Where the recording's first sample lies in the window; negative when it was cut.

    Examples
    --------
    >>> window, offset = place(np.ones(2, np.float32), 4, "centre", 0.0)
    >>> window.tolist(), offset
    ([0.0, 1.0, 1.0, 0.0], 1)
    """
    spare = n_samples - len(waveform)
    if spare < 0:
        energy = np.concatenate([[0.0], np.cumsum(np.square(waveform, dtype=np.float64))])
        start = int(np.argmax(energy[n_samples:] - energy[:-n_samples]))
        return np.ascontiguousarray(waveform[start : start + n_samples], np.float32), -start
    offset = {"start": 0, "centre": spare // 2, "random": int(draw * (spare + 1))}[placement]
    window = np.zeros(n_samples, np.float32)
    window[offset : offset + len(waveform)] = waveform
    return window, offset
