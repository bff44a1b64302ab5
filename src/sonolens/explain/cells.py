"""Explain many items of many models with many methods: a few lines in a stage, the work here.

Every (model, method, baseline) is cut into blocks of `chunk_size` items, each block is one job and
one shard, and the blocks are merged in a fixed order, so the bytes do not depend on the engine, on
the number of workers or on where an earlier run was broken off.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sonolens import parallel, rng
from sonolens.explain import baselines as baseline_kinds
from sonolens.explain import checks, registry, segments
from sonolens.explain.contract import (
    NO_BASELINE,
    CellKey,
    Explainable,
    ExplainError,
    Items,
    MethodInfo,
    frozen,
    seed_array,
)
from sonolens.explain.options import all_options, check_options
from sonolens.explain.prepare import prepared
from sonolens.explain.shards import Shards
from sonolens.params import Runtime
from sonolens.sources import code_key, content_key
from sonolens.store import batches, write_store

ENGINE_OPTIONS = {"chunk_size": 32, "n_baseline_draws": 8}


@dataclass(frozen=True)
class CellRun:
    """What a run did: all blocks, those taken from shards, and evaluations of the others."""

    n_blocks: int
    n_reused: int
    n_evaluations: int


@dataclass(frozen=True)
class _Job:
    adapter: Explainable
    key: CellKey
    part: str
    info: MethodInfo
    baseline: str
    items: Items
    options: dict[str, Any]
    seed: int
    device: str
    shards: Shards
    shard: str
    check_model: bool = False

    @property
    def group(self) -> tuple[CellKey, str, str]:
        """What all blocks of one selection share."""
        return self.key, self.info.name, self.baseline


def run_cells(
    adapter: Explainable,
    keys: Sequence[CellKey],
    *,
    methods: Sequence[str] | Mapping[str, Sequence[str]],
    baselines: Sequence[str] | Mapping[str, Sequence[str]],
    options: dict[str, Any],
    n_items: int,
    part: str,
    seed: int,
    runtime: Runtime,
    shards: Shards,
    out: Path,
) -> CellRun:
    """Write the maps of every model, method, baseline and target to one ArrayStore.

    Parameters
    ----------
    adapter
        The study.
    keys
        Models, in the order of the result.
    methods, baselines
        Names, by cell where cells differ in them; methods without a baseline run once, with
        baseline ``none``, and those that prescribe theirs with that.
    options
        Options of the methods by name (``n_steps``), of one method as ``{method: {name: value}}``,
        and of the engine: ``chunk_size`` (items per block, and evaluations per call of a method
        that steps) and ``n_baseline_draws`` (K of the baselines that draw, see `n_draws`).
    n_items
        How many items of `part` to explain, see `select_items`; all when there are fewer.
    part
        Part of the split, e.g. ``test``.
    seed
        Root of all randomness.
    runtime
        Engine and device.
    shards
        Where finished blocks are kept.
    out
        Folder of the new ArrayStore; values float32, index as in docs ("Attributions"). Maps of
        different shapes are stored flat, see `contract.map_of`. axes.json: ``cells`` (axes by
        cell), ``map_axes`` (by method, where they differ from the input's) and ``explain`` (what
        the score stage needs to explain anew).

    Raises
    ------
    ExplainError
        Unknown method, baseline or option; a baseline louder than the inputs; no item; a model
        whose activations escape the hooks of a method.
    EngineError
        CUDA is asked for and absent.
    """
    check_options(options, registry.METHODS, "explain", ExplainError, ENGINE_OPTIONS)
    infos_of = {key.cell: [registry.info(name) for name in _of(methods, key)] for key in keys}
    infos = list({info.name: info for infos in infos_of.values() for info in infos}.values())
    settings = ENGINE_OPTIONS | {name: options[name] for name in ENGINE_OPTIONS if name in options}
    per_method = {info.name: all_options(info, options) for info in infos}
    device = parallel.resolve_device(runtime.device)
    jobs: list[_Job] = []
    for key in keys:
        data = adapter.data_key(key)
        items = select_items(adapter.items(key, part), n_items, seed)
        if not len(items):
            raise ExplainError(f"{key.name}: part {part!r} has no item; need at least one")
        for info in infos_of[key.cell]:
            kinds = info.baselines or _of(baselines, key)
            for kind in kinds if info.needs_baseline else [NO_BASELINE]:
                for block in batches(len(items), settings["chunk_size"]):
                    some = items.select(block)
                    job_options = {
                        "method": per_method[info.name],
                        "engine": settings | {"n_baseline_draws": n_draws(info, options)},
                    }
                    shard = _shard_key(
                        adapter, key, part, info, kind, some, job_options, seed, device, data
                    )
                    jobs.append(
                        _Job(
                            adapter,
                            key,
                            part,
                            info,
                            kind,
                            some,
                            job_options,
                            seed,
                            device,
                            shards,
                            shard,
                        )
                    )
    axes: dict[str, Any] = {
        "cells": {key.cell: adapter.axes(key) for key in keys},
        "explain": {
            "seed": seed,
            "part": part,
            "engine": settings,
            "methods": per_method,
            "n_draws": {info.name: n_draws(info, options) for info in infos},
        },
        "map_axes": {},
    }
    ragged = _ragged(adapter, keys, part, infos)
    n_reused = n_evaluations = 0
    counts = np.zeros(2, np.int64)
    with write_store(out, axes, ragged) as writer:
        for number, (job, (result, reused)) in enumerate(
            zip(jobs, _results(jobs, runtime), strict=True)
        ):
            n_reused += reused
            n_maps = int(np.prod(result["completeness_error"].shape))
            n_evaluations += 0 if reused else int(result["n_evaluations"]) * n_maps
            counts += result["loudness"]
            if number + 1 == len(jobs) or jobs[number + 1].group != job.group:
                baseline_kinds.check_counts(int(counts[0]), int(counts[1]), job.baseline)
                counts[:] = 0
            if result["axes"].size:
                axes["map_axes"][job.info.name] = result["axes"].tolist()
            for values, rows in _rows(job, result):
                if ragged:
                    for item_values, row in zip(values, rows, strict=True):
                        shape = "x".join(map(str, item_values.shape))
                        writer.append(item_values.reshape(-1), row | {"shape": shape})
                else:
                    writer.append(values, rows)
    shards.evict()
    return CellRun(len(jobs), n_reused, n_evaluations)


def select_items(items: Items, n: int, seed: int) -> Items:
    """At most `n` items, spread over persons and classes, in the order of their ids.

    Items are taken one by one: first from the least taken (person, class) pairs, then from the
    least taken persons and classes, then by a hash of (seed, item_id). So the choice does not
    depend on the order of `items`, and the items chosen for a smaller `n` are among those for a
    larger one.
    """
    order = sorted(range(len(items)), key=lambda row: items.ids[row])
    items = items.select(order)
    if n >= len(items):
        return items
    persons = np.unique(np.array(items.person_ids), return_inverse=True)[1]
    classes = np.unique(np.array(items.class_index), return_inverse=True)[1]
    pairs = persons * (classes.max() + 1) + classes
    hashes = np.array([rng.seed_for(seed, "select_items", item_id) for item_id in items.ids])
    rank = np.argsort(np.argsort(hashes))
    taken = np.zeros(len(items), bool)
    n_person, n_class, n_pair = (
        np.zeros(int(column.max()) + 1, int) for column in (persons, classes, pairs)
    )
    for _ in range(n):
        spread = n_pair[pairs] * (2 * len(items) + 1) + n_person[persons] + n_class[classes]
        cost = spread.astype(float) * len(items) + rank
        chosen = int(np.argmin(np.where(taken, np.inf, cost)))
        taken[chosen] = True
        n_person[persons[chosen]] += 1
        n_class[classes[chosen]] += 1
        n_pair[pairs[chosen]] += 1
    return items.select(np.flatnonzero(taken).tolist())


def item_seeds(seed: int, items: Items) -> list[int]:
    """Seed of every item, a function of (seed, item_id)."""
    return [rng.seed_for(seed, item_id) for item_id in items.ids]


def n_draws(info: MethodInfo, options: dict[str, Any]) -> int:
    """K of a baseline that draws: as given, else the row's own, else the engine's."""
    default = info.n_baseline_draws or ENGINE_OPTIONS["n_baseline_draws"]
    return int(options.get("n_baseline_draws", default))


def call_options(
    info: MethodInfo, options: dict[str, Any], inputs: Tensor, axes: dict[str, Any]
) -> dict[str, Any]:
    """Keyword arguments of a call of the method: its options, fixed ones and segments.

    Parameters
    ----------
    info
        Registry row.
    options
        All options of the row, see `all_options`.
    inputs, axes
        What segments are made of; keep to the unedited inputs, so that a map keeps its axes.
    """
    chosen = options | info.fixed
    kind = chosen.pop("segmentation", None)
    return chosen if kind is None else chosen | {"segments": segments.make(kind, inputs, axes)}


@lru_cache(maxsize=None)
def code_of(modules: tuple[str, ...]) -> str:
    """Digest of the sources of `modules` and all they import, as they were when first asked for."""
    return content_key(code=code_key(*modules))


def _of(names: Sequence[str] | Mapping[str, Sequence[str]], key: CellKey) -> Sequence[str]:
    return names[key.cell] if isinstance(names, Mapping) else names


def _ragged(
    adapter: Explainable, keys: Sequence[CellKey], part: str, infos: Sequence[MethodInfo]
) -> bool:
    if not all(info.same_axes for info in infos):
        return True
    first = {key.cell: key for key in reversed(keys)}
    shapes = {
        tuple(adapter.inputs(key, adapter.items(key, part).select([0])).shape)
        for key in first.values()
    }
    return len(shapes) > 1


def _results(
    jobs: Sequence[_Job], runtime: Runtime
) -> Iterator[tuple[dict[str, np.ndarray], bool]]:
    """Yield every job's result in order, and whether it came from a shard."""
    present = [job.shards.read(job.shard) is not None for job in jobs]
    missing = list(_checked([job for job, found in zip(jobs, present, strict=True) if not found]))
    computed = parallel.run(_explain, missing, runtime) if missing else iter(())
    for job, found in zip(jobs, present, strict=True):
        if not found:
            yield next(computed), False
            continue
        result = job.shards.read(job.shard)
        # An eviction by another stage may come between the two reads.
        yield (_explain(job), False) if result is None else (result, True)


def _checked(jobs: Sequence[_Job]) -> Iterator[_Job]:
    """The same jobs; the first of each model and method with hooks checks the model."""
    seen: set[tuple[CellKey, str]] = set()
    for job in jobs:
        pair = (job.key, job.info.name)
        yield replace(job, check_model=job.info.hooks and pair not in seen)
        seen.add(pair)


def _explain(job: _Job) -> dict[str, np.ndarray]:
    """Compute one block, store its shard and return it."""
    method = job.info.load()
    device = torch.device(job.device)
    inputs = job.adapter.inputs(job.key, job.items)
    checks.require_finite(inputs, job.items.ids, "the input")
    baseline, counts = None, (0, 0)
    if job.info.needs_baseline:
        n_baseline_draws = job.options["engine"]["n_baseline_draws"]
        baseline = job.adapter.baseline(job.key, job.baseline, job.items, inputs, n_baseline_draws)
        checks.require_finite(baseline, job.items.ids, f"baseline {job.baseline}")
        counts = baseline_kinds.loudness(inputs, baseline, job.adapter.axes(job.key))
        baseline = baseline.to(device)
    inputs = inputs.to(device)
    seeds = seed_array(item_seeds(job.seed, job.items))
    with frozen(job.adapter.load(job.key).to(device)) as model:
        if job.check_model:
            checks.assert_explainable(model, inputs[:1])
        targets = job.adapter.targets(job.key, job.items, model, inputs)
        model = prepared(model, inputs[:1])
        options = call_options(job.info, job.options["method"], inputs, job.adapter.axes(job.key))
        maps = [
            method(model, inputs, target, baseline=baseline, item_seeds=seeds, **options)
            for target in targets.values()
        ]
    nothing = torch.full((len(job.items),), torch.nan)
    errors = [nothing if one.completeness_error is None else one.completeness_error for one in maps]
    result = {
        "values": torch.stack([one.values for one in maps]).float().cpu().numpy(),
        "targets": np.array(list(targets), dtype=str),
        "completeness_error": torch.stack([error.double().cpu() for error in errors]).numpy(),
        "n_evaluations": np.array(maps[0].n_evaluations),
        "loudness": np.array(counts),
        "axes": np.array(maps[0].axes or (), dtype=str),
    }
    job.shards.write(job.shard, result)
    return result


def _rows(
    job: _Job, result: dict[str, np.ndarray]
) -> Iterator[tuple[np.ndarray, list[dict[str, Any]]]]:
    for number, target in enumerate(result["targets"].tolist()):
        rows = [
            job.key.as_row()
            | {
                "method": job.info.name,
                "baseline": job.baseline,
                "target": target,
                "item_id": item_id,
                "completeness_error": float(result["completeness_error"][number, row]),
                "n_evaluations": int(result["n_evaluations"]),
            }
            for row, item_id in enumerate(job.items.ids)
        ]
        yield result["values"][number], rows


def _shard_key(
    adapter: Explainable,
    key: CellKey,
    part: str,
    info: MethodInfo,
    baseline: str,
    items: Items,
    options: dict[str, Any],
    seed: int,
    device: str,
    data: str,
) -> str:
    return content_key(
        kind="explain",
        code=code_of((info.module, __name__, *adapter.code_modules())),
        torch=torch.__version__,
        data=data,
        model=key.as_row(),
        part=part,
        method=info.name,
        baseline=baseline,
        items=items.ids,
        options=options | {"fixed": info.fixed},
        seed=seed,
        device=device,
    )
