"""Groups of input cells that are explained, removed or summed as one.

References
----------
Zwicker, E. (1961). Subdivision of the audible frequency range into critical bands. JASA 33(2)
(edges of the bark bands).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sonolens.dsp.pitch import f0_track
from sonolens.explain.contract import ExplainError

KINDS = (
    "cells", "patches", "bands", "slices", "frames", "bark", "octave", "harmonic",
    "onset_steady_decay",
)  # fmt: skip
N_PATCHES = 8
BARK_EDGES_HZ = (
    100, 200, 300, 400, 510, 630, 770, 920, 1080, 1270, 1480, 1720, 2000, 2320, 2700, 3150, 3700,
    4400, 5300, 6400, 7700, 9500, 12000,
)  # fmt: skip
OCTAVE_CENTRE_HZ = 1000.0
LOWEST_HZ = 20.0
N_COMBS = 10
COMB_HALF_WIDTH = 0.25
SOUNDING_DB, STEADY_DB = -30.0, -6.0


def make(kind: str, inputs: Tensor, axes: dict[str, Any]) -> Tensor | None:
    """Labels of the groups by name.

    Parameters
    ----------
    kind
        One of KINDS; ``cells``: every cell alone.
    inputs, shape=(batch, …, [freq,] time) or (batch, …, frame, height, width)
        Inputs on the scale of `axes`; axes before those that are grouped share the labels.
    axes
        Axes of the inputs.

    Returns
    -------
    Tensor of int64, shape=(*shape) or (batch, *shape); None for ``cells``
        Labels from 0 without gaps, on the device of the inputs.

    Raises
    ------
    ExplainError
        Unknown kind, or one that does not fit the inputs.
    """
    if kind == "cells":
        return None
    if kind == "patches":
        return patches(inputs)
    if kind == "bands":
        return bands(inputs)
    if kind == "slices":
        return slices(inputs)
    if kind == "frames":
        return frames(inputs)
    if kind == "bark":
        return _rows(inputs, np.searchsorted(BARK_EDGES_HZ, _hz(inputs, axes), side="right"))
    if kind == "octave":
        octaves = np.log2(np.maximum(_hz(inputs, axes), LOWEST_HZ) / OCTAVE_CENTRE_HZ)
        return _rows(inputs, np.floor(octaves + 0.5).astype(np.int64))
    if kind == "harmonic":
        return harmonic(inputs, axes)
    if kind == "onset_steady_decay":
        return onset_steady_decay(inputs, axes)
    raise ExplainError(f"segmentation {kind!r}: unknown; need one of {', '.join(KINDS)}")


def patches(inputs: Tensor, n_patches: int = N_PATCHES) -> Tensor:
    """A grid of n_patches x n_patches over the last two axes, fewer where these are shorter."""
    labels = torch.zeros((), dtype=torch.int64)
    for size in inputs.shape[1:][-2:]:
        n_parts = min(n_patches, size)
        labels = labels[..., None] * n_parts + torch.arange(size) * n_parts // size
    return labels.expand(inputs.shape[1:]).contiguous().to(inputs.device)


def bands(inputs: Tensor, n_bands: int = N_PATCHES) -> Tensor:
    """Equal groups of frequency rows, the last axis but one; fewer where it is shorter."""
    return _along(inputs, -2, n_bands, "bands", "(batch, …, freq, time)")


def slices(inputs: Tensor, n_slices: int = N_PATCHES) -> Tensor:
    """Equal groups of time columns, the last axis; fewer where it is shorter."""
    return _along(inputs, -1, n_slices, "slices", "(batch, …, time)")


def frames(inputs: Tensor) -> Tensor:
    """Every picture of a film a group of its own."""
    return _along(inputs, -3, None, "frames", "(batch, …, frame, height, width)")


def _along(inputs: Tensor, axis: int, n_parts: int | None, kind: str, needed: str) -> Tensor:
    """Labels that grow along one axis in `n_parts` equal parts; None: one for each place."""
    shape = inputs.shape[1:]
    if len(shape) < -axis or shape[axis] < 2:
        raise ExplainError(
            f"segmentation {kind!r}: inputs {tuple(inputs.shape)}, need {needed} with more than "
            "one place to group"
        )
    size = shape[axis]
    n_parts = size if n_parts is None else min(n_parts, size)
    labels = torch.arange(size) * n_parts // size
    column = labels.view(-1, *[1] * (-axis - 1))
    return column.expand(shape).contiguous().to(inputs.device)


def harmonic(inputs: Tensor, axes: dict[str, Any]) -> Tensor:
    """Combs around the harmonics of each item's own fundamental frequency f0(t).

    In the order of the labels: frames without voice, cells between harmonics, then the combs k = 1
    to 10 and one of all higher ones; those an item lacks are left out. A cell belongs to harmonic
    k when it lies within f0 / 4 of k f0. f0 is read from the spectrogram, see `dsp.pitch.f0_track`,
    so combs are only as fine as the bands: where these are wider than f0, a cell goes by its
    centre.
    """
    frequencies_hz = _hz(inputs, axes)
    labels = []
    for plane in _level_db(inputs, axes):
        try:
            f0_hz = f0_track(plane, frequencies_hz)
        except ValueError as error:
            raise ExplainError(f"segmentation 'harmonic': {error}") from error
        order = frequencies_hz[:, None] / np.where(np.isnan(f0_hz), 1.0, f0_hz)
        nearest = np.rint(order)
        on_comb = (nearest >= 1) & (np.abs(order - nearest) <= COMB_HALF_WIDTH)
        comb = np.where(on_comb, 1 + np.minimum(nearest, N_COMBS + 1), 1)
        labels.append(np.where(np.isnan(f0_hz), 0, comb))
    return _items(inputs, labels)


def onset_steady_decay(inputs: Tensor, axes: dict[str, Any]) -> Tensor:
    """Parts of each sound in time, by the level of the frames, their power summed over frequency.

    A sound is a run of frames less than 30 dB below the item's loudest; its steady part reaches
    from the first to the last frame less than 6 dB below its own loudest. In the order of the
    labels: no sound, onset, steady, decay; those an item lacks are left out.
    """
    labels = []
    for plane in _level_db(inputs, axes):
        level_db = 10 * np.log10((10 ** (plane / 10)).sum(0))
        part = np.zeros(len(level_db), np.int64)
        sounding = level_db >= level_db.max() + SOUNDING_DB
        edges = np.flatnonzero(np.diff(np.concatenate([[0], sounding, [0]])))
        for start, stop in edges.reshape(-1, 2):
            run = level_db[start:stop]
            steady = start + np.flatnonzero(run >= run.max() + STEADY_DB)
            part[start:stop] = 2
            part[start : steady[0]] = 1
            part[steady[-1] + 1 : stop] = 3
        labels.append(np.broadcast_to(part, plane.shape))
    return _items(inputs, labels)


def _rows(inputs: Tensor, band_of_row: np.ndarray) -> Tensor:
    """Rows of equal numbers are a group; the numbers may have gaps."""
    labels = torch.from_numpy(np.unique(band_of_row, return_inverse=True)[1])
    return labels[:, None].expand(inputs.shape[1:]).contiguous().to(inputs.device)


def _hz(inputs: Tensor, axes: dict[str, Any]) -> np.ndarray:
    """Centres of the rows of the inputs in Hz, rising."""
    found = np.asarray(axes.get("frequencies_hz", ()), float)
    if inputs.ndim < 3 or len(found) != inputs.shape[-2]:
        raise ExplainError(
            f"axes.json: {len(found)} frequencies_hz for inputs {tuple(inputs.shape)}; need one "
            "for each row of (batch, [channel,] freq, time)"
        )
    return found


def _level_db(inputs: Tensor, axes: dict[str, Any]) -> np.ndarray:
    """Level of every cell in dB below the loudest of the scale, (batch, freq, time)."""
    scale = axes.get("scale", {})
    if inputs.ndim < 3 or "range_db" not in scale:
        raise ExplainError(
            f"axes.json: scale has {sorted(scale)} for inputs {tuple(inputs.shape)}; "
            "need 'range_db' and (batch, [channel,] freq, time)"
        )
    planes = inputs.detach().double()
    planes = planes if planes.ndim == 3 else planes.mean(1)
    unit = (planes - scale["max"]) / (scale["max"] - scale["min"])
    level_db: np.ndarray = (unit * scale["range_db"]).cpu().numpy()
    return level_db


def _items(inputs: Tensor, labels: list[np.ndarray]) -> Tensor:
    """Labels of each item (freq, time), from 0 without gaps, on the shape of the inputs."""
    dense = [np.unique(one, return_inverse=True)[1].reshape(one.shape) for one in labels]
    stacked = torch.from_numpy(np.stack(dense).astype(np.int64)).to(inputs.device)
    return stacked.view(len(inputs), *[1] * (inputs.ndim - 3), *stacked.shape[1:]).expand(
        inputs.shape
    )
