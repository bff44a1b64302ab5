"""What a user is told about an error: plain words if it is foreseen, else the traceback."""

from __future__ import annotations

import errno
import re
import shutil
from pathlib import Path

AGAIN = "then run the same command again"
# Found, then what to do. What is in no row here may be a mistake of ours.
_MACHINE = {
    errno.ENOSPC: ("no room left on this disk{free}", f"make room, {AGAIN}"),
    errno.EDQUOT: ("the disk quota is used up", f"make room, {AGAIN}"),
    errno.EFBIG: (
        "larger than a file may be here",
        f"raise the limit (`ulimit -f`) or use another disk, {AGAIN}",
    ),
    errno.EROFS: ("the disk is read-only", f"make it writable or use another, {AGAIN}"),
    errno.EACCES: ("permission denied", f"change its owner or mode, {AGAIN}"),
    errno.EPERM: ("not permitted", f"change its owner or mode, {AGAIN}"),
    errno.EIO: ("the disk failed to read or write", "check the disk before anything else"),
    errno.EMFILE: ("too many open files", f"raise the limit (`ulimit -n`), {AGAIN}"),
    errno.ENFILE: ("too many open files on this machine", f"close other programs, {AGAIN}"),
    errno.ENOMEM: ("not enough memory", f"close other programs, {AGAIN}"),
    errno.ENAMETOOLONG: ("the name is too long for this disk", f"shorten it, {AGAIN}"),
    errno.EEXIST: ("a file is in the way of a folder of this name", f"move it, {AGAIN}"),
    errno.ENOTDIR: ("a file is in the way where a folder is needed", f"move it, {AGAIN}"),
}
_MEMORY = f"lower runtime.workers in params.yaml or close other programs, {AGAIN}"


def describe(error: BaseException) -> str | None:
    """The message for the user, or None where only the traceback says what went wrong.

    Messages of this package's own errors stand as they are. Of foreign ones those are known whose
    cause lies outside of the program: a full or read-only disk, permissions, memory.
    """
    if type(error).__module__.startswith("sonolens."):
        return str(error)
    if isinstance(error, OSError) and error.errno in _MACHINE:
        return _of_machine(error)
    name = f"{type(error).__module__}.{type(error).__name__}"
    if name == "torch.OutOfMemoryError":
        return (
            f"not enough memory on the GPU; set runtime.device: cpu, or lower batch sizes, {AGAIN}"
        )
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return f"not enough memory; {_MEMORY}"
    if name.endswith("loky.process_executor.TerminatedWorkerError"):
        return f"a worker was ended from outside, most often for lack of memory; {_MEMORY}"
    # Writers in C, torch's among them, raise something of their own over a full disk.
    below = error.__context__
    if isinstance(below, OSError) and below.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return _of_machine(below)
    return None


def _of_machine(error: OSError) -> str:
    found, advice = _MACHINE[error.errno or 0]
    place = Path(str(error.filename2 or error.filename or Path.cwd()))
    # Files are written beside their place, see `store.whole`.
    place = place.with_name(re.sub(r"^\.(.+)\.\d+\.(part|new|old)$", r"\1", place.name))
    return f"{place}: {found.format(free=_free(place))}; {advice}"


def _free(place: Path) -> str:
    try:
        there = next(folder for folder in (place, *place.parents) if folder.is_dir())
        return f" ({shutil.disk_usage(there).free / 1e6:.1f} MB free)"
    except (OSError, StopIteration):
        return ""
