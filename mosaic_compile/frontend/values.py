"""Values that become results of `scf` operations: tiles, numbers, and tuples of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from mosaic_compile.language.dtypes import bool_
from mosaic_compile.language.op import constant, default_dtype, is_number
from mosaic_compile.language.tile import Array, Tile

HOLE = object()  # stands for a tile that is not made yet


def holes(value: Any) -> Any:
    """A tile, or a tuple of tiles, with a HOLE in place of each."""
    return like(value, (holes(v) for v in value)) if isinstance(value, tuple) else HOLE


def like(form: Any, items: Iterable[Any]) -> Any:
    """A tuple or list of the same kind, named tuples included, with other items."""
    return form._make(items) if hasattr(form, "_make") else type(form)(items)


def fill(form: Any, tiles: Iterator[Tile]) -> Any:
    """`form` with every HOLE replaced by the next tile."""
    if isinstance(form, tuple | list):
        return like(form, (fill(v, tiles) for v in form))
    return next(tiles) if form is HOLE else form


def flatten(value: Any) -> list[Tile]:
    return [t for v in value for t in flatten(v)] if isinstance(value, tuple) else [value]


def runtime_form(value: Any) -> Any:
    """A variable as a loop can carry it: a tile or a tuple of them, numbers as scalars. None: it cannot."""
    if isinstance(value, Tile):
        return value
    if is_number(value):
        return constant(value, default_dtype(value))
    if isinstance(value, tuple | list) and value:
        items = [runtime_form(v) for v in value]
        return (
            None if any(i is None for i in items) else like(value if isinstance(value, tuple) else (), items)
        )
    return None


def match(before: Any, after: Any) -> list[Tile] | None:
    """The tiles of `after`, if it has the types of `before`; numbers take the type they had."""
    if isinstance(before, tuple):
        if not isinstance(after, tuple | list) or len(after) != len(before):
            return None
        parts = [match(b, a) for b, a in zip(before, after)]
        return None if any(p is None for p in parts) else [t for p in parts if p is not None for t in p]
    if is_number(after):
        is_whole = not isinstance(after, float)
        fits = before.dtype.is_float or is_whole
        same_kind = isinstance(after, bool) == (before.dtype is bool_)
        return [constant(after, before.dtype)] if before.shape == () and fits and same_kind else None
    if isinstance(after, Tile) and (after.dtype, after.shape) == (before.dtype, before.shape):
        return [after]
    return None


def same_constant(a: Any, b: Any) -> bool:
    """Whether two compile-time values are equal."""
    if a is b:
        return True
    if isinstance(a, Tile | Array) or isinstance(b, Tile | Array):
        return False
    try:
        return type(a) is type(b) and bool(a == b)
    except Exception:
        return False
