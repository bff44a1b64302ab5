"""Stores are whole, byte-stable, and refuse what is damaged or does not fit."""

import io
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sonolens import store
from sonolens.store import ArrayStore, StoreError, batches, write_store


def names(n: int, start: int = 0) -> list[dict]:
    return [{"item_id": f"i{row}"} for row in range(start, start + n)]


def equal_store(folder: Path, n: int = 3) -> np.ndarray:
    values = np.arange(n * 4, dtype=np.float32).reshape(n, 2, 2)
    with write_store(folder, {"unit": "x"}) as writer:
        writer.append(values, names(n))
    return values


def ragged_store(folder: Path, lengths: tuple[int, ...] = (3, 0, 5)) -> list[np.ndarray]:
    items = [np.arange(length, dtype=np.int16) + 10 * row for row, length in enumerate(lengths)]
    with write_store(folder, {"unit": "x"}, ragged=True) as writer:
        for item, row in zip(items, names(len(items)), strict=True):
            writer.append(item, row)
    return items


# --- Round trips ---


def test_equal_shapes_come_back(tmp_path):
    values = equal_store(tmp_path / "a" / "b" / "store")  # parents are made
    opened = ArrayStore(tmp_path / "a" / "b" / "store")
    assert not opened.ragged
    assert len(opened) == 3
    assert opened.axes == {"unit": "x"}
    assert opened.values.dtype == np.float32
    np.testing.assert_array_equal(opened.values, values)
    np.testing.assert_array_equal(opened[1], values[1])
    np.testing.assert_array_equal(opened.take(["i2", "i0", "i2"]), values[[2, 0, 2]])
    assert opened.rows([]) == []
    with pytest.raises(StoreError, match=r"store: no item 'i9' among 3"):
        opened.take(["i0", "i9"])


def test_ragged_items_come_back(tmp_path):
    items = ragged_store(tmp_path / "store")
    opened = ArrayStore(tmp_path / "store")
    assert opened.ragged
    assert opened.index["offset"].tolist() == [0, 3, 3]
    for row, item in enumerate(items):
        np.testing.assert_array_equal(opened[row], item)
        assert opened[row].dtype == item.dtype


def test_ragged_items_may_have_more_axes(tmp_path):
    clips = [np.full((length, 4, 6), length, np.uint8) for length in (2, 5)]
    with write_store(tmp_path / "store", {}, ragged=True) as writer:
        for clip, row in zip(clips, names(2), strict=True):
            writer.append(clip, row)
    opened = ArrayStore(tmp_path / "store")
    assert opened.values.shape == (7, 4, 6)
    np.testing.assert_array_equal(opened[1], clips[1])


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    whole=arrays.arrays(
        st.sampled_from(["<f4", ">f8", "int16", "uint8", "bool", "complex64"]),
        st.tuples(st.integers(1, 9), st.integers(0, 3), st.integers(1, 3)),
    ),
    size=st.integers(1, 4),
)
def test_streamed_appends_equal_np_save(tmp_path, whole, size):
    with write_store(tmp_path / "store", {}) as writer:
        for rows in batches(len(whole), size):
            writer.append(whole[list(rows)], names(len(rows), rows.start))
    expected = io.BytesIO()
    np.save(expected, whole)
    assert (tmp_path / "store" / "values.npy").read_bytes() == expected.getvalue()


def test_a_large_appended_store_equals_concatenation_under_a_header_of_constant_size(
    tmp_path, generator
):
    blocks = [generator.random((n, 8, 16)).astype(np.float32) for n in (1, 99, 900, 5000)]
    starts = np.cumsum([0, *(len(block) for block in blocks)])
    sizes = []
    with write_store(tmp_path / "store", {}) as writer:
        for block, start in zip(blocks, starts, strict=False):
            writer.append(block, names(len(block), start))
            sizes.append(writer.stream.tell() - 4 * 8 * 16 * writer.n_rows)
    assert set(sizes) == {128}
    opened = ArrayStore(tmp_path / "store")
    np.testing.assert_array_equal(opened.values, np.concatenate(blocks))
    assert (tmp_path / "store" / "values.npy").stat().st_size == 128 + opened.values.nbytes
    assert opened.index["item_id"].iloc[-1] == "i5999"


def test_views_that_are_not_contiguous_are_stored_in_their_order(tmp_path):
    base = np.arange(24).reshape(2, 3, 4)
    with write_store(tmp_path / "store", {}) as writer:
        writer.append(base.transpose(0, 2, 1), names(2))
        writer.append(np.asfortranarray(base.transpose(0, 2, 1)), names(2, 2))
        writer.append(base.transpose(0, 2, 1)[::-1], names(2, 4))
    values = base.transpose(0, 2, 1)
    np.testing.assert_array_equal(
        ArrayStore(tmp_path / "store").values, np.concatenate([values, values, values[::-1]])
    )


def test_axes_may_be_completed_inside_the_block(tmp_path):
    axes = {"found": {}}
    with write_store(tmp_path / "store", axes) as writer:
        writer.append(np.ones((1, 2)), names(1))
        axes["found"]["late"] = 1
    assert ArrayStore(tmp_path / "store").axes == {"found": {"late": 1}}


# --- What does not fit is refused ---


@pytest.mark.parametrize(
    ("ragged", "values", "rows", "words"),
    [
        (False, np.ones((2, 3)), names(1), "1 index rows for 2 items"),
        (False, np.ones((1, 3)), names(2), "2 index rows for 1 items"),
        (False, np.ones((1, 3)), {"item_id": "a"}, "a list of rows, one for each item"),
        (True, np.ones(3), names(1), "one row for one item"),
        (True, np.ones(3), {"item_id": "a", "length": 3}, "index column length"),
        (False, np.ones((1, 3)), [{"item_id": "a", "offset": 3}], "index column offset"),
        (False, np.array(1.0), [], "need numbers with an axis"),
        (False, np.array([["a", {}]], object), names(1), "found object"),
    ],
)
def test_rows_and_values_must_fit(tmp_path, ragged, values, rows, words):
    with (
        pytest.raises(StoreError, match=words),
        write_store(tmp_path / "store", {}, ragged) as writer,
    ):
        writer.append(values, rows)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "other", [np.ones((1, 3), np.float64), np.ones((1, 4), np.float32), np.ones((1, 3), ">f4")]
)
def test_a_second_dtype_or_shape_is_refused(tmp_path, other):
    with (  # noqa: PT012
        pytest.raises(StoreError, match=r"store: found .* earlier items have float32 \(3,\)"),
        write_store(tmp_path / "store", {}) as writer,
    ):
        writer.append(np.ones((1, 3), np.float32), names(1))
        writer.append(other, names(1, 1))
    assert list(tmp_path.iterdir()) == []


def test_an_empty_store_is_refused(tmp_path):
    with (
        pytest.raises(StoreError, match=r"store: nothing to store"),
        write_store(tmp_path / "store", {}),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_items_that_occur_twice_are_chosen_by_the_index_alone(tmp_path):
    with write_store(tmp_path / "store", {}) as writer:
        writer.append(np.ones((2, 3)), [{"item_id": "a"}, {"item_id": "a"}])
    with pytest.raises(StoreError, match="2 rows of 1 items"):
        ArrayStore(tmp_path / "store").take(["a"])


# --- Damage ---


def test_a_missing_store_names_the_file_and_the_cure(tmp_path):
    with pytest.raises(StoreError, match=r"axes\.json: not found; `dvc checkout --force` brings"):
        ArrayStore(tmp_path / "none")


@pytest.mark.parametrize("name", ["axes.json", "index.parquet", "values.npy"])
@pytest.mark.parametrize("damage", ["absent", "empty", "half", "noise"])
def test_damage_names_the_file(tmp_path, name, damage):
    equal_store(tmp_path / "store")
    path = tmp_path / "store" / name
    content = path.read_bytes()
    if damage == "absent":
        path.unlink()
    else:
        path.write_bytes(
            {"empty": b"", "half": content[: len(content) // 2], "noise": b"\xff\x00" * 99}[damage]
        )
    with pytest.raises(StoreError, match=name.replace(".", r"\.")):
        ArrayStore(tmp_path / "store")


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.integers(0, 127), byte=st.integers(0, 255))
def test_a_changed_header_opens_or_is_a_store_error(tmp_path, place, byte):
    equal_store(tmp_path / "store")
    path = tmp_path / "store" / "values.npy"
    content = bytearray(path.read_bytes())
    content[place] = byte
    path.write_bytes(content)
    try:
        assert len(ArrayStore(tmp_path / "store").values) == 3
    except StoreError as error:
        assert "values.npy" in str(error)  # noqa: PT017


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_changed_index_opens_or_is_a_store_error(tmp_path, data):
    ragged_store(tmp_path / "store")
    path = tmp_path / "store" / "index.parquet"
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        store.read_parquet(path)
    except StoreError as error:
        assert "index.parquet" in str(error)  # noqa: PT017


def test_pickled_values_are_never_loaded(tmp_path):
    equal_store(tmp_path / "store")
    np.save(tmp_path / "store" / "values.npy", np.array([{}, {}, {}], object), allow_pickle=True)
    with pytest.raises(StoreError, match=r"values\.npy"):
        ArrayStore(tmp_path / "store")


def test_the_index_of_another_store_is_refused(tmp_path):
    equal_store(tmp_path / "three")
    equal_store(tmp_path / "two", 2)
    os.replace(tmp_path / "two" / "index.parquet", tmp_path / "three" / "index.parquet")
    with pytest.raises(
        StoreError, match=r"values\.npy: shape \(3, 2, 2\), index\.parquet needs 2 rows"
    ):
        ArrayStore(tmp_path / "three")


def test_ragged_offsets_that_do_not_fit_are_refused(tmp_path):
    ragged_store(tmp_path / "store")
    path = tmp_path / "store" / "index.parquet"
    store.write_parquet(path, store.read_parquet(path).iloc[::-1])
    with pytest.raises(StoreError, match=r"index\.parquet: offsets and lengths do not fit"):
        ArrayStore(tmp_path / "store")


# --- Whole or not at all ---


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_whole_leaves_nothing_and_touches_nothing_on_an_exception(tmp_path, error):
    path = tmp_path / "new" / "file.bin"
    with pytest.raises(error), store.whole(path) as stream:  # noqa: PT012
        stream.write(b"half")
        raise error
    assert list(path.parent.iterdir()) == []
    path.write_bytes(b"old")
    with pytest.raises(error), store.whole(path) as stream:  # noqa: PT012
        stream.write(b"half")
        raise error
    assert [(file.name, file.read_bytes()) for file in path.parent.iterdir()] == [
        ("file.bin", b"old")
    ]
    with store.whole(path) as stream:
        stream.write(b"new")
        assert path.read_bytes() == b"old"
    assert [(file.name, file.read_bytes()) for file in path.parent.iterdir()] == [
        ("file.bin", b"new")
    ]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failed_write_leaves_the_old_store(tmp_path, error):
    values = equal_store(tmp_path / "store")
    with pytest.raises(error), write_store(tmp_path / "store", {}) as writer:  # noqa: PT012
        writer.append(np.zeros((1, 9)), names(1))
        raise error
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    np.testing.assert_array_equal(ArrayStore(tmp_path / "store").values, values)


def test_axes_that_are_no_json_leave_the_old_store(tmp_path):
    equal_store(tmp_path / "store")
    with pytest.raises(TypeError), write_store(tmp_path / "store", {"bad": object()}) as writer:
        writer.append(np.zeros((1, 9)), names(1))
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    assert ArrayStore(tmp_path / "store").axes == {"unit": "x"}


def test_an_old_store_is_replaced_and_stays_readable_where_it_is_open(tmp_path):
    values = equal_store(tmp_path / "store")
    (tmp_path / "store" / "stray.txt").write_text("left by someone")
    old = ArrayStore(tmp_path / "store")
    with write_store(tmp_path / "store", {}) as writer:
        writer.append(old.values[:2] + 1, names(2))
    np.testing.assert_array_equal(old.values, values)
    np.testing.assert_array_equal(ArrayStore(tmp_path / "store").values, values[:2] + 1)
    assert sorted(path.name for path in (tmp_path / "store").iterdir()) == [
        "axes.json",
        "index.parquet",
        "values.npy",
    ]


def make(root: Path, tree: dict) -> None:
    for name, content in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def read(root: Path) -> dict:
    return {
        path.relative_to(root).as_posix(): path.read_text()
        for path in root.rglob("*")
        if path.is_file()
    }


def test_move_all_replaces_files_by_folders_and_folders_by_files(tmp_path):
    make(
        tmp_path,
        {"new/a": "file", "new/b/x": "folder", "out/a/old": "was a folder", "out/b": "was a file"},
    )
    store.move_all([(tmp_path / "new" / name, tmp_path / "out" / name) for name in "ab"])
    assert read(tmp_path) == {"out/a": "file", "out/b/x": "folder"}


@pytest.mark.parametrize("failing", range(7))
def test_move_all_brings_the_old_state_back_when_any_rename_fails(tmp_path, monkeypatch, failing):
    make(tmp_path, {"new/a": "1", "new/b/x": "2", "new/c": "3", "out/a": "old", "out/b/y": "old"})
    before = {name: text for name, text in read(tmp_path).items() if name.startswith("out/")}
    replace, calls = os.replace, []

    def fails(source, target):
        calls.append(source)
        if len(calls) == failing + 1:
            raise OSError(5, "input/output error")
        replace(source, target)

    monkeypatch.setattr(store.os, "replace", fails)
    with pytest.raises(OSError, match="input/output"):
        store.move_all([(tmp_path / "new" / name, tmp_path / "out" / name) for name in "abc"])
    assert {
        name: text for name, text in read(tmp_path).items() if name.startswith("out/")
    } == before


def test_move_all_copies_to_another_disk(tmp_path, monkeypatch):
    make(tmp_path, {"new/a": "1", "new/b/x": "2", "out/a": "old"})
    replace = os.replace

    def refuses(source, target):
        if "new" in Path(source).parts:
            raise OSError(18, "Invalid cross-device link")
        replace(source, target)

    monkeypatch.setattr(store.os, "replace", refuses)
    store.move_all([(tmp_path / "new" / name, tmp_path / "out" / name) for name in "ab"])
    assert {name: text for name, text in read(tmp_path).items() if name.startswith("out/")} == {
        "out/a": "1",
        "out/b/x": "2",
    }


def test_move_all_replaces_a_link_and_leaves_what_it_points_to(tmp_path):
    make(tmp_path, {"new/x": "new", "cache/x": "cached"})
    (tmp_path / "out").symlink_to(tmp_path / "cache", target_is_directory=True)
    store.move_all([(tmp_path / "new", tmp_path / "out")])
    assert not (tmp_path / "out").is_symlink()
    assert read(tmp_path) == {"out/x": "new", "cache/x": "cached"}


# --- Tables and small results ---


def test_json_is_plain_sorted_rounded_and_nan_is_null(tmp_path):
    path = tmp_path / "new" / "a.json"
    store.write_json(
        path,
        {
            "b": np.float32(0.5),
            "a": 1 / 3,
            "nan": float("nan"),
            "inf": [np.inf, -math.inf],
            3: np.int64(4),
            "array": np.array([[1.5, np.nan]]),
            "scalar": np.array(2.5),
            "flag": np.bool_(True),
            "text": "é",
            "none": None,
            "tuple": (1, 2.0),
            "tiny": 1.23456789012345e-300,
        },
    )
    text = path.read_text(encoding="utf-8")
    assert text.endswith("}\n")
    assert "é" in text
    assert list(json.loads(text)) == sorted(json.loads(text))
    assert store.read_json(path) == {
        "b": 0.5,
        "a": 0.3333333333,
        "nan": None,
        "inf": [None, None],
        "3": 4,
        "array": [[1.5, None]],
        "scalar": 2.5,
        "flag": True,
        "text": "é",
        "none": None,
        "tuple": [1, 2.0],
        "tiny": 1.23456789e-300,
    }
    assert '"flag": true' in text


@pytest.mark.parametrize("value", [{1, 2}, object(), Path("a")])
def test_json_refuses_what_has_no_order_or_text_and_leaves_nothing(tmp_path, value):
    with pytest.raises(TypeError):
        store.write_json(tmp_path / "a.json", {"a": value})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe", b"{'a': 1}"])
def test_damaged_json_names_the_file(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(
        StoreError, match=r"a\.json: damaged, not valid JSON .*`dvc checkout --force`"
    ):
        store.read_json(tmp_path / "a.json")


def test_csv_has_significant_digits_and_unix_lines(tmp_path):
    table = pd.DataFrame(
        {"n": [1, 2], "x": [1 / 3, 1e-9 / 3], "name": ["a,b", "c"], "gap": [np.nan, 2.0]}
    )
    store.write_csv(tmp_path / "a.csv", table)
    assert (
        tmp_path / "a.csv"
    ).read_bytes() == b'n,x,name,gap\n1,0.333333,"a,b",\n2,3.33333e-10,c,2\n'


def test_parquet_keeps_types_and_drops_the_index(tmp_path):
    table = pd.DataFrame(
        {"a": ["x", "y"], "b": np.array([1, 2], np.int32), "c": [np.nan, 0.1]}, index=[7, 3]
    )
    store.write_parquet(tmp_path / "a.parquet", table)
    pd.testing.assert_frame_equal(
        store.read_parquet(tmp_path / "a.parquet"), table.reset_index(drop=True)
    )
    with pytest.raises(StoreError, match=r"b\.parquet: not found"):
        store.read_parquet(tmp_path / "b.parquet")


WRITER = """
import sys
from pathlib import Path
import numpy as np, pandas as pd
from sonolens import store
folder = Path(sys.argv[1])
draw = np.random.default_rng(0)
ids = [f"i{n}" for n in range(50)]
table = pd.DataFrame({"item_id": ids, "x": draw.random(50), "n": range(50)})
store.write_parquet(folder / "a.parquet", table)
store.write_csv(folder / "a.csv", table)
names = {name: 1 for name in set("qwertz")}
store.write_json(folder / "a.json", {"values": draw.random(9), "names": names})
with store.write_store(folder / "equal", {"unit": "x"}) as writer:
    for start in range(0, 50, 20):
        rows = table[start : start + 20]
        writer.append(draw.random((len(rows), 4)), rows.to_dict("records"))
with store.write_store(folder / "ragged", {}, ragged=True) as writer:
    for name in "abc":
        writer.append(draw.random(int(draw.integers(1, 9))), {"item_id": name})
"""


def test_two_processes_write_equal_bytes(tmp_path):
    made = []
    for number in "12":
        environment = os.environ | {"PYTHONHASHSEED": number}
        command = [sys.executable, "-c", WRITER, str(tmp_path / number)]
        subprocess.run(command, env=environment, check=True)
        files = sorted(path for path in (tmp_path / number).rglob("*") if path.is_file())
        made.append(
            {path.relative_to(tmp_path / number).as_posix(): path.read_bytes() for path in files}
        )
    assert len(made[0]) == 9
    assert made[0] == made[1]


@given(st.integers(0, 40), st.integers(1, 12))
def test_batches_cover_all_in_order(n_items, size):
    parts = list(batches(n_items, size))
    assert [row for part in parts for row in part] == list(range(n_items))
    assert all(len(part) == size for part in parts[:-1])
    assert all(0 < len(part) <= size for part in parts)
