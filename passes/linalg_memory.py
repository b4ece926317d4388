"""tile-to-linalg, memory part: blocks and single elements of arrays.

A block that may overhang is the part inside the array, padded (tensor.pad) or cut out (tensor.extract_slice) with sizes
known at run time. Arrays that the kernel writes are copied when they are loaded: their contents may change later.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mosaic_compile.dialects.tile import array_type_of, element_type_of, shape_of
from mosaic_compile.mlir import arith, ir, scf
from mosaic_compile.mlir_tensors import bufferization, memref, tensor

from .linalg_shape import empty, generic, identity, index_constant, named
from .views import Size, block_of, permuted
from .walk import block_extents

if TYPE_CHECKING:
    from .tile_to_linalg import TileToLinalgLowering


@dataclass(frozen=True)
class Window:
    """Where a block meets its array: along each of the tile's dimensions `low` elements before it, `sizes` inside."""

    view: ir.Value  # a memref of the tile's dimensions, in their order
    low: tuple[Size, ...]
    sizes: tuple[Size, ...]

    @property
    def is_whole(self) -> bool:
        return all(isinstance(s, int) for s in self.sizes)


def as_index(value: ir.Value) -> ir.Value:
    return arith.index_cast(ir.IndexType.get(), value)


def _clamped(value: ir.Value, low: Size, high: Size) -> ir.Value:
    low, high = (index_constant(v) if isinstance(v, int) else v for v in (low, high))
    return arith.minsi(arith.maxsi(value, low), high)


def _fact(op: ir.Operation, name: str) -> list[bool]:
    """What passes have found out of each dimension of the array (see tile.load)."""
    return list(op.attributes[name]) if name in op.attributes else [False] * len(op.opview.offsets)


def window(lowering: TileToLinalgLowering, op: ir.Operation) -> Window:
    """The part of a block access that lies inside its array."""
    array, axes = lowering[op.operands[0]], list(op.opview.axes)
    extents = block_extents(op)
    inside, not_before = _fact(op, "in_bounds"), _fact(op, "starts_inside")
    starts: list[ir.Value] = []
    lows: dict[int, Size] = {}
    sizes: dict[int, Size] = {}
    reached: ir.Value | None = None  # whether the places on the other axes are inside
    for axis, (offset, extent) in enumerate(zip(op.opview.offsets, extents)):
        start = as_index(lowering[offset])
        if inside[axis]:
            starts.append(start)
            lows[axis], sizes[axis] = 0, extent
            continue
        size = memref.dim(array, index_constant(axis))
        end = arith.addi(start, index_constant(extent))
        if not_before[axis]:
            first, end = arith.minsi(start, size), arith.minsi(end, size)
            lows[axis] = 0
        else:
            first, end = _clamped(start, 0, size), _clamped(end, 0, size)
            lows[axis] = _clamped(arith.subi(first, start), 0, extent)
        starts.append(first)
        sizes[axis] = arith.subi(end, first)
        if axis not in axes:
            is_reached = arith.cmpi(arith.CmpIPredicate.ne, first, end)
            reached = is_reached if reached is None else arith.andi(reached, is_reached)
    if reached is not None and axes:
        size = sizes[axes[0]]
        whole = index_constant(size) if isinstance(size, int) else size
        sizes[axes[0]] = arith.select(reached, whole, index_constant(0))
    kept = sorted(axes)
    whole = block_of(array, starts, [sizes[a] if a in axes else 1 for a in range(len(extents))], kept)
    view = permuted(whole, [kept.index(a) for a in axes])
    return Window(view, tuple(lows[a] for a in axes), tuple(sizes[a] for a in axes))


def _as_tensor(buffer: ir.Value, **options: bool) -> ir.Value:
    type_ = ir.MemRefType(buffer.type)
    return bufferization.to_tensor(
        ir.RankedTensorType.get(list(type_.shape), type_.element_type), buffer, **options
    )


def load(lowering: TileToLinalgLowering, op: ir.Operation) -> Sequence[ir.Value]:
    type_ = op.results[0].type
    pad = arith.constant(element_type_of(type_), op.attributes["pad"])
    if is_packed(op):
        return _load_packed(lowering, op, pad)
    part = window(lowering, op)
    if op.operands[0] in lowering.written:
        return [_copied(part, type_, pad)]
    inside = _as_tensor(part.view, restrict=True)
    if part.is_whole:
        return [inside]
    highs = [
        0 if isinstance(s, int) else arith.subi(arith.subi(index_constant(e), _value(low)), s)
        for e, low, s in zip(shape_of(type_), part.low, part.sizes)
    ]
    return [_padded(inside, part.low, highs, pad, type_)]


def _value(size: Size) -> ir.Value:
    return index_constant(size) if isinstance(size, int) else size


def _padded(
    inside: ir.Value, low: Sequence[Size], high: Sequence[Size], pad: ir.Value, type_: ir.Type
) -> ir.Value:
    dynamic = ir.ShapedType.get_dynamic_size()
    op = tensor.PadOp(
        type_,
        inside,
        [v for v in low if not isinstance(v, int)],
        [v for v in high if not isinstance(v, int)],
        [v if isinstance(v, int) else dynamic for v in low],
        [v if isinstance(v, int) else dynamic for v in high],
    )
    index = ir.IndexType.get()
    rank = len(low)
    block = op.regions[0].blocks.append(*[index] * rank, arg_locs=[ir.Location.current] * rank)
    with ir.InsertionPoint(block):
        tensor.yield_(pad)
    return op.result


def _copied(part: Window, type_: ir.Type, pad: ir.Value) -> ir.Value:
    """A block's contents as they are now."""
    element = element_type_of(type_)
    buffer = memref.alloc(ir.MemRefType.get(shape_of(type_), element), [], [])
    target = buffer
    if not part.is_whole:
        named("linalg.fill", [pad], [buffer])
        target = _part_of(buffer, part)
    memref.copy(part.view, target)
    return _as_tensor(buffer, restrict=True, writable=True)


def _part_of(buffer: ir.Value, part: Window) -> ir.Value:
    """The part of a tile's buffer that lies inside the array."""
    return block_of(buffer, [_value(v) for v in part.low], part.sizes)


def store(lowering: TileToLinalgLowering, op: ir.Operation) -> Sequence[ir.Value]:
    if is_packed(op):
        return _store_packed(lowering, op)
    part, value = window(lowering, op), lowering[op.operands[1]]
    bufferization.materialize_in_destination(
        None, _inside(value, part), part.view, restrict=True, writable=True
    )
    return []


def _inside(value: ir.Value, part: Window) -> ir.Value:
    """The elements of a tile that lie inside the array."""
    if part.is_whole:
        return value
    dynamic = ir.ShapedType.get_dynamic_size()
    sizes = [s if isinstance(s, int) else dynamic for s in part.sizes]
    return tensor.extract_slice(
        ir.RankedTensorType.get(sizes, element_type_of(value.type)),
        value,
        [v for v in part.low if not isinstance(v, int)],
        [s for s in part.sizes if not isinstance(s, int)],
        [],
        [v if isinstance(v, int) else dynamic for v in part.low],
        sizes,
        [1] * len(sizes),
    )


def nest(sizes: Sequence[Size], body: Callable[[list[ir.Value]], None]) -> None:
    """Loops over all places of a shape, the last dimension innermost."""

    def inner(places: list[ir.Value]) -> None:
        if len(places) == len(sizes):
            body(places)
            return
        loop = scf.ForOp(index_constant(0), _value(sizes[len(places)]), index_constant(1))
        with ir.InsertionPoint(loop.body):
            inner([*places, loop.induction_variable])
            scf.YieldOp([])

    inner([])


def atomic_add(lowering: TileToLinalgLowering, op: ir.Operation) -> Sequence[ir.Value]:
    part, value = window(lowering, op), lowering[op.operands[1]]

    def add(places: list[ir.Value]) -> None:
        source = [arith.addi(p, _value(low)) for p, low in zip(places, part.low)]
        _add(tensor.extract(value, source), part.view, places)

    nest(part.sizes, add)
    return []


def _add(value: ir.Value, array: ir.Value, places: Sequence[ir.Value]) -> None:
    is_float = not isinstance(value.type, ir.IntegerType)
    kind = arith.AtomicRMWKind.addf if is_float else arith.AtomicRMWKind.addi
    memref.atomic_rmw(kind, value, array, list(places))


# Single elements.


def _element(
    array: ir.Value, indices: Sequence[ir.Value], mask: ir.Value | None
) -> tuple[list[ir.Value], ir.Value]:
    """An element's place in its array, and whether it is there and wanted."""
    places = [as_index(i) for i in indices]
    inside = _is_inside(array, places)
    return places, inside if mask is None else arith.andi(mask, inside)


def _is_inside(array: ir.Value, places: list[ir.Value]) -> ir.Value:
    # A negative place is a large unsigned number.
    sizes = [memref.dim(array, index_constant(axis)) for axis in range(len(places))]
    return functools.reduce(
        arith.andi, [arith.cmpi(arith.CmpIPredicate.ult, p, s) for p, s in zip(places, sizes)]
    )


def _read(array: ir.Value, places: list[ir.Value], inside: ir.Value, pad: ir.Value) -> ir.Value:
    chosen = scf.IfOp(inside, [pad.type], has_else=True)
    with ir.InsertionPoint(chosen.then_block):
        scf.YieldOp([_element_at(array, places, pad.type)])
    with ir.InsertionPoint(chosen.else_block):
        scf.YieldOp([pad])
    return chosen.results[0]


def gather(lowering: TileToLinalgLowering, op: ir.Operation) -> Sequence[ir.Value]:
    view, type_ = op.opview, op.results[0].type
    array, indices = lowering[op.operands[0]], [lowering[i] for i in view.indices]
    mask = None if view.mask is None else lowering[view.mask]
    pad = arith.constant(element_type_of(type_), op.attributes["pad"])
    if not isinstance(type_, ir.RankedTensorType):
        return [_read(array, *_element(array, indices, mask), pad)]
    shape = shape_of(type_)
    tiles = [*indices, *([] if mask is None else [mask])]

    def read(elements: Sequence[ir.Value]) -> ir.Value:
        chosen = None if mask is None else elements[len(indices)]
        return _read(array, *_element(array, elements[: len(indices)], chosen), pad)

    if op.operands[0] not in lowering.written:
        rank = len(shape)
        maps, iterators = [identity(rank)] * (len(tiles) + 1), ["parallel"] * rank
        output = empty(shape, element_type_of(type_))
        return generic(tiles, [output], maps, iterators, lambda elements: [read(elements)])
    buffer = memref.alloc(ir.MemRefType.get(shape, element_type_of(type_)), [], [])
    nest(
        shape,
        lambda places: memref.store(read([tensor.extract(t, places) for t in tiles]), buffer, places),
    )
    return [_as_tensor(buffer, restrict=True, writable=True)]


def scatter(lowering: TileToLinalgLowering, op: ir.Operation) -> Sequence[ir.Value]:
    view = op.opview
    array, value = lowering[op.operands[0]], lowering[view.value]
    indices = [lowering[i] for i in view.indices]
    mask = None if view.mask is None else lowering[view.mask]
    adds = op.attributes["combine"].value == "add"

    def element(tile: ir.Value, places: list[ir.Value]) -> ir.Value:
        return tensor.extract(tile, places) if isinstance(tile.type, ir.RankedTensorType) else tile

    def write(places: list[ir.Value]) -> None:
        chosen = None if mask is None else element(mask, places)
        where, inside = _element(array, [element(i, places) for i in indices], chosen)
        branch = scf.IfOp(inside)
        with ir.InsertionPoint(branch.then_block):
            if adds:
                _add(element(value, places), array, where)
            else:
                memref.store(element(value, places), array, where)
            scf.YieldOp([])

    nest(shape_of(op.opview.value.type), write)
    return []


# Elements of 4 bits, two a byte along the last dimension, the first one in the low half.


def is_packed(op: ir.Operation) -> bool:
    """Whether an access is to an array of i4."""
    return str(array_type_of(op.operands[0])[0].element_type) == "i4"


def _half(places: list[ir.Value]) -> tuple[list[ir.Value], ir.Value]:
    """The byte that an element is in, and by how many bits it is shifted there."""
    one, four = index_constant(1), index_constant(4)
    shift = arith.muli(arith.andi(places[-1], one), four)
    byte = ir.IntegerType.get_signless(8)
    return [*places[:-1], arith.shrui(places[-1], one)], arith.index_cast(byte, shift)


def _element_at(array: ir.Value, places: list[ir.Value], type_: ir.Type) -> ir.Value:
    if str(type_) != "i4":
        return memref.load(array, places)
    where, shift = _half(places)
    return arith.trunci(type_, arith.shrui(memref.load(array, where), shift))


def _block_places(
    lowering: TileToLinalgLowering, op: ir.Operation, within: Sequence[ir.Value]
) -> list[ir.Value]:
    """The array's place for one of a block's tile."""
    places = [as_index(lowering[o]) for o in op.opview.offsets]
    for axis, place in zip(op.opview.axes, within):
        places[axis] = arith.addi(places[axis], place)
    return places


def _load_packed(lowering: TileToLinalgLowering, op: ir.Operation, pad: ir.Value) -> Sequence[ir.Value]:
    shape, array = shape_of(op.results[0].type), lowering[op.operands[0]]
    buffer = memref.alloc(ir.MemRefType.get(shape, pad.type), [], [])

    def read(within: list[ir.Value]) -> None:
        places = _block_places(lowering, op, within)
        memref.store(_read(array, places, _is_inside(array, places), pad), buffer, within)

    nest(shape, read)
    return [_as_tensor(buffer, restrict=True, writable=True)]


def _store_packed(lowering: TileToLinalgLowering, op: ir.Operation) -> Sequence[ir.Value]:
    array, value = lowering[op.operands[0]], lowering[op.operands[1]]

    def write(within: list[ir.Value]) -> None:
        places = _block_places(lowering, op, within)
        branch = scf.IfOp(_is_inside(array, places))
        with ir.InsertionPoint(branch.then_block):
            where, shift = _half(places)
            byte = shift.type
            nibble = arith.extui(byte, tensor.extract(value, within))
            mask = arith.shli(arith.constant(byte, 15), shift)
            others = arith.andi(memref.load(array, where), arith.xori(mask, arith.constant(byte, -1)))
            memref.store(arith.ori(others, arith.shli(nibble, shift)), array, where)
            scf.YieldOp([])

    nest(shape_of(op.opview.value.type), write)
    return []


def dim(lowering: TileToLinalgLowering, op: ir.Operation) -> Sequence[ir.Value]:
    size = memref.dim(lowering[op.operands[0]], index_constant(op.attributes["axis"].value))
    return [arith.index_cast(op.results[0].type, size)]


RULES = {
    "tile.load": load,
    "tile.store": store,
    "tile.atomic_add": atomic_add,
    "tile.gather": gather,
    "tile.scatter": scatter,
    "tile.dim": dim,
}
