"""Time-frequency regions given as tracks, drawn as masks on any grid."""

from __future__ import annotations

import numpy as np
import pandas as pd

TRACK_COLUMNS = ("component", "time_s", "low_hz", "high_hz")


def mask_from_tracks(
    tracks: pd.DataFrame, frequencies_hz: np.ndarray, times_s: np.ndarray, offset_s: float = 0.0
) -> np.ndarray:
    """Cells whose centre lies inside one of the tracks.

    Parameters
    ----------
    tracks
        Columns component, time_s, low_hz, high_hz. Each component is a band whose edges are linear
        between its times, and absent before the first and after the last.
    frequencies_hz, times_s
        Cell centres, shapes (freq,) and (time,).
    offset_s
        Added to the tracks' times.

    Returns
    -------
    ndarray of bool, shape=(freq, time)

    Examples
    --------
    >>> band = pd.DataFrame(
    ...     {"component": "F1", "time_s": [0.0, 1.0], "low_hz": 100.0, "high_hz": 300.0}
    ... )
    >>> mask_from_tracks(band, np.array([50.0, 200.0]), np.array([0.5, 2.0])).astype(int).tolist()
    [[0, 0], [1, 0]]
    """
    mask = np.zeros((len(frequencies_hz), len(times_s)), bool)
    for _, track in tracks.groupby("component", sort=True):
        track = track.sort_values("time_s", kind="stable")
        at = track["time_s"].to_numpy() + offset_s
        inside = (times_s >= at[0]) & (times_s <= at[-1])
        low = np.interp(times_s, at, track["low_hz"])
        high = np.interp(times_s, at, track["high_hz"])
        column = frequencies_hz[:, None]
        mask |= inside & (column >= low) & (column <= high)
    return mask
