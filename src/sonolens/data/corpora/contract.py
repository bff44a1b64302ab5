"""What every corpus module offers.

One corpus is one module with `INFO` and `recordings(folder, …)`, where nothing is decoded, or, for
pictures, `pictures(folder, …)`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sonolens.data.audio import Audio, read_audio


class CorpusError(ValueError):
    """A folder does not hold the corpus it should; the message says found, needed, what to do."""


@dataclass(frozen=True)
class Remote:
    """A published archive.

    size_bytes and sha256 are None where the publisher gives none; what is given is checked.
    """

    url: str
    size_bytes: int | None
    sha256: str | None
    archive: str = "zip"


@dataclass(frozen=True)
class CorpusInfo:
    """Card of a corpus: what it is, under which licence, whom to cite, where to get it.

    n_recordings and content_sha256 are those of the complete corpus, the latter as
    `listing.content_sha256` computes it; None where they are not known. `has_persons`: the corpus
    says who made each item; `official_split`: its publisher fixed one test part. `modality`: an
    audio corpus has `recordings`, one of pictures `pictures`.
    """

    name: str
    title: str
    licence: str
    bibtex: str
    remote: Remote | None = None
    embedded: bool = False
    tasks: tuple[str, ...] = ("digit",)
    n_recordings: int | None = None
    content_sha256: str | None = None
    modality: Literal["audio", "image"] = "audio"
    has_persons: bool = True
    official_split: bool = False


@dataclass(frozen=True)
class Recording:
    """One recording before decoding.

    `path`: relative to the corpus folder, POSIX; `read` decodes it.
    """

    recording_id: str
    person_id: str
    session_id: str
    corpus: str
    label: str
    class_index: int
    path: str
    licence: str
    read: Callable[[], Audio]
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Picture:
    """One grey picture; pixels uint8, shape=(height, width), 0 is black.

    `path`: file it lies in, relative to the corpus folder, POSIX; empty for an embedded corpus.
    """

    picture_id: str
    person_id: str
    session_id: str
    corpus: str
    label: str
    class_index: int
    path: str
    licence: str
    pixels: np.ndarray
    extra: dict[str, Any] = field(default_factory=dict)


def reader(path: Path) -> Callable[[], Audio]:
    """Decoder of one file, for `Recording.read`."""
    return lambda: read_audio(path)
