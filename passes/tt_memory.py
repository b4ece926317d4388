"""tile-to-tt, memory part: block accesses as tensor descriptors or as tensors of pointers with masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mosaic_compile.dialects import tt
from mosaic_compile.dialects.tile import array_type_of, element_type_of, shape_of
from mosaic_compile.mlir import arith, ir

from .elements import splat_constant, with_element
from .tt_shape import along, arange, broadcast_to, i32_attribute, permute_to, reshape_to, splat, tensor
from .walk import argument_attributes

if TYPE_CHECKING:
    from .tile_to_tt import ArrayArgument, TileToTTLowering

SLT, SGE, ULT, NE = (
    arith.CmpIPredicate.slt,
    arith.CmpIPredicate.sge,
    arith.CmpIPredicate.ult,
    arith.CmpIPredicate.ne,
)


def stored_type(element: ir.Type) -> ir.Type:
    """The type of an element in memory: truth values are bytes, two i4 share one."""
    if isinstance(element, ir.IntegerType) and element.width < 8:
        return ir.IntegerType.get_signless(8)
    return element


def is_packed(element: ir.Type) -> bool:
    return isinstance(element, ir.IntegerType) and element.width == 4


def uses_descriptor(op: ir.Operation) -> bool:
    return "path" in op.attributes and op.attributes["path"].value == "descriptor"


def _facts(op: ir.Operation, name: str, rank: int) -> list[bool]:
    return list(op.attributes[name]) if name in op.attributes else [False] * rank


# Descriptors.


@dataclass(frozen=True)
class Box:
    """A block as a descriptor sees it: the array's axes in the descriptor's order, and the extent along each.

    Fixed axes come first: leading dimensions of size 1 may be left out of the tile. The axis whose
    elements are neighbours comes last, as TMA wants it; `tile_axes` are the tile's own axes in that order.
    """

    order: tuple[int, ...]
    extents: tuple[int, ...]
    tile_axes: tuple[int, ...]


def box_of(axes: Sequence[int], shape: Sequence[int], strides: Sequence[int | None]) -> Box:
    extent = dict(zip(axes, shape))
    tile_axes = sorted(axes, key=lambda axis: (strides[axis] == 1, axis))
    order = [axis for axis in range(len(strides)) if axis not in extent] + tile_axes
    return Box(tuple(order), tuple(extent.get(axis, 1) for axis in order), tuple(tile_axes))


def _descriptor(lowering: TileToTTLowering, view: Any, tile: ir.Type) -> tuple[ir.Value, list[ir.Value], Box]:
    argument = lowering.array(view.array)
    box = box_of(list(view.axes), shape_of(tile), argument.strides)
    return lowering.descriptor(argument, box), [lowering[view.offsets[axis]] for axis in box.order], box


def descriptor_load(lowering: TileToTTLowering, op: ir.Operation) -> Sequence[ir.Value]:
    view, type_ = op.opview, op.results[0].type
    descriptor, indices, box = _descriptor(lowering, view, type_)
    block = tensor(box.extents[len(box.order) - len(box.tile_axes) :], element_type_of(type_))
    load = tt.DescriptorLoadOp(
        descriptor, indices, i32_attribute(tt.CACHE_NONE), i32_attribute(tt.EVICT_NORMAL), block
    )
    _keep_reason(op, load)
    return [permute_to(load.result, [box.tile_axes.index(axis) for axis in view.axes])]


def descriptor_store(lowering: TileToTTLowering, op: ir.Operation) -> Sequence[ir.Value]:
    view = op.opview
    descriptor, indices, box = _descriptor(lowering, view, view.value.type)
    block = permute_to(lowering[view.value], [list(view.axes).index(axis) for axis in box.tile_axes])
    store = tt.DescriptorStoreOp(descriptor, block, indices)
    _keep_reason(op, store)
    return []


def _keep_reason(op: ir.Operation, new: Any) -> None:
    for name in ("path", "path_reason"):
        if name in op.attributes:
            new.operation.attributes[f"mosaic.{name}"] = op.attributes[name]


# Pointers.


@dataclass(frozen=True)
class Block:
    """Where the elements of a block access lie.

    start: the first element's distance from the array's own first, in elements (packed: in bytes), i64.
    within: each element's distance from the block's first, i32 (None: there is but one): a tile spans less
    than 2^31.
    mask: which elements are inside the array; None: all.
    """

    start: ir.Value
    within: ir.Value | None
    mask: ir.Value | None
    shape: list[int]


def _start(lowering: TileToTTLowering, argument: ArrayArgument, offsets: Sequence[ir.Value]) -> ir.Value:
    """The block's first element: 64-bit arithmetic, once for the whole block."""
    i64 = ir.IntegerType.get_signless(64)
    total: ir.Value | None = None
    for axis, offset in enumerate(offsets):
        wide = arith.extsi(i64, offset)
        stride = lowering.stride(argument, axis)
        term = (
            wide
            if stride == 1
            else arith.muli(wide, splat_constant(stride, i64) if isinstance(stride, int) else stride)
        )
        total = term if total is None else arith.addi(total, term)
    assert total is not None  # an array has at least one dimension
    return total


def _block(
    lowering: TileToTTLowering, op: ir.Operation, shape: Sequence[int], row: int | None = None
) -> Block:
    """A block's places and mask. `row`: the tile dimension along which two elements share a byte; then all is
    counted in bytes, which the offset, the size and the other strides are known to allow."""
    view = op.opview
    argument = lowering.array(view.array)
    axes, rank = list(view.axes), len(argument.dims)
    offsets = [lowering[o] for o in view.offsets]
    in_bounds, starts_inside = _facts(op, "in_bounds", rank), _facts(op, "starts_inside", rank)
    shape = [extent // 2 if position == row else extent for position, extent in enumerate(shape)]
    within: ir.Value | None = None
    mask: ir.Value | None = None
    for axis in range(rank):
        if axis in axes or in_bounds[axis]:
            continue
        # A dimension read at one place: inside means 0 <= offset < size, one unsigned comparison.
        inside = arith.cmpi(ULT, offsets[axis], lowering.dim(argument, axis))
        mask = inside if mask is None else arith.andi(mask, inside)
    mask = None if mask is None else splat(mask, shape)
    for position, axis in enumerate(axes):
        steps = arange(shape[position])
        stride, size, offset = lowering.stride(argument, axis), lowering.dim(argument, axis), offsets[axis]
        if position == row:
            size, offset = _half(size), _half(offset)
        elif row is not None:
            stride = stride // 2 if isinstance(stride, int) else _half(stride)
        if shape[position] > 1:
            scaled = steps if stride == 1 else arith.muli(steps, _splat_stride(stride, shape[position]))
            term = broadcast_to(along(scaled, position, len(axes)), shape)
            within = term if within is None else arith.addi(within, term)
        if in_bounds[axis]:
            continue
        line = steps.type
        if starts_inside[axis]:
            # `steps < size - start` cannot overflow, and Triton sees how many neighbours share its outcome.
            inside = arith.cmpi(SLT, steps, splat(arith.subi(size, offset), shape_of(line)))
        else:
            index = arith.addi(splat(offset, shape_of(line)), steps)
            above = arith.cmpi(SGE, index, splat_constant(0, line))
            inside = arith.andi(above, arith.cmpi(SLT, index, splat(size, shape_of(line))))
        inside = broadcast_to(along(inside, position, len(axes)), shape)
        mask = inside if mask is None else arith.andi(mask, inside)
    start = _start(lowering, argument, offsets)
    return Block(start if row is None else _half(start), within, mask, shape)


def _splat_stride(stride: int | ir.Value, size: int) -> ir.Value:
    i32 = ir.IntegerType.get_signless(32)
    if isinstance(stride, int):
        return splat_constant(stride, tensor([size], i32))
    return splat(arith.trunci(i32, stride), [size])


def _pointers(base: ir.Value, block: Block) -> ir.Value:
    """Pointers to a block's elements (packed: bytes)."""
    pointers = splat(tt.AddPtrOp(base, block.start, base.type).result, block.shape)
    return pointers if block.within is None else tt.AddPtrOp(pointers, block.within, pointers.type).result


def _half(value: ir.Value) -> ir.Value:
    return arith.shrsi(value, splat_constant(1, value.type))


def _wide_places(block: Block) -> ir.Value:
    """Each element's distance from the array's first, i64."""
    places = splat(block.start, block.shape)
    if block.within is None:
        return places
    return arith.addi(places, arith.extsi(places.type, block.within))


def _load(pointers: ir.Value, mask: ir.Value | None, pad: ir.Attribute, element: ir.Type) -> Any:
    shape = shape_of(pointers.type)
    type_ = tensor(shape, element) if shape else element
    other = None
    if mask is not None:
        number = ir.DenseElementsAttr.get_splat(type_, pad) if shape else pad
        other = arith.constant(type_, number)
    return tt.LoadOp(
        pointers, i32_attribute(tt.CACHE_NONE), i32_attribute(tt.EVICT_NORMAL), type_, mask=mask, other=other
    )


def _stored_pad(pad: ir.Attribute, element: ir.Type) -> ir.Attribute:
    """The padding value in memory form."""
    i8 = ir.IntegerType.get_signless(8)
    if is_packed(element):
        nibble = ir.IntegerAttr(pad).value & 0xF
        byte = nibble | nibble << 4
        return ir.IntegerAttr.get(i8, byte - 256 if byte > 127 else byte)
    if isinstance(element, ir.IntegerType) and element.width == 1:
        return ir.IntegerAttr.get(i8, int(bool(pad.value)))
    return pad


def _from_memory(value: ir.Value, element: ir.Type) -> ir.Value:
    """Loaded elements as the values they stand for."""
    if _is_bool(element):
        return arith.cmpi(NE, value, splat_constant(0, value.type))
    return value


def _to_memory(value: ir.Value, element: ir.Type) -> ir.Value:
    if _is_bool(element):
        return arith.extui(with_element(value.type, ir.IntegerType.get_signless(8)), value)
    return value


def _is_bool(element: ir.Type) -> bool:
    return isinstance(element, ir.IntegerType) and element.width == 1


def load(lowering: TileToTTLowering, op: ir.Operation) -> Sequence[ir.Value]:
    """tile.load"""
    if uses_descriptor(op):
        return descriptor_load(lowering, op)
    argument = lowering.array(op.opview.array)
    shape, pad = shape_of(op.results[0].type), _stored_pad(op.attributes["pad"], argument.element)
    pointer = lowering.pointer(argument)
    if is_packed(argument.element):
        return [_load_packed(lowering, op, pointer, pad)]
    block = _block(lowering, op, shape)
    result = _load(_pointers(pointer, block), block.mask, pad, stored_type(argument.element))
    _keep_reason(op, result)
    return [_from_memory(result.result, argument.element)]


def store(lowering: TileToTTLowering, op: ir.Operation) -> Sequence[ir.Value]:
    """tile.store"""
    if uses_descriptor(op):
        return descriptor_store(lowering, op)
    view = op.opview
    argument = lowering.array(view.array)
    value, pointer = lowering[view.value], lowering.pointer(argument)
    if is_packed(argument.element):
        row = packed_row(op)
        assert row is not None  # see check-triton-limits
        block = _block(lowering, op, shape_of(value.type), row)
        pointers, value = _pointers(pointer, block), _packed(value, row)
    else:
        block = _block(lowering, op, shape_of(value.type))
        pointers, value = _pointers(pointer, block), _to_memory(value, argument.element)
    new = tt.StoreOp(
        pointers, value, i32_attribute(tt.CACHE_NONE), i32_attribute(tt.EVICT_NORMAL), mask=block.mask
    )
    _keep_reason(op, new)
    return []


# 4-bit elements: two a byte, the first in the low half.


def packing_obstacle(op: ir.Operation) -> str | None:
    """Why a block of 4-bit elements is not known to consist of whole bytes; None where it is."""
    view = op.opview
    array, _ = array_type_of(view.array)
    given = argument_attributes(view.array.owner.owner)[view.array.arg_number]
    row_axis = _neighbours(op)
    if row_axis is None:
        return "its elements are not neighbours in memory"
    axes, row = list(view.axes), list(view.axes)[row_axis]
    multiples = list(op.attributes["multiples"]) if "multiples" in op.attributes else [1] * array.rank
    if multiples[row] % 2:
        return f"the offset in dimension {row} is not known to be even"
    for axis, multiple in enumerate(given["tile.stride_multiples"]):
        is_even = multiple % 2 == 0 or (axis not in axes and multiples[axis] % 2 == 0)
        if axis != row and not is_even:
            return f"the stride of dimension {axis} is not known to be even"
    size = list(given["tile.dim_multiples"])[row] if array.is_dynamic_dim(row) else array.get_dim_size(row)
    if size % 2 and not _facts(op, "in_bounds", array.rank)[row]:
        return f"the size of dimension {row} is not known to be even"
    return None


def _neighbours(op: ir.Operation) -> int | None:
    """The tile dimension along which elements are neighbours in memory."""
    _, strides = array_type_of(op.opview.array)
    return max((position for position, axis in enumerate(op.opview.axes) if strides[axis] == 1), default=None)


def packed_row(op: ir.Operation) -> int | None:
    """The tile dimension along which two elements share a byte, if the block is known to be whole bytes."""
    return None if packing_obstacle(op) else _neighbours(op)


def _load_packed(
    lowering: TileToTTLowering, op: ir.Operation, pointer: ir.Value, pad: ir.Attribute
) -> ir.Value:
    """A block of 4-bit elements as i8: by whole bytes where that is known to be right, else by element."""
    i8 = ir.IntegerType.get_signless(8)
    shape, row = shape_of(op.results[0].type), packed_row(op)
    block = _block(lowering, op, shape, row)
    if row is None:
        places = _wide_places(block)
        return _load_nibbles(pointer, places, block.mask, pad)
    result = _load(_pointers(pointer, block), block.mask, pad, i8)
    _keep_reason(op, result)
    low, high = arith.shli(result.result, splat_constant(4, result.result.type)), result.result
    four = splat_constant(4, high.type)
    return _alternating(arith.shrsi(low, four), arith.shrsi(high, four), row)


def _load_nibbles(pointer: ir.Value, places: ir.Value, mask: ir.Value | None, pad: ir.Attribute) -> ir.Value:
    """Single 4-bit elements at `places` (i64)."""
    i8 = ir.IntegerType.get_signless(8)
    pointers = splat(pointer, shape_of(places.type))
    pointers = tt.AddPtrOp(pointers, _half(places), pointers.type).result
    byte = _load(pointers, mask, pad, i8).result
    odd = arith.trunci(byte.type, arith.andi(places, splat_constant(1, places.type)))
    four = splat_constant(4, byte.type)
    # An even place's element is shifted up, then both down, with the sign.
    up = arith.subi(four, arith.shli(odd, splat_constant(2, byte.type)))
    return arith.shrsi(arith.shli(byte, up), four)


def _alternating(a: ir.Value, b: ir.Value, axis: int) -> ir.Value:
    """a[0] b[0] a[1] b[1] … along `axis`."""
    shape, rank = shape_of(a.type), len(shape_of(a.type))
    pair = tt.JoinOp(a, b, tensor([*shape, 2], element_type_of(a.type))).result
    pair = permute_to(pair, [*range(axis + 1), rank, *range(axis + 1, rank)])
    return reshape_to(pair, [*shape[:axis], 2 * shape[axis], *shape[axis + 1 :]])


def _packed(value: ir.Value, axis: int) -> ir.Value:
    """Bytes of two elements each, neighbours along `axis`."""
    shape, rank = shape_of(value.type), len(shape_of(value.type))
    half = [*shape[:axis], shape[axis] // 2, *shape[axis + 1 :]]
    pairs = reshape_to(value, [*half[: axis + 1], 2, *half[axis + 1 :]])
    pairs = permute_to(pairs, [*range(axis + 1), *range(axis + 2, rank + 1), axis + 1])
    type_ = tensor(half, element_type_of(value.type))
    cut = tt.SplitOp(pairs, type_, type_)
    four, nibble = splat_constant(4, type_), splat_constant(15, type_)
    return arith.ori(arith.andi(cut.first, nibble), arith.shli(cut.second, four))


def _atomic(pointers: ir.Value, value: ir.Value, mask: ir.Value | None) -> None:
    kind = tt.ATOMIC_ADD if isinstance(element_type_of(value.type), ir.IntegerType) else tt.ATOMIC_FADD
    tt.AtomicRMWOp(
        pointers,
        value,
        i32_attribute(kind),
        i32_attribute(tt.SEMANTIC_RELAXED),
        i32_attribute(tt.SCOPE_GPU),
        value.type,
        mask=mask,
    )


def atomic_add(lowering: TileToTTLowering, op: ir.Operation) -> Sequence[ir.Value]:
    """tile.atomic_add"""
    block = _block(lowering, op, shape_of(op.opview.value.type))
    pointers = _pointers(lowering.pointer(lowering.array(op.opview.array)), block)
    _atomic(pointers, lowering[op.opview.value], block.mask)
    return []


def _element_places(lowering: TileToTTLowering, op: ir.Operation) -> tuple[ir.Value, ir.Value]:
    """The places (i64) of the elements at given indices, and the mask of those inside the array."""
    view = op.opview
    argument = lowering.array(view.array)
    indices = [lowering[i] for i in view.indices]
    shape = shape_of(indices[0].type)
    i64 = ir.IntegerType.get_signless(64)
    mask = None if view.mask is None else lowering[view.mask]
    offset: ir.Value | None = None
    for axis, index in enumerate(indices):
        wide_type = with_element(index.type, i64)
        inside = arith.cmpi(ULT, index, splat(lowering.dim(argument, axis), shape))
        mask = inside if mask is None else arith.andi(mask, inside)
        stride = lowering.stride(argument, axis)
        wide = arith.extsi(wide_type, index)
        if stride != 1:
            factor = splat_constant(stride, wide_type) if isinstance(stride, int) else splat(stride, shape)
            wide = arith.muli(wide, factor)
        offset = wide if offset is None else arith.addi(offset, wide)
    assert offset is not None and mask is not None  # an array has at least one dimension
    return offset, mask


def _element_pointers(lowering: TileToTTLowering, op: ir.Operation) -> tuple[ir.Value, ir.Value]:
    places, mask = _element_places(lowering, op)
    pointers = splat(lowering.pointer(lowering.array(op.opview.array)), shape_of(places.type))
    return tt.AddPtrOp(pointers, places, pointers.type).result, mask


def gather(lowering: TileToTTLowering, op: ir.Operation) -> Sequence[ir.Value]:
    """tile.gather"""
    argument = lowering.array(op.opview.array)
    element, pad = argument.element, _stored_pad(op.attributes["pad"], argument.element)
    if is_packed(element):
        places, mask = _element_places(lowering, op)
        return [_load_nibbles(lowering.pointer(argument), places, mask, pad)]
    pointers, mask = _element_pointers(lowering, op)
    result = _load(pointers, mask, pad, stored_type(element))
    return [_from_memory(result.result, element)]


def scatter(lowering: TileToTTLowering, op: ir.Operation) -> Sequence[ir.Value]:
    """tile.scatter"""
    view = op.opview
    element = lowering.array(view.array).element
    pointers, mask = _element_pointers(lowering, op)
    value = _to_memory(lowering[view.value], element)
    if op.attributes["combine"].value == "add":
        _atomic(pointers, value, mask)
    else:
        tt.StoreOp(pointers, value, i32_attribute(tt.CACHE_NONE), i32_attribute(tt.EVICT_NORMAL), mask=mask)
    return []


RULES = {
    "tile.load": load,
    "tile.store": store,
    "tile.atomic_add": atomic_add,
    "tile.gather": gather,
    "tile.scatter": scatter,
}
