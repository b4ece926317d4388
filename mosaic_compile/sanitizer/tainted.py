"""Values that remember where they went wrong, as in Valgrind's memcheck (Seward and Nethercote, "Using Valgrind
to detect undefined value errors with bit-precision", 2005), but for a whole lane and with the place.

A value without mistakes is the interpreter's own NumPy value. One with mistakes is a `Tainted`: beside each
element stands its origin, 0 or the id of a mistake and of the lane in which it was made. Entries that only
move elements, and reductions, run on both kinds of value, by NumPy's `__array_function__` protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

# An id is rank << LANE_BITS | LAST_LANE - lane. Ranks count down, so that the maximum of two ids is the earlier
# mistake, and of one mistake the first lane; ranks of NaN and infinity, which matter only while the value is not
# finite, are below all others.
LANE_BITS = 32
LAST_LANE = (1 << LANE_BITS) - 1
VALUE_RANK = 1 << 30
FLOAT_RANK = 1 << 29
FLOAT_IDS = np.int64((FLOAT_RANK + 1) << LANE_BITS)  # ids below this are those of NaN and infinity


@dataclass(frozen=True, eq=False, slots=True)
class Tainted:
    """A value of which some elements come from a mistake; `origin` holds int64 ids and has the value's shape."""

    value: Any
    origin: Any

    __array_ufunc__ = None  # arithmetic has entries of its own

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.value.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape

    def __len__(self) -> int:
        return len(self.value)

    def __getitem__(self, index: Any) -> Tainted:
        return Tainted(self.value[index], self.origin[index])

    def reshape(self, shape: tuple[int, ...]) -> Tainted:
        return Tainted(self.value.reshape(shape), self.origin.reshape(shape))

    def transpose(self, order: tuple[int, ...]) -> Tainted:
        return Tainted(self.value.transpose(order), self.origin.transpose(order))

    def __array_function__(self, function: Callable[..., Any], types: Any, args: Any, kwargs: Any) -> Any:
        if function is np.where:
            return select(*args)
        if function in _ASKS:
            return function(*_each(value_of, args), **kwargs)
        if function not in _MOVES:
            return NotImplemented
        values = function(*_each(value_of, args), **kwargs)
        origins = function(*_each(_full_origin, args), **kwargs)
        return list(map(Tainted, values, origins)) if isinstance(values, list) else Tainted(values, origins)


_ASKS = frozenset({np.ndim, np.shape, np.any})
_MOVES = frozenset({np.broadcast_to, np.moveaxis, np.concatenate, np.split})


def _each(part: Callable[[Any], Any], args: Iterable[Any]) -> list[Any]:
    """The values or the origins of a NumPy function's arguments, which may be sequences of arrays."""
    arrays = (np.ndarray, Tainted)
    return [
        part(a)
        if isinstance(a, arrays)
        else [part(item) for item in a]
        if isinstance(a, list | tuple) and any(isinstance(item, arrays) for item in a)
        else a
        for a in args
    ]


def value_of(x: Any) -> Any:
    return x.value if type(x) is Tainted else x


def origin_of(x: Any) -> Any:
    return x.origin if type(x) is Tainted else np.int64(0)


def _full_origin(x: Any) -> Any:
    return x.origin if type(x) is Tainted else np.zeros(np.shape(x), np.int64)


def union(values: Iterable[Any]) -> Any:
    """The origin of what is computed from all of these, element by element: the earliest mistake."""
    return reduce(np.maximum, map(origin_of, values))


def with_origin(value: Any, origin: Any) -> Any:
    """The value with the part of the origin that still matters: NaN and infinity do while it is not finite."""
    passing = origin >= FLOAT_IDS
    if not passing.all():
        is_float = value.dtype.kind == "f" or (value.dtype.kind == "V" and "int" not in value.dtype.name)
        origin = (
            np.where(passing | ~np.isfinite(value), origin, 0) if is_float else np.where(passing, origin, 0)
        )
    if not np.any(origin):
        return value
    return Tainted(value, np.broadcast_to(origin, np.shape(value))[()])


def select(condition: Any, a: Any, b: Any) -> Any:
    """a where the condition holds, b elsewhere; what the condition comes from taints both."""
    chosen = value_of(condition)
    value = np.where(chosen, value_of(a), value_of(b))[()]
    origin = np.where(chosen, origin_of(a), origin_of(b))
    return with_origin(value, np.maximum(origin, origin_of(condition)))
