"""A tree of the shape of AudioMNIST, 30,000 files, needs little memory in prepare and features."""

from __future__ import annotations

import os
import subprocess
import sys
import wave
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import project
from sonolens.store import ArrayStore, read_parquet

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.slow,
    pytest.mark.skipif(
        os.environ.get("SONOLENS_SOAK") != "1", reason="minutes and 2 GB of disk: SONOLENS_SOAK=1"
    ),
]

N_SPEAKERS, N_DIGITS, N_REPETITIONS = 60, 10, 50
SAMPLE_RATE = 48_000
DURATION_S = 0.25
MAX_MEMORY_MB = 1500
MEASURED = """
import resource, subprocess, sys
status = subprocess.run(sys.argv[1:]).returncode
print("PEAK", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)
sys.exit(status)
"""


def write_speaker(folder: Path, speaker: int) -> None:
    folder = folder / f"{speaker:02d}"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(speaker)
    n_samples = round(DURATION_S * SAMPLE_RATE)
    for digit in range(N_DIGITS):
        for repetition in range(N_REPETITIONS):
            noise = generator.integers(-3000, 3000, n_samples, dtype=np.int16)
            with wave.open(str(folder / f"{digit}_{speaker:02d}_{repetition}.wav"), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(SAMPLE_RATE)
                file.writeframes(noise.tobytes())


def run_stage(root: Path, stage: str) -> int:
    """Peak memory of a stage in MB."""
    command = [sys.executable, "-c", MEASURED, sys.executable, "src/stage.py", "digits", stage]
    done = subprocess.run(
        command, cwd=root, env=project.environment(), text=True, capture_output=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return int(done.stdout.rsplit("PEAK", 1)[1])


def test_thirty_thousand_files(tmp_path, capsys):
    root = project.make(tmp_path / "large")
    recordings = root / "data/raw/audiomnist/recordings"
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda number: write_speaker(recordings, number), range(1, N_SPEAKERS + 1)))
    path = root / "params.yaml"
    text = path.read_text()
    assert "source: formant_words" in text
    path.write_text(text.replace("source: formant_words", "source: audiomnist"))
    pictures = run_stage(root, "prepare_image")
    peaks = {"prepare_image": pictures}
    for stage in ("prepare", "features"):
        peaks[stage] = run_stage(root, stage)
    with capsys.disabled():
        print(f"\npeak memory in MB of {N_SPEAKERS * N_DIGITS * N_REPETITIONS} files: {peaks}")
    assert max(peaks.values()) < MAX_MEMORY_MB
    table = read_parquet(root / "data/digits/prepare/manifest.parquet")
    assert table.groupby(["label", "person_id"]).size().eq(N_REPETITIONS).all()
    assert table["person_id"].nunique() == N_SPEAKERS and table["label"].nunique() == N_DIGITS
    (size,) = project.read_yaml(path)["digits"]["features"]["sizes"]["audio"]
    store = ArrayStore(root / f"data/digits/features/audio-{size}")
    assert store.values.shape == (len(table), 1, size, size)
