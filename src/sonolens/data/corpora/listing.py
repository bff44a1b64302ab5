"""What the corpora that lie in files share: finding, counting, and the checksum of the sound."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from sonolens.data.audio import pcm_16
from sonolens.data.corpora.contract import CorpusError, CorpusInfo, Recording

AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".mp3", ".aif", ".aiff"})


def how_to_get(source: str, info: CorpusInfo | None) -> str:
    """The commands that bring a source in."""
    add = f"`sonolens data add {source} PATH` takes a copy of a folder you have"
    if info is None or info.remote is None:
        return add
    return f"`sonolens data fetch {source}` downloads it (licence {info.licence}), {add}"


def audio_files(folder: Path, source: str, info: CorpusInfo | None = None) -> list[Path]:
    """All audio files at any depth below `folder`, sorted by path; hidden ones do not count.

    Raises
    ------
    CorpusError
        If the folder is missing or holds no audio; the message gives the command that brings it in.
    """
    if not folder.is_dir():
        raise CorpusError(f"{folder}: not found; {how_to_get(source, info)}")
    found = []
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not _hidden(name))
        found += [
            Path(parent, name)
            for name in files
            if not _hidden(name) and os.path.splitext(name)[1].lower() in AUDIO_SUFFIXES
        ]
    if not found:
        suffixes = ", ".join(sorted(AUDIO_SUFFIXES))
        raise CorpusError(
            f"{folder}: no audio files ({suffixes}) below it; {how_to_get(source, info)}"
        )
    return sorted(found)


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def refuse_wrong_names(folder: Path, wrong: Sequence[Path], n_files: int, pattern: str) -> None:
    """Raise CorpusError if files do not follow the corpus's naming."""
    if wrong:
        names = ", ".join(path.relative_to(folder).as_posix() for path in wrong[:3])
        raise CorpusError(
            f"{folder}: {len(wrong)} of {n_files} audio files are not named {pattern}, e.g. "
            f"{names}; rename or remove them, or add the recordings under a source name of your own"
        )


def refuse_duplicates(folder: Path, recordings: Sequence[Recording]) -> None:
    """Raise CorpusError if two files claim the same recording."""
    seen: dict[str, str] = {}
    for recording in recordings:
        other = seen.setdefault(recording.recording_id, recording.path)
        if other != recording.path:
            raise CorpusError(
                f"{folder}: recording {recording.recording_id} is there twice, as {other} and as "
                f"{recording.path}; remove one"
            )


def refuse_incomplete(
    folder: Path, recordings: Sequence[Recording], n_persons: int, n_digits: int, n_repetitions: int
) -> None:
    """Raise CorpusError unless there are n_persons x n_digits x n_repetitions recordings."""
    persons = sorted({recording.person_id for recording in recordings})
    cells = Counter((recording.person_id, recording.extra["digit"]) for recording in recordings)
    short = sorted(
        f"{person}/{digit}: {cells[person, digit]}"
        for person in persons
        for digit in range(n_digits)
        if cells[person, digit] != n_repetitions
    )
    if len(persons) == n_persons and not short:
        return
    detail = (
        f"; not {n_repetitions} recordings for person/digit {', '.join(short[:3])}" if short else ""
    )
    raise CorpusError(
        f"{folder}: {len(recordings)} recordings of {len(persons)} persons, need {n_persons} "
        f"persons x {n_digits} digits x {n_repetitions}{detail}; complete it, or set partial: "
        "true to work with what is there"
    )


class ContentDigest:
    """SHA-256 over the sound of recordings, whatever files it lies in.

    Per recording the UTF-8 bytes of its recording_id, then the mono signal at its own rate as
    little-endian 16-bit integers. Give them in the order of recording_id.
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, recording_id: str, waveform: np.ndarray) -> None:
        """One recording; waveform: shape=(time,), full scale = 1, not resampled."""
        self._hash.update(recording_id.encode())
        self._hash.update(pcm_16(waveform).astype("<i2").tobytes())

    def hexdigest(self) -> str:
        """Of what was added until now."""
        return self._hash.hexdigest()


def content_sha256(recordings: Iterable[Recording]) -> str:
    """`ContentDigest` of all recordings, in any order; equal for WAV and lossless copies.

    Raises
    ------
    BadRecording
        If one cannot be decoded.
    """
    digest = ContentDigest()
    for recording in sorted(recordings, key=lambda item: item.recording_id):
        digest.add(recording.recording_id, recording.read().waveform)
    return digest.hexdigest()
