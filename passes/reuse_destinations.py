"""reuse-destinations: tiles that loops carry, and tiles that are stored, are computed where they go.

Bufferization gives a tile that a loop carries one buffer for all iterations. So what an iteration hands on is written into the
tile that it was given: by the operation that computes it, where its destination is a fresh `tensor.empty`, or by a copy at
the end. Whether writing in place is right is bufferization's to decide, since all of this is still values.

A tile that is stored as a whole is computed in the array itself, if nothing else in the kernel reads or writes that array: in
between, nobody can tell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mosaic_compile.mlir import ir
from mosaic_compile.mlir_tensors import bufferization

from .walk import defining_op, operations


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
    for position, (handed_on, argument) in enumerate(zip(end.operands, carried)):
        if not isinstance(argument.type, ir.RankedTensorType) or handed_on == argument:
            continue
        origin = _destination(handed_on)
        if origin is not None and origin[0].block == end.block:
            maker, number = origin
            maker.operands[number] = argument
        with ir.InsertionPoint(end), end.location:
            end.operands[position] = bufferization.materialize_in_destination(
                argument.type, handed_on, argument
            )


def _in_array(store: ir.Operation) -> None:
    """store: of a tile to a view of an array."""
    value, view = store.operands
    origin = _destination(value)
    subview = defining_op(view)
    if origin is None or subview is None or subview.name != "memref.subview":
        return
    maker, number = origin
    has_one_access = sum(1 for use in subview.operands[0].uses if use.owner.name != "memref.dim") == 1
    if maker.block != store.block or not has_one_access:
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
