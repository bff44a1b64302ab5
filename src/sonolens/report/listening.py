"""One page to hear what a model bases its answer on: a single file with sounds and pictures in it.

It needs neither server nor network, so it also plays in MLflow's viewer of artefacts.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from matplotlib.figure import Figure

from sonolens.data.audio import wav
from sonolens.dsp.level import safe_gain
from sonolens.intervene.versions import Version
from sonolens.report import figures
from sonolens.store import whole

TEMPLATE = "listening.html.j2"
MAX_BYTES = 10_000_000  # MLflow's viewer reads a page whole before it shows it
STYLE, WORDS = 20_000, 2_000  # bytes of a page without clips, of a player without its sound
NO_CLIPS = "listening page: no clips, need at least one"
DPI = 200
# Inches. Shown 366 pixels wide, as on a phone, the letters are 12 pixels high.
WIDTH, PANEL, LEFT, RIGHT, TOP, BOTTOM, GAP = 3.6, 1.35, 0.72, 0.92, 0.27, 0.5, 0.4
LETTERS = 9.0  # points

# What is kept and what is removed stand beside each other.
GROUPS = {
    "Original": {"original": "the whole window"},
    "By the map": {"kept": "only what the map marks", "removed": "without what the map marks"},
    "Control of equal energy": {
        "energy_kept": "only random patches, as loud as what the map marks",
        "energy_removed": "without random patches, as loud as what the map leaves",
    },
    "Control of equal area": {
        "random_kept": "only random patches of as many cells",
        "random_removed": "without random patches of as many cells",
    },
}


class ListeningError(ValueError):
    """A page cannot be made as asked for; the message says why."""


@dataclass(frozen=True)
class Clip:
    """A recording and its map, as numbers.

    title           what it is, e.g. its label and its name
    sample_rate     Hz
    versions        all kinds, original first; see `sonolens.intervene.versions`
    classes         names of the model's answers
    explained       index of the class whose map it is
    axes            as in axes.json, with frequencies_hz and times_s
    inputs          (freq, time), on the scale of `axes`
    attribution     (freq, time), signed
    method          name of the method, with its baseline
    truth           (freq, time), boolean, what caused the label; None where nobody knows
    facts           further lines, by name
    scores          of this map, by metric; NaN where undefined
    """

    title: str
    sample_rate: int
    versions: Sequence[Version]
    classes: Sequence[str]
    explained: int
    axes: Mapping[str, Any]
    inputs: np.ndarray
    attribution: np.ndarray
    method: str
    truth: np.ndarray | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)


def write(path: Path, clips: Sequence[Clip], title: str, about: Sequence[str]) -> list[Path]:
    """Write `page` to a file; to path_2, path_3 … too where the clips do not fit on one.

    Raises
    ------
    ListeningError
        No clip, or one that is too large alone.
    """
    groups: list[list[dict[str, Any]]] = []
    room = 0
    for clip in map(_shown, clips):
        size = len(clip["picture"]["src"]) + sum(
            len(sound["src"]) + WORDS for sound in clip["sounds"].values()
        )
        if size > room:
            groups.append([])
            room = MAX_BYTES - STYLE
        groups[-1].append(clip)
        room -= size
    if not groups:
        raise ListeningError(NO_CLIPS)
    paths = []
    for number, group in enumerate(groups, start=1):
        part = [f"Page {number} of {len(groups)}."] if len(groups) > 1 else []
        text = _rendered(group, title, [*about, *part])
        paths.append(path if number == 1 else path.with_stem(f"{path.stem}_{number}"))
        with whole(paths[-1]) as stream:
            stream.write(text.encode())
    return paths


def page(clips: Sequence[Clip], title: str, about: Sequence[str]) -> str:
    """HTML of a page with everything in it; equal input gives equal text.

    Parameters
    ----------
    clips
        What is shown, in this order.
    title, about
        Heading, and paragraphs below it: which model, which items out of how many.

    Raises
    ------
    ListeningError
        No clip, or more than MAX_BYTES.
    """
    if not clips:
        raise ListeningError(NO_CLIPS)
    return _rendered([_shown(clip) for clip in clips], title, about)


def _rendered(clips: Sequence[Mapping[str, Any]], title: str, about: Sequence[str]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=True,
    )
    text = environment.get_template(TEMPLATE).render(
        title=title, about=list(about), clips=clips, groups=GROUPS
    )
    size = len(text.encode())
    if size > MAX_BYTES:
        raise ListeningError(
            f"listening page: {size / 1e6:.1f} MB, at most {MAX_BYTES / 1e6:.0f} MB; "
            "show fewer or shorter clips"
        )
    return text


def _shown(clip: Clip) -> dict[str, Any]:
    """What the template prints of a clip."""
    gain = safe_gain([version.waveform for version in clip.versions])
    sounds = {
        version.kind: {
            # Not FLAC: Chromium cannot seek in what libsndfile writes, as it has no seek table.
            "src": _data_uri(
                "audio/wav", wav(version.waveform * gain, clip.sample_rate, clip.title)[0]
            ),
            "duration": f"{len(version.waveform) / clip.sample_rate:.2f} s",
            "level": _level(version.level_dbfs),
            "share": f"{100 * version.share:.0f} % of the cells",
            "answer": _answer(version.probabilities, clip),
            "p": _number(version.probabilities[clip.explained]),
            "meter": f"{version.probabilities[clip.explained]:.4f}",
        }
        for version in clip.versions
    }
    return {
        "title": clip.title,
        "method": clip.method.replace("_", " "),
        "explained": clip.classes[clip.explained],
        "sounds": sounds,
        "turned_down": f"{-20 * math.log10(gain):.1f} dB" if gain < 1 else None,
        "picture": _picture(clip),
        "truth": clip.truth is not None,
        "facts": dict(clip.facts),
        "scores": {name.replace("_", " "): _number(value) for name, value in clip.scores.items()},
    }


def _answer(probabilities: np.ndarray, clip: Clip) -> str:
    index = int(probabilities.argmax())
    if index == clip.explained:
        return clip.classes[index]
    return f"{clip.classes[index]} ({_number(probabilities[index])})"


def _number(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{value:.2f}"


def _level(level_dbfs: float) -> str:
    return "silent" if level_dbfs == -math.inf else f"{level_dbfs:.1f} dBFS".replace("-", "−")


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _picture(clip: Clip) -> dict[str, Any]:
    """Spectrogram above its map as PNG, and where on it which time lies, for the cursor."""
    height = TOP + PANEL + GAP + PANEL + BOTTOM
    figure = Figure(figsize=(WIDTH, height), dpi=DPI)
    limit = float(np.quantile(np.abs(clip.attribution), 0.99)) or 1.0
    width = WIDTH - LEFT - RIGHT
    reference = figures.REFERENCES[clip.axes.get("reference", "clip_max")]
    name = clip.method.replace("_", " ")
    panels = (
        ("spectrogram", clip.inputs, False, f"dB re {reference}"),
        (f"map: {name}", clip.attribution / limit, True, "map / its q99"),
    )
    axes = dict(clip.axes)
    for row, (title, values, signed, label) in enumerate(panels):
        bottom = BOTTOM + (1 - row) * (PANEL + GAP)
        place = (LEFT / WIDTH, bottom / height, width / WIDTH, PANEL / height)
        ax = figure.add_axes(place)
        mesh = figures.draw_map(ax, values, axes, signed=signed, limit=1.0)
        if clip.truth is not None:
            figures.outline(ax, clip.truth, axes)
        ax.set_title(title, fontsize=LETTERS, pad=3)
        ax.set_ylabel("frequency (Hz)", fontsize=LETTERS)
        ax.tick_params(labelsize=LETTERS, labelbottom=row == 1)
        bar = figure.add_axes(((WIDTH - RIGHT + 0.08) / WIDTH, place[1], 0.1 / WIDTH, place[3]))
        figure.colorbar(mesh, cax=bar).set_label(label, fontsize=LETTERS)
        bar.tick_params(labelsize=LETTERS)
        start_s, end_s = ax.get_xlim()
    ax.set_xlabel("time (s)", fontsize=LETTERS)
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    return {
        "src": _data_uri("image/png", content.getvalue()),
        "width": round(WIDTH * DPI),
        "height": round(height * DPI),
        "left": f"{LEFT / WIDTH:.4f}",
        "right": f"{(WIDTH - RIGHT) / WIDTH:.4f}",
        "top": f"{TOP / height:.4f}",
        "bottom": f"{BOTTOM / height:.4f}",
        "start": f"{start_s:.6f}",
        "end": f"{end_s:.6f}",
    }
