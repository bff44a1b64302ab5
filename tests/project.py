"""A repository of the project's own files, in the `tiny` profile, for tests that run DVC in it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
OURS = ("SONOLENS", "MLFLOW", "DVC", "GIT_")


def environment(**changes: str) -> dict[str, str]:
    """This process's, with this interpreter's programs first and none of its settings of ours."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    path = os.pathsep.join([str(Path(sys.executable).parent), clean["PATH"]])
    return clean | {"PATH": path} | changes


def run_any(root: Path, *command: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """The finished command, whatever its status."""
    return subprocess.run(
        command, cwd=root, env=environment(**changes), text=True, capture_output=True, check=False
    )


def run(root: Path, *command: str, **changes: str) -> str:
    """Output of a command in `root`; fails with the whole output unless its status is 0."""
    done = run_any(root, *command, **changes)
    assert done.returncode == 0, (
        f"{' '.join(command)}\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
    )
    return done.stdout + done.stderr


def make(root: Path, profile: str = "tiny") -> Path:
    """A git repository in `root` with the project's files, params of the profile, all committed."""
    listed = run(ROOT, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in listed.split("\0"):
        if name and (ROOT / name).is_file():
            target = root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target)
    params = merge(
        *(read_yaml(root / name) for name in ("params.yaml", f"profiles/{profile}.yaml"))
    )
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    run(root, "git", "init", "-q", "-b", "main")
    run(root, "git", "config", "user.email", "test@example.org")
    run(root, "git", "config", "user.name", "Test")
    commit(root, "tiny")
    return root


def copy(project: Path, target: Path) -> Path:
    """A repository like `project` with its workspace, DVC cache and git history.

    It has a tracker of its own, which is empty, and no shards or checkpoints.
    """
    ignored = shutil.ignore_patterns("mlflow.db*", "mlartifacts", "dvc_plots")
    shutil.copytree(project, target, ignore=ignored, symlinks=True)
    shutil.rmtree(target / ".dvc/tmp", ignore_errors=True)
    return target


def commit(root: Path, message: str) -> None:
    run(root, "git", "add", "-A")
    run(root, "git", "commit", "-qm", message)


def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def merge(values: dict, overrides: dict) -> dict:
    return values | {
        key: merge(values[key], value) if isinstance(value, dict) else value
        for key, value in overrides.items()
    }


def rows(root: Path, uri: str = "sqlite:///mlflow.db") -> list[dict]:
    """All runs of the tracker, as plain dictionaries."""
    code = """
import json, sys, mlflow
client = mlflow.MlflowClient(sys.argv[1])
found = client.search_runs([e.experiment_id for e in client.search_experiments()])
print("ROWS" + json.dumps([dict(id=r.info.run_id, name=r.info.run_name, status=r.info.status,
    params=r.data.params, metrics=r.data.metrics, tags=r.data.tags,
    artifacts=[a.path for a in client.list_artifacts(r.info.run_id)]) for r in found]))
"""
    text = run(root, sys.executable, "-c", code, uri)
    return json.loads(text.rsplit("ROWS", 1)[1].splitlines()[0])


def level(found: list[dict], name: str, study: str = "digits") -> list[dict]:
    """Runs of a study's level: `experiment` for top-level rows, `stage` for those below them."""
    wanted = {"sonolens.level": name, "sonolens.study": study}
    return [row for row in found if wanted.items() <= row["tags"].items()]
