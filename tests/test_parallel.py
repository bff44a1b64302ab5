"""Every engine gives the results of a loop, in its order."""

import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import psutil
import pytest

from sonolens import parallel, rng
from sonolens.params import Runtime, Tracking


def runtime(engine: str, workers: int = 2, address: str | None = None) -> Runtime:
    return Runtime(
        threads=1,
        workers=workers,
        engine=engine,
        dask_address=address,
        device="cpu",
        tracking=Tracking(enabled=False, system_metrics_interval_s=1),
    )


def draw(item: int) -> tuple[int, str, bytes]:
    values = rng.numpy_generator(0, item).standard_normal((16, 16)).astype(np.float32)
    return item, os.environ["OMP_NUM_THREADS"], (values @ values.T).tobytes()


def refuse(item: int) -> int:
    if item == 3:
        raise KeyError("three")
    return item


def die(item: int) -> int:
    if item == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


ORPHANS = """
import os, signal, sys, time
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from test_parallel import parallel, runtime, stay
if __name__ == "__main__":
    for _ in parallel.run(stay, [sys.argv[1]] * 2, runtime("loky"), probe=False):
        pass
"""


def stay(folder: str) -> None:
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(600)


def place(item: int) -> int:
    return os.getpid()


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # set_threads changes it


def test_loky_gives_the_bytes_and_order_of_a_loop():
    items = list(range(7))
    expected = [draw(item) for item in items]
    assert list(parallel.run(draw, items, runtime("serial"))) == expected
    assert list(parallel.run(draw, iter(items), runtime("loky"), probe=False)) == expected


def test_loky_works_in_other_processes_and_one_worker_or_serial_in_this():
    here = {os.getpid()}
    assert set(parallel.run(place, range(4), runtime("serial"))) == here
    assert set(parallel.run(place, range(4), runtime("loky", workers=1))) == here
    assert not set(parallel.run(place, range(4), runtime("loky"), probe=False)) & here


def test_workers_are_started_only_for_what_is_worth_it(monkeypatch):
    here = os.getpid()
    assert set(parallel.run(place, range(50), runtime("loky"))) == {here}
    monkeypatch.setattr(parallel, "WORKER_START_S", -1)
    first, second, *others = parallel.run(place, range(5), runtime("loky"))
    assert first == second == here
    assert here not in others


def test_nothing_in_nothing_out():
    for name in ("serial", "loky"):
        assert list(parallel.run(abs, [], runtime(name))) == []


def test_results_come_one_by_one():
    seen = []
    results = parallel.run(seen.append, range(3), runtime("serial"))
    assert seen == []
    next(results)
    assert len(seen) < 3
    assert list(results) == [None, None]
    assert seen == [0, 1, 2]


@pytest.mark.parametrize("name", ["serial", "loky"])
def test_errors_of_a_worker_reach_the_caller_after_the_results_before(name):
    results = parallel.run(refuse, range(6), runtime(name), probe=False)
    with pytest.raises(KeyError, match="three"):
        list(results)


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_killed_worker_is_named_with_what_to_do():
    results = parallel.run(die, range(6), runtime("loky"), probe=False)
    with pytest.raises(parallel.WorkerLost, match=r"SIGKILL.*lower runtime\.workers"):
        list(results)
    assert list(parallel.run(abs, [-1, -2], runtime("loky"), probe=False)) == [1, 2]


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_their_process(number, tmp_path):
    folder = tmp_path / "pids"
    folder.mkdir()
    script = tmp_path / "orphans.py"
    script.write_text(ORPHANS)
    here = [str(Path(__file__).parent), str(Path(parallel.__file__).parents[1])]
    process = subprocess.Popen(
        [sys.executable, script, folder, *here],
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: len(list(folder.iterdir())) == 2 or process.poll() is not None)
    workers = [int(path.name) for path in folder.iterdir()]
    assert len(workers) == 2
    if number == signal.SIGINT:  # as a terminal sends it
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == -number
    assert stderr.count("Traceback") <= 1  # none of the workers'
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in workers))


def wait_for(condition, timeout_s: float = 60.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.mark.parametrize("name", ["serial", "loky"])
def test_a_caller_may_stop_early(name):
    results = parallel.run(abs, range(-50, 0), runtime(name), probe=False)
    assert next(results) == 50
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # joblib tells of tasks that were not used
        results.close()
    assert list(parallel.run(abs, [-1], runtime(name))) == [1]


def test_the_engine_is_not_seen_by_the_callers_own_joblib():
    from joblib import Parallel

    results = parallel.run(abs, range(-4, 0), runtime("loky"), probe=False)
    next(results)
    assert Parallel().n_jobs == 1
    assert list(results) == [3, 2, 1]
    with parallel.engine(runtime("loky")):
        assert Parallel().n_jobs == 2
    with parallel.engine(runtime("serial")):
        assert Parallel().n_jobs == 1


def test_threads_of_torch_and_blas_are_limited():
    import torch

    before = torch.get_num_threads()
    try:
        parallel.set_threads(2)
        assert (torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]) == (2, "2")
    finally:
        torch.set_num_threads(before)


def test_dask_without_an_address_says_so():
    with pytest.raises(
        parallel.EngineError, match=r"runtime\.dask_address: found nothing, need the scheduler"
    ):
        next(parallel.run(abs, [1], runtime("dask")))


def test_dask_without_its_packages_names_the_group(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(parallel.EngineError, match=r"sonolens\[cluster\]"):
        next(parallel.run(abs, [1], runtime("dask", address="tcp://127.0.0.1:1")))


def test_dask_without_a_scheduler_names_the_address(monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(parallel, "CONNECT_S", 0.5)
    with socket.socket() as closed:  # bound but not listening
        closed.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(parallel.EngineError, match=f"no scheduler answers at {address}"):
            next(parallel.run(abs, [1], runtime("dask", address=address)))
    with pytest.raises(parallel.EngineError, match="no scheduler answers at nonsense"):
        next(parallel.run(abs, [1], runtime("dask", address="nonsense://x")))


@pytest.mark.slow
def test_two_dask_workers_give_the_bytes_of_a_loop(tmp_path):
    distributed = pytest.importorskip("distributed")
    import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    expected = [draw(item) for item in range(7)]
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address=None,
        local_directory=tmp_path,
    ) as cluster:
        chosen = runtime("dask", address=cluster.scheduler_address)
        assert list(parallel.run(draw, range(7), chosen)) == expected
        assert os.getpid() not in set(parallel.run(place, range(7), chosen))
        with pytest.raises(KeyError, match="three"):
            list(parallel.run(refuse, range(6), chosen))
        results = parallel.run(draw, range(7), chosen)
        assert next(results) == expected[0]
        assert list(results) == expected[1:]
