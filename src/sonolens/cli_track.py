"""Commands on the MLflow record: `track sync|check`, `ui`, `model register` of `sonolens`."""

from __future__ import annotations

import importlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NoReturn, TypeVar

import typer

app = typer.Typer(no_args_is_help=True, help="Keep the rows in MLflow in line with the files.")

HOST = "127.0.0.1"
START_TIMEOUT_S = 180.0
Result = TypeVar("Result")


WorkspaceOnly = Annotated[
    bool, typer.Option("--workspace-only", help="Skip branches and DVC experiments.")
]


@app.command()
def sync(workspace_only: WorkspaceOnly = False) -> None:
    """Add what is missing in MLflow: from the workspace, all branches and `dvc exp list`."""
    from sonolens import track

    lines = _or_exit(lambda: track.sync(Path.cwd(), history=not workspace_only))
    for line in lines:
        typer.echo(line)
    if not lines:
        typer.echo("nothing to do: files and rows agree")


@app.command()
def check(workspace_only: WorkspaceOnly = False) -> None:
    """List where rows in MLflow differ from the files; the exit status is 1 when any does."""
    from sonolens import track

    lines = _or_exit(lambda: track.check(Path.cwd(), history=not workspace_only))
    for line in lines:
        typer.echo(line)
    if lines:
        raise typer.Exit(1)
    typer.echo("files and rows agree")


def ui(
    port: Annotated[int, typer.Option(help="Port on this machine.")] = 5000,
    compare: Annotated[
        list[str] | None,
        typer.Option(
            help="Row to compare, by name, DVC experiment or id; give it for each row.",
            metavar="NAME_OR_ID",
            show_default="the latest of each study",
        ),
    ] = None,
    server: Annotated[
        bool, typer.Option("--server/--no-server", help="Start a server, or only print links.")
    ] = True,
) -> None:
    """Show the runs of every study in the browser."""
    from sonolens import track
    from sonolens.pipeline import scratch

    store = _or_exit(lambda: track.open_store(Path.cwd()))
    base = store.uri if track.is_server(store.uri) else f"http://{HOST}:{port}"
    links = _or_exit(lambda: track.ui_links(store, base, compare or ()))
    if not links:
        _fail("no runs yet; run `dvc repro` or, for results that are there, `sonolens track sync`")
    if not server or track.is_server(store.uri):
        _print_links(links)
        return
    with socket.socket() as trial:
        # As the server does it; without, a port that was just given back counts as taken.
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((HOST, port))
        except OSError as error:
            _fail(
                f"port {port} is taken ({error.strerror}); "
                f"choose another: `sonolens ui --port {port + 1}`"
            )
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store.uri]
    command += ["--default-artifact-root", (store.main / "mlartifacts").as_uri()]
    command += ["--host", HOST, "--port", str(port), "--workers", "1"]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    log = scratch(store.root) / "server.log"
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the server too
    with log.open("wb") as stream:
        # A group of its own, so that its workers end with it.
        process = subprocess.Popen(
            command,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        try:
            _wait_healthy(process, base, log)
            _print_links(links)
            typer.echo("Ctrl-C ends the server.")
            process.wait()
        except KeyboardInterrupt:
            typer.echo("server ended")
        finally:
            _end(process)
    if process.returncode not in (0, -signal.SIGTERM, -signal.SIGINT):
        _fail(f"the server ended with status {process.returncode}; see {log}")


def model_register(
    study: Annotated[str, typer.Argument(help="e.g. digits")],
    name: Annotated[
        str, typer.Argument(help="Checkpoint as named in MLflow's table of models.")
    ] = "",
) -> None:
    """Copy a trained model with its signature into MLflow's registry; without NAME, list names."""
    from sonolens import track

    root = Path.cwd()
    if not name:
        names = track.checkpoint_names(_or_exit(lambda: track.open_store(root)), study)
        if not names:
            _fail(f"{study}: no checkpoints yet; run `dvc repro {study}-train`")
        for known in names:
            typer.echo(known)
        return
    try:
        adapter = importlib.import_module(f"sonolens.studies.{study}.adapter")
        registrable = adapter.registrable
    except (ModuleNotFoundError, AttributeError) as error:
        _fail(f"{study}: its models cannot be registered ({error})")
    load, example = registrable(root, name)
    registered, version = _or_exit(lambda: track.register(root, study, name, load, example))
    typer.echo(f"{registered} version {version}; load it with models:/{registered}/{version}")


def _or_exit(call: Callable[[], Result]) -> Result:
    """Result of `call`; what is wrong with the user's files or store becomes one plain message."""
    from sonolens.params import ParamsError
    from sonolens.store import StoreError
    from sonolens.track import TrackingError

    try:
        return call()
    except (ParamsError, StoreError, TrackingError) as error:
        _fail(str(error))


def _fail(message: str) -> NoReturn:
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(1)


def _print_links(links: list[tuple[str, str]]) -> None:
    width = max(len(what) for what, _ in links)
    for what, link in links:
        typer.echo(f"{what:<{width}}  {link}")


def _wait_healthy(process: subprocess.Popen[bytes], base: str, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            _fail(f"the server ended with status {process.returncode}; see {log}")
        try:
            urllib.request.urlopen(f"{base}/health", timeout=2).close()
            return
        except OSError:
            time.sleep(0.3)  # not yet listening
    _fail(f"the server gives no answer after {START_TIMEOUT_S:.0f} s; see {log}")


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    end_all = getattr(os, "killpg", None)  # absent on Windows
    if end_all is None:
        process.terminate()
    else:
        end_all(process.pid, signal.SIGTERM)
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
