"""One finished `tiny` run for all tests of the pipeline."""

from __future__ import annotations

from pathlib import Path

import pytest

import project


@pytest.fixture(scope="session")
def repro(tmp_path_factory) -> Path:
    """A repository after `dvc repro`, committed; its path has a space and an umlaut.

    Tests that change files in it work on `project.copy`.
    """
    root = project.make(tmp_path_factory.mktemp("repro") / "neue Hörprobe")
    project.run(root, "dvc", "repro")
    project.commit(root, "results")
    return root
