"""The one place that trains: Lightning, with randomness by (seed, epoch, item) and exact resume."""

from __future__ import annotations

import io
import json
import logging
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sonolens import parallel, rng
from sonolens.params import Runtime
from sonolens.pipeline import owned
from sonolens.store import whole

HISTORY = "history.jsonl"
EpochCallback = Callable[[dict[str, float]], None]


@dataclass(frozen=True)
class Augment:
    """Changes of training spectrograms (batch, channel, freq, time) on a scale whose silence is 0.

    time_shift, freq_shift    largest shift, share of the axis; the gap is filled with silence
    time_mask, freq_mask      longest masked stretch, share of the axis (SpecAugment, Park et al.
                              2019, without warping)
    """

    time_shift: float = 0.0
    freq_shift: float = 0.0
    time_mask: float = 0.0
    freq_mask: float = 0.0

    def __call__(self, inputs: Tensor, draws: np.ndarray) -> Tensor:
        """`draws` uniform in [0, 1), shape=(batch, 6)."""
        for axis, shift, mask, first in (
            (2, self.freq_shift, self.freq_mask, 0),
            (3, self.time_shift, self.time_mask, 3),
        ):
            n_cells = inputs.shape[axis]
            draw = torch.from_numpy(draws[:, first : first + 3]).to(inputs.device)
            cells = torch.arange(n_cells, device=inputs.device)
            view = (-1, 1, n_cells, 1) if axis == 2 else (-1, 1, 1, n_cells)
            if shift:
                step = ((2 * draw[:, 0] - 1) * shift * n_cells).round().long()
                origin = cells - step[:, None]
                inside = ((origin >= 0) & (origin < n_cells)).view(view)
                index = origin.clamp(0, n_cells - 1).view(view).expand(inputs.shape)
                inputs = inputs.gather(axis, index) * inside
            if mask:
                length = (draw[:, 1] * mask * n_cells).round()
                start = (draw[:, 2] * (n_cells - length)).floor()
                hidden = (cells >= start[:, None]) & (cells < (start + length)[:, None])
                inputs = inputs * ~hidden.view(view)
        return inputs


@dataclass(frozen=True)
class FitConfig:
    """Sizes, rates and augmentation of a training."""

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    patience: int
    schedule: str = "one_cycle"
    augment: Augment = Augment()


@dataclass(frozen=True)
class Fitted:
    """Best weights by validation loss, and one row per epoch.

    A row holds epoch, train_loss, val_loss and val_accuracy.
    """

    state: dict[str, Tensor]
    history: list[dict[str, float]]
    best_epoch: int


@dataclass(frozen=True)
class Part:
    """Items of one part of a fold: inputs (n, channel, freq, time), labels (n,), ids (n,)."""

    inputs: Tensor
    labels: Tensor
    ids: tuple[str, ...]


class _Batches:
    """Batches of one epoch; their order and augmentation are functions of (seed, epoch, item)."""

    def __init__(self, part: Part, config: FitConfig, seed: int, epoch: int | None) -> None:
        self.part, self.config, self.seed, self.epoch = part, config, seed, epoch

    def __len__(self) -> int:
        n_items, size = len(self.part.labels), self.config.batch_size
        # BatchNorm cannot train on a batch of one.
        return n_items // size + (
            n_items % size > 1 or (self.epoch is None and n_items % size == 1)
        )

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        n_items, size, epoch = len(self.part.labels), self.config.batch_size, self.epoch
        order = np.arange(n_items)
        if epoch is not None:
            order = rng.numpy_generator(self.seed, "order", epoch).permutation(n_items)
        for start in range(0, len(self) * size, size):
            rows = order[start : start + size]
            inputs, labels = self.part.inputs[rows], self.part.labels[rows]
            if epoch is not None:
                draws = [
                    rng.numpy_generator(self.seed, "augment", epoch, self.part.ids[row]).random(6)
                    for row in rows
                ]
                inputs = self.config.augment(inputs, np.array(draws))
            yield inputs, labels


def fit(
    model: nn.Module,
    train: Part,
    val: Part,
    config: FitConfig,
    *,
    seed: int,
    folder: Path,
    device: torch.device,
    on_epoch: EpochCallback = lambda row: None,
    progress: bool = False,
) -> Fitted:
    """Train a classifier with cross-entropy, AdamW and a one-cycle or constant rate.

    Training stops early; the best epoch is kept.

    Parameters
    ----------
    model
        Maps inputs (batch, channel, freq, time) to logits (batch, n_classes); changed in place.
    train, val
        The parts; validation decides which epoch is kept.
    config
        Sizes and rates.
    seed
        Root of order, augmentation and dropout.
    folder
        Where the state of the last full epoch lies. A state found there is resumed and gives the
        same final weights as an undisturbed run.
    device
        CPU or CUDA.
    on_epoch
        Called with one row per epoch, on resume first with the rows of earlier epochs.
    progress
        Show Lightning's bar.

    Raises
    ------
    ValueError
        An empty part, or a loss that is not finite.
    """
    import lightning.pytorch as pl
    from lightning.pytorch.callbacks import EarlyStopping

    for name, part in (("training", train), ("validation", val)):
        if len(part.labels) < 2:
            raise ValueError(f"fit: {len(part.labels)} {name} items, need at least 2")

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = model
            self.history: list[dict[str, float]] = []
            self.best: dict[str, Tensor] = {}
            self.best_epoch = -1
            self.losses: list[Tensor] = []
            self.seen: list[tuple[Tensor, Tensor]] = []

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.AdamW(
                self.net.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
            )
            if config.schedule == "constant":
                return optimizer
            n_steps = config.epochs * len(_Batches(train, config, seed, 0))
            scheduler = torch.optim.lr_scheduler.OneCycleLR(
                optimizer, config.learning_rate, total_steps=n_steps
            )
            return {
                "optimizer": optimizer,
                "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
            }

        def train_dataloader(self) -> _Batches:
            return _Batches(train, config, seed, self.current_epoch)

        def val_dataloader(self) -> _Batches:
            return _Batches(val, config, seed, None)

        def on_train_epoch_start(self) -> None:
            torch.manual_seed(
                rng.seed_for(seed, "dropout", self.current_epoch)
            )  # inside rng.forked
            self.losses = []

        def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
            loss = functional.cross_entropy(self.net(batch[0]), batch[1])
            self.losses.append(loss.detach())
            return loss

        def on_validation_epoch_start(self) -> None:
            self.seen = []

        def validation_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> None:
            self.seen.append((self.net(batch[0]), batch[1]))

        def on_validation_epoch_end(self) -> None:
            logits, labels = (torch.cat(column) for column in zip(*self.seen, strict=True))
            row = {
                "epoch": self.current_epoch,
                "train_loss": float(torch.stack(self.losses).mean()),
                "val_loss": float(functional.cross_entropy(logits, labels)),
                "val_accuracy": float((logits.argmax(1) == labels).float().mean()),
            }
            if not np.isfinite([row["train_loss"], row["val_loss"]]).all():
                raise ValueError(
                    f"fit: loss is not finite in epoch {self.current_epoch} "
                    f"(train {row['train_loss']}, validation {row['val_loss']}); "
                    f"lower the learning rate (now {config.learning_rate})"
                )
            if not self.history or row["val_loss"] < min(old["val_loss"] for old in self.history):
                self.best = {
                    name: value.detach().cpu().clone()
                    for name, value in self.net.state_dict().items()
                }
                self.best_epoch = self.current_epoch
            self.history.append(row)
            self.log("val_loss", row["val_loss"])
            on_epoch(row)

        def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            checkpoint["sonolens"] = {
                "history": self.history,
                "best": self.best,
                "best_epoch": self.best_epoch,
            }

        def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            for name, value in checkpoint["sonolens"].items():
                setattr(self, name, value)
            for row in self.history:
                on_epoch(row)

    class SaveEpoch(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
            part = folder / f"last.{os.getpid()}.part"
            trainer.save_checkpoint(part)
            os.replace(part, folder / "last.ckpt")

    folder.mkdir(parents=True, exist_ok=True)
    last = folder / "last.ckpt"
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with warnings.catch_warnings(), rng.forked(seed, "fit"):
        # Tensors in memory need no loader workers, and the loader's length is what we say.
        warnings.filterwarnings("ignore", module="lightning")
        module = Module()
        trainer = pl.Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1,
            max_epochs=config.epochs,
            reload_dataloaders_every_n_epochs=1,
            callbacks=[
                EarlyStopping("val_loss", patience=config.patience, check_on_train_epoch_end=False),
                SaveEpoch(),
            ],
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=progress,
            num_sanity_val_steps=0,
            deterministic=device.type == "cpu",
            default_root_dir=folder,
        )
        try:
            trainer.fit(module, ckpt_path=last if last.exists() else None, weights_only=True)
        except SystemExit as end:  # Lightning makes it of an interrupt
            if isinstance(end.__context__, KeyboardInterrupt):
                raise end.__context__ from None
            raise
    return Fitted(module.best, module.history, module.best_epoch)


@dataclass(frozen=True)
class Prepared:
    """One training, ready to start."""

    model: nn.Module
    train: Part
    val: Part
    config: FitConfig
    seed: int


def fit_jobs(
    prepare: Callable[[str], Prepared],
    names: Sequence[str],
    *,
    folder: Path,
    runtime: Runtime,
    device: Callable[[str], torch.device],
    on_epoch: Callable[[str, dict[str, float]], None],
) -> dict[str, Fitted]:
    """Several trainings under the engine of `runtime`.

    Finished ones found in `folder` are taken as they are.

    Parameters
    ----------
    prepare
        Makes the training of a name; runs in the worker, so it must be picklable.
    names
        What to train.
    folder
        State and results by name; the caller removes it when the outputs are written.
    on_epoch
        Called in this process with (name, row) once per epoch, while the workers train.

    A second process that trains the same waits until the first has ended.
    """
    with owned(folder), _Follower(folder, names, on_epoch):
        job = partial(_fit_job, prepare, folder, runtime.device, device)
        paths = list(parallel.run(job, names, runtime))
        return {name: _load_fitted(path) for name, path in zip(names, paths, strict=True)}


def _fit_job(
    prepare: Callable[[str], Prepared],
    folder: Path,
    kind: str,
    device: Callable[[str], torch.device],
    name: str,
) -> Path:
    path = folder / name / "fitted.pt"
    if path.exists():
        return path
    (folder / name).mkdir(exist_ok=True)
    job = prepare(name)
    with (folder / name / HISTORY).open("w", encoding="utf-8") as stream:

        def note(row: dict[str, float]) -> None:
            stream.write(json.dumps(row) + "\n")
            stream.flush()

        fitted = fit(
            job.model, job.train, job.val, job.config,
            seed=job.seed, folder=folder / name, device=device(kind), on_epoch=note,
        )  # fmt: skip
    buffer = io.BytesIO()
    torch.save(
        {"state": fitted.state, "history": fitted.history, "best_epoch": fitted.best_epoch}, buffer
    )
    with whole(path) as result:
        result.write(buffer.getvalue())
    return path


def _load_fitted(path: Path) -> Fitted:
    return Fitted(**torch.load(path, weights_only=True, map_location="cpu"))


class _Follower:
    """Reads the histories that workers write, and reports each epoch once."""

    def __init__(
        self, folder: Path, names: Sequence[str], on_epoch: Callable[[str, dict[str, float]], None]
    ) -> None:
        self.folder, self.names, self.on_epoch = folder, names, on_epoch
        self.seen: set[tuple[str, float]] = set()
        self.done = threading.Event()
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._loop, daemon=True)

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.done.set()
        self.thread.join()
        if kind is None:
            if self.error is not None:
                raise self.error
            self._read()

    def _loop(self) -> None:
        while not self.done.wait(0.5):
            try:
                self._read()
            except Exception as error:
                self.error = error
                return

    def _read(self) -> None:
        for name in self.names:
            path = self.folder / name / HISTORY
            lines = (
                path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
            )
            for line in lines:
                if not line.endswith("\n"):
                    continue  # still being written
                row = json.loads(line)
                if (name, row["epoch"]) not in self.seen:
                    self.seen.add((name, row["epoch"]))
                    self.on_epoch(name, row)
