from __future__ import annotations

import pytest

from sonolens.data.own_files import named_recordings


@pytest.fixture
def touch(tmp_path):
    """Makes empty files by name; naming looks at nothing else."""

    def make(*names):
        paths = [tmp_path / name for name in names]
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return paths

    return make


def _names(paths):
    named, bad = named_recordings(paths)
    assert not bad
    return [name for _, name in named]


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["a.flac", "a.wav", "a_2.wav"], ["a", "a_2", "a_2_2"]),
        (["a_2.wav", "a.flac", "a.wav"], ["a_2", "a", "a_3"]),
        (["x/a.wav", "y/a.wav", "z/a.wav"], ["a", "a_2", "a_3"]),
        (["x/a.wav", "y/A.wav"], ["a", "A_2"]),
    ],
)
def test_names_are_unique(touch, files, names):
    assert _names(touch(*files)) == names


def test_a_folder_stands_for_its_files(touch, tmp_path):
    touch("set/a.flac", "set/a.wav", "set/a_2.wav", "set/deep/b.ogg", "set/notes.txt")
    assert _names([tmp_path / "set"]) == ["a", "a_2", "a_2_2", "b"]


def test_folders_without_audio_and_missing_paths_are_named(touch, tmp_path):
    (good,) = touch("a.wav")
    touch("texts/notes.txt")
    named, bad = named_recordings([tmp_path / "texts", good, tmp_path / "absent.wav"])
    assert named == [(good, "a")]
    assert bad == [
        f"{tmp_path / 'texts'}: no audio file in this folder",
        f"{tmp_path / 'absent.wav'}: no such file",
    ]
    assert named_recordings([]) == ([], [])


def test_the_same_file_twice_counts_once(touch, tmp_path, monkeypatch):
    first, second = touch("set/a.wav", "set/b.wav")
    monkeypatch.chdir(tmp_path)
    paths = [second, second, tmp_path / "set", first.relative_to(tmp_path), tmp_path / "set/../set"]
    assert named_recordings(paths) == ([(second, "b"), (first, "a")], [])
