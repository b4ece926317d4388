"""Arrays for timing: copies, so that the caller's stay as they are, and enough of them that caches cannot keep them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from mosaic_compile.runtime.arguments import Bound
from mosaic_compile.runtime.arrays import ArrayInfo

from .machine import Machine

MOST_SETS = 16
ALIGNMENT = 256  # bytes up to which copies lie as the arrays do


@dataclass(frozen=True)
class ArraySet:
    """addresses: of each array. restore: (to, from, bytes) of what launches read and write, to be copied before each."""

    addresses: Mapping[str, int]
    restore: Sequence[tuple[int, int, int]]


@contextmanager
def array_sets(bound: Bound, access: Mapping[str, str], machine: Machine) -> Iterator[tuple[ArraySet, ...]]:
    """Sets of arrays for a call, to be used in turn, that together are larger than the machine's cache twice.

    access: "in", "out" or "inout" by name. In the first set, arrays that are only read are the caller's own. There are at most
    MOST_SETS. Raises LaunchError where memory runs out.
    """
    size = sum(high - low for low, high in (info.extent for info in bound.arrays.values()))
    count = min(MOST_SETS, max(1, -(-2 * machine.cache_bytes // max(size, 1))))
    machine.settle()
    with ExitStack() as memory:
        sets = []
        for number in range(count):
            addresses, restore = {}, []
            for name, info in bound.arrays.items():
                own = number == 0 and access.get(name, "in") == "in"
                addresses[name] = info.address if own else _copy(info, machine, memory)
                if access.get(name) == "inout":
                    low, high = info.extent
                    restore.append((addresses[name] + low - info.address, low, high - low))
            sets.append(ArraySet(addresses, tuple(restore)))
        yield tuple(sets)


def _copy(info: ArrayInfo, machine: Machine, memory: ExitStack) -> int:
    low, high = info.extent
    shift = low % ALIGNMENT
    start = memory.enter_context(machine.memory(high - low + 2 * ALIGNMENT))
    start += -start % ALIGNMENT + shift
    machine.copy(start, low, high - low)
    return start + info.address - low
