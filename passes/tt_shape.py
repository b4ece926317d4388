"""tile-to-tt, shape part: broadcasting, reshaping, permuting, joining and cutting tiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mosaic_compile.dialects import tt
from mosaic_compile.dialects.tile import element_type_of, shape_of
from mosaic_compile.mlir import ir

if TYPE_CHECKING:
    from .tile_to_tt import TileToTTLowering


def i32_attribute(value: int) -> ir.Attribute:
    return ir.IntegerAttr.get(ir.IntegerType.get_signless(32), value)


def tensor(shape: Sequence[int], element: ir.Type) -> ir.Type:
    return ir.RankedTensorType.get(list(shape), element)


def splat(value: ir.Value, shape: Sequence[int]) -> ir.Value:
    """A scalar repeated; [] leaves it a scalar."""
    return tt.SplatOp(value, tensor(shape, value.type)).result if shape else value


def arange(size: int) -> ir.Value:
    i32 = ir.IntegerType.get_signless(32)
    return tt.MakeRangeOp(i32_attribute(0), i32_attribute(size), tensor([size], i32)).result


def expand(value: ir.Value, axis: int) -> ir.Value:
    shape = shape_of(value.type)
    return tt.ExpandDimsOp(
        value, i32_attribute(axis), tensor([*shape[:axis], 1, *shape[axis:]], element_type_of(value.type))
    ).result


def broadcast_to(value: ir.Value, shape: Sequence[int]) -> ir.Value:
    """NumPy broadcasting of a scalar or tensor."""
    if not isinstance(value.type, ir.RankedTensorType):
        return splat(value, shape)
    while len(shape_of(value.type)) < len(shape):
        value = expand(value, 0)
    if shape_of(value.type) == list(shape):
        return value
    return tt.BroadcastOp(value, tensor(shape, element_type_of(value.type))).result


def along(value: ir.Value, axis: int, rank: int) -> ir.Value:
    """A one-dimensional tensor laid along one axis of `rank`, the others of size 1."""
    for position in range(rank):
        if position != axis:
            value = expand(value, position)
    return value


def reshape_to(value: ir.Value, shape: Sequence[int]) -> ir.Value:
    """Row-major reshape; where only dimensions of size 1 are added, by expand_dims, which Triton knows."""
    source = shape_of(value.type)
    if source == list(shape):
        return value
    added = _added_ones(source, shape)
    if added is None:
        return tt.ReshapeOp(value, tensor(shape, element_type_of(value.type))).result
    for axis in added:
        value = expand(value, axis)
    return value


def _added_ones(source: Sequence[int], target: Sequence[int]) -> list[int] | None:
    """The axes of `target` that are new and of size 1, if that is all that differs."""
    added, position = [], 0
    for axis, extent in enumerate(target):
        if position < len(source) and source[position] == extent:
            position += 1
        elif extent == 1:
            added.append(axis)
        else:
            return None
    return added if position == len(source) else None


def permute_to(value: ir.Value, order: Sequence[int]) -> ir.Value:
    shape = shape_of(value.type)
    if list(order) == list(range(len(shape))):
        return value
    type_ = tensor([shape[d] for d in order], element_type_of(value.type))
    return tt.TransOp(value, ir.DenseI32ArrayAttr.get(list(order)), type_).result


def joined(a: ir.Value, b: ir.Value, axis: int) -> ir.Value:
    """a, then b along `axis`. (Triton's own cat may reorder elements.)"""
    shape = shape_of(a.type)
    rank = len(shape)
    pair = tt.JoinOp(a, b, tensor([*shape, 2], element_type_of(a.type))).result
    pair = permute_to(pair, [*range(axis), rank, *range(axis, rank)])
    return reshape_to(pair, [*shape[:axis], 2 * shape[axis], *shape[axis + 1 :]])


def halves(value: ir.Value, axis: int) -> tuple[ir.Value, ir.Value]:
    """The two halves of a tensor along `axis`."""
    shape = shape_of(value.type)
    rank = len(shape)
    value = reshape_to(value, [*shape[:axis], 2, shape[axis] // 2, *shape[axis + 1 :]])
    value = permute_to(value, [*range(axis), *range(axis + 1, rank + 1), axis])
    half = tensor([*shape[:axis], shape[axis] // 2, *shape[axis + 1 :]], element_type_of(value.type))
    op = tt.SplitOp(value, half, half)
    return op.first, op.second


# The rules.


def iota(lowering: TileToTTLowering, op: ir.Operation) -> Sequence[ir.Value]:
    return [arange(shape_of(op.results[0].type)[0])]


def broadcast(lowering: TileToTTLowering, op: ir.Operation) -> Sequence[ir.Value]:
    return [broadcast_to(lowering[op.operands[0]], shape_of(op.results[0].type))]


def reshape(lowering: TileToTTLowering, op: ir.Operation) -> Sequence[ir.Value]:
    return [reshape_to(lowering[op.operands[0]], shape_of(op.results[0].type))]


def permute(lowering: TileToTTLowering, op: ir.Operation) -> Sequence[ir.Value]:
    return [permute_to(lowering[op.operands[0]], list(op.opview.order))]


def cat(lowering: TileToTTLowering, op: ir.Operation) -> Sequence[ir.Value]:
    return [joined(lowering[op.operands[0]], lowering[op.operands[1]], op.attributes["axis"].value)]


def split(lowering: TileToTTLowering, op: ir.Operation) -> Sequence[ir.Value]:
    return list(halves(lowering[op.operands[0]], op.attributes["axis"].value))


RULES = {
    "tile.iota": iota,
    "tile.broadcast": broadcast,
    "tile.reshape": reshape,
    "tile.permute": permute,
    "tile.cat": cat,
    "tile.split": split,
}
