"""Harmonic consistency: more of the map on the harmonics of the voice than of the sound itself.

Share of the positive attribution on the cells of the harmonics k f0(t), less the share of the
sound's level there. f0 comes from the recording by YIN; a cell belongs to a harmonic that lies
within half a semitone of its centre, or within its band where the band is wider.

References
----------
de Cheveigne, A., Kawahara, H. (2002). YIN, a fundamental frequency estimator for speech and music.
JASA 111(4), 1917-1930 (f0, see `dsp.pitch`).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sonolens.dsp.pitch import yin
from sonolens.score.contract import Context, ScoreError, Scores, flat_map, positive

HALF_SEMITONE = 2 ** (0.5 / 12)


def score(
    attributions: Tensor,
    context: Context,
    *,
    f0_min_hz: float = 65.0,
    f0_max_hz: float = 500.0,
    n_harmonics: int = 20,
) -> Scores:
    """Harmonic consistency of each item.

    Parameters
    ----------
    attributions, shape=(batch, [channel,] freq, time)
        Signed maps.
    context
        Needs `listen`, and `axes` with sample_rate, hop_length, frequencies_hz; `scale` for the
        level of the sound above silence.
    f0_min_hz, f0_max_hz
        Range of the search for f0.
    n_harmonics
        Largest k.

    Returns
    -------
    Scores, in [-1, 1]
        NaN where nothing in the map is positive, or no frame has a pitch.

    Raises
    ------
    ScoreError
        No way back to sound, axes that lack an entry, or maps on other axes than the input.
    """
    missing = {"sample_rate", "hop_length", "frequencies_hz"} - set(context.axes)
    if context.listen is None or missing:
        raise ScoreError(
            "harmonic_consistency: needs `audio`, and axes.json with sample_rate, hop_length and "
            f"frequencies_hz; missing {sorted(missing)}"
        )
    on_harmonics: Tensor = context.shared(
        ("harmonics", f0_min_hz, f0_max_hz, n_harmonics),
        lambda: _harmonics(context, f0_min_hz, f0_max_hz, n_harmonics),
    )
    silence = context.scale[0] if context.scale else float(context.inputs.min())
    level = flat_map(context.inputs - silence, context.inputs).clamp_min(0).cpu()
    maps = positive(attributions, context)
    shares = [(one * on_harmonics).sum(1) / one.sum(1) for one in (maps, level)]
    return Scores(torch.where(on_harmonics.any(1), shares[0] - shares[1], torch.nan))


def _harmonics(context: Context, low_hz: float, high_hz: float, n_harmonics: int) -> Tensor:
    """Cells that a harmonic falls into, (batch, cells), boolean."""
    assert context.listen is not None
    plane = tuple(context.inputs.shape[-2:])
    sounds = context.listen(torch.ones(len(context.inputs), *plane)).cpu()
    rate, hop = int(context.axes["sample_rate"]), int(context.axes["hop_length"])
    frequencies_hz = np.asarray(context.axes["frequencies_hz"], float)
    f0_hz = yin(sounds, rate, hop, low_hz, high_hz).numpy()[:, : plane[1]]
    found = [harmonic_cells(track, frequencies_hz, n_harmonics) for track in f0_hz]
    return torch.from_numpy(np.stack(found)).flatten(1)


def harmonic_cells(f0_hz: np.ndarray, frequencies_hz: np.ndarray, n_harmonics: int) -> np.ndarray:
    """Whether a harmonic falls into each cell, shape=(freq, time); none where f0 is NaN.

    >>> harmonic_cells(np.array([100.0, np.nan]), np.array([100.0, 150.0, 199.0]), 3).tolist()
    [[True, False], [False, False], [True, False]]
    """
    middles = (frequencies_hz[1:] + frequencies_hz[:-1]) / 2
    lower = np.minimum(np.append(-np.inf, middles), frequencies_hz / HALF_SEMITONE)
    upper = np.maximum(np.append(middles, np.inf), frequencies_hz * HALF_SEMITONE)
    lower[0], upper[-1] = (
        2 * frequencies_hz[0] - upper[0],
        2 * frequencies_hz[-1] - lower[-1],
    )
    harmonics_hz = np.arange(1, n_harmonics + 1)[:, None] * f0_hz  # (k, time)
    inside = (harmonics_hz >= lower[:, None, None]) & (harmonics_hz <= upper[:, None, None])
    cells: np.ndarray = inside.any(1)
    return cells
