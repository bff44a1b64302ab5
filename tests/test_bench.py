"""The bench's own rules: check first, fail below 60 % of the target, rows by name."""

from __future__ import annotations

import importlib
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    return importlib.import_module("run")


def case(bench, ours_s: float, target: float, check=lambda: None):
    return bench.Case(
        "toy", "toy", lambda: time.sleep(0.02), lambda: time.sleep(ours_s), check, target, "sleep",
        clock="wall", repeat=False,
    )  # fmt: skip


def test_a_row_below_60_percent_of_its_target_fails(bench) -> None:
    row = bench.measure(case(bench, 0.005, 2), quick=True)
    assert row["passed"]
    assert row["ratio"] > 1.2
    assert row["fail_below"] == pytest.approx(1.2)
    assert not bench.measure(case(bench, 0.02, 20), quick=True)["passed"]


def test_sides_that_differ_fail_whatever_their_speed(bench) -> None:
    def check() -> None:
        raise AssertionError("they differ")

    row = bench.measure(case(bench, 0.001, 1), quick=True) | bench.measure(
        case(bench, 0.001, 1, check), quick=True
    )
    assert (row["passed"], row["ratio"], row["checked"]) == (False, None, "failed: they differ")


def test_rows_are_there_and_an_unknown_one_is_named(bench) -> None:
    names = {row.name for row in bench.collect([])}
    assert names >= {
        *("decode_int16", "mel", "stft", "store_write", "store_read"),
        *("ig_small", "saliency_small", "fc_1", "startup", "threads"),
    }
    command = [sys.executable, "bench/run.py", "--only", "mell"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "--only mell: unknown; need some of" in done.stderr
