"""tile-to-linalg, reductions and scans with the kernel's own combine function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mosaic_compile.dialects.tile import element_type_of, shape_of
from mosaic_compile.mlir import arith, ir, scf
from mosaic_compile.mlir_tensors import tensor

from .linalg_shape import dims, empty, filled, generic, identity, index_constant, slice_of, with_slice

if TYPE_CHECKING:
    from .tile_to_linalg import TileToLinalgLowering

FLOAT_IDENTITIES = {
    "arith.addf": -0.0,
    "arith.mulf": 1.0,
    "arith.maximumf": float("-inf"),
    "arith.minimumf": float("inf"),
}
REORDERED = ("arith.addf", "arith.mulf")  # the order of combination is not fixed: see mc.reduce


def _integer_identity(name: str, bits: int) -> int | None:
    least, most = -(1 << bits - 1), (1 << bits - 1) - 1
    return {
        "arith.addi": 0, "arith.muli": 1 if bits > 1 else -1, "arith.ori": 0, "arith.xori": 0, "arith.andi": -1,
        "arith.maxsi": least, "arith.minsi": most, "arith.maxui": 0, "arith.minui": -1,
    }.get(name)  # fmt: skip


def _identity(op: ir.Operation) -> ir.Attribute | None:
    """The number that changes nothing, where the combine function is a single operation that has one."""
    body = list(op.regions[0].blocks[0].operations)
    if len(body) != 2 or len(op.operands) > 1:
        return None
    combine, element = body[0].operation, element_type_of(op.operands[0].type)
    arguments = list(op.regions[0].blocks[0].arguments)
    if set(combine.operands) != set(arguments) or body[1].operands[0] != combine.results[0]:
        return None
    if isinstance(element, ir.IntegerType):
        value = _integer_identity(combine.name, element.width)
        return None if value is None else ir.IntegerAttr.get(element, value)
    number = FLOAT_IDENTITIES.get(combine.name)
    return None if number is None else ir.FloatAttr.get(element, number)


def combined(
    lowering: TileToLinalgLowering, op: ir.Operation, left: Sequence[ir.Value], right: Sequence[ir.Value]
) -> list[ir.Value]:
    """The combine function at the current place, on scalars."""
    (block,) = op.regions[0].blocks
    lowering.values.update(zip(block.arguments, (*left, *right)))
    *body, end = list(block.operations)
    for inner in body:
        lowering.operation(inner.operation)
        if op.name == "tile.reduce" and inner.operation.name in REORDERED:
            result = lowering[inner.operation.results[0]]
            result.owner.attributes["fastmath"] = ir.Attribute.parse("#arith.fastmath<reassoc>")
    return [lowering[v] for v in end.operands]


def reduce(lowering: TileToLinalgLowering, op: ir.Operation) -> Sequence[ir.Value]:
    sources = [lowering[o] for o in op.operands]
    axis, shape = op.attributes["axis"].value, shape_of(sources[0].type)
    rank, kept = len(shape), [*shape[:axis], *shape[axis + 1 :]]
    start = _identity(op)
    if start is not None:
        outputs = [filled(arith.constant(start.type, start), kept)]
    else:  # the first elements, combined with all others
        outputs = [_dropped(slice_of(s, axis, 0, 1), axis) for s in sources]
        if shape[axis] == 1:
            return [_as_result(v, r) for v, r in zip(outputs, op.results)]
        sources = [slice_of(s, axis, 1, shape[axis] - 1) for s in sources]
    count = len(sources)
    remaining = dims([d for d in range(rank) if d != axis], rank)
    results = generic(
        sources,
        outputs,
        [identity(rank)] * count + [remaining] * count,
        ["reduction" if d == axis else "parallel" for d in range(rank)],
        lambda elements: combined(lowering, op, elements[count:], elements[:count]),
    )
    return [_as_result(v, r) for v, r in zip(results, op.results)]


def _as_result(value: ir.Value, result: ir.Value) -> ir.Value:
    """A tensor without dimensions as the scalar that the reduction gives."""
    return value if isinstance(result.type, ir.RankedTensorType) else tensor.extract(value, [])


def _dropped(value: ir.Value, axis: int) -> ir.Value:
    """A tile without a dimension of size 1."""
    shape = shape_of(value.type)
    rank = len(shape) - 1
    positions = [None if d == axis else d - (d > axis) for d in range(len(shape))]
    (result,) = generic(
        [value],
        [empty([*shape[:axis], *shape[axis + 1 :]], element_type_of(value.type))],
        [dims(positions, rank), identity(rank)],
        ["parallel"] * rank,
        lambda elements: elements[:1],
    )
    return result


def scan(lowering: TileToLinalgLowering, op: ir.Operation) -> Sequence[ir.Value]:
    sources = [lowering[o] for o in op.operands]
    axis, shape = op.attributes["axis"].value, shape_of(sources[0].type)
    length, rank, count = shape[axis], len(shape), len(sources)
    reverse = bool(op.attributes["reverse"].value)
    first = length - 1 if reverse else 0
    running = [slice_of(s, axis, first, 1) for s in sources]
    results = [
        with_slice(empty(shape, element_type_of(s.type)), r, axis, first) for s, r in zip(sources, running)
    ]
    loop = scf.ForOp(index_constant(1), index_constant(length), index_constant(1), [*running, *results])
    with ir.InsertionPoint(loop.body):
        place = loop.induction_variable
        if reverse:
            place = arith.subi(index_constant(length - 1), place)
        before = list(loop.inner_iter_args)
        row = [slice_of(s, axis, place, 1) for s in sources]
        running = generic(
            [*before[:count], *row],
            [empty([*shape[:axis], 1, *shape[axis + 1 :]], element_type_of(s.type)) for s in sources],
            [identity(rank)] * (3 * count),
            ["parallel"] * rank,
            lambda elements: combined(lowering, op, elements[:count], elements[count : 2 * count]),
        )
        written = [with_slice(whole, r, axis, place) for whole, r in zip(before[count:], running)]
        scf.YieldOp([*running, *written])
    return list(loop.results)[count:]


RULES = {"tile.reduce": reduce, "tile.scan": scan}
