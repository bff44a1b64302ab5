"""Free Spoken Digit Dataset: six persons say ten digits fifty times each, 8 kHz.

Files `{digit}_{speaker}_{index}.wav` or `.flac` at any depth; the index of the official test part
is 0-4.
"""

from __future__ import annotations

import re
from pathlib import Path

from sonolens.data.corpora import listing
from sonolens.data.corpora.contract import CorpusError, CorpusInfo, Recording, Remote, reader

N_PERSONS, N_DIGITS, N_REPETITIONS = 6, 10, 50
INFO = CorpusInfo(
    name="fsdd",
    title="Free Spoken Digit Dataset: 3,000 digits by 6 persons",
    licence="CC BY-SA 4.0",
    bibtex=(
        "@misc{jackson2016, author={Jackson, Zohar and others}, year={2016}, "
        "title={Free Spoken Digit Dataset (FSDD)}, doi={10.5281/zenodo.1342401}, "
        "url={https://github.com/Jakobovski/free-spoken-digit-dataset}}"
    ),
    remote=Remote(
        url="https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/heads/master.zip",
        size_bytes=None,
        sha256=None,
    ),
    n_recordings=N_PERSONS * N_DIGITS * N_REPETITIONS,
    content_sha256="c508ca40e62214f8ea81451ff705df6e9a68265da606e26d5455a6a8d1e5bf81",
)
PATTERN = "{digit}_{speaker}_{index}.wav"
N_OFFICIAL_TEST = 5

_NAME = re.compile(r"(\d)_([A-Za-z]+)_(\d+)")


def recordings(folder: Path, *, task: str, partial: bool) -> list[Recording]:
    """All recordings below `folder`, sorted by recording_id.

    Parameters
    ----------
    folder
        data/raw/<source>/recordings.
    task
        ``digit``, the only one.
    partial
        True: take what is there. False: there must be 6 persons x 10 digits x 50; their sound is
        compared with `INFO.content_sha256` where it is decoded.

    Raises
    ------
    CorpusError
        If there is nothing, a file is named otherwise or twice there, or the set is incomplete
        and `partial` is False.
    """
    if task not in INFO.tasks:
        raise CorpusError(f"{INFO.name}: task {task!r}, need one of {', '.join(INFO.tasks)}")
    files = listing.audio_files(folder, INFO.name, INFO)
    listing.refuse_wrong_names(
        folder, [p for p in files if not _NAME.fullmatch(p.stem)], len(files), PATTERN
    )
    found = sorted((_recording(folder, path) for path in files), key=lambda item: item.recording_id)
    listing.refuse_duplicates(folder, found)
    if not partial:
        listing.refuse_incomplete(folder, found, N_PERSONS, N_DIGITS, N_REPETITIONS)
    return found


def _recording(folder: Path, path: Path) -> Recording:
    match = _NAME.fullmatch(path.stem)
    assert match is not None
    digit, speaker, index = int(match[1]), match[2].lower(), int(match[3])
    return Recording(
        recording_id=f"{digit}_{speaker}_{index}",
        person_id=speaker,
        session_id=f"{speaker}_0",
        corpus=INFO.name,
        label=str(digit),
        class_index=digit,
        path=path.relative_to(folder).as_posix(),
        licence=INFO.licence,
        read=reader(path),
        extra={
            "digit": digit,
            "repetition": index,
            "official_part": "test" if index < N_OFFICIAL_TEST else "train",
        },
    )
