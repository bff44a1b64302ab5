"""The table of pictures and the store of their pixels: what `manifest` is for sound."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sonolens.data.corpora.contract import Picture
from sonolens.data.manifest import ENDING, IDENTITY, check_names, counts
from sonolens.store import write_store

COLUMNS = (*IDENTITY, "height_native", "width_native", *ENDING)
MAX_LEVEL = 255


def build(pictures: Sequence[Picture], pixel_folder: Path, *, source: str) -> pd.DataFrame:
    """Store the pixels of all pictures and describe them.

    Parameters
    ----------
    pictures
        In any order, all of one size.
    pixel_folder
        Where the ArrayStore is made: values (N, height, width) uint8, rows in order of item_id.
    source
        Name of the folder they came from.

    Returns
    -------
    DataFrame
        Columns `COLUMNS`, then the pictures' own; sorted by item_id, which is
        ``corpus/picture_id``.

    Raises
    ------
    ManifestError
        If there is no picture, or two share an item_id.
    """
    named = sorted(
        ((f"{one.corpus}/{one.picture_id}", one) for one in pictures), key=lambda pair: pair[0]
    )
    check_names([name for name, _ in named])
    height, width = named[0][1].pixels.shape
    axes = {"names": ["row", "column"], "height": height, "width": width, "max_level": MAX_LEVEL}
    with write_store(pixel_folder, axes) as writer:
        writer.append(
            np.stack([one.pixels for _, one in named]), [{"item_id": name} for name, _ in named]
        )
    table = pd.DataFrame([_row(name, one, source) for name, one in named])
    return table[[*COLUMNS, *(name for name in table.columns if name not in COLUMNS)]]


def _row(name: str, picture: Picture, source: str) -> dict[str, Any]:
    height, width = picture.pixels.shape
    return {
        "item_id": name,
        "recording_id": picture.picture_id,
        "person_id": picture.person_id,
        "session_id": picture.session_id,
        "corpus": picture.corpus,
        "source": source,
        "label": picture.label,
        "class_index": picture.class_index,
        "path": picture.path,
        "height_native": height,
        "width_native": width,
        "licence": picture.licence,
        "sha256": hashlib.sha256(picture.pixels.tobytes()).hexdigest(),
        "kept": True,
        "reason": "",
    } | picture.extra


def report(manifest: pd.DataFrame, has_persons: bool) -> dict[str, Any]:
    """What is in a manifest of pictures, ready for JSON: counts of groups.

    Returns
    -------
    dict
        n_item, n_person (null where the corpus does not name them), n_by_label, n_by_corpus,
        n_duplicate (pictures whose pixels occurred before).
    """
    return {
        "n_item": len(manifest),
        "n_person": manifest["person_id"].nunique() if has_persons else None,
        "n_by_label": counts(manifest["label"]),
        "n_by_corpus": counts(manifest["corpus"]),
        "n_duplicate": int(len(manifest) - manifest["sha256"].nunique()),
    }
