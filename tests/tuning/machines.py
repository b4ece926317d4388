"""A machine whose programs take as long as a test says."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np

from mosaic_compile.tuning.model import FLOPS_PER_CLOCK, Rates

# One multiprocessor's worth of whole numbers: 1000 clocks in a microsecond; memory that never limits.
RATES = Rates(4, 1000.0, float("inf"), FLOPS_PER_CLOCK["sm90"])


class Program:
    def __init__(self, artifact):
        self.constants = artifact.manifest["constants"]
        self.options = artifact.manifest["options"]

    def prepare(self, bound):
        return self

    def run(self, addresses, scalars):
        Planned.now = self


class Planned:
    """times: microseconds of a program's launches, by its constants. What ran is in `launched`."""

    now: Program

    def __init__(self, times, resources=lambda program: {}, rates=None, cache_bytes=0):
        self.times, self.resources, self.rates, self.cache_bytes = times, resources, rates, cache_bytes
        self.about = {"device": "a planned machine", "driver": "1"}
        self.launched = []

    def load(self, artifact):
        return Program(artifact)

    @contextmanager
    def memory(self, size):
        yield np.zeros(size, np.uint8).ctypes.data

    def settle(self):
        pass

    def copy(self, to, source, size):
        pass

    def time(self, runs):
        found = []
        for before, launch in runs:
            before()
            launch()
            self.launched.append(Planned.now)
            found.append(self.times(Planned.now))
        return found

    def typical(self, times):
        return sorted(times)[len(times) // 2]
