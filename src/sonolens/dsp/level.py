"""How loud a sound is."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def level_dbfs(waveform: np.ndarray) -> float:
    """Root mean square of a waveform (time,) in dB; 0 dB is a constant of 1; silence is -inf.

    >>> round(level_dbfs(np.array([0.1, -0.1])), 6), level_dbfs(np.zeros(2))
    (-20.0, -inf)
    """
    power = float(np.mean(np.square(waveform, dtype=np.float64)))
    return 10 * math.log10(power) if power > 0 else -math.inf


def safe_gain(waveforms: Sequence[np.ndarray]) -> float:
    """One gain for sounds that are compared: 1, or what brings the highest peak down to 1.

    >>> safe_gain([np.array([0.5]), np.array([-2.0])]), safe_gain([np.array([0.5])])
    (0.5, 1.0)
    """
    peak = max(float(np.abs(waveform).max(initial=0)) for waveform in waveforms)
    return 1 / peak if peak > 1 else 1.0
