"""Rows behind a tracking server or database: reached, absent, hanging, lost on the way."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import project
from mlflow_server import Server, free_port
from sonolens import keys, track
from sonolens.params import load_yaml
from sonolens.pipeline import load_pipeline

pytestmark = pytest.mark.pipeline

PATIENCE_S = 25  # of a user; MLflow by itself tries for minutes


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"), free_port())
    try:
        server.start()
        yield server
    finally:
        server.end()


@pytest.fixture(scope="module")
def clone(repro: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return project.copy(repro, tmp_path_factory.mktemp("clone") / "neue Hörprobe")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SONOLENS_TRACKING", "DVC_EXP_NAME", "DVC_EXP_BASELINE_REV", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "")  # set by what is tested, so to be taken back


def workspace_row(root: Path) -> tuple[Any, Any]:
    """Row of the workspace's files, and the client."""
    store = track.open_store(root)
    key = keys.experiment_key(root, load_yaml(root / "params.yaml"), "digits")
    return store.row(store.experiment("digits"), key), store.client


def test_experiment_through_a_server(server, clone, monkeypatch, tmp_path):
    # With what stands on it: else the overview in the workspace would be of another experiment.
    flags = ("-S", "digits.report.n_resamples=101", "overview-publish")
    output = project.run(clone, "dvc", "exp", "run", *flags, MLFLOW_TRACKING_URI=server.uri)
    assert "s3cret" not in output
    assert "tracking:" not in output
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    row, client = workspace_row(clone)
    assert row.info.status == "FINISHED"
    summary = json.loads((clone / "metrics/digits/summary.json").read_text())
    assert row.data.metrics["accuracy_person"] == summary["accuracy_person"]
    assert any(name.endswith("val_loss") for name in row.data.metrics)
    assert row.info.artifact_uri.startswith("mlflow-artifacts:")
    page = next((clone / "plots/digits/pages/report").glob("*.png"))
    got = client.download_artifacts(
        row.info.run_id, f"plots/pages/report/{page.name}", str(tmp_path)
    )
    assert Path(got).read_bytes() == page.read_bytes()
    assert not (clone / "mlflow.db").exists()
    assert track.check(clone, history=False) == []


def test_server_that_hangs_costs_seconds(server, clone, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    params = load_yaml(clone / "params.yaml")
    spec = load_pipeline(clone, params)["digits-train"]
    server.send(signal.SIGSTOP)
    try:
        begun = time.monotonic()
        with (
            pytest.warns(RuntimeWarning, match=rf"127\.0\.0\.1:{server.port}: no answer") as caught,
            track.open_record(clone, spec, params, study="digits", stage="train") as record,
        ):
            record.metrics({"loss": 1.0}, step=0)
        assert time.monotonic() - begun < PATIENCE_S
        assert len([item for item in caught if "tracking:" in str(item.message)]) == 1
        assert "s3cret" not in "".join(str(item.message) for item in caught)
    finally:
        server.send(signal.SIGCONT)


def test_server_that_dies_is_noted_once_and_the_work_goes_on(server, clone, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    monkeypatch.setattr(track, "FLUSH_S", 0.0)
    params = load_yaml(clone / "params.yaml")
    spec = load_pipeline(clone, params)["digits-train"]

    def train() -> float:
        with track.open_record(clone, spec, params, study="digits", stage="train") as record:
            record.metrics({"loss": 1.0}, step=0)
            server.end()
            begun = time.monotonic()
            for epoch in (1, 2):
                record.metrics({"loss": 1.0}, step=epoch)
        return time.monotonic() - begun

    with pytest.warns(RuntimeWarning) as caught:
        assert train() < PATIENCE_S
    (message,) = [str(item.message) for item in caught if "tracking:" in str(item.message)]
    assert "sending metrics failed" in message
    assert "sonolens track sync" in message
    assert "s3cret" not in message + caplog.text


def test_without_server_all_is_computed_and_sync_uploads_later(server, clone, monkeypatch):
    server.end()
    code = clone / "src/sonolens/studies/digits/publish.py"
    code.write_text(f"{code.read_text()}\n# another version\n")
    output = project.run(clone, "dvc", "repro", MLFLOW_TRACKING_URI=server.uri)  # status 0
    assert f"http://127.0.0.1:{server.port}: no answer" in output
    assert "start it, or unset MLFLOW_TRACKING_URI" in output
    assert "sonolens track sync" in output
    assert "s3cret" not in output
    assert (clone / "metrics/digits/published.json").is_file()
    project.run(clone, "dvc", "status", "--quiet")  # status 0: all is made

    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    with pytest.raises(track.TrackingError, match="no answer"):
        track.sync(clone)
    server.start()
    assert any("no row with the key" in line for line in track.check(clone))
    track.sync(clone)
    row, client = workspace_row(clone)
    assert row.info.status == "FINISHED"
    assert row.data.params["digits.report.n_resamples"] == "101"
    assert {item.path for item in client.list_artifacts(row.info.run_id)} >= {"plots", "metrics"}
    assert track.check(clone) == []


# --- PostgreSQL -----------------------------------------------------------------------------------


def need(found: Any, reason: str) -> Any:
    if not found:
        pytest.skip(reason)
    return found


@pytest.fixture
def postgres() -> Iterator[str]:
    """Address, with a password, of an empty database."""
    drivers = [name for name in ("psycopg", "psycopg2") if importlib.util.find_spec(name)]
    need(drivers, "no PostgreSQL driver: pip install 'psycopg[binary]'")
    paths = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    initdb = need(shutil.which("initdb") or (paths and str(paths[-1])), "no PostgreSQL server")
    # PostgreSQL refuses to run as root, and pytest's folders are closed to others.
    other = ["runuser", "-u", "nobody", "--"] if os.geteuid() == 0 else []
    need(not other or shutil.which(other[0]), "root, and no `runuser` to start PostgreSQL with")
    folder, port = Path(tempfile.mkdtemp(prefix="sonolens-")), free_port()
    folder.chmod(0o777)
    (folder / "password").write_text("s3cret")
    binaries = Path(initdb).resolve().parent

    def run(program: str, *words: str) -> None:
        subprocess.run([*other, str(binaries / program), *words], check=True, cwd=folder)

    data = str(folder / "data")
    run("initdb", "-D", data, "-U", "me", "-A", "scram-sha-256", "--pwfile", "password")
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1"
    try:
        run("pg_ctl", "-D", data, "-o", options, "-l", str(folder / "log"), "-w", "start")
        yield f"postgresql+{drivers[0]}://me:s3cret@127.0.0.1:{port}/postgres"
    finally:
        run("pg_ctl", "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(folder)


def test_postgresql(postgres, clone, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", postgres.replace("s3cret", "wr0ng"))
    begun = time.monotonic()
    with pytest.raises(track.TrackingError, match="password authentication failed") as caught:
        track.sync(clone)
    assert time.monotonic() - begun < PATIENCE_S
    assert "wr0ng" not in str(caught.value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", postgres)
    track.sync(clone)
    assert workspace_row(clone)[0].info.status == "FINISHED"
    assert track.check(clone) == []
