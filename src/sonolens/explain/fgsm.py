"""Fast gradient sign as a measure of sensitivity: who moves, and what the move does.

x_adv = x - epsilon range sign(g), g = dF/dx: the step of the paper that lowers the target most
among all of its size in the maximum norm. The map is the step, scaled so that its magnitudes sum to
the measured change:

    A_i = sign(g_i) (F(x) - F(x_adv)) / #{j: g_j != 0}

so one forward pass is spent on the true, not the linearised, change. Every cell that moves counts
alike, which is the point of the sign: the map tells directions and, by its size, how easily the
item is fooled, but it ranks no cells within an item; saliency does.

References
----------
Goodfellow, I. J., Shlens, J., Szegedy, C. (2015). Explaining and harnessing adversarial examples.
ICLR, section 4 (there the loss rises; here it is -F).
"""

from __future__ import annotations

from torch import Tensor, nn

from sonolens.explain.contract import (
    Attribution,
    ExplainError,
    Target,
    evaluate,
    gradient,
    grouped,
    per_item,
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
    epsilon: float = 0.01,
) -> Attribution:
    """Sign of the gradient times the change that the step makes.

    Parameters
    ----------
    model, inputs, target, baseline, item_seeds, segments
        See `contract.Method`.
    epsilon
        Size of the step as a share of the item's range (maximum - minimum).

    Returns
    -------
    Attribution
        values (batch, *shape), signed, in units of the target.

    Raises
    ------
    ExplainError
        epsilon not above 0.
    """
    if not epsilon > 0:
        raise ExplainError(f"fgsm: epsilon {epsilon}; need a share of the item's range above 0")
    inputs = inputs.detach()
    grads, values = gradient(model, inputs, target)
    signs = grads.sign()
    change = values - evaluate(model, inputs - epsilon * value_range(inputs) * signs, target)
    n_moved = signs.flatten(1).count_nonzero(1).clamp_min(1)
    return Attribution(
        grouped(signs * per_item(change / n_moved, signs), segments), n_evaluations=2
    )
