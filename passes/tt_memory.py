"""tile-to-tt, memory part: block accesses as tensor descriptors or as tensors of pointers with masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mosaic_compile.dialects import tt
from mosaic_compile.dialects.tile import element_type_of, shape_of
from mosaic_compile.mlir import arith, ir

from .tt_elementwise import splat_constant, with_element
from .tt_shape import along, arange, broadcast_to, deinterleaved, i32_attribute, interleaved, permute_to, splat, tensor

if TYPE_CHECKING:
    from .tile_to_tt import ArrayArgument, TileToTTLowering

SLT, SGE, ULT, NE = arith.CmpIPredicate.slt, arith.CmpIPredicate.sge, arith.CmpIPredicate.ult, arith.CmpIPredicate.ne


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


def descriptor_order(axes: Sequence[int], rank: int) -> list[int]:
    """The array's axes as a descriptor lists them: fixed ones first, then the tile's in memory order.

    A TMA box may leave out leading dimensions of size 1, so that the tile comes without a reshape.
    """
    return [a for a in range(rank) if a not in axes] + sorted(axes)


def descriptor_box(axes: Sequence[int], shape: Sequence[int], rank: int) -> list[int]:
    extent = dict(zip(axes, shape))
    return [extent.get(a, 1) for a in descriptor_order(axes, rank)]


def _to_tile_order(value: ir.Value, axes: Sequence[int]) -> ir.Value:
    """A block in memory order with its dimensions as the tile has them."""
    memory = sorted(axes)
    return permute_to(value, [memory.index(a) for a in axes])


def _to_memory_order(value: ir.Value, axes: Sequence[int]) -> ir.Value:
    return permute_to(value, [list(axes).index(a) for a in sorted(axes)])


def _descriptor(lowering: TileToTTLowering, view: Any, tile: ir.Type) -> tuple[ir.Value, list[ir.Value], list[int]]:
    argument = lowering.array(view.array)
    axes, rank = list(view.axes), len(argument.dims)
    box = descriptor_box(axes, shape_of(tile), rank)
    descriptor = lowering.descriptor(argument, tuple(descriptor_order(axes, rank)), tuple(box))
    offsets = [lowering[o] for o in view.offsets]
    return descriptor, [offsets[a] for a in descriptor_order(axes, rank)], axes


def descriptor_load(lowering: TileToTTLowering, op: ir.Operation) -> Sequence[ir.Value]:
    view, type_ = op.opview, op.results[0].type
    descriptor, indices, axes = _descriptor(lowering, view, type_)
    extent = dict(zip(axes, shape_of(type_)))
    block = tensor([extent[a] for a in sorted(axes)], element_type_of(type_))
    load = tt.DescriptorLoadOp(descriptor, indices, i32_attribute(tt.CACHE_NONE), i32_attribute(tt.EVICT_NORMAL), block)
    _keep_reason(op, load)
    return [_to_tile_order(load.result, axes)]


def descriptor_store(lowering: TileToTTLowering, op: ir.Operation) -> Sequence[ir.Value]:
    view = op.opview
    descriptor, indices, axes = _descriptor(lowering, view, view.value.type)
    store = tt.DescriptorStoreOp(descriptor, _to_memory_order(lowering[view.value], axes), indices)
    _keep_reason(op, store)
    return []


def _keep_reason(op: ir.Operation, new: Any) -> None:
    for name in ("path", "path_reason"):
        if name in op.attributes:
            new.operation.attributes[f"mosaic.{name}"] = op.attributes[name]


# Pointers.


def _scalar_address(lowering: TileToTTLowering, argument: ArrayArgument, offsets: Sequence[ir.Value]) -> ir.Value:
    """The address of the block's first element: 64-bit arithmetic, once for the whole block."""
    i64 = ir.IntegerType.get_signless(64)
    total: ir.Value | None = None
    for axis, offset in enumerate(offsets):
        wide = arith.extsi(i64, offset)
        stride = lowering.stride(argument, axis)
        term = wide if stride == 1 else arith.muli(wide, splat_constant(stride, i64) if isinstance(stride, int) else stride)
        total = term if total is None else arith.addi(total, term)
    pointer = lowering.pointer(argument)
    if total is None:
        return pointer
    if is_packed(argument.element):
        total = arith.shrsi(total, splat_constant(1, i64))  # two elements a byte
    return tt.AddPtrOp(pointer, total, pointer.type).result


def _block_pointers(
    lowering: TileToTTLowering, op: ir.Operation, shape: Sequence[int]
) -> tuple[ir.Value, ir.Value | None, list[int]]:
    """Pointers to a block's elements, the mask of those inside the array (None: all), and the shape in memory."""
    view = op.opview
    argument = lowering.array(view.array)
    axes, rank = list(view.axes), len(argument.dims)
    offsets = [lowering[o] for o in view.offsets]
    in_bounds, starts_inside = _facts(op, "in_bounds", rank), _facts(op, "starts_inside", rank)
    packed = is_packed(argument.element)
    memory_shape = [*shape[:-1], shape[-1] // 2] if packed else list(shape)
    i32 = ir.IntegerType.get_signless(32)

    base = _scalar_address(lowering, argument, offsets)
    within: ir.Value | None = None  # each element's distance from the first, in 32 bits: a tile spans less
    mask: ir.Value | None = None
    for axis in range(rank):
        if axis in axes or in_bounds[axis]:
            continue
        # A dimension read at one place: inside means 0 <= offset < size, one unsigned comparison.
        inside = arith.cmpi(ULT, offsets[axis], lowering.dim(argument, axis))
        mask = inside if mask is None else arith.andi(mask, inside)
    mask = None if mask is None else splat(mask, memory_shape)
    for position, axis in enumerate(axes):
        steps = arange(memory_shape[position])
        is_packed_row = packed and position == len(axes) - 1
        stride = lowering.stride(argument, axis)
        if memory_shape[position] > 1:
            scaled = steps if stride == 1 else arith.muli(steps, _splat_stride(stride, memory_shape[position]))
            term = broadcast_to(along(scaled, position, len(axes)), memory_shape)
            within = term if within is None else arith.addi(within, term)
        if in_bounds[axis]:
            continue
        elements = arith.muli(steps, splat_constant(2, steps.type)) if is_packed_row else steps
        size = lowering.dim(argument, axis)
        line = elements.type
        if starts_inside[axis]:
            # `steps < size - start` cannot overflow, and Triton sees how many neighbours share its outcome.
            inside = arith.cmpi(SLT, elements, splat(arith.subi(size, offsets[axis]), shape_of(line)))
        else:
            index = arith.addi(splat(offsets[axis], shape_of(line)), elements)
            above = arith.cmpi(SGE, index, splat_constant(0, line))
            inside = arith.andi(above, arith.cmpi(SLT, index, splat(size, shape_of(line))))
        inside = broadcast_to(along(inside, position, len(axes)), memory_shape)
        mask = inside if mask is None else arith.andi(mask, inside)
    pointers = splat(base, memory_shape)
    if within is not None:
        pointers = tt.AddPtrOp(pointers, within, pointers.type).result
    return pointers, mask, memory_shape


def _splat_stride(stride: int | ir.Value, size: int) -> ir.Value:
    i32 = ir.IntegerType.get_signless(32)
    if isinstance(stride, int):
        return splat_constant(stride, tensor([size], i32))
    return splat(arith.trunci(i32, stride), [size])


def _load(pointers: ir.Value, mask: ir.Value | None, pad: ir.Attribute, element: ir.Type) -> Any:
    shape = shape_of(pointers.type)
    type_ = tensor(shape, element) if shape else element
    other = None
    if mask is not None:
        number = ir.DenseElementsAttr.get_splat(type_, pad) if shape else pad
        other = arith.constant(type_, number)
    return tt.LoadOp(pointers, i32_attribute(tt.CACHE_NONE), i32_attribute(tt.EVICT_NORMAL), type_, mask=mask, other=other)


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
    """Loaded bytes as the values they stand for."""
    if is_packed(element):
        four = splat_constant(4, value.type)
        return interleaved(arith.shrsi(arith.shli(value, four), four), arith.shrsi(value, four))
    if isinstance(element, ir.IntegerType) and element.width == 1:
        return arith.cmpi(NE, value, splat_constant(0, value.type))
    return value


def _to_memory(value: ir.Value, element: ir.Type) -> ir.Value:
    i8 = ir.IntegerType.get_signless(8)
    if is_packed(element):
        low, high = deinterleaved(value)
        four, nibble = splat_constant(4, low.type), splat_constant(15, low.type)
        return arith.ori(arith.andi(low, nibble), arith.shli(high, four))
    if isinstance(element, ir.IntegerType) and element.width == 1:
        return arith.extui(with_element(value.type, i8), value)
    return value


def load(lowering: TileToTTLowering, op: ir.Operation) -> Sequence[ir.Value]:
    """tile.load"""
    if uses_descriptor(op):
        return descriptor_load(lowering, op)
    element = lowering.array(op.opview.array).element
    pointers, mask, _ = _block_pointers(lowering, op, shape_of(op.results[0].type))
    result = _load(pointers, mask, _stored_pad(op.attributes["pad"], element), stored_type(element))
    _keep_reason(op, result)
    return [_from_memory(result.result, element)]


def store(lowering: TileToTTLowering, op: ir.Operation) -> Sequence[ir.Value]:
    """tile.store"""
    if uses_descriptor(op):
        return descriptor_store(lowering, op)
    view = op.opview
    element = lowering.array(view.array).element
    pointers, mask, _ = _block_pointers(lowering, op, shape_of(view.value.type))
    value = _to_memory(lowering[view.value], element)
    new = tt.StoreOp(pointers, value, i32_attribute(tt.CACHE_NONE), i32_attribute(tt.EVICT_NORMAL), mask=mask)
    _keep_reason(op, new)
    return []


def _atomic(pointers: ir.Value, value: ir.Value, mask: ir.Value | None) -> None:
    kind = tt.ATOMIC_ADD if isinstance(element_type_of(value.type), ir.IntegerType) else tt.ATOMIC_FADD
    tt.AtomicRMWOp(
        pointers, value, i32_attribute(kind), i32_attribute(tt.SEMANTIC_RELAXED), i32_attribute(tt.SCOPE_GPU), value.type, mask=mask
    )


def atomic_add(lowering: TileToTTLowering, op: ir.Operation) -> Sequence[ir.Value]:
    """tile.atomic_add"""
    pointers, mask, _ = _block_pointers(lowering, op, shape_of(op.opview.value.type))
    _atomic(pointers, lowering[op.opview.value], mask)
    return []


def _element_pointers(lowering: TileToTTLowering, op: ir.Operation) -> tuple[ir.Value, ir.Value]:
    """Pointers to the elements at given indices, and the mask of those inside the array."""
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
    pointers = splat(lowering.pointer(argument), shape)
    assert offset is not None and mask is not None  # an array has at least one dimension
    return tt.AddPtrOp(pointers, offset, pointers.type).result, mask


def gather(lowering: TileToTTLowering, op: ir.Operation) -> Sequence[ir.Value]:
    """tile.gather"""
    element = lowering.array(op.opview.array).element
    pointers, mask = _element_pointers(lowering, op)
    result = _load(pointers, mask, _stored_pad(op.attributes["pad"], element), stored_type(element))
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
