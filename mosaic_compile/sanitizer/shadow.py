"""What is remembered of each element of an array: who wrote it first, added to it first, read it first.

Programs run one after the other, in the order of their numbers. A mark is 0, or (number + 1) << SITE_BITS | site
for the first program that did it, and where: so marks of earlier programs are below those of the current one.
The first suffices: if it is the current program's, no earlier one did the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

SITE_BITS = 20


@dataclass(frozen=True, eq=False)
class Shadow:
    """An array's marks; `reads`, `writes` and `adds` are None where the kernel only reads the array and all of
    it was written before.

    stamps: of each element's last store in a loop whose iterations may overlap, the clock << SITE_BITS | site.
    """

    name: str
    shape: tuple[int, ...]
    uninitialized: bool = False
    writes: Any = None
    adds: Any = None
    reads: Any = None
    stamps: Any = None


def shadow_of(name: str, shape: tuple[int, ...], *, tracked: bool, uninitialized: bool) -> Shadow:
    if not (tracked or uninitialized):
        return Shadow(name, shape)
    return Shadow(name, shape, uninitialized, *(np.zeros(shape, np.int64) for _ in range(4)))


def first_mark(program: int) -> int:
    """The lowest mark of a program by its number: those of earlier programs are below."""
    return (program + 1) << SITE_BITS


def program_of(mark: int) -> int:
    return (mark >> SITE_BITS) - 1


def site_of(mark: int) -> int:
    return mark & ((1 << SITE_BITS) - 1)
