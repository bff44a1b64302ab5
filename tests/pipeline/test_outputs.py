"""What the outputs of a finished run must not hold: when, where, by which run they were made."""

from __future__ import annotations

import json
import re
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

import project
from sonolens.pipeline import load_pipeline

pytestmark = pytest.mark.pipeline

STABLE = {
    ".html",
    ".json",
    ".csv",
    ".parquet",
    ".npy",
    ".safetensors",
    ".png",
    ".md",
}  # see test_byte_stability
TEXT = {".json", ".csv", ".md", ".html"}
DATE = re.compile(r"\b20\d\d-\d\d-\d\d[T ]\d\d:\d\d|\b\d\d:\d\d:\d\d\b")
EMBEDDED = re.compile(r"data:[\w/]+;base64,[\w+/=]+")
ABSOLUTE = re.compile(r"(?<![\w.])(?:/(?:home|root|tmp|var|Users|mnt|work)/|[A-Z]:\\)")


def _outputs(root: Path) -> list[Path]:
    found = []
    for stage in load_pipeline(root).values():
        for name in stage.outputs:
            path = root / name
            inside = sorted(path.rglob("*")) if path.is_dir() else [path]
            found += [item for item in inside if item.is_file() and item.name != ".gitignore"]
    assert found
    return found


def _words(path: Path) -> str:
    """All text in a file, also where the format packs it."""
    if path.suffix in TEXT:
        text = path.read_text(encoding="utf-8")
        return EMBEDDED.sub("", text)  # by chance anything stands in a megabyte of letters
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        # pandas notes only its own and pyarrow's version there.
        return f"{table.schema.metadata} {table.to_pylist()}"
    if path.suffix == ".png":
        with Image.open(path) as image:
            return str(image.info)
    if path.suffix == ".safetensors":
        with path.open("rb") as stream:
            return json.dumps(json.loads(stream.read(int.from_bytes(stream.read(8), "little"))))
    return ""


def test_only_formats_known_to_be_stable(repro):
    assert {path.suffix for path in _outputs(repro)} <= STABLE


def test_no_times_hosts_paths_or_runs(repro):
    with closing(sqlite3.connect(f"{(repro / 'mlflow.db').as_uri()}?mode=ro", uri=True)) as store:
        runs = [row[0] for row in store.execute("select run_uuid from runs")]
        began = store.execute("select min(start_time) from runs").fetchone()[0] // 1000
    assert runs
    secrets = [*runs, str(repro), str(Path.home()) + "/", socket.gethostname()]
    # Chance makes short words in numbers; long ones it does not.
    anywhere = [word.encode() for word in secrets if len(word) >= 8]
    found = []
    for path in _outputs(repro):
        name, content, words = path.relative_to(repro), path.read_bytes(), _words(path)
        found += [f"{name}: {word!r}" for word in anywhere if word in content]
        found += [
            f"{name}: {word}"
            for word in secrets
            if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", words)
        ]
        found += [
            f"{name}: {hit[0]}" for hit in (DATE.search(words), ABSOLUTE.search(words)) if hit
        ]
        seconds = [int(digits) for digits in re.findall(r"(?<![\d.])1\d{9}(?!\d)", words)]
        found += [f"{name}: {value}" for value in seconds if abs(value - began) < 86_400]
    assert not found


def test_results_under_the_names_of_audio_xai(repro, tmp_path):
    command = ["sonolens", "digits", "export", "--output-dir", str(tmp_path), "--n-maps", "1"]
    text = project.run(repro, *command)
    written = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")}
    assert f"{len(written)} files written" in text
    metrics = {path.rpartition("/")[2] for path in written if "/metrics/" in path}
    assert {
        "sparseness_formant_words_saliency_32.csv",
        "sparseness_sklearn_digits_saliency_16.csv",
        "faithfulness_patch_integrated_gradients_legacy_zero.csv",
    } <= metrics
    maps = {path.rpartition(".")[0] for path in written if "/visualizations/" in path}
    assert any("/sklearn_digits_integrated_gradients_black_16_" in path for path in maps)
    assert {f"{path}{kind}" for path in maps for kind in (".npy", ".png")} <= written
    assert "checkpoints/formant_words_resnet18_narrow_32.safetensors" in written


def test_the_notebook_runs_and_carries_no_output(repro):
    import nbclient
    import nbformat

    notebook = nbformat.read(repro / "notebooks/results_analysis.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    resources = {"metadata": {"path": str(repro / "notebooks")}}
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources=resources
    ).execute()
    text = str([cell.get("outputs") for cell in notebook.cells])
    for word in ("accuracy_person", "legacy_zero", "mean rank", "audio/wav", "beats_energy"):
        assert word in text
