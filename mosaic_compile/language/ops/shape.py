"""Changing a tile's shape."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from mosaic_compile.dialects.tile import BroadcastOp, CatOp, PermuteOp, ReshapeOp, SplitOp
from mosaic_compile.errors import MixedTypesError, OperandError, ShapeError
from mosaic_compile.mlir import ir

from ..op import ir_type, kind_of, op, require_axis, require_constant, require_shape, require_tile
from ..tile import Tile


def integer_array(values: Any) -> ir.Attribute:
    return ir.DenseI64ArrayAttr.get([int(v) for v in values])


def integer(value: int) -> ir.Attribute:
    return ir.IntegerAttr.get(ir.IntegerType.get_signless(64), value)


@op(reference=np.reshape)
def reshape(x: Any, shape: Any) -> Tile:
    """The same elements, in row-major order, under another shape; one size may be -1. Scalars reshape to
    all-ones shapes."""
    x = require_tile(x, "mc.reshape")
    sizes = tuple(shape) if isinstance(shape, tuple | list) else (shape,)
    if sum(isinstance(s, int) and s == -1 for s in sizes) == 1:
        require_shape([s for s in sizes if isinstance(s, Tile)], "mc.reshape")  # raises
        known = prod(require_shape([s for s in sizes if s != -1], "mc.reshape"))
        if prod(x.shape) % known:
            raise ShapeError(
                f"{x!r} has {prod(x.shape)} elements, which {known} does not divide",
                "choose sizes whose product divides it",
            )
        sizes = tuple(prod(x.shape) // known if s == -1 else s for s in sizes)
    sizes = require_shape(sizes, "mc.reshape")
    if prod(sizes) != prod(x.shape):
        raise ShapeError(
            f"{x!r} has {prod(x.shape)} elements, the shape {sizes} has {prod(sizes)}",
            "reshape keeps the number of elements",
        )
    if sizes == x.shape:
        return x
    if not sizes:
        raise ShapeError(f"{x!r} cannot be reshaped to a scalar", "reduce it: x.sum()")
    if not x.shape:
        return Tile(BroadcastOp(x.value, ir_type(x.dtype, sizes)).result, x.dtype, sizes)
    return Tile(ReshapeOp(x.value, ir_type(x.dtype, sizes)).result, x.dtype, sizes)


@op(reference=np.expand_dims)
def expand_dims(x: Any, axis: int) -> Tile:
    """x with a dimension of size 1 put in at `axis` of the result; also written x[:, None]."""
    x = require_tile(x, "mc.expand_dims")
    axis = require_axis(axis, x.ndim + 1, "mc.expand_dims")
    return reshape(x, (*x.shape[:axis], 1, *x.shape[axis:]))


@op(reference=np.transpose)
def permute(x: Any, order: Any) -> Tile:
    """x with its dimensions in another order: result dimension i is x's dimension order[i]."""
    x = require_tile(x, "mc.permute")
    order = tuple(
        require_axis(axis, x.ndim, "mc.permute")
        for axis in require_constant(order, (tuple, list), "mc.permute's order")
    )
    if sorted(order) != list(range(x.ndim)):
        raise ShapeError(
            f"{order} is not an order of the {x.ndim} dimensions of {x!r}", "name each dimension once"
        )
    if order == tuple(range(x.ndim)):
        return x
    shape = tuple(x.shape[axis] for axis in order)
    return Tile(PermuteOp(x.value, integer_array(order), ir_type(x.dtype, shape)).result, x.dtype, shape)


@op(reference=lambda x: np.swapaxes(x, -1, -2))
def transpose(x: Any) -> Tile:
    """x with its last two dimensions exchanged; also written x.T."""
    x = require_tile(x, ".T")
    if x.ndim < 2:
        raise ShapeError(
            f"{x!r} has {x.ndim} dimension{'s' * (x.ndim != 1)}, .T needs two",
            "add dimensions first: x[:, None]" if x.ndim else "use it as it is",
        )
    return permute(x, (*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))


@op(reference=np.broadcast_to)
def broadcast_to(x: Any, shape: Any) -> Tile:
    """x repeated to a shape by NumPy's rules."""
    x = require_tile(x, "mc.broadcast_to")
    shape = require_shape(shape, "mc.broadcast_to")
    fits = len(x.shape) <= len(shape) and all(a in (1, b) for a, b in zip(reversed(x.shape), reversed(shape)))
    if not fits:
        raise ShapeError(
            f"{x!r} does not broadcast to {shape}",
            "dimensions are matched from the right and must be equal or 1",
        )
    return (
        x if x.shape == shape else Tile(BroadcastOp(x.value, ir_type(x.dtype, shape)).result, x.dtype, shape)
    )


@op(reference=lambda tiles, axis=0: np.concatenate(tiles, axis))
def cat(tiles: Any, axis: int = 0) -> Tile:
    """Tiles of one type one after the other along `axis`; a power of two of them, all of one shape."""
    if isinstance(tiles, Tile):
        raise OperandError(f"mc.cat takes a tuple of tiles, not {kind_of(tiles)}", "mc.cat((a, b), axis)")
    tiles = [require_tile(t, "mc.cat") for t in require_constant(tiles, (tuple, list), "mc.cat's tiles")]
    if not tiles or len(tiles) & (len(tiles) - 1):
        raise ShapeError(f"mc.cat joins 2, 4, 8 … tiles, not {len(tiles)}", "pad with mc.zeros tiles")
    first = tiles[0]
    axis = require_axis(axis, first.ndim, "mc.cat")
    for tile in tiles[1:]:
        if tile.dtype is not first.dtype:
            raise MixedTypesError(
                f"mc.cat has mixed element types: {first!r} and {tile!r}", f"convert: .to(mc.{first.dtype})"
            )
        if tile.shape != first.shape:
            raise ShapeError(
                f"mc.cat joins tiles of one shape, not {first!r} and {tile!r}",
                "split the larger, or pad the smaller",
            )
    while len(tiles) > 1:  # pairs of neighbours, so that the order stays
        tiles = [_cat2(a, b, axis) for a, b in zip(tiles[::2], tiles[1::2])]
    return tiles[0]


def _cat2(a: Tile, b: Tile, axis: int) -> Tile:
    shape = (*a.shape[:axis], 2 * a.shape[axis], *a.shape[axis + 1 :])
    return Tile(CatOp(a.value, b.value, integer(axis), ir_type(a.dtype, shape)).result, a.dtype, shape)


@op(reference=lambda x, parts=2, axis=0: np.split(x, parts, axis))
def split(x: Any, parts: int = 2, axis: int = 0) -> tuple[Tile, ...]:
    """x cut into 2, 4, 8 … equal parts along `axis`."""
    x = require_tile(x, "mc.split")
    axis = require_axis(axis, x.ndim, "mc.split")
    parts = require_constant(parts, int, "mc.split's number of parts")
    if parts < 1 or parts & (parts - 1):
        raise ShapeError(f"mc.split cuts into 2, 4, 8 … parts, not {parts}", "choose a power of two")
    if x.shape[axis] % parts:
        raise ShapeError(
            f"dimension {axis} of {x!r} does not divide into {parts} parts",
            f"choose a size that {parts} divides",
        )
    tiles = [x]
    while len(tiles) < parts:
        tiles = [half for tile in tiles for half in _split2(tile, axis)]
    return tuple(tiles)


def _split2(x: Tile, axis: int) -> tuple[Tile, Tile]:
    shape = (*x.shape[:axis], x.shape[axis] // 2, *x.shape[axis + 1 :])
    type_ = ir_type(x.dtype, shape)
    op_ = SplitOp(x.value, integer(axis), type_, type_)
    return Tile(op_.first, x.dtype, shape), Tile(op_.second, x.dtype, shape)


__all__ = ["broadcast_to", "cat", "expand_dims", "permute", "reshape", "split", "transpose"]
