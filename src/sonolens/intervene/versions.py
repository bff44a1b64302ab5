"""A recording with and without what a map points at, beside controls; the model is asked again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from sonolens.dsp.level import level_dbfs
from sonolens.dsp.spectrogram import LogMel
from sonolens.intervene import controls
from sonolens.intervene.spectral import Parts

Ask = Callable[[np.ndarray], np.ndarray]
"""Waveforms (n, time) at the front end's rate -> probabilities (n, n_classes)."""

KINDS = (
    "original",
    "kept",
    "removed",
    "random_kept",
    "random_removed",
    "energy_kept",
    "energy_removed",
)


@dataclass(frozen=True)
class Version:
    """One way to hear a recording.

    kind            one of KINDS
    waveform        (time,), float32; not scaled, so it may exceed full scale a little
    share           mean of the mask that made it: share of the cells that are left
    level_dbfs      root mean square, see `dsp.level`
    probabilities   (n_classes,), the model's answer to this sound
    """

    kind: str
    waveform: np.ndarray
    share: float
    level_dbfs: float
    probabilities: np.ndarray


def asking(model: nn.Module, front_end: LogMel) -> Ask:
    """Asks a classifier (eval mode) about sounds, each heard through the whole front end."""

    def ask(waveforms: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            logits = model(front_end(torch.from_numpy(waveforms)))
        return torch.softmax(logits.double(), 1).numpy()

    return ask


def make(
    waveform: np.ndarray, mask: Tensor, front_end: LogMel, ask: Ask, seed: int
) -> tuple[Version, ...]:
    """All KINDS of a recording (time,) for a mask (n_mels, n_frames).

    ``kept`` lies under the mask, ``removed`` is the rest. ``random_*`` do the same with random
    patches of the same share of cells, ``energy_*`` with random patches that leave the same energy.
    Deterministic in `seed`, the item's.

    Raises
    ------
    InterveneError
        See `spectral.Parts`.
    """
    parts, mask = Parts(waveform, front_end), mask.double()
    random = controls.same_share(mask, seed)
    masks = {
        "original": mask * 0 + 1,
        "kept": mask,
        "removed": 1 - mask,
        "random_kept": random,
        "random_removed": 1 - random,
        "energy_kept": controls.same_energy(parts, mask, seed, "kept"),
        "energy_removed": 1 - controls.same_energy(parts, mask, seed, "removed"),
    }
    sounds = np.stack([parts.under(masks[kind]).astype(np.float32) for kind in KINDS])
    sounds[0] = waveform
    answers = ask(sounds)
    return tuple(
        Version(kind, sound, float(masks[kind].mean()), level_dbfs(sound), answer)
        for kind, sound, answer in zip(KINDS, sounds, answers, strict=True)
    )
