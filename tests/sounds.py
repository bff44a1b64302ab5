"""Clips for listening pages, without a model."""

from __future__ import annotations

import numpy as np
import torch

from sonolens import rng
from sonolens.dsp.spectrogram import LogMel
from sonolens.intervene import versions
from sonolens.report.listening import Clip

MEL = LogMel(
    sample_rate=8000, n_fft=512, hop_length=250, n_mels=32, n_frames=32, f_min=50, f_max=4000
)
SCORES = {"pointing_game": 0.25, "mprt": float("nan")}


def clip(
    title: str, *, peak: float = 0.5, truth: bool | None = True, scores=SCORES, mask=1
) -> Clip:
    """A second of a rising tone; the map marks its middle."""
    times_s = np.arange(MEL.n_samples) / MEL.sample_rate
    tone = np.sin(2 * np.pi * (400 + 400 * times_s) * times_s) * np.hanning(len(times_s))
    waveform = (peak * tone / np.abs(tone).max()).astype(np.float32)
    attribution = rng.numpy_generator(title).normal(0, 0.1, (MEL.n_mels, MEL.n_frames))
    attribution[8:16, 10:20] += 1
    marked = mask * torch.from_numpy(attribution > 0.5).float()

    def ask(sounds: np.ndarray) -> np.ndarray:
        p = np.square(sounds).sum(1) / np.square(waveform).sum()
        return np.stack([p, 1 - p], 1).clip(0, 1)

    return Clip(
        title=title,
        sample_rate=MEL.sample_rate,
        versions=versions.make(waveform, marked, MEL, ask, 1),
        classes=("ja", "nein"),
        explained=0,
        axes=MEL.axes(),
        inputs=MEL(torch.from_numpy(waveform)[None])[0, 0].numpy(),
        attribution=attribution,
        method="integrated_gradients, silence",
        truth=attribution > 0.5 if truth else None,
        facts={"Item": f"{title}/1"},
        scores=scores,
    )
