"""Loops: `scf.for` and `scf.while` with the variables that they change, or unrolled where possible."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mosaic_compile.errors import CarriedTypeError, MosaicError, UndefinedNameError, UnsupportedSyntaxError
from mosaic_compile.language.dtypes import DType, f32, i32
from mosaic_compile.language.loops import Range
from mosaic_compile.language.op import i32_value, is_number, kind_of
from mosaic_compile.language.tile import Tile
from mosaic_compile.mlir import ir, scf

from . import branches, expressions, statements
from .liveness import Names, assigned, loop_live
from .scope import Scope, Undefined
from .values import fill, flatten, holes, match, runtime_form, same_constant


def for_statement(node: ast.For, scope: Scope, after: Names) -> None:
    if node.orelse:
        raise UnsupportedSyntaxError(
            "'else' on a loop cannot be used in a kernel", "put the code behind the loop"
        )
    iterable = expressions.evaluate(node.iter, scope)
    if isinstance(iterable, Range):
        _runtime_for(node, iterable, scope, after)
        return
    live = loop_live(node, after)
    for item in expressions.unrolled(iterable, node.iter, scope):
        statements.assign(node.target, item, scope)
        if statements.block(node.body, scope, live) is not statements.NO_RETURN:
            raise _return_in_loop("a loop", node, scope)


def _runtime_for(node: ast.For, bounds: Range, scope: Scope, after: Names) -> None:
    if not isinstance(node.target, ast.Name):
        raise UnsupportedSyntaxError("range(…) gives one loop variable", "write `for i in range(…):`").at(
            scope.frame.spans(node.target)
        )
    carried = _carried(node, scope, after, exclude=node.target.id)
    lower, upper, step = (i32_value(v) for v in (bounds.start, bounds.stop, bounds.step))
    loop = scf.ForOp(lower, upper, step, [t.value for t in carried.tiles])
    for name, attribute in bounds.attributes().items():
        loop.operation.attributes[name] = attribute
    with scope.isolated(loops=1), ir.InsertionPoint(loop.body):
        carried.enter(scope, loop.inner_iter_args)
        scope.locals[node.target.id] = Tile(loop.induction_variable, i32, ())
        _body(node, scope, after)
        scf.yield_(carried.leave(scope, node))
    carried.finish(scope, loop.results, node)
    scope.locals[node.target.id] = Undefined(
        f"'{node.target.id}' has no value after its loop on line {node.lineno}",
        "copy it to another variable inside the loop, or compute it from the loop's bounds",
    )


def while_statement(node: ast.While, scope: Scope, after: Names) -> None:
    if node.orelse:
        raise UnsupportedSyntaxError(
            "'else' on a loop cannot be used in a kernel", "put the code behind the loop"
        )
    carried = _carried(node, scope, after)
    operands = [t.value for t in carried.tiles]
    types = [o.type for o in operands]
    loop = ir.Operation.create("scf.while", results=types, operands=operands, regions=2)
    before, body = (
        ir.Block.create_at_start(r, types, [ir.Location.current] * len(types)) for r in loop.regions
    )
    with scope.isolated(loops=1), ir.InsertionPoint(before):
        carried.enter(scope, before.arguments)
        with scope.without_walrus("a `while` condition"):
            test = branches.condition(node.test, scope, "while")
        if isinstance(test, bool):
            raise UnsupportedSyntaxError(
                f"this `while` condition is always {test}",
                "test a value that the loop changes: `while i < n:`",
            ).at(scope.frame.spans(node.test))
        scf.condition(test.value, list(before.arguments))
    with scope.isolated(loops=1), ir.InsertionPoint(body):
        carried.enter(scope, body.arguments)
        _body(node, scope, after)
        scf.yield_(carried.leave(scope, node))
    carried.finish(scope, loop.results, node)


def _body(node: ast.For | ast.While, scope: Scope, after: Names) -> None:
    if statements.block(node.body, scope, loop_live(node, after)) is not statements.NO_RETURN:
        raise _return_in_loop("a loop that runs on the device", node, scope)


def _return_in_loop(loop: str, node: ast.stmt, scope: Scope) -> MosaicError:
    place = branches.first_return(node) or node
    return UnsupportedSyntaxError(
        f"'return' cannot leave {loop}", "set a variable in the loop and test it after the loop"
    ).at(scope.frame.spans(place))


@dataclass(frozen=True)
class Carried:
    """The variables of a loop: `values` become its results (numbers as scalars), `constants` stay."""

    values: dict[str, Any]
    constants: dict[str, Any]
    assigned: Names
    numbers: dict[str, Any]  # those of `values` that are numbers before the loop

    @property
    def tiles(self) -> list[Tile]:
        return [tile for value in self.values.values() for tile in flatten(value)]

    def enter(self, scope: Scope, arguments: Sequence[ir.Value]) -> None:
        """Gives the variables their values at the start of an iteration."""
        scope.locals.update(self._wrapped(arguments))

    def _wrapped(self, arguments: Sequence[ir.Value]) -> dict[str, Any]:
        tiles = iter(Tile(value, t.dtype, t.shape) for value, t in zip(arguments, self.tiles))
        return {name: fill(holes(value), tiles) for name, value in self.values.items()}

    def leave(self, scope: Scope, node: ast.For | ast.While) -> list[ir.Value]:
        """The variables' values at the end of an iteration, their types checked."""
        for name, before in self.constants.items():
            after = scope.locals.get(name)
            if not same_constant(before, after):
                raise CarriedTypeError(
                    f"'{name}' is {kind_of(before)} before the loop and {kind_of(after)} after an iteration",
                    "a compile-time value cannot change in a loop that runs on the device; "
                    "use another name inside, or mc.static_range to unroll",
                ).at(scope.frame.spans(_last_assignment(node, name)))
        result: list[ir.Value] = []
        for name, before in self.values.items():
            after = scope.locals[name]
            place = scope.frame.spans(_last_assignment(node, name))
            if isinstance(after, Undefined):
                raise UndefinedNameError(after.message, after.help).at(place)
            matched = match(before, after)
            if matched is None:
                help = "give it one element type and shape before the loop and in it"
                if isinstance(before, Tile) and isinstance(after, Tile) and not before.shape and after.shape:
                    help = _start(name, after.shape, accumulator(after.dtype), self.numbers.get(name))
                elif isinstance(before, Tile) and isinstance(after, Tile) and before.shape == after.shape:
                    help = (
                        f"convert at the end of the body: {name} = {name}.to(mc.{before.dtype}), "
                        f"or start from {after.dtype}"
                    )
                raise CarriedTypeError(
                    f"'{name}' is {kind_of(before)} before the loop and {kind_of(after)} after an iteration",
                    help,
                ).at(place)
            result += [t.value for t in matched]
        return result

    def finish(self, scope: Scope, results: Sequence[ir.Value], node: ast.For | ast.While) -> None:
        """Gives the variables their values after the loop."""
        for name in self.assigned - self.constants.keys():
            scope.locals[name] = Undefined(
                f"'{name}' gets its value only inside the loop on line {node.lineno}, which may not run",
                f"give '{name}' a value before the loop",
            )
        scope.locals.update(self._wrapped(results))


def _carried(node: ast.For | ast.While, scope: Scope, after: Names, exclude: str = "") -> Carried:
    """The variables that the loop changes and that an iteration, or what follows, reads."""
    names = assigned(node.body) & (loop_live(node, after) | scope.captured) - {exclude}
    values: dict[str, Any] = {}
    constants: dict[str, Any] = {}
    numbers: dict[str, Any] = {}
    for name in sorted(names & scope.locals.keys()):
        value = scope.locals[name]
        if isinstance(value, Undefined):
            continue
        runtime = runtime_form(value)
        if runtime is None:
            constants[name] = value
        else:
            values[name] = runtime
            if is_number(value):
                numbers[name] = value
    return Carried(values, constants, assigned(node.body) - {exclude}, numbers)


def accumulator(dtype: DType) -> DType:
    """The type that sums of a type are kept in."""
    return f32 if dtype.is_float and dtype.bits < 32 else dtype


def _start(name: str, shape: tuple[int, ...], dtype: DType, number: Any) -> str:
    """A help line: how a variable of a loop becomes a tile. number: what it is now, None if it is none."""
    if number == 0:
        tile = f"mc.zeros({shape}, mc.{dtype})"
    else:
        tile = f"mc.full({shape}, {'…' if number is None else number}, mc.{dtype})"
    return f"start from a tile: {name} = {tile} before the loop"


def accumulation_help(op: ast.operator, name: str, before: Any, added: Any, scope: Scope) -> str | None:
    """A help line for `name += added` of two element types in a loop; `before`: what the loop carries."""
    is_carried = isinstance(before, Tile) and isinstance(before.value.owner, ir.Block)
    if not scope.loops or not is_carried or not isinstance(added, Tile):
        return None
    dtype = accumulator(added.dtype)
    convert = "" if added.dtype is dtype else f", and convert what is added: .to(mc.{dtype})"
    is_sum = isinstance(op, ast.Add | ast.Sub)
    if not before.shape and added.shape:
        return _start(name, added.shape, dtype, 0 if is_sum else None) + convert
    if before.shape == added.shape and before.dtype is not dtype and before.dtype.bits <= dtype.bits:
        zero = f"mc.zeros({before.shape}, mc.{dtype})" if before.shape else f"mc.{dtype}(0)"
        return f"make {name} {dtype} before the loop{f': {name} = {zero}' if is_sum else ''}{convert}"
    return None


def _last_assignment(loop: ast.For | ast.While, name: str) -> ast.AST:
    """The last statement of a loop's body that assigns `name`."""
    found: ast.AST = loop
    for statement in ast.walk(loop):
        if isinstance(statement, ast.Assign | ast.AugAssign | ast.AnnAssign):
            is_later = found is loop or statement.lineno >= found.lineno  # type: ignore[attr-defined]
            if name in assigned([statement]) and is_later:
                found = statement
    return found
