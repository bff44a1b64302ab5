"""Randomness as a function of named things, so that nothing depends on order or worker count."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


SEPARATOR = "\x1f"


def seed_for(*parts: int | str) -> int:
    """Seed in [0, 2**63) that is a function of `parts` alone, e.g. (seed, epoch, item_id, draw).

    >>> seed_for(0, "a") == seed_for(0, "a") != seed_for(0, "b")
    True
    """
    text = SEPARATOR.join(_text(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def _text(part: int | str) -> str:
    if isinstance(part, str):
        return "str:" + part.replace(SEPARATOR, 2 * SEPARATOR)
    if isinstance(part, (int, np.integer)) and not isinstance(part, bool):
        return f"int:{int(part)}"  # an int64 from a table is the same number
    raise TypeError(f"seed_for: found {part!r}, need integers and strings")


def numpy_generator(*parts: int | str) -> np.random.Generator:
    """NumPy generator seeded by `seed_for(*parts)`."""
    return np.random.default_rng(seed_for(*parts))


def torch_generator(*parts: int | str) -> torch.Generator:
    """CPU torch generator seeded by `seed_for(*parts)`."""
    import torch

    return torch.Generator().manual_seed(seed_for(*parts))


@contextmanager
def forked(*parts: int | str) -> Iterator[None]:
    """Seed the global generators of Python, NumPy and torch in the block, restore them after it.

    The one place for code that knows only global generators (initialisation, dropout).
    """
    with seeded(seed_for(*parts)):
        yield


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """`forked` with a bare seed, for what must draw the very numbers that another library draws."""
    import torch

    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices=devices):
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002 - the legacy generator is what such code reads
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002
