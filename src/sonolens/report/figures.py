"""Pictures of results.

Axes in Hz and s or in pixels, signed maps on symmetric colour scales, units on every bar.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd

mpl.use("Agg")

from matplotlib import pyplot as plt  # after the backend is chosen

from sonolens.score.tables import method_label
from sonolens.store import whole

DPI = 110
PUBLICATION_DPI = 300
REFERENCES = {"clip_max": "loudest cell", "full_scale": "full scale"}
SIGNED_MAP, POWER_MAP, GREY_MAP = "RdBu_r", "magma", "gray"
TICKS_HZ = np.array([100, 250, 500, 1000, 2000, 4000, 8000, 16000])
MAPS_PER_LINE = 8
MIN_TICK_GAP = 0.07  # share of the axis
# Where `publication` sends pictures.
_publication: ContextVar[Path | None] = ContextVar("publication", default=None)


@dataclass(frozen=True)
class Grid:
    """Examples by method.

    axes      as in axes.json: scale, with frequencies_hz and times_s of sound, or rows and columns
              of a picture
    inputs    (n_items, freq, time) or (n_items, row, column) on that scale
    maps      by label: signed attributions of that shape
    masks     truth of that shape or None
    titles    one per item
    """

    axes: dict[str, Any]
    inputs: np.ndarray
    maps: dict[str, np.ndarray]
    masks: np.ndarray | None
    titles: list[str]


@contextmanager
def publication(folder: Path) -> Iterator[None]:
    """Within the block every picture is also written to `folder`, as PDF and as PNG of 300 dpi."""
    token = _publication.set(folder)
    try:
        # Letters stay letters, which journals ask for and editors of drawings can change.
        with mpl.rc_context({"pdf.fonttype": 42}):
            yield
    finally:
        _publication.reset(token)


@contextmanager
def sheet(
    path: Path, n_rows: int, n_columns: int, width: float, height: float, *, fitted: bool = True
) -> Iterator[np.ndarray]:
    """Axes (n_rows, n_columns) on a page of `width` x `height` inches, written to `path` after."""
    figure, axes = plt.subplots(
        n_rows, n_columns, figsize=(width, height), squeeze=False, dpi=DPI,
        layout="constrained" if fitted else "none",
    )  # fmt: skip
    try:
        yield axes
        with whole(path) as stream:
            figure.savefig(stream, format="png", metadata={"Software": None})
        if (folder := _publication.get()) is not None:
            for kind, unsaid in (("png", "Software"), ("pdf", "CreationDate")):
                with whole(folder / f"{path.stem}.{kind}") as stream:
                    figure.savefig(
                        stream, format=kind, dpi=PUBLICATION_DPI, metadata={unsaid: None}
                    )
    finally:
        plt.close(figure)


def draw_map(
    ax: plt.Axes,
    values: np.ndarray,
    axes: dict[str, Any],
    *,
    signed: bool,
    limit: float | None = None,
) -> mpl.collections.QuadMesh:
    """Map of a sound (freq, time), or of a picture (row, column) with row 0 on top.

    Bands are evenly spaced and labelled by their frequency in Hz. A signed map has a symmetric
    colour scale at `limit` (default: the 99 % quantile of its size), so white is zero.
    """
    columns: np.ndarray
    rows: np.ndarray
    if is_picture(axes):
        columns, rows = np.arange(values.shape[1] + 1) - 0.5, np.arange(values.shape[0] + 1) - 0.5
        colours, low, high, shown = GREY_MAP, axes["scale"]["min"], axes["scale"]["max"], values
    else:
        times_s, scale = np.array(axes["times_s"]), axes["scale"]
        step_s = times_s[1] - times_s[0]
        columns = np.append(times_s, times_s[-1] + step_s) - step_s / 2
        rows = np.arange(len(axes["frequencies_hz"]) + 1) - 0.5
        colours, low, high = POWER_MAP, -scale["range_db"], 0
        shown = values * scale["range_db"] - scale["range_db"]
    if signed:
        limit = limit if limit is not None else float(np.quantile(np.abs(values), 0.99)) or 1.0
        colours, low, high, shown = SIGNED_MAP, -limit, limit, values
    mesh = ax.pcolormesh(columns, rows, shown, cmap=colours, vmin=low, vmax=high, rasterized=True)
    if is_picture(axes):
        ax.invert_yaxis()
        ax.set_aspect("equal")
    else:
        _label_bands(ax, np.array(axes["frequencies_hz"]))
    return mesh


def outline(ax: plt.Axes, mask: np.ndarray, axes: dict[str, Any]) -> None:
    """Edge of a truth mask (freq, time) on what `draw_map` drew of a sound."""
    rows = np.arange(len(axes["frequencies_hz"]))
    ax.contour(axes["times_s"], rows, mask, levels=[0.5], colors="#00a86b", linewidths=0.7)


def is_picture(axes: dict[str, Any]) -> bool:
    """Whether axes.json describes a picture rather than a sound."""
    return "rows" in axes


def _label_bands(ax: plt.Axes, frequencies_hz: np.ndarray) -> None:
    ticks_hz = TICKS_HZ[(frequencies_hz[0] <= TICKS_HZ) & (frequencies_hz[-1] >= TICKS_HZ)]
    at = np.interp(ticks_hz, frequencies_hz, np.arange(len(frequencies_hz)))
    shown = np.diff(at, prepend=-np.inf) > MIN_TICK_GAP * len(frequencies_hz)
    ax.set_yticks(at[shown], [str(tick) for tick in ticks_hz[shown]])


def attribution_grid(grid: Grid, path: Path) -> None:
    """Input and signed maps of every item; the truth is outlined where there is one.

    Many maps of an item go on in a second line.
    """
    n_items, labels = len(grid.inputs), list(grid.maps)
    n_lines = -(-len(labels) // MAPS_PER_LINE)
    n_columns = -(-len(labels) // n_lines) + 1
    n_rows = n_items * n_lines
    if is_picture(grid.axes):
        x_label, y_label, level = "column (pixels)", "row (pixels)", grid.axes["scale"]["unit"]
    else:
        x_label, y_label = "time (s)", "frequency (Hz)"
        level = f"level (dB re {REFERENCES[grid.axes.get('reference', 'clip_max')]})"
    # Sizes in inches: to fit a layout to some hundred axes takes longer than to draw them.
    left, right, top, bottom, gap = 1.55, 0.95, 0.4, 0.5, 0.08
    panel = 1.4 if is_picture(grid.axes) else 1.9
    between = 0.25 if n_lines == 1 else 0.4  # every line needs its names where there are several
    width = left + n_columns * (panel + gap) - gap + right
    height = top + n_rows * (1.4 + between) - between + bottom
    with sheet(path, n_rows, n_columns, width, height, fitted=False) as axes:
        figure = axes[0, 0].figure
        figure.subplots_adjust(
            left=left / width, right=1 - right / width, top=1 - top / height,
            bottom=bottom / height, wspace=gap / panel, hspace=between / 1.4,
        )  # fmt: skip
        for item in range(n_items):
            own = axes[item * n_lines : (item + 1) * n_lines]
            mesh = draw_map(own[0, 0], grid.inputs[item], grid.axes, signed=False)
            own[0, 0].set_ylabel(y_label, fontsize=8)
            own[0, 0].tick_params(labelsize=7)
            own[0, 0].set_title(grid.titles[item], fontsize=8)
            places = list(own[:, 1:].flat)
            for ax, label in zip(places, labels, strict=False):
                values = grid.maps[label][item]
                limit = float(np.quantile(np.abs(values), 0.99)) or 1.0
                signed = draw_map(ax, values / limit, grid.axes, signed=True, limit=1.0)
                if item == 0 or n_lines > 1:
                    ax.set_title(label.replace("_", " "), fontsize=8)
                ax.set_yticks([])
            if grid.masks is not None:
                for ax in [own[0, 0], *places[: len(labels)]]:
                    outline(ax, grid.masks[item], grid.axes)
            for ax in [*own[1:, 0], *places[len(labels) :]]:
                ax.set_visible(False)
        lowest = [next(ax for ax in column[::-1] if ax.get_visible()) for column in axes.T]
        for ax in axes.flat:
            if ax in lowest:
                ax.set_xlabel(x_label, fontsize=8)
                ax.tick_params(axis="x", labelsize=7)
            else:
                ax.set_xticks([])
        bar = min(height - top - bottom, 3.5) / height
        at = (bottom + (height - top - bottom) / 2) / height - bar / 2
        level_bar = figure.add_axes((0.55 / width, at, 0.14 / width, bar))
        map_bar = figure.add_axes((1 - 0.8 / width, at, 0.14 / width, bar))
        figure.colorbar(mesh, cax=level_bar, ticklocation="left", label=level)
        figure.colorbar(signed, cax=map_bar, label="attribution / its 99 % quantile")
        for bar_axes in (level_bar, map_bar):
            bar_axes.tick_params(labelsize=7)
            bar_axes.yaxis.label.set_size(8)


def training_curves(history: pd.DataFrame, path: Path) -> None:
    """Loss and validation accuracy by epoch, a line per model; one column per cell."""
    cells = sorted(history["cell"].unique())
    styles = {"trained": "-", "permuted": ":"}
    with sheet(path, 2, len(cells), 4.6 * len(cells) + 1, 5.2) as axes:
        for column, cell in enumerate(cells):
            keys = ["protocol", "variant", "fold", "model_seed"]
            for index, ((protocol, variant, fold, seed), table) in enumerate(
                history.query("cell == @cell").groupby(keys)
            ):
                colour, style = f"C{index % 10}", styles.get(str(variant), "--")
                label = f"{protocol}, {variant}, fold {fold}, seed {seed}"
                axes[0, column].plot(
                    table["epoch"], table["val_loss"], style, color=colour, label=label
                )
                axes[1, column].plot(table["epoch"], table["val_accuracy"], style, color=colour)
            axes[0, column].set(title=cell, ylabel="validation loss (nats)")
            axes[1, column].set(xlabel="epoch", ylabel="validation accuracy", ylim=(0, 1.02))
        axes[0, -1].legend(fontsize=7, loc="upper right")


def confusion_matrix(counts: np.ndarray, classes: list[str], path: Path) -> None:
    """Share of each true class by predicted class, from counts (true, predicted)."""
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    size = 0.45 * len(classes) + 2
    with sheet(path, 1, 1, size + 0.6, size) as axes:
        ax = axes[0, 0]
        image = ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        ax.set_xticks(range(len(classes)), classes)
        ax.set_yticks(range(len(classes)), classes)
        ax.set(xlabel="predicted", ylabel="true", title=f"n = {int(counts.sum())} items")
        for row, column in np.argwhere(counts > 0):
            colour = "white" if shares[row, column] > 0.5 else "black"
            ax.text(
                column,
                row,
                int(counts[row, column]),
                ha="center",
                va="center",
                fontsize=7,
                color=colour,
            )
        ax.figure.colorbar(image, ax=ax, label="share of the true class")


def score_table(table: pd.DataFrame, directions: Mapping[str, str], path: Path) -> None:
    """Mean and interval of every metric by method, a panel per metric."""
    shown = table.query("variant == 'trained'")
    metrics = sorted(shown["metric"].unique())
    n_columns = min(3, len(metrics))
    n_rows = -(-len(metrics) // n_columns)
    arrows = {"higher": "higher is better", "lower": "lower is better"}
    with sheet(path, n_rows, n_columns, 4.2 * n_columns, 2.4 * n_rows) as axes:
        for ax, metric in zip(axes.flat, metrics, strict=False):
            rows = shown[shown["metric"] == metric].reset_index(drop=True)
            names = [
                method_label(row.method, row.baseline).replace("_", " ")
                for row in rows.itertuples()
            ]
            low, high = rows["value"] - rows["ci_low"], rows["ci_high"] - rows["value"]
            ax.errorbar(
                rows["value"],
                range(len(rows)),
                xerr=np.clip([low, high], 0, None),
                fmt="o",
                ms=4,
                capsize=2,
            )
            ax.set_yticks(range(len(rows)), names, fontsize=7)
            ax.invert_yaxis()
            ax.set_title(
                f"{metric.replace('_', ' ')} ({arrows.get(directions[metric], 'no direction')})",
                fontsize=8,
            )
            ax.grid(axis="x", alpha=0.3)
        for ax in axes.flat[len(metrics) :]:
            ax.set_visible(False)
