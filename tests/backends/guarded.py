"""Arrays with a guard zone on either side, to see writes outside of them."""

from __future__ import annotations

from typing import Any

import numpy as np

GUARD = 256  # bytes on either side; a multiple of what arrays are aligned to
PATTERN = 0xA5


class Guarded:
    """Copies of a call's arrays: `arrays` lie in memory as the originals do, between guard zones."""

    def __init__(self, arguments: dict[str, Any]):
        self.arrays = dict(arguments)
        self._memory: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for name, value in arguments.items():
            if isinstance(value, np.ndarray):
                self.arrays[name] = self._copy(name, value)

    def _copy(self, name: str, array: np.ndarray) -> np.ndarray:
        low, high = np.lib.array_utils.byte_bounds(array) if array.size else (array.ctypes.data,) * 2
        span = high - low
        memory = np.full(span + 2 * GUARD + 64, PATTERN, np.uint8)
        first = GUARD + (low - memory.ctypes.data - GUARD) % 64  # aligned as the original
        copy = np.ndarray(
            array.shape, array.dtype, memory.data, first + array.ctypes.data - low, array.strides
        )
        between = np.ones(memory.shape, bool)
        places = np.ndarray(
            (*array.shape, array.itemsize),
            bool,
            between.data,
            first + array.ctypes.data - low,
            (*array.strides, 1),
        )
        places[...] = False
        copy[...] = array
        self._memory[name] = memory, between
        return copy

    def check(self) -> None:
        """Raises AssertionError where something else than the arrays' elements was written."""
        for name, (memory, between) in self._memory.items():
            written = np.flatnonzero((memory != PATTERN) & between)
            assert not written.size, f"{len(written)} bytes outside the elements of '{name}' were written"
