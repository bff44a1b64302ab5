"""One's own recordings through a trained checkpoint: map, scores, and the sound of the map."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sonolens import rng
from sonolens.data.audio import read_audio, usable, write_wav
from sonolens.dsp.segments import place
from sonolens.dsp.spectrogram import LogMel
from sonolens.explain import baselines, registry, targets
from sonolens.explain.cells import call_options, n_draws
from sonolens.explain.contract import Items, evaluate, seed_array
from sonolens.intervene import spectral
from sonolens.models import checkpoint
from sonolens.report.figures import Grid, attribution_grid
from sonolens.score import registry as metrics
from sonolens.score.contract import Context
from sonolens.score.tables import method_label
from sonolens.store import whole

METRICS = ("faithfulness_patch", "faithfulness_scattered", "sparseness")


@dataclass(frozen=True)
class Request:
    """What to do with every file. `baseline` is used by the methods that take one."""

    checkpoint: Path
    output_dir: Path
    methods: tuple[str, ...]
    baseline: str
    seed: int = 0


class OwnFiles:
    """A loaded checkpoint, ready for files."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.model, self.description = checkpoint.load(request.checkpoint)
        if "front_end" not in self.description:
            raise NoCheckpoint(
                f"{request.checkpoint}: a network for {self.description.get('modality')}s, need "
                "one for sounds; give another --checkpoint"
            )
        self.front_end = LogMel(**self.description["front_end"])
        self.classes: list[str] = self.description["classes"]

    def explain(self, path: Path, name: str) -> list[dict[str, Any]]:
        """Write the results of one file below the output folder as `name`…; rows for the table.

        Raises
        ------
        BadRecording
            The file cannot be decoded or has no sound.
        """
        audio = read_audio(path)
        waveform = usable(audio, self.front_end.sample_rate, path)
        placement = self.description["placement"]
        window, offset = place(waveform, self.front_end.n_samples, placement, 0.5)
        inputs = self._analyse(window)
        target = targets.predicted(self.model, inputs)
        probability = self._probability(inputs)
        predicted = int(probability.argmax())
        rows, maps = [], {}
        for method in self.request.methods:
            attribution, baseline = self._attribute(method, inputs, target, name)
            maps[method_label(method, baseline)] = attribution.numpy()
            rows.append(
                {"file": str(path), "clipped_share": audio.clipped_share,
                 "window_start_s": max(0, -offset) / self.front_end.sample_rate,
                 "predicted": self.classes[predicted], "p": float(probability[predicted]),
                 "method": method, "baseline": baseline}
                | self._listen(window, attribution, predicted, f"{name}_{method}")
                | self._scores(inputs, target, attribution, name)
            )  # fmt: skip
        title = f"{self.classes[predicted]} (p = {float(probability[predicted]):.2f})"
        grid = Grid(
            axes=self.front_end.axes(),
            inputs=inputs[0].numpy(),
            maps={label.replace(", ", "\n"): values for label, values in maps.items()},
            masks=None,
            titles=[title],
        )
        attribution_grid(grid, self.request.output_dir / f"{name}.png")
        with whole(self.request.output_dir / f"{name}.npz") as stream:
            np.savez(
                stream,
                input=inputs[0, 0].numpy(),
                frequencies_hz=self.front_end.frequencies_hz,
                times_s=self.front_end.times_s,
                **{label.replace(", ", "_"): values[0] for label, values in maps.items()},
            )
        return rows

    def _analyse(self, window: np.ndarray) -> Tensor:
        return self.front_end(torch.from_numpy(window)[None])

    def _probability(self, inputs: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.softmax(self.model(inputs)[0].double(), 0)

    def _attribute(
        self, method: str, inputs: Tensor, target: targets.ClassLogit, name: str
    ) -> tuple[Tensor, str]:
        info = registry.info(method)
        seeds = [rng.seed_for(self.request.seed, name)]
        axes, kind, baseline = self.front_end.axes(), "none", None
        if info.needs_baseline:
            kind = info.baselines[0] if info.baselines else self.request.baseline
            baseline = baselines.make(
                kind, inputs, axes, item_seeds=seeds, n_draws=n_draws(info, {})
            )
            baselines.check_loudness(inputs, baseline, kind, axes)
        result = info.load()(
            self.model,
            inputs,
            target,
            baseline=baseline,
            item_seeds=seed_array(seeds),
            **call_options(info, info.options, inputs, axes),
        )
        return result.values[:, 0], kind

    def _listen(
        self, window: np.ndarray, attribution: Tensor, predicted: int, name: str
    ) -> dict[str, Any]:
        """Write the sound under the map and the rest, and ask the model about both."""
        mask = spectral.top_share(attribution[0])
        answers: dict[str, Any] = {}
        for part, share in (("kept", mask), ("removed", 1 - mask)):
            sound = spectral.keep(window, share, self.front_end)
            path = self.request.output_dir / f"{name}_{part}.wav"
            write_wav(path, sound, self.front_end.sample_rate)
            answers |= {
                f"p_{part}": float(self._probability(self._analyse(sound))[predicted]),
                f"wav_{part}": path.name,
            }
        return answers

    def _scores(
        self, inputs: Tensor, target: Any, attribution: Tensor, name: str
    ) -> dict[str, float]:
        def predict(edited: Tensor, rows: Tensor) -> Tensor:
            return evaluate(self.model, edited, target, rows)

        context = Context(
            items=Items((name,), (name,), (0,)),
            inputs=inputs,
            target=target,
            predict=predict,
            edit=lambda values, mask, fill: values + mask * (fill - values),
            fill=baselines.silence(inputs, self.front_end.axes())[:, 0].expand_as(inputs),
            masks={},
            item_seeds=seed_array([rng.seed_for(self.request.seed, name)]),
            scale=(0.0, 1.0),
            n_classes=len(self.classes),
        )
        maps = attribution[:, None]
        return {
            name: float(metrics.info(name).compute(maps, context).values[0]) for name in METRICS
        }


def default_checkpoint(root: Path) -> Path:
    """The trained model of the first fold, for sounds.

    Raises FileNotFoundError with the command that makes one.
    """
    found = sorted(
        (root / "models/digits/train").glob("audio-*_person_fold0_*_trained.safetensors")
    )
    if not found:
        raise NoCheckpoint(
            "models/digits/train: no checkpoint; run `dvc repro digits-train`, or give --checkpoint"
        )
    return found[0]


class NoCheckpoint(FileNotFoundError):
    """There is no trained model yet."""
