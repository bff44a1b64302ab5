"""Saliency: gradient of the target with respect to the input.

The sign is kept, because removing a cell with a negative gradient raises the target and a
faithfulness score must see that; figures and rank metrics take the magnitude themselves. (captum's
default is the magnitude.)

References
----------
Simonyan, K., Vedaldi, A., Zisserman, A. (2014). Deep inside convolutional networks. ICLR workshop,
section 3.
"""

from __future__ import annotations

from torch import Tensor, nn

from sonolens.explain.contract import Attribution, Target, gradient, grouped


def attribute(
    model: nn.Module,
    inputs: Tensor,
    target: Target,
    *,
    baseline: Tensor | None,
    item_seeds: Tensor,
    segments: Tensor | None = None,
) -> Attribution:
    """Signed gradient, shape=(batch, *shape), target per input unit; see `contract.Method`."""
    grads, _ = gradient(model, inputs, target)
    return Attribution(grouped(grads, segments))
