"""Control: edges of the input by the Sobel operator, sqrt(G_f^2 + G_t^2).

Edges look like an explanation but know no model: a method that scores no better has found contours.

References
----------
Adebayo, J. et al. (2018). Sanity checks for saliency maps. NeurIPS, section 3 (edge detector).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from sonolens.explain.contract import Attribution, Target, grouped

SOBEL = ((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0), (-1.0, 0.0, 1.0))


def attribute(
    model: nn.Module,
    inputs: Tensor,
    target: Target,
    *,
    baseline: Tensor | None,
    item_seeds: Tensor,
    segments: Tensor | None = None,
) -> Attribution:
    """Edge strength over the last two axes, shape=(batch, *shape), at least 0.

    The border is continued by its own values. Waveforms (batch, time) have edges in time alone.
    """
    n_rows = inputs.shape[-2] if inputs.ndim > 2 else 1
    planes = inputs.detach().reshape(-1, 1, n_rows, inputs.shape[-1])
    across = torch.tensor(SOBEL, dtype=inputs.dtype, device=inputs.device)
    kernels = torch.stack([across, across.T]).unsqueeze(1)
    slopes = functional.conv2d(functional.pad(planes, (1, 1, 1, 1), mode="replicate"), kernels)
    values = slopes.square().sum(1).sqrt().view(inputs.shape)
    return Attribution(grouped(values, segments), n_evaluations=0)
