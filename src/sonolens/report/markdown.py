"""Pieces of Markdown: numbers with intervals, tables."""

from __future__ import annotations

import math
from collections.abc import Sequence

EMPTY = "–"


def interval(value: float | None, low: float | None, high: float | None, digits: int = 2) -> str:
    """Estimate and interval.

    >>> interval(0.97, 0.934, 0.99)
    '0.97 [0.93, 0.99]'
    >>> interval(0.97, None, None)
    '0.97'
    >>> interval(None, None, None)
    '–'
    """
    value, low, high = (as_float(part) for part in (value, low, high))
    if math.isnan(value):
        return EMPTY
    text = f"{value:.{digits}f}"
    if math.isnan(low) or math.isnan(high):
        return text
    return f"{text} [{low:.{digits}f}, {high:.{digits}f}]"


def markdown_table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown table without a final line break."""
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def as_float(value: float | None) -> float:
    """NaN for None, which is how JSON says it."""
    return math.nan if value is None else float(value)
