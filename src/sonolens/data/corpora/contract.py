"""What every corpus module offers.

One corpus is one module with `INFO` and `recordings(folder, …)`; nothing is decoded there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
    `listing.content_sha256` computes it; None where they are not known.
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


def reader(path: Path) -> Callable[[], Audio]:
    """Decoder of one file, for `Recording.read`."""
    return lambda: read_audio(path)
