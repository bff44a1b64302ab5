"""Input times gradient: the input's share in the target if the model were linear and b = 0.

It compares with zero whatever zero means: on a dB scale of [0, 1] that is silence, on one of
[-80, 0] the loudest value. With a baseline of one's own, deeplift and integrated_gradients ask the
same question.

References
----------
Shrikumar, A. et al. (2016). Not just a black box: learning important features through propagating
activation differences. arXiv:1605.01713, section 2.
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
    """X times gradient, shape=(batch, *shape), in units of the target; see `contract.Method`."""
    grads, _ = gradient(model, inputs, target)
    return Attribution(grouped(inputs.detach() * grads, segments))
