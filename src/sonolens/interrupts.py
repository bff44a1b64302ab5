"""How a stage ends before its time: Ctrl-C, SIGTERM, `dvc queue kill`, or the end of `dvc` itself.

Each becomes one KeyboardInterrupt in the main thread. Further signals are ignored, so that closing
the record and removing what is half-written is not broken off; GRACE_S after the first the process
is ended whatever it does.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sonolens.parallel import on_end

GRACE_S = 30.0
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _State:
    caught = False  # whether a block of `caught` is open
    held = 0
    name: str | None = None  # of the first signal
    raised = False


@contextmanager
def caught() -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM inside the block into KeyboardInterrupt.

    The block ends with it whatever became of it on its way: a library may have met an error of its
    own while it ended, and Python drops what is raised in a finaliser. A block inside another one
    does only that. One outside of the main thread changes nothing, and a signal that is ignored,
    as SIGINT is in a shell's background, stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    if _State.caught:
        with _insisting():
            yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    _State.caught, _State.held, _State.name, _State.raised = True, 0, None, False
    timer = threading.Timer(GRACE_S, _end)
    timer.daemon = True

    def interrupt(number: int, _frame: Any) -> None:
        if _State.name is None:
            _State.name = signal.Signals(number).name
            timer.start()
            if not _State.held:
                _raise()

    for number, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, interrupt)
    try:
        with _insisting():
            yield
    finally:
        timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)
        _State.caught = False


@contextmanager
def held() -> Iterator[None]:
    """Let an interrupt inside the block wait for its end."""
    _State.held += 1
    try:
        yield
    finally:
        _State.held -= 1
    if _State.caught and _State.name and not _State.held and not _State.raised:
        _raise()


@contextmanager
def _insisting() -> Iterator[None]:
    try:
        yield
    except (Exception, SystemExit) as error:
        if _State.name:
            raise KeyboardInterrupt(_State.name) from error
        raise
    if _State.name:
        _raise()


def _raise() -> None:
    _State.raised = True
    raise KeyboardInterrupt(_State.name)


def _end() -> None:
    text = f"not ended {GRACE_S:g} s after {_State.name}: ended now, without the last records\n"
    os.write(2, text.encode())
    os._exit(1)


def end_with_dvc() -> None:
    """Interrupt this process when the `dvc` that started it ends.

    A killed `dvc` leaves the stage it runs alone, and the next one would find it still at work.

    Raises
    ------
    KeyboardInterrupt
        It has ended already.
    """
    pid = dvc_process()
    if pid is not None:
        on_end(pid, lambda: os.kill(os.getpid(), signal.SIGTERM))
    elif "DVC_STAGE" in os.environ and os.name == "posix":
        raise KeyboardInterrupt("dvc, which started this stage, has ended")


def dvc_process() -> int | None:
    """The `dvc` process that runs this stage; None when there is none, or no longer.

    It is the first ancestor without the DVC_STAGE of this one: those with it are shells between.
    """
    import psutil  # type: ignore[import-untyped,unused-ignore]

    stage = os.environ.get("DVC_STAGE")
    if stage is None:
        return None
    for ancestor in psutil.Process().parents():
        try:
            if ancestor.environ().get("DVC_STAGE") == stage:
                continue
            # What adopts an orphan is neither called dvc nor of its session.
            named = any(word.rsplit("/", 1)[-1] == "dvc" for word in ancestor.cmdline()[:4])
        except psutil.Error:  # it has just ended, or belongs to another user
            return None
        same = os.name != "posix" or os.getsid(ancestor.pid) == os.getsid(0)
        return int(ancestor.pid) if named or same else None
    return None
