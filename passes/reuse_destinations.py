"""reuse-destinations: tiles that loops carry, and tiles that are stored, are computed where they go.

Bufferization gives a tile that a loop carries one buffer for all iterations. So what an iteration hands on is written into the
tile that it was given: by the operation that computes it, where its destination is a fresh `tensor.empty`, or by a copy at
the end, of all tiles in an order in which none is overwritten before it is read. Whether writing in place is right is
bufferization's to decide, since all of this is still values.

A tile that is stored as a whole, and used for nothing else, is computed in the array itself, if nothing reads or writes that
array before the store. Other programs may write the same elements: so only by an operation that writes each once, and reads none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mosaic_compile.mlir import ir
from mosaic_compile.mlir_tensors import bufferization

from .linalg_shape import empty, named
from .walk import defining_op, has_one_use, operations


@dataclass(frozen=True)
class ReuseDestinations:
    name: ClassVar[str] = "reuse-destinations"

    def run(self, module: ir.Module) -> None:
        with module.context:
            for op in operations(module.operation):
                if op.name == "scf.for":
                    _in_place(op, list(op.regions[0].blocks[0].arguments)[1:])
                elif op.name == "scf.while":
                    _in_place(op, list(op.regions[1].blocks[0].arguments))
                elif op.name == "bufferization.materialize_in_destination" and not op.results:
                    _in_array(op)


def _in_place(loop: ir.Operation, carried: list[ir.Value]) -> None:
    """carried: the block arguments that the last block's yield hands on to."""
    end = list(loop.regions[-1].blocks[0].operations)[-1].operation
    reads: dict[int, set[int]] = {}  # for each tile that is handed on, whose places it may be in
    for position, (handed_on, argument) in enumerate(zip(end.operands, carried)):
        if not isinstance(argument.type, ir.RankedTensorType) or handed_on == argument:
            continue
        origin = _destination(handed_on)
        if origin is not None and origin[0].block == end.block:
            maker, number = origin
            maker.operands[number] = argument
        reads[position] = _places(handed_on, carried) - {position}
    with ir.InsertionPoint(end), end.location:
        while reads:
            free = [p for p in reads if not any(p in places for places in reads.values())]
            if free:
                del reads[free[0]]
                end.operands[free[0]] = _written_to(end.operands[free[0]], carried[free[0]])
                continue
            position = next(
                p for p, places in reads.items() if places
            )  # tiles change places: one steps aside
            reads[position] = set()
            tile = end.operands[position]
            end.operands[position] = _written_to(tile, empty(tile.type.shape, tile.type.element_type))


def _written_to(value: ir.Value, destination: ir.Value) -> ir.Value:
    # Not materialize_in_destination: bufferization refuses a kernel in which that might overwrite what is read later,
    # where a copy would do.
    return named("linalg.copy", [value], [destination])[0]


def _places(value: ir.Value, carried: list[ir.Value]) -> set[int]:
    """The carried tiles whose memory a value may be in."""
    if value in carried:
        return {carried.index(value)}
    return set().union(*(_places(source, carried) for source in _shared(value)))


def _shared(value: ir.Value) -> list[ir.Value]:
    """The tensors whose memory a value may share; those of a loop or branch, seen from outside."""
    op = defining_op(value)
    if op is None:
        return []
    number = ir.OpResult(value).result_number
    tied = _tied_operand(op, number)
    if tied is not None:
        return [op.operands[tied]]
    if op.name == "scf.if":
        ends = [list(region.blocks[0].operations)[-1] for region in op.regions]
        return [end.operands[number] for end in ends]
    return [o for o in op.operands if isinstance(o.type, ir.RankedTensorType)]


def _in_array(store: ir.Operation) -> None:
    """store: of a tile to a view of an array."""
    value, view = store.operands
    origin = _destination(value)
    subview = defining_op(view)
    if origin is None or subview is None or subview.name != "memref.subview" or not has_one_use(value):
        return
    maker, number = origin
    if maker != defining_op(value) or _reads(maker, number):
        return
    if maker.block != store.block or _is_accessed(subview.operands[0], maker, store):
        return
    needed = _after(maker, subview)
    if needed is None:
        return
    for op in needed:
        op.move_before(maker)
    with ir.InsertionPoint(maker), store.location:
        maker.operands[number] = bufferization.to_tensor(
            maker.operands[number].type, view, restrict=True, writable=True
        )


def _is_accessed(array: ir.Value, first: ir.Operation, last: ir.Operation) -> bool:
    """Whether an operation between two of a block reads or writes an array."""
    block = [o.operation for o in first.block.operations]
    return any(
        _array_of(operand) == array
        for between in block[block.index(first) + 1 : block.index(last)]
        for op in operations(between)
        if op.name not in (*_VIEWS, "memref.dim")
        for operand in op.operands
    )


_VIEWS = ("memref.subview", "memref.transpose", "memref.cast", "memref.reinterpret_cast")


def _array_of(value: ir.Value) -> ir.Value:
    """What a value is a view of, or the value itself."""
    while (op := defining_op(value)) is not None and op.name in _VIEWS:
        value = op.operands[0]
    return value


def _reads(op: ir.Operation, number: int) -> bool:
    """Whether an operation reads an operand, rather than only write it."""
    return not op.name.startswith("linalg.") or any(op.regions[0].blocks[0].arguments[number].uses)


def _after(place: ir.Operation, op: ir.Operation) -> list[ir.Operation] | None:
    """`op` and what it needs, as far as that comes after `place` in its block; None where it cannot be moved there."""
    block = list(place.block.operations)
    behind = block[[o.operation for o in block].index(place) :]
    wanted, found = {op}, []
    for candidate in reversed([o.operation for o in behind]):
        if candidate not in wanted:
            continue
        if not candidate.name.startswith(("arith.", "memref.dim", "memref.subview")):
            return None
        found.append(candidate)
        wanted |= {d for o in candidate.operands if (d := defining_op(o)) is not None}
    return found[::-1]


def _destination(value: ir.Value) -> tuple[ir.Operation, int] | None:
    """The operation that writes a tile first, and which of its operands is the fresh tensor that it writes to."""
    while (op := defining_op(value)) is not None:
        number = _tied_operand(op, ir.OpResult(value).result_number)
        if number is None:
            return None
        value = op.operands[number]
        source = defining_op(value)
        if source is not None and source.name == "tensor.extract_slice":
            source = defining_op(source.operands[0])
        if source is not None and source.name == "tensor.empty":
            return op, number
    return None


def _tied_operand(op: ir.Operation, result: int) -> int | None:
    """The operand whose buffer a result shares."""
    if op.name.startswith("linalg."):
        return op.attributes["operandSegmentSizes"][0] + result
    if op.name == "scf.for":
        return 3 + result
    return None
