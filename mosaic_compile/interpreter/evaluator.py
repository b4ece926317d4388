"""Runs functions of any dialect op by op: the meaning of each operation is an entry of a registry.

A function is prepared once (operands become slots of a list, attributes Python values), then run many
times. Entries are called as `entry(op, env, *operands)` and give the op's result, or a tuple where there
are several; what they need of the op is in an `Op`, what they need of the program in an `Env`. The last op
of a block is its terminator: its operands are what the block gives to the op that holds it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mosaic_compile.mlir import ir

from .values import ValueType, decode, value_type

Entry = Callable[..., Any]


class InterpreterError(Exception):
    """The IR cannot be interpreted: an op without an entry, or arguments that do not fit."""


@dataclass(eq=False)
class Env:
    """One program's state. `values` is the evaluator's own; entries may use the rest."""

    program_id: tuple[int, int, int] = (0, 0, 0)
    grid: tuple[int, int, int] = (1, 1, 1)
    functions: Mapping[str, Function] = field(default_factory=dict)
    values: list[Any] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Op:
    """An operation as entries see it; `regions[i](env, *arguments)` gives what a region yields."""

    name: str
    attributes: Mapping[str, Any]
    operands: tuple[ValueType, ...]
    results: tuple[ValueType, ...]
    regions: tuple[Block, ...]
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
            except Exception as error:
                error.add_note(f"in {step.op.name} at {step.op.location}, program {env.program_id}")
                raise
            outputs = step.outputs
            if len(outputs) == 1:
                values[outputs[0]] = result
            elif outputs:
                for slot, value in zip(outputs, result):
                    values[slot] = value
        return tuple([values[i] for i in self.results])


@dataclass(frozen=True, eq=False)
class Function:
    """A prepared function; a call runs its body for one program and gives its results."""

    name: str
    attributes: Mapping[str, Any]
    parameters: tuple[ValueType, ...]
    body: Block
    slots: int

    def __call__(self, env: Env, *arguments: Any) -> tuple[Any, ...]:
        env = Env(env.program_id, env.grid, env.functions, [None] * self.slots)
        return self.body(env, *arguments)


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


def run_grid(
    functions: Mapping[str, Function], name: str, arguments: Sequence[Any], grid: Sequence[int]
) -> None:
    """Runs a function once for each program of the grid, axis 0 fastest."""
    n0, n1, n2 = (*grid, 1, 1, 1)[:3]
    with np.errstate(all="ignore"):
        for z in range(n2):
            for y in range(n1):
                for x in range(n0):
                    functions[name](Env((x, y, z), (n0, n1, n2), functions), *arguments)
