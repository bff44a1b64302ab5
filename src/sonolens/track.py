"""Records in MLflow, as a projection of the files that DVC keeps.

One MLflow experiment per study. One top-level row per DVC experiment, found by a content key, so
that repeating an experiment never makes a second row. Below it one child row per stage that really
ran. `train*` and `explain*` report while they run; `publish` completes the row from files. What
could not be recorded is filled in later by `sonolens track sync`, so a failure here is a loud
warning and never the end of a training.

The store is MLFLOW_TRACKING_URI, else `mlflow.db` beside `mlartifacts/` in the main checkout, also
for an experiment that runs in a temporary clone, which is deleted when it ends.

MLflow is imported here alone, inside functions: it takes seconds, and workers never need it.
"""

from __future__ import annotations

import getpass
import hashlib
import http.client
import json
import logging
import math
import os
import re
import socket
import ssl
import tempfile
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from sonolens.interrupts import caught, dvc_process, held
from sonolens.keys import (
    Digests,
    KeyedFileError,
    device_kind,
    dvc_digest,
    experiment_key,
    look_up,
    stage_and_cell,
    stage_key,
    study_of,
)
from sonolens.parallel import is_alive
from sonolens.params import ParamsError, flatten, load_yaml
from sonolens.pipeline import StageSpec, load_pipeline, main_root, scratch
from sonolens.sources import content_key
from sonolens.store import StoreError, read_json, write_json
from sonolens.track_files import (
    Place,
    bring,
    file_curves,
    file_metrics,
    git,
    metric_name,
    places,
    published_key,
    published_studies,
    revisions,
    row_params,
    shown_outputs,
)
from sonolens.track_files import curve_name as curve_name  # stages know this module alone

if TYPE_CHECKING:
    import numpy as np
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Metric, Run
    from torch import nn

log = logging.getLogger(__name__)

LIVE_STAGES = ("train", "explain")
FLUSH_S = 5.0
LOCK_TIMEOUT_S = 120.0
# Limits of MLflow's REST interface.
MAX_METRICS = 1000
MAX_PARAMS = 100
MAX_PARAM_CHARS = 6000
MAX_NOTE_CHARS = 7900
MAX_DIGEST_CHARS = 36
WHOLE_FILES = ("params.yaml", "dvc.lock")
PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
# Without it MLflow's pages open in their view for language models.
VIEW_FOR_TRAINING = "workflowType=machine_learning"
SHARED_VIEW = "sonolens"
MAX_VIEW_METRICS, MAX_VIEW_PARAMS = 6, 8
LEVELS = ("person", "recording", "item")
MAX_COMPARED = 10


class TrackingError(RuntimeError):
    """The store cannot be used; the message says what was tried and what to do."""


def enabled(params: dict[str, Any]) -> bool:
    """Whether runs are recorded: `runtime.tracking.enabled`, unless SONOLENS_TRACKING=off."""
    if os.environ.get("SONOLENS_TRACKING", "").lower() in ("off", "0", "false", "no"):
        return False
    return bool(params["runtime"]["tracking"]["enabled"])


def _warn(message: str) -> None:
    log.warning(message)
    warnings.warn(message, RuntimeWarning, stacklevel=3)


def _lost(what: str, error: Exception) -> None:
    _warn(
        f"tracking: {what} failed ({type(error).__name__}: {_reason(error)}); the run goes on "
        "with files only, `sonolens track sync` fills the record in afterwards"
    )


def _reason(error: BaseException) -> str:
    return _public((str(error).strip() or "no message").splitlines()[0])


# --- The store ------------------------------------------------------------------------------------


def tracking_uri(root: Path) -> str:
    """MLFLOW_TRACKING_URI, else SQLite in the main checkout, where relative paths start too."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    main = main_root(root)
    if not uri:
        return f"sqlite:///{(main / 'mlflow.db').as_posix()}"
    if uri.startswith("sqlite:///"):
        return f"sqlite:///{(main / uri.removeprefix('sqlite:///')).as_posix()}"
    if uri.startswith("databricks") or "://" in uri:
        return uri
    return (main / uri.removeprefix("file:")).resolve().as_uri()


def is_server(uri: str) -> bool:
    """Whether `uri` is a tracking server rather than a database or folder opened here."""
    return uri.startswith(("http://", "https://"))


ADVICE = "start it, or unset MLFLOW_TRACKING_URI to use the local store"


def _check_reachable(uri: str) -> None:
    """Raise TrackingError within seconds; by itself MLflow would block each call for minutes."""
    split = urlsplit(uri)
    try:
        if is_server(uri):
            address = f"{uri.rstrip('/')}/health"
            urllib.request.urlopen(address, timeout=3, context=_tls(split.scheme)).close()
        elif split.scheme.split("+")[0] in PORTS and split.hostname:
            port = split.port or PORTS[split.scheme.split("+")[0]]
            socket.create_connection((split.hostname, port), timeout=3).close()
    except urllib.error.HTTPError as error:
        if error.code >= 500:
            raise TrackingError(
                f"{_public(uri)}: the server answers {error.code}; {ADVICE}"
            ) from error
    except (OSError, http.client.HTTPException) as error:
        raise TrackingError(f"{_public(uri)}: no answer ({error}); {ADVICE}") from error


def _tls(scheme: str) -> ssl.SSLContext | None:
    """What MLflow's own variables say about the certificate of a server."""
    if scheme != "https":
        return None
    context = ssl.create_default_context(
        cafile=os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or None
    )
    if os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1"):
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _check_database(uri: str) -> None:
    """Raise TrackingError unless a connection works; MLflow tries ten times, with longer waits."""
    scheme = urlsplit(uri).scheme.split("+")[0]
    if scheme not in (*PORTS, "sqlite"):
        return
    import sqlalchemy
    from sqlalchemy.pool import NullPool

    try:
        if scheme == "sqlite":
            Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        engine = sqlalchemy.create_engine(uri, poolclass=NullPool)
        sqlalchemy.inspect(engine).get_table_names()
    except (sqlalchemy.exc.SQLAlchemyError, ImportError, OSError) as error:
        advice = (
            "move it away, and `sonolens track sync` makes it anew"
            if scheme == "sqlite"
            else "correct MLFLOW_TRACKING_URI, or unset it to use the local store"
        )
        raise TrackingError(f"{_public(uri)}: {_reason(error)}; {advice}") from error


def _public(text: str) -> str:
    """`text` without the user and password of addresses in it."""
    return re.sub(r"//[^/\s]*@", "//", text)


def _hand_over_credentials(uri: str) -> str:
    """Server's address without user and password, which MLflow then takes from its variables.

    In the address they would be printed with each link and each error.
    """
    split = urlsplit(uri)
    for name, value in (("USERNAME", split.username), ("PASSWORD", split.password)):
        if value is not None:
            os.environ[f"MLFLOW_TRACKING_{name}"] = unquote(value)
    return _public(uri)


@dataclass
class Store:
    """An open MLflow store; made by `open_store`."""

    root: Path
    main: Path
    uri: str
    client: MlflowClient

    def experiment(self, study: str) -> str:
        """Id of the study's MLflow experiment, made or restored; call it under `lock`."""
        found = self.client.get_experiment_by_name(study)
        if found is None:
            place = None if is_server(self.uri) else (self.main / "mlartifacts" / study).as_uri()
            return str(self.client.create_experiment(study, artifact_location=place))
        if found.lifecycle_stage == "deleted":
            self.client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def studies(self) -> list[Experiment]:
        """MLflow experiments that hold rows of ours."""
        found = self.client.search_experiments(order_by=["name ASC"])
        return [item for item in found if self.rows(item.experiment_id, {}, limit=1)]

    def rows(
        self,
        experiment_id: str,
        tags: dict[str, str],
        level: str = "experiment",
        limit: int = 100_000,
        deleted: bool = False,
    ) -> list[Run]:
        """Rows with these `sonolens.` tags, the newest first; `deleted` ones on demand."""
        from mlflow.entities import ViewType

        tests = [f"tags.`{name}` = '{value}'" for name, value in tags.items()]
        query = " and ".join([f"tags.`sonolens.level` = '{level}'", *tests])
        found: list[Run] = []
        token = None
        while len(found) < limit:
            page = self.client.search_runs(
                [experiment_id],
                query,
                ViewType.ALL if deleted else ViewType.ACTIVE_ONLY,
                max_results=min(limit, 1000),
                order_by=["attributes.start_time DESC"],
                page_token=token,
            )
            found += page
            token = page.token
            if not token:
                break
        return found

    def row(self, experiment_id: str, key: str) -> Run | None:
        """The top-level row of an experiment key; one that was deleted when there is no other."""
        found = self.rows(experiment_id, {"sonolens.key": key}, deleted=True)
        return min(found, key=lambda run: (_is_deleted(run), run.info.start_time), default=None)

    def restored(self, run: Run) -> Run:
        """`run`, brought back if it was deleted: another with its key would be a double."""
        if not _is_deleted(run):
            return run
        self.client.restore_run(run.info.run_id)
        return self.client.get_run(run.info.run_id)

    def children(self, experiment_id: str, key: str, parent: str | None) -> list[Run]:
        """Rows of a stage by its key: below `parent`, or below any row; the newest first."""
        tags = {"sonolens.stage_key": key} | ({"mlflow.parentRunId": parent} if parent else {})
        return self.rows(experiment_id, tags, level="stage")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Held around every find-or-create, so that two processes never make the same row twice."""
        with _store_lock(self.root):
            yield


@contextmanager
def _store_lock(root: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout

    path = scratch(root) / "track.lock"
    try:
        with FileLock(path, timeout=LOCK_TIMEOUT_S):
            yield
    except Timeout as error:
        raise TrackingError(
            f"{path}: held by another process for {LOCK_TIMEOUT_S:.0f} s; wait for it or end it"
        ) from error


def _is_deleted(run: Run) -> bool:
    return bool(run.info.lifecycle_stage == "deleted")


def open_store(root: Path) -> Store:
    """Open the store, making the database when it is missing.

    Raises
    ------
    TrackingError
        When a server or database does not answer within seconds.
    """
    root = root.resolve()
    uri = tracking_uri(root)
    if is_server(uri):
        uri = _hand_over_credentials(uri)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")  # 120 s for one that hangs
    _check_reachable(uri)
    from mlflow import MlflowClient

    for name in ("mlflow.store.db.utils", "mlflow.system_metrics", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Several first users of a missing database break each other's migration.
    with _store_lock(root):
        _check_database(uri)
        client = MlflowClient(uri)
        client.search_experiments(max_results=1)
    return Store(root, main_root(root), uri, client)


# --- What a running stage reports ----------------------------------------------------------------


class Record:
    """Takes everything and keeps nothing: tracking is off, or the store cannot be reached."""

    def metrics(self, values: dict[str, float], step: int | None = None) -> None:
        """Report numbers, e.g. of one epoch.

        Parameters
        ----------
        values
            By metric name; curves are named by `curve_name`. NaN and infinity are counted, not
            kept.
        step
            Epoch; a step that the record already has is not added again.
        """

    def artifact(self, path: Path, folder: str = "") -> None:
        """Copy a file or folder into the record, below `folder`."""

    def checkpoint(
        self,
        name: str,
        path: Path,
        dvc_path: str,
        params: dict[str, Any],
        metrics: dict[str, float],
    ) -> None:
        """Describe a checkpoint without copying it: its bytes stay in DVC.

        Parameters
        ----------
        name
            Unique within the stage, e.g. ``trained-speaker-fold0-seed0``.
        path
            Where the file is now, e.g. in the stage's staging folder.
        dvc_path
            Its path below the root once the stage is done.
        params, metrics
            Shown beside it in MLflow's table of models.
        """


@dataclass
class LiveRecord(Record):
    """A stage's row and the experiment's row above it; made by `open_record`."""

    store: Store
    experiment_id: str
    row_id: str
    run_id: str
    lost: bool = False
    n_nonfinite: int = 0
    _known: set[str] = field(default_factory=set)
    _steps: dict[str, set[int]] = field(default_factory=dict)
    _buffer: list[Metric] = field(default_factory=list)
    _flushed: float = field(default_factory=time.monotonic)
    _monitor: Any = None

    def metrics(self, values: dict[str, float], step: int | None = None) -> None:
        """Report numbers; see `Record.metrics`. They are sent at most every 5 s."""
        numbers = {metric_name(name): float(value) for name, value in values.items()}

        def keep() -> None:
            from mlflow.entities import Metric

            now, at = _now_ms(), int(step or 0)
            for name, value in numbers.items():
                if not math.isfinite(value):
                    self.n_nonfinite += 1
                elif at not in self._steps_of(name):
                    self._steps[name].add(at)
                    self._buffer.append(Metric(name, value, now, at))
            if time.monotonic() - self._flushed >= FLUSH_S:
                self._flush()

        self._attempt("sending metrics", keep)

    def artifact(self, path: Path, folder: str = "") -> None:
        """Copy a file or folder; see `Record.artifact`."""
        if not path.exists():
            raise FileNotFoundError(f"{path}: not found; write it before it is recorded")
        send = self.store.client.log_artifacts if path.is_dir() else self.store.client.log_artifact
        self._attempt(f"copying {path.name}", lambda: send(self.run_id, str(path), folder or None))

    def checkpoint(
        self,
        name: str,
        path: Path,
        dvc_path: str,
        params: dict[str, Any],
        metrics: dict[str, float],
    ) -> None:
        """Describe a checkpoint; see `Record.checkpoint`."""
        tags = {"dvc.path": dvc_path, "dvc.md5": dvc_digest(path)}
        safe = re.sub(r"[^\w\-]", "-", name)

        def describe() -> None:
            client = self.store.client
            query = f"name = '{safe}' AND source_run_id = '{self.run_id}'"
            if any(
                model.tags.get("dvc.md5") == tags["dvc.md5"]
                for model in client.search_logged_models([self.experiment_id], filter_string=query)
            ):
                return
            texts = {key: _param_text(value) for key, value in params.items()}
            model = client.create_logged_model(
                self.experiment_id, safe, self.run_id, tags, texts, "checkpoint"
            )
            for key, value in metrics.items():
                if math.isfinite(value):
                    client.log_metric(
                        self.run_id, metric_name(key), float(value), model_id=model.model_id
                    )
            client.finalize_logged_model(model.model_id, "READY")

        self._attempt(f"describing the checkpoint {name}", describe)

    def watch(self, interval_s: float) -> None:
        """Sample CPU, memory and, where there is one, GPU until `close`."""

        def start() -> None:
            from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

            self._monitor = SystemMetricsMonitor(
                self.run_id,
                sampling_interval=interval_s,
                resume_logging=True,
                tracking_uri=self.store.uri,
            )
            self._monitor.start()

        self._attempt("sampling the system", start)

    def close(self, status: str, error: BaseException | None = None) -> None:
        """Send what waits and set the status, of the experiment's row too unless FINISHED."""
        monitor, self._monitor = self._monitor, None
        if monitor is not None:
            self._attempt("sampling the system", monitor.finish)
        self._attempt("sending metrics", self._flush)

        def end() -> None:
            client = self.store.client
            client.set_tag(self.run_id, "sonolens.n_nonfinite", str(self.n_nonfinite))
            for run_id in (self.run_id, self.row_id) if status != "FINISHED" else (self.run_id,):
                _terminate(client, run_id, status, error)

        self._attempt(f"setting the status {status}", end)

    def _steps_of(self, name: str) -> set[int]:
        if name not in self._steps:
            old = (
                self.store.client.get_metric_history(self.run_id, name)
                if name in self._known
                else []
            )
            self._steps[name] = {metric.step for metric in old}
        return self._steps[name]

    def _flush(self) -> None:
        waiting, self._buffer = self._buffer, []
        self._flushed = time.monotonic()
        _send_metrics(self.store.client, self.run_id, waiting)

    def _attempt(self, what: str, call: Callable[[], Any]) -> None:
        # After one failure nothing more is tried: each try could block for the length of a timeout.
        if self.lost:
            return
        try:
            call()
        except Exception as error:
            self.lost = True
            _lost(what, error)


@contextmanager
def open_record(
    root: Path,
    spec: StageSpec,
    params: dict[str, Any],
    *,
    study: str,
    stage: str,
    cell: str | None = None,
) -> Iterator[Record]:
    """LiveRecord of a stage while it runs.

    Only stages whose name starts with `train` or `explain` have one from their start on; others,
    and all when tracking is off, get a Record, without importing MLflow. How a stage ended badly is
    recorded for every one: an interrupt (Ctrl-C, SIGTERM, `dvc queue kill`) ends the rows as
    KILLED, any other exception as FAILED; it is raised again. Rows that a dead process left
    RUNNING are taken over by the next try of the same experiment.

    Parameters
    ----------
    root
        Folder with dvc.yaml and params.yaml, which may be a temporary clone.
    spec
        The stage in dvc.yaml.
    params
        The whole of params.yaml.
    study, stage, cell
        As on the command line of `src/stage.py`.

    Yields
    ------
    Record
        A LiveRecord where something is recorded.
    """
    if not enabled(params):
        yield Record()
        return
    started_ms = _now_ms()

    def opened() -> Record:
        try:
            return _open_record(root, spec, params, study, stage, cell, started_ms)
        except Exception as error:
            _lost("opening the record", error)
            return Record()

    live = stage.startswith(LIVE_STAGES)
    record = Record()
    with caught():
        try:
            if live:
                record = opened()
                if isinstance(record, LiveRecord):
                    record.watch(float(params["runtime"]["tracking"]["system_metrics_interval_s"]))
            yield record
            if isinstance(record, LiveRecord):
                record.close("FINISHED")
        except BaseException as error:
            record = record if live else opened()
            if isinstance(record, LiveRecord):
                record.close("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED", error)
            raise


def _terminate(client: MlflowClient, run_id: str, status: str, error: BaseException | None) -> None:
    if error is not None:
        text = (str(error).splitlines() or [""])[0]
        client.set_tag(run_id, "sonolens.error", f"{type(error).__name__}: {text}"[:500])
    client.set_terminated(run_id, status)


def _open_record(
    root: Path,
    spec: StageSpec,
    params: dict[str, Any],
    study: str,
    stage: str,
    cell: str | None,
    started_ms: int,
) -> LiveRecord:
    store = open_store(root)
    digests = Digests(root)
    device = device_kind(params, load_torch=True) if stage.startswith(LIVE_STAGES) else "cpu"
    key = experiment_key(root, params, study, digests=digests)
    own_key = stage_key(root, spec, params, cell=cell, device=device, digests=digests)
    record = None
    try:
        with store.lock(), held():  # no row may be made and not be known
            experiment_id = store.experiment(study)
            row = _claim_row(store, experiment_id, root, params, study, key)
            if stage == "publish":  # which completes the row and has none of its own
                return LiveRecord(store, experiment_id, row.info.run_id, row.info.run_id)
            tags = _owner_tags(os.getpid()) | _place_tags(params, device)
            tags |= _stage_tags(root, spec, own_key, row)
            children = store.children(experiment_id, own_key, row.info.run_id)
            # One that a living process still writes to is that process's.
            old = next((run for run in children if not _is_busy(run)), None)
            child = old or store.client.create_run(
                experiment_id, start_time=started_ms, tags=tags, run_name=spec.name
            )
            if old is not None:
                _reopen(store.client, old, tags)
            ids = row.info.run_id, child.info.run_id
            record = LiveRecord(store, experiment_id, *ids, _known=set(child.data.metrics))
        own_params = flatten({name: look_up(params, name) for name in spec.params})
        _log_params(store.client, child, own_params)
        inputs = {path: digests.of(path) for path in spec.data}
        _log_inputs(store.client, child.info.run_id, inputs, stage)
    except KeyboardInterrupt as error:
        if record is not None:
            record.close("KILLED", error)
        raise
    return record


def _claim_row(
    store: Store, experiment_id: str, root: Path, params: dict[str, Any], study: str, key: str
) -> Run:
    """The experiment's row, RUNNING and ours."""
    tags = _owner_tags(dvc_process() or os.getpid()) | _place_tags(params, device_kind(params))
    old = store.row(experiment_id, key)
    if old is None:
        return _create_row(store, experiment_id, root, params, study, key, tags)
    old = store.restored(old)
    _reopen(store.client, old, tags | _exp_names(old))
    _log_params(store.client, old, row_params(params, study))
    return old


def _create_row(
    store: Store,
    experiment_id: str,
    root: Path,
    params: dict[str, Any],
    study: str,
    key: str,
    tags: dict[str, str],
    *,
    name: str = "",
    started_ms: int | None = None,
) -> Run:
    tags = _run_tags(root, f"dvc repro {study}-publish") | _exp_names(None) | tags
    tags |= {"sonolens.level": "experiment", "sonolens.study": study, "sonolens.key": key}
    name = name or os.environ.get("DVC_EXP_NAME") or f"{study}-{key[:6]}"
    row = store.client.create_run(experiment_id, start_time=started_ms, tags=tags, run_name=name)
    _log_params(store.client, row, row_params(params, study))
    return row


def _reopen(client: MlflowClient, run: Run, tags: dict[str, str]) -> None:
    _set_tags(client, run.info.run_id, tags)
    if "sonolens.error" in run.data.tags:
        client.delete_tag(run.info.run_id, "sonolens.error")
    if run.info.status != "RUNNING":
        client.update_run(run.info.run_id, status="RUNNING")


def _param_text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    if len(text) <= MAX_PARAM_CHARS:
        return text
    return f"{text[: MAX_PARAM_CHARS - 80]}… sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _log_params(client: MlflowClient, run: Run, values: dict[str, Any]) -> None:
    from mlflow.entities import Param

    new = [
        Param(name, _param_text(value))
        for name, value in values.items()
        if name not in run.data.params
    ]
    for part in _chunks(new, MAX_PARAMS):
        client.log_batch(run.info.run_id, params=part)


def _send_metrics(client: MlflowClient, run_id: str, metrics: Sequence[Metric]) -> None:
    for part in _chunks(metrics, MAX_METRICS):
        client.log_batch(run_id, metrics=part)


def _set_tags(client: MlflowClient, run_id: str, tags: dict[str, str]) -> None:
    from mlflow.entities import RunTag

    client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])


def _log_inputs(
    client: MlflowClient, run_id: str, digests: dict[str, str | None], context: str
) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    inputs = [
        DatasetInput(
            Dataset(path, digest[:MAX_DIGEST_CHARS], "local", json.dumps({"uri": path})),
            [InputTag("mlflow.data.context", context)],
        )
        for path, digest in digests.items()
        if digest is not None
    ]
    if inputs:
        client.log_inputs(run_id, inputs)


def _chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _now_ms() -> int:
    return int(time.time() * 1000)


def _run_tags(root: Path, source: str) -> dict[str, str]:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may know no name for its user
        user = "unknown"
    commit = os.environ.get("DVC_EXP_BASELINE_REV") or git(root, "rev-parse", "HEAD").strip()
    tags = {"mlflow.user": user, "mlflow.source.name": source, "mlflow.source.type": "LOCAL"}
    return tags | ({"mlflow.source.git.commit": commit} if commit else {})


def _stage_tags(root: Path, spec: StageSpec, key: str, row: Run) -> dict[str, str]:
    return _run_tags(root, spec.cmd) | {
        "sonolens.level": "stage",
        "sonolens.study": study_of(spec),
        "sonolens.stage": spec.name,
        "sonolens.stage_key": key,
        "mlflow.parentRunId": row.info.run_id,
    }


def _place_tags(params: dict[str, Any], device: str) -> dict[str, str]:
    runtime = params["runtime"]
    places = {name: runtime.get(name) for name in ("threads", "workers", "engine")}
    return {f"sonolens.{name}": str(value) for name, value in places.items()} | {
        "sonolens.device": device
    }


def _exp_names(row: Run | None) -> dict[str, str]:
    """Tag with the names of all DVC experiments that gave this row."""
    name = os.environ.get("DVC_EXP_NAME")
    return {"sonolens.dvc_exps": _joined(row, "sonolens.dvc_exps", name)} if name else {}


def _joined(row: Run | None, tag: str, word: str) -> str:
    words = row.data.tags.get(tag, "").split(",") if row else []
    return ",".join(sorted({*filter(None, words), word}))


def _owner_tags(pid: int) -> dict[str, str]:
    return {
        "sonolens.host": socket.gethostname(),
        "sonolens.pid": str(pid),
        "sonolens.pid_start": _pid_start(pid),
    }


def _pid_start(pid: int) -> str:
    """Start of a process in whole seconds, as ids are used again; empty when it is gone."""
    import psutil  # type: ignore[import-untyped,unused-ignore]

    try:
        return str(int(psutil.Process(pid).create_time()))
    except psutil.Error:
        return ""


def _is_busy(run: Run) -> bool:
    """Whether the process that owns a row, as far as known from here, still lives."""
    return bool(run.info.status == "RUNNING") and not _is_dead(run)


def _is_dead(run: Run) -> bool:
    """Whether the process that owned a row is gone; not known for other machines."""
    tags = run.data.tags
    if tags.get("sonolens.host") != socket.gethostname() or "sonolens.pid" not in tags:
        return False
    pid = int(tags["sonolens.pid"])
    return not is_alive(pid) or _pid_start(pid) != tags.get("sonolens.pid_start")


# --- Completing a row from files -----------------------------------------------------------------


def note_stage(
    root: Path,
    spec: StageSpec,
    params: dict[str, Any],
    started: float,
    ended: float,
    *,
    cell: str | None = None,
) -> None:
    """Leave word that a stage really ran, for `publish`; imports no MLflow.

    Parameters
    ----------
    started, ended
        Seconds since 1970.
    """
    if not enabled(params):
        return
    stage, own_cell = stage_and_cell(spec)
    device = device_kind(params) if stage.startswith(LIVE_STAGES) else "cpu"
    key = stage_key(root, spec, params, cell=cell or own_cell, device=device)
    # Below the root, not the main checkout: experiments side by side each have their own.
    write_json(
        _note_path(root, spec),
        {"stage": spec.name, "started": started, "ended": ended, "stage_key": key},
        16,
    )


def _note_path(root: Path, spec: StageSpec) -> Path:
    return root / ".dvc" / "tmp" / "sonolens" / "ran" / f"{spec.name}.json"


def publish(root: Path, spec: StageSpec, params: dict[str, Any], *, study: str) -> dict[str, str]:
    """Complete the study's row from metrics/<study>, plots/<study>, params.yaml and dvc.lock.

    Parameters
    ----------
    spec
        The stage `<study>-publish`.

    Returns
    -------
    dict
        `key` and `study`, to be written to metrics/<study>/published.json; the same on every
        machine and when tracking is off.
    """
    digests = Digests(root)
    key = experiment_key(root, params, study, digests=digests)
    if enabled(params):
        try:
            store = open_store(root)
            with store.lock():
                experiment_id = store.experiment(study)
                row = store.row(experiment_id, key)
                if row is None:
                    tags = _place_tags(params, device_kind(params))
                    row = _create_row(store, experiment_id, root, params, study, key, tags)
                row = store.restored(row)
                tags = _owner_tags(dvc_process() or os.getpid()) | _exp_names(row)
                _set_tags(store.client, row.info.run_id, tags)
            complete_row(store, experiment_id, row, root, params, study, digests=digests)
        except Exception as error:
            _lost(f"{spec.name}", error)
    return {"key": key, "study": study}


def complete_row(
    store: Store,
    experiment_id: str,
    row: Run,
    root: Path,
    params: dict[str, Any],
    study: str,
    *,
    digests: Digests | None = None,
    ended_ms: int | None = None,
) -> list[str]:
    """Bring a row in line with the files below `root` and set it FINISHED.

    Parameters
    ----------
    ended_ms
        End of the row in milliseconds since 1970, unless it is FINISHED already; by default, now.

    Returns
    -------
    list of str
        Artefacts that are neither below `root` nor in DVC's cache.
    """
    digests = digests or Digests(root)
    client, run_id = store.client, row.info.run_id
    row = client.get_run(run_id)
    _log_params(client, row, row_params(params, study))
    values, n_null = file_metrics(root, study)
    has = row.data.metrics
    changed = [(name, value, 0) for name, value in values.items() if has.get(name) != value]
    _add_points(client, row, [*changed, *file_curves(root, study)])
    own = _own(root, params, study)
    for spec in own.values():
        stage, _ = stage_and_cell(spec)
        if stage.startswith(("prepare", *LIVE_STAGES)):
            _log_inputs(client, run_id, {path: digests.of(path) for path in spec.data}, stage)
    stages = _stage_lines(store, experiment_id, row, root, params, own, digests)
    artifacts = _artifacts(store, row, root, study, own, digests)
    _send_artifacts(client, run_id, root, artifacts.to_send)
    tags = {
        "mlflow.note.content": _note(study, values, stages),
        "sonolens.n_null": str(n_null),
        "sonolens.artifacts": artifacts.digest,
    }
    _set_tags(client, run_id, tags)
    if "sonolens.error" in row.data.tags:
        client.delete_tag(run_id, "sonolens.error")
    if row.info.status != "FINISHED":
        ended_ms = max(ended_ms, row.info.start_time) if ended_ms else _now_ms()
        client.set_terminated(run_id, "FINISHED", end_time=ended_ms)
    for spec in own.values():  # they are of this experiment; the next one must not claim them
        _note_path(root, spec).unlink(missing_ok=True)
    return artifacts.missing


def _add_points(client: MlflowClient, row: Run, points: Iterable[tuple[str, float, int]]) -> None:
    """Log the points (name, value, step) in which a row differs from them."""
    from mlflow.entities import Metric

    now = _now_ms()
    known: dict[str, dict[int, float]] = {}
    new = []
    for name, value, step in points:
        if name not in known:
            has = name in row.data.metrics
            old = client.get_metric_history(row.info.run_id, name) if has else []
            old = sorted(old, key=lambda item: item.timestamp)
            known[name] = {item.step: item.value for item in old}
        if known[name].get(step) != value:
            known[name][step] = value
            new.append(Metric(name, value, now, step))
    _send_metrics(client, row.info.run_id, new)


def _stage_lines(
    store: Store,
    experiment_id: str,
    row: Run,
    root: Path,
    params: dict[str, Any],
    own: dict[str, StageSpec],
    digests: Digests,
) -> list[str]:
    """One line of Markdown per stage; those that ran and have no row of their own get one."""
    lines = []
    for name, spec in own.items():
        stage, cell = stage_and_cell(spec)
        if stage == "publish":
            continue
        devices = ("cpu", "cuda") if stage.startswith(LIVE_STAGES) else ("cpu",)
        keys = [
            stage_key(root, spec, params, cell=cell, device=device, digests=digests)
            for device in devices
        ]
        run = _finished_child(store, row, root, spec, keys)
        if run is not None:
            lines.append(f"- `{name}`: {_link(run)}")
            continue
        others = [run for key in keys for run in store.children(experiment_id, key, None)]
        others = [run for run in others if run.info.status == "FINISHED"]
        origin = f"; it was computed in {_link(others[0])}" if others else ""
        lines.append(f"- `{name}`: not run here, DVC had its result{origin}")
    return lines


def _finished_child(
    store: Store, row: Run, root: Path, spec: StageSpec, keys: Sequence[str]
) -> Run | None:
    """The stage's own row; made, or set FINISHED, where a note says that the stage ran."""
    experiment_id, client = row.info.experiment_id, store.client
    old = [run for key in keys for run in store.children(experiment_id, key, row.info.run_id)]
    for run in old:
        if run.info.status == "FINISHED":
            return run
    path = _note_path(root, spec)
    if not path.is_file() or (note := read_json(path))["stage_key"] not in keys:
        return None
    if old:
        run = old[0]
        if "sonolens.error" in run.data.tags:
            client.delete_tag(run.info.run_id, "sonolens.error")
    else:
        run = client.create_run(
            experiment_id,
            start_time=int(note["started"] * 1000),
            tags=_stage_tags(root, spec, note["stage_key"], row),
            run_name=spec.name,
        )
    client.set_terminated(run.info.run_id, "FINISHED", end_time=int(note["ended"] * 1000))
    return run


def _link(run: Run) -> str:
    place = f"#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}?{VIEW_FOR_TRAINING}"
    return f"[{run.info.run_name}]({place})"


def _note(study: str, values: dict[str, float], stages: Sequence[str]) -> str:
    """Markdown shown above the row: the headline numbers and where its stages were computed."""
    names = [
        name for name in values if "." not in name and not name.endswith(("_ci_low", "_ci_high"))
    ]
    lines = [f"## {study}", "", "| metric | value | interval |", "|---|---|---|"]
    for name in sorted(names, key=lambda name: (name.startswith("xai_"), name))[:40]:
        low, high = values.get(f"{name}_ci_low"), values.get(f"{name}_ci_high")
        interval = f"{low:.4g} to {high:.4g}" if low is not None and high is not None else ""
        lines.append(f"| {name} | {values[name]:.4g} | {interval} |")
    text = "\n".join([*lines, "", "### Stages", "", *stages])
    return text if len(text) <= MAX_NOTE_CHARS else text[:MAX_NOTE_CHARS] + "\n…"


@dataclass(frozen=True)
class Artifacts:
    """Files that a row lacks, outputs that could not be found, and the digest once all is sent."""

    to_send: list[str]
    missing: list[str]
    digest: str


def _artifacts(
    store: Store, row: Run, root: Path, study: str, own: dict[str, StageSpec], digests: Digests
) -> Artifacts:
    wanted = {path: digests.of(path) for path in shown_outputs(own.values(), study)}
    whole = [name for name in WHOLE_FILES if (root / name).is_file()]
    has = row.data.tags.get("sonolens.artifacts")
    there = {item.path for item in store.client.list_artifacts(row.info.run_id)} if has else set()

    def lacks(paths: Iterable[str]) -> bool:
        return not {path.split("/", 1)[0] for path in [*paths, *whole]} <= there

    digest = content_key(files=wanted)
    if has == digest and not lacks(wanted):
        return Artifacts([], [], digest)  # all of them, even if they are gone from the cache since
    # Into the workspace, `dvc checkout` brings them.
    missing = (
        [path for path in wanted if not (root / path).exists()]
        if root == store.root
        else bring(store.root, root, wanted)
    )
    found = {path: digest for path, digest in wanted.items() if path not in missing}
    digest = content_key(files=found)
    to_send = [*found, *whole] if has != digest or lacks(found) else []
    return Artifacts(to_send, missing, digest)


def _send_artifacts(client: MlflowClient, run_id: str, root: Path, paths: Iterable[str]) -> None:
    """Copy files and folders to their paths without the study."""
    for path in paths:
        kind, *rest = PurePosixPath(path).parts
        place = PurePosixPath(kind, *rest[1:])
        if (root / path).is_dir():
            client.log_artifacts(run_id, str(root / path), str(place))
        else:
            client.log_artifact(run_id, str(root / path), str(place.parent) if rest else None)


# --- For the command line ------------------------------------------------------------------------


def sync(root: Path, *, history: bool = True) -> list[str]:
    """Make the rows agree with the files of the workspace, of DVC's experiments and of branches.

    Rows that are missing, deleted, unfinished or wrong are made whole; RUNNING rows whose process
    is gone become KILLED; the commit of a DVC experiment, which does not exist while it runs, is
    added as a tag. Of places with the same key the first is the one that counts.

    Parameters
    ----------
    history
        Also visit branches and experiments, not only the workspace.

    Returns
    -------
    list of str
        One line per change, and per thing that could not be brought in line.
    """
    return _compared(root, history, change=True)


def check(root: Path, *, history: bool = True) -> list[str]:
    """Where rows and files differ; empty when all agree. Changes nothing.

    Parameters
    ----------
    history
        Also visit branches and experiments, not only the workspace.
    """
    return _compared(root, history, change=False)


def _compared(root: Path, history: bool, change: bool) -> list[str]:
    load_yaml(root / "params.yaml")  # says so when this is not the folder
    store = open_store(root)
    from mlflow.exceptions import MlflowException

    try:
        visit = _Visit(store, change, {place.name for place in revisions(root)})
        lines = []
        for place in places(store.root, history=history):
            for study in published_studies(place.root):
                try:
                    lines += visit.row(place, study)
                except (ParamsError, StoreError, KeyedFileError) as error:
                    lines.append(f"{study}, {place.name}: left out: {error}")
        return lines + visit.leftovers()
    except MlflowException as error:
        raise TrackingError(
            f"{store.uri}: {_reason(error)}; what was done until here is kept, run this again"
        ) from error


@dataclass
class _Visit:
    """One walk through all places with files of rows, for `sync` (`change`) or `check`."""

    store: Store
    change: bool
    names: set[str]
    _seen: set[str] = field(default_factory=set)

    def row(self, place: Place, study: str) -> list[str]:
        """Lines on the row of a study's files in one place."""
        store, root = self.store, place.root
        params, key = load_yaml(root / "params.yaml"), published_key(root, study)
        if experiment_key(root, params, study) != key:
            return self._stale(place, study, key)
        with store.lock():
            experiment_id = self._experiment(study)
            row = store.row(experiment_id, key) if experiment_id else None
            lines = [] if row is None else self._restore(row, study)
            made = row is None
            if row is None or experiment_id is None:
                if not self.change:
                    return [
                        f"{study}, {place.name}: no row with the key {key[:12]}; "
                        "run `sonolens track sync`"
                    ]
                experiment_id = store.experiment(study)
                row = self._made(place, study, params, key, experiment_id)
        row = store.client.get_run(row.info.run_id)
        if not made and _is_busy(row):
            return lines
        lines += self._named(row, place, study)
        if key in self._seen:
            return lines
        self._seen.add(key)
        wrong, missing = _differences(store, row, root, params, study)
        name = row.info.run_name
        if self.change and wrong:
            ended_ms = place.made_ms(study)
            missing = complete_row(
                store, experiment_id, row, root, params, study, ended_ms=ended_ms
            )
            what = "added" if made else "brought in line with the files"
            lines.append(f"{study}: {place.name if made else name} {what}")
            row = store.client.get_run(row.info.run_id)
            wrong, _ = _differences(store, row, root, params, study)
        lines += [f"{study}: {line}" for line in wrong]
        if missing:
            command = "dvc checkout" if not place.commit else "dvc fetch --all-commits"
            lines.append(
                f"{study}: {name} is without {', '.join(missing)}: not in DVC's cache here; "
                f"if a remote has it, run `{command}`, then `sonolens track sync`"
            )
        return lines

    def leftovers(self) -> list[str]:
        """Lines on rows of dead processes and on doubles."""
        lines = []
        for experiment in self.store.studies():
            number = experiment.experiment_id
            tops = self.store.rows(number, {})
            for run in [*self.store.rows(number, {}, level="stage"), *tops]:
                if run.info.status == "RUNNING" and _is_dead(run):
                    lines.append(f"{experiment.name}: {run.info.run_name} {self._killed(run)}")
            by_key: dict[str, list[str]] = {}
            for run in tops:
                key = run.data.tags.get("sonolens.key", "")
                by_key.setdefault(key, []).append(f"{run.info.run_name} {run.info.run_id}")
            lines += [
                f"{experiment.name}: {len(runs)} rows with the key {key[:12]} "
                f"({', '.join(runs)}); delete all but the last of them in MLflow"
                for key, runs in by_key.items()
                if len(runs) > 1
            ]
        return lines

    def _stale(self, place: Place, study: str, key: str) -> list[str]:
        if not place.commit:
            return [
                f"{study}: files changed since it was published; run `dvc repro {study}-publish`, "
                "with `-sf` if DVC finds nothing to do"
            ]
        experiment_id = self._experiment(study)
        if not self.change or (experiment_id and self.store.row(experiment_id, key)):
            return []  # what was published may have its row; the commit changed something since
        return [f"{study}, {place.name}: files changed since it was published: left out"]

    def _experiment(self, study: str) -> str | None:
        if self.change:
            return self.store.experiment(study)
        found = self.store.client.get_experiment_by_name(study)
        return str(found.experiment_id) if found else None

    def _restore(self, row: Run, study: str) -> list[str]:
        if not _is_deleted(row):
            return []
        if self.change:
            self.store.restored(row)
            return [f"{study}: {row.info.run_name} was deleted in MLflow: restored"]
        return [
            f"{study}: {row.info.run_name} is deleted in MLflow; `sonolens track sync` restores "
            "it as long as its files are in git"
        ]

    def _made(
        self, place: Place, study: str, params: dict[str, Any], key: str, experiment_id: str
    ) -> Run:
        # As a row made by the run itself: an experiment starts from its parent.
        commit = place.parent if place.is_experiment else place.commit
        return _create_row(
            self.store,
            experiment_id,
            self.store.root,
            params,
            study,
            key,
            {"mlflow.source.git.commit": commit} if commit else {},
            name=place.name if place.is_experiment else "",
            started_ms=place.made_ms(study),
        )

    def _named(self, row: Run, place: Place, study: str) -> list[str]:
        """Name and commit of the DVC experiment, which may have been renamed since."""
        if not place.is_experiment:
            return []
        words = {
            tag: set(filter(None, row.data.tags.get(f"sonolens.{tag}", "").split(",")))
            for tag in ("dvc_exps", "dvc_commits")
        }
        names, commits = words["dvc_exps"], words["dvc_commits"]
        if place.name in names and place.commit in commits:
            return []
        what = f"{study}: {row.info.run_name} is commit {place.commit[:7]} of {place.name}"
        if not self.change:  # the commit alone is added at leisure
            return [] if place.name in names else [f"{what}, its tags do not say so"]
        gone = names - self.names
        renamed = place.name not in names and len(gone) == 1 and commits <= {place.commit}
        names = (names - gone if renamed else names) | {place.name}
        tags = {
            "sonolens.dvc_exps": ",".join(sorted(names)),
            "sonolens.dvc_commits": ",".join(sorted(commits | {place.commit})),
        }
        _set_tags(self.store.client, row.info.run_id, tags)
        if renamed and row.info.run_name in gone:
            self.store.client.update_run(row.info.run_id, name=place.name)
        return [f"{what}, once {', '.join(gone)}" if renamed else what]

    def _killed(self, run: Run) -> str:
        if self.change:
            self.store.client.set_terminated(run.info.run_id, "KILLED")
            return "was RUNNING, its process is gone: KILLED"
        return "is RUNNING, but its process is gone; run `sonolens track sync`"


def _differences(
    store: Store, row: Run, root: Path, params: dict[str, Any], study: str
) -> tuple[list[str], list[str]]:
    """What of a row is not as in the files, and which artefacts could not be found."""
    name = row.info.run_name
    found = [] if row.info.status == "FINISHED" else [f"{name} is {row.info.status}, need FINISHED"]
    for key, value in row_params(params, study).items():
        has, needed = row.data.params.get(key), _param_text(value)
        if has != needed:
            found.append(f"{name}: param {key} is {has!r}, params.yaml has {needed!r}")
    expected = dict(file_metrics(root, study)[0])
    last: dict[str, tuple[int, float]] = {}
    for curve, value, step in file_curves(root, study):
        last[curve] = max(last.get(curve, (-1, 0.0)), (step, value), key=lambda point: point[0])
    expected |= {curve: value for curve, (_, value) in last.items()}
    for key, value in expected.items():
        if row.data.metrics.get(key) != value:
            found.append(
                f"{name}: metric {key} is {row.data.metrics.get(key)}, the files have {value}"
            )
    artifacts = _artifacts(store, row, root, study, _own(root, params, study), Digests(root))
    if artifacts.to_send:
        found.append(f"{name}: its artefacts are not those of the files")
    return found, artifacts.missing


def _own(root: Path, params: dict[str, Any], study: str) -> dict[str, StageSpec]:
    """The study's stages by name."""
    pipeline = load_pipeline(root, params)
    return {name: spec for name, spec in pipeline.items() if study_of(spec) == study}


def ui_links(store: Store, base: str, chosen: Sequence[str] = ()) -> list[tuple[str, str]]:
    """(what, address) of pages in MLflow: per study its runs, and rows compared with each other.

    Parameters
    ----------
    base
        Address of the server.
    chosen
        Rows to compare, by name, name of a DVC experiment or id; by default the latest of each
        study.

    Raises
    ------
    TrackingError
        If fewer than two rows are chosen, or one of them is unknown or ambiguous.
    """
    base = _public(base).rstrip("/")
    found, known = [], []
    for experiment in store.studies():
        rows = store.rows(experiment.experiment_id, {})
        known += rows
        table = f"{base}/#/experiments/{experiment.experiment_id}/runs?{VIEW_FOR_TRAINING}"
        if _share_view(store.client, experiment, rows):
            table += f"&viewStateShareKey={SHARED_VIEW}"
        found.append((experiment.name, table))
        if len(rows) > 1 and not chosen:
            latest = rows[:MAX_COMPARED]
            what = f"{experiment.name}, the latest {len(latest)} compared"
            found.append((what, _comparison(base, latest)))
    if chosen:
        rows = list({row.info.run_id: row for row in (_chosen(known, w) for w in chosen)}.values())
        if len(rows) < 2:
            raise TrackingError(
                f"found {len(rows)} row to compare, need two or more: name each with --compare"
            )
        what = ", ".join(str(row.info.run_name) for row in rows)
        found.append((f"{what} compared", _comparison(base, rows)))
    return found


def _chosen(rows: Sequence[Run], word: str) -> Run:
    """The row with this name, id or name of a DVC experiment."""
    found = [
        row
        for row in rows
        if word in (row.info.run_id, row.info.run_name)
        or word in row.data.tags.get("sonolens.dvc_exps", "").split(",")
    ]
    if len(found) == 1:
        return found[0]
    if found:
        ids = ", ".join(row.info.run_id for row in found)
        raise TrackingError(
            f"{word}: {len(found)} rows have this name; choose one by its id: {ids}"
        )
    names = ", ".join(str(row.info.run_name) for row in rows[:MAX_COMPARED])
    more = ", …" if len(rows) > MAX_COMPARED else ""
    raise TrackingError(f"{word}: no row has this name or id; there are {names or 'none'}{more}")


def _comparison(base: str, rows: Sequence[Run]) -> str:
    def listed(items: Iterable[str]) -> str:
        # Terminals end an address at a quotation mark.
        return quote(json.dumps(list(items), separators=(",", ":")))

    runs = listed(row.info.run_id for row in rows)
    experiments = listed(dict.fromkeys(row.info.experiment_id for row in rows))
    return f"{base}/#/compare-runs?runs={runs}&experiments={experiments}&{VIEW_FOR_TRAINING}"


def _level_and_length(name: str) -> tuple[int, int, str]:
    words = name.split("_")
    levels = [rank for rank, level in enumerate(LEVELS) if level in words]
    return min(levels, default=len(LEVELS)), len(words), name


def _share_view(client: MlflowClient, experiment: Experiment, rows: Sequence[Run]) -> bool:
    """Store which columns the table opens with; whether they are there.

    By itself MLflow opens the table without any param or metric. Shown are the params in which
    rows differ and figures that have an interval: first those by person, those with short names.
    """
    from mlflow.exceptions import MlflowException

    values: dict[str, set[str | None]] = {}
    for name in {name for row in rows for name in row.data.params}:
        values[name] = {row.data.params.get(name) for row in rows}
    params = sorted(name for name, each in values.items() if len(each) > 1)[:MAX_VIEW_PARAMS]
    metrics = next((row.data.metrics for row in rows if row.info.status == "FINISHED"), {})
    figures = sorted(
        (name for name in metrics if f"{name}_ci_low" in metrics and "." not in name),
        key=lambda name: (name.startswith("xai_"), *_level_and_length(name)),
    )[:MAX_VIEW_METRICS]
    columns = [f"params.`{name}`" for name in params] + [f"metrics.`{name}`" for name in figures]
    names = params + figures
    view = {
        "selectedColumns": columns,
        "columnOrder": columns,
        "columnWidths": {
            column: 30 + 8 * len(name) for column, name in zip(columns, names, strict=True)
        },
    }
    # MLflow's page reads the views that users share from such tags.
    tag, text = f"mlflow.sharedViewState.{SHARED_VIEW}", json.dumps(view)
    if experiment.tags.get(tag) == text:
        return True
    try:
        client.set_experiment_tag(experiment.experiment_id, tag, text)
    except MlflowException as error:  # e.g. a server that may only be read
        _warn(f"tracking: the columns of {experiment.name} could not be chosen ({_reason(error)})")
        return tag in experiment.tags
    return True


def checkpoint_names(store: Store, study: str) -> list[str]:
    """Names of the checkpoints described for a study, the newest first."""
    experiment = store.client.get_experiment_by_name(study)
    if experiment is None:
        return []
    found = store.client.search_logged_models(
        [experiment.experiment_id], filter_string="model_type = 'checkpoint'"
    )
    return list(dict.fromkeys(model.name for model in found))


def register(
    root: Path, study: str, name: str, load: Callable[[], nn.Module], example: np.ndarray
) -> tuple[str, int]:
    """Copy a trained model, with its signature, into MLflow's registry.

    Parameters
    ----------
    name
        Of a checkpoint that a `train` stage described; see `checkpoint_names`.
    load
        Builds the model with its trained weights.
    example : shape=(batch, …)
        Inputs from which the signature is read.

    Returns
    -------
    tuple
        The registered name, `<study>-<name>`, and its version.

    Raises
    ------
    TrackingError
        If no such checkpoint is described.
    """
    store = open_store(root)
    safe = re.sub(r"[^\w\-]", "-", name)
    names = checkpoint_names(store, study)
    if safe not in names:
        raise TrackingError(
            f"{study}: no checkpoint {name!r} among {', '.join(names) or 'none'}; "
            f"run `dvc repro {study}-train`"
        )
    import mlflow.pytorch
    import torch
    from mlflow.exceptions import MlflowException
    from mlflow.models import infer_signature

    client = store.client
    experiment = client.get_experiment_by_name(study)
    assert experiment is not None
    query = f"name = '{safe}' AND model_type = 'checkpoint'"
    described = client.search_logged_models([experiment.experiment_id], filter_string=query)[0]
    model = load().eval()
    with torch.no_grad():
        answer = model(torch.as_tensor(example)).numpy(force=True)
    tags = _run_tags(root, f"sonolens model register {study} {name}")
    tags |= {"sonolens.level": "model", "sonolens.study": study}
    source = client.get_run(described.source_run_id) if described.source_run_id else None
    if source is not None and "mlflow.parentRunId" in source.data.tags:
        tags["mlflow.parentRunId"] = source.data.tags["mlflow.parentRunId"]
    run = client.create_run(experiment.experiment_id, tags=tags, run_name=f"register-{safe}")
    registered = f"{study}-{safe}"
    # By hand rather than by log_model, which goes by the address of the store that is set globally.
    with tempfile.TemporaryDirectory(prefix="sonolens-") as folder:
        mlflow.pytorch.save_model(
            model,
            f"{folder}/model",
            signature=infer_signature(example, answer),
            pip_requirements=[f"torch=={torch.__version__.split('+')[0]}"],
            serialization_format="pickle",  # the exported format fixes the number of frames
        )
        client.log_artifacts(run.info.run_id, folder)
    try:
        client.create_registered_model(registered)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    version = client.create_model_version(
        registered,
        f"{run.info.artifact_uri}/model",
        run_id=run.info.run_id,
        tags={name: described.tags[name] for name in ("dvc.path", "dvc.md5")},
    )
    client.set_terminated(run.info.run_id)
    return registered, int(version.version)
