"""Disks that are full or read-only, for tests of what a user is told then."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small(folder: Path, size: str) -> Iterator[Path]:
    """`folder` as a disk of `size` (as mount writes it, e.g. 64k); skips where none can be had."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    done = _attempt(command)
    if done is None or done.returncode != 0:
        reason = "no program `mount`" if done is None else done.stderr.splitlines()[0]
        pytest.skip(f"a small disk needs the right to mount: {reason}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    """Change the disk at `folder`, e.g. to `size=64m` or `ro`."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


@contextmanager
def read_only(folder: Path) -> Iterator[Path]:
    """`folder` as one that this user cannot write to; root can write everywhere but here."""
    if os.geteuid() == 0:
        with small(folder, "64k"):
            remount(folder, "ro")
            yield folder
        return
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o555)
    try:
        yield folder
    finally:
        folder.chmod(0o755)


@contextmanager
def file_limit(n_bytes: int) -> Iterator[None]:
    """No file of this process grows beyond `n_bytes`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _attempt(command: list[str]) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(command, text=True, capture_output=True, check=False)
    except FileNotFoundError:
        return None
