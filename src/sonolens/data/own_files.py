"""Files and folders that a user names on the command line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from sonolens.data.corpora.contract import CorpusError
from sonolens.data.corpora.listing import audio_files


def named_recordings(paths: Sequence[Path]) -> tuple[list[tuple[Path, str]], list[str]]:
    """Audio files with a name each, unique among them, and what is wrong with the other paths.

    A folder stands for all audio files below it. The name is the file's stem, numbered from the
    second on where stems repeat.
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
    seen: Counter[str] = Counter()
    named = []
    for path in dict.fromkeys(found):
        seen[path.stem] += 1
        named.append(
            (path, path.stem if seen[path.stem] == 1 else f"{path.stem}_{seen[path.stem]}")
        )
    return named, bad
