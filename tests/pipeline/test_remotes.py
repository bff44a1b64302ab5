"""Results that go to a remote and come back: a folder, and S3 as moto's server speaks it."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import project
from project import run
from sonolens.pipeline import load_pipeline

pytestmark = pytest.mark.pipeline

KEYS = {"access_key_id": "key-of-nobody", "secret_access_key": "secret-of-nobody"}
BUCKET = "sonolens"
FEATURES, CHANGE = "digits-features", "digits.features.f_min=60.0"


@dataclass
class Remote:
    """Where to push; `secrets` go into .dvc/config.local."""

    url: str
    options: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)

    def log_in(self, root: Path) -> None:
        for name, value in self.secrets.items():
            run(root, "dvc", "remote", "modify", "--local", "store", name, value)


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """Address of an S3 server that has the bucket."""
    pytest.importorskip("dvc_s3", reason="no dvc-s3: install the extra s3")
    boto3 = pytest.importorskip("boto3")
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # else a line for each request
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    words = {f"aws_{name}": value for name, value in KEYS.items()}
    client = boto3.client("s3", endpoint_url=address, region_name="us-east-1", **words)
    client.create_bucket(Bucket=BUCKET)
    yield address
    server.stop()


@pytest.fixture(scope="module", params=["folder", "s3"])
def remote(request, tmp_path_factory) -> Remote:
    if request.param == "folder":
        return Remote(str(tmp_path_factory.mktemp("remote")))
    address = request.getfixturevalue("s3")
    return Remote(f"s3://{BUCKET}/dvc", {"endpointurl": address}, KEYS)


@pytest.fixture(scope="module")
def origin(remote, repro, tmp_path_factory) -> Path:
    """The finished repository after `dvc push`."""
    root = project.copy(repro, tmp_path_factory.mktemp("origin") / "origin")
    run(root, "dvc", "remote", "add", "-d", "store", remote.url)
    for name, value in remote.options.items():
        run(root, "dvc", "remote", "modify", "store", name, value)
    remote.log_in(root)
    project.commit(root, "remote")
    run(root, "dvc", "push", "--run-cache")
    return root


@pytest.fixture(scope="module")
def clone(origin, remote, tmp_path_factory) -> Path:
    """A fresh clone after `dvc pull`."""
    root = tmp_path_factory.mktemp("clone") / "clone"
    run(root.parent, "git", "clone", "-q", str(origin), str(root))
    remote.log_in(root)
    run(root, "dvc", "pull", "--run-cache")
    return root


def test_a_fresh_clone_is_complete_after_a_pull(clone):
    assert "up to date" in run(clone, "dvc", "status")
    assert "Running stage" not in run(clone, "dvc", "repro", SONOLENS_TRACKING="off")
    assert not run(clone, "git", "status", "--porcelain")
    for stage in load_pipeline(clone).values():
        assert all((clone / name).exists() for name in stage.outputs)


def test_a_change_taken_back_is_restored_from_the_run_cache(clone):
    lock = (clone / "dvc.lock").read_text()
    said = run(clone, "dvc", "exp", "run", "-S", CHANGE, FEATURES, SONOLENS_TRACKING="off")
    assert f"Running stage '{FEATURES}'" in said
    assert (clone / "dvc.lock").read_text() != lock
    run(clone, "git", "checkout", "-q", "params.yaml")
    # The record of the stage as it was comes from the remote: it never ran in this clone.
    said = run(clone, "dvc", "repro", SONOLENS_TRACKING="off")
    assert f"Stage '{FEATURES}' is cached" in said
    # As a stage had run, the study had to be published again.
    assert re.findall("Running stage '(.+)'", said) == ["digits-publish"]
    assert (clone / "dvc.lock").read_text() == lock


def test_keys_stay_out_of_git(origin, remote):
    tracked = run(origin, "git", "show", "HEAD:.dvc/config")
    assert all(value in tracked for value in (remote.url, *remote.options.values()))
    assert not [value for value in remote.secrets.values() if value in tracked]
    assert ".dvc/config.local" not in run(origin, "git", "ls-files")
