"""Metrics against a plain loop over coalitions."""

from __future__ import annotations

import numpy as np
import torch
from run import Case
from torch import Tensor

from cases.explain import network
from sonolens import rng
from sonolens.explain.contract import Items
from sonolens.explain.targets import ClassLogit
from sonolens.score import faithfulness_correlation
from sonolens.score.contract import Context

N_ITEMS, N_COALITIONS, SIZE, N_PATCHES, SUBSET = 8, 100, 64, 8, 8


def cases() -> list[Case]:
    """Row fc_1."""
    model = network().requires_grad_(False)
    inputs = torch.rand(N_ITEMS, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    maps = torch.randn(N_ITEMS, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    target = ClassLogit(tuple(number % 10 for number in range(N_ITEMS)))

    def predict(edited: Tensor, rows: Tensor) -> Tensor:
        with torch.no_grad():
            return target(model(edited), rows)

    def ours() -> Tensor:
        # A new context, since its cache would hold the model's drops.
        context = Context(
            Items(tuple(map(str, range(N_ITEMS))), ("a",) * N_ITEMS, target.class_index),
            inputs,
            target,
            predict,
            lambda values, mask, fill: values * (1 - mask) + fill * mask,
            torch.zeros_like(inputs),
            {},
            torch.arange(N_ITEMS),
        )
        return faithfulness_correlation.score(
            maps, context, n_coalitions=N_COALITIONS, n_patches=N_PATCHES, subset_size=SUBSET
        ).values

    def peer() -> list[float]:
        return [_plain(predict, inputs[item], maps[item], item) for item in range(N_ITEMS)]

    def check() -> str:
        error = np.abs(np.array(peer()) - ours().numpy()).max()
        assert error < 1e-3, f"scores differ by {error:.2g}"
        return f"equal within {error:.1g}"

    size = f"{N_ITEMS} maps, {N_COALITIONS} coalitions, against a loop over coalitions"
    return [Case("fc_1", "score", peer, ours, check, 1.6, size)]


def _plain(predict, values: Tensor, attribution: Tensor, item: int) -> float:  # type: ignore[no-untyped-def]
    """The definition, one coalition at a time."""
    step = SIZE // N_PATCHES
    n_groups = N_PATCHES**2
    draws = rng.numpy_generator(item, "faithfulness").random((N_COALITIONS, n_groups))
    chosen = np.argpartition(draws, SUBSET - 1, axis=1)[:, :SUBSET]
    row = torch.tensor([item])
    whole = float(predict(values[None], row))
    sums, drops = [], []
    for coalition in chosen:
        edited, total = values.clone(), 0.0
        for group in coalition:
            top, left = step * (group // N_PATCHES), step * (group % N_PATCHES)
            cells = (slice(None), slice(top, top + step), slice(left, left + step))
            total += float(attribution[cells].double().sum())
            edited[cells] = 0
        sums.append(total)
        drops.append(whole - float(predict(edited[None], row)))
    return float(np.corrcoef(sums, drops)[0, 1])
