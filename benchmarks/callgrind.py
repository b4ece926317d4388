"""Instructions that a call executes, counted by valgrind's callgrind: what a busy machine cannot blur. For Linux."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path


def is_installed() -> bool:
    return all(map(shutil.which, ("valgrind", "setarch")))


def instructions(setup: str, call: str) -> int:
    """How many instructions one more execution of `call` takes, in a Python process that has executed `setup`.

    The process is run twice, with two calls and with three: all else cancels out, since addresses are not random; what the
    interpreter does around a call is counted. It runs on one thread. valgrind knows no AVX-512: what chooses its code by the
    machine counts as AVX2. Raises RuntimeError with what the process said where it fails.
    """
    once, twice = (_collected(f"{setup}\n" + f"{call}\n" * calls) for calls in (2, 3))
    return twice - once


def _collected(program: str) -> int:
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "program.py"
        script.write_text(program)
        tool = ["setarch", "-R", "valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out"]
        threads = dict.fromkeys(["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MOSAIC_NUM_THREADS"], "1")
        steady = {"PYTHONHASHSEED": "0", "OPENBLAS_CORETYPE": "Haswell"}
        done = subprocess.run(
            [*tool, sys.executable, script], env=os.environ | threads | steady, capture_output=True, text=True
        )
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or found is None:
        raise RuntimeError(f"valgrind ended with status {done.returncode}:\n{done.stderr[-2000:]}")
    return int(found[1])
