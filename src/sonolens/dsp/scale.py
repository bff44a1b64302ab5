"""The scales that maps and baselines of the classifiers live on.

Sound: (dB + 80) / 80 in [0, 1], 0 is silence. Waveforms: [-1, 1], 0 is silence, which is not the
lowest value. Pictures: grey in [0, 1], 0 is black.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

RANGE_DB = 80.0
Reference = Literal["clip_max", "full_scale"]
SCALE = {"unit": "(dB + 80) / 80", "min": 0.0, "max": 1.0, "range_db": RANGE_DB, "silence": 0.0}
WAVEFORM_SCALE = {"unit": "full scale", "min": -1.0, "max": 1.0, "silence": 0.0}
GREY_SCALE = {"unit": "grey level", "min": 0.0, "max": 1.0, "black": 0.0}


def power_to_unit(power: Tensor, reference: Reference = "clip_max") -> Tensor:
    """Power to the unit scale.

    Parameters
    ----------
    power, shape=(batch, *, freq, time)
        Non-negative power.
    reference
        What is 0 dB: the loudest cell of each item, or power 1.

    Returns
    -------
    Tensor, shape=(batch, *, freq, time), in [0, 1]
        A silent item is 0 everywhere, whatever the reference.

    Examples
    --------
    >>> power_to_unit(torch.tensor([[[1.0, 1e-4, 0.0]]])).tolist()
    [[[1.0, 0.5, 0.0]]]
    """
    if reference == "clip_max":
        loudest = power.flatten(1).amax(1).clamp_min(torch.finfo(power.dtype).tiny)
        power = power / loudest.view(-1, *[1] * (power.ndim - 1))
    db = 10 * torch.log10(power.clamp_min(10 ** (-RANGE_DB / 10)))
    return ((db + RANGE_DB) / RANGE_DB).clamp(0, 1)


def unit_to_db(unit: Tensor) -> Tensor:
    """Unit scale to dB below the reference.

    >>> unit_to_db(torch.tensor([0.0, 0.5, 1.0])).tolist()
    [-80.0, -40.0, 0.0]
    """
    return unit * RANGE_DB - RANGE_DB
