"""Compile time from a cold start: our matmul for sm90 against the same kernel written in Triton.

Each measurement is a fresh process with empty caches: it imports the compiler, compiles the kernel to a
cubin, and ends. The two alternate, so that a slow phase of the machine meets both.

Usage: python benchmarks/compile_time.py [--runs 9]
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

HERE = Path(__file__).parent

OURS = (
    "from mosaic_compile.cli import main; raise SystemExit(main([{file!r}, '--target', 'sm90', '--timing']))"
)
TRITONS = "import runpy; runpy.run_path({file!r}, run_name='__main__')"


def measure(code: str) -> tuple[float, str]:
    """Seconds from starting the process to its end, and what it wrote to stderr."""
    with tempfile.TemporaryDirectory() as caches:
        environment = {**os.environ, "TRITON_CACHE_DIR": caches, "MOSAIC_CACHE_DIR": caches}
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code], env=environment, capture_output=True, text=True
        )
        seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"a run failed:\n{done.stdout}{done.stderr}")
    return seconds, done.stderr


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=9, help="measurements of each (9)")
    runs = parser.parse_args().runs
    ours = OURS.format(file=str(HERE / "matmul_mosaic.py"))
    tritons = TRITONS.format(file=str(HERE / "matmul_triton.py"))
    measure(ours), measure(tritons)  # the files themselves come into the system's cache
    seconds: dict[str, list[float]] = {"mosaic": [], "triton": []}
    timing = ""
    for _ in range(runs):
        taken, timing = measure(ours)
        seconds["mosaic"].append(taken)
        seconds["triton"].append(measure(tritons)[0])
    import triton

    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    versions = f"Python {platform.python_version()}, Triton {triton.__version__}"
    print(f"{time.strftime('%Y-%m-%d')}, {machine}, {versions}")
    for name, values in seconds.items():
        print(f"{name:7} median {median(values):.3f} s   min {min(values):.3f} s   max {max(values):.3f} s")
    pairs = [a / b for a, b in zip(seconds["mosaic"], seconds["triton"])]
    ratio = median(seconds["mosaic"]) / median(seconds["triton"])
    print(f"ratio   {ratio:.3f} of the medians, {median(pairs):.3f} median of the pairs")
    print("\nour time, step by step (one run):\n" + timing)


if __name__ == "__main__":
    main()
