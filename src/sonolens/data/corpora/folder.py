"""Recordings of one's own: `<label>/<person>/…/<file>.wav`, or any layout with a recordings.csv.

recordings.csv has the columns path (relative to its folder), label and person; session is
optional, and further columns become columns of the manifest.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import pandas as pd

from sonolens.data.corpora import listing
from sonolens.data.corpora.contract import CorpusError, Recording, reader

TABLE_NAME = "recordings.csv"
NEEDED = ("path", "label", "person")
UNKNOWN_LICENCE = "unknown"


def recordings(folder: Path, *, task: str = "label", partial: bool = True) -> list[Recording]:
    """All recordings below `folder`, sorted by recording_id (the path without its suffix).

    Parameters
    ----------
    folder
        data/raw/<source>/recordings. The corpus is named <source>; its licence is read from the
        line ``- Licence:`` of the card.md beside `folder`.
    task, partial
        Ignored: labels are what the folders or the table say, and nobody knows what is missing.

    Returns
    -------
    list of Recording
        class_index counts the labels in sorted order.

    Raises
    ------
    CorpusError
        If there is nothing, the layout is another, the table lacks a column or a value, there is
        but one label, or two labels or persons are told apart by nothing but case or encoding.
    """
    source = folder.parent.name
    if not folder.is_dir() and not folder.parent.is_dir():
        from sonolens.data.corpora import registry

        raise CorpusError(
            f"{folder.parent}: not found, and {source!r} is none of the known corpora "
            f"{', '.join(registry.names('audio'))}; correct the source, or "
            f"{listing.how_to_get(source, None)}"
        )
    files = listing.audio_files(folder, source)
    has_table = (folder / TABLE_NAME).is_file()
    table = _from_csv(folder) if has_table else _from_folders(folder, files)
    labels = sorted(table["label"].unique())
    if len(labels) < 2:
        raise CorpusError(
            f"{folder}: all {len(table)} recordings have the label {labels[0]!r}, need two labels "
            "or more; the folders right below are labels, those below them persons"
        )
    for column in ("label", "person"):
        _refuse_lookalikes(folder, column, table[column].unique())
    licence = card_licence(folder.parent / "card.md")
    extra = [name for name in table.columns if name not in (*NEEDED, "session")]
    found = [
        Recording(
            recording_id=str(PurePosixPath(row["path"]).with_suffix("")),
            person_id=row["person"],
            session_id=row.get("session") or f"{row['person']}_0",
            corpus=source,
            label=row["label"],
            class_index=labels.index(row["label"]),
            path=row["path"],
            licence=licence,
            read=reader(folder / row["path"]),
            extra={name: row[name] for name in extra},
        )
        for row in table.to_dict("records")
    ]
    found.sort(key=lambda item: item.recording_id)
    listing.refuse_duplicates(folder, found)
    return found


def card_licence(card: Path) -> str:
    """The line ``- Licence:`` of a card up to its first full stop or semicolon, or ``unknown``."""
    if not card.is_file():
        return UNKNOWN_LICENCE
    for line in card.read_text(encoding="utf-8").splitlines():
        if line.lower().startswith(("- licence:", "- license:")):
            text = line.split(":", 1)[1].split(";")[0].split(". ")[0].strip().rstrip(".")
            return text or UNKNOWN_LICENCE
    return UNKNOWN_LICENCE


def _refuse_lookalikes(folder: Path, column: str, names: Iterable[str]) -> None:
    """One person under two names would stand on both sides of a split."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(unicodedata.normalize("NFKC", name).casefold().strip(), name)
        if other != name:
            raise CorpusError(
                f"{folder}: the {column}s {other!r} and {name!r} differ in letter case, spaces or "
                "encoding alone; give them one name, or names that differ"
            )


def _from_folders(folder: Path, files: list[Path]) -> pd.DataFrame:
    parts = [path.relative_to(folder).parts for path in files]
    wrong = [path for path, names in zip(files, parts, strict=True) if len(names) < 3]
    if wrong:
        names = ", ".join(path.relative_to(folder).as_posix() for path in wrong[:3])
        raise CorpusError(
            f"{folder}: {len(wrong)} of {len(files)} audio files do not lie in "
            f"<label>/<person>/, e.g. {names}; "
            f"move them, or write {TABLE_NAME} with the columns {', '.join(NEEDED)} into that "
            "folder"
        )
    return pd.DataFrame(
        {
            "path": ["/".join(names) for names in parts],
            "label": [names[0] for names in parts],
            "person": [names[1] for names in parts],
        }
    )


def _from_csv(folder: Path) -> pd.DataFrame:
    path = folder / TABLE_NAME
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise CorpusError(
            f"{path}: not a table of comma-separated values in UTF-8 ({error})"
        ) from error
    table.columns = [str(name).strip() for name in table.columns]
    missing = [name for name in NEEDED if name not in table]
    if missing:
        raise CorpusError(f"{path}: lacks {', '.join(missing)}; it has {', '.join(table.columns)}")
    if table.empty:
        raise CorpusError(f"{path}: no rows, need one per recording")
    for name in NEEDED:
        table[name] = table[name].str.strip()
        empty = table.index[table[name] == ""]
        if len(empty):
            raise CorpusError(f"{path}: line {empty[0] + 2} has no {name}")
    table["path"] = [_inside(path, line + 2, text) for line, text in enumerate(table["path"])]
    twice = table["path"].duplicated()
    if twice.any():
        raise CorpusError(f"{path}: {table['path'][twice].iloc[0]} is listed twice")
    return table


def _inside(table: Path, line: int, text: str) -> str:
    relative = PurePosixPath(text.replace("\\", "/"))
    if relative.is_absolute() or ".." in relative.parts or ":" in relative.parts[0]:
        raise CorpusError(
            f"{table}: line {line}: {text} leaves the folder; give paths relative to {TABLE_NAME}"
        )
    return relative.as_posix()
