"""Launcher of every DVC stage: `python src/stage.py STUDY STAGE [CELL]`.

It lies beside the package so that a queued experiment, which runs in a temporary clone,
imports its own code. Environment variables must be set before torch is first imported.
"""

import atexit
import os
import sys
import threading
from pathlib import Path

SRC = str(Path(__file__).resolve().parent)
os.environ["PYTHONPATH"] = SRC  # loky and Dask workers import the same code
os.environ["PYTHONHASHSEED"] = "0"
for library in ("OMP", "OPENBLAS", "MKL"):  # how many threads torch gets, `runtime.threads` says
    os.environ[f"{library}_NUM_THREADS"] = "1"
# Busy-waiting workers cost up to 15 times on shared cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")

if __name__ == "__main__":
    try:
        from sonolens.stages import main
    except ModuleNotFoundError as error:
        sys.exit(
            f"{error}; this `python` ({sys.executable}) lacks it: "
            "activate the environment made by `make repro`"
        )
    status = main(sys.argv[1:])
    # As Python ends, but for taking torch, pandas and MLflow apart object by object: half a second.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
