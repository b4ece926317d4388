"""Arrays in turn, launches that see them as they were, times on a GPU that is not there."""

from __future__ import annotations

import ctypes
from contextlib import ExitStack

import numpy as np
import pytest

import mosaic_compile as mc
from mosaic_compile.errors import LaunchError
from mosaic_compile.runtime import call, forms, streams
from mosaic_compile.runtime.arguments import bind
from mosaic_compile.tuning import lookup
from mosaic_compile.tuning.arrays import ALIGNMENT, MOST_SETS, array_sets
from mosaic_compile.tuning.gpu import LEAST_FLUSHED, Gpu
from mosaic_compile.tuning.host import Host
from mosaic_compile.tuning.measure import Ready, measure, timing
from tests.runtime.fake_cuda import ADDRESS, FakeDriver
from tests.runtime.fake_tensors import Tensor

from .machines import Planned
from .samples import increment, scale

IN_OUT = dict(x="in", out="out")


def vectors(size=4096):
    return np.ones(size, np.float32), np.zeros(size, np.float32)


def host(cache_bytes):
    machine = Host()
    machine.cache_bytes = cache_bytes
    return machine


def test_sets_exceed_the_cache_twice():
    x, out = vectors()  # 32 KiB
    bound = bind(scale, (x, out), {})
    for cache, count in ((0, 1), (16 * 1024, 1), (17 * 1024, 2), (64 * 1024, 4), (2**30, MOST_SETS)):
        with array_sets(bound, IN_OUT, host(cache)) as sets:
            assert len(sets) == count
            addresses = [address for s in sets for address in s.addresses.values()]
            assert len({*addresses}) == 2 * count


def test_only_what_is_read_is_the_callers_own():
    x, out = vectors()
    bound = bind(scale, (x, out), {})
    with array_sets(bound, IN_OUT, host(64 * 1024)) as sets:
        own = {x.ctypes.data, out.ctypes.data}
        assert [[address in own for address in s.addresses.values()] for s in sets] == [
            [True, False], *[[False, False]] * 3,
        ]  # fmt: skip
        for copies in sets:
            address = copies.addresses["x"]
            found = np.ctypeslib.as_array((ctypes.c_float * 4096).from_address(address))
            np.testing.assert_array_equal(found, x)


def test_copies_lie_as_the_arrays_do():
    memory = np.zeros(5000, np.float32)
    start = -memory.ctypes.data % ALIGNMENT // 4
    x = memory[start + 3 : start + 103][::-1]  # 12 bytes behind a multiple of 256, from the end to the start
    x[:] = np.arange(100)
    bound = bind(scale, (x, np.zeros(100, np.float32)), {})
    with array_sets(bound, IN_OUT, host(2**20)) as sets:
        low, _ = bound.arrays["x"].extent
        for copies in sets[1:]:
            address = copies.addresses["x"] - (bound.arrays["x"].address - low)
            assert address % ALIGNMENT == 12
            found = np.ctypeslib.as_array((ctypes.c_float * 100).from_address(address))
            np.testing.assert_array_equal(found, x[::-1])


def test_each_launch_sees_what_the_caller_passed():
    """The sum of many launches is that of one."""
    x = np.arange(4096, dtype=np.float32)
    bound = bind(increment, (x,), {})
    program = call.loaded(increment, bound)
    machine = host(2**20)
    with array_sets(bound, dict(x="inout"), machine) as sets:
        Ready(program.prepare(bound), {}, sets, machine).times(3 * len(sets) + 1)
        for copies in sets:
            found = np.ctypeslib.as_array((ctypes.c_float * 4096).from_address(copies.addresses["x"]))
            np.testing.assert_array_equal(found, np.arange(4096) + 1)
    np.testing.assert_array_equal(x, np.arange(4096))


def test_outliers_do_not_count():
    times = [10.0] * 90 + [9.0] * 5 + [5000.0] * 5
    found = timing(times, Planned(None))
    assert (found.microseconds, found.low, found.high, found.launches) == (10.0, 10.0, 10.0, 100)


def test_short_kernels_are_launched_more_often():
    def launches(microseconds):
        machine = Planned(lambda program: microseconds)
        program = machine.load(type("A", (), dict(manifest=dict(constants={}, options={}))))
        with array_sets(bind(scale, vectors(), {}), IN_OUT, machine) as sets:
            return measure(Ready(program, {}, sets, machine), float("inf")).launches

    assert [launches(t) for t in (0.1, 1.0, 1000.0, 1e6)] == [300, 300, 100, 5]


# A GPU, as its driver sees it.

STREAM = 0x55
L2 = 50 * 2**20


@mc.kernel(grid=lambda N, B: (mc.cdiv(N, B),), tune=[dict(B=64, num_warps=1), dict(B=128, num_warps=4)])
def accumulate(x: mc.f32["N"], total: mc.InOut[mc.f32["N"]], *, B: mc.Const):
    i = mc.program_id(0)
    mc.store(total, i, mc.load(total, i, B) + mc.load(x, i, B))


class ClockedDriver(FakeDriver):
    """A launch takes 100 microseconds for each warp less than 8; writing over memory 70, and copying 20."""

    def __init__(self) -> None:
        super().__init__()
        self.clock, self.events = 0.0, {}

    def _cuDeviceGetAttribute(self, value, attribute, device):
        found = {75: 9, 76: 0, 13: 1_980_000, 36: 3_201_000, 37: 6144, 38: L2}
        value._obj.value = found.get(attribute, 132)

    def _cuDeviceGetName(self, name, size, device):
        name.value = b"NVIDIA H200"

    def _cuDriverGetVersion(self, version):
        version._obj.value = 12090

    def _cuEventCreate(self, event, flags):
        event._obj.value = 1000 + len(self.of("cuEventCreate"))

    def _cuEventRecord(self, event, stream):
        self.events[event.value] = self.clock

    def _cuEventElapsedTime(self, milliseconds, begin, end):
        milliseconds._obj.value = (self.events[end.value] - self.events[begin.value]) / 1000

    def _cuMemsetD8Async(self, *rest):
        self.clock += 70

    def _cuMemcpyDtoDAsync_v2(self, *rest):
        self.clock += 20

    def _cuLaunchKernelEx(self, config, *rest):
        super()._cuLaunchKernelEx(config, *rest)
        self.clock += 100 * (8 - self.launches[-1].block[0] // 32)


@pytest.fixture
def driver(monkeypatch):
    monkeypatch.setattr(streams, "_torch_stream", lambda device: STREAM)
    for cached in (call._target, lookup._gpu):
        cached.cache_clear()
    driver = ClockedDriver()
    driver.parameters = 5
    yield driver.install(monkeypatch.setattr)
    for cached in (call._target, lookup._gpu):
        cached.cache_clear()


def tensors():
    return Tensor(4096, offset=0x100000), Tensor(4096, offset=0x200000)


def test_a_kernel_is_tuned_on_a_gpu(driver):
    report = accumulate.autotune(*tensors())
    assert report.about["device"] == "NVIDIA H200 (sm90)" and report.about["driver"].startswith("CUDA 12.9")
    assert report.best.entry == dict(B=128, num_warps=4)
    assert [row.microseconds for row in report.rows] == pytest.approx([700.0, 400.0], rel=1e-6)
    assert [dict(row.resources) for row in report.rows] == [
        dict(registers=42, local_memory=8, shared_memory=16)
    ] * 2
    assert all(row.predicted is not None for row in report.rows)
    forms.forget()
    accumulate(*tensors())
    assert driver.launches[-1].block == [128, 1, 1]


def test_a_timed_launch_comes_behind_the_copy_and_the_flush(driver):
    accumulate.autotune(*tensors())
    interesting = {
        "cuMemcpyDtoDAsync_v2": "copy", "cuMemsetD8Async": "flush", "cuEventRecord": "event", "cuLaunchKernelEx": "launch",
    }  # fmt: skip
    order = [interesting[name] for name, _ in driver.calls if name in interesting]
    begin = order.index("flush") - 1
    cycle = ["copy", "flush", "event", "launch", "event"]
    assert order[begin:] == cycle * ((len(order) - begin) // 5)
    assert {args[2].value for args in driver.of("cuMemsetD8Async")} == {
        LEAST_FLUSHED
    }  # more than four times the cache
    assert {args[3].value for args in driver.of("cuMemsetD8Async")} == {STREAM}
    assert {launch.stream for launch in driver.launches} == {STREAM}


def test_the_callers_memory_on_a_gpu_is_not_written(driver):
    x, total = tensors()
    accumulate.autotune(x, total)
    own = {ADDRESS + 0x100000, ADDRESS + 0x200000}
    first = [int.from_bytes(launch.values[0], "little") for launch in driver.launches]
    second = [int.from_bytes(launch.values[1], "little") for launch in driver.launches]
    assert ADDRESS + 0x100000 in first and not own & {*second}
    assert len({*second}) == MOST_SETS
    written = {args[0].value for args in driver.of("cuMemcpyDtoDAsync_v2")}
    assert not own & written
    assert {address % ALIGNMENT for address in second} == {(ADDRESS + 0x200000) % ALIGNMENT}


def test_what_is_allocated_on_a_gpu_is_freed(driver):
    accumulate.autotune(*tensors())
    allocated, freed = driver.of("cuMemAlloc_v2"), driver.of("cuMemFree_v2")
    assert len(allocated) == len(freed) > 2 * MOST_SETS - 1
    assert len(driver.of("cuEventCreate")) == len(driver.of("cuEventDestroy_v2"))


def test_a_gpu_without_memory_for_copies(driver):
    driver.fails["cuMemAlloc_v2"] = 2
    with pytest.raises(LaunchError) as raised:
        accumulate.autotune(*tensors())
    assert raised.value.message.endswith(
        "bytes of GPU memory cannot be had: out of memory (CUDA_ERROR_OUT_OF_MEMORY)"
    )


def test_the_gpus_rates(driver):
    rates = Gpu(0).rates
    assert (rates.multiprocessors, rates.clocks) == (132, 1980.0)
    assert rates.memory_bytes == pytest.approx(4.9e6, rel=0.01)  # 4.8 TB/s, says the data sheet


def test_memory_on_a_gpu_is_there_inside(driver):
    with ExitStack() as memory:
        memory.enter_context(Gpu(0).memory(1024))
        assert not driver.of("cuMemFree_v2")
    assert len(driver.of("cuMemFree_v2")) == 1
