"""Names of the cells of `digits`: a modality and a size, `audio-64`, `image-32`."""

from __future__ import annotations

from typing import Literal, cast

from sonolens.studies.digits.params import Names, Params

Modality = Literal["audio", "image"]
AUDIO: Modality = "audio"
IMAGE: Modality = "image"


def cell_name(modality: Modality, size: int) -> str:
    """Name of the cell with maps of `size` x `size`."""
    return f"{modality}-{size}"


def modality_of(cell: str) -> Modality:
    """First half of a cell's name."""
    return cast("Modality", cell.split("-", 1)[0])


def size_of(cell: str) -> int:
    """Second half of a cell's name."""
    return int(cell.split("-", 1)[1])


def cell_names(study: Params) -> list[str]:
    """Every cell that the params ask for, audio first; the first is the headline's."""
    sizes = study.features.sizes
    return [cell_name(AUDIO, size) for size in sizes.audio] + [
        cell_name(IMAGE, size) for size in sizes.image
    ]


def by_cell(study: Params, names: Names) -> dict[str, list[str]]:
    """What is named for the modality of each cell."""
    return {cell: getattr(names, modality_of(cell)) for cell in cell_names(study)}


def first_cells(study: Params) -> list[str]:
    """The first cell of each modality."""
    cells = cell_names(study)
    first = {modality_of(cell): cell for cell in reversed(cells)}
    return [cell for cell in cells if first[modality_of(cell)] == cell]


def suffix_of(study: Params, cell: str) -> str:
    """What a metric of the cell is called by after its name; nothing for the headline's."""
    return "" if cell == cell_names(study)[0] else f"_{cell}"
