"""Runs functions of any dialect op by op: the meaning of each operation is an entry of a registry.

A function is prepared once (operands become slots of a list, attributes Python values), then run many
times. Entries are called as `entry(op, env, *operands)` and give the op's result, or a tuple where there
are several; what they need of the op is in an `Op`, what they need of the program in an `Env`. The last op
of a block is its terminator: its operands are what the block gives to the op that holds it.
"""

from __future__ import annotations

from bdb import BdbQuit
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mosaic_compile.errors import InterpreterError, MosaicError
from mosaic_compile.mlir import ir
from mosaic_compile.passes.places import frames_of

from .values import ValueType, decode, value_type

Entry = Callable[..., Any]
Region = Callable[..., tuple[Any, ...]]
Program = tuple[int, int, int]  # a program's place in the grid


@dataclass(eq=False)
class Env:
    """One program's state. `values` is the evaluator's own; entries may use the rest.

    variables: what a breakpoint shows. state: what a registry of entries keeps beyond one program.
    """

    program_id: Program = (0, 0, 0)
    grid: Program = (1, 1, 1)
    functions: Mapping[str, Function] = field(default_factory=dict)
    values: list[Any] = field(default_factory=list)
    variables: dict[str, Any] = field(default_factory=dict)
    state: Any = None


@dataclass(frozen=True, eq=False)
class Op:
    """An operation as entries see it; `regions[i](env, *arguments)` gives what a region yields."""

    name: str
    attributes: Mapping[str, Any]
    operands: tuple[ValueType, ...]
    results: tuple[ValueType, ...]
    regions: tuple[Region, ...]
    location: ir.Location


@dataclass(frozen=True, eq=False)
class Step:
    entry: Entry
    op: Op
    inputs: tuple[int, ...]  # slots
    outputs: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Block:
    """A block's ops in order."""

    arguments: tuple[int, ...]
    steps: tuple[Step, ...]
    terminator: str
    results: tuple[int, ...]

    def __call__(self, env: Env, *arguments: Any) -> tuple[Any, ...]:
        values = env.values
        for slot, argument in zip(self.arguments, arguments):
            values[slot] = argument
        for step in self.steps:
            try:
                result = step.entry(step.op, env, *[values[i] for i in step.inputs])
            except BdbQuit:  # the person who debugs has left
                raise
            except Exception as error:
                if isinstance(error, InterpreterError) and error.program is not None:
                    raise
                raise _failure(error, step.op, env) from error
            outputs = step.outputs
            if len(outputs) == 1:
                values[outputs[0]] = result
            elif outputs:
                for slot, value in zip(outputs, result):
                    values[slot] = value
        return tuple([values[i] for i in self.results])


def _failure(error: Exception, op: Op, env: Env) -> InterpreterError:
    """What an entry raised, with the kernel's line and the program."""
    where = f"in program {env.program_id}"
    frames = frames_of(op.location)
    if isinstance(error, MosaicError):
        failure = InterpreterError(f"{error.message}, {where}", error.help, error.frames or frames)
    else:
        what = f"'{op.name}' failed {where}: {type(error).__name__}: {error}"
        failure = InterpreterError(what, "breakpoint() before this line shows the values", frames)
    failure.program = env.program_id
    return failure


@dataclass(frozen=True, eq=False)
class Function:
    """A prepared function; a call runs its body for one program and gives its results."""

    name: str
    attributes: Mapping[str, Any]
    parameters: tuple[ValueType, ...]
    body: Block
    slots: int

    def __call__(self, env: Env, *arguments: Any) -> tuple[Any, ...]:
        return self.body(replace(env, values=[None] * self.slots), *arguments)


class Preparer:
    """Gives every value of one function a slot."""

    def __init__(self, registry: Mapping[str, Entry]):
        self.registry = registry
        self.slots: dict[ir.Value, int] = {}

    def slot(self, value: ir.Value) -> int:
        return self.slots.setdefault(value, len(self.slots))

    def block(self, region: ir.Region) -> Block:
        blocks = list(region.blocks)
        if not blocks:
            return Block((), (), "", ())
        if len(blocks) > 1:
            raise InterpreterError(
                "a region of several blocks: only structured control flow can be interpreted"
            )
        arguments = tuple(map(self.slot, blocks[0].arguments))
        *ops, last = (op.operation for op in blocks[0].operations)
        steps = tuple(map(self.step, ops))
        return Block(arguments, steps, last.name, tuple(map(self.slot, last.operands)))

    def step(self, operation: ir.Operation) -> Step:
        entry = self.registry.get(operation.name)
        if entry is None:
            raise InterpreterError(
                f"'{operation.name}' has no entry in the interpreter's registry, at {operation.location}"
            )
        inputs = tuple(map(self.slot, operation.operands))
        op = Op(
            operation.name,
            {name: decode(operation.attributes[name]) for name in operation.attributes},
            tuple(value_type(v.type) for v in operation.operands),
            tuple(value_type(v.type) for v in operation.results),
            tuple(self.block(region) for region in operation.regions),
            operation.location,
        )
        return Step(entry, op, inputs, tuple(map(self.slot, operation.results)))


def prepare(function: ir.Operation, registry: Mapping[str, Entry]) -> Function:
    """A func.func (or tt.func) made ready to run; raises InterpreterError for an op without an entry."""
    preparer = Preparer(registry)
    body = preparer.block(function.regions[0])
    parameters = tuple(value_type(v.type) for v in function.regions[0].blocks[0].arguments)
    attributes = {name: decode(function.attributes[name]) for name in function.attributes}
    return Function(attributes["sym_name"], attributes, parameters, body, len(preparer.slots))


def prepare_module(module: ir.Module, registry: Mapping[str, Entry]) -> dict[str, Function]:
    """Every function of a module that has a body, by name."""
    functions = [op.operation for op in module.body.operations if "sym_name" in op.operation.attributes]
    prepared = [prepare(f, registry) for f in functions if len(f.regions) == 1 and len(f.regions[0].blocks)]
    return {f.name: f for f in prepared}


def programs(grid: Sequence[int]) -> Iterator[Program]:
    """The places of a grid, axis 0 fastest."""
    n0, n1, n2 = whole(grid)
    return ((x, y, z) for z in range(n2) for y in range(n1) for x in range(n0))


def whole(grid: Sequence[int]) -> Program:
    """A grid of up to three axes as one of three."""
    n0, n1, n2 = (*grid, 1, 1, 1)[:3]
    return n0, n1, n2


def run_grid(
    functions: Mapping[str, Function],
    name: str,
    arguments: Sequence[Any],
    grid: Sequence[int],
    chosen: Iterable[Program] | None = None,
    state: Any = None,
) -> None:
    """Runs a function once for each program of the grid, axis 0 fastest; for the chosen ones only, if given."""
    kernel = functions[name]
    with np.errstate(all="ignore"):
        for program in programs(grid) if chosen is None else chosen:
            kernel(Env(program, whole(grid), functions, state=state), *arguments)
