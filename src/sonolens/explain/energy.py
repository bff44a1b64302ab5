"""Control: the input's distance from the baseline, x - b.

It looks like sound but knows no model; a method that scores no better has only copied the energy.
"""

from __future__ import annotations

from torch import Tensor, nn

from sonolens.explain.contract import Attribution, Target, grouped, require_baseline


def attribute(
    model: nn.Module,
    inputs: Tensor,
    target: Target,
    *,
    baseline: Tensor | None,
    item_seeds: Tensor,
    segments: Tensor | None = None,
) -> Attribution:
    """X minus the mean baseline, shape=(batch, *shape), in input units; see `contract.Method`."""
    difference = inputs.detach() - require_baseline(baseline, inputs, "energy").mean(1)
    return Attribution(grouped(difference, segments), n_evaluations=0)
