"""tile-to-linalg: one program of a kernel as `linalg`, `tensor` and `scf` on tensors.

Arrays become `memref`s, read with `bufferization.to_tensor` and written with `materialize_in_destination`, so that everything
between is a value. The place in the grid comes as six arguments more, marked with `mosaic.role`. Nothing of a machine is in
here: CPUs and IREE take the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from mosaic_compile.dialects.tile import array_type_of, element_type_of, shape_of
from mosaic_compile.mlir import func, ir

from . import linalg_memory, linalg_reduce, linalg_shape
from .linalg_shape import empty, generic, identity, matmul
from .lowering import Lowering, attributes_of
from .walk import argument_attributes, array_uses, defining_op, written_arrays

ROLES = ("program_id",) * 3 + ("num_programs",) * 3


@dataclass
class TileToLinalgLowering(Lowering):
    """The rewrite of one kernel.

    program_ids, num_programs: the grid's arguments. written: the (old) arrays that the kernel writes.
    """

    program_ids: Sequence[ir.Value] = ()
    num_programs: Sequence[ir.Value] = ()
    written: set[ir.Value] = field(default_factory=set)


@dataclass(frozen=True)
class TileToLinalg:
    name: ClassVar[str] = "tile-to-linalg"

    def run(self, module: ir.Module) -> None:
        with module.context:
            for function in list(module.body.operations):
                with function.operation.location, ir.InsertionPoint(function.operation):
                    _lower_kernel(function)
                function.operation.erase()


def _lower_kernel(function: Any) -> None:
    i32 = ir.IntegerType.get_signless(32)
    old = list(function.arguments)
    types = [_argument_type(a) for a in old]
    new = func.FuncOp(function.name.value, ([*types, *[i32] * len(ROLES)], []))
    for name, attribute in attributes_of(function.operation).items():
        if name.startswith("tile."):
            new.operation.attributes[name] = attribute
    roles = [{"mosaic.role": ir.StringAttr.get(role)} for role in ROLES]
    new.arg_attrs = [ir.DictAttr.get(a) for a in [*_with_access(function.operation), *roles]]
    block = new.add_entry_block()
    ids, numbers = block.arguments[len(old) : len(old) + 3], block.arguments[len(old) + 3 :]
    lowering = TileToLinalgLowering(
        RULES,
        program_ids=list(ids),
        num_programs=list(numbers),
        written=written_arrays(function.operation),
        values=dict(zip(old, block.arguments)),
    )
    with ir.InsertionPoint(block):
        lowering.block(function.body.blocks[0])


def _with_access(kernel: ir.Operation) -> list[dict[str, ir.Attribute]]:
    """The arguments' attributes; of arrays whose signature does not say how they are used, the kernel's loads and stores do."""
    uses = array_uses(kernel)
    return [
        {"tile.access": ir.StringAttr.get(uses.get(argument, "in")), **given}
        if "tile.dims" in given
        else given
        for argument, given in zip(kernel.regions[0].blocks[0].arguments, argument_attributes(kernel))
    ]


def _argument_type(argument: ir.Value) -> ir.Type:
    """An array as a `memref`; of i4 elements, two of which share a byte, as one of bytes with the sizes in elements."""
    if not str(argument.type).startswith("!tile.array"):
        return argument.type
    tensor, strides = array_type_of(argument)
    dynamic = ir.ShapedType.get_dynamic_stride_or_offset()
    element = tensor.element_type
    if str(element) == "i4":
        element = ir.IntegerType.get_signless(8)
        strides = [s if s <= 1 else s // 2 for s in strides]
    layout = ir.StridedLayoutAttr.get(0, [dynamic if s < 0 else s for s in strides])
    return ir.MemRefType.get(list(tensor.shape), element, layout)


# The rules that need no file of their own.


def program_id(lowering: TileToLinalgLowering, op: ir.Operation) -> Sequence[ir.Value]:
    return [lowering.program_ids[op.attributes["axis"].value]]


def num_programs(lowering: TileToLinalgLowering, op: ir.Operation) -> Sequence[ir.Value]:
    return [lowering.num_programs[op.attributes["axis"].value]]


def dot(lowering: TileToLinalgLowering, op: ir.Operation) -> Sequence[ir.Value]:
    a, b, acc = op.operands
    (left, left_turned), (right, right_turned) = (_untransposed(lowering, x) for x in (a, b))
    return [matmul(left, right, lowering[acc], left_turned, right_turned)]


def dot4(lowering: TileToLinalgLowering, op: ir.Operation) -> Sequence[ir.Value]:
    """The same operation on elements."""
    operands = [lowering[o] for o in op.operands]
    if not isinstance(op.results[0].type, ir.RankedTensorType):
        return lowering.copy(op)
    shape = shape_of(op.results[0].type)
    element = element_type_of(op.results[0].type)

    def body(elements: Sequence[ir.Value]) -> Sequence[ir.Value]:
        return ir.Operation.create(op.name, [element], elements[:3], attributes_of(op)).results

    rank = len(shape)
    return generic(operands, [empty(shape, element)], [identity(rank)] * 4, ["parallel"] * rank, body)


def _untransposed(lowering: TileToLinalgLowering, value: ir.Value) -> tuple[ir.Value, bool]:
    """A factor, or the tile whose transpose it is: products read either way."""
    op = defining_op(value)
    if op is not None and op.name == "tile.permute":
        order = list(op.opview.order)
        rank = len(order)
        if order == [*range(rank - 2), rank - 1, rank - 2]:
            return lowering[op.operands[0]], True
    return lowering[value], False


RULES = {
    **linalg_memory.RULES,
    **linalg_reduce.RULES,
    **linalg_shape.RULES,
    "tile.program_id": program_id,
    "tile.num_programs": num_programs,
    "tile.dot": dot,
    "tile.dot4": dot4,
}
