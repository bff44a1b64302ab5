"""Decoding, and stores against a file per segment."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import soundfile
from run import Case

from sonolens.data.audio import read_audio, write_wav
from sonolens.store import ArrayStore, write_store

N_ITEMS, SHAPE = 1000, (1, 128, 44)


def cases() -> list[Case]:
    """Rows decode_int16, store_write, store_read."""
    folder = Path(tempfile.mkdtemp(prefix="sonolens-bench-"))
    _remove_at_exit(folder)
    return [_decode(folder), *_store(folder)]


def _remove_at_exit(folder: Path) -> None:
    import atexit

    atexit.register(shutil.rmtree, folder, ignore_errors=True)


def _decode(folder: Path) -> Case:
    path = folder / "speech.wav"
    write_wav(path, 0.5 * np.sin(np.arange(20 * 48000) / 20).astype(np.float32), 48000)

    def peer() -> np.ndarray:
        return soundfile.read(path, dtype="float32")[0]

    def ours() -> np.ndarray:
        return _decode_only(path)

    def check() -> None:
        assert np.array_equal(peer(), read_audio(path).waveform), "waveforms differ"
        assert np.array_equal(peer(), ours()), "waveforms differ"

    return Case(
        "decode_int16",
        "io",
        peer,
        ours,
        check,
        1.4,
        "20 s of 48 kHz, 16 bit, against soundfile float32",
    )


def _decode_only(path: Path) -> np.ndarray:
    """`read_audio` without digest and search for damage, which the peer does not do."""
    from sonolens.data.audio import _decode as decode

    return decode(path.read_bytes())[0][:, 0]


def _store(folder: Path) -> list[Case]:
    maps = np.random.default_rng(0).random((N_ITEMS, *SHAPE), dtype=np.float32)
    order = np.random.default_rng(1).permutation(N_ITEMS)
    single, store = folder / "single", folder / "store"
    axes = {"names": ["channel", "freq", "time"]}
    rows = [{"item_id": f"{number:05d}", "label": number % 10} for number in range(N_ITEMS)]

    def write_files() -> None:
        from PIL import Image

        shutil.rmtree(single, ignore_errors=True)
        single.mkdir()
        for row, values in zip(rows, maps, strict=True):
            Image.fromarray((255 * values[0]).astype(np.uint8)).save(
                single / f"{row['item_id']}.png"
            )
            (single / f"{row['item_id']}.json").write_text(json.dumps(row | axes), encoding="utf-8")

    def write_array() -> None:
        with write_store(store, axes) as writer:
            for start in range(0, N_ITEMS, 32):
                writer.append(maps[start : start + 32], rows[start : start + 32])

    def read_files() -> float:
        from PIL import Image

        total = 0.0
        for number in order:
            name = single / f"{number:05d}"
            json.loads(name.with_suffix(".json").read_text(encoding="utf-8"))
            with Image.open(name.with_suffix(".png")) as image:
                values = np.asarray(image, dtype=np.float32) / 255
            total += float(values[0, 0])
        return total

    opened: list[ArrayStore] = []

    def read_array() -> float:
        if not opened:
            opened.append(ArrayStore(store))
        return float(sum(float(opened[0][number][0, 0, 0]) for number in order))

    def check() -> str:
        write_files()
        write_array()
        opened.clear()
        assert np.array_equal(ArrayStore(store).values, maps), "stored values differ"
        assert abs(read_array() - read_files()) < N_ITEMS / 255, (
            "items differ by more than 8 bits can hold"
        )
        return "exact; the PNG has 8 bits"

    size = f"{N_ITEMS} maps of 128 x 44 against a PNG and a JSON each"
    return [
        Case("store_write", "io", write_files, write_array, check, 50, size),
        Case("store_read", "io", read_files, read_array, check, 20, f"{size}, random order"),
    ]
