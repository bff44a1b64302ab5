"""Sound to log-mel stores and pictures to grey stores, one per cell."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional

from sonolens import rng
from sonolens.dsp.scale import GREY_SCALE
from sonolens.dsp.segments import place
from sonolens.dsp.spectrogram import LogMel
from sonolens.params import StageParams
from sonolens.pipeline import StageFiles
from sonolens.store import ArrayStore, batches, write_store
from sonolens.studies.digits.cells import AUDIO, IMAGE, cell_name
from sonolens.studies.digits.datasets import FEATURES, PREPARE
from sonolens.studies.digits.front_end import front_end
from sonolens.studies.digits.params import Params
from sonolens.track import Record

BATCH_SIZE = 256


def run(params: StageParams[Params], files: StageFiles, record: Record) -> None:
    """Write one store per cell."""
    audio = ArrayStore(files.dep(f"{PREPARE[AUDIO]}/audio"))
    pixels = ArrayStore(files.dep(f"{PREPARE[IMAGE]}/pixels"))
    folder = files.out(FEATURES)
    sizes = params.study.features.sizes
    for size in sizes.audio:
        mel = front_end(params.study, size)
        with write_store(folder / cell_name(AUDIO, size), mel.axes()) as writer:
            for rows in batches(len(audio), BATCH_SIZE):
                windows, index = zip(
                    *(_window(params, mel, audio, row) for row in rows), strict=True
                )
                writer.append(mel(torch.from_numpy(np.stack(windows))).numpy(), index)
    for size in sizes.image:
        with write_store(folder / cell_name(IMAGE, size), grey_axes(size)) as writer:
            for rows in batches(len(pixels), BATCH_SIZE):
                index = [{"item_id": name} for name in pixels.index["item_id"].iloc[list(rows)]]
                levels = pixels.values[rows.start : rows.stop] / pixels.axes["max_level"]
                writer.append(resized(levels, size), index)


def grey_axes(size: int) -> dict[str, Any]:
    """axes.json of square grey pictures."""
    positions = [float(position) for position in range(size)]
    return {"names": ["channel", "row", "column"], "rows": positions, "columns": positions,
            "scale": GREY_SCALE}  # fmt: skip


def resized(levels: np.ndarray, size: int) -> np.ndarray:
    """Grey levels (n, height, width) in [0, 1] to (n, 1, size, size)."""
    pictures = torch.from_numpy(levels.astype(np.float32))[:, None]
    resized = functional.interpolate(
        pictures, (size, size), mode="bilinear", align_corners=False, antialias=True
    )
    return resized.clamp(0, 1).numpy()


def _window(
    params: StageParams[Params], mel: LogMel, audio: ArrayStore, row: int
) -> tuple[np.ndarray, dict]:
    item_id, waveform = audio.index["item_id"].iloc[row], audio[row]
    draw = rng.numpy_generator(params.common.seed, item_id, "placement").random()
    window, offset = place(waveform, mel.n_samples, params.study.features.placement, draw)
    return window, {
        "item_id": item_id,
        "offset_s": offset / mel.sample_rate,
        "n_cut_samples": max(0, len(waveform) - mel.n_samples),
    }
