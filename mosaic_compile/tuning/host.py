"""Timing on this machine's CPU."""

from __future__ import annotations

import ctypes
import functools
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np

from mosaic_compile import targets
from mosaic_compile.artifact import Artifact
from mosaic_compile.runtime import threads

from .machine import Run


class Host:
    """This process's CPU, with as many threads as kernels use now.

    Arrays are as warm as taking turns leaves them. The time of many launches is the shortest: what else runs on the machine
    only ever makes them longer.
    """

    rates = None  # loads are merged and cut to the arrays, which the model does not see

    def __init__(self) -> None:
        self.cache_bytes = targets.host_cpu().caches[-1]
        cpu = targets.host_cpu()
        self.about = {
            "device": f"{_model()} ({cpu.cpu})",
            "threads": str(threads.get_num_threads()),
        }

    def load(self, artifact: Artifact) -> Any:
        from mosaic_compile.runtime.cpu import Program  # LLVM takes its time to load

        return Program(artifact)

    def resources(self, program: Any) -> Mapping[str, int]:
        return {}

    @contextmanager
    def memory(self, size: int) -> Iterator[int]:
        block = np.zeros(size, np.uint8)
        yield block.ctypes.data

    def settle(self) -> None:
        pass

    def copy(self, to: int, source: int, size: int) -> None:
        ctypes.memmove(to, source, size)

    def time(self, runs: Iterable[Run]) -> list[float]:
        times = []
        for before, launch in runs:
            before()
            begin = perf_counter_ns()
            launch()
            times.append((perf_counter_ns() - begin) / 1000)
        return times

    def typical(self, times: Sequence[float]) -> float:
        return min(times)


@functools.cache
def _model(file: Path = Path("/proc/cpuinfo")) -> str:
    """The CPU's name as its maker gives it, where the system says it."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
