"""tile-to-linalg, shape part: broadcasting, reshaping, permuting, joining and cutting tiles; and what its parts share.

Whatever only moves elements is a `linalg.generic` with other indexing maps, which fuses with the arithmetic around it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mosaic_compile.dialects.tile import element_type_of, shape_of
from mosaic_compile.mlir import arith, ir
from mosaic_compile.mlir_tensors import fill_builtin_region, tensor

if TYPE_CHECKING:
    from .tile_to_linalg import TileToLinalgLowering

Body = Callable[[Sequence[ir.Value]], Sequence[ir.Value]]


def index_constant(value: int) -> ir.Value:
    return arith.constant(ir.IndexType.get(), value)


def empty(shape: Sequence[int], element: ir.Type) -> ir.Value:
    return tensor.empty(list(shape), element)


def dims(positions: Sequence[int | None], rank: int) -> ir.AffineMap:
    """The map of an operand whose dimension i runs along loop positions[i]; None: it is of size 1."""
    return ir.AffineMap.get(
        rank,
        0,
        [ir.AffineExpr.get_constant(0) if p is None else ir.AffineExpr.get_dim(p) for p in positions],
    )


def identity(rank: int) -> ir.AffineMap:
    return ir.AffineMap.get_identity(rank)


def element_of(type_: ir.Type) -> ir.Type:
    """The element type of a tensor, buffer or vector; a scalar's own type."""
    if isinstance(type_, ir.RankedTensorType | ir.MemRefType | ir.VectorType):
        return type_.element_type
    return type_


def generic(
    inputs: Sequence[ir.Value],
    outputs: Sequence[ir.Value],
    maps: Sequence[ir.AffineMap],
    iterators: Sequence[str],
    body: Body,
) -> list[ir.Value]:
    """A linalg.generic; `body` takes the elements of inputs and outputs and gives the new outputs'."""
    kinds = [ir.Attribute.parse(f"#linalg.iterator_type<{kind}>") for kind in iterators]
    op = ir.Operation.create(
        "linalg.generic",
        [o.type for o in outputs if isinstance(o.type, ir.RankedTensorType)],
        [*inputs, *outputs],
        {
            "indexing_maps": ir.ArrayAttr.get([ir.AffineMapAttr.get(m) for m in maps]),
            "iterator_types": ir.ArrayAttr.get(kinds),
            "operandSegmentSizes": ir.DenseI32ArrayAttr.get([len(inputs), len(outputs)]),
        },
        regions=1,
    )
    types = [element_of(v.type) for v in (*inputs, *outputs)]
    block = op.regions[0].blocks.append(*types, arg_locs=[ir.Location.current] * len(types))
    with ir.InsertionPoint(block):
        ir.Operation.create("linalg.yield", [], list(body(list(block.arguments))))
    return list(op.results)


def named(
    name: str, inputs: Sequence[ir.Value], outputs: Sequence[ir.Value], **attributes: ir.Attribute
) -> list[ir.Value]:
    """A named linalg operation, with the body that it always has."""
    segments = {"operandSegmentSizes": ir.DenseI32ArrayAttr.get([len(inputs), len(outputs)])}
    results = [o.type for o in outputs if isinstance(o.type, ir.RankedTensorType)]
    op = ir.Operation.create(name, results, [*inputs, *outputs], segments | attributes, regions=1)
    fill_builtin_region(op)
    return list(op.results)


def loop_index(dimension: int) -> ir.Value:
    """The place along a loop of the linalg.generic around."""
    i64 = ir.IntegerType.get_signless(64)
    attributes = {"dim": ir.IntegerAttr.get(i64, dimension)}
    return ir.Operation.create("linalg.index", [ir.IndexType.get()], [], attributes).results[0]


def moved(source: ir.Value, shape: Sequence[int], positions: Sequence[int | None]) -> ir.Value:
    """The tile of `shape` whose elements come from `source`: its dimension i runs along positions[i] of the result."""
    rank = len(shape)
    (result,) = generic(
        [source],
        [empty(shape, element_type_of(source.type))],
        [dims(positions, rank), identity(rank)],
        ["parallel"] * rank,
        lambda elements: elements[:1],
    )
    return result


def filled(value: ir.Value, shape: Sequence[int]) -> ir.Value:
    """A tile of one scalar."""
    rank = len(shape)
    (result,) = generic(
        [], [empty(shape, value.type)], [identity(rank)], ["parallel"] * rank, lambda _: [value]
    )
    return result


def broadcast_to(value: ir.Value, shape: Sequence[int]) -> ir.Value:
    """NumPy broadcasting of a scalar or tile."""
    if not isinstance(value.type, ir.RankedTensorType):
        return filled(value, shape)
    source = shape_of(value.type)
    if source == list(shape):
        return value
    first = len(shape) - len(source)
    positions = [
        None if extent == 1 and shape[first + i] != 1 else first + i for i, extent in enumerate(source)
    ]
    return moved(value, shape, positions)


def reshape_to(value: ir.Value, shape: Sequence[int]) -> ir.Value:
    """Row-major reshape."""
    if not isinstance(value.type, ir.RankedTensorType):
        return filled(value, shape)
    source = shape_of(value.type)
    if source == list(shape):
        return value
    if [n for n in source if n != 1] == [n for n in shape if n != 1]:
        places = iter(i for i, n in enumerate(shape) if n != 1)
        return moved(value, shape, [None if n == 1 else next(places) for n in source])
    if len(source) > 1:
        value = tensor.collapse_shape(
            ir.RankedTensorType.get([_count(source)], element_type_of(value.type)),
            value,
            [list(range(len(source)))],
        )
    if len(shape) > 1:
        value = tensor.expand_shape(
            ir.RankedTensorType.get(list(shape), element_type_of(value.type)),
            value,
            [list(range(len(shape)))],
            [],
            list(shape),
        )
    return value


def _count(shape: Sequence[int]) -> int:
    total = 1
    for extent in shape:
        total *= extent
    return total


def slice_of(value: ir.Value, axis: int, start: int | ir.Value, size: int) -> ir.Value:
    """Elements start to start + size along an axis."""
    shape = shape_of(value.type)
    sizes = [*shape[:axis], size, *shape[axis + 1 :]]
    dynamic = ir.ShapedType.get_dynamic_size()
    offsets = [0] * len(shape)
    offsets[axis] = start if isinstance(start, int) else dynamic
    return tensor.extract_slice(
        ir.RankedTensorType.get(sizes, element_type_of(value.type)),
        value,
        [] if isinstance(start, int) else [start],
        [],
        [],
        offsets,
        sizes,
        [1] * len(shape),
    )


def with_slice(value: ir.Value, part: ir.Value, axis: int, start: int | ir.Value) -> ir.Value:
    """`value` with `part` in place of its elements from `start` on along an axis."""
    shape = shape_of(part.type)
    dynamic = ir.ShapedType.get_dynamic_size()
    offsets = [0] * len(shape)
    offsets[axis] = start if isinstance(start, int) else dynamic
    return tensor.insert_slice(
        part, value, [] if isinstance(start, int) else [start], [], [], offsets, shape, [1] * len(shape)
    )


def matmul(
    a: ir.Value, b: ir.Value, acc: ir.Value, a_transposed: bool = False, b_transposed: bool = False
) -> ir.Value:
    """acc + a @ b, or with the transpose of a factor, the products in the accumulator's type."""
    rank = len(shape_of(a.type))
    batch, (m, n, k) = list(range(rank - 2)), range(rank - 2, rank + 1)
    loops = [
        [*batch, k, m] if a_transposed else [*batch, m, k],
        [*batch, n, k] if b_transposed else [*batch, k, n],
        [*batch, m, n],
    ]
    maps = ir.ArrayAttr.get([ir.AffineMapAttr.get(dims(d, rank + 1)) for d in loops])
    name = "linalg.batch_matmul" if batch else "linalg.matmul"
    return named(name, [a, b], [acc], indexing_maps=maps)[0]


# The rules.


def iota(lowering: TileToLinalgLowering, op: ir.Operation) -> Sequence[ir.Value]:
    type_ = op.results[0].type
    element = element_type_of(type_)
    return generic(
        [],
        [empty(shape_of(type_), element)],
        [identity(1)],
        ["parallel"],
        lambda _: [arith.index_cast(element, loop_index(0))],
    )


def broadcast(lowering: TileToLinalgLowering, op: ir.Operation) -> Sequence[ir.Value]:
    return [broadcast_to(lowering[op.operands[0]], shape_of(op.results[0].type))]


def reshape(lowering: TileToLinalgLowering, op: ir.Operation) -> Sequence[ir.Value]:
    return [reshape_to(lowering[op.operands[0]], shape_of(op.results[0].type))]


def permute(lowering: TileToLinalgLowering, op: ir.Operation) -> Sequence[ir.Value]:
    order = list(op.opview.order)
    return [
        moved(
            lowering[op.operands[0]],
            shape_of(op.results[0].type),
            [order.index(axis) for axis in range(len(order))],
        )
    ]


def cat(lowering: TileToLinalgLowering, op: ir.Operation) -> Sequence[ir.Value]:
    first, second = (lowering[o] for o in op.operands)
    type_, axis = op.results[0].type, op.attributes["axis"].value
    whole = empty(shape_of(type_), element_type_of(type_))
    whole = with_slice(whole, first, axis, 0)
    return [with_slice(whole, second, axis, shape_of(first.type)[axis])]


def split(lowering: TileToLinalgLowering, op: ir.Operation) -> Sequence[ir.Value]:
    source, axis = lowering[op.operands[0]], op.attributes["axis"].value
    half = shape_of(source.type)[axis] // 2
    return [slice_of(source, axis, 0, half), slice_of(source, axis, half, half)]


RULES = {
    "tile.iota": iota,
    "tile.broadcast": broadcast,
    "tile.reshape": reshape,
    "tile.permute": permute,
    "tile.cat": cat,
    "tile.split": split,
}
