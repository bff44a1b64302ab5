"""Gaussian blur of maps by matrices, any width in bins, alone along frequency or time."""

from __future__ import annotations

import torch
from torch import Tensor

SMALLEST_BINS = 1e-3  # below it the Gaussian is the identity in float64


def gaussian_matrix(size: int, sigma_bins: Tensor) -> Tensor:
    """Weights of a Gaussian cut at the ends of the axis, shape=(n, size, size), float64.

    Row i holds what cell i reads, and its sum is 1, so a constant stays a constant; sigma 0 is the
    identity. Transposed, a cell gives away what it holds, and the sum over the axis stays.

    Parameters
    ----------
    size
        Cells of the axis.
    sigma_bins, shape=(n,)
        Standard deviations in cells.
    """
    cells = torch.arange(size, device=sigma_bins.device, dtype=torch.float64)
    distance = (cells[:, None] - cells[None]) / sigma_bins.double().clamp_min(SMALLEST_BINS).view(
        -1, 1, 1
    )
    weights = torch.exp(-0.5 * distance**2)
    return weights / weights.sum(2, keepdim=True)


def spread(values: Tensor, sigma_bins: float) -> Tensor:
    """Spread every cell over its neighbours in frequency and time; the sum of the map stays.

    Parameters
    ----------
    values, shape=(*, freq, time)
        Map, in any unit.
    sigma_bins
        Standard deviation in cells of either axis.

    Examples
    --------
    >>> spread(torch.eye(3), 1.0).sum().item()
    3.0
    """
    sigma = torch.tensor([sigma_bins], device=values.device)
    by_freq, by_time = (gaussian_matrix(size, sigma)[0] for size in values.shape[-2:])
    return (by_freq.T @ values.double() @ by_time).to(values.dtype)
