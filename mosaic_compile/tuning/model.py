"""How long a kernel takes at best: a roofline over its `tile` IR, to leave out candidates that cannot win.

A program moves bytes between the L2 cache and its multiprocessor (the blocks of its loads and stores, as far as they lie inside
the arrays) and multiplies tiles; the longer of the two is its time. Loops count as often as they run: their bounds are worked
out from the sizes, the scalars and the program's place in the grid. Programs run in waves over the multiprocessors, and no
kernel is faster than its arrays come from memory. Of latency, occupancy, warps and pipelining the model knows nothing.

After Williams, Waterman and Patterson, "Roofline: an insightful visual performance model for multicore architectures", 2009.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mosaic_compile.dialects.tile import shape_of
from mosaic_compile.language.kernel import Kernel
from mosaic_compile.language.specialization import Specialization
from mosaic_compile.language.symbolic import evaluate
from mosaic_compile.mlir import ir
from mosaic_compile.passes import walk
from mosaic_compile.runtime.arguments import Bound

# Floating-point operations of a multiprocessor in a clock, by the bits of the factors, dense, with accumulators of 32 bits:
# NVIDIA's architecture whitepapers (GA100, AD102, GH100, Blackwell). Factors of 32 bits: tensor cores for tf32, else FMA units.
FLOPS_PER_CLOCK: Mapping[str, Mapping[int | str, int]] = {
    "sm80": {8: 2048, 16: 2048, "tf32": 1024, 32: 128, 64: 128},
    "sm89": {8: 2048, 16: 1024, "tf32": 512, 32: 256, 64: 4},
    "sm90": {8: 8192, 16: 4096, "tf32": 2048, 32: 256, 64: 256},
    "sm100": {8: 16384, 16: 8192, "tf32": 4096, 32: 256, 64: 128},
    "sm120": {8: 2048, 16: 1024, "tf32": 512, 32: 256, 64: 4},
}
LEAST = 2.0  # microseconds that any launch takes, so that nothing is left out for a part of one
L2_BYTES_PER_CLOCK = 48.0  # of a multiprocessor: 5120 bytes for the 108 of an A100 (GA100 whitepaper)


@dataclass(frozen=True)
class Rates:
    """What a GPU can do. clocks: in a microsecond. memory_bytes: in a microsecond, infinite where it is not known."""

    multiprocessors: int
    clocks: float
    memory_bytes: float
    flops_per_clock: Mapping[int | str, int]


def predicted(
    kernel: Kernel, spec: Specialization, traced: ir.Module, bound: Bound, rates: Rates
) -> float | None:
    """Microseconds that a call takes at least; None where a loop's bounds come from memory, or what else is not known."""
    sizes = {**bound.sizes, "num_sms": rates.multiprocessors}
    try:
        grid = [max(0, evaluate(text, sizes)) for text in kernel.grid_text(spec)]
    except ArithmeticError:
        return None
    grid += [1] * (3 - len(grid))
    programs = math.prod(grid)
    moved = sum(high - low for low, high in (info.extent for info in bound.arrays.values()))
    if not programs:
        return None
    samples = {0, programs // 2, programs - 1}
    try:
        clocks = [_clocks(_Program(traced, bound, rates, grid, _place(number, grid))) for number in samples]
    except _Unknown:
        return None
    waves = -(-programs // rates.multiprocessors)
    in_waves = max(waves * sum(clocks) / len(clocks), max(clocks)) / rates.clocks
    return max(in_waves, moved / rates.memory_bytes, LEAST)


def _place(number: int, grid: list[int]) -> tuple[int, int, int]:
    return number % grid[0], number // grid[0] % grid[1], number // (grid[0] * grid[1])


class _Unknown(Exception):
    """What the work depends on is known at run time only."""


@dataclass
class _Program:
    """One program: what is known of its values, and its work so far."""

    module: ir.Module
    bound: Bound
    rates: Rates
    grid: list[int]
    place: tuple[int, int, int]
    values: dict[ir.Value, Any] = field(default_factory=dict)
    names: dict[ir.Value, str] = field(default_factory=dict)  # of arrays


def _clocks(program: _Program) -> float:
    (kernel,) = walk.kernels(program.module)
    block = kernel.regions[0].blocks[0]
    for argument, attributes in zip(block.arguments, walk.argument_attributes(kernel)):
        name = attributes["tile.name"].value
        if name in program.bound.arrays:
            program.names[argument] = name
        else:
            program.values[argument] = program.bound.scalars.get(name)
    moved, multiplied = _work(block, program)
    return max(moved / L2_BYTES_PER_CLOCK, multiplied)


def _work(block: ir.Block, program: _Program) -> tuple[float, float]:
    """Bytes that a block moves, and clocks in which it multiplies tiles."""
    moved = multiplied = 0.0
    for view in block.operations:
        op = view.operation
        more = (0.0, 0.0)
        if op.name in walk.BLOCK_ACCESSES:
            more = (_accessed(op, program), 0.0)
        elif op.name in ("tile.gather", "tile.scatter"):
            more = (_bytes(op.results[0] if op.name == "tile.gather" else op.operands[1]), 0.0)
        elif op.name in ("tile.dot", "tile.dot4"):
            more = (0.0, _multiplied(op, program.rates))
        elif op.name == "scf.for":
            more = _loop(op, program)
        elif op.name == "scf.if":
            more = _branches(op, program)
        elif op.name in ("scf.while", "func.call"):
            raise _Unknown
        elif len(op.results) == 1:
            program.values[op.results[0]] = _value(op, program)
        moved, multiplied = moved + more[0], multiplied + more[1]
    return moved, multiplied


def _loop(op: ir.Operation, program: _Program) -> tuple[float, float]:
    """A loop's work: that of its middle iteration, as often as it runs."""
    low, high, step = (program.values.get(v) for v in list(op.operands)[:3])
    body = op.regions[0].blocks[0]
    if low is None or high is None or not step:
        if _is_work(op):
            raise _Unknown
        return 0.0, 0.0
    count = max(0, -(-(high - low) // step))
    if not count:
        return 0.0, 0.0
    program.values[body.arguments[0]] = low + step * (count // 2)
    moved, multiplied = _work(body, program)
    return count * moved, count * multiplied


def _branches(op: ir.Operation, program: _Program) -> tuple[float, float]:
    """The work of the branch that is taken, or of the one with more where that is not known."""
    blocks = [region.blocks[0] for region in op.regions if len(region.blocks)]
    taken = program.values.get(op.operands[0])
    if taken is not None:
        blocks = blocks[:1] if taken else blocks[1:]
    return max((_work(block, program) for block in blocks), default=(0.0, 0.0))


_WORK = walk.BLOCK_ACCESSES | {"tile.gather", "tile.scatter", "tile.dot", "tile.dot4"}


def _is_work(op: ir.Operation) -> bool:
    return any(inner.name in _WORK for inner in walk.operations(op))


def _accessed(op: ir.Operation, program: _Program) -> float:
    """The bytes of a block that lie inside its array, if it starts there."""
    tile = op.results[0] if op.name == "tile.load" else op.operands[1]
    name = program.names.get(op.operands[0])
    if name is None:
        return _bytes(tile)
    shape = program.bound.arrays[name].shape
    inside = math.prod(min(extent, size) for extent, size in zip(walk.block_extents(op), shape))
    return inside * _element_bits(tile.type) / 8


def _bytes(tile: ir.Value) -> float:
    return math.prod(shape_of(tile.type)) * _element_bits(tile.type) / 8


def _element_bits(type_: ir.Type) -> int:
    element = type_.element_type if isinstance(type_, ir.ShapedType) else type_
    return int(element.width) if hasattr(element, "width") else 64


def _multiplied(op: ir.Operation, rates: Rates) -> float:
    """The clocks of a product of tiles, with as many multiplications per element of the result as the left factor has columns."""
    left = op.operands[0]
    bits: int | str = max(8, *(_element_bits(value.type) for value in list(op.operands)[:2]))
    if bits == 32 and "precision" in op.attributes and op.attributes["precision"].value.startswith("tf32"):
        bits = "tf32"
    flops = 2 * math.prod(shape_of(op.results[0].type)) * shape_of(left.type)[-1]
    return flops / rates.flops_per_clock[bits]


_INTEGERS: Mapping[str, Callable[[int, int], int]] = {
    "arith.addi": lambda a, b: a + b,
    "arith.subi": lambda a, b: a - b,
    "arith.muli": lambda a, b: a * b,
    "arith.divsi": lambda a, b: int(math.copysign(abs(a) // abs(b), a * b)),
    "arith.floordivsi": lambda a, b: a // b,
    "arith.ceildivsi": lambda a, b: -(-a // b),
    "arith.remsi": lambda a, b: int(math.fmod(a, b)),
    "arith.minsi": min,
    "arith.maxsi": max,
    "arith.andi": lambda a, b: a & b,
    "arith.ori": lambda a, b: a | b,
}
_COMPARISONS: tuple[Callable[[int, int], bool], ...] = (  # by arith's numbers, from eq to sge
    lambda a, b: a == b,
    lambda a, b: a != b,
    lambda a, b: a < b,
    lambda a, b: a <= b,
    lambda a, b: a > b,
    lambda a, b: a >= b,
)


def _value(op: ir.Operation, program: _Program) -> Any:
    """The number that an operation on integers gives; None where it is not known."""
    known = [program.values.get(operand) for operand in op.operands]
    match op.name:
        case "arith.constant":
            return walk.constant_integer(op.results[0])
        case "tile.program_id":
            return program.place[op.attributes["axis"].value]
        case "tile.num_programs":
            return program.grid[op.attributes["axis"].value]
        case "tile.dim" if op.operands[0] in program.names:
            return program.bound.arrays[program.names[op.operands[0]]].shape[op.attributes["axis"].value]
        case "arith.extsi" | "arith.trunci" | "arith.index_cast":
            return known[0]
        case "arith.select" if known[0] is not None:
            return known[1] if known[0] else known[2]
    numbers = [value for value in known if isinstance(value, int)]
    if len(numbers) != 2 or len(known) != 2:
        return None
    try:
        if op.name in _INTEGERS:
            return _INTEGERS[op.name](*numbers)
        if op.name == "arith.cmpi" and (number := op.attributes["predicate"].value) < len(_COMPARISONS):
            return _COMPARISONS[number](*numbers)
    except ZeroDivisionError:
        pass
    return None
