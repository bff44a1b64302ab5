"""MNIST and whatever has its format: IDX files, compressed or not.

`{part}-images-idx3-ubyte[.gz]` with `{part}-labels-idx1-ubyte[.gz]`. The part `t10k` is the test
part, all others are for training. Writers are apart between the two but not named.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sonolens.data.corpora import listing
from sonolens.data.corpora.contract import CorpusError, CorpusInfo, Picture

N_TEST, N_TRAIN, N_CLASSES = 10_000, 60_000, 10
TEST_PART, TRAIN_PART = "t10k", "train"
INFO = CorpusInfo(
    name="mnist",
    title="MNIST: 70,000 handwritten digits, 28 x 28",
    licence="CC BY-SA 3.0 (as usually given)",
    bibtex=(
        "@article{lecun1998, author={LeCun, Yann and Bottou, Leon and Bengio, Yoshua and "
        "Haffner, Patrick}, journal={Proceedings of the IEEE}, volume={86}, number={11}, "
        "pages={2278--2324}, title={Gradient-based learning applied to document recognition}, "
        "year={1998}}"
    ),
    n_recordings=N_TEST + N_TRAIN,
    modality="image",
    has_persons=False,
    official_split=True,
)
_NAME = re.compile(r"(?P<part>[\w]+)-(?P<kind>images|labels)[-.]idx(?P<axes>[13])-ubyte(\.gz)?")
_UINT8 = 8


def pictures(folder: Path, *, partial: bool) -> list[Picture]:
    """All pictures below `folder`, sorted by picture_id (part and number in its file).

    Parameters
    ----------
    folder
        data/raw/<source>/recordings.
    partial
        True: take the parts that are there. False: there must be 10,000 test and 60,000 training
        pictures.

    Raises
    ------
    CorpusError
        If there is no test or no training part, images or labels of a part are missing, a file
        is not IDX or is cut off, the two differ in number, a label lies outside 0-9, or the set is
        incomplete and `partial` is False.
    """
    parts = _parts(folder)
    found = [picture for name in sorted(parts) for picture in _part(folder, name, parts[name])]
    sizes = {name: sum(one.extra["part"] == name for one in found) for name in parts}
    published = {TEST_PART: N_TEST, TRAIN_PART: N_TRAIN}
    if not partial and sizes != published:
        raise CorpusError(
            f"{folder}: found {_count(sizes)}, need {_count(published)}"
            "; complete it, or set partial: true to work with what is there"
        )
    shapes = sorted({one.pixels.shape for one in found})
    if len(shapes) > 1:
        raise CorpusError(f"{folder}: pictures of {shapes[0]} and of {shapes[-1]} pixels, need one")
    return found


def _count(sizes: dict[str, int]) -> str:
    return ", ".join(f"{size} in {name}" for name, size in sorted(sizes.items()))


def _parts(folder: Path) -> dict[str, dict[str, Path]]:
    """Files by part and kind."""
    if not folder.is_dir():
        raise CorpusError(f"{folder}: not found; {listing.how_to_get(INFO.name, INFO)}")
    parts: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.rglob("*")):
        if match := _NAME.fullmatch(path.name):
            kinds = parts.setdefault(match["part"], {})
            if match["kind"] in kinds:
                raise CorpusError(
                    f"{folder}: {match['kind']} of {match['part']} are there twice, as "
                    f"{kinds[match['kind']].name} and {path.name}; remove one"
                )
            kinds[match["kind"]] = path
    pattern = "{part}-images-idx3-ubyte[.gz] and {part}-labels-idx1-ubyte[.gz]"
    if TEST_PART not in parts or len(parts) < 2:
        raise CorpusError(
            f"{folder}: found parts {', '.join(sorted(parts)) or 'none'}, need {TEST_PART} to test "
            f"and another to train, named {pattern}; {listing.how_to_get(INFO.name, INFO)}"
        )
    for name, kinds in parts.items():
        for kind in ("images", "labels"):
            if kind not in kinds:
                raise CorpusError(f"{folder}: part {name} has no {kind}, need {pattern}")
    return parts


def _part(folder: Path, name: str, files: dict[str, Path]) -> Iterator[Picture]:
    images, labels = read_idx(files["images"], 3), read_idx(files["labels"], 1)
    if len(images) != len(labels):
        raise CorpusError(
            f"{files['images']}: {len(images)} pictures, {files['labels'].name} has {len(labels)} "
            "labels; get both again"
        )
    if len(labels) and labels.max() >= N_CLASSES:
        raise CorpusError(
            f"{files['labels']}: label {labels.max()}, need 0 to {N_CLASSES - 1}; get it again"
        )
    path = files["images"].relative_to(folder).as_posix()
    digits = len(str(max(len(labels) - 1, 0)))
    for number, (pixels, label) in enumerate(zip(images, labels, strict=True)):
        picture_id = f"{name}_{number:0{digits}d}"
        yield Picture(
            picture_id=picture_id,
            person_id=picture_id,  # nobody knows: every picture stands for itself
            session_id=name,
            corpus=INFO.name,
            label=str(label),
            class_index=int(label),
            path=path,
            licence=INFO.licence,
            pixels=pixels,
            extra={"part": name, "is_test": name == TEST_PART},
        )


def read_idx(path: Path, n_axes: int) -> np.ndarray:
    """Array of unsigned bytes in an IDX file, compressed or not.

    Raises
    ------
    CorpusError
        If the file is not IDX with `n_axes` axes of unsigned bytes, or has another length.

    References
    ----------
    LeCun, Y., Cortes, C., Burges, C. The MNIST database: "file formats for the MNIST database".
    """
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise CorpusError(f"{path}: cannot be read ({error}); get it again") from error
    head = 4 + 4 * n_axes
    if len(content) < head or content[:4] != bytes([0, 0, _UINT8, n_axes]):
        raise CorpusError(
            f"{path}: starts with {content[:4].hex(' ') or 'nothing'}, need "
            f"{bytes([0, 0, _UINT8, n_axes]).hex(' ')}, an IDX file of bytes with {n_axes} axes"
        )
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", n_axes, 4))
    needed = int(np.prod(shape, dtype=np.int64))
    if len(content) - head != needed:
        raise CorpusError(
            f"{path}: {len(content) - head} bytes for {' x '.join(map(str, shape))}, need "
            f"{needed}; it is cut off or damaged, get it again"
        )
    return np.frombuffer(content, np.uint8, needed, head).reshape(shape)
