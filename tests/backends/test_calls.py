"""Kernels called on arrays of the host, compiled for this machine's CPU."""

import ctypes
import threading
from time import perf_counter

import numpy as np
import pytest

import mosaic_compile as mc
from mosaic_compile.errors import ArgumentError
from mosaic_compile.runtime import call, threads


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch, tmp_path_factory):
    monkeypatch.setattr(call, "RUNS_ON_CPU", True)
    monkeypatch.delenv("MOSAIC_INTERPRET", raising=False)


@mc.kernel(grid=lambda N, BLOCK: (mc.cdiv(N, BLOCK),))
def axpy(x: mc.f32["N"], y: mc.InOut[mc.f32["N"]], a: mc.f32 = 2.0, BLOCK: mc.Const = 64):
    i = mc.program_id(0)
    mc.store(y, (i,), mc.load(x, (i,), (BLOCK,)) * a + mc.load(y, (i,), (BLOCK,)))


def arrays(n, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(n, np.float32), rng.standard_normal(n, np.float32)


@pytest.mark.parametrize("n", [0, 1, 64, 1000])
def test_a_call_like_one_before(n):
    x, y = arrays(n)
    for a in (1.5, -3.0):
        expected = x.astype(np.float64) * a + y
        axpy(x, y, a)
        np.testing.assert_allclose(y, expected, rtol=2**-23, atol=2**-22)


def test_what_a_call_leaves_out_has_its_default():
    x, y = arrays(100)
    for _ in range(2):
        expected = x.astype(np.float64) * 2 + y
        axpy(x, y)
        np.testing.assert_allclose(y, expected, rtol=2**-23, atol=2**-22)


def test_names_constants_and_layouts_of_a_call_count():
    x, y = arrays(400)
    expected = y.copy()
    for form in (
        lambda: axpy(x[::2], y[::2], 1.0),
        lambda: axpy(x[:200], y[200:], a=1.0),
        lambda: axpy(x=x[1:101], y=y[3:103], BLOCK=32, a=1.0),
        lambda: axpy(x[::-1], y, 1.0),
    ):
        form()
        form()
    for _ in range(2):
        expected[::2] += x[::2]
    for _ in range(2):
        expected[200:] += x[:200]
    for _ in range(2):
        expected[3:103] += x[1:101]
    for _ in range(2):
        expected += x[::-1]
    np.testing.assert_array_equal(y, expected)


def test_torch_tensors():
    torch = pytest.importorskip("torch")
    x, y = torch.randn(130), torch.zeros(130)
    axpy(x, y, 3.0)
    axpy(x, y, 3.0)
    torch.testing.assert_close(y, x * 3 + x * 3)


def test_mistakes_are_said_whether_or_not_a_like_call_was_before():
    x, y = arrays(100)
    axpy(x, y, 1.0)
    with pytest.raises(ArgumentError, match="shares memory"):
        axpy(y, y, 1.0)
    with pytest.raises(ArgumentError, match="'a' takes a number"):
        axpy(x, y, "1")
    frozen = y.view()
    frozen.flags.writeable = False
    with pytest.raises(ArgumentError, match="cannot be written"):
        axpy(x, frozen, 1.0)
    with pytest.raises(ArgumentError, match="the dimension N is 99 in 'x', but 100 in 'y'"):
        axpy(x[:99], y, 1.0)
    with pytest.raises(ArgumentError, match="unexpected keyword argument 'b'"):
        axpy(x, y, b=1.0)
    bytes_ = np.zeros(401, np.uint8)
    with pytest.raises(ArgumentError, match="'x' does not start at a multiple of 4 bytes"):
        axpy(bytes_[1:].view(np.float32), y, 1.0)


def test_many_threads_compile_and_call_at_once():
    @mc.kernel(grid=lambda N: (mc.cdiv(N, 32),))
    def doubled(x: mc.f32["N"], out: mc.Out[mc.f32["N"]]):
        i = mc.program_id(0)
        mc.store(out, (i,), mc.load(x, (i,), (32,)) * 2.0)

    wrong = []

    def work(n):
        x = np.random.default_rng(n).standard_normal(n, np.float32)
        for _ in range(20):
            out = np.empty_like(x)
            doubled(x, out)
            if not np.array_equal(out, x * 2):
                wrong.append(n)

    workers = [threading.Thread(target=work, args=(n,)) for n in (1, 100, 1000, 100_000)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_number_of_threads(monkeypatch):
    monkeypatch.setattr(threads, "_threads", None)
    monkeypatch.setenv("MOSAIC_NUM_THREADS", "3")
    assert mc.get_num_threads() == 3
    mc.set_num_threads(2)
    assert mc.get_num_threads() == 2
    for wrong in (0, -1, 1.5, True):
        with pytest.raises(ArgumentError, match="is not a number of threads"):
            mc.set_num_threads(wrong)
    monkeypatch.setattr(threads, "_threads", None)
    monkeypatch.setenv("MOSAIC_NUM_THREADS", "many")
    with pytest.raises(mc.MosaicError, match="MOSAIC_NUM_THREADS is 'many'"):
        mc.get_num_threads()


def best(function, repeats=40, calls=500):
    times = []
    for _ in range(repeats):
        start = perf_counter()
        for _ in range(calls):
            function()
        times.append((perf_counter() - start) / calls)
    return min(times)


def test_a_small_call_is_cheap():
    x, y = arrays(64)
    axpy(x, y, 1.0)
    empty = ctypes.CFUNCTYPE(ctypes.c_int)(("getppid", ctypes.CDLL(None)))
    assert best(lambda: axpy(x, y, 1.0)) - best(empty) < 20e-6  # 6 on a quiet machine
