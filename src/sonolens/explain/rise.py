"""RISE: the mean target over random smooth masks that keep a cell.

A(cell) = sum_i F(x . m_i + b . (1 - m_i)) m_i(cell) / sum_i m_i(cell). A mask is a grid of
independent 0 and 1, enlarged bilinearly and shifted by less than a cell of the grid. Differs from
equation 6: divided by the sum of the masks over the cell instead of its expectation, so that a
target that does not depend on the input has a flat map; what is removed is the baseline, not 0.
The map has the level of the target itself: its sum means nothing.

References
----------
Petsiuk, V., Das, A., Saenko, K. (2018). RISE: randomized input sampling for explanation of
black-box models. BMVC, equation 6, section 3.2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from sonolens import rng
from sonolens.explain.contract import Attribution, ExplainError, Target, frozen, grouped
from sonolens.explain.removal import Kept, items, plane_of


def attribute(
    model: nn.Module,
    inputs: Tensor,
    target: Target,
    *,
    baseline: Tensor | None,
    item_seeds: Tensor,
    segments: Tensor | None = None,
    n_masks: int = 512,
    grid_size: int = 7,
    keep_probability: float = 0.5,
    chunk_size: int = 32,
) -> Attribution:
    """Mean target where a cell is kept, shape=(batch, *shape), in units of the target.

    Parameters
    ----------
    model, inputs, target, baseline, item_seeds, segments
        See `contract.Method`; the values of K baselines are averaged, a map is pooled by segment.
    n_masks
        Masks per item.
    grid_size
        Cells of the coarse grid along each of the last two axes, fewer where these are shorter; the
        axes before them share a mask.
    keep_probability
        Of a cell of the grid, between 0 and 1.
    chunk_size
        Inputs per call of the model.

    Raises
    ------
    ExplainError
        No or ill-shaped baseline or segments; a target that is not finite; an option out of range.
    """
    if n_masks < 1 or grid_size < 1 or not 0 < keep_probability < 1:
        raise ExplainError(
            f"rise: n_masks {n_masks}, grid_size {grid_size}, keep_probability "
            f"{keep_probability}; need at least 1, at least 1, and between 0 and 1"
        )
    maps = []
    with torch.no_grad(), frozen(model):
        for item, seed in zip(
            items(model, inputs, target, baseline, chunk_size, "rise"),
            item_seeds.tolist(),
            strict=True,
        ):
            kept = masks(item.end, n_masks, grid_size, keep_probability, seed)
            total = torch.zeros_like(item.end, dtype=torch.float64)
            count = torch.zeros_like(total)
            for _, mask, values in item.stream(n_masks, kept):
                flat = mask.double().flatten(1)
                total += (values @ flat).view(mask.shape[1:])
                count += flat.sum(0).view(mask.shape[1:])
            # A cell that no mask kept, with a handful of masks at most, has no mean: 0.
            maps.append(torch.where(count > 0, total / count, 0).to(inputs))
    n_draws = 1 if baseline is None else baseline.shape[1]
    return Attribution(grouped(torch.stack(maps), segments), n_evaluations=n_masks * n_draws)


def masks(end: Tensor, n_masks: int, grid_size: int, keep_probability: float, seed: int) -> Kept:
    """Smooth random masks of one input `end` (*shape), with axes of size 1 before the last two."""
    plane = plane_of(end.shape)
    grid = [min(grid_size, size) for size in plane]
    cell = [-(-size // n) for size, n in zip(plane, grid, strict=True)]
    generator = rng.torch_generator(seed, "rise")
    coarse = (torch.rand(n_masks, 1, *grid, generator=generator) < keep_probability).to(end)
    shifts = [torch.randint(size, (n_masks,), generator=generator).tolist() for size in cell]
    enlarged = [(n + 1) * size for n, size in zip(grid, cell, strict=True)]
    shape = (-1, *[1] * (end.ndim - 2), *plane[-end.ndim :])

    def kept(edits: Tensor) -> Tensor:
        large = functional.interpolate(coarse[edits], enlarged, mode="bilinear")
        cut = [
            one[:, shifts[0][row] :, shifts[1][row] :][:, : plane[0], : plane[1]]
            for one, row in zip(large, edits.tolist(), strict=True)
        ]
        return torch.cat(cut).reshape(shape)

    return kept
