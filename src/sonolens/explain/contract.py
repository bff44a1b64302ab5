"""What every attribution method takes and returns, and what a study offers to the engine.

Tensors are (batch, *shape); a target picks one scalar per output row, so a class logit, one bin of
a mask and the energy of a band are the same thing to a method.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from sonolens.store import ArrayStore

NO_BASELINE = "none"  # in the columns `baseline` and `fill`

Target = Callable[[Tensor, Tensor], Tensor]
"""target(outputs, rows) -> (len(rows),); `rows` int64: which item each output row belongs to."""


@dataclass(frozen=True)
class Attribution:
    """Signed map of one batch.

    values              shape=(batch, *map shape), float; the map may live on other axes than the
                        input: see `axes`
    axes                names of the map's axes after the batch, e.g. ("freq", "time"); None: the
                        input's own
    completeness_error  shape=(batch,), |sum(values) - (F(x) - F(b))| / |F(x) - F(b)|; NaN where
                        undefined
    n_evaluations       forward or forward-and-backward passes per item
    """

    values: Tensor
    axes: tuple[str, ...] | None = None
    completeness_error: Tensor | None = None
    n_evaluations: int = 1


class Method(Protocol):
    """Signature of every attribution method.

    inputs      (batch, *shape)
    target      see `Target`
    baseline    (1 or batch, K, *shape), or None for methods registered without `baseline`
    item_seeds  int64 (batch,): all randomness of item i is a function of item_seeds[i]
    segments    integer labels of groups of input cells, (*shape) or (batch, *shape); None: every
                cell alone
    """

    def __call__(
        self,
        model: nn.Module,
        inputs: Tensor,
        target: Target,
        *,
        baseline: Tensor | None,
        item_seeds: Tensor,
        segments: Tensor | None = None,
        **options: Any,
    ) -> Attribution: ...


@dataclass(frozen=True)
class Block:
    """Maps of the output bins in some frames of a mask, for one item.

    values      shape=(f_out, frames in the block, f_in, t_in), signed
    t_out       output frames of the block
    residual    shape=(f_out, frames in the block), float64: target(x) - target(baseline) - sum of
                the map; NaN without a baseline
    """

    values: Tensor
    t_out: range
    residual: Tensor


class Relator(Protocol):
    """Signature of a method for all bins of a mask at once; see `registry.relate`.

    inputs      (1, *shape), one item
    baseline    (1, K, *shape), or None for methods registered without `baseline`
    block       output frames per Block; the values do not depend on it
    item_seeds  int64 (1,); None: 0
    """

    def __call__(
        self,
        model: nn.Module,
        inputs: Tensor,
        *,
        baseline: Tensor | None,
        block: int,
        item_seeds: Tensor | None = None,
        **options: Any,
    ) -> Iterator[Block]: ...


@dataclass(frozen=True)
class CellKey:
    """Which trained (or control) model is looked at."""

    cell: str
    protocol: str
    fold: int
    model_seed: int
    variant: str = "trained"

    def as_row(self) -> dict[str, Any]:
        """Columns that name the model in index.parquet and scores.parquet."""
        return {
            "cell": self.cell,
            "protocol": self.protocol,
            "fold": self.fold,
            "model_seed": self.model_seed,
            "variant": self.variant,
        }

    @property
    def name(self) -> str:
        """One word for file names and messages."""
        return f"{self.cell}_{self.protocol}_fold{self.fold}_seed{self.model_seed}_{self.variant}"


@dataclass(frozen=True)
class Items:
    """The items of one part of one fold, in the order of their ids."""

    ids: tuple[str, ...]
    person_ids: tuple[str, ...]
    class_index: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, rows: Sequence[int]) -> Items:
        """Items at `rows`, in that order."""
        columns = (self.ids, self.person_ids, self.class_index)
        ids, persons, classes = (tuple(column[row] for row in rows) for column in columns)
        return Items(ids, persons, classes)  # type: ignore[arg-type]

    def named(self, ids: Sequence[str]) -> Items:
        """Items called `ids`, in that order. Raises ExplainError that names an unknown one."""
        row_of = {item_id: row for row, item_id in enumerate(self.ids)}
        unknown = [item_id for item_id in ids if item_id not in row_of]
        if unknown:
            raise ExplainError(
                f"no item {unknown[0]!r} among {len(self)}; run the explain stage anew"
            )
        return self.select([row_of[item_id] for item_id in ids])


class Explainable(Protocol):
    """How a study presents itself to the engine; picklable, closures are built inside the worker.

    A model may offer `gradcam_layer`, the module whose output Grad-CAM reads. What an adapter
    returns for an item must not depend on the other items asked for: the engine asks in chunks.
    """

    @property
    def study(self) -> str:
        """Name of the study; the column `study` of its scores."""
        ...

    def load(self, key: CellKey) -> nn.Module:
        """Model of `key` in eval mode, parameters frozen."""

    def items(self, key: CellKey, part: str) -> Items:
        """Every item of `part` of the split of `key`."""
        ...

    def inputs(self, key: CellKey, items: Items) -> Tensor:
        """(batch, *shape) on the scale the model reads, on the CPU."""

    def targets(
        self, key: CellKey, items: Items, model: nn.Module, inputs: Tensor
    ) -> dict[str, Target]:
        """Named targets of `items`, e.g. {"predicted": …}; row i of a target is items.ids[i].

        `model` and `inputs` are on the device of the computation.
        """

    def baseline(
        self, key: CellKey, kind: str, items: Items, inputs: Tensor, n_draws: int
    ) -> Tensor:
        """(1 or batch, K, *shape), on the CPU; see sonolens.explain.baselines.make."""

    def truth_masks(self, key: CellKey, items: Items) -> dict[str, Tensor]:
        """Boolean masks (batch, *shape) of what caused the label, by name.

        {} for a key without truth, whatever the items; metrics that need masks then skip the key.
        """

    def edit(self, key: CellKey, inputs: Tensor, mask: Tensor, fill: Tensor) -> Tensor:
        """Replace the cells of `inputs` under `mask` (0 to 1) by `fill`."""

    def listen(self, key: CellKey, item_id: str, mask: Tensor) -> np.ndarray | None:
        """Waveform (time,) with only the cells of `mask` (freq, time); None without a way back."""

    def analyse(self, key: CellKey, waveforms: np.ndarray) -> Tensor:
        """Waveforms (n, time) such as `listen` returns to inputs (n, *shape), as `inputs` makes.

        Never called where `listen` returns None.
        """

    def n_classes(self, key: CellKey) -> int | None:
        """Number of logits of the model; None where its outputs are no class logits."""

    def axes(self, key: CellKey) -> dict[str, Any]:
        """Physical axes of the input: frequencies_hz, times_s, scale …; see ArrayStore's axes.json.

        `scale` with `min` (silence), `max` and `range_db` is what baselines, fills and noise are
        measured in.
        """

    def code_modules(self) -> tuple[str, ...]:
        """Modules whose sources decide what this adapter yields; part of every shard's key."""

    def data_key(self, key: CellKey) -> str:
        """Digest of the data and checkpoint that stand behind `key`."""


class ExplainError(ValueError):
    """A model, target or baseline does not fit a method; the message says why."""


@contextmanager
def frozen(model: nn.Module) -> Iterator[nn.Module]:
    """Model in eval mode with frozen parameters inside the block; all as before after it."""
    # a walk over the modules for every call of the model adds up: change what is to be changed
    training = [module for module in model.modules() if module.training]
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if training:
        model.eval()
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield model
    finally:
        for module in training:
            module.training = True
        for parameter in trainable:
            parameter.requires_grad_(True)


def all_rows(inputs: Tensor) -> Tensor:
    """Row numbers when every output row is an item of its own."""
    return torch.arange(len(inputs), device=inputs.device)


def evaluate(
    model: nn.Module, inputs: Tensor, target: Target, rows: Tensor | None = None
) -> Tensor:
    """Target values (batch,) without gradient."""
    with torch.no_grad(), frozen(model):
        return target(model(inputs), all_rows(inputs) if rows is None else rows)


def gradient(
    model: nn.Module, inputs: Tensor, target: Target, rows: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """(d target / d inputs, target values): shapes (batch, *shape) and (batch,).

    Exact because rows do not mix in eval mode, so the sum over the batch has the items' own
    gradients.
    """
    inputs = inputs.detach().clone().requires_grad_()
    # cuDNN has no backward pass of a recurrent layer in eval mode; PyTorch's own kernels have.
    recurrent = inputs.is_cuda and any(isinstance(one, nn.RNNBase) for one in model.modules())
    cudnn = torch.backends.cudnn.flags(enabled=False) if recurrent else nullcontext()
    with torch.enable_grad(), frozen(model), cudnn:
        values = target(model(inputs), all_rows(inputs) if rows is None else rows)
        (grad,) = torch.autograd.grad(values.sum(), inputs)
    return grad.detach(), values.detach()


@dataclass(frozen=True)
class MethodInfo:
    """Registry row of a method: where it lives and what it needs.

    hooks        changes the backward pass of activation modules, see sonolens.explain.checks
    all_targets  its module has `relate`, a Relator of its own
    control      reads nothing of the model
    same_axes    maps live on the axes of the input
    baselines    kinds that belong to the method; empty: those the user names
    n_baseline_draws   K of a baseline that draws, unless the user sets it; None: the engine's
    options      every option a user may set, with its default; `segmentation` is a kind of
                 `explain.segments` and reaches the method as `segments`
    fixed        options that make this row differ from another of the same module
    """

    name: str
    module: str
    needs_baseline: bool = False
    hooks: bool = False
    all_targets: bool = False
    control: bool = False
    same_axes: bool = True
    baselines: tuple[str, ...] = ()
    n_baseline_draws: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    fixed: dict[str, Any] = field(default_factory=dict)

    def load(self) -> Method:
        """Import the method."""
        import importlib

        method: Method = importlib.import_module(self.module).attribute
        return method


def require_baseline(baseline: Tensor | None, inputs: Tensor, method: str) -> Tensor:
    """`baseline` with a row per item, (batch, K, *shape), as precise and where the inputs are.

    Raises
    ------
    ExplainError
        No baseline, or one whose shape does not fit.
    """
    if baseline is None:
        raise ExplainError(
            f"{method}: no baseline; zero is not silence on every scale, so name one "
            "(see sonolens.explain.baselines)"
        )
    shape = tuple(baseline.shape)
    fits = (
        shape[2:] == tuple(inputs.shape[1:])
        and shape[0] in (1, len(inputs))
        and baseline[0].numel()
    )
    if not fits:
        raise ExplainError(
            f"{method}: baseline {shape}, need (1 or {len(inputs)}, K, *{tuple(inputs.shape[1:])})"
        )
    return baseline.to(inputs).expand(len(inputs), *shape[1:])


def per_item(numbers: Tensor, like: Tensor) -> Tensor:
    """Numbers (batch,) with axes of size 1, so that they multiply `like` (batch, *shape)."""
    return numbers.view(-1, *[1] * (like.ndim - 1))


def value_range(inputs: Tensor) -> Tensor:
    """Maximum minus minimum of every item, (batch, *[1 per axis])."""
    flat = inputs.flatten(1)
    return per_item(flat.amax(1) - flat.amin(1), inputs)


def even_chunks(n: int, chunk_size: int) -> Sequence[Tensor]:
    """Row numbers 0 to n - 1 in the fewest chunks of at most `chunk_size`, of about equal size."""
    return torch.arange(n).tensor_split(-(-n // chunk_size))


def normal_draws(generator: torch.Generator, n: int, like: Tensor) -> Tensor:
    """N(0, 1) numbers (n, *like's shape), as precise and where `like` is.

    Drawn one by one and in float64, so that they depend neither on chunks nor on the precision.
    """
    draws = [torch.randn(like.shape, generator=generator, dtype=torch.float64) for _ in range(n)]
    return torch.stack(draws).to(like)


def target_change(
    model: nn.Module, inputs: Tensor, baseline: Tensor | None, target: Target, chunk_size: int
) -> Tensor:
    """F(x) - mean_k F(b_k), shape (batch,), float64, `chunk_size` inputs per call of the model.

    A baseline that all items share is evaluated once.
    """
    starts = require_baseline(baseline, inputs, "target_change")
    n_items, n_draws = starts.shape[:2]
    items = torch.arange(n_items, device=inputs.device)
    total = torch.zeros(n_items, dtype=torch.float64, device=inputs.device)
    with torch.no_grad(), frozen(model):
        for rows in even_chunks(n_items, chunk_size):
            total[rows] += target(model(inputs[rows]), items[rows]).double()
        if n_items == 1 or starts.stride(0) == 0:
            for draws in even_chunks(n_draws, chunk_size):
                for output in model(starts[0, draws]):
                    total -= target(output.expand(n_items, *output.shape), items).double() / n_draws
        else:
            for pairs in even_chunks(n_items * n_draws, chunk_size):
                rows = pairs.to(inputs.device) // n_draws
                values = target(model(starts.flatten(0, 1)[pairs]), rows).double()
                total.index_add_(0, rows, values, alpha=-1 / n_draws)
    return total


def completeness_error(values: Tensor, change: Tensor) -> Tensor:
    """|sum(map) - change| / |change| per item, float64; NaN where nothing changes.

    Parameters
    ----------
    values, shape=(batch, *shape)
        Maps.
    change, shape=(batch,)
        F(x) - F(b), see `target_change`.
    """
    change = change.double()
    missing = (values.double().flatten(1).sum(1) - change).abs()
    return torch.where(change != 0, missing / change.abs(), torch.nan)


def grouped(values: Tensor, segments: Tensor | None) -> Tensor:
    """Map whose cells carry the mean of their segment; the sum over the map stays the same.

    Parameters
    ----------
    values, shape=(batch, *shape)
        Map with one value per cell.
    segments, shape=(*shape) or (batch, *shape)
        Labels from 0; None: every cell alone.

    Raises
    ------
    ExplainError
        Segments of another shape, or that are no labels.
    """
    if segments is None:
        return values
    labels = labels_of(segments, values).flatten(1)
    zeros = values.new_zeros(len(values), int(labels.max()) + 1)
    sums = zeros.scatter_add(1, labels, values.flatten(1))
    sizes = zeros.scatter_add(1, labels, torch.ones_like(values).flatten(1))
    return (sums / sizes.clamp_min(1)).gather(1, labels).view_as(values)


def labels_of(segments: Tensor, cells: Tensor) -> Tensor:
    """`segments` with a row per item, shaped (batch, *shape) and placed like `cells`, int64.

    Raises
    ------
    ExplainError
        Segments of another shape, or that are no labels.
    """
    shape = tuple(cells.shape)
    if tuple(segments.shape) not in (shape, (1, *shape[1:]), shape[1:]):
        raise ExplainError(
            f"segments {tuple(segments.shape)}, need {shape[1:]} or {shape}: a label for each cell"
        )
    if segments.is_floating_point() or segments.is_complex() or int(segments.min()) < 0:
        raise ExplainError(
            f"segments: found {segments.dtype} from {segments.min().item()}; need integer labels "
            "from 0"
        )
    return segments.to(cells.device, torch.int64).expand(shape)


def seed_array(seeds: Sequence[int]) -> Tensor:
    """Item seeds as the int64 tensor the contract asks for."""
    return torch.from_numpy(np.asarray(seeds, dtype=np.int64))


def map_of(store: ArrayStore, row: int) -> np.ndarray:
    """Map of index row `row` in its own shape, whether the store is flat or not."""
    if not store.ragged:
        return store[row]
    shape = store.index["shape"].iloc[row]
    return store[row].reshape([int(size) for size in shape.split("x")])
