"""The front end of a `digits` audio cell."""

from __future__ import annotations

from sonolens.dsp.spectrogram import LogMel
from sonolens.studies.digits.params import Params


class ResolutionError(ValueError):
    """The window does not divide into the frames asked for."""


def front_end(params: Params, size: int) -> LogMel:
    """Log-mel with `size` bands and `size` frames over the window.

    Raises
    ------
    ResolutionError
        duration_s x sample_rate is no multiple of `size`.
    """
    section, sample_rate = params.features, params.prepare.sample_rate
    n_samples = round(section.duration_s * sample_rate)
    if n_samples % size:
        raise ResolutionError(
            f"digits.features.sizes: {size} frames do not divide {n_samples} samples "
            f"({section.duration_s} s at {sample_rate} Hz); "
            "change sizes, duration_s or prepare.sample_rate"
        )
    return LogMel(
        sample_rate=sample_rate,
        n_fft=section.n_fft,
        hop_length=n_samples // size,
        n_mels=size,
        n_frames=size,
        f_min=section.f_min,
        f_max=section.f_max,
        reference=section.reference,
    )
