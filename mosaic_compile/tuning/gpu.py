"""Timing on an NVIDIA GPU."""

from __future__ import annotations

import ctypes
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from mosaic_compile.artifact import Artifact
from mosaic_compile.runtime import cuda
from mosaic_compile.runtime.launch import Launcher
from mosaic_compile.runtime.streams import current_stream

from .machine import Run
from .model import FLOPS_PER_CLOCK, Rates

# CUdevice_attribute
_CLOCK_RATE, _MEMORY_CLOCK_RATE, _MEMORY_BUS_WIDTH, _L2_CACHE_SIZE = 13, 36, 37, 38
FLUSHED = 4  # times the L2 cache: what is written over before a launch
LEAST_FLUSHED = 256 * 2**20  # bytes: the GPU is busy with them while the host prepares the launch
AT_ONCE = 64  # launches that are in the queue together


class Gpu:
    """One NVIDIA GPU, used through the current stream.

    Before each launch the L2 cache is written over. CUDA events around the launch measure it; meanwhile the host is ahead of
    the GPU, so that the time in which Python launches is not in it. The time of many launches is their median.
    """

    def __init__(self, device: int):
        self.device = device
        self.cache_bytes = cuda.device_attribute(_L2_CACHE_SIZE, device)
        capability = cuda.compute_capability(device)
        assert capability is not None
        target = f"sm{capability[0]}{capability[1]}"
        flops = FLOPS_PER_CLOCK.get(target)
        self.rates = None if flops is None else _rates(device, flops)
        name, version = ctypes.create_string_buffer(256), ctypes.c_int()
        what = f"GPU {device} cannot be asked for its name"
        cuda.check(cuda.driver().cuDeviceGetName(name, len(name), device), what)
        cuda.check(cuda.driver().cuDriverGetVersion(ctypes.byref(version)), what)
        self.about = {
            "device": f"{name.value.decode()} ({target})",
            "driver": f"CUDA {version.value // 1000}.{version.value % 1000 // 10}{_module_version()}",
        }

    def load(self, artifact: Artifact) -> Launcher:
        return Launcher(artifact, self.device)

    def resources(self, program: Launcher) -> Mapping[str, int]:
        found = program.resources
        return {
            "registers": found.registers,
            "local_memory": found.local_memory,
            "shared_memory": found.shared_memory,
        }

    @contextmanager
    def memory(self, size: int) -> Iterator[int]:
        with cuda.using_device(self.device):
            address = cuda.allocate(size)
        try:
            yield address
        finally:
            self.settle()
            with cuda.using_device(self.device):
                cuda.free(address)

    def settle(self) -> None:
        with cuda.using_device(self.device):
            cuda.check(cuda.driver().cuCtxSynchronize(), "the GPU's work cannot be waited for")

    def copy(self, to: int, source: int, size: int) -> None:
        if not size:
            return
        with cuda.using_device(self.device):
            result = cuda.driver().cuMemcpyDtoDAsync_v2(
                ctypes.c_uint64(to),
                ctypes.c_uint64(source),
                ctypes.c_size_t(size),
                ctypes.c_void_p(current_stream(self.device)),
            )
            cuda.check(result, "an array cannot be copied on the GPU")

    def time(self, runs: Iterable[Run]) -> list[float]:
        size = max(FLUSHED * self.cache_bytes, LEAST_FLUSHED)
        times: list[float] = []
        with ExitStack() as resources:
            resources.enter_context(cuda.using_device(self.device))
            buffer = resources.enter_context(self.memory(size))
            events = [
                (resources.enter_context(_event()), resources.enter_context(_event())) for _ in range(AT_ONCE)
            ]
            stream = ctypes.c_void_p(current_stream(self.device))
            used = 0
            for before, launch in runs:
                before()
                self._flush(buffer, size, stream)
                begin, end = events[used]
                _record(begin, stream)
                launch()
                _record(end, stream)
                used += 1
                if used == AT_ONCE:
                    times += [_elapsed(begin, end) for begin, end in events]
                    used = 0
            times += [_elapsed(begin, end) for begin, end in events[:used]]
        return times

    def _flush(self, buffer: int, size: int, stream: ctypes.c_void_p) -> None:
        result = cuda.driver().cuMemsetD8Async(
            ctypes.c_uint64(buffer), ctypes.c_ubyte(0), ctypes.c_size_t(size), stream
        )
        cuda.check(result, "the L2 cache cannot be written over")

    def typical(self, times: Sequence[float]) -> float:
        return statistics.median(times)


def _rates(device: int, flops: Mapping[int | str, int]) -> Rates:
    kilohertz, memory_kilohertz, bus_bits = (
        cuda.device_attribute(number, device)
        for number in (_CLOCK_RATE, _MEMORY_CLOCK_RATE, _MEMORY_BUS_WIDTH)
    )
    return Rates(
        cuda.device_attribute(cuda.MULTIPROCESSOR_COUNT, device),
        kilohertz / 1000,
        2 * memory_kilohertz * bus_bits / 8 / 1000 or math.inf,  # twice in a clock; some GPUs do not say
        flops,
    )


def _module_version(file: Path = Path("/sys/module/nvidia/version")) -> str:
    """The version of the system's driver, where the system says it."""
    try:
        return f", {file.read_text().strip()}"
    except OSError:
        return ""


@contextmanager
def _event() -> Iterator[ctypes.c_void_p]:
    event, what = ctypes.c_void_p(), "a CUDA event cannot be made"
    cuda.check(cuda.driver().cuEventCreate(ctypes.byref(event), 0), what)
    try:
        yield event
    finally:
        cuda.driver().cuEventDestroy_v2(event)


def _record(event: ctypes.c_void_p, stream: ctypes.c_void_p) -> None:
    cuda.check(cuda.driver().cuEventRecord(event, stream), "a CUDA event cannot be recorded")


def _elapsed(begin: ctypes.c_void_p, end: ctypes.c_void_p) -> float:
    """Microseconds between two events, once the second has come."""
    milliseconds = ctypes.c_float()
    cuda.check(cuda.driver().cuEventSynchronize(end), "the kernel cannot be waited for")
    what = "the time between two CUDA events cannot be had"
    cuda.check(cuda.driver().cuEventElapsedTime(ctypes.byref(milliseconds), begin, end), what)
    return milliseconds.value * 1000
