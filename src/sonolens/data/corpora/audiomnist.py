"""AudioMNIST: sixty persons say ten digits fifty times each, 48 kHz.

Files `{digit}_{speaker}_{repetition}.wav` at any depth. Folders are named after speakers, 01 to
60, so digit and speaker come from the file name alone: read as labels, folders 00 to 09 turn
digits into speakers.

References
----------
Becker, S. et al. (2024). AudioMNIST: Exploring explainable artificial intelligence for audio
analysis on a simple benchmark. Journal of the Franklin Institute 361(1), 418-428. Folds as in its
published code.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from sonolens.data.corpora import listing
from sonolens.data.corpora.contract import CorpusError, CorpusInfo, Recording, Remote, reader

N_PERSONS, N_DIGITS, N_REPETITIONS = 60, 10, 50
INFO = CorpusInfo(
    name="audiomnist",
    title="AudioMNIST: 30,000 digits by 60 persons",
    licence="MIT",
    bibtex=(
        '@article{becker2024, author={Becker, S{\\"o}ren and Vielhaben, Johanna and Ackermann, '
        'Marcel and M{\\"u}ller, Klaus-Robert and Lapuschkin, Sebastian and Samek, Wojciech}, '
        "journal={Journal of the Franklin Institute}, volume={361}, number={1}, pages={418--428}, "
        "title={AudioMNIST: Exploring Explainable Artificial Intelligence for Audio Analysis on "
        "a Simple Benchmark}, year={2024}, doi={10.1016/j.jfranklin.2023.11.038}}"
    ),
    remote=Remote(
        url="https://github.com/soerenab/AudioMNIST/archive/refs/heads/master.zip",
        size_bytes=None,
        sha256=None,
    ),
    tasks=("digit", "sex"),
    n_recordings=N_PERSONS * N_DIGITS * N_REPETITIONS,
    content_sha256=None,
)
PATTERN = "{digit}_{speaker}_{repetition}.wav"
META_NAME = "audioMNIST_meta.txt"
SEXES = ("female", "male")
FEMALE = frozenset((12, 26, 28, 36, 43, 47, 52, 56, 57, 58, 59, 60))
# The speaker whose age the publishers give as 1234 is not that old.
OLDEST = 120

DIGIT_BLOCKS = (
    (26, 52, 60, 18, 32, 42, 5, 13, 22, 33, 45, 51),
    (12, 47, 59, 15, 27, 41, 4, 11, 21, 31, 44, 50),
    (43, 58, 14, 25, 38, 3, 10, 20, 30, 40, 49, 55),
    (36, 57, 9, 24, 37, 2, 8, 17, 29, 39, 48, 54),
    (28, 56, 7, 19, 35, 1, 6, 16, 23, 34, 46, 53),
)
SEX_BLOCKS = (
    (58, 59, 60, 7, 23, 38),
    (36, 47, 56, 2, 44, 50),
    (26, 12, 57, 25, 37, 45),
    (43, 28, 52, 48, 53, 41),
)
# Blocks to test and to validate on, per fold; the others train.
DIGIT_FOLDS = ((0, 1), (4, 0), (3, 4), (2, 3), (1, 2))
SEX_FOLDS = ((0, 3), (1, 0), (2, 1), (3, 2))

_NAME = re.compile(r"(\d)_(\d{1,2})_(\d+)")


def recordings(folder: Path, *, task: str, partial: bool) -> list[Recording]:
    """All recordings below `folder`, sorted by recording_id.

    Parameters
    ----------
    folder
        data/raw/<source>/recordings; an audioMNIST_meta.txt at any depth is read where there is
        one.
    task
        ``digit`` or ``sex``: what label and class_index are.
    partial
        True: take what is there. False: there must be 60 persons x 10 digits x 50; that and the
        names are the only check, since no checksum is published.

    Raises
    ------
    CorpusError
        If there is nothing, a file is named otherwise, twice there or below another speaker's
        folder, the meta file is damaged, or the set is incomplete and `partial` is False.
    """
    if task not in INFO.tasks:
        raise CorpusError(f"{INFO.name}: task {task!r}, need one of {', '.join(INFO.tasks)}")
    files = listing.audio_files(folder, INFO.name, INFO)
    listing.refuse_wrong_names(
        folder, [p for p in files if not _NAME.fullmatch(p.stem)], len(files), PATTERN
    )
    meta = _read_meta(folder)
    found = sorted(
        (_recording(folder, path, task, meta) for path in files), key=lambda item: item.recording_id
    )
    listing.refuse_duplicates(folder, found)
    if not partial:
        listing.refuse_incomplete(folder, found, N_PERSONS, N_DIGITS, N_REPETITIONS)
    return found


def published_blocks(task: str) -> list[dict[str, tuple[str, ...]]]:
    """Person ids of train, val and test, per published fold: 5 folds for ``digit``, 4 for ``sex``.

    The sex folds use 24 persons, half of them female.
    """
    if task not in INFO.tasks:
        raise CorpusError(f"{INFO.name}: task {task!r}, need one of {', '.join(INFO.tasks)}")
    blocks, folds = (DIGIT_BLOCKS, DIGIT_FOLDS) if task == "digit" else (SEX_BLOCKS, SEX_FOLDS)
    return [
        {
            "train": _names(
                s for i, block in enumerate(blocks) if i not in (test, val) for s in block
            ),
            "val": _names(blocks[val]),
            "test": _names(blocks[test]),
        }
        for test, val in folds
    ]


def _names(speakers: Any) -> tuple[str, ...]:
    return tuple(f"{speaker:02d}" for speaker in sorted(speakers))


def _recording(folder: Path, path: Path, task: str, meta: dict[str, dict[str, Any]]) -> Recording:
    match = _NAME.fullmatch(path.stem)
    assert match is not None
    digit, speaker, repetition = int(match[1]), int(match[2]), int(match[3])
    person = f"{speaker:02d}"
    above = path.parent.name
    if re.fullmatch(r"\d\d", above) and above != person:
        raise CorpusError(
            f"{path.relative_to(folder).as_posix()}: folder says speaker {above}, file name says "
            f"{person}; move it to where it belongs"
        )
    if not 1 <= speaker <= N_PERSONS:
        raise CorpusError(
            f"{path.relative_to(folder).as_posix()}: speaker {person}, need 01 to {N_PERSONS}"
        )
    about = meta.get(person, {})
    sex = about.get("gender") if about.get("gender") in SEXES else SEXES[speaker not in FEMALE]
    return Recording(
        recording_id=f"{digit}_{person}_{repetition}",
        person_id=person,
        session_id=f"{person}_0",
        corpus=INFO.name,
        label=str(digit) if task == "digit" else str(sex),
        class_index=digit if task == "digit" else SEXES.index(str(sex)),
        path=path.relative_to(folder).as_posix(),
        licence=INFO.licence,
        read=reader(path),
        extra={
            "digit": digit,
            "repetition": repetition,
            "sex": sex,
            "age_years": _age_years(about.get("age")),
            "accent": _text(about.get("accent")),
            "native_speaker": _text(about.get("native speaker")),
        },
    )


def _read_meta(folder: Path) -> dict[str, dict[str, Any]]:
    """What the publishers say about the speakers, by person id; empty without the file."""
    paths = sorted(path for path in folder.rglob(META_NAME) if path.is_file())
    if not paths:
        return {}
    try:
        values = json.loads(paths[0].read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CorpusError(
            f"{paths[0]}: not valid JSON ({error}); remove it or take the published one"
        ) from error
    if not isinstance(values, dict) or not all(
        isinstance(about, dict) for about in values.values()
    ):
        raise CorpusError(
            f"{paths[0]}: need a mapping of speaker to properties; take the published one"
        )
    return {f"{int(name):02d}" if name.isdigit() else name: about for name, about in values.items()}


def _age_years(value: Any) -> float:
    try:
        age = float(value)
    except (TypeError, ValueError):
        return float("nan")
    return age if 0 < age <= OLDEST else float("nan")


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()
