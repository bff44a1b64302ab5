"""One way to run things side by side: joblib under an engine named in params (serial, loky, dask)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from sonolens.params import Runtime

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def engine(runtime: Runtime) -> Iterator[None]:
    """Choose joblib's backend for the block. Raises RuntimeError when Dask is asked for but absent."""
    import joblib

    if runtime.engine == "serial" or runtime.workers == 1 and runtime.engine == "loky":
        with joblib.parallel_config(backend="sequential"):
            yield
    elif runtime.engine == "loky":
        with joblib.parallel_config(
            backend="loky", n_jobs=runtime.workers, inner_max_num_threads=runtime.threads
        ):
            yield
    else:
        with _dask(runtime):
            yield


@contextmanager
def _dask(runtime: Runtime) -> Iterator[None]:
    import joblib

    try:
        from distributed import Client
    except ModuleNotFoundError as error:
        raise RuntimeError(
            "runtime.engine: dask needs the group `cluster`; install it: uv pip install 'sonolens[cluster]'"
        ) from error
    if not runtime.dask_address:
        raise RuntimeError("runtime.dask_address: found nothing, need the scheduler's address, e.g. tcp://host:8786")
    with Client(runtime.dask_address, timeout="10s"), joblib.parallel_config(backend="dask"):
        yield


def run(
    function: Callable[[Item], Result], items: Sequence[Item] | Iterable[Item], runtime: Runtime
) -> Iterator[Result]:
    """Results of `function` over `items`, in the order of `items`, as they become ready."""
    from joblib import Parallel, delayed

    with engine(runtime):
        yield from Parallel(return_as="generator")(delayed(_one)(function, item, runtime.threads) for item in items)


def _one(function: Callable[[Any], Any], item: Any, threads: int) -> Any:
    set_threads(threads)
    return function(item)


def set_threads(threads: int) -> None:
    """Limit BLAS and, where it is already imported, torch to `threads`."""
    import sys

    os.environ["OMP_NUM_THREADS"] = str(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
