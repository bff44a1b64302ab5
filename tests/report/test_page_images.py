"""Pictures of the docs: small, and of embedded data only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sonolens.report import page_images

LIST = """
pictures:
  - study: toy
    source: embedded
    page: plots/toy/pages/report/a.png
    image: a.webp
    max_width: 600
    max_kilobytes: 200
"""


@pytest.fixture
def root(tmp_path: Path, generator: np.random.Generator) -> Path:
    (tmp_path / "docs" / "templates").mkdir(parents=True)
    (tmp_path / page_images.LIST).write_text(LIST)
    (tmp_path / "params.yaml").write_text("toy: {source: embedded}\n")
    page = tmp_path / "plots" / "toy" / "pages" / "report" / "a.png"
    page.parent.mkdir(parents=True)
    Image.fromarray(generator.integers(0, 256, (500, 1000, 3), dtype=np.uint8)).save(page)
    return tmp_path


def test_copies_fit(root: Path) -> None:
    sizes = page_images.copy_all(root)
    image = root / "docs" / "images" / "a.webp"
    assert sizes == {"docs/images/a.webp": image.stat().st_size}
    assert image.stat().st_size <= page_images.MAX_BYTES
    with Image.open(image) as opened:
        assert opened.width <= 600
        assert opened.width == pytest.approx(2 * opened.height, abs=2)


def test_other_data_are_refused(root: Path) -> None:
    (root / "params.yaml").write_text("toy: {source: fsdd}\n")
    with pytest.raises(page_images.PictureError, match="toy.source is fsdd, need embedded"):
        page_images.copy_all(root)


def test_the_plan_keeps_to_the_space(root: Path) -> None:
    (root / page_images.LIST).write_text(LIST.replace("200", "301"))
    with pytest.raises(page_images.PictureError, match="sum to 301, at most 300"):
        page_images.copy_all(root)


def test_a_picture_too_rich_for_its_space_is_refused(root: Path) -> None:
    with pytest.raises(page_images.PictureError, match="does not fit 1000 bytes"):
        page_images.shrink(root / "plots" / "toy" / "pages" / "report" / "a.png", 600, 1000)
