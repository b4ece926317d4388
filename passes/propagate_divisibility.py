"""propagate-divisibility: what is known of offsets before the kernel runs, written on each block access.

    multiples      array<i64>, one for each array dimension: the offset is a multiple of this many elements
    starts_inside  array<i1>: the offset is not negative: no element lies before the dimension's start
    in_bounds      array<i1>: no element lies outside the dimension, before its start or behind its end

A value of i32 has a `Fact` (see facts.py): a range, a divisor, and bounds by the kernel's dimensions. Facts
start at constants, dimensions, the grid and loop bounds, and go through integer arithmetic; everything else
(loaded values, arguments) is unknown. Arithmetic that could wrap around is unknown too, but for powers of two
that divide it.

That blocks are in bounds is known where a dimension is fixed, or is a multiple (tile.dim_multiples) of what
its blocks advance by: pid * B with a grid of cdiv(N, B), k * B with k below cdiv(K, B), range(0, K, B).
Dimensions of one name are equal.

The pass also writes down what it finds constant, and turns signed divisions of numbers that are not negative
(floordivsi, ceildivsi, divsi, remsi, and the x - x // n * n that `%` makes) into unsigned ones, which need no
fixing up.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from math import lcm
from typing import ClassVar

from mosaic_compile.dialects.tile import ArrayType
from mosaic_compile.mlir import arith, ir

from . import facts
from .facts import ANY, INT_MAX, Dim, Fact
from .walk import (
    BLOCK_ACCESSES,
    argument_attributes,
    array_sizes,
    block_extents,
    defining_op,
    kernels,
    operations,
)

ZERO_OFFSET = 2**30  # stands for "a multiple of everything"


@dataclass(frozen=True)
class PropagateDivisibility:
    name: ClassVar[str] = "propagate-divisibility"

    def run(self, module: ir.Module) -> None:
        with module.context, ir.Location.unknown():
            for kernel in kernels(module):
                analysis = _Analysis(kernel)
                analysis.block(kernel.regions[0].blocks[0])
                found = operations(kernel)
                for op in found:
                    if op.name in BLOCK_ACCESSES:
                        analysis.annotate(op)
                _rewrite([(op, simpler) for op in found if (simpler := analysis.simpler(op))])


Simpler = tuple[Callable[..., ir.Value], tuple[ir.Value, ...]]  # how to make it, and from what


def _rewrite(decided: list[tuple[ir.Operation, Simpler]]) -> None:
    """Replaces operations. All is decided before and erased after: facts are kept by value."""
    replaced: dict[ir.Value, ir.Value] = {}
    for op, (make, operands) in decided:
        with ir.InsertionPoint(op), op.location:
            replaced[op.results[0]] = make(*(replaced.get(value, value) for value in operands))
        op.results[0].replace_all_uses_with(replaced[op.results[0]])
    for op, _ in reversed(decided):
        op.erase()


_TRANSFER: dict[str, Callable[..., Fact]] = {
    "arith.addi": facts.add,
    "arith.subi": facts.subtract,
    "arith.muli": facts.multiply,
    "arith.shli": facts.shift_left,
    "arith.floordivsi": facts.floor_divide,
    "arith.ceildivsi": facts.ceil_divide,
    "arith.divsi": facts.divide,
    "arith.remsi": facts.remainder,
    "arith.divui": facts.unsigned(facts.floor_divide),
    "arith.ceildivui": facts.unsigned(facts.ceil_divide),
    "arith.remui": facts.unsigned(facts.floor_remainder),
    "arith.shrsi": facts.shift_right,
    "arith.shrui": facts.unsigned(facts.shift_right),
    "arith.minsi": facts.minimum,
    "arith.maxsi": facts.maximum,
    "arith.minui": facts.unsigned(facts.minimum),
    "arith.maxui": facts.unsigned(facts.maximum),
    "arith.andi": facts.bitwise_and,
}
_MAY_WRAP = frozenset({"arith.addi", "arith.subi", "arith.muli", "arith.shli"})

# The same on operands that are not negative.
_UNSIGNED = {
    "arith.floordivsi": arith.divui,
    "arith.divsi": arith.divui,
    "arith.ceildivsi": arith.ceildivui,
    "arith.remsi": arith.remui,
}


class _Analysis:
    """The facts of one kernel's i32 scalars."""

    def __init__(self, kernel: ir.Operation):
        self.facts: dict[ir.Value, Fact] = {}
        self.i32 = ir.IntegerType.get_signless(32)
        self.dims, named = _dimensions(kernel)
        grid = kernel.attributes.get("tile.grid", [])
        self.grid = [_grid_size(text.value, named) for text in grid]
        self.handlers: dict[str, Callable[[ir.Operation], Fact | None]] = {
            "arith.constant": self.constant,
            "arith.select": lambda op: facts.join(self[op.operands[1]], self[op.operands[2]]),
            "arith.extui": lambda op: _zero_extended(op.operands[0].type),
            "tile.dim": lambda op: self.dim(op.operands[0], op.attributes["axis"].value),
            "tile.program_id": lambda op: self.program_id(op.attributes["axis"].value),
            "tile.num_programs": lambda op: self.num_programs(op.attributes["axis"].value),
        }

    def __getitem__(self, value: ir.Value) -> Fact:
        return self.facts.get(value, ANY)

    # Where facts start.

    def constant(self, op: ir.Operation) -> Fact:
        return facts.exactly(ir.IntegerAttr(op.attributes["value"]).value)

    def dim(self, array: ir.Value, axis: int) -> Fact:
        return _size(self.dims[array][axis])

    def num_programs(self, axis: int) -> Fact:
        if axis >= len(self.grid):
            return facts.exactly(1) if self.grid else facts.fact(1, INT_MAX)
        return self.grid[axis]

    def program_id(self, axis: int) -> Fact:
        return facts.counter(facts.exactly(0), self.num_programs(axis), facts.exactly(1))

    # The walk.

    def block(self, block: ir.Block) -> None:
        for view in block.operations:
            op = view.operation
            if control := _CONTROL.get(op.name):
                control(self, op)
            elif len(op.results) == 1 and op.results[0].type == self.i32:
                known = self.result(op)
                if known is not None:
                    self.facts[op.results[0]] = known

    def result(self, op: ir.Operation) -> Fact | None:
        if handler := self.handlers.get(op.name):
            return handler(op)
        transfer = _TRANSFER.get(op.name)
        if transfer is None:
            return None
        if op.name == "arith.subi" and (divided := self.floor_remainder(op)):
            return facts.floor_remainder(self[divided[0]], self[divided[1]])
        operands = [self[operand] for operand in op.operands]
        if op.name in _MAY_WRAP:
            flags = str(op.attributes.get("overflowFlags", ""))
            return transfer(*operands, wraps="nsw" not in flags)
        return transfer(*operands)

    def floor_remainder(self, op: ir.Operation) -> tuple[ir.Value, ir.Value] | None:
        """(x, n) if the operation is x - x // n * n, with n not negative."""
        x, product = op.operands
        multiply = defining_op(product)
        if multiply is None or multiply.name != "arith.muli":
            return None
        for quotient, n in (multiply.operands, reversed(multiply.operands)):
            divide = defining_op(quotient)
            if divide is None or divide.name not in ("arith.floordivsi", "arith.divui", "arith.divsi"):
                continue
            rounds_down = divide.name == "arith.floordivsi" or self[x].low >= 0
            is_of_both = divide.operands[0] == x and self.same(divide.operands[1], n)
            if rounds_down and is_of_both and self[n].low >= 0:
                return x, n
        return None

    def same(self, a: ir.Value, b: ir.Value) -> bool:
        return a == b or (self[a].constant is not None and self[a].constant == self[b].constant)

    def set_all(self, values, known) -> None:  # type: ignore[no-untyped-def]
        for value, fact in zip(values, known):
            if value.type == self.i32:
                self.facts[value] = fact

    def terminator(self, block: ir.Block) -> list[ir.Value]:
        return list(block.operations[len(block.operations) - 1].operation.operands)

    def fixed_point(self, initial: list[Fact], step: Callable[[list[Fact]], list[Fact]]) -> list[Fact]:
        """Facts that hold before the first iteration and, with `step`, after each."""
        current = initial
        while True:
            after = step(current)
            widened = [facts.widen(old, new) for old, new in zip(current, after)]
            if widened == current:
                return current
            current = widened

    def for_(self, op: ir.Operation) -> None:
        lower, upper, step = (self[value] for value in op.operands[:3])
        body = op.regions[0].blocks[0]
        arguments = list(body.arguments)
        is_signed = "unsignedCmp" not in op.attributes
        self.set_all(arguments[:1], [facts.counter(lower, upper, step) if is_signed else ANY])

        def iteration(carried: list[Fact]) -> list[Fact]:
            self.set_all(arguments[1:], carried)
            self.block(body)
            return [self[value] for value in self.terminator(body)]

        self.set_all(op.results, self.fixed_point([self[value] for value in op.operands[3:]], iteration))

    def while_(self, op: ir.Operation) -> None:
        before, after = (region.blocks[0] for region in op.regions)

        def iteration(carried: list[Fact]) -> list[Fact]:
            self.set_all(before.arguments, carried)
            self.block(before)
            self.set_all(after.arguments, [self[value] for value in self.terminator(before)[1:]])
            self.block(after)
            return [self[value] for value in self.terminator(after)]

        self.fixed_point([self[value] for value in op.operands], iteration)
        self.set_all(op.results, [self[value] for value in self.terminator(before)[1:]])

    def if_(self, op: ir.Operation) -> None:
        outcomes = []
        for region in op.regions:
            for block in region.blocks:
                self.block(block)
                outcomes.append([self[value] for value in self.terminator(block)])
        if len(op.results):
            self.set_all(op.results, map(facts.join, *outcomes))

    # What is done with the facts.

    def annotate(self, op: ir.Operation) -> None:
        offsets = [self[offset] for offset in op.opview.offsets]
        fits = [_fits(*access) for access in zip(offsets, block_extents(op), self.dims[op.operands[0]])]
        multiples = [offset.multiple or ZERO_OFFSET for offset in offsets]
        op.attributes["multiples"] = ir.DenseI64ArrayAttr.get(multiples)
        op.attributes["starts_inside"] = ir.DenseBoolArrayAttr.get([offset.low >= 0 for offset in offsets])
        op.attributes["in_bounds"] = ir.DenseBoolArrayAttr.get(fits)

    def simpler(self, op: ir.Operation) -> Simpler | None:
        """A simpler operation with the same result."""
        if op.name == "arith.constant" or not (op.name in self.handlers or op.name in _TRANSFER):
            return None
        if op.results[0].type != self.i32:
            return None
        value = self[op.results[0]].constant
        if value is not None:
            return (lambda: arith.constant(self.i32, value)), ()
        if op.name in _UNSIGNED:
            a, b = op.operands
            if self[a].low < 0 or self[b].low < 0:
                return None
            is_exact = self[b].constant and self[a].multiple % self[b].constant == 0  # type: ignore[operator]
            return arith.divui if is_exact and op.name == "arith.ceildivsi" else _UNSIGNED[op.name], (a, b)
        if op.name == "arith.subi" and (operands := self.floor_remainder(op)) and self[operands[0]].low >= 0:
            return arith.remui, operands
        return None


_CONTROL = {"scf.for": _Analysis.for_, "scf.while": _Analysis.while_, "scf.if": _Analysis.if_}


def _fits(offset: Fact, extent: int, size: Dim | int) -> bool:
    """Whether offset … offset + extent - 1 are all inside a dimension."""
    room = offset.room(size) if isinstance(size, Dim) else size - offset.high
    return offset.low >= 0 and room >= extent


def _zero_extended(type_: ir.Type) -> Fact | None:
    return facts.fact(0, 2**type_.width - 1) if isinstance(type_, ir.IntegerType) else None


# The kernel's dimensions and grid.


def _dimensions(kernel: ir.Operation) -> tuple[dict[ir.Value, list[Dim | int]], dict[str, Fact]]:
    """Each array's dimensions, and what is known of each dimension name."""
    arguments = kernel.regions[0].blocks[0].arguments
    names_of: dict[ir.Value, list[str]] = {}
    known: dict[str, Dim | int] = {}
    for number, (argument, given) in enumerate(zip(arguments, argument_attributes(kernel))):
        if not isinstance(argument.type, ArrayType):
            continue
        sizes = array_sizes(argument)
        dims_given = (
            [dim.value for dim in given["tile.dims"]] if "tile.dims" in given else [None] * len(sizes)
        )
        # A dimension without a name is like no other.
        names = [dim if isinstance(dim, str) else f"{number}.{axis}" for axis, dim in enumerate(dims_given)]
        multiples = list(given.get("tile.dim_multiples", [1] * len(sizes)))
        for name, size, multiple in zip(names, sizes, multiples):
            # Dimensions of one name are equal: what is known of each holds for all.
            other = known.get(name, Dim(name))
            if isinstance(other, Dim):
                known[name] = Dim(name, lcm(other.multiple, max(multiple, 1))) if size is None else size
        names_of[argument] = names
    dims = {argument: [known[name] for name in names] for argument, names in names_of.items()}
    return dims, {name: _size(dim) for name, dim in known.items()}


def _size(dim: Dim | int) -> Fact:
    return facts.dimension(dim) if isinstance(dim, Dim) else facts.exactly(dim)


def _grid_size(text: str, named: Mapping[str, Fact]) -> Fact:
    """What is known of the number of programs on a grid axis; a program that runs is one of at least 1."""
    size = _grid_fact(ast.parse(text, mode="eval").body, named) or ANY
    return facts.fact(max(size.low, 1), size.high, size.multiple, size.bounds)


_GRID_OPERATORS: dict[str, Callable[[Fact, Fact], Fact]] = {
    "Add": facts.add,
    "Sub": facts.subtract,
    "Mult": facts.multiply,
    "FloorDiv": facts.floor_divide,
    "Mod": facts.floor_remainder,
    "cdiv": facts.ceil_divide,
    "min": facts.minimum,
    "max": facts.maximum,
}


def _grid_fact(node: ast.expr, named: Mapping[str, Fact]) -> Fact | None:
    """None where nothing is known, as of each number that may not fit: grids are not computed in 32 bits."""
    match node:
        case ast.Constant(value=int() as value):
            return facts.exactly(value)
        case ast.Name(id=name):
            return named.get(name)
        case ast.BinOp(left=left, op=operator, right=right):
            name, arguments = type(operator).__name__, [left, right]
        case ast.Call(func=ast.Name(id=name), args=arguments) if arguments:
            pass
        case _:
            return None
    values = [fact for argument in arguments if (fact := _grid_fact(argument, named)) is not None]
    if len(values) < len(arguments) or name not in _GRID_OPERATORS:
        return None
    result = reduce(_GRID_OPERATORS[name], values)
    return None if result.low == facts.INT_MIN else result
