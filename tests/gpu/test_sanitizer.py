"""Every kernel of the library, plainly and under each tool of compute-sanitizer: each_kernel.py, as a process of its own.

By hand, with a folder that keeps what the first line compiles:

    export MOSAIC_CACHE_DIR=/tmp/mosaic
    python tests/gpu/each_kernel.py
    compute-sanitizer --tool memcheck --padding 65536 python tests/gpu/each_kernel.py
    compute-sanitizer --tool initcheck --check-api-memory-access no python tests/gpu/each_kernel.py --leave-outputs
    compute-sanitizer --tool synccheck python tests/gpu/each_kernel.py
    compute-sanitizer --tool racecheck python tests/gpu/each_kernel.py

Names of kernels behind a line leave out the others.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import FileLock

from mosaic_compile import kernels

HERE = Path(__file__).parent
SCRIPT = [sys.executable, str(HERE / "each_kernel.py")]
SECONDS = 280  # for a tool
MOST_PROCESSES = 16  # at once: each has a context on the GPU

# For each tool its options, those of the script, and how a log without errors ends.
TOOLS = {
    # What lies beyond the end of an array is not the next array.
    "memcheck": (["--padding", "65536"], [], "ERROR SUMMARY: 0 errors"),
    # Copies of outputs to the host do not count: before version 2025.4 it does not see what TMA writes.
    "initcheck": (["--check-api-memory-access", "no"], ["--leave-outputs"], "ERROR SUMMARY: 0 errors"),
    "synccheck": ([], [], "ERROR SUMMARY: 0 errors"),
    "racecheck": ([], [], "RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)"),
}

sanitized = pytest.mark.skipif(
    shutil.which("compute-sanitizer") is None, reason="compute-sanitizer of the CUDA toolkit is not installed"
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Its folder, one for all of pytest's workers."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "each-kernel"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def plain(cache):
    """The exit code and the log of each kernel's cases, without compute-sanitizer. After it, all are compiled.

    The first of pytest's workers runs them, the others wait for what it has seen.
    """
    seen = cache / "plain.json"
    with FileLock(cache / "plain.lock"):
        if not seen.exists():
            with ThreadPoolExecutor(min(os.cpu_count() or 1, MOST_PROCESSES)) as pool:
                runs = {n: pool.submit(run, [*SCRIPT, n], cache / f"{n}.log", cache) for n in kernels.__all__}
            seen.write_text(json.dumps({name: each.result() for name, each in runs.items()}))
    return json.loads(seen.read_text())


def run(command: list[str], log: Path, cache: Path) -> tuple[int, str]:
    """The exit code and the output of a process; one that takes too long is ended, with all that it has started."""
    environment = os.environ | {"MOSAIC_CACHE_DIR": str(cache), "PYTHONPATH": path_with(HERE)}
    with log.open("w") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        try:
            return process.wait(SECONDS), log.read_text(errors="replace")
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"not done after {SECONDS} s; its last words:\n{end_of(log.read_text())}"
            ) from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def path_with(folder: Path) -> str:
    return os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])


def end_of(log: str) -> str:
    return "\n".join(log.splitlines()[-250:])


def under(tool: str, command: list[str], log: Path, cache: Path) -> tuple[int, str]:
    options = ["--error-exitcode", "99", "--print-limit", "20", "--show-backtrace", "device"]
    # Only the process itself: what it starts does not use the GPU.
    options += ["--target-processes", "application-only", *TOOLS[tool][0]]
    code, text = run(["compute-sanitizer", "--tool", tool, *options, *command], log, cache)
    if "Device not supported" in text:  # in some virtual machines
        pytest.skip("compute-sanitizer does not support this GPU here")
    return code, text


@pytest.mark.parametrize("name", kernels.__all__)
def test_each_kernel(plain, name):
    code, log = plain[name]
    assert code == 0, end_of(log)


@sanitized
@pytest.mark.parametrize("tool", TOOLS)
def test_each_kernel_under(tool, plain, cache, tmp_path):
    _, more, clean = TOOLS[tool]
    code, log = under(tool, [*SCRIPT, *more], tmp_path / "log", cache)
    assert code == 0 and clean in log, f"exit code {code}\n{end_of(log)}"


PLANTED = """
import numpy as np
from each_kernel import OnGpu
from mosaic_compile.kernels import vector_add

x = OnGpu(np.ones(1000, np.float32), copied={copied})
out = OnGpu(np.ones({elements}, np.float32), copied=True)
out.__cuda_array_interface__["shape"] = (1000,)
vector_add(x, x, out)
out.to_host()
"""


@sanitized
@pytest.mark.parametrize(
    "tool, copied, elements, message",
    [
        ("memcheck", True, 900, "Invalid __global__ write"),
        ("initcheck", False, 1000, "Uninitialized __global__ memory read"),
    ],
)
def test_planted_errors_are_found(tool, copied, elements, message, cache, tmp_path):
    """An array that says it is longer than it is, and one that nothing was written to."""
    program = PLANTED.format(copied=copied, elements=elements)
    code, log = under(tool, [sys.executable, "-c", program], tmp_path / "log", cache)
    assert code != 0 and message in log and "vector_add" in log, f"exit code {code}\n{end_of(log)}"
