"""Processes of their own that tune. They find the folders of tests as pytest does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATHS = [str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])]

_STOPS = """
from mosaic_compile.tuning import autotune
real = autotune.tune
def tune(*args):
    *args, watch = args
    def told(rows, doing):
        if {when}:
            print("now", flush=True)
            __import__("time").sleep(60)
    return real(*args, told)
autotune.tune = tune
"""


def stops_when(condition: str) -> str:
    """Lets tuning say "now" and stop as soon as a condition of `rows` and `doing` holds (see tune.Watch)."""
    return _STOPS.format(when=condition)


def start(program: str) -> subprocess.Popen[str]:
    command, environment = [sys.executable, "-c", program], {"PYTHONPATH": os.pathsep.join(PATHS)}
    return subprocess.Popen(
        command, cwd=ROOT, env=os.environ | environment, stdout=subprocess.PIPE, text=True
    )


def until_now(program: str) -> subprocess.Popen[str]:
    """A process that has said "now"."""
    process = start(program)
    assert process.stdout is not None and process.stdout.readline() == "now\n"
    return process


def kill(process: subprocess.Popen[str]) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def says(program: str) -> str:
    process = start(program)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return out.strip()
