"""place-buffers: every temporary tile gets its place in one block of scratch memory, which the caller passes.

Buffers that are never needed at the same time share a place. A kernel thus allocates nothing, and its caller
knows how much memory a program takes: the size of the argument marked `mosaic.role = "scratch"`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import ClassVar

from mosaic_compile.mlir import arith, ir
from mosaic_compile.mlir_tensors import memref

from .walk import kernels, operations

ALIGNMENT = 64  # bytes: a cache line, and the widest vector


@dataclass(frozen=True)
class PlaceBuffers:
    name: ClassVar[str] = "place-buffers"

    def run(self, module: ir.Module) -> None:
        with module.context, ir.Location.unknown():
            for kernel in kernels(module):
                _place(kernel)


@dataclass(frozen=True)
class Lifetime:
    """A buffer and the first and last of the operations, by number, that may use it."""

    alloc: ir.Operation
    first: int
    last: int
    bytes: int

    def overlaps(self, other: Lifetime) -> bool:
        return self.first <= other.last and other.first <= self.last


def _place(function: ir.Operation) -> None:
    lifetimes = list(_lifetimes(function))
    places: list[tuple[Lifetime, int]] = []
    for lifetime in sorted(lifetimes, key=lambda x: (-x.bytes, x.first)):  # large ones first leave fewer gaps
        taken = sorted((start, start + other.bytes) for other, start in places if other.overlaps(lifetime))
        places.append((lifetime, _first_gap(taken, lifetime.bytes)))
    size = max((start + lifetime.bytes for lifetime, start in places), default=0)
    scratch = _scratch_argument(function, size)
    for lifetime, start in places:
        alloc = lifetime.alloc
        with ir.InsertionPoint(alloc), alloc.location:
            offset = arith.constant(ir.IndexType.get(), start)
            view = memref.view(alloc.results[0].type, scratch, offset, [])
        alloc.results[0].replace_all_uses_with(view)
        alloc.erase()


def _first_gap(taken: list[tuple[int, int]], size: int) -> int:
    place = 0
    for start, end in taken:
        if place + size <= start:
            break
        place = max(place, end)
    return place


def _scratch_argument(function: ir.Operation, size: int) -> ir.Value:
    i8 = ir.IntegerType.get_signless(8)
    type_ = ir.MemRefType.get([size], i8)
    block = function.regions[0].blocks[0]
    scratch = block.add_argument(type_, function.location)
    signature = ir.FunctionType(ir.TypeAttr(function.attributes["function_type"]).value)
    function.attributes["function_type"] = ir.TypeAttr.get(
        ir.FunctionType.get([*signature.inputs, type_], signature.results)
    )
    role = ir.DictAttr.get({"mosaic.role": ir.StringAttr.get("scratch")})
    function.attributes["arg_attrs"] = ir.ArrayAttr.get([*function.attributes["arg_attrs"], role])
    return scratch


def _lifetimes(function: ir.Operation) -> Iterator[Lifetime]:
    numbers: dict[ir.Operation, tuple[int, int]] = {}
    found = operations(function)
    for number, op in enumerate(found):
        numbers[op] = (number, number)
    for op in reversed(found):  # an operation ends with what it contains
        parent = op.parent
        if parent in numbers:
            first, last = numbers[parent]
            numbers[parent] = (first, max(last, numbers[op][1]))
    for op in found:
        if op.name == "memref.alloc":
            around = _blocks_around(op, function)
            # What a loop inside one of these blocks uses, it uses until it ends.
            last = max((numbers[_lifted(user, around)][1] for user in _users(op.results[0])), default=0)
            yield Lifetime(op, numbers[op][0], max(last, numbers[op][0]), _bytes(op.results[0].type))


def _blocks_around(op: ir.Operation, function: ir.Operation) -> list[ir.Block]:
    blocks = []
    while op != function:
        blocks.append(op.block)
        assert op.parent is not None
        op = op.parent
    return blocks


def _lifted(op: ir.Operation, blocks: list[ir.Block]) -> ir.Operation:
    """`op`, or the operation around it that stands in one of the blocks."""
    while op.block not in blocks:
        assert op.parent is not None
        op = op.parent
    return op


def _users(value: ir.Value) -> Iterator[ir.Operation]:
    """The operations that use a buffer, itself or through views of it and results of branches and loops."""
    for use in value.uses:
        op = use.owner.operation if hasattr(use.owner, "operation") else use.owner
        yield op
        if op.name == "scf.yield":
            parent = op.parent
            assert parent is not None
            if parent.name in ("scf.if", "scf.for"):
                yield from _users(parent.results[use.operand_number])
        elif op.name == "scf.for":
            yield from _users(op.regions[0].blocks[0].arguments[use.operand_number - 2])
            yield from _users(op.results[use.operand_number - 3])
        else:
            for result in op.results:
                if isinstance(result.type, ir.MemRefType):
                    yield from _users(result)


def _bytes(type_: ir.Type) -> int:
    buffer = ir.MemRefType(type_)
    element = buffer.element_type
    bits = element.width if hasattr(element, "width") else 64
    return -(-prod(buffer.shape) * max(8, bits) // 8 // ALIGNMENT) * ALIGNMENT
