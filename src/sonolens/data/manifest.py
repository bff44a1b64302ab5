"""The table of items and the store of their sound, made from the recordings of a corpus.

Each recording is decoded once, here; every front end reads the store.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from sonolens.data.audio import MIN_DURATION_S, BadRecording, usable
from sonolens.data.corpora import registry
from sonolens.data.corpora.contract import CorpusError, Recording
from sonolens.data.corpora.listing import ContentDigest
from sonolens.store import ArrayWriter, write_store

# What every table of items begins and ends with.
IDENTITY = (
    "item_id",
    "recording_id",
    "person_id",
    "session_id",
    "corpus",
    "source",
    "label",
    "class_index",
    "path",
)
ENDING = (
    "licence",
    "sha256",
    "kept",
    "reason",
)
COLUMNS = (
    *IDENTITY,
    "start_s",
    "duration_s",
    "sample_rate",
    "sample_rate_native",
    "n_channels_native",
    "subtype_native",
    "clipped_share",
    *ENDING,
)
DIFFERS = "the recordings are complete in number, but their sound is not the published one"
Content = Literal["verified", "differs", "partial", "unknown"]

_log = logging.getLogger(__name__)


class ManifestError(ValueError):
    """Recordings that cannot become a manifest; the message names all of them with reasons."""


def build(
    recordings: Iterable[Recording],
    audio_folder: Path,
    *,
    sample_rate: int,
    on_bad_file: Literal["stop", "skip"],
    min_duration_s: float = MIN_DURATION_S,
    source: str | None = None,
    partial: bool = True,
) -> pd.DataFrame:
    """Decode, resample and store all recordings, one at a time.

    Parameters
    ----------
    recordings
        In any order.
    audio_folder
        Where the ragged ArrayStore is made: values (time,) float32 per item, rows in order of
        item_id, items that were kept only.
    sample_rate
        Hz, of the store.
    on_bad_file
        ``stop``: raise when all have been tried; ``skip``: keep the row with its reason, without
        sound.
    min_duration_s
        Shorter recordings are bad.
    source
        Name of the folder the recordings came from; the corpus where None.
    partial
        False: refuse a complete corpus whose sound is not the published one; True: warn.

    Returns
    -------
    DataFrame
        Columns `COLUMNS`, then the recordings' own; one row per recording, sorted by item_id,
        which is ``corpus/recording_id``. Rows not kept have `duration_s` NaN, and 0 for what is
        not known. Classes of which no recording was kept have class_index -1, the others are
        counted from 0. ``attrs["content"]`` says how the sound compares with the published corpus:
        ``verified``; ``differs``; ``partial``, recordings are missing; ``unknown``, there is no
        checksum.

    Raises
    ------
    ManifestError
        If there is no recording, two share an item_id, one is bad under ``stop``, or all are.
    CorpusError
        If the content differs and `partial` is False.
    """
    items = sorted(
        ((item_id(recording), recording) for recording in recordings), key=lambda pair: pair[0]
    )
    check_names([name for name, _ in items])
    rows: list[dict[str, Any]] = []
    digest = ContentDigest()
    with write_store(audio_folder, axes(sample_rate), ragged=True) as writer:
        for name, recording in items:
            rows.append(_row(name, recording, writer, digest, sample_rate, min_duration_s, source))
        bad = [row for row in rows if not row["kept"]]
        if bad and (on_bad_file == "stop" or len(bad) == len(rows)):
            raise ManifestError(_describe_bad(bad, len(rows), on_bad_file))
        content = _compare([recording for _, recording in items], digest.hexdigest(), partial)
    _tell(rows)
    _close_gaps(rows)
    table = pd.DataFrame(rows)
    table = table[[*COLUMNS, *(name for name in table.columns if name not in COLUMNS)]]
    table.attrs["content"] = content
    for text in _warnings(table):
        _log.warning(text)
    return table


def _compare(recordings: list[Recording], sha256: str, partial: bool) -> Content:
    """How the sound compares with what the corpus is known to hold."""
    corpora = {recording.corpus for recording in recordings}
    info = registry.info(corpora.pop()) if len(corpora) == 1 else None
    if info is None or info.content_sha256 is None:
        return "unknown"
    if sha256 == info.content_sha256:
        return "verified"
    if info.n_recordings is not None and len(recordings) < info.n_recordings:
        return "partial"
    if not partial:
        raise CorpusError(
            f"{info.name}: {len(recordings)} recordings with content SHA-256 {sha256}, need "
            f"{info.content_sha256}; get the published ones, or set partial: true to work with "
            "what is there"
        )
    _log.warning("%s: %s", info.name, DIFFERS)
    return "differs"


def item_id(recording: Recording) -> str:
    """The stable name of an item that is a whole recording."""
    return f"{recording.corpus}/{recording.recording_id}"


def axes(sample_rate: int) -> dict[str, Any]:
    """axes.json of a store of waveforms."""
    return {
        "names": ["time"],
        "sample_rate": sample_rate,
        "scale": "waveform",
        "unit": "full scale = 1",
    }


def check_names(names: list[str]) -> None:
    """Raise ManifestError if there are none, or two are equal."""
    if not names:
        raise ManifestError("no recordings, need at least one; see `sonolens data list`")
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise ManifestError(
            f"{len(twice)} item ids occur twice, e.g. {', '.join(twice[:3])}; rename the files"
        )


def _row(
    name: str,
    recording: Recording,
    writer: ArrayWriter,
    digest: ContentDigest,
    sample_rate: int,
    min_duration_s: float,
    source: str | None,
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "item_id": name,
        "recording_id": recording.recording_id,
        "person_id": recording.person_id,
        "session_id": recording.session_id,
        "corpus": recording.corpus,
        "source": source or recording.corpus,
        "label": recording.label,
        "class_index": recording.class_index,
        "path": recording.path,
        "start_s": 0.0,
        "duration_s": float("nan"),
        "sample_rate": sample_rate,
        "sample_rate_native": 0,
        "n_channels_native": 0,
        "subtype_native": "",
        "clipped_share": 0.0,
        "licence": recording.licence,
        "sha256": "",
        "kept": False,
        "reason": "",
    }
    clash = sorted(set(row) & set(recording.extra))
    if clash:
        raise ManifestError(
            f"{name}: extra columns {', '.join(clash)} belong to the manifest; rename them"
        )
    row |= recording.extra
    try:
        audio = recording.read()
        digest.add(recording.recording_id, audio.waveform)
        where = recording.path or recording.recording_id
        waveform = usable(audio, sample_rate, where, min_duration_s)
    except BadRecording as error:
        return row | {"reason": error.reason, "sha256": error.sha256}
    writer.append(waveform, {"item_id": name})
    return row | {
        "duration_s": len(waveform) / sample_rate,
        "sample_rate_native": audio.sample_rate_native,
        "n_channels_native": audio.n_channels_native,
        "subtype_native": audio.subtype_native,
        "clipped_share": audio.clipped_share,
        "sha256": audio.sha256 or hashlib.sha256(audio.waveform.tobytes()).hexdigest(),
        "kept": True,
    }


def _tell(rows: list[dict[str, Any]]) -> None:
    """Name what was left out, and what was taken though it is damaged."""
    bad = [row for row in rows if not row["kept"]]
    if bad:
        _log.warning("%d of %d recordings are left out:", len(bad), len(rows))
        for line in _lines(bad):
            _log.warning(line)
    clipped = [row for row in rows if row["clipped_share"] > 0]
    if clipped:
        worst = max(clipped, key=lambda row: row["clipped_share"])
        percent = 100 * worst["clipped_share"]
        _log.warning(
            "%d of %d recordings are clipped, %s most (%.2g %% of its samples); they are kept, "
            "the column clipped_share of the manifest tells them apart",
            len(clipped), len(rows), worst["path"] or worst["item_id"], percent,
        )  # fmt: skip


def _close_gaps(rows: list[dict[str, Any]]) -> None:
    """Count the classes that have items from 0 without gaps; -1 for those that have none."""
    present = sorted({row["class_index"] for row in rows if row["kept"]})
    for row in rows:
        known = row["class_index"] in present
        row["class_index"] = present.index(row["class_index"]) if known else -1


def _lines(bad: list[dict[str, Any]]) -> list[str]:
    return [f"  {row['path'] or row['item_id']}: {row['reason']}" for row in bad]


def _describe_bad(bad: list[dict[str, Any]], n_all: int, on_bad_file: str) -> str:
    if on_bad_file == "stop":
        advice = "repair or remove them, or set on_bad_file: skip"
    else:
        advice = "none is left to work with; repair them"
    return "\n".join([f"{len(bad)} of {n_all} recordings are unusable; {advice}:", *_lines(bad)])


def report(manifest: pd.DataFrame) -> dict[str, Any]:
    """What is in a manifest, ready for JSON: counts of groups, never rows of persons.

    Returns
    -------
    dict
        n_person, n_item (kept), n_skipped, skipped (reason to count), n_by_label, n_by_corpus,
        n_by_sample_rate_native, n_by_channels_native, n_by_subtype_native, n_clipped (kept, with
        clipped samples), duration_s (total, min, max), items_per_person (min, max),
        n_duplicate (kept items whose bytes occurred before) and n_duplicate_across_persons
        (persons share them), content (see `build`; ``unknown`` for a table made otherwise) and
        warnings.
    """
    content = manifest.attrs.get("content", "unknown")
    kept = manifest[manifest["kept"]]
    skipped = manifest[~manifest["kept"]]
    per_person = kept.groupby("person_id").size()
    return {
        "n_person": int(kept["person_id"].nunique()),
        "n_item": len(kept),
        "n_skipped": len(skipped),
        "skipped": counts(skipped["reason"].str.split(r"[:(]", regex=True).str[0].str.strip()),
        "n_by_label": counts(kept["label"]),
        "n_by_corpus": counts(kept["corpus"]),
        "n_by_sample_rate_native": counts(kept["sample_rate_native"]),
        "n_by_channels_native": counts(kept["n_channels_native"]),
        "n_by_subtype_native": counts(kept["subtype_native"]),
        "n_clipped": int((kept["clipped_share"] > 0).sum()),
        "duration_s": {
            "total": float(kept["duration_s"].sum()),
            "min": float(kept["duration_s"].min()),
            "max": float(kept["duration_s"].max()),
        },
        "items_per_person": {"min": int(per_person.min()), "max": int(per_person.max())},
        "n_duplicate": int(len(kept) - kept["sha256"].nunique()),
        "n_duplicate_across_persons": _n_shared(kept),
        "content": content,
        "warnings": ([DIFFERS] if content == "differs" else []) + _warnings(manifest),
    }


def _n_shared(kept: pd.DataFrame) -> int:
    return int((kept.groupby("sha256")["person_id"].nunique() > 1).sum())


def _warnings(manifest: pd.DataFrame) -> list[str]:
    found = []
    n_shared = _n_shared(manifest[manifest["kept"]])
    lost = sorted(set(manifest["label"]) - set(manifest.loc[manifest["kept"], "label"]))
    if lost:
        found.append(f"no usable recording, so no class, of the label(s) {', '.join(lost)}")
    if n_shared:
        found.append(
            f"{n_shared} recording(s) lie under two persons, byte for byte: no split keeps them "
            "apart"
        )
    return found


def skipped(manifest: pd.DataFrame) -> pd.DataFrame:
    """Recordings that were left out, with the columns path and reason."""
    table = manifest[~manifest["kept"]]
    path = table["path"].where(table["path"] != "", table["item_id"])
    return pd.DataFrame({"path": path, "reason": table["reason"]}).reset_index(drop=True)


def counts(values: pd.Series) -> dict[str, int]:
    """Rows by value, ready for JSON."""
    return {str(name): int(count) for name, count in values.value_counts().sort_index().items()}
