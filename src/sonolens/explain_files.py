"""One's own recordings through a trained classifier: map, scores, and the sound of the map."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from sonolens import rng
from sonolens.data.audio import BadRecording, read_audio, usable, write_wav
from sonolens.data.own_files import named_recordings
from sonolens.dsp.segments import Placement, place
from sonolens.dsp.spectrogram import LogMel
from sonolens.explain import baselines, registry, targets
from sonolens.explain.cells import call_options, n_draws
from sonolens.explain.contract import ExplainError, Items, evaluate, seed_array
from sonolens.intervene import versions
from sonolens.intervene.spectral import top_share
from sonolens.models import checkpoint
from sonolens.report import listening
from sonolens.report.figures import Grid, attribution_grid
from sonolens.score import registry as metrics
from sonolens.score.contract import Context
from sonolens.score.tables import method_label
from sonolens.store import whole, write_csv

METRICS = ("faithfulness_patch", "faithfulness_scattered", "sparseness")
TABLE, PAGE = "explanations.csv", "listening.html"


class NoCheckpoint(FileNotFoundError):
    """There is no trained model for sounds."""


@dataclass(frozen=True)
class Classifier:
    """What explains itself.

    model       (batch, 1, n_mels, n_frames) -> logits, eval mode
    placement   where a recording shorter than the window lies; `random` means the middle here
    """

    name: str
    model: nn.Module
    front_end: LogMel
    classes: tuple[str, ...]
    placement: Placement

    @classmethod
    def load(cls, path: Path) -> Classifier:
        """The classifier in a checkpoint whose description has front_end, classes, placement.

        Raises NoCheckpoint for a network that does not hear.
        """
        model, description = checkpoint.load(path)
        if "front_end" not in description:
            raise NoCheckpoint(
                f"{path}: a network for {description.get('modality')}s, need "
                "one for sounds; give another --checkpoint"
            )
        front_end = LogMel(**description["front_end"])
        classes = tuple(description["classes"])
        return cls(path.stem, model, front_end, classes, description["placement"])


@dataclass(frozen=True)
class Request:
    """What to do with every file. `baseline` is used by the methods that take one."""

    output_dir: Path
    methods: tuple[str, ...]
    baseline: str
    seed: int = 0


@dataclass(frozen=True)
class Explained:
    """Results of one file: a row of the table and a clip of the page per method."""

    rows: list[dict[str, Any]]
    clips: list[listening.Clip]


def run(
    classifier: Classifier, request: Request, paths: Sequence[Path], say: Callable[[str], object]
) -> list[str]:
    """Explain files and folders of files; what was wrong, a line per bad file.

    Writes below the output folder NAME.png, NAME.npz, NAME_METHOD_kept.wav and
    NAME_METHOD_removed.wav per file, and TABLE and PAGE for all of them. `say` hears a line per
    good file.

    Raises
    ------
    ExplainError
        Unknown method; nothing is done.
    """
    for method in request.methods:
        registry.info(method)
    files, bad = named_recordings(paths)
    request.output_dir.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    clips: list[listening.Clip] = []
    n_explained = 0
    for path, name in files:
        try:
            explained = explain(classifier, request, path, name)
        except BadRecording as error:
            bad.append(str(error))
            continue
        except ExplainError as error:
            bad.append(f"{path}: {error}")
            continue
        rows += explained.rows
        clips += explained.clips
        n_explained += 1
        row = rows[-1]
        say(
            f"{path}: {row['predicted']} (p = {row['p']:.2f}); "
            f"under the map p = {row['p_kept']:.2f}, without it p = {row['p_removed']:.2f}"
        )
    if rows:
        write_csv(request.output_dir / TABLE, pd.DataFrame(rows))
        about = [
            f"{n_explained} of {n_explained + len(bad)} files; of a recording longer than the "
            f"model's window of {_window_s(classifier):g} s the loudest stretch.",
            f"Model {classifier.name}; the answers it knows: {', '.join(classifier.classes)}.",
        ]
        page, *others = listening.write(
            request.output_dir / PAGE, clips, "What the model listens to", about
        )
        more = f" and {len(others)} more pages" if others else ""
        say(
            f"{n_explained} files explained; see {request.output_dir / TABLE}, listen: {page}{more}"
        )
    return bad


def explain(classifier: Classifier, request: Request, path: Path, name: str) -> Explained:
    """Write picture, maps and sounds of one file below the output folder as `name`….

    Raises
    ------
    BadRecording
        The file cannot be decoded or has no sound.
    ExplainError
        A method does not fit the model or the file.
    """
    front_end, classes = classifier.front_end, classifier.classes
    audio = read_audio(path)
    waveform = usable(audio, front_end.sample_rate, path)
    window, offset = place(waveform, front_end.n_samples, classifier.placement, 0.5)
    start_s = max(0, -offset) / front_end.sample_rate
    inputs = front_end(torch.from_numpy(window)[None])
    ask = versions.asking(classifier.model, front_end)
    target = targets.predicted(classifier.model, inputs)
    (predicted,) = target.class_index
    rows, clips, maps = [], [], {}
    for method in request.methods:
        attribution, baseline = _attribute(classifier, request, method, inputs, target, name)
        label = method_label(method, baseline)
        maps[label] = attribution.numpy()
        heard = versions.make(
            window, top_share(attribution[0]), front_end, ask,
            rng.seed_for(request.seed, name, "listening"),
        )  # fmt: skip
        scores = _scores(classifier, request, inputs, target, attribution, name)
        answers: dict[str, Any] = {}
        for version in heard:
            answers[f"p_{version.kind}"] = float(version.probabilities[predicted])
            if version.kind in ("kept", "removed"):
                wav = request.output_dir / f"{name}_{method}_{version.kind}.wav"
                write_wav(wav, version.waveform, front_end.sample_rate)
                answers[f"wav_{version.kind}"] = wav.name
        answers["p"] = answers.pop("p_original")
        rows.append(
            {"file": str(path), "clipped_share": audio.clipped_share, "window_start_s": start_s,
             "predicted": classes[predicted], "p": answers["p"], "method": method,
             "baseline": baseline} | answers | scores
        )  # fmt: skip
        clips.append(
            listening.Clip(
                title=name if len(request.methods) == 1 else f"{name}, {label.replace('_', ' ')}",
                sample_rate=front_end.sample_rate,
                versions=heard,
                classes=classes,
                explained=predicted,
                axes=front_end.axes(),
                inputs=inputs[0, 0].numpy(),
                attribution=attribution[0].numpy(),
                method=label,
                facts={"File": path.name, "Window from": f"{start_s:.2f} s"},
                scores=scores,
            )
        )
    title = f"{classes[predicted]} (p = {rows[0]['p']:.2f})"
    grid = Grid(
        axes=front_end.axes(),
        inputs=inputs[0].numpy(),
        maps={label.replace(", ", "\n"): values for label, values in maps.items()},
        masks=None,
        titles=[title],
    )
    attribution_grid(grid, request.output_dir / f"{name}.png")
    with whole(request.output_dir / f"{name}.npz") as stream:
        np.savez(
            stream,
            input=inputs[0, 0].numpy(),
            frequencies_hz=front_end.frequencies_hz,
            times_s=front_end.times_s,
            **{label.replace(", ", "_"): values[0] for label, values in maps.items()},
        )
    return Explained(rows, clips)


def _window_s(classifier: Classifier) -> float:
    return classifier.front_end.n_samples / classifier.front_end.sample_rate


def _attribute(
    classifier: Classifier,
    request: Request,
    method: str,
    inputs: Tensor,
    target: targets.ClassLogit,
    name: str,
) -> tuple[Tensor, str]:
    info = registry.info(method)
    seeds = [rng.seed_for(request.seed, name)]
    axes, kind, baseline = classifier.front_end.axes(), "none", None
    if info.needs_baseline:
        kind = info.baselines[0] if info.baselines else request.baseline
        baseline = baselines.make(kind, inputs, axes, item_seeds=seeds, n_draws=n_draws(info, {}))
        baselines.check_loudness(inputs, baseline, kind, axes)
    result = info.load()(
        classifier.model,
        inputs,
        target,
        baseline=baseline,
        item_seeds=seed_array(seeds),
        **call_options(info, info.options, inputs, axes),
    )
    return result.values[:, 0], kind


def _scores(
    classifier: Classifier,
    request: Request,
    inputs: Tensor,
    target: targets.ClassLogit,
    attribution: Tensor,
    name: str,
) -> dict[str, float]:
    def predict(edited: Tensor, rows: Tensor) -> Tensor:
        return evaluate(classifier.model, edited, target, rows)

    context = Context(
        items=Items((name,), (name,), (0,)),
        inputs=inputs,
        target=target,
        predict=predict,
        edit=lambda values, mask, fill: values + mask * (fill - values),
        fill=baselines.silence(inputs, classifier.front_end.axes())[:, 0].expand_as(inputs),
        masks={},
        item_seeds=seed_array([rng.seed_for(request.seed, name)]),
        scale=(0.0, 1.0),
        n_classes=len(classifier.classes),
    )
    maps = attribution[:, None]
    return {name: float(metrics.info(name).compute(maps, context).values[0]) for name in METRICS}
