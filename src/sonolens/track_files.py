"""What a row is made of: files of the workspace, or of a commit and DVC's cache; without MLflow."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sonolens.params import flatten
from sonolens.pipeline import StageSpec
from sonolens.store import StoreError, read_json

CURVE_COLUMNS = ("cell", "variant", "protocol", "fold", "model_seed")
LEGEND_COLUMN = "series"
PUBLISHED = "published.json"
# What of a commit is unpacked: all that keys and rows are made of.
UNPACKED = ("dvc.yaml", "dvc.lock", "params.yaml", "src", "metrics", "plots", "data")


# --- Params, metrics and curves -------------------------------------------------------------------


def row_params(params: dict[str, Any], study: str) -> dict[str, Any]:
    """Params of a row: the study's section and `common`, under the names that -S takes."""
    return flatten({study: params.get(study, {}), "common": params.get("common", {})})


def metric_name(name: str) -> str:
    """`name` in the characters that MLflow allows."""
    return re.sub(r"[^/\w.\- :]", "_", name)[:250]


def curve_name(
    metric: str,
    *,
    cell: str = "main",
    variant: str = "",
    protocol: str = "",
    fold: Any = "",
    model_seed: Any = "",
) -> str:
    """Name of a training curve, the same live and from history.csv.

    >>> curve_name("val_loss", variant="trained", protocol="speaker", fold=0, model_seed=1)
    'trained/speaker/fold0/seed1/val_loss'
    """
    parts = ["" if cell == "main" else cell, variant, protocol]
    parts += [
        f"fold{fold}" if str(fold) else "",
        f"seed{model_seed}" if str(model_seed) else "",
        metric,
    ]
    return metric_name("/".join(part for part in parts if part))


def file_metrics(root: Path, study: str) -> tuple[dict[str, float], int]:
    """Numbers in metrics/<study>/*.json, and how many are null.

    Those of summary.json keep their names, others are `<file>.<name>`.
    """
    values: dict[str, float] = {}
    n_null = 0
    for path in sorted((root / "metrics" / study).glob("*.json")):
        content = read_json(path)
        if path.name == PUBLISHED or not isinstance(content, dict):
            continue
        prefix = "" if path.stem == "summary" else f"{path.stem}."
        for name, value in flatten(content).items():
            n_null += value is None
            if isinstance(value, (bool, int, float)) and math.isfinite(value):
                values[metric_name(prefix + name)] = float(value)
    return values, n_null


def file_curves(root: Path, study: str) -> list[tuple[str, float, int]]:
    """Points (name, value, step) of plots/<study>/history.csv; empty when a study has none.

    The columns cell, variant, protocol, fold and model_seed name the curve, `epoch` is the step,
    `series` its legend, every other column is a metric; empty fields are left out.
    """
    path = root / "plots" / study / "history.csv"
    if not path.is_file():
        return []
    points = []
    with path.open(encoding="utf-8", newline="") as stream:
        rows = csv.DictReader(stream)
        if "epoch" not in (rows.fieldnames or ()):
            raise StoreError(
                f"{path}: found columns {rows.fieldnames}, need `epoch`; run `dvc checkout`"
            )
        for row in rows:
            which = {name: row.pop(name) for name in CURVE_COLUMNS if row.get(name)}
            step = int(float(row.pop("epoch")))
            for metric, text in row.items():
                if (
                    metric in (*CURVE_COLUMNS, LEGEND_COLUMN)
                    or not text
                    or not math.isfinite(value := float(text))
                ):
                    continue
                points.append((curve_name(metric, **which), value, step))
    return points


# --- Pictures and other outputs -------------------------------------------------------------------


def shown_outputs(specs: Iterable[StageSpec], study: str) -> list[str]:
    """Outputs that a row shows as artefacts: those below metrics/<study> and plots/<study>."""
    return [
        path
        for spec in specs
        for path in spec.outputs
        if path.startswith((f"metrics/{study}/", f"plots/{study}/"))
        and not path.endswith(f"/{PUBLISHED}")
    ]


def bring(repo: Path, folder: Path, wanted: dict[str, str | None]) -> list[str]:
    """Copy outputs that `folder` lacks from the DVC cache of `repo`.

    Parameters
    ----------
    wanted
        Digests, as in dvc.lock, by path below `folder`.

    Returns
    -------
    list of str
        What is not in the cache.
    """
    lacking = {path: digest for path, digest in wanted.items() if not (folder / path).exists()}
    if not lacking:
        return []
    from dvc.repo import Repo

    with Repo(str(repo)) as opened:
        cache = opened.cache.local
        return [
            path
            for path, digest in lacking.items()
            if digest is None
            or not _from_cache(lambda md5: Path(cache.oid_to_path(md5)), folder / path, digest)
        ]


def _from_cache(place: Any, target: Path, digest: str) -> bool:
    """Whether a file or, with the ending `.dir`, a folder was all there."""
    if not place(digest).is_file():
        return False
    parts = {target: digest}
    if digest.endswith(".dir"):
        entries = json.loads(place(digest).read_text(encoding="utf-8"))
        parts = {target / entry["relpath"]: entry["md5"] for entry in entries}
    if not all(place(md5).is_file() for md5 in parts.values()):
        return False
    for path, md5 in parts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(place(md5), path)
    return True


# --- The workspace, branches and experiments ------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """A folder with the files of the workspace (no `commit`), a branch or a DVC experiment."""

    root: Path
    name: str = "workspace"
    commit: str = ""
    parent: str = ""
    is_experiment: bool = False
    committed_s: int = 0

    def made_ms(self, study: str) -> int:
        """When the study was published, as far as files tell, in milliseconds since 1970."""
        published_s = (self.root / "metrics" / study / PUBLISHED).stat().st_mtime
        return int((self.committed_s or published_s) * 1000)


def published_key(root: Path, study: str) -> str:
    """Key in metrics/<study>/published.json."""
    return str(read_json(root / "metrics" / study / PUBLISHED)["key"])


def published_studies(root: Path) -> list[str]:
    """Studies below `root` that have a published.json."""
    return sorted(path.parent.name for path in (root / "metrics").glob(f"*/{PUBLISHED}"))


def places(root: Path, *, history: bool = True) -> Iterator[Place]:
    """The workspace, then, with `history`, each experiment and branch, unpacked while it is it."""
    yield Place(root)
    for place in revisions(root) if history else ():
        with _unpacked(root, place.commit) as folder:
            yield replace(place, root=folder)


def revisions(root: Path) -> list[Place]:
    """Heads of DVC's experiments and of branches, the oldest first, all in `root` as it is."""
    fields = "%(objectname) %(parent) %(committerdate:unix) %(refname)".replace(" ", "%09")
    text = git(root, "for-each-ref", f"--format={fields}", "refs/exps", "refs/heads")
    found = []
    for line in text.splitlines():
        commit, parents, committed, ref = line.split("\t")
        experiment = re.fullmatch(r"refs/exps/[0-9a-f]{2}/[0-9a-f]{38}/(.+)", ref)
        if experiment is None and not ref.startswith("refs/heads/"):
            continue  # what DVC keeps for its queue
        name = experiment[1] if experiment else ref.removeprefix("refs/heads/")
        parent = (parents.split() or [""])[0]
        found.append(Place(root, name, commit, parent, experiment is not None, int(committed)))
    return sorted(found, key=lambda place: place.committed_s)


@contextmanager
def _unpacked(root: Path, commit: str) -> Iterator[Path]:
    """Temporary folder with what git holds of a commit; what DVC holds, `bring` adds."""
    there = git(root, "ls-tree", "--name-only", commit).splitlines()
    wanted = [name for name in UNPACKED if name in there]
    with tempfile.TemporaryDirectory(prefix="sonolens-") as name:
        if wanted:
            command = ["git", "-C", str(root), "archive", "--format=tar", commit, "--", *wanted]
            packed = subprocess.run(command, capture_output=True, check=True).stdout
            with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
                archive.extractall(name, filter="data")
        yield Path(name)


def git(root: Path, *arguments: str) -> str:
    """Output of a git command; empty where it fails, e.g. outside of a repository."""
    answer = subprocess.run(
        ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False
    )
    return answer.stdout if answer.returncode == 0 else ""
