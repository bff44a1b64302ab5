"""Pictures of the docs, small enough for git: copies of page pictures the pipeline drew.

Those of the browser's pages, by docs/screens.py, keep to the same list and space.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

from sonolens.params import load_yaml
from sonolens.store import whole

LIST = "docs/templates/figures.yaml"
MAX_BYTES = 300_000
QUALITIES = (85, 75, 65)  # of WebP, which keeps colour maps true where a palette would not
SHRINK = 0.92
MIN_WIDTH = 400


class PictureError(RuntimeError):
    """A picture cannot be copied; the message says why."""


@dataclass(frozen=True)
class Picture:
    """One row of the list: a `page` that shows `source`'s data, to be kept in docs/images."""

    study: str
    source: str
    page: str
    image: str
    max_width: int
    max_kilobytes: int

    @property
    def target(self) -> str:
        return f"docs/images/{self.image}"


def checked(root: Path, kind: str) -> list[Picture]:
    """Rows of docs/templates/figures.yaml under `kind`, `pictures` or `screens`.

    Raises
    ------
    PictureError
        All rows together need more space than there is, or the workspace shows other data than
        the embedded.
    """
    table = {
        name: [Picture(**row) for row in rows] for name, rows in load_yaml(root / LIST).items()
    }
    planned = sum(row.max_kilobytes for rows in table.values() for row in rows)
    if 1000 * planned > MAX_BYTES:
        raise PictureError(f"{LIST}: max_kilobytes sum to {planned}, at most {MAX_BYTES // 1000}")
    params = load_yaml(root / "params.yaml")
    for row in table[kind]:
        found = params[row.study]["source"]
        if found != row.source:
            raise PictureError(
                f"{row.target}: {row.study}.source is {found}, need {row.source}; "
                "pictures in git show embedded data only: `git restore params.yaml dvc.lock`, "
                "`dvc repro`, then again"
            )
    return table[kind]


def copy_all(root: Path) -> dict[str, int]:
    """Copy every listed picture, compressed; sizes in bytes by path.

    Raises
    ------
    PictureError
        A picture is missing, was drawn from other data than the embedded, or does not fit.
    """
    sizes = {}
    for row in checked(root, "pictures"):
        page = root / row.page
        if not page.is_file():
            raise PictureError(f"{row.page}: not found; run `dvc repro {row.study}-report`")
        content = shrink(page, row.max_width, 1000 * row.max_kilobytes)
        with whole(root / row.target) as stream:
            stream.write(content)
        sizes[row.target] = len(content)
    return sizes


def shrink(page: Path, max_width: int, max_bytes: int) -> bytes:
    """WebP of at most `max_bytes`: lower quality first, then fewer pixels."""
    from PIL import Image

    with Image.open(page) as opened:
        original = opened.convert("RGB")
    width = min(max_width, original.width)
    least = min(MIN_WIDTH, width)
    while width >= least:
        height = round(original.height * width / original.width)
        scaled = original.resize((width, height), Image.Resampling.LANCZOS)
        for quality in QUALITIES:
            buffer = io.BytesIO()
            scaled.save(buffer, "WEBP", quality=quality, method=6)
            if buffer.tell() <= max_bytes:
                return buffer.getvalue()
        width = int(width * SHRINK)
    raise PictureError(
        f"{page}: does not fit {max_bytes} bytes at {least} pixels; list fewer pictures"
    )
