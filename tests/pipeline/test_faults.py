"""What a user is told when DVC meets bad params, damage, a full disk, or no repository."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

import disks
from project import copy, environment, read_yaml, run, run_any

pytestmark = pytest.mark.pipeline
AUDIO = "data/digits/prepare/audio"


@pytest.fixture
def root(repro, tmp_path, monkeypatch) -> Path:
    """A copy of the finished repository, without a tracker."""
    monkeypatch.setattr("project.environment", untracked)
    return copy(repro, tmp_path / "Kopie von früher")


def untracked(**changes: str) -> dict[str, str]:
    return environment(**({"SONOLENS_TRACKING": "off"} | changes))


def fails(root: Path, *command: str) -> str:
    """What a command says that must not succeed."""
    done = run_any(root, *command)
    assert done.returncode != 0, f"{' '.join(command)}\n{done.stdout[-3000:]}"
    return done.stdout + done.stderr


def sonolens(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "sonolens.cli", *arguments]


def changed(root: Path) -> list[str]:
    """Lines of `git status`, without what failing experiments may change.

    A stage that ran takes back that its study is published, whatever becomes of its outputs.
    """
    lines = run(root, "git", "status", "--porcelain").splitlines()
    expected = (" params.yaml", " D metrics/digits/published.json")
    return [line for line in lines if not line.endswith(expected)]


def stored(root: Path, path: str, name: str) -> Path:
    """The object of DVC's cache for the file `name` in the output folder `path`."""
    entries = (out for stage in read_yaml(root / "dvc.lock")["stages"].values()
               for out in stage.get("outs", []))  # fmt: skip
    (md5,) = (out["md5"] for out in entries if out["path"] == path)
    cache = root / ".dvc/cache/files/md5"
    listing = read_yaml(cache / md5[:2] / md5[2:])
    (member,) = (row["md5"] for row in listing if row["relpath"] == name)
    return cache / member[:2] / member[2:]


def test_wrong_keys_in_set_params_are_named(root):
    mistyped = fails(root, "dvc", "exp", "run", "-S", "digits.train.epoch=3", "digits-publish")
    assert "Could not override 'digits.train.epoch'" in mistyped
    added = fails(root, "dvc", "exp", "run", "-S", "+digits.x=1", "digits-publish")
    assert "digits-publish: params.yaml: digits.x: unknown key; remove it" in added
    assert "Traceback" not in added


def test_a_failing_retrain_says_how_the_old_model_comes_back(root):
    models = {path: path.read_bytes() for path in (root / "models/digits/train").iterdir()}
    assert models
    said = fails(root, "dvc", "exp", "run", "-S", "digits.train.epochs=0", "digits-train")
    assert "params.yaml: digits.train.epochs: found 0; input should be greater than" in said
    assert not (root / "models/digits/train").exists()  # DVC removes them before the stage runs
    (line,) = (line for line in said.splitlines() if "to have them back" in line)
    for command in re.findall("`(.+?)`", line):
        run(root, *command.split())
    assert {path: path.read_bytes() for path in (root / "models/digits/train").iterdir()} == models
    assert changed(root) == []
    run(root, "git", "restore", "params.yaml")
    assert "Running stage" not in run(root, "dvc", "repro", "digits-train")


def test_a_damaged_object_of_the_cache_is_found_and_made_anew(root):
    """DVC itself copies it into the workspace and says that everything is up to date."""
    damaged = stored(root, AUDIO, "values.npy")
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 0xFF
    mode = damaged.stat().st_mode
    damaged.chmod(0o644)
    damaged.write_bytes(bytes(content))
    damaged.chmod(mode)
    (root / AUDIO / "values.npy").unlink()
    run(root, "dvc", "checkout")
    assert (root / AUDIO / "values.npy").read_bytes() == content
    assert "up to date" in run(root, "dvc", "status")
    said = fails(root, "dvc", "repro", "--force", "--single-item", "digits-features")
    assert f"digits-features: {AUDIO}: found content with MD5" in said
    assert "`sonolens data verify`" in said
    path = {"PYTHONPATH": str(root / "src")}
    found = run_any(root, *sonolens("data", "verify"), **path)
    assert found.returncode == 1
    assert f"{AUDIO}/values.npy: damaged in the cache, {damaged}" in found.stdout
    assert ", 1 damaged" in found.stdout
    run(root, *sonolens("data", "verify", "--remove"), **path)
    assert not damaged.exists()
    run(root, "dvc", "repro", "digits-prepare")
    assert damaged.read_bytes() == (root / AUDIO / "values.npy").read_bytes() != content
    run(root, "dvc", "checkout")
    run(root, "git", "restore", "metrics", "plots")
    assert changed(root) == []
    assert "Running stage" not in run(root, "dvc", "repro", "digits-features")


def test_a_full_cache_is_named_and_the_stage_runs_when_there_is_room(root, tmp_path):
    change_folds(root, 4)
    with disks.small(tmp_path / "cache", "512k") as cache:
        run(root, "dvc", "config", "--local", "cache.dir", str(cache))
        said = fails(root, "dvc", "repro", "digits-prepare")
        assert "No space left on device" in said
        assert str(cache) in said
        assert changed(root) == []
        disks.remount(cache, "size=64m")
        run(root, "dvc", "repro", "digits-prepare")
        assert "up to date" in run(root, "dvc", "status", "digits-prepare")
        (root / AUDIO / "values.npy").unlink()
        run(root, "dvc", "checkout", "digits-prepare")
        assert (root / AUDIO / "values.npy").is_file()


def change_folds(root: Path, n_folds: int) -> None:
    path = root / "params.yaml"
    # The first is that of the sounds.
    text, n = re.subn(r"n_folds: \d+", f"n_folds: {n_folds}", path.read_text(), count=1)
    assert n == 1
    path.write_text(text)


def test_without_git_the_user_learns_what_to_do(root, tmp_path):
    os.rename(root / ".git", tmp_path / "no git")
    assert "is not a git repository" in fails(root, "dvc", "repro", "digits-prepare")
    said = fails(root, "make", "git")
    assert "Found no git repository" in said
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "a.wav").write_bytes(b"")
    added = run_any(root, *sonolens("data", "add", "mine", str(tmp_path / "words")),
                    PYTHONPATH=str(root / "src"))  # fmt: skip
    assert added.returncode == 1
    assert "`dvc add data/raw/mine/recordings` failed" in added.stderr
    assert "`git init` makes one" in added.stderr
    assert not (root / "data/raw/mine").exists()
    (advice,) = re.findall(r"\(echo .+\.local", said)
    run(root, "sh", "-c", advice)
    run(root, "make", "git")
    assert "Running stage" in run(root, "dvc", "repro", "--force", "digits-prepare")


def test_a_shallow_clone_works_in_place_and_says_what_temporary_runs_need(
    repro, tmp_path, monkeypatch
):
    """In a path that is not ASCII, DVC 3.67 makes temporary clones only if its cache's path is."""
    monkeypatch.setattr("project.environment", untracked)
    origin, clone = copy(repro, tmp_path / "origin"), tmp_path / "flacher Klon ü"
    run(tmp_path, "git", "clone", "-q", "--depth", "1", origin.as_uri(), str(clone))
    for name, value in (("user.name", "Test"), ("user.email", "test@example.org")):
        run(clone, "git", "config", name, value)
    run(clone, "dvc", "config", "--local", "cache.dir", str(origin / ".dvc/cache"))
    run(clone, "dvc", "checkout")
    assert "Running stage" not in run(clone, "dvc", "repro", "digits-score")
    assert "Ran experiment" in experiment(clone, 4)
    lost = fails(clone, "dvc", "exp", "run", "--temp", "-S", "digits.prepare.n_folds=5",
                 "digits-prepare")  # fmt: skip
    assert f"{clone} is a shallow clone" in lost
    assert "`git fetch --unshallow` first" in lost
    run(clone, "git", "fetch", "-q", "--unshallow")
    assert "Ran experiment" in experiment(clone, 5, "--temp")


def experiment(root: Path, n_folds: int, *place: str) -> str:
    change = f"digits.prepare.n_folds={n_folds}"
    return run(root, "dvc", "exp", "run", *place, "-S", change, "digits-prepare")
