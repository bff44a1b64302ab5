"""Files and folders that a user names on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sonolens.data.corpora.contract import CorpusError
from sonolens.data.corpora.listing import audio_files


def named_recordings(paths: Sequence[Path]) -> tuple[list[tuple[Path, str]], list[str]]:
    """Audio files with a name each, unique among them, and what is wrong with the other paths.

    A folder stands for all audio files below it; a file named twice counts once. The name is the
    file's stem, numbered from 2 until it is free where it is taken. Names that differ in case
    alone count as equal, since some file systems do not tell them apart.
    """
    found: list[Path] = []
    bad: list[str] = []
    for path in paths:
        if path.is_dir():
            try:
                found += audio_files(path, path.name)
            except CorpusError:
                bad.append(f"{path}: no audio file in this folder")
        elif path.is_file():
            found.append(path)
        else:
            bad.append(f"{path}: no such file")
    taken: set[str] = set()
    named = []
    once: dict[Path, Path] = {}
    for path in found:
        once.setdefault(path.resolve(), path)
    for path in once.values():
        named.append((path, _free(path.stem, taken)))
    return named, bad


def _free(stem: str, taken: set[str]) -> str:
    """`stem`, or the first of `stem`_2, `stem`_3, … that is not taken; it is taken then."""
    name, number = stem, 1
    while name.casefold() in taken:
        number += 1
        name = f"{stem}_{number}"
    taken.add(name.casefold())
    return name
