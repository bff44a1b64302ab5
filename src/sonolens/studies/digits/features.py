"""Audio store to log-mel stores, one per resolution."""

from __future__ import annotations

import numpy as np
import torch

from sonolens import rng
from sonolens.dsp.segments import place
from sonolens.dsp.spectrogram import LogMel
from sonolens.params import StageParams
from sonolens.pipeline import StageFiles
from sonolens.store import ArrayStore, batches, write_store
from sonolens.studies.digits.datasets import FEATURES, PREPARE, cell_name
from sonolens.studies.digits.front_end import front_end
from sonolens.studies.digits.params import Params
from sonolens.track import Record

BATCH_SIZE = 256


def run(params: StageParams[Params], files: StageFiles, record: Record) -> None:
    """Write one log-mel store per resolution."""
    audio = ArrayStore(files.dep(f"{PREPARE}/audio"))
    folder = files.out(FEATURES)
    for size in params.study.features.sizes:
        mel = front_end(params.study, size)
        with write_store(folder / cell_name(size), mel.axes()) as writer:
            for rows in batches(len(audio), BATCH_SIZE):
                windows, index = zip(
                    *(_window(params, mel, audio, row) for row in rows), strict=True
                )
                writer.append(mel(torch.from_numpy(np.stack(windows))).numpy(), index)


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
