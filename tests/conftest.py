"""Fixtures for all tests."""

from __future__ import annotations

import gzip
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

# Before torch is imported: busy waiting on shared cores costs more than it gains.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell that starts tests in its background has SIGINT ignored, by them and all they start.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

from sonolens import rng
from sonolens.data.audio import write_wav

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with real recordings: SONOLENS_DATA, or shared/data beside the repository."""
    folder = Path(os.environ.get("SONOLENS_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real recordings: {folder} is absent; set SONOLENS_DATA")
    return folder


@pytest.fixture
def generator(request: pytest.FixtureRequest) -> np.random.Generator:
    """NumPy generator that is a function of the test's name."""
    return rng.numpy_generator("tests", request.node.nodeid)


@pytest.fixture(scope="session")
def tone() -> Callable[..., np.ndarray]:
    """Half-scale tones, shape=(time,), float32."""

    def make(
        frequency_hz: float = 440, duration_s: float = 0.2, sample_rate: int = 8000
    ) -> np.ndarray:
        times_s = np.arange(round(duration_s * sample_rate)) / sample_rate
        return (0.5 * np.sin(2 * np.pi * frequency_hz * times_s)).astype(np.float32)

    return make


@pytest.fixture(scope="session")
def make_digits(tone: Callable[..., np.ndarray]) -> Callable[..., Path]:
    """Miniature corpora of spoken digits: one short tone per file, all of them different."""

    def make(
        folder: Path,
        speakers: list[str],
        n_digits: int = 10,
        n_repetitions: int = 2,
        by_speaker: bool = False,
        sample_rate: int = 8000,
    ) -> Path:
        for who, speaker in enumerate(speakers):
            for digit in range(n_digits):
                for repetition in range(n_repetitions):
                    parent = folder / speaker if by_speaker else folder
                    name = parent / f"{digit}_{speaker}_{repetition}.wav"
                    pitch_hz = 200 + 100 * digit + 10 * who + repetition
                    write_wav(name, tone(pitch_hz, 0.1, sample_rate), sample_rate)
        return folder

    return make


def idx(array: np.ndarray) -> bytes:
    """An IDX file of bytes, as MNIST's."""
    head = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return head + array.astype(np.uint8).tobytes()


@pytest.fixture(scope="session")
def make_mnist() -> Callable[..., Path]:
    """Miniature MNIST: parts of 5 x 4 pictures whose first pixel tells their number."""

    def make(folder: Path, sizes: dict[str, int], zipped: bool = False) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for part, size in sizes.items():
            images = np.zeros((size, 5, 4), np.uint8)
            images[:, 0, 0] = np.arange(size) + len(part)
            arrays = {"images-idx3": images, "labels-idx1": np.arange(size) % 10}
            for kind, array in arrays.items():
                content, name = idx(array), f"{part}-{kind}-ubyte"
                if zipped:
                    content, name = gzip.compress(content, mtime=0), f"{name}.gz"
                (folder / name).write_bytes(content)
        return folder

    return make


@pytest.fixture
def eager_workers(monkeypatch) -> None:
    """Workers are started however little there is to do."""
    from sonolens import parallel

    monkeypatch.setattr(parallel, "WORKER_START_S", -1)
