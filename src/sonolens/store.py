"""Files that hold arrays, tables and small results; each is written whole or not at all."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import numpy as np
import pandas as pd
from pyarrow import ArrowException


class StoreError(ValueError):
    """A stored file is missing, damaged or does not fit; the message names it."""


@contextmanager
def whole(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a neighbour of `path` for writing and rename it to `path` when the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _beside(path, "part")
    encoding, newline = (None, None) if "b" in mode else ("utf-8", "\n")
    try:
        with part.open(mode, encoding=encoding, newline=newline) as stream:
            yield stream
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def move_all(moves: Sequence[tuple[Path, Path]]) -> None:
    """Move finished files and folders (from, to) to their places: all of them or none.

    What is there is replaced. First everything is brought beside its place, then what is there is
    set aside, so that only renames lie between the old state and the new one, and a failure brings
    the old one back.
    """
    new = [_beside(place, "part") for _, place in moves]
    old = [_beside(place, "old") for _, place in moves]
    try:
        for (source, place), near in zip(moves, new, strict=True):
            place.parent.mkdir(parents=True, exist_ok=True)
            _remove(near)
            _bring(source, near)
        for (_, place), near, aside in zip(moves, new, old, strict=True):
            _remove(aside)
            if os.path.lexists(place):
                os.replace(place, aside)
            os.replace(near, place)
    except BaseException:
        for (_, place), near, aside in zip(moves, new, old, strict=True):
            _remove(near)
            if os.path.lexists(aside):
                _remove(place)
                os.replace(aside, place)
        raise
    for aside in old:
        _remove(aside)


def _beside(path: Path, suffix: str) -> Path:
    """Name of a temporary neighbour; `pipeline.LEFTOVER` knows those of killed processes by it."""
    return path.with_name(f".{path.name}.{os.getpid()}.{suffix}")


def _bring(source: Path, target: Path) -> None:
    try:
        os.replace(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # The place lies on another disk, where files cannot be renamed to.
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True)
        else:
            shutil.copy2(source, target)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path, values: Any, digits: int = 10) -> None:
    """JSON with sorted keys, floats rounded to `digits` significant digits, NaN as null."""
    with whole(path, "w") as stream:
        json.dump(
            _plain(values, digits),
            stream,
            indent=2,
            sort_keys=True,
            allow_nan=False,
            ensure_ascii=False,
        )
        stream.write("\n")


def _plain(value: Any, digits: int) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item, digits) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(item, digits) for item in value]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(f"{float(value):.{digits}g}") if math.isfinite(value) else None
    return value


def read_json(path: Path) -> Any:
    """Raises StoreError that names the file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StoreError(f"{path}: not found; run `dvc repro` or `dvc checkout`") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise StoreError(
            f"{path}: not valid JSON ({error}); delete it and run `dvc checkout`"
        ) from error


def write_csv(path: Path, table: pd.DataFrame, digits: int = 6) -> None:
    """CSV with `digits` significant digits, rows in the order given."""
    with whole(path, "w") as stream:
        table.to_csv(stream, index=False, float_format=f"%.{digits}g", lineterminator="\n")


def write_parquet(path: Path, table: pd.DataFrame) -> None:
    """Parquet without an index column."""
    with whole(path) as stream:
        table.to_parquet(stream, index=False, engine="pyarrow", compression="zstd")


def read_parquet(path: Path) -> pd.DataFrame:
    """Raises StoreError that names the file."""
    try:
        return pd.read_parquet(path, engine="pyarrow")
    except FileNotFoundError as error:
        raise StoreError(f"{path}: not found; run `dvc repro` or `dvc checkout`") from error
    except (OSError, ValueError, KeyError, NotImplementedError, ArrowException) as error:
        raise StoreError(
            f"{path}: damaged ({error}); delete it and run `dvc checkout` or `dvc repro`"
        ) from error


class ArrayStore:
    """Folder with values.npy, index.parquet and axes.json.

    Equal shapes: values (N, *shape). Ragged: values (total, *rest), flat along the first axis, with
    the columns `offset` and `length` in the index. Opened lazily as a memory map.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.axes: dict[str, Any] = read_json(self.folder / "axes.json")
        self.index: pd.DataFrame = read_parquet(self.folder / "index.parquet")
        path = self.folder / "values.npy"
        try:
            self.values: np.ndarray = np.lib.format.open_memmap(path, mode="r")
        except (OSError, ValueError, TypeError, OverflowError, SyntaxError, TokenError) as error:
            raise StoreError(
                f"{path}: damaged or missing ({error}); delete {folder} and run `dvc checkout`"
            ) from error
        lengths = self.index["length"].to_numpy() if self.ragged else np.ones(len(self.index), int)
        needed = int(lengths.sum())
        if self.values.ndim == 0 or len(self.values) != needed:
            found = self.values.shape
            raise StoreError(
                f"{path}: shape {found}, index.parquet needs {needed} rows; run `dvc checkout`"
            )
        if self.ragged and not np.array_equal(self.index["offset"], np.cumsum(lengths) - lengths):
            raise StoreError(
                f"{self.folder / 'index.parquet'}: offsets and lengths do not fit; "
                "run `dvc checkout`"
            )

    @property
    def ragged(self) -> bool:
        return "length" in self.index.columns

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, row: int) -> np.ndarray:
        if not self.ragged:
            return np.asarray(self.values[row])
        offset, length = int(self.index["offset"].iloc[row]), int(self.index["length"].iloc[row])
        return np.asarray(self.values[offset : offset + length])

    def rows(self, item_ids: Sequence[str]) -> list[int]:
        """Row numbers of `item_ids`.

        Raises StoreError that names the first unknown one, or when ids occur twice.
        """
        if not hasattr(self, "_row_of"):
            self._row_of = {item_id: row for row, item_id in enumerate(self.index["item_id"])}
        if len(self._row_of) != len(self):
            raise StoreError(
                f"{self.folder}: {len(self)} rows of {len(self._row_of)} items; "
                "choose rows by the index"
            )
        try:
            return [self._row_of[item_id] for item_id in item_ids]
        except KeyError as error:
            raise StoreError(
                f"{self.folder}: no item {error.args[0]!r} among {len(self)}"
            ) from error

    def take(self, item_ids: Sequence[str]) -> np.ndarray:
        """Equal shapes only: values (len(item_ids), *shape)."""
        return np.asarray(self.values[self.rows(item_ids)])


@dataclass
class ArrayWriter:
    """Appends arrays to a new ArrayStore; made by `write_store`."""

    folder: Path
    stream: IO[bytes]
    ragged: bool
    dtype: np.dtype[Any] | None = None
    item_shape: tuple[int, ...] | None = None
    n_rows: int = 0
    index: list[dict[str, Any]] | None = None

    def append(self, values: np.ndarray, rows: dict[str, Any] | Sequence[dict[str, Any]]) -> None:
        """Add one ragged item with its index row, or a block of equal shapes with a row each.

        A block is (batch, *shape). Raises StoreError when rows and values do not fit to each other
        or to what was appended before.
        """
        rows = self._checked(values, rows)
        shape = values.shape[1:]
        if self.dtype is None:
            self.dtype, self.item_shape, self.index = values.dtype, shape, []
            self._header()
        if (values.dtype, shape) != (self.dtype, self.item_shape):
            raise StoreError(
                f"{self.folder}: found {values.dtype} {shape}, "
                f"earlier items have {self.dtype} {self.item_shape}"
            )
        assert self.index is not None
        self.index += rows
        self.n_rows += len(values)
        self.stream.write(np.ascontiguousarray(values).data)

    def _checked(
        self, values: np.ndarray, rows: dict[str, Any] | Sequence[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        if values.ndim == 0 or values.dtype.hasobject:
            raise StoreError(
                f"{self.folder}: found {values.dtype} {values.shape}, need numbers with an axis"
            )
        if isinstance(rows, dict) != self.ragged:
            needed = (
                "one row for one item"
                if self.ragged
                else "a list of rows, one for each item of a block"
            )
            raise StoreError(
                f"{self.folder}: found a {type(rows).__name__} of index rows, need {needed}"
            )
        listed = [rows] if isinstance(rows, dict) else list(rows)
        reserved = {"offset", "length"} & {name for row in listed for name in row}
        if reserved:
            raise StoreError(
                f"{self.folder}: index column {min(reserved)} belongs to ragged stores; rename it"
            )
        if self.ragged:
            return [listed[0] | {"offset": self.n_rows, "length": len(values)}]
        if len(listed) != len(values):
            raise StoreError(
                f"{self.folder}: found {len(listed)} index rows for {len(values)} items"
            )
        return listed

    def _header(self) -> None:
        # NumPy pads the header so that the first axis can grow in place.
        assert self.dtype is not None and self.item_shape is not None
        self.stream.seek(0)
        header = {
            "descr": np.lib.format.dtype_to_descr(self.dtype),
            "fortran_order": False,
            "shape": (self.n_rows, *self.item_shape),
        }
        np.lib.format.write_array_header_1_0(self.stream, header)


@contextmanager
def write_store(folder: Path, axes: dict[str, Any], ragged: bool = False) -> Iterator[ArrayWriter]:
    """New ArrayStore filled by appends in constant memory.

    The folder appears when the block succeeds. Raises StoreError when nothing was appended.
    """
    part = _beside(folder, "new")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        with (part / "values.npy").open("wb+") as stream:
            writer = ArrayWriter(folder, stream, ragged)
            yield writer
            if not writer.index:
                raise StoreError(f"{folder}: nothing to store, need at least one item")
            writer._header()
        write_parquet(part / "index.parquet", pd.DataFrame(writer.index))
        write_json(part / "axes.json", axes)
        move_all([(part, folder)])
    finally:
        shutil.rmtree(part, ignore_errors=True)


def batches(n_items: int, batch_size: int) -> Iterable[range]:
    """Consecutive ranges that cover n_items; the partition is a function of both numbers alone."""
    return (
        range(start, min(start + batch_size, n_items)) for start in range(0, n_items, batch_size)
    )
