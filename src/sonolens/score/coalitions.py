"""Groups of cells that are removed together, and by how much the model's output drops.

Neither depends on an attribution: both are drawn and evaluated once per batch and shared by all
methods and metrics.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from sonolens import rng
from sonolens.explain import segments
from sonolens.score.compat import legacy_generator
from sonolens.score.contract import Context
from sonolens.store import batches

Mode = Literal["patch", "scattered"]


@dataclass(frozen=True)
class Coalitions:
    """What was removed and what it cost.

    chosen      shape=(batch, R, size), int64: groups of each coalition
    labels      shape=(cells,), int64: group of every cell; None: every cell is one
    drops       shape=(batch, R), float64: F(x) - F(x with the coalition filled)
    """

    chosen: Tensor
    labels: Tensor | None
    drops: Tensor

    def sums(self, values: Tensor) -> Tensor:
        """Sums of `values` (batch, cells), float64 on the CPU, over each coalition, (batch, R)."""
        if self.labels is not None:
            n_groups = int(self.labels.max()) + 1
            groups = torch.zeros(len(values), n_groups, dtype=torch.float64)
            values = groups.scatter_add_(1, self.labels.expand(len(values), -1), values)
        picked = values.gather(1, self.chosen.flatten(1))
        return picked.view(self.chosen.shape).sum(-1)


def draw(
    context: Context,
    mode: Mode,
    n_coalitions: int,
    n_patches: int,
    subset_size: int,
    batch_size: int,
) -> Coalitions:
    """Coalitions of each item, a function of its seed, with their drops; see `Context.shared`.

    Parameters
    ----------
    context
        Needs `predict`, `edit`, `fill`, `item_seeds`.
    mode
        Patches of a grid of n_patches x n_patches, or scattered single cells; over all channels.
    n_coalitions
        R.
    n_patches
        See `mode`; fewer where the map is smaller.
    subset_size
        Groups in a coalition, at most half of all.
    batch_size
        Inputs per call of the model; items never share a call.
    """

    def make() -> Coalitions:
        plane = context.inputs.shape[2 if context.inputs.ndim >= 4 else 1 :]
        labels = None
        n_groups = plane.numel()
        if mode == "patch":
            grid = segments.patches(context.inputs, n_patches).cpu()
            labels = grid.view(-1, n_groups)[0]
            n_groups = int(labels.max()) + 1
        size = max(1, min(subset_size, n_groups // 2))
        chosen, drops = [], []
        for item, seed in enumerate(context.item_seeds.tolist()):
            draws = rng.numpy_generator(seed, "faithfulness").random((n_coalitions, n_groups))
            picked = _smallest(draws, size)
            member = np.zeros((n_coalitions, n_groups), dtype=bool)
            np.put_along_axis(member, picked, True, axis=1)
            cells = torch.from_numpy(member)
            if labels is not None:
                cells = cells[:, labels]
            drops.append(_drops(context, item, cells, context.fill[item], batch_size))
            chosen.append(torch.from_numpy(picked))
        return Coalitions(torch.stack(chosen), labels, torch.stack(drops))

    key = ("coalitions", mode, n_coalitions, n_patches, subset_size, batch_size)
    found: Coalitions = context.shared(key, make)
    return found


def draw_quantus(
    context: Context, n_coalitions: int, subset_size: int, batch_size: int, seed: int | None
) -> Coalitions:
    """Coalitions as Quantus 0.6 draws them after `np.random.seed(seed)`, single cells of a channel.

    For each coalition one `choice` per item, then one number per item that nothing uses. The fill
    is the smallest value of the item.
    """

    def make() -> Coalitions:
        generator = legacy_generator(seed, "faithfulness_correlation")
        n_items, n_cells = len(context.inputs), context.inputs[0].numel()
        rounds = []
        for _ in range(n_coalitions):
            rounds.append(
                [generator.choice(n_cells, subset_size, replace=False) for _ in range(n_items)]
            )
            generator.uniform(0, 1, n_items)
        chosen = np.array(rounds).swapaxes(0, 1)
        drops = []
        for item, picked in enumerate(chosen):
            member = np.zeros((n_coalitions, n_cells), dtype=bool)
            np.put_along_axis(member, picked, True, axis=1)
            fill = context.inputs[item].amin().expand(context.inputs.shape[1:])
            drops.append(_drops(context, item, torch.from_numpy(member), fill, batch_size))
        return Coalitions(torch.from_numpy(chosen), None, torch.stack(drops))

    found: Coalitions = context.shared(
        ("coalitions quantus", n_coalitions, subset_size, batch_size, seed), make
    )
    return found


def _smallest(draws: np.ndarray, size: int) -> np.ndarray:
    """Columns of the `size` smallest of each row, in any order; (rows, size).

    Uniform draws: only those below a bound that nearly always holds more than `size` are ordered.
    """
    n_rows, n_columns = draws.shape
    expected = size / n_columns
    bound = expected + 5 * np.sqrt(expected / n_columns) + 3 / n_columns
    rows, columns = np.divmod(np.flatnonzero(draws < bound), n_columns)
    counts = np.bincount(rows, minlength=n_rows)
    if counts.min() < size or 2 * counts.max() > n_columns:
        return np.argpartition(draws, size - 1, axis=1)[:, :size]
    places = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    values = np.ones((n_rows, counts.max()))
    values[rows, places] = draws[rows, columns]
    which = np.zeros(values.shape, dtype=np.int64)
    which[rows, places] = columns
    picked = np.argpartition(values, size - 1, axis=1)[:, :size]
    return np.take_along_axis(which, picked, axis=1)


def _drops(context: Context, item: int, cells: Tensor, fill: Tensor, batch_size: int) -> Tensor:
    """Drops (R,) of one item; `cells` (R, cells of a plane or of all channels), boolean."""
    original = context.inputs[item]
    n_channels = original.numel() // cells.shape[1]
    shape = original.shape if n_channels == 1 else (1, *original.shape[1:])
    masks = cells.view(len(cells), *shape)
    values = [context.predict(original[None], torch.tensor([item]))]
    for chunk in batches(len(cells), batch_size):
        n = len(chunk)
        mask = masks[chunk.start : chunk.stop].to(original)
        edited = context.edit(
            original.expand(n, *original.shape),
            mask.expand(n, *original.shape),
            fill.expand(n, *original.shape),
        )
        values.append(context.predict(edited, torch.full((n,), item)))
    found = torch.cat(values).double().cpu()
    return found[0] - found[1:]
