"""The helpers' lives: they spin, sleep, wake, get memory, and end with the process."""

import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

import mosaic_compile as mc
from mosaic_compile.runtime import threads


@mc.kernel(grid=lambda M: (M,))
def centred(x: mc.f32["M", "N"], out: mc.Out[mc.f32["M", "N"]], *, BN: mc.Const = 64):
    """Keeps its tile in scratch memory."""
    m = mc.program_id(0)
    row = mc.exp(mc.load(x, (m, 0), (1, BN)))
    mc.store(out, (m, 0), row - row.max(1, keepdims=True))


@pytest.fixture
def pool(monkeypatch):
    before = threads.get_num_threads()
    threads.set_num_threads(3)
    made = threads._Pool()
    monkeypatch.setattr(threads, "_pool", made)
    yield made
    made.stop()
    threads.set_num_threads(before)


def check_call(columns: int) -> None:
    x = np.random.default_rng(0).standard_normal((3000, columns), np.float32)
    out = np.empty_like(x)
    for _ in range(2):  # the first call's time says that helpers are worth while
        centred(x, out, BN=columns)
    e = np.exp(x.astype(np.float64))
    np.testing.assert_allclose(out, e - e.max(1, keepdims=True), atol=2e-5, rtol=0)


def test_they_sleep_and_wake(pool):
    check_call(64)
    assert len(pool.helpers) == 2
    for _ in range(500):
        if len(pool.asleep) == 2:
            break
        time.sleep(0.01)
    assert len(pool.asleep) == 2
    check_call(64)
    assert len(pool.helpers) == 2


def test_larger_kernels_get_more_memory(pool):
    check_call(32)
    check_call(512)
    check_call(64)


def test_they_end(pool):
    check_call(64)
    pool.stop()
    assert not any(helper.is_alive() for helper in pool.helpers)


CALL = """
    import os, sys
    import numpy as np
    import mosaic_compile as mc
    from mosaic_compile.kernels import softmax

    mc.set_num_threads(2)
    x = np.ones((2048, 512), np.float32)
    out = np.empty_like(x)
    for _ in range(3):
        softmax(x, out)
"""


def _run(text: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CALL + text)], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_process_ends_while_they_spin():
    _run("")


@pytest.mark.skipif(not hasattr(threads.os, "fork"), reason="no fork")
def test_a_forked_process_has_helpers_of_its_own():
    _run("""
    child = os.fork()
    if child == 0:
        out[:] = 0
        softmax(x, out)
        sys.exit(0 if np.allclose(out, 1 / 512) else 3)
    assert os.waitpid(child, 0)[1] == 0
    softmax(x, out)
    """)
