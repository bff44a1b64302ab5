"""Recorded results: what a run measured, on what and with what, as one file for git."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from sonolens import cost, keys
from sonolens.data.corpora.registry import NAMES as PUBLISHED_CORPORA
from sonolens.params import flatten, load_yaml
from sonolens.pipeline import load_pipeline
from sonolens.store import read_json, write_json

RESULTS = "docs/results"
PACKAGES = ("torch", "captum", "dvc", "mlflow", "numpy", "librosa", "scikit-learn")
MAX_ROWS = 500
# A table with one of these is about single persons or recordings, not about groups.
PRIVATE_COLUMNS = {"item_id", "recording_id", "person_id", "session_id", "path", "sha256"}
# What decides the numbers; params are recorded by value, outputs follow from both.
CODE_PATHS = ("src", "dvc.yaml", "requirements.txt")


class RecordError(RuntimeError):
    """There is nothing fit to be recorded; the message says what to do."""


def record(root: Path, study: str, name: str, command: str) -> Path:
    """Copy summary, leakage report and tables of groups to docs/results/<study>/<name>.json.

    Parameters
    ----------
    root
        Folder with dvc.yaml.
    study
        Whose results.
    name
        Letters, digits, `_` and `-`; the docs refer to it.
    command
        What was run, as a reader would type it.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    RecordError
        Outputs are missing or stale; a table is too long or about persons.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w-]*", name):
        raise RecordError(f"name {name!r}: need letters, digits, `_` and `-` only")
    metrics = root / "metrics" / study
    if not (metrics / "summary.json").is_file():
        raise RecordError(
            f"metrics/{study}/summary.json: not found; run `dvc repro {study}-publish`"
        )
    _refuse_stale(root, study)
    params = load_yaml(root / "params.yaml")
    source = params[study].get("source")  # a comparison of studies has none
    leakage = metrics / "leakage.json"
    target = root / RESULTS / study / f"{name}.json"
    values = {
        "study": study,
        "name": name,
        "command": command,
        "source": source,
        "params": flatten({study: params[study], "common": params["common"]}),
        "data": data_digests(root, study),
        "cost": stage_costs(root, study, params),
        "machine": machine(),
        "versions": versions(),
        "summary": read_json(metrics / "summary.json"),
        "leakage": read_json(leakage) if leakage.is_file() else None,
        "tables": {path.stem: table(path, source) for path in sorted(metrics.glob("*.csv"))},
    }
    write_json(target, values | revision(root))
    return target


def _refuse_stale(root: Path, study: str) -> None:
    command = [sys.executable, "-m", "dvc", "status", "--json", "--with-deps", f"{study}-publish"]
    answer = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise RecordError(f"`dvc status {study}-publish` failed: {answer.stderr.strip()}")
    changed = sorted(json.loads(answer.stdout or "{}"))
    if changed:
        raise RecordError(
            f"outputs do not belong to the present code, params and data ({', '.join(changed)}); "
            f"run `dvc repro {study}-publish`"
        )


def table(path: Path, source: str | None) -> list[dict[str, Any]]:
    """Rows of a table of groups, empty cells as None.

    Single members of a group are named for published corpora alone, whose names are aliases.
    """
    frame = pd.read_csv(path)
    private = sorted(PRIVATE_COLUMNS & set(frame.columns))
    if private:
        raise RecordError(
            f"{path}: columns {', '.join(private)} name persons or recordings; "
            "only groups are recorded"
        )
    if len(frame) > MAX_ROWS:
        raise RecordError(
            f"{path}: {len(frame)} rows, at most {MAX_ROWS} are recorded; make the table smaller"
        )
    if source not in PUBLISHED_CORPORA:
        frame = frame.drop(columns="test_group", errors="ignore")
    return [
        {str(key): None if pd.isna(value) else value for key, value in row.items()}
        for row in frame.to_dict("records")
    ]


def data_digests(root: Path, study: str) -> dict[str, str]:
    """MD5 of the raw data and of the prepared items, by path, from dvc.lock."""
    lock = root / "dvc.lock"
    stages = load_yaml(lock)["stages"] if lock.is_file() else {}
    found: dict[str, str] = {}
    for name, stage in stages.items():
        if not name.startswith(f"{study}-prepare"):
            continue
        raw = [entry for entry in stage.get("deps", []) if entry["path"].startswith("data/raw/")]
        found |= {
            entry["path"]: entry["md5"]
            for entry in [*raw, *stage.get("outs", [])]
            if "md5" in entry
        }
    return found


def stage_costs(root: Path, study: str, params: dict[str, Any]) -> dict[str, Any]:
    """Seconds and memory of every stage that ran here; of others None."""
    digests = keys.Digests(root)
    device = keys.device_kind(params, load_torch=True)
    found = {}
    for name, spec in load_pipeline(root, params).items():
        if keys.study_of(spec) == study:
            _, cell = keys.stage_and_cell(spec)
            kinds = dict.fromkeys(("cpu", device))
            own = [
                keys.stage_key(root, spec, params, cell=cell, device=kind, digests=digests)
                for kind in kinds
            ]
            costs = [cost.of(root, spec, key) for key in own]
            found[name] = next((one for one in costs if one), None)
    return found


def revision(root: Path) -> dict[str, Any]:
    """The last commit that changed the code, and whether the code differs from it.

    Later commits may have brought recordings in, which `data` in the record names by their MD5.
    """
    commit = _output(["git", "-C", str(root), "log", "-1", "--format=%H", "--", *CODE_PATHS])
    changed = _output(["git", "-C", str(root), "status", "--porcelain", "--", *CODE_PATHS])
    return {"revision": commit or None, "dirty": bool(changed)}


def versions() -> dict[str, str]:
    """Of Python and of the packages that shape the numbers."""
    return {"python": platform.python_version()} | {
        name: importlib.metadata.version(name) for name in PACKAGES
    }


def machine() -> dict[str, Any]:
    """Kind of machine, never which one."""
    gpu = (
        _output(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"])
        if shutil.which("nvidia-smi")
        else ""
    )
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "architecture": platform.machine(),
        "gpu": gpu.splitlines()[0] if gpu else None,
    }


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        found = re.search(
            r"^model name\s*:\s*(.+)$", info.read_text(encoding="utf-8"), flags=re.MULTILINE
        )
        if found:
            return found[1].strip()
    return platform.processor() or "unknown"


def _output(command: list[str]) -> str:
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""
