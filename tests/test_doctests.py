"""The examples in the docstrings of `dsp`, `score`, `rng` and the docs helpers are true."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parent.parent / "src"
FILES = [*(SRC / "sonolens" / "dsp").glob("*.py"), *(SRC / "sonolens" / "score").glob("*.py"),
         SRC / "sonolens" / "rng.py", SRC / "sonolens" / "report" / "docs.py"]  # fmt: skip
NAMES = sorted(
    ".".join(path.relative_to(SRC).with_suffix("").parts)
    for path in FILES
    if path.stem != "__init__"
)


@pytest.mark.parametrize("name", NAMES)
def test_examples(name: str) -> None:
    result = doctest.testmod(
        importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE
    )
    assert result.failed == 0
