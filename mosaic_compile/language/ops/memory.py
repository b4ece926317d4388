"""Moving tiles between arrays and values. Every access is clipped at the array's edges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mosaic_compile.dialects import tile as ir_ops
from mosaic_compile.errors import (
    ElementTypeError,
    LoadFromOutputError,
    MixedTypesError,
    OperandError,
    ShapeError,
    StoreToInputError,
)
from mosaic_compile.mlir import arith, ir

from ..dtypes import bool_, i32
from ..op import (
    broadcast,
    broadcast_shapes,
    i32_value,
    ir_type,
    is_number,
    kind_of,
    number_attribute,
    op,
    outside_kernel,
    require_array,
    require_bool,
    require_index,
    require_shape,
    require_tile,
)
from ..tile import Array, Tile
from .shape import integer_array


def load_reference(array: Any, index: Any, shape: Any, *, offset: Any = None, pad: Any = 0) -> Any:
    """The block of a NumPy array that mc.load reads: `pad` outside the array."""
    index, shape, offset = (
        tuple(np.atleast_1d(v)) if v is not None else None for v in (index, shape, offset)
    )
    starts = offset if offset is not None else tuple(i * s for i, s in zip(index, shape))
    result = np.full(shape, pad, array.dtype)
    inside = [slice(max(0, s), max(0, min(n, s + e))) for s, e, n in zip(starts, shape, array.shape)]
    block = array[tuple(inside)]
    target = tuple(slice(i.start - s, i.start - s + b) for i, s, b in zip(inside, starts, block.shape))
    if block.size:
        result[target] = block
    return result


def _count(number: int, thing: str) -> str:
    plural = {"index": "indices"}.get(thing, f"{thing}s")
    return f"{number} {thing if number == 1 else plural}"


def _with_rank(array: Array) -> str:
    return f"{array!r} has {_count(array.ndim, 'dimension')}"


def _starts(what: str, array: Array, index: Any, shape: tuple[int, ...], offset: Any) -> list[ir.Value]:
    """The block's first element: one i32 for each dimension of the underlying array."""
    if (index is None) == (offset is None):
        loads = what == "mc.load"
        block, by_offset = ("shape", "offset=…, shape=…") if loads else ("tile", "tile, offset=…")
        raise OperandError(
            f"{what} takes an index in tiles or offset= in elements, one of the two",
            f"{what}({array.name}, index, {block}) or {what}({array.name}, {by_offset})",
        )
    given = index if offset is None else offset
    items = tuple(given) if isinstance(given, tuple | list) else (given,)
    thing = "index" if offset is None else "offset"
    if len(items) != array.ndim:
        raise ShapeError(
            f"{_with_rank(array)}, but {what} is given {_count(len(items), thing)}",
            "give one for each dimension; fix dimensions with array[i] first",
        )
    if len(shape) != array.ndim:
        raise ShapeError(
            f"{_with_rank(array)}, but the tile has the shape {shape}",
            "give the tile one size for each dimension; fix dimensions with array[i] first",
        )
    starts: dict[int, Tile | int] = dict(array.point)
    for axis, item, size in zip(array.axes, items, shape):
        require_index(item, f"{what}'s {thing}")
        if offset is None and size > 1 and _is_multiple(item, size):
            written = "(i,)" if array.ndim == 1 else f"({', '.join('ijklmn'[: array.ndim])})"
            raise OperandError(
                f"the index counts tiles, but this one is multiplied by the tile size {size}",
                f"drop the factor: {what}({array.name}, {written}, …), or give elements: offset=",
            )
        starts[axis] = item if offset is not None else _element_index(item, size)
    return [i32_value(starts[axis]) for axis in range(len(array.sizes))]


def _is_multiple(index: Tile | int, size: int) -> bool:
    """Whether an index is written as a product with `size`: an element where a tile index is meant."""
    owner = index.value.owner if isinstance(index, Tile) else None
    if not isinstance(owner, ir.Operation | ir.OpView) or owner.name != "arith.muli":
        return False
    for operand in owner.operands:
        factor = operand.owner
        if isinstance(factor, ir.Operation | ir.OpView) and factor.name == "arith.constant":
            return ir.IntegerAttr(factor.attributes["value"]).value == size
    return False


def _element_index(tile_index: Tile | int, size: int) -> Tile | int:
    """A tile index counted in elements: within 32 bits as dimensions are, which the compiler may rely on."""
    if size == 1 or not isinstance(tile_index, Tile):
        return tile_index * size
    no_wrap = arith.IntegerOverflowFlags.nsw
    return Tile(arith.muli(tile_index.value, i32_value(size), overflow_flags=no_wrap), i32, ())


def _pad_attribute(what: str, array: Array, pad: Any) -> ir.Attribute:
    if not is_number(pad):
        raise OperandError(
            f"{what}'s pad is a number known at compile time, not {kind_of(pad)}",
            "pass 0 or float('-inf'), for example",
        )
    return number_attribute(bool(pad) if array.dtype is bool_ else pad, array.dtype)


def _check_readable(what: str, array: Array) -> None:
    if array.access == "out":
        raise LoadFromOutputError(
            f"{what} reads '{array.name}', which the kernel declares as output only", "declare it mc.InOut[…]"
        )


def _check_writable(what: str, array: Array) -> None:
    if array.access == "in":
        raise StoreToInputError(
            f"{what} writes '{array.name}', which the kernel declares as input",
            "declare it mc.Out[…] or mc.InOut[…]",
        )


def _check_value(what: str, array: Array, value: Tile) -> None:
    if value.dtype is not array.dtype:
        raise MixedTypesError(
            f"{what} writes {value!r} to {array!r} of {array.dtype}", f"convert it: .to({array.name}.dtype)"
        )


def _load_artifact(folder: Any, *rest: Any, **options: Any) -> Any:
    """mc.load(DIR) in plain Python: a compiled kernel from disk."""
    from mosaic_compile.runtime.load import load_artifact

    if rest or options or not isinstance(folder, str | Path):
        raise outside_kernel("mc.load")
    return load_artifact(folder)


@op(reference=load_reference, outside=_load_artifact)
def load(array: Any, index: Any = None, shape: Any = None, *, offset: Any = None, pad: Any = 0) -> Tile:
    """The block of `array` at tile index `index` (or at `offset`, in elements), as a tile of `shape`.

    index: i32 scalars or numbers, one for each dimension; the block starts at index * shape. It may come from
    memory.
    offset: the block's first element instead; it may be negative.
    pad: what is read outside the array.

    Outside kernels, mc.load(folder) gives the kernel that `mosaic-compile -o` has written there, compiled for this
    machine's GPU or CPU, as a function.
    """
    array = require_array(array, "mc.load")
    _check_readable("mc.load", array)
    if shape is None:
        raise OperandError("mc.load needs the tile's shape", f"mc.load({array.name}, index, (BM, BN))")
    shape = require_shape(shape, "mc.load's shape")
    starts = _starts("mc.load", array, index, shape, offset)
    result = ir_ops.LoadOp(
        array.value,
        starts,
        integer_array(array.axes),
        _pad_attribute("mc.load", array, pad),
        ir_type(array.dtype, shape),
    ).result
    return Tile(result, array.dtype, shape)


@op()
def store(array: Any, index: Any, value: Any = None, *, offset: Any = None) -> None:
    """Writes a tile to the block of `array` at tile index `index` (or `mc.store(array, tile, offset=…)`, in
    elements).

    What lies outside the array is not written. Two programs that write one element leave either value.
    """
    array, value = _store_arguments("mc.store", array, index, value, offset)
    starts = _starts("mc.store", array, None if offset is not None else index, value.shape, offset)
    ir_ops.StoreOp(array.value, value.value, starts, integer_array(array.axes))


@op()
def atomic_add(array: Any, index: Any, value: Any = None, *, offset: Any = None) -> None:
    """Adds a tile to the block of `array` at `index` (or `offset`), each element atomically; clipped as
    mc.store.

    f64, f32, f16, bf16, i64, i32 and u32. The order in which programs add is not fixed: floating-point sums
    differ in rounding.
    """
    array, value = _store_arguments("mc.atomic_add", array, index, value, offset)
    _check_atomic("mc.atomic_add", array)
    starts = _starts("mc.atomic_add", array, None if offset is not None else index, value.shape, offset)
    ir_ops.AtomicAddOp(array.value, value.value, starts, integer_array(array.axes))


def _check_atomic(what: str, array: Array) -> None:
    if array.dtype.name not in ("f64", "f32", "f16", "bf16", "i64", "i32", "u32"):
        raise ElementTypeError(
            f"{what} cannot add to elements of {array.dtype}", "use an array of f32 or i32"
        )


def _store_arguments(what: str, array: Any, index: Any, value: Any, offset: Any) -> tuple[Array, Tile]:
    """mc.store(a, index, tile) and mc.store(a, tile, offset=…)."""
    array = require_array(array, what)
    _check_writable(what, array)
    if offset is not None and value is None:
        value = index
    elif offset is not None:
        raise OperandError(
            f"{what} takes an index in tiles or offset= in elements, one of the two",
            f"{what}({array.name}, index, tile) or {what}({array.name}, tile, offset=…)",
        )
    if value is None:
        raise OperandError(f"{what} needs the tile to write", f"{what}({array.name}, index, tile)")
    value = require_tile(value, what)
    _check_value(what, array, value)
    if not value.shape:
        value = broadcast(value, (1,) * array.ndim)
    return array, value


def _indices(what: str, array: Array, indices: Any, *others: Tile) -> tuple[tuple[int, ...], list[Tile]]:
    """Index tiles for every dimension of the underlying array, broadcast to one shape."""
    items = tuple(indices) if isinstance(indices, tuple | list) else (indices,)
    if len(items) != array.ndim:
        raise ShapeError(
            f"{_with_rank(array)}, but {what} is given {_count(len(items), 'index tile')}",
            "give one for each dimension",
        )
    for item in items:
        if isinstance(item, Tile) and item.dtype is not i32:
            raise MixedTypesError(f"{what}'s indices are i32, not {item!r}", "convert them: index.to(mc.i32)")
        if not isinstance(item, Tile):
            require_index(item, f"{what}'s index")
    by_axis = dict(array.point) | dict(zip(array.axes, items))
    tiles = [
        v if isinstance(v, Tile) else Tile(i32_value(v), i32, ())
        for v in (by_axis[a] for a in range(len(array.sizes)))
    ]
    shape = broadcast_shapes(what, *(t.shape for t in tiles), *(t.shape for t in others))
    return shape, [broadcast(t, shape) for t in tiles]


@op(reference=lambda array, indices, **_: array[indices])
def gather(array: Any, indices: Any, *, mask: Any = None, pad: Any = 0) -> Tile:
    """The elements of `array` at the given indices: NumPy's array[i, j] with i and j tiles that broadcast
    together.

    Where an index lies outside the array, or `mask` is false, the result is `pad`. Blocks are faster with
    mc.load.
    """
    array = require_array(array, "mc.gather")
    _check_readable("mc.gather", array)
    mask_tile = None if mask is None else require_bool(mask, "mc.gather's mask")
    shape, tiles = _indices("mc.gather", array, indices, *([mask_tile] if mask_tile is not None else []))
    result = ir_ops.GatherOp(
        array.value,
        [t.value for t in tiles],
        mask=None if mask_tile is None else broadcast(mask_tile, shape).value,
        pad=_pad_attribute("mc.gather", array, pad),
        result=ir_type(array.dtype, shape),
    ).result
    return Tile(result, array.dtype, shape)


def _scatter(what: str, combine: str, array: Any, indices: Any, value: Any, mask: Any) -> None:
    array = require_array(array, what)
    _check_writable(what, array)
    value = require_tile(value, what)
    _check_value(what, array, value)
    mask_tile = None if mask is None else require_bool(mask, f"{what}'s mask")
    shape, tiles = _indices(what, array, indices, value, *([mask_tile] if mask_tile is not None else []))
    ir_ops.ScatterOp(
        array.value,
        broadcast(value, shape).value,
        [t.value for t in tiles],
        mask=None if mask_tile is None else broadcast(mask_tile, shape).value,
        combine=ir.StringAttr.get(combine),
    )


@op()
def scatter(array: Any, indices: Any, value: Any, *, mask: Any = None) -> None:
    """Writes elements at the given indices; those outside the array, or where `mask` is false, are dropped.

    Of several elements with one index, any may win.
    """
    _scatter("mc.scatter", "set", array, indices, value, mask)


@op()
def scatter_add(array: Any, indices: Any, value: Any, *, mask: Any = None) -> None:
    """Adds elements at the given indices, each atomically: a histogram is scatter_add of ones."""
    _check_atomic("mc.scatter_add", require_array(array, "mc.scatter_add"))
    _scatter("mc.scatter_add", "add", array, indices, value, mask)


__all__ = ["atomic_add", "gather", "load", "scatter", "scatter_add", "store"]
