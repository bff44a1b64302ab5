"""Signals become one KeyboardInterrupt; a stage knows the `dvc` above it."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from sonolens import interrupts

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


@pytest.mark.parametrize("number", interrupts.SIGNALS)
def test_the_first_signal_interrupts_and_later_ones_are_ignored(number):
    before = [signal.getsignal(item) for item in interrupts.SIGNALS]
    events = []

    def work() -> None:
        try:
            signal.raise_signal(number)
            events.append("went on")
        finally:
            for item in interrupts.SIGNALS:
                signal.raise_signal(item)
            events.append("ended")

    with pytest.raises(KeyboardInterrupt, match=signal.Signals(number).name), interrupts.caught():
        work()
    assert events == ["ended"]
    assert [signal.getsignal(item) for item in interrupts.SIGNALS] == before


def test_blocks_may_be_nested_and_signals_wait_for_the_end_of_a_held_one():
    events = []

    def work() -> None:
        with interrupts.caught():
            pass
        with interrupts.held():
            with interrupts.held():
                signal.raise_signal(signal.SIGTERM)
                events.append("inner")
            events.append("outer")
        events.append("after")

    with pytest.raises(KeyboardInterrupt), interrupts.caught():
        work()
    assert events == ["inner", "outer"]


class Interrupted:
    """A finaliser that a signal strikes: Python drops what is raised in it."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_that_got_lost_comes_at_the_end_of_the_block():
    events = []

    def work() -> None:
        with interrupts.caught():
            item = Interrupted()
            del item
            events.append("went on")
        events.append("passed for finished")

    with pytest.raises(KeyboardInterrupt, match="SIGTERM"), interrupts.caught():
        work()
    assert events == ["went on"]
    with interrupts.caught():
        events.append("another")


def test_an_error_met_while_ending_is_still_the_interrupt():
    def end_badly() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            raise RuntimeError("of the library's own teardown")

    with pytest.raises(KeyboardInterrupt) as caught, interrupts.caught(), interrupts.caught():
        end_badly()
    assert isinstance(caught.value.__cause__, RuntimeError)
    with pytest.raises(RuntimeError), interrupts.caught():
        raise RuntimeError("without a signal")


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupts.caught():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_leave_signals_alone():
    found = []

    def look() -> None:
        with interrupts.caught():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGTERM)]


def test_a_process_that_cannot_end_is_ended_after_the_grace(capfd):
    code = """
        import signal, time
        from sonolens import interrupts
        interrupts.GRACE_S = 0.2
        with interrupts.caught():
            try:
                signal.raise_signal(signal.SIGINT)
            finally:
                time.sleep(600)
    """
    assert run(code) == 1
    assert "not ended 0.2 s after SIGINT" in capfd.readouterr().err


def run(code: str, **environment: str) -> int:
    command = [sys.executable, "-c", textwrap.dedent(code)]
    paths = {"PYTHONPATH": str(Path(interrupts.__file__).parents[1])}
    clean = {name: value for name, value in os.environ.items() if name != "DVC_STAGE"}
    return subprocess.run(command, env=clean | paths | environment, timeout=60).returncode


def test_what_no_dvc_started_stays_on_its_own():
    code = """
        from sonolens import interrupts
        assert interrupts.dvc_process() is None
        interrupts.end_with_dvc()
    """
    assert run(code) == 0


def test_the_dvc_above_is_found_through_a_shell_and_missed_when_it_is_gone(tmp_path):
    found, gone = tmp_path / "found", tmp_path / "gone"
    inner = f"""
        import os, sys, time
        from pathlib import Path
        from sonolens import interrupts
        Path({str(found)!r}).write_text(str(interrupts.dvc_process()))
        first = os.getppid()
        while os.getppid() == first:
            time.sleep(0.02)
        try:
            interrupts.end_with_dvc()
        except KeyboardInterrupt as error:
            Path({str(tmp_path / "part")!r}).write_text(str(error))
            os.rename({str(tmp_path / "part")!r}, {str(gone)!r})
    """
    script = tmp_path / "stage.py"
    script.write_text(textwrap.dedent(inner))
    outer = f"""
        import os, subprocess, sys, time
        from pathlib import Path
        os.setsid()
        os.environ["DVC_STAGE"] = "a-b"
        shell = subprocess.Popen(["/bin/sh", "-c", {f"{sys.executable} {script}; true"!r}])
        while not Path({str(found)!r}).exists() or not Path({str(found)!r}).read_text():
            time.sleep(0.02)
        assert Path({str(found)!r}).read_text() == str(os.getpid())
        shell.kill()
    """
    assert run(outer) == 0
    for _ in range(600):
        if gone.exists():
            break
        threading.Event().wait(0.05)
    assert gone.read_text() == "dvc, which started this stage, has ended"
