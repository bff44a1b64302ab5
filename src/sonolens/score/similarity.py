"""How alike two batches of vectors or maps are; NaN where one of a pair is constant or zero.

References
----------
Wang, Z. et al. (2004). Image quality assessment: from error visibility to structural similarity.
IEEE Transactions on Image Processing 13(4), equation 13 (here with a uniform window of 7 and sample
covariances, as scikit-image).
"""

from __future__ import annotations

import torch
from scipy.stats import rankdata
from torch import Tensor
from torch.nn import functional

SSIM_WINDOW = 7
SSIM_K1, SSIM_K2 = 0.01, 0.03
# Sums of equal numbers differ by rounding: a vector that varies by less than this share of its
# largest value counts as constant.
CONSTANT = 1e-12


def pearson(first: Tensor, second: Tensor) -> Tensor:
    """Correlation along the last axis, (..., n) and (..., n) -> (...), float64."""
    first, second = first.double(), second.double()
    first_centred = first - first.mean(-1, keepdim=True)
    second_centred = second - second.mean(-1, keepdim=True)
    product = (first_centred * second_centred).sum(-1)
    result = product / (first_centred.norm(dim=-1) * second_centred.norm(dim=-1))
    constant = _constant(first, first_centred) | _constant(second, second_centred)
    return torch.where(constant, torch.nan, result.clamp(-1, 1))


def _constant(values: Tensor, centred: Tensor) -> Tensor:
    return centred.abs().amax(-1) <= CONSTANT * values.abs().amax(-1)


def spearman(first: Tensor, second: Tensor) -> Tensor:
    """Rank correlation, ties share their mean rank; (batch, n) twice -> (batch,)."""
    return pearson(_ranks(first), _ranks(second))


def _ranks(values: Tensor) -> Tensor:
    ranks: Tensor = torch.as_tensor(rankdata(values.cpu().numpy(), axis=-1))
    return ranks


def cosine(first: Tensor, second: Tensor) -> Tensor:
    """Cosine of the angle between vectors, (batch, n) twice -> (batch,)."""
    first, second = first.double(), second.double()
    norms: Tensor = first.norm(dim=-1) * second.norm(dim=-1)
    return (first * second).sum(-1) / norms


def ssim(first: Tensor, second: Tensor) -> Tensor:
    """Structural similarity of maps, each divided by its own largest magnitude first.

    Parameters
    ----------
    first, second, shape=(batch, height, width)
        Maps; a map below 7 x 7 gets a smaller odd window.

    Returns
    -------
    Tensor, shape=(batch,), in [-1, 1]
        Mean over all windows that lie inside; NaN when a map is zero everywhere.
    """
    return unscaled_ssim(_scaled(first.double()), _scaled(second.double()))


def unscaled_ssim(first: Tensor, second: Tensor) -> Tensor:
    """As `ssim` for maps as they are; vectors (batch, n) get a window of 7 along themselves."""
    n_axes = first.ndim - 1
    first, second = (
        maps.double().reshape(len(maps), 1, -1, maps.shape[-1]) for maps in (first, second)
    )
    pair = torch.cat([first, second], 1).flatten(1)
    data_range = (pair.amax(1) - pair.amin(1)).view(-1, 1, 1, 1)
    window = min(SSIM_WINDOW, *first.shape[-n_axes:])
    window -= 1 - window % 2
    n_cells = window**n_axes
    kernel = (window if n_axes == 2 else 1, window)

    def mean(values: Tensor) -> Tensor:
        return functional.avg_pool2d(values, kernel, stride=1)

    mean1, mean2 = mean(first), mean(second)
    unbiased = n_cells / (n_cells - 1) if n_cells > 1 else 1.0
    variance1 = unbiased * (mean(first * first) - mean1**2)
    variance2 = unbiased * (mean(second * second) - mean2**2)
    covariance = unbiased * (mean(first * second) - mean1 * mean2)
    c1, c2 = (SSIM_K1 * data_range) ** 2, (SSIM_K2 * data_range) ** 2
    luminance = (2 * mean1 * mean2 + c1) / (mean1**2 + mean2**2 + c1)
    structure = (2 * covariance + c2) / (variance1 + variance2 + c2)
    return (luminance * structure).mean((1, 2, 3))


def _scaled(maps: Tensor) -> Tensor:
    return maps / maps.abs().amax((1, 2), keepdim=True)
