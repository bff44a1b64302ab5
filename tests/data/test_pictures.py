"""Corpora of pictures: files cut, mixed up and incomplete; forms of writers; the manifest."""

from __future__ import annotations

import numpy as np
import pytest

from conftest import idx
from sonolens.data import pictures
from sonolens.data.corpora import mnist, registry, sklearn_digits
from sonolens.data.corpora.contract import CorpusError
from sonolens.data.manifest import ManifestError
from sonolens.store import ArrayStore


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_files_compressed_or_not(tmp_path, make_mnist, zipped):
    found = mnist.pictures(make_mnist(tmp_path, {"t10k": 20, "train": 30}, zipped), partial=True)
    assert [one.picture_id for one in found[:2]] == ["t10k_00", "t10k_01"]
    assert [one.extra["is_test"] for one in found] == [True] * 20 + [False] * 30
    assert found[3].pixels.shape == (5, 4)
    assert found[3].pixels[0, 0] == 3 + len("t10k")
    assert found[13].label == "3"
    assert len({one.person_id for one in found}) == 50


def test_a_set_is_complete_or_partial(tmp_path, make_mnist):
    make_mnist(tmp_path, {"t10k": 20, "train": 30})
    with pytest.raises(CorpusError, match=r"20 in t10k, 30 in train, need 10000 in t10k, 60000 in"):
        mnist.pictures(tmp_path, partial=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: None, "no error"),
        (lambda folder: (folder / "t10k-images-idx3-ubyte").unlink(), "t10k has no images"),
        (lambda folder: [p.unlink() for p in folder.glob("t10k*")], "found parts train, need t10k"),
        (lambda folder: [p.unlink() for p in folder.glob("train*")], "found parts t10k, need t10k"),
        (lambda folder: [p.unlink() for p in folder.glob("*")], "sonolens data add mnist"),
        (
            lambda folder: (folder / "train-images-idx3-ubyte").write_bytes(b"not a picture"),
            r"train-images-idx3-ubyte: starts with 6e 6f 74 20, need 00 00 08 03",
        ),
        (lambda folder: (folder / "train-images-idx3-ubyte").write_bytes(b""), "starts with nothi"),
        (
            lambda folder: (folder / "train-images-idx3-ubyte").write_bytes(
                (folder / "train-images-idx3-ubyte").read_bytes()[:-7]
            ),
            r"593 bytes for 30 x 5 x 4, need 600; it is cut off",
        ),
        (
            lambda folder: (folder / "train-labels-idx1-ubyte").write_bytes(
                idx(np.arange(29) % 10)
            ),
            "30 pictures, train-labels-idx1-ubyte has 29 labels",
        ),
        (
            lambda folder: (folder / "train-labels-idx1-ubyte").write_bytes(idx(np.arange(30))),
            "label 29, need 0 to 9",
        ),
        (
            lambda folder: (folder / "train-images-idx3-ubyte").write_bytes(
                idx(np.zeros((30, 6, 6)))
            ),
            r"pictures of \(5, 4\) and of \(6, 6\) pixels",
        ),
        (
            lambda folder: (folder / "train-labels-idx1-ubyte.gz").write_bytes(b"\x1f\x8bbroken"),
            "labels of train are there twice",
        ),
    ],
)
def test_what_is_no_set_is_refused(tmp_path, make_mnist, change, message):
    folder = make_mnist(tmp_path / "recordings", {"t10k": 20, "train": 30})
    change(folder)
    if message == "no error":
        assert len(mnist.pictures(folder, partial=True)) == 50
        return
    with pytest.raises(CorpusError, match=message):
        mnist.pictures(folder, partial=True)


def test_a_damaged_archive_is_named(tmp_path, make_mnist):
    folder = make_mnist(tmp_path, {"t10k": 20, "train": 30}, zipped=True)
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CorpusError, match="train-images-idx3-ubyte.gz: cannot be read"):
        mnist.pictures(folder, partial=True)


def test_real_mnist(real_data):
    found = mnist.pictures(real_data / "mnist", partial=True)
    assert sum(one.extra["is_test"] for one in found) == 10_000
    assert found[0].pixels.shape == (28, 28)
    test = np.bincount([one.class_index for one in found if one.extra["is_test"]])
    assert test.tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]  # as published


def test_forms_are_found_by_their_beginning():
    found = sklearn_digits.pictures()
    assert len(found) == sklearn_digits.INFO.n_recordings
    forms = [one.person_id for one in found]
    assert forms == sorted(forms)
    sizes = [forms.count(form) for form in sorted(set(forms))]
    assert len(sizes) == 14
    assert all(120 <= size <= 130 for size in sizes)
    starts = [forms.index(form) for form in sorted(set(forms))]
    for start in starts:  # a form begins with the digits in order; its 0 may be missing
        beginning = "".join(one.label for one in found[start : start + 9])
        assert beginning in ("012345678", "123456789")


def test_pixels_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    images = load_digits().images
    for number in (0, 500, 1796):
        pixels = sklearn_digits.pictures()[number].pixels
        np.testing.assert_allclose(pixels / 255, images[number] / 16, atol=1 / 500)


def test_manifest_and_store(tmp_path, make_mnist):
    found = mnist.pictures(make_mnist(tmp_path / "in", {"t10k": 20, "train": 30}), partial=True)
    table = pictures.build(found[::-1], tmp_path / "pixels", source="mnist")
    assert list(table.columns[: len(pictures.COLUMNS)]) == list(pictures.COLUMNS)
    assert table["item_id"].is_monotonic_increasing
    assert table["height_native"].eq(5).all() and table["width_native"].eq(4).all()
    store = ArrayStore(tmp_path / "pixels")
    assert store.values.dtype == np.uint8
    np.testing.assert_array_equal(store.take(["mnist/t10k_03"])[0], found[3].pixels)
    report = pictures.report(table, has_persons=False)
    assert (report["n_item"], report["n_person"]) == (50, None)
    assert report["n_duplicate"] > 0  # numbers of both parts overlap


def test_no_pictures_is_an_error(tmp_path):
    with pytest.raises(ManifestError, match="no recordings"):
        pictures.build([], tmp_path / "pixels", source="mnist")


def test_names_by_modality():
    assert registry.names("image") == ["mnist", "sklearn_digits"]
    assert registry.names("audio") == ["audiomnist", "formant_words", "fsdd"]
