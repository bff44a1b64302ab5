"""SmoothGrad: the mean gradient over noisy copies of the input.

A = mean_n dF/dx(x + e_n), e_n ~ N(0, (stdev range)^2), range = maximum - minimum of the item, as in
the paper's figures. The sign is kept, as in saliency. Noise is drawn copy by copy from the item's
seed, so the map depends on no chunk and no batch.

References
----------
Smilkov, D. et al. (2017). SmoothGrad: removing noise by adding noise. arXiv:1706.03825, section 2
(equation for M-hat), section 3.2 (10 % to 20 % noise, 50 copies).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sonolens import rng
from sonolens.explain.contract import (
    Attribution,
    ExplainError,
    Target,
    even_chunks,
    gradient,
    grouped,
    normal_draws,
    value_range,
)


def attribute(
    model: nn.Module,
    inputs: Tensor,
    target: Target,
    *,
    baseline: Tensor | None,
    item_seeds: Tensor,
    segments: Tensor | None = None,
    n_draws: int = 50,
    noise_stdev: float = 0.1,
    chunk_size: int = 32,
) -> Attribution:
    """Mean gradient over noisy copies.

    Parameters
    ----------
    model, inputs, target, baseline, item_seeds, segments
        See `contract.Method`.
    n_draws
        Noisy copies per item.
    noise_stdev
        Standard deviation of the noise as a share of the item's range.
    chunk_size
        Copies per call of the model.

    Returns
    -------
    Attribution
        values (batch, *shape), signed, target per input unit.

    Raises
    ------
    ExplainError
        n_draws or chunk_size below 1, noise_stdev below 0.
    """
    if n_draws < 1 or chunk_size < 1 or noise_stdev < 0:
        raise ExplainError(
            f"smoothgrad: n_draws {n_draws}, chunk_size {chunk_size}, noise_stdev {noise_stdev}; "
            "need at least 1, 1 and 0"
        )
    inputs = inputs.detach()
    stdevs = noise_stdev * value_range(inputs)
    maps = []
    for item, seed in enumerate(item_seeds.tolist()):
        generator = rng.torch_generator(seed, "smoothgrad")
        total = torch.zeros_like(inputs[item], dtype=torch.float64)
        for chunk in even_chunks(n_draws, chunk_size):
            noise = normal_draws(generator, len(chunk), inputs[item])
            points = inputs[item] + stdevs[item] * noise
            rows = torch.full((len(chunk),), item, device=inputs.device)
            grads, _ = gradient(model, points, target, rows)
            total += grads.sum(0)
        maps.append((total / n_draws).to(inputs.dtype))
    return Attribution(grouped(torch.stack(maps), segments), n_evaluations=n_draws)
