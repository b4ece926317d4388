"""Reductions and scans along an axis."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from mosaic_compile.dialects.tile import MAX_COMBINED, ReduceOp, ScanOp, YieldOp, several
from mosaic_compile.errors import CarriedTypeError, ElementTypeError, OperandError, ShapeError
from mosaic_compile.mlir import ir

from ..dtypes import DType, bool_, f32, i32
from ..op import (
    bool_attribute,
    broadcast,
    ir_type,
    op,
    require_arithmetic,
    require_axis,
    require_bool,
    require_constant,
    require_tile,
)
from ..tile import Tile
from .convert import convert
from .creation import iota
from .elementwise import (
    add,
    bitwise_and,
    bitwise_or,
    divide,
    equal,
    greater,
    less,
    maximum,
    minimum,
    multiply,
    not_equal,
    where,
)
from .shape import integer, reshape

Combine = Callable[..., Any]


def _tiles(what: str, value: Any) -> list[Tile]:
    items = list(value) if isinstance(value, tuple | list) else [value]
    tiles = [require_tile(item, what) for item in items]
    if not tiles:
        raise OperandError(f"{what} takes a tile or a tuple of tiles", "pass at least one")
    if len(tiles) > MAX_COMBINED:
        raise OperandError(
            f"{what} combines at most {MAX_COMBINED} tiles, not {len(tiles)}", "use two of them"
        )
    for tile in tiles:
        if not tile.shape:
            raise ShapeError(
                f"{what} takes a tile with dimensions, not a scalar {tile!r}", "a scalar is its own reduction"
            )
        if tile.shape != tiles[0].shape:
            raise ShapeError(
                f"{what} takes tiles of one shape, not {tiles[0]!r} and {tile!r}", "broadcast them first"
            )
    return tiles


def _fill_combine(region: ir.Region, tiles: list[Tile], combine: Combine, what: str) -> None:
    """Traces `combine` on scalars into the region: first the accumulated ones, then the next element's."""
    element_types = [ir_type(t.dtype) for t in tiles]
    block = ir.Block.create_at_start(region, element_types * 2, [ir.Location.current] * (2 * len(tiles)))
    with ir.InsertionPoint(block):
        scalars = [Tile(value, tile.dtype, ()) for value, tile in zip(block.arguments, tiles * 2)]
        outcome = combine(*scalars)
        results = list(outcome) if isinstance(outcome, tuple | list) else [outcome]
        types = ", ".join(map(repr, results))
        expected = ", ".join(map(repr, (t.dtype for t in tiles)))
        if types != expected:
            raise CarriedTypeError(
                f"{what}'s function must return ({expected}), but this one returns ({types})",
                "return one scalar of the same element type for each tile",
            )
        several(YieldOp, [r.value for r in results])


@op()
def reduce(x: Any, axis: int | None, combine: Combine, *, keepdims: bool = False) -> Any:
    """x combined along `axis` (all axes: None) by a function of two scalars, which must be associative and
    commutative.

    x may be a tuple of tiles of one shape: then the function takes all accumulated scalars, then all of the
    next element, and returns a tuple; so does reduce. The order of combination is not fixed.
    """
    tiles = _tiles("mc.reduce", x)
    if not callable(combine) or isinstance(combine, DType):
        raise OperandError("mc.reduce takes a function of two scalars", "mc.reduce(x, 0, lambda a, b: a * b)")
    outputs = _reduce("mc.reduce", tiles, axis, combine, keepdims)
    return tuple(outputs) if isinstance(x, tuple | list) else outputs[0]


def _reduce(what: str, tiles: list[Tile], axis: int | None, combine: Combine, keepdims: bool) -> list[Tile]:
    shape = tiles[0].shape
    if axis is None:
        kept: tuple[int, ...] = (1,) * len(shape)
        tiles = [reshape(t, (math.prod(shape),)) for t in tiles]
        axis = 0
    else:
        axis = require_axis(axis, len(shape), what)
        kept = (*shape[:axis], 1, *shape[axis + 1 :])
    reduced = (*tiles[0].shape[:axis], *tiles[0].shape[axis + 1 :])
    types = [ir_type(t.dtype, reduced) for t in tiles]
    op_ = several(ReduceOp, [t.value for t in tiles], integer(axis), results=types)
    _fill_combine(op_.combine, tiles, combine, what)
    outputs = [Tile(value, tile.dtype, reduced) for value, tile in zip(op_.operation.results, tiles)]
    return (
        [reshape(t, kept) for t in outputs]
        if require_constant(keepdims, bool, f"{what}'s keepdims")
        else outputs
    )


def _wide(x: Tile) -> Tile:
    """The type in which sums are accumulated: f32 for narrower floats, i32 for narrower integers and truth
    values."""
    if x.dtype.is_float:
        return convert(x, f32) if x.dtype.bits < 32 else x
    return convert(x, i32) if x.dtype.bits < 32 else x


def _result_of_sum(total: Tile, x: Tile) -> Tile:
    return convert(total, x.dtype) if x.dtype.is_float else total


@op(reference=lambda x, axis=None, keepdims=False: np.sum(x, axis, keepdims=keepdims))
def sum(x: Any, axis: int | None = None, *, keepdims: bool = False) -> Tile:
    """The sum along `axis` (None: of all elements). f16 and bf16 add up in f32; narrow integers and bool give
    i32."""
    tile = _tiles("mc.sum", x)[0]
    return _result_of_sum(_reduce("mc.sum", [_wide(tile)], axis, add, keepdims)[0], tile)


@op(reference=lambda x, axis=None, keepdims=False: np.mean(x, axis, keepdims=keepdims))
def mean(x: Any, axis: int | None = None, *, keepdims: bool = False) -> Tile:
    """The mean along `axis` of a floating-point tile, computed in f32 (f64 for f64)."""
    tile = _tiles("mc.mean", x)[0]
    if not tile.dtype.is_float:
        raise ElementTypeError(
            f"mc.mean takes a floating-point tile, not {tile!r}", "convert it: x.to(mc.f32)"
        )
    count = math.prod(tile.shape) if axis is None else tile.shape[require_axis(axis, tile.ndim, "mc.mean")]
    total = _reduce("mc.mean", [_wide(tile)], axis, add, keepdims)[0]
    return _result_of_sum(divide(total, float(count)), tile)


@op(reference=lambda x, axis=None, keepdims=False: np.prod(x, axis, keepdims=keepdims))
def prod(x: Any, axis: int | None = None, *, keepdims: bool = False) -> Tile:
    """The product along `axis`; types as mc.sum."""
    tile = _tiles("mc.prod", x)[0]
    return _result_of_sum(_reduce("mc.prod", [_wide(tile)], axis, multiply, keepdims)[0], tile)


def _ordered(what: str, x: Any) -> Tile:
    tile = require_arithmetic(_tiles(what, x)[0], what)
    if tile.dtype is bool_:
        raise ElementTypeError(f"{what} does not order truth values (bool)", "use mc.any or mc.all")
    return tile


@op(reference=lambda x, axis=None, keepdims=False: np.max(x, axis, keepdims=keepdims))
def max(x: Any, axis: int | None = None, *, keepdims: bool = False) -> Tile:
    """The largest element along `axis` (None: of all); NaN if there is one."""
    return _reduce("mc.max", [_ordered("mc.max", x)], axis, maximum, keepdims)[0]


@op(reference=lambda x, axis=None, keepdims=False: np.min(x, axis, keepdims=keepdims))
def min(x: Any, axis: int | None = None, *, keepdims: bool = False) -> Tile:
    """The smallest element along `axis` (None: of all); NaN if there is one."""
    return _reduce("mc.min", [_ordered("mc.min", x)], axis, minimum, keepdims)[0]


def _arg_reduce(
    what: str, x: Any, axis: int | None, keepdims: bool, better: Callable[[Any, Any], Tile]
) -> Tile:
    """The first index of the best element; NaN is better than any number, as in NumPy."""
    tile = _ordered(what, x)
    keepdims = require_constant(keepdims, bool, f"{what}'s keepdims")
    if axis is None:
        tile, shape = reshape(tile, (math.prod(tile.shape),)), tile.shape
        index = _reduce_index(tile, 0, better, what)
        return reshape(index, (1,) * len(shape)) if keepdims else index
    axis = require_axis(axis, tile.ndim, what)
    index = _reduce_index(tile, axis, better, what)
    return reshape(index, (*tile.shape[:axis], 1, *tile.shape[axis + 1 :])) if keepdims else index


def _reduce_index(tile: Tile, axis: int, better: Callable[[Any, Any], Tile], what: str) -> Tile:
    positions = reshape(
        iota(tile.shape[axis]), tuple(s if d == axis else 1 for d, s in enumerate(tile.shape))
    )

    def combine(a: Tile, i: Tile, b: Tile, j: Tile) -> tuple[Tile, Tile]:
        wins, same = better(a, b), equal(a, b)
        if tile.dtype.is_float:
            a_nan, b_nan = not_equal(a, a), not_equal(b, b)
            wins = bitwise_or(wins, bitwise_and(a_nan, equal(b, b)))
            same = bitwise_or(same, bitwise_and(a_nan, b_nan))
        first = bitwise_or(wins, bitwise_and(same, less(i, j)))
        return where(first, a, b), where(first, i, j)

    return _reduce(what, [tile, broadcast(positions, tile.shape)], axis, combine, False)[1]


@op(reference=lambda x, axis=None, keepdims=False: np.argmax(x, axis, keepdims=keepdims))
def argmax(x: Any, axis: int | None = None, *, keepdims: bool = False) -> Tile:
    """The index (i32) of the largest element along `axis`, the first of equals; None counts through the whole
    tile."""
    return _arg_reduce("mc.argmax", x, axis, keepdims, greater)


@op(reference=lambda x, axis=None, keepdims=False: np.argmin(x, axis, keepdims=keepdims))
def argmin(x: Any, axis: int | None = None, *, keepdims: bool = False) -> Tile:
    """The index (i32) of the smallest element along `axis`, the first of equals."""
    return _arg_reduce("mc.argmin", x, axis, keepdims, less)


@op(reference=lambda x, axis=None, keepdims=False: np.any(x, axis, keepdims=keepdims))
def any(x: Any, axis: int | None = None, *, keepdims: bool = False) -> Tile:
    """Whether any truth value along `axis` holds."""
    return _reduce("mc.any", [require_bool(_tiles("mc.any", x)[0], "mc.any")], axis, bitwise_or, keepdims)[0]


@op(reference=lambda x, axis=None, keepdims=False: np.all(x, axis, keepdims=keepdims))
def all(x: Any, axis: int | None = None, *, keepdims: bool = False) -> Tile:
    """Whether all truth values along `axis` hold."""
    return _reduce("mc.all", [require_bool(_tiles("mc.all", x)[0], "mc.all")], axis, bitwise_and, keepdims)[0]


@op()
def scan(x: Any, axis: int, combine: Combine, *, reverse: bool = False) -> Any:
    """The running combination along `axis` by an associative function of two scalars (earlier, later);
    inclusive.

    x may be a tuple of tiles, as in mc.reduce. `reverse` runs from the end.
    """
    tiles = _tiles("mc.scan", x)
    if not callable(combine) or isinstance(combine, DType):
        raise OperandError("mc.scan takes a function of two scalars", "mc.scan(x, 0, lambda a, b: a * b)")
    outputs = _scan("mc.scan", tiles, axis, combine, reverse)
    return tuple(outputs) if isinstance(x, tuple | list) else outputs[0]


def _scan(what: str, tiles: list[Tile], axis: int, combine: Combine, reverse: bool) -> list[Tile]:
    axis = require_axis(axis, tiles[0].ndim, what)
    reverse = require_constant(reverse, bool, f"{what}'s reverse")
    types = [t.value.type for t in tiles]
    op_ = several(ScanOp, [t.value for t in tiles], integer(axis), bool_attribute(reverse), results=types)
    _fill_combine(op_.combine, tiles, combine, what)
    return [Tile(value, tile.dtype, tile.shape) for value, tile in zip(op_.operation.results, tiles)]


def _cumulative(function: Any) -> Callable[..., Any]:
    def reference(x: Any, axis: int, reverse: bool = False) -> Any:
        return np.flip(function(np.flip(x, axis), axis), axis) if reverse else function(x, axis)

    return reference


@op(reference=_cumulative(np.cumsum))
def cumsum(x: Any, axis: int, *, reverse: bool = False) -> Tile:
    """The running sum along `axis`, from the end if `reverse`; types as mc.sum."""
    tile = _tiles("mc.cumsum", x)[0]
    return _result_of_sum(_scan("mc.cumsum", [_wide(tile)], axis, add, reverse)[0], tile)


@op(reference=_cumulative(np.cumprod))
def cumprod(x: Any, axis: int, *, reverse: bool = False) -> Tile:
    """The running product along `axis`, from the end if `reverse`; types as mc.sum."""
    tile = _tiles("mc.cumprod", x)[0]
    return _result_of_sum(_scan("mc.cumprod", [_wide(tile)], axis, multiply, reverse)[0], tile)


__all__ = [
    "all",
    "any",
    "argmax",
    "argmin",
    "cumprod",
    "cumsum",
    "max",
    "mean",
    "min",
    "prod",
    "reduce",
    "scan",
    "sum",
]
