"""Control: independent N(0, 1) numbers, a function of the item's seed alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sonolens import rng
from sonolens.explain.contract import Attribution, Target, grouped


def attribute(
    model: nn.Module,
    inputs: Tensor,
    target: Target,
    *,
    baseline: Tensor | None,
    item_seeds: Tensor,
    segments: Tensor | None = None,
) -> Attribution:
    """Random numbers, shape=(batch, *shape); see `contract.Method`."""
    maps = [
        torch.randn(inputs.shape[1:], generator=rng.torch_generator(seed, "random_map"))
        for seed in item_seeds.tolist()
    ]
    values = torch.stack(maps).to(inputs)
    return Attribution(grouped(values, segments), n_evaluations=0)
