"""Speed beside the usual libraries: `python bench/run.py [--quick] [--only mel,io] [--json FILE]`.

Each case checks first that both sides give the same, then runs them in interleaved rounds with
the garbage collector off. The ratio is the median of the paired ratios of processor time, children
included, at one thread; where a case says so, of wall time. A row fails below 60 % of its target.
Absolute times are printed and never asserted.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "bench")]

ROUNDS, QUICK_ROUNDS = 7, 3
FAIL_SHARE = 0.6
MIN_ROUND_S, QUICK_MIN_ROUND_S = 0.2, 0.05


@dataclass(frozen=True)
class Case:
    """One row of the table.

    name      of the row
    topic     file of bench/cases it is from
    peer      what it is compared with, run once
    ours      our way, run once
    check     raises AssertionError unless both give the same; its text, if any, goes into the table
    target    wanted ratio peer / ours
    size      what was worked on, in words
    clock     `cpu`; `wall` where several threads are the point; `memory`: peer and ours return MiB
    repeat    False where one run is long or has side effects
    """

    name: str
    topic: str
    peer: Callable[[], object]
    ours: Callable[[], object]
    check: Callable[[], str | None]
    target: float
    size: str
    clock: str = "cpu"
    repeat: bool = True


def seconds(work: Callable[[], object], times: int) -> tuple[float, float]:
    """Processor seconds, children included, and wall seconds of one of `times` runs."""
    cpu, wall = _cpu_clock(), time.perf_counter()
    for _ in range(times):
        work()
    return (_cpu_clock() - cpu) / times, (time.perf_counter() - wall) / times


def _cpu_clock() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def measure(case: Case, quick: bool) -> dict[str, Any]:
    """Row of the table; a failed check is a failed row."""
    row: dict[str, Any] = {
        "name": case.name,
        "topic": case.topic,
        "target": case.target,
        "fail_below": round(FAIL_SHARE * case.target, 3),
        "size": case.size,
        "clock": case.clock,
        "ratio": None,
    }
    try:
        note = case.check()
    except AssertionError as error:
        return row | {"checked": f"failed: {error}", "passed": False}
    if case.clock == "memory":
        return row | _memory(case, note)
    times = [_times(work, case, quick) for work in (case.peer, case.ours)]
    rounds = []
    gc.collect()
    gc.disable()
    try:
        for number in range(QUICK_ROUNDS if quick else ROUNDS):
            order = (0, 1) if number % 2 == 0 else (1, 0)
            pair = [(0.0, 0.0), (0.0, 0.0)]
            for side in order:
                pair[side] = seconds((case.peer, case.ours)[side], times[side])
            rounds.append(pair)
    finally:
        gc.enable()
    clock = 0 if case.clock == "cpu" else 1
    ratios = [peer[clock] / max(ours[clock], 1e-9) for peer, ours in rounds]
    middle = [
        [statistics.median(pair[side][kind] for pair in rounds) for kind in (0, 1)]
        for side in (0, 1)
    ]
    ratio = statistics.median(ratios)
    return row | {
        "ratio": round(ratio, 3),
        "spread": [round(min(ratios), 3), round(max(ratios), 3)],
        "peer_cpu_s": middle[0][0],
        "peer_wall_s": middle[0][1],
        "ours_cpu_s": middle[1][0],
        "ours_wall_s": middle[1][1],
        "n_rounds": len(rounds),
        "checked": note or "equal",
        "passed": ratio >= row["fail_below"],
    }


def _memory(case: Case, note: str | None) -> dict[str, Any]:
    """Columns of a row that compares memory, measured once: it hardly varies."""
    peer, ours = (float(work()) for work in (case.peer, case.ours))  # type: ignore[arg-type]
    ratio = peer / max(ours, 1e-9)
    return {
        "ratio": round(ratio, 3),
        "spread": [round(ratio, 3), round(ratio, 3)],
        "peer_mib": peer,
        "ours_mib": ours,
        "n_rounds": 1,
        "checked": note or "equal",
        "passed": ratio >= FAIL_SHARE * case.target,
    }


def _times(work: Callable[[], object], case: Case, quick: bool) -> int:
    """Runs per round, so that a round is long against the clock; the first run warms up."""
    if not case.repeat:
        return 1
    work()
    _, once = seconds(work, 1)
    return max(1, int((QUICK_MIN_ROUND_S if quick else MIN_ROUND_S) / max(once, 1e-6)))


def collect(only: Sequence[str]) -> list[Case]:
    """Cases whose topic or name is in `only`; all when it is empty."""
    cases: list[Case] = []
    for path in sorted((ROOT / "bench" / "cases").glob("*.py")):
        if path.stem != "__init__":
            cases += importlib.import_module(f"cases.{path.stem}").cases()
    unknown = set(only) - {case.name for case in cases} - {case.topic for case in cases}
    if unknown:
        known = ", ".join(sorted({case.topic for case in cases} | {case.name for case in cases}))
        sys.exit(f"--only {', '.join(sorted(unknown))}: unknown; need some of {known}")
    return [case for case in cases if not only or {case.name, case.topic} & set(only)]


def keep_memory() -> None:
    """Let glibc keep freed blocks: else rows pay page faults by what ran before them."""
    import ctypes

    trim_threshold, mmap_threshold = -1, -3
    try:
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_threshold, 32 << 20)
        libc.mallopt(trim_threshold, 1 << 30)
    except (OSError, AttributeError, TypeError):  # no glibc
        return


def conditions() -> str:
    """What the times depend on."""
    import numpy
    import torch

    load = f"load {os.getloadavg()[0]:.1f}, " if hasattr(os, "getloadavg") else ""
    return (
        f"{os.cpu_count()} cores, {load}{torch.get_num_threads()} thread, "
        f"Python {platform.python_version()}, torch {torch.__version__}, numpy {numpy.__version__}"
    )


def line(row: dict[str, Any]) -> str:
    """Row of the printed table."""
    verdict = "ok" if row["passed"] else "FAILED"
    if row["ratio"] is None:
        return f"{row['name']:16} {verdict:7} {row['checked']}"
    spread = "{:.2f}…{:.2f}".format(*row["spread"])
    if row["clock"] == "memory":
        sizes = f"{row['peer_mib']:9.0f} {row['ours_mib']:9.0f} MiB "
    else:
        sizes = f"{1e3 * row['peer_cpu_s']:9.2f} {1e3 * row['ours_cpu_s']:9.2f} ms "
    return (
        f"{row['name']:16} {row['ratio']:7.2f}x {spread:>14}  target {row['target']:5.1f}  "
        f"{sizes}"
        f"{row['clock']:4} {verdict:7} {row['size']}"
    )


def main() -> int:
    """Run the cases; the exit status is 1 when a row fails."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--only", default="", help="topics or names, with commas")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    asked = parser.parse_args()

    import torch

    torch.set_num_threads(1)
    keep_memory()
    print(conditions())
    rows = []
    for case in collect([name for name in asked.only.split(",") if name]):
        rows.append(measure(case, asked.quick))
        print(line(rows[-1]), flush=True)
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    failed = [row["name"] for row in rows if not row["passed"]]
    if failed:
        print(f"below 60 % of the target, or not equal: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    # Cases import `Case` from the module `run`; both names have to mean one module.
    sys.modules["run"] = sys.modules["__main__"]
    sys.exit(main())
