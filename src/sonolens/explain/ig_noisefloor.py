"""Expected gradients over a recording's noise floor: one point on the line from each draw of it.

A = mean_k (x - b_k) * dF/dx(b_k + alpha_k (x - b_k)), alpha_k uniform in the k-th of K equal parts
of [0, 1]; no inner loop of steps. It explains the sound against the recording's own background. The
k-th draw always lies in the k-th part: draws are exchangeable, so the parts
need no shuffling. Differs from the paper in these parts (there alpha is uniform).

References
----------
Erion, G. et al. (2021). Improving performance of deep learning models with axiomatic attribution
priors and expected gradients. Nature Machine Intelligence 3, equation 3.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sonolens import rng
from sonolens.explain.contract import Attribution, Target, grouped, require_baseline
from sonolens.explain.paths import check_steps, completeness_error, integrate, target_change


def attribute(
    model: nn.Module,
    inputs: Tensor,
    target: Target,
    *,
    baseline: Tensor | None,
    item_seeds: Tensor,
    segments: Tensor | None = None,
    chunk_size: int = 32,
) -> Attribution:
    """Expected gradients.

    Parameters
    ----------
    model, inputs, target, baseline, item_seeds, segments
        See `contract.Method`; K baselines, K gradients.
    chunk_size
        Path points per call of the model.

    Returns
    -------
    Attribution
        values (batch, *shape) in units of the target. The completeness error is against
        F(x) - mean F(b_k); it is a sampling error and falls with K.

    Raises
    ------
    ExplainError
        No or ill-shaped baseline; chunk_size below 1.
    """
    inputs = inputs.detach()
    baselines = require_baseline(baseline, inputs, "ig_noisefloor").detach()
    n_draws = baselines.shape[1]
    check_steps("ig_noisefloor", n_draws, chunk_size)
    maps = []
    for item, (end, starts) in enumerate(zip(inputs, baselines, strict=True)):
        positions = _positions(int(item_seeds[item]), n_draws).to(end.device)

        def steps(
            draws: Tensor, end: Tensor = end, starts: Tensor = starts, positions: Tensor = positions
        ) -> tuple[Tensor, Tensor]:
            start = starts[draws].double()
            line = end.double() - start
            return start + positions[draws].view(-1, *[1] * end.ndim) * line, line / n_draws

        maps.append(integrate(model, end, target, item, steps, n_draws, chunk_size))
    values = torch.stack(maps)
    change = target_change(model, inputs, baselines, target, chunk_size)
    return Attribution(
        grouped(values.to(inputs.dtype), segments),
        completeness_error=completeness_error(values, change),
        n_evaluations=2 * n_draws + 1,
    )


def _positions(seed: int, n_draws: int) -> Tensor:
    """A position in [0, 1] for each draw, uniform in its own part, shape=(n_draws,), float64."""
    generator = rng.torch_generator(seed, "ig_noisefloor")
    inside = torch.rand(n_draws, generator=generator, dtype=torch.float64)
    return (torch.arange(n_draws) + inside) / n_draws
