"""First layer of the classifiers: standardisation fixed by the training fold."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Standardise(nn.Module):
    """(x - mean) / std with one mean and std per channel, held as buffers.

    Input and output (batch, channel, [freq,] time). Inside the model, so that maps and baselines
    live on the scale of the features.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, n_channels: int = 1) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_channels))
        self.register_buffer("std", torch.ones(n_channels))

    def fit(self, inputs: Tensor) -> None:
        """Set mean and std from (n, channel, [freq,] time)."""
        others = (0, *range(2, inputs.ndim))
        self.mean.copy_(inputs.mean(others))
        self.std.copy_(inputs.std(others).clamp_min(1e-6))

    def forward(self, inputs: Tensor) -> Tensor:
        shape = (1, -1, *[1] * (inputs.ndim - 2))
        return (inputs - self.mean.view(shape)) / self.std.view(shape)
