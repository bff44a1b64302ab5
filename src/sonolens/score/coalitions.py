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
        draws = np.empty((n_coalitions, n_groups))  # one for all items: it stays in the cache
        chosen = []
        for seed in context.item_seeds.tolist():
            rng.numpy_generator(seed, "faithfulness").random(out=draws)
            chosen.append(torch.from_numpy(_smallest(draws, size)))
        groups = torch.stack(chosen)
        drops = _drops(context, groups, n_groups, labels, context.fill, batch_size)
        return Coalitions(groups, labels, drops)

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
        chosen = torch.from_numpy(np.array(rounds).swapaxes(0, 1).copy())
        lowest = context.inputs.flatten(1).amin(1)
        fill = lowest.view(-1, *[1] * (context.inputs.ndim - 1)).expand_as(context.inputs)
        return Coalitions(chosen, None, _drops(context, chosen, n_cells, None, fill, batch_size))

    found: Coalitions = context.shared(
        ("coalitions quantus", n_coalitions, subset_size, batch_size, seed), make
    )
    return found


def _smallest(draws: np.ndarray, size: int) -> np.ndarray:
    """Columns of the `size` smallest of each row, in any order; (rows, size).

    Uniform draws: only those below a bound that nearly always holds more than `size` are looked at
    twice.
    """
    n_rows, n_columns = draws.shape
    expected = size / n_columns
    bound = expected + 5 * np.sqrt(expected / n_columns) + 3 / n_columns
    few = np.flatnonzero(draws < bound)
    starts = np.searchsorted(few, n_columns * np.arange(n_rows + 1))
    counts = np.diff(starts)
    if counts.min() >= size and 2 * counts.max() <= n_columns:
        places = np.arange(counts.max())
        which = few[np.minimum(starts[:-1, None] + places, len(few) - 1)]
        values = draws.ravel()[which]
        values[places >= counts[:, None]] = 1
        picked = which[values <= np.partition(values, size - 1, axis=1)[:, size - 1 : size]]
        if len(picked) == n_rows * size:  # no tie at the last place
            columns: np.ndarray = picked.reshape(n_rows, size) % n_columns
            return columns
    return np.argpartition(draws, size - 1, axis=1)[:, :size]


def _drops(
    context: Context,
    chosen: Tensor,
    n_groups: int,
    labels: Tensor | None,
    fill: Tensor,
    batch_size: int,
) -> Tensor:
    """Drops (batch, R); groups are cells of a plane or, where that is more, of all channels."""
    shape = context.inputs.shape[1:]
    n_cells = n_groups if labels is None else len(labels)
    if n_cells != shape.numel():
        shape = torch.Size((1, *shape[1:]))
    member = context.inputs.new_zeros(chosen.shape[1], n_groups)
    found = []
    for item, picked in enumerate(chosen.to(member.device)):
        original = context.inputs[item]
        member.scatter_(1, picked, 1)
        masks = (member if labels is None else member[:, labels]).view(-1, *shape)
        values = [context.predict(original[None], torch.tensor([item]))]
        for rows in batches(len(masks), batch_size):
            whole = (len(rows), *original.shape)
            edited = context.edit(
                original.expand(whole),
                masks[rows.start : rows.stop].expand(whole),
                fill[item].expand(whole),
            )
            values.append(context.predict(edited, torch.full((len(rows),), item)))
        member.scatter_(1, picked, 0)
        outputs = torch.cat(values).double().cpu()
        found.append(outputs[0] - outputs[1:])
    return torch.stack(found)
