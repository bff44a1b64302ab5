"""Score every map of an attribution store with every metric: a few lines in a stage, the work here.

One job is a block of items of one model and one metric. Metrics that do not explain anew take all
methods at once, so that coalitions, drops and masks are computed once; those that do are one job
per method. Jobs of metrics of one module run together and share what they have in common. Each
(method, baseline, metric) block is a shard of its own, so a new metric or method computes only
itself.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from sonolens import parallel
from sonolens.explain import registry as methods
from sonolens.explain.cells import (
    call_options,
    code_of,
    item_seeds,
    select_items,
)
from sonolens.explain.contract import (
    NO_BASELINE,
    CellKey,
    Explainable,
    Items,
    Target,
    map_of,
    seed_array,
)
from sonolens.explain.options import all_options, check_options
from sonolens.explain.prepare import prepared
from sonolens.explain.shards import Shards
from sonolens.explain.targets import ClassLogit
from sonolens.params import Runtime
from sonolens.score import registry
from sonolens.score.cascade import layers, randomised, resettable
from sonolens.score.contract import Context, MetricInfo, ScoreError
from sonolens.sources import content_key
from sonolens.store import ArrayStore, batches

_log = logging.getLogger(__name__)
SCORE_COLUMNS = [
    "study", "cell", "protocol", "fold", "model_seed", "variant", "method", "baseline",
    "target", "metric", "fill", "metric_params", "item_id", "person_id", "score",
]  # fmt: skip
CURVE_COLUMNS = [*SCORE_COLUMNS[:-2], "curve", "x", "y"]
_KEY_COLUMNS = ["cell", "protocol", "fold", "model_seed", "variant"]


@dataclass(frozen=True)
class ScoreTables:
    """Rows of scores.parquet and curves.parquet, and how many blocks came from shards."""

    scores: pd.DataFrame
    curves: pd.DataFrame
    n_blocks: int
    n_reused: int


@dataclass(frozen=True)
class _Maps:
    """Rows of the store that hold one method's maps of a block of items, by target."""

    method: str
    baseline: str
    rows: tuple[tuple[str, tuple[int, ...]], ...]
    shard: str


@dataclass(frozen=True)
class _Job:
    adapter: Explainable
    key: CellKey
    metric: MetricInfo
    options: dict[str, Any]
    items: Items
    maps: tuple[_Maps, ...]
    store: Path
    fill: str
    explain: dict[str, Any]
    seed: int
    device: str
    shards: Shards
    data: str


def run_cells(
    adapter: Explainable,
    attributions: ArrayStore,
    *,
    metrics: Sequence[str],
    options: dict[str, Any],
    n_items_costly: int,
    seed: int,
    runtime: Runtime,
    shards: Shards,
    fills: Sequence[str] | Mapping[str, Sequence[str]] = ("silence",),
) -> ScoreTables:
    """Scores of every map.

    Parameters
    ----------
    adapter
        The study, the same as for `explain.cells.run_cells`.
    attributions
        What that function wrote; it says how to explain anew.
    metrics
        Names.
    options
        Options of the metrics by name (``n_coalitions``), or of one metric as ``{metric: {name:
        value}}``.
    n_items_costly
        Metrics that explain anew take this many of the explained items, see
        `explain.cells.select_items`.
    seed
        Root of all randomness.
    runtime
        Engine and device.
    shards
        Where finished blocks are kept.
    fills
        Kinds of baselines that stand for a removed cell, by cell where they differ in them.
        Metrics that remove cells run with each of them.

    Returns
    -------
    ScoreTables
        Rows in the order metric (as given), model, method, block, target, item. None of metrics
        that need a truth mask, sound or a time axis where the study has none.

    Raises
    ------
    ScoreError
        Unknown metric or option, no attribution.
    EngineError
        CUDA is asked for and absent.
    """
    check_options(options, registry.METRICS, "score", ScoreError)
    infos = [registry.info(name) for name in metrics]
    device = parallel.resolve_device(runtime.device)
    digests = _digests(attributions)
    models = [(key, rows, adapter.data_key(key)) for key, rows in _models(attributions.index)]
    unfit = _unfit(
        adapter, [key for key, _, _ in models], attributions.axes["explain"]["part"], infos
    )
    jobs: list[_Job] = []
    for info in infos:
        chosen = all_options(info, options)
        for key, rows, data in models:
            if any(key in unfit.get(need, ()) for need in info.needs):
                continue
            every = adapter.items(key, attributions.axes["explain"]["part"])
            items = every.named(sorted(set(rows["item_id"])))
            if info.explains:
                items = select_items(items, n_items_costly, seed)
            kinds = fills[key.cell] if isinstance(fills, Mapping) else fills
            blocks = batches(len(items), attributions.axes["explain"]["engine"]["chunk_size"])
            for fill, block in product(kinds if info.removes else [NO_BASELINE], blocks):
                job = _Job(
                    adapter, key, info, chosen, items.select(block), (), attributions.folder, fill,
                    attributions.axes["explain"], seed, device, shards, data,
                )  # fmt: skip
                jobs.append(replace(job, maps=tuple(_maps(job, rows, digests))))
    tables, n_reused = _results(jobs, runtime)
    scores = [_score_rows(job, maps, tables[maps.shard]) for job, maps in _parts(jobs)]
    curves = [
        table
        for job, maps in _parts(jobs)
        if len(table := _curve_rows(job, maps, tables[maps.shard]))
    ]
    shards.evict()
    return ScoreTables(
        _table(scores, SCORE_COLUMNS), _table(curves, CURVE_COLUMNS), len(tables), n_reused
    )


def _table(parts: Sequence[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    table = pd.concat(parts) if parts else pd.DataFrame(columns=columns)
    return table[columns].reset_index(drop=True)


def _unfit(
    adapter: Explainable,
    keys: Sequence[CellKey],
    part: str,
    infos: Sequence[MetricInfo],
) -> dict[str, set[CellKey]]:
    """Models whose items lack what a metric needs, by need; looked up only where it is needed."""

    def no_truth(key: CellKey) -> bool:
        return not adapter.truth_masks(key, adapter.items(key, part).select([0]))

    def no_sound(key: CellKey) -> bool:
        first = adapter.items(key, part).select([0])
        plane = adapter.inputs(key, first).shape[-2:]
        return adapter.listen(key, first.ids[0], torch.ones(plane)) is None

    def no_time(key: CellKey) -> bool:
        return bool(adapter.axes(key)["names"][-1] != "time")

    checks = {
        "mask": ("truth masks", no_truth),
        "audio": ("way back to sound", no_sound),
        "time": ("time axis", no_time),
    }
    found: dict[str, set[CellKey]] = {}
    for need, (what, lacking) in checks.items():
        skipped = [info.name for info in infos if need in info.needs]
        without = {key for key in keys if lacking(key)} if skipped else set()
        if without:
            _log.info(
                "%s: no %s for %d of %d models; no scores of %s",
                adapter.study, what, len(without), len(keys), ", ".join(skipped),
            )  # fmt: skip
        found[need] = without
    return found


def _models(index: pd.DataFrame) -> Iterator[tuple[CellKey, pd.DataFrame]]:
    for values, rows in index.groupby(_KEY_COLUMNS, sort=False):
        cell, protocol, fold, model_seed, variant = cast("tuple[str, str, int, int, str]", values)
        yield CellKey(str(cell), str(protocol), int(fold), int(model_seed), str(variant)), rows


def _digests(attributions: ArrayStore) -> list[str]:
    """MD5 of every map, by index row."""
    return [
        hashlib.md5(np.ascontiguousarray(attributions[row]).data, usedforsecurity=False).hexdigest()
        for row in range(len(attributions))
    ]


def _maps(job: _Job, rows: pd.DataFrame, digests: list[str]) -> Iterator[_Maps]:
    for (method, baseline), some in rows.groupby(["method", "baseline"], sort=False):
        by_target = []
        for target, own in some.groupby("target", sort=False):
            row_of = dict(zip(own["item_id"], own.index, strict=True))
            absent = [item_id for item_id in job.items.ids if item_id not in row_of]
            if absent:
                raise ScoreError(
                    f"{job.key.name}: {method} has no map of item {absent[0]!r}; "
                    "run the explain stage anew"
                )
            by_target.append(
                (str(target), tuple(int(row_of[item_id]) for item_id in job.items.ids))
            )
        yield _Maps(
            str(method),
            str(baseline),
            tuple(by_target),
            _shard_key(job, str(method), str(baseline), by_target, digests),
        )


def _shard_key(
    job: _Job,
    method: str,
    baseline: str,
    by_target: list[tuple[str, tuple[int, ...]]],
    digests: list[str],
) -> str:
    modules = [job.metric.module, __name__, *job.adapter.code_modules()]
    explain: dict[str, Any] = {}
    if job.metric.explains:
        modules.append(methods.info(method).module)
        explain = {
            name: value for name, value in job.explain.items() if name not in ("methods", "n_draws")
        }
        explain["options"] = job.explain["methods"][method] | methods.info(method).fixed
        explain["n_draws"] = job.explain["n_draws"][method]
    return content_key(
        kind="score",
        code=code_of(tuple(modules)),
        torch=torch.__version__,
        data=job.data,
        model=job.key.as_row(),
        metric=job.metric.name,
        options=job.options | job.metric.fixed,
        fill=job.fill,
        method=method,
        baseline=baseline,
        explain=explain,
        items=job.items.ids,
        maps=[(target, [digests[row] for row in rows]) for target, rows in by_target],
        seed=job.seed,
        device=job.device,
    )


def _parts(jobs: Sequence[_Job]) -> Iterator[tuple[_Job, _Maps]]:
    """Every (job, method), blocks of the same metric, model and method beside each other."""
    groups: dict[tuple[str, ...], list[tuple[_Job, _Maps]]] = {}
    for job in jobs:
        for maps in job.maps:
            group = (job.metric.name, job.key.name, job.fill, maps.method, maps.baseline)
            groups.setdefault(group, []).append((job, maps))
    for parts in groups.values():
        yield from parts


def _results(
    jobs: Sequence[_Job], runtime: Runtime
) -> tuple[dict[str, dict[str, np.ndarray]], int]:
    """Shard contents by key, and how many were there before."""
    tables: dict[str, dict[str, np.ndarray]] = {}
    missing: dict[Any, list[_Job]] = {}
    for job in jobs:
        absent = []
        for maps in job.maps:
            found = job.shards.read(maps.shard)
            if found is None:
                absent.append(maps)
            else:
                tables[maps.shard] = found
        together = (job.metric.module, job.metric.needs, job.key, job.items.ids, job.fill)
        if job.metric.explains:
            for maps in absent:
                group = (*together, maps.method, maps.baseline)
                missing.setdefault(group, []).append(replace(job, maps=(maps,)))
        elif absent:
            missing.setdefault(together, []).append(replace(job, maps=tuple(absent)))
    n_reused = len(tables)
    if missing:
        for result in parallel.run(_score, list(missing.values()), runtime):
            tables |= result
    return tables, n_reused


def _score(jobs: Sequence[_Job]) -> dict[str, dict[str, np.ndarray]]:
    """Compute the maps of jobs of one module, store a shard for each and return them by key."""
    store = ArrayStore(jobs[0].store)
    bench = _Bench(jobs[0])
    return {maps.shard: _score_maps(job, maps, bench, store) for job in jobs for maps in job.maps}


def _score_maps(job: _Job, maps: _Maps, bench: _Bench, store: ArrayStore) -> dict[str, np.ndarray]:
    values, curves = [], []
    for target, rows in maps.rows:
        stacked = torch.from_numpy(np.stack([map_of(store, row) for row in rows]))
        context = bench.context(maps, target)
        scores = job.metric.compute(stacked.to(bench.device), context, **job.options)
        if scores.values.shape != (len(job.items),):
            raise ScoreError(
                f"{job.metric.name}: {tuple(scores.values.shape)} scores, "
                f"need one for each of {len(job.items)} items"
            )
        values.append(scores.values.double().cpu().numpy())
        if scores.curves is not None and len(scores.curves):
            curves.append(scores.curves.assign(target=target))
    result = {"values": np.stack(values)}
    if curves:
        table = pd.concat(curves)
        result |= {name: table[name].to_numpy(str) for name in ("target", "item_id", "curve")}
        result |= {name: table[name].to_numpy(float) for name in ("x", "y")}
    job.shards.write(maps.shard, result)
    return result


class _Bench:
    """Inputs, model and targets of jobs that differ in metric and methods alone."""

    def __init__(self, job: _Job) -> None:
        self.job = job
        self.device = torch.device(job.device)
        adapter, key, items = job.adapter, job.key, job.items
        clips = adapter.inputs(key, items)
        self.axes = adapter.axes(key)
        scale = self.axes.get("scale", {})
        self.scale = (
            (float(scale["min"]), float(scale["max"])) if {"min", "max"} <= set(scale) else None
        )
        self.seeds = seed_array(item_seeds(job.seed, items))
        self.clips = clips
        self.inputs = clips.to(self.device)
        self.masks = adapter.truth_masks(key, items) if "mask" in job.metric.needs else {}
        self.original: nn.Module | None = None
        self.model: nn.Module | None = None
        self.targets: dict[str, Target] = {}
        self.n_classes: int | None = None
        self.fill = self.inputs
        self.caches: dict[str, dict[Any, Any]] = {}
        self.own: dict[tuple[str, str, str], dict[Any, Any]] = {}
        self.baselines: dict[tuple[str, int], Tensor] = {}
        if job.metric.needs & {"predict", "explain"}:
            self.original = adapter.load(key).to(self.device)
            self.targets = adapter.targets(key, items, self.original, self.inputs)
            self.model = prepared(self.original, self.inputs[:1])
            self.n_classes = adapter.n_classes(key)
        if job.metric.removes:
            self.fill = self._baseline(job.fill, 1).mean(1).expand_as(self.inputs)

    def _baseline(self, kind: str, n_draws: int) -> Tensor:
        job = self.job
        return job.adapter.baseline(job.key, kind, job.items, self.clips, n_draws).to(self.device)

    def context(self, maps: _Maps, name: str) -> Context:
        """Collect what a metric sees of one method and target."""
        job = self.job
        target = self.targets.get(name)
        if self.model is not None and target is None:
            raise ScoreError(
                f"{job.key.name}: no target {name!r} among {', '.join(self.targets)}; explain anew"
            )
        model, chosen = self.model, target or ClassLogit((0,))

        def outputs(edited: Tensor) -> Tensor:
            if model is None:
                raise ScoreError(
                    f"{job.metric.name}: predicts, but its registry row does not need `predict`"
                )
            with torch.no_grad():  # a prepared model is frozen
                logits: Tensor = model(edited)
            return logits

        def predict(edited: Tensor, rows: Tensor) -> Tensor:
            return chosen(outputs(edited), rows.to(edited.device))

        def probabilities(edited: Tensor) -> Tensor:
            return outputs(edited).double().softmax(1)

        def edit(inputs: Tensor, mask: Tensor, fill: Tensor) -> Tensor:
            return job.adapter.edit(job.key, inputs, mask, fill)

        def listen(masks: Tensor) -> Tensor:
            sounds = [
                job.adapter.listen(job.key, item_id, mask.cpu())
                for item_id, mask in zip(job.items.ids, masks, strict=True)
            ]
            return torch.from_numpy(np.stack([sound for sound in sounds if sound is not None]))

        def analyse(waveforms: Tensor) -> Tensor:
            return job.adapter.analyse(job.key, waveforms.cpu().numpy()).to(self.device)

        of_classes = self.n_classes is not None and isinstance(chosen, ClassLogit)
        return Context(
            items=job.items,
            inputs=self.inputs,
            target=chosen,
            predict=predict,
            edit=edit,
            fill=self.fill,
            masks=self.masks,
            item_seeds=self.seeds,
            scale=self.scale,
            n_classes=self.n_classes if of_classes else None,
            explain=self._explainer(maps, chosen) if job.metric.explains else None,
            cache=self.caches.setdefault(name, {}),
            own=self.own.setdefault((maps.method, maps.baseline, name), {}),
            probabilities=probabilities if of_classes else None,
            listen=listen if "audio" in job.metric.needs else None,
            analyse=analyse if "audio" in job.metric.needs else None,
            axes=self.axes,
        )

    def _explainer(self, maps: _Maps, target: Target) -> _Explainer:
        drawn = (maps.baseline, self.job.explain["n_draws"][maps.method])
        if maps.baseline != NO_BASELINE and drawn not in self.baselines:
            self.baselines[drawn] = self._baseline(*drawn)
        assert self.original is not None
        assert self.model is not None
        seeds = seed_array(item_seeds(self.job.explain["seed"], self.job.items))
        info = methods.info(maps.method)
        options = call_options(
            info,
            self.job.explain["methods"][maps.method],
            self.inputs,
            self.job.adapter.axes(self.job.key),
        )
        baseline = self.baselines.get(drawn)
        return _Explainer(
            self.original,
            self.model,
            maps.method,
            baseline,
            target,
            seeds,
            options,
            self.job.seed,
        )


class _Explainer:
    """See `contract.Explainer`."""

    def __init__(
        self,
        original: nn.Module,
        model: nn.Module,
        method: str,
        baseline: Tensor | None,
        target: Target,
        seeds: Tensor,
        options: dict[str, Any],
        seed: int,
    ) -> None:
        self._original, self._model = original, model
        self._method, self._baseline = methods.load(method), baseline
        self._drawn: tuple[str, nn.Module] = ("trained", model)
        self._target, self._seeds, self._options, self._seed = target, seeds, options, seed
        self.n_layers, self.n_resettable = len(layers(original)), len(resettable(original))

    def __call__(
        self, inputs: Tensor, target: Target | None = None, weights: str = "trained"
    ) -> Tensor:
        model = self._model
        if weights != "trained":
            model = self._randomised(weights, inputs[:1])
        chosen = self._target if target is None else target
        return self._method(
            model, inputs, chosen, baseline=self._baseline, item_seeds=self._seeds, **self._options
        ).values.to(torch.float32)

    def _randomised(self, weights: str, example: Tensor) -> nn.Module:
        """Model with weights drawn anew; the last one is kept: noisy inputs follow each other."""
        if self._drawn[0] != weights:
            fresh = randomised(self._original, weights, self._seed)
            self._drawn = (weights, prepared(fresh, example))
        return self._drawn[1]


def _columns(job: _Job, maps: _Maps) -> dict[str, Any]:
    params = {name: value for name, value in job.options.items() if value is not None}
    return {
        "study": job.adapter.study,
        **job.key.as_row(),
        "method": maps.method,
        "baseline": maps.baseline,
        "metric": job.metric.name,
        "fill": job.fill,
        "metric_params": json.dumps(params, sort_keys=True),
    }


def _score_rows(job: _Job, maps: _Maps, result: dict[str, np.ndarray]) -> pd.DataFrame:
    n_items, names = len(job.items), [target for target, _ in maps.rows]
    return pd.DataFrame(
        {
            "target": np.repeat(names, n_items),
            "item_id": list(job.items.ids) * len(names),
            "person_id": list(job.items.person_ids) * len(names),
            "score": result["values"].flatten(),
        }
    ).assign(**_columns(job, maps))


def _curve_rows(job: _Job, maps: _Maps, result: dict[str, np.ndarray]) -> pd.DataFrame:
    if "curve" not in result:
        return pd.DataFrame(columns=CURVE_COLUMNS)
    columns = {name: result[name] for name in ("target", "item_id", "curve", "x", "y")}
    return pd.DataFrame(columns).assign(**_columns(job, maps))
