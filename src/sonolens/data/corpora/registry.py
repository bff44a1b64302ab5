"""Names of the corpora; a source with another name is a folder of the user's own."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from sonolens.data.corpora.contract import CorpusInfo

NAMES = ("audiomnist", "formant_words", "fsdd", "mnist", "sklearn_digits")
FALLBACK = "folder"


def load(name: str) -> ModuleType:
    """Module of the corpus `name`; for other names `folder`, which reads own recordings."""
    return import_module(f"sonolens.data.corpora.{name if name in NAMES else FALLBACK}")


def names(modality: str) -> list[str]:
    """Known corpora of a modality, ``audio`` or ``image``."""
    return [name for name in NAMES if load(name).INFO.modality == modality]


def info(name: str) -> CorpusInfo | None:
    """Card of the corpus `name`; None for a folder of the user's own."""
    if name not in NAMES:
        return None
    card: CorpusInfo = load(name).INFO
    return card
