"""Start-up of the command line, and threads beside a busy neighbour."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from run import Case

ROOT = Path(__file__).resolve().parent.parent.parent
HEAVY = {
    "torch",
    "torchvision",
    "lightning",
    "mlflow",
    "sklearn",
    "librosa",
    "matplotlib",
    "captum",
}
N_PRODUCTS = 30


def cases() -> list[Case]:
    """Rows startup and threads."""
    return [
        Case(
            "startup", "process", lambda: _python("-c", "import torch"),
            lambda: _python("-m", "sonolens.cli", "--help"),
            _no_torch, 1.5, "`sonolens --help` against `import torch`", repeat=False,
        ),
        Case(
            "threads", "process", lambda: _convolve(1), lambda: _convolve(2),
            lambda: "one competing process", 0.8 if (os.cpu_count() or 1) > 1 else 0.5,
            "2 threads, passive waiting, against 1, beside a busy process",
            clock="wall", repeat=False,
        ),
    ]  # fmt: skip


def _python(*arguments: str) -> str:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip


def _no_torch() -> str:
    script = (
        "import sys, sonolens.cli\n"
        "sonolens.cli.app(['--help'], standalone_mode=False)\n"
        "print('\\n'.join(sys.modules))"
    )
    loaded = HEAVY & set(_python("-c", script).split())
    assert not loaded, f"--help imports {', '.join(sorted(loaded))}"
    return "loads no torch"


def _convolve(threads: int) -> None:
    """Convolutions while a neighbour keeps a core busy."""
    import torch

    neighbour = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.05)
        torch.set_num_threads(threads)
        layer = torch.nn.Conv2d(32, 32, 3, padding=1)
        values = torch.zeros(16, 32, 64, 64)
        with torch.no_grad():
            for _ in range(N_PRODUCTS):
                values = layer(values).relu()
    finally:
        torch.set_num_threads(1)
        neighbour.kill()
        neighbour.wait()
