"""One way to run things side by side: joblib under an engine named in params.

The engines are serial, loky and dask.
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal, TypeVar

from sonolens.params import Runtime

CONNECT_S = 10
POLL_S = 0.3
WORKER_START_S = 12.0  # of two that import torch, Lightning and SciPy on two cores
Item = TypeVar("Item")
Result = TypeVar("Result")


class EngineError(RuntimeError):
    """The engine named in params cannot be used; the message says what is missing."""


class WorkerLost(RuntimeError):
    """A worker process was ended from outside; the message says what that means."""


def resolve_device(kind: str) -> Literal["cpu", "cuda"]:
    """`cpu` or `cuda` for `auto`, `cpu` or `cuda`; all but `cpu` import torch.

    Raises EngineError when CUDA is asked for but absent.
    """
    if kind == "cpu":
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if kind == "cuda":
        raise EngineError("runtime.device: cuda, but torch finds no CUDA device; use auto or cpu")
    return "cpu"


@contextmanager
def engine(runtime: Runtime) -> Iterator[None]:
    """Choose joblib's backend for the block.

    Raises EngineError when Dask is asked for but absent.
    """
    with _connected(runtime), _chosen(runtime):
        yield


def _connected(runtime: Runtime) -> AbstractContextManager[object]:
    """What must stay open while results are computed."""
    if runtime.engine != "dask":
        return nullcontext()
    try:
        from distributed import Client
    except ModuleNotFoundError as error:
        raise EngineError(
            "runtime.engine: dask needs the group `cluster`; "
            "install it: uv pip install 'sonolens[cluster]'"
        ) from error
    address = runtime.dask_address
    if not address:
        raise EngineError(
            "runtime.dask_address: found nothing, need the scheduler's address, e.g. tcp://host:8786"
        )
    try:
        return Client(address, timeout=CONNECT_S)
    except (OSError, ValueError) as error:
        raise EngineError(
            f"runtime.dask_address: no scheduler answers at {address} ({error}); start one"
        ) from error


def _chosen(runtime: Runtime) -> AbstractContextManager[object]:
    import joblib

    if runtime.engine == "dask":
        return joblib.parallel_config(backend="dask")
    if runtime.engine == "serial" or runtime.workers == 1:
        return joblib.parallel_config(backend="sequential")
    return joblib.parallel_config(
        backend="loky",
        n_jobs=runtime.workers,
        inner_max_num_threads=runtime.threads,
        initializer=_begin_worker,
        initargs=(os.getpid(),),
    )


def _begin_worker(owner: int) -> None:
    # Ctrl-C reaches all processes of a terminal; the owner ends its workers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    on_end(owner, lambda: os._exit(1))  # by itself loky waits five minutes for more work


def on_end(pid: int, call: Callable[[], None]) -> None:
    """Call `call` in a thread of its own soon after the process `pid` has ended."""

    def follow() -> None:
        while is_alive(pid):
            time.sleep(POLL_S)
        call()

    threading.Thread(target=follow, name=f"end of {pid}", daemon=True).start()


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    import psutil  # type: ignore[import-untyped,unused-ignore]

    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def run(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    runtime: Runtime,
    *,
    probe: bool = True,
) -> Iterator[Result]:
    """Results of `function` over `items`, in the order of `items`, as they become ready.

    With `probe`, items run in this process until what is left is worth starting loky's workers,
    each of which imports everything anew. The results are the same either way.

    Raises
    ------
    WorkerLost
        A worker of loky was killed, or crashed.
    """
    from joblib import Parallel, delayed
    from joblib.externals.loky.process_executor import BrokenProcessPool

    left = deque(items)
    if probe and runtime.engine == "loky":
        spent_s: list[float] = []
        while left and not _worth_workers(spent_s, len(left), runtime):
            started_s = time.perf_counter()
            result = _one(function, left.popleft(), runtime.threads)
            spent_s.append(time.perf_counter() - started_s)
            yield result
    with _connected(runtime):
        with _chosen(runtime):  # left before the first result: the caller's joblib must not see it
            parallel = Parallel(return_as="generator")
        try:
            yield from parallel(delayed(_one)(function, item, runtime.threads) for item in left)
        except BrokenProcessPool as error:
            raise WorkerLost(
                f"one of {runtime.workers} workers was ended from outside ({_exit_codes(error)}); "
                "a system short of memory does that: if it was not you, lower runtime.workers in "
                "params.yaml. The same command goes on from what is finished"
            ) from error


def _exit_codes(error: Exception) -> str:
    found = re.search(r"\{(.*)\}", str(error))
    return found[1] if found else type(error).__name__


def _worth_workers(spent_s: list[float], n_left: int, runtime: Runtime) -> bool:
    if len(spent_s) < 2:  # the first item also pays for imports and says little
        return False
    remaining_s = sum(spent_s[1:]) / (len(spent_s) - 1) * n_left
    return remaining_s * (1 - 1 / runtime.workers) > WORKER_START_S


def _one(function: Callable[[Any], Any], item: Any, threads: int) -> Any:
    set_threads(threads)
    return function(item)


def set_threads(threads: int) -> None:
    """Limit BLAS and, where it is already imported, torch to `threads`."""
    import sys

    os.environ["OMP_NUM_THREADS"] = str(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
