"""Masks that know nothing of the map: what the same edit does in a random place.

Both are made of patches of PATCH cells, laid in tiles with a random origin and taken in a random
order, which is a function of the item's seed alone. The last patch is taken in part, so that the
control has exactly the share, or the energy, that is asked for.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from sonolens import rng
from sonolens.intervene.spectral import Parts

PATCH = (4, 4)
Part = Literal["kept", "removed"]


def same_share(mask: Tensor, seed: int) -> Tensor:
    """Random patches with the sum of `mask` (freq, time): as many cells, whatever their energy."""
    rank = _ranks(mask.shape, seed)
    sizes = np.bincount(rank.ravel())
    taken = np.concatenate([[0], np.cumsum(sizes)])
    wanted = float(mask.double().sum())
    n_whole = min(int(np.searchsorted(taken, wanted, "right")) - 1, len(sizes))
    rest = 0.0 if n_whole == len(sizes) else (wanted - taken[n_whole]) / sizes[n_whole]
    return _first(rank, n_whole, rest)


def same_energy(parts: Parts, mask: Tensor, seed: int, part: Part) -> Tensor:
    """Random patches that leave a sound of the same energy as `mask` does.

    Parameters
    ----------
    parts
        The recording.
    mask, shape=(n_mels, n_frames), in [0, 1]
        What is to be matched.
    seed
        Of the item.
    part
        ``kept``: the sounds under mask and control have equal energy; ``removed``: those without.

    Returns
    -------
    Tensor of float64, shape=(n_mels, n_frames)
        The energies of the waveforms agree to 1e-6, relative to the recording's.
    """
    rank = _ranks(mask.shape, seed)
    # Removing is keeping the rest; the energy left over falls where the one kept rises.
    sign = 1 if part == "kept" else -1

    def sound(n_whole: int) -> np.ndarray:
        under = parts.under(_first(rank, n_whole))
        return under if part == "kept" else parts.waveform - under

    under = parts.under(mask)
    wanted = _energy(under if part == "kept" else parts.waveform - under)
    low, high = 0, int(rank.max()) + 1
    if sign * (_energy(sound(high)) - wanted) <= 0:
        return _first(rank, high)
    if sign * (_energy(sound(low)) - wanted) >= 0:
        return _first(rank, low)
    # Not quite monotone, as patches share frames; but the ends stay on both sides of `wanted`.
    while high - low > 1:
        middle = (low + high) // 2
        if sign * (_energy(sound(middle)) - wanted) <= 0:
            low = middle
        else:
            high = middle
    before = sound(low)
    change = sound(high) - before
    # |before + rest * change|^2 = wanted, the root between 0 and 1.
    a, b, c = _energy(change), float(before @ change), _energy(before) - wanted
    rest = (-b + sign * math.sqrt(max(0.0, b * b - a * c))) / a
    return _first(rank, low, rest)


def _ranks(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """When the patch of each cell (freq, time) is taken: 0 for those of the first."""
    generator = rng.numpy_generator(seed, "patches")
    tile = np.zeros((1, 1), np.int64)
    for axis, (size, length) in enumerate(zip(shape, PATCH, strict=True)):
        index = (np.arange(size) + generator.integers(length)) // length
        index -= index[0]
        tile = tile * (index[-1] + 1) + np.expand_dims(index, 1 - axis)
    return generator.permutation(tile.max() + 1)[tile]


def _first(rank: np.ndarray, n_whole: int, rest: float = 0.0) -> Tensor:
    """Ones in the first `n_whole` patches, `rest` in the next, 0 elsewhere; float64."""
    mask = (rank < n_whole).astype(np.float64)
    mask[rank == n_whole] = rest
    return torch.from_numpy(mask)


def _energy(waveform: np.ndarray) -> float:
    return float(waveform @ waveform)
