"""Expected gradients: integrated gradients by sampling, over many baselines at the price of one.

A = mean_n (x_n - b_n) dF/dx(b_n + alpha_n (x_n - b_n)), x_n = x + e_n. Two rows:

gradient_shap        b_n and alpha_n ~ U(0, 1) drawn independently, e_n ~ N(0, (stdev range)^2):
                     captum's GradientShap, with noise as a share of the item's range
expected_gradients   stratified: alpha_n = (n + u) / N with u ~ U(0, 1), and every baseline equally
                     often, see `draw_positions`; no noise. The same expectation, less variance

`ig_noisefloor` is the second one with a point for each draw of the recording's own noise floor: it
explains the sound against its background.

All draws are functions of the item's seed, made one by one: a map depends on no chunk and no batch.

References
----------
Erion, G. et al. (2021). Improving performance of deep learning models with axiomatic attribution
priors and expected gradients. Nature Machine Intelligence 3, equation 2.
Lundberg, S. M., Lee, S.-I. (2017). A unified approach to interpreting model predictions. NeurIPS
(GradientExplainer of the shap package).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sonolens import rng
from sonolens.explain.contract import (
    Attribution,
    ExplainError,
    Target,
    completeness_error,
    even_chunks,
    gradient,
    grouped,
    normal_draws,
    per_item,
    require_baseline,
    target_change,
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
    n_draws: int | None = 32,
    noise_stdev: float = 0.0,
    chunk_size: int = 32,
    stratified: bool = True,
) -> Attribution:
    """Gradients at random points between baselines and input, times the way between them.

    Parameters
    ----------
    model, inputs, target, baseline, item_seeds, segments
        See `contract.Method`; every baseline is a draw of the reference distribution.
    n_draws
        Points per item; None: one for each baseline.
    noise_stdev
        Standard deviation of the noise on the input as a share of the item's range.
    chunk_size
        Points per call of the model.
    stratified
        See the module.

    Returns
    -------
    Attribution
        values (batch, *shape) in units of the target, with the completeness error against the mean
        over all baselines.

    Raises
    ------
    ExplainError
        No or ill-shaped baseline; n_draws or chunk_size below 1, noise_stdev below 0.
    """
    inputs = inputs.detach()
    starts = require_baseline(baseline, inputs, "expected gradients").detach()
    n_draws = starts.shape[1] if n_draws is None else n_draws
    if n_draws < 1 or chunk_size < 1 or noise_stdev < 0:
        raise ExplainError(
            f"expected gradients: n_draws {n_draws}, chunk_size {chunk_size}, noise_stdev "
            f"{noise_stdev}; need at least 1, 1 and 0"
        )
    stdevs = noise_stdev * value_range(inputs)
    maps = []
    for item, seed in enumerate(item_seeds.tolist()):
        end = inputs[item]
        which, positions = draw_positions(seed, n_draws, starts.shape[1], stratified)
        generator = rng.torch_generator(seed, "gradient_shap_noise")
        total = torch.zeros_like(end, dtype=torch.float64)
        for chunk in even_chunks(n_draws, chunk_size):
            begin = starts[item, which[chunk].to(starts.device)]
            ends = end
            if noise_stdev:
                ends = end + stdevs[item] * normal_draws(generator, len(chunk), end)
            steps = ends - begin
            points = begin + per_item(positions[chunk].to(steps), steps) * steps
            rows = torch.full((len(chunk),), item, device=inputs.device)
            grads, _ = gradient(model, points, target, rows)
            total += (steps * grads).sum(0)
        maps.append((total / n_draws).to(inputs.dtype))
    values = torch.stack(maps)
    change = target_change(model, inputs, baseline, target, chunk_size)
    return Attribution(
        grouped(values, segments),
        completeness_error=completeness_error(values, change),
        n_evaluations=n_draws + starts.shape[1] + 1,
    )


def draw_positions(
    seed: int, n_draws: int, n_baselines: int, stratified: bool
) -> tuple[Tensor, Tensor]:
    """Which baseline each point starts from, int64, and how far it is, float64 in [0, 1).

    Stratified: one point in every n_draws-th part of the way, and the baselines in random order,
    all of them before any comes again; at every part each baseline is as likely as any other, so
    the mean is that of independent draws.
    """
    generator = rng.numpy_generator(seed, "expected_gradients")
    positions = torch.from_numpy(generator.random(n_draws))
    if not stratified:
        return torch.from_numpy(generator.integers(n_baselines, size=n_draws)), positions
    n_turns = -(-n_draws // n_baselines)
    turns = [torch.from_numpy(generator.permutation(n_baselines)) for _ in range(n_turns)]
    return torch.cat(turns)[:n_draws], (torch.arange(n_draws) + positions) / n_draws
