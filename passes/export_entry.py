"""export-entry: the functions that C calls, around a program whose arrays are pointers.

For a kernel NAME (docs/c-abi.md says what callers may rely on):

    NAME_run            runs the programs [begin, end) of the grid in order, axis 0 fastest
    NAME_grid           the number of programs on each axis
    NAME_scratch_bytes  the memory that a thread which runs programs gives them
    NAME_share          for threads that share a grid: takes chunks off a counter and runs them; arguments in one block
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

from mosaic_compile.mlir import arith, func, ir, scf
from mosaic_compile.mlir_llvm import address, atomic_add, load, store

from .expressions import emit, names_in
from .walk import argument_attributes, kernels

SLOT = 8  # bytes of an argument in the block that NAME_share takes
WORKERS = "num_sms"  # in a grid: how many programs run at once


@dataclass(frozen=True)
class ExportEntry:
    name: ClassVar[str] = "export-entry"

    def run(self, module: ir.Module) -> None:
        with module.context:
            for kernel in kernels(module):
                with kernel.location, ir.InsertionPoint(module.body):
                    _Entry(kernel).build(kernel)


def abi_type(type_: ir.Type) -> ir.Type:
    """How a scalar is passed: numbers for which C has no type as integers that hold their bits, truth values as bytes."""
    if isinstance(type_, ir.IntegerType):
        return ir.IntegerType.get_signless(max(type_.width, 8))
    if isinstance(type_, ir.FloatType) and type_.width < 32:
        return ir.IntegerType.get_signless(type_.width)
    return type_


def from_abi(value: ir.Value, type_: ir.Type) -> ir.Value:
    if value.type == type_:
        return value
    if isinstance(type_, ir.FloatType):
        return arith.bitcast(type_, value)
    if type_.width == 1:
        return arith.cmpi(arith.CmpIPredicate.ne, value, arith.constant(value.type, 0))
    return arith.trunci(type_, value)


class _Entry:
    """The exported functions of one kernel."""

    def __init__(self, program: ir.Operation):
        self.name = program.attributes["mosaic.name"].value
        self.program = program.attributes["sym_name"].value
        self.grid = [g.value for g in program.attributes["mosaic.grid"]]
        self.described = json.loads(program.attributes["mosaic.arguments"].value)
        given = argument_attributes(program)
        count = len(self.described)
        self.types = [a.type for a in program.regions[0].blocks[0].arguments][:count]
        self.attributes = [_kept(g) for g in given[:count]]
        self.roles = [g["mosaic.role"].value for g in given[count:]]
        self.scratch_bytes = sum(g["mosaic.bytes"].value for g in given[count:] if "mosaic.bytes" in g)
        self.i32, self.i64 = (ir.IntegerType.get_signless(bits) for bits in (32, 64))
        self.pointer = ir.Type.parse("!llvm.ptr")
        known = {d["name"] for d in self.described if d["kind"] == "dim"}
        wanted = dict.fromkeys(name for text in self.grid for name in names_in(text))
        # What the grid needs and the program does not: the number of workers, and dimensions of no open array.
        self.only_grid = [name for name in wanted if name not in known]
        self.parameters = [*self.described, *({"kind": "dim", "name": name} for name in self.only_grid)]
        self.abi_types = [*map(abi_type, self.types), *[self.i64] * len(self.only_grid)]

    def build(self, kernel: ir.Operation) -> None:
        kernel.attributes["mosaic.arguments"] = ir.StringAttr.get(json.dumps(self.parameters))
        self._run()
        self._grid()
        self._scratch_bytes()
        self._share()

    def _constant(self, number: int, type_: ir.Type | None = None) -> ir.Value:
        return arith.constant(type_ or self.i64, number)

    @contextmanager
    def _function(
        self,
        suffix: str,
        types: Sequence[ir.Type],
        results: Sequence[ir.Type] = (),
        attributes: Sequence[ir.Attribute] = (),
    ) -> Iterator[Sequence[ir.Value]]:
        """An exported function; inside, operations go into its body."""
        function = func.FuncOp(f"{self.name}_{suffix}", (list(types), list(results)))
        if attributes:
            function.operation.attributes["arg_attrs"] = ir.ArrayAttr.get(list(attributes))
        # Called for many programs at a time: a second copy inside NAME_share would only make the object larger.
        function.operation.attributes["llvm.no_inline"] = ir.UnitAttr.get()
        with ir.InsertionPoint(function.add_entry_block()):
            yield function.arguments

    def _sizes(self, values: Sequence[ir.Value]) -> list[ir.Value]:
        """The number of programs on each of three axes, from the values of `parameters`."""
        dims = {p["name"]: v for p, v in zip(self.parameters, values) if p["kind"] == "dim"}
        return [*(emit(text, dims) for text in self.grid), *[self._constant(1)] * (3 - len(self.grid))]

    def _run(self) -> None:
        types = [*self.abi_types, self.i64, self.i64, self.pointer]
        empty = ir.DictAttr.get({})
        attributes = [*self.attributes, *[empty] * (len(types) - len(self.attributes))]
        with self._function("run", types, attributes=attributes) as arguments:
            *given, begin, end, scratch = arguments
            values = [from_abi(v, t) for v, t in zip(given, self.types)]
            grid = self._sizes(given)
            numbers = [arith.trunci(self.i32, n) for n in grid]
            width, height = (arith.maxsi(n, self._constant(1)) for n in grid[:2])  # not to divide by zero
            row = arith.divsi(begin, width)
            place = [arith.remsi(begin, width), arith.remsi(row, height), arith.divsi(row, height)]
            loop = scf.ForOp(begin, end, self._constant(1), place)
            with ir.InsertionPoint(loop.body):
                ids = [arith.trunci(self.i32, p) for p in loop.inner_iter_args]
                roles = {"program_id": iter(ids), "num_programs": iter(numbers), "scratch": iter([scratch])}
                func.call([], self.program, [*values, *(next(roles[role]) for role in self.roles)])
                scf.yield_(self._next_place(list(loop.inner_iter_args), [width, height]))
            func.return_([])

    def _next_place(self, place: list[ir.Value], sizes: list[ir.Value]) -> list[ir.Value]:
        """The place of the program behind this one."""
        zero, one = self._constant(0), self._constant(1)
        result = []
        carry = one
        for position, size in zip(place, sizes):
            following = arith.addi(position, carry)
            wraps = arith.cmpi(arith.CmpIPredicate.eq, following, size)
            result.append(arith.select(wraps, zero, following))
            carry = arith.select(wraps, one, zero)
        return [*result, arith.addi(place[2], carry)]

    def _grid(self) -> None:
        dims = [p for p in self.parameters if p["kind"] == "dim"]
        with self._function("grid", [*[self.i64] * len(dims), self.pointer]) as arguments:
            values = {p["name"]: v for p, v in zip(dims, arguments)}
            sizes = [emit(text, values) for text in self.grid]
            sizes += [self._constant(1)] * (3 - len(sizes))
            for axis, size in enumerate(sizes):
                store(size, address(arguments[-1], axis * SLOT), SLOT)
            func.return_([])

    def _scratch_bytes(self) -> None:
        with self._function("scratch_bytes", [], [self.i64]):
            func.return_([self._constant(self.scratch_bytes)])

    def _share(self) -> None:
        with self._function("share", [self.pointer, self.pointer, self.i64, self.i64, self.pointer]) as given:
            block, counter, end, chunk, scratch = given
            values = [load(t, address(block, i * SLOT), SLOT) for i, t in enumerate(self.abi_types)]
            loop = scf.WhileOp([self.i64, self.i64], [])
            before = loop.before.blocks.append()
            after = loop.after.blocks.append(self.i64, self.i64)
            with ir.InsertionPoint(before):
                # Nothing but the counter passes between threads here: who waits for them orders the rest.
                begin = atomic_add(counter, chunk)
                more = arith.cmpi(arith.CmpIPredicate.slt, begin, end)
                scf.condition(more, [begin, arith.minsi(arith.addi(begin, chunk), end)])
            with ir.InsertionPoint(after):
                func.call([], f"{self.name}_run", [*values, *after.arguments, scratch])
                scf.yield_([])
            func.return_([])


def _kept(attributes: Mapping[str, ir.Attribute]) -> ir.DictAttr:
    return ir.DictAttr.get({name: value for name, value in attributes.items() if name.startswith("llvm.")})
