"""Tracing: a kernel's syntax tree is executed once, at compile time, and what depends on runtime values becomes IR.

Python values (numbers, types, tuples, functions, modules) are computed right here; tiles and scalars are `Tile`s whose
operators emit IR. So only control flow, names and calls are this file's business: the operations themselves are in
language/ops. `if`, `for` and `while` on runtime values become `scf.if`, `scf.for` and `scf.while`, with the variables that
liveness.py finds as their results; functions of the user are inlined.
"""

from __future__ import annotations

import ast
import builtins
import functools
import inspect
import operator
import os
import sys
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

from mosaic_compile.dialects.tile import ArrayType, DimOp
from mosaic_compile.errors import (
    BranchTypeError,
    CarriedTypeError,
    HelperError,
    InternalError,
    MosaicError,
    NotConstantError,
    OperandError,
    Span,
    StaticAssertionError,
    UndefinedNameError,
    UnsupportedSyntaxError,
)
from mosaic_compile.language import ops
from mosaic_compile.language.arrays import ArrayParam, ConstParam, ScalarParam
from mosaic_compile.language.dtypes import DType, bool_, i32
from mosaic_compile.language.kernel import Kernel
from mosaic_compile.language.loops import Range, range_
from mosaic_compile.language.op import constant, default_dtype, i32_value, ir_type, is_number, kind_of
from mosaic_compile.language.specialization import Specialization
from mosaic_compile.language.tile import Array, Tile
from mosaic_compile.mlir import func, ir, new_context, scf

from .liveness import Names, assigned, live_after_each, loop_live, reads
from .source import FunctionNode, display_path, function_node, span_of

MAX_INLINE_DEPTH = 64


@dataclass(frozen=True)
class Undefined:
    """A variable without a value on some path to here: an error only when it is read."""

    message: str
    help: str


@dataclass
class Scope:
    """The variables of one function call: its locals, then those of the enclosing functions, globals and builtins."""

    locals: dict[str, Any]
    globals: dict[str, Any]
    enclosing: Scope | None = None
    captured: Names = frozenset()  # names that nested functions read
    loops: int = 0  # runtime loops around the current statement

    def find(self, name: str) -> Any:
        scope: Scope | None = self
        while scope is not None:
            if name in scope.locals:
                return scope.locals[name]
            scope = scope.enclosing
        if name in self.globals:
            return self.globals[name]
        return getattr(builtins, name)  # AttributeError: not defined anywhere


@contextmanager
def isolated(scope: Scope, loops: int = 0) -> Iterator[None]:
    """Assignments made inside are undone after: a branch or loop body hands its results on by itself.

    The scope stays the same object, so that nested functions see the variables as they are where they are called.
    """
    saved = scope.locals
    scope.locals = dict(saved)
    scope.loops += loops
    try:
        yield
    finally:
        scope.locals = saved
        scope.loops -= loops


@dataclass(frozen=True, eq=False)
class LocalFunction:
    """A `def` or lambda inside a kernel."""

    node: FunctionNode
    scope: Scope
    file: str

    @property
    def name(self) -> str:
        return getattr(self.node, "name", "<lambda>")


def _python_error(error: Exception) -> MosaicError:
    """A Python exception during tracing: the user's compile-time Python failed, or the compiler did."""
    innermost = error.__traceback__
    while innermost is not None and innermost.tb_next is not None:
        innermost = innermost.tb_next
    file = innermost.tb_frame.f_code.co_filename if innermost is not None else ""
    ours = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    text = f"{type(error).__name__}: {error}"
    if file != __file__ and (file.startswith(ours) or "torch_mlir" in file):
        return InternalError(text, "this is a fault of Mosaic Compile, not of the kernel: please report it; --debug shows where")
    return HelperError(text, "this part is ordinary Python, run at compile time")


NO_RETURN = object()
MISSING = object()


@dataclass
class Tracer:
    file: str
    calls: list[Span] = field(default_factory=list)  # call sites of the functions being inlined, outermost first
    caller_locations: list[ir.Location] = field(default_factory=list)

    # Places.

    def frames(self, node: ast.AST) -> tuple[Span, ...]:
        return (*self.calls, span_of(node, self.file))

    def location(self, node: ast.AST) -> ir.Location:
        here = ir.Location.file(self.file, node.lineno, node.col_offset + 1)  # type: ignore[attr-defined]
        return ir.Location.callsite(here, [self.caller_locations[-1]]) if self.caller_locations else here

    @contextmanager
    def at(self, node: ast.AST) -> Iterator[None]:
        """Operations made inside carry the node's location; errors without a place get it."""
        try:
            with self.location(node):
                yield
        except MosaicError as error:
            raise error.at(self.frames(node)) from None

    # Statements.

    def block(self, statements: Sequence[ast.stmt], scope: Scope, live: Names) -> Any:
        """Runs statements; `live` may be read after them. Returns what a `return` gave, or NO_RETURN."""
        after = live_after_each(statements, live)
        for i, statement in enumerate(statements):
            with self.at(statement):
                if isinstance(statement, ast.Return):
                    return None if statement.value is None else self.expression(statement.value, scope)
                if isinstance(statement, ast.If):
                    outcome = self.if_statement(statement, scope, after[i], statements[i + 1 :], live)
                    if outcome is not NO_RETURN:
                        return outcome
                else:
                    self.statement(statement, scope, after[i])
        return NO_RETURN

    def statement(self, node: ast.stmt, scope: Scope, after: Names) -> None:
        match node:
            case ast.Assign(targets=targets, value=value):
                result = self.expression(value, scope)
                for target in targets:
                    self.assign(target, result, scope)
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                self.assign(target, self.expression(value, scope), scope)
            case ast.AnnAssign():
                pass  # a bare annotation declares nothing
            case ast.AugAssign(target=ast.Name(id=name) as target, op=op, value=value):
                result = self.binary(op, self.name(target, scope), self.expression(value, scope), node)
                scope.locals[name] = result
            case ast.AugAssign(target=target):
                self.assign(target, None, scope)  # raises: only names can be assigned
            case ast.For():
                self.for_statement(node, scope, after)
            case ast.While():
                self.while_statement(node, scope, after)
            case ast.Expr(value=ast.Constant()):
                pass  # a docstring
            case ast.Expr(value=value):
                self.expression(value, scope)
            case ast.Pass():
                pass
            case ast.Assert(test=test, msg=message):
                self.assert_statement(test, message, scope)
            case ast.FunctionDef(name=name):
                scope.locals[name] = LocalFunction(node, scope, self.file)
            case _:
                raise self.unsupported_statement(node)

    def unsupported_statement(self, node: ast.stmt) -> MosaicError:
        what, instead = {
            ast.Try: ("try", "check conditions with `if`; a kernel has no exceptions"),
            ast.TryStar: ("try", "check conditions with `if`; a kernel has no exceptions"),
            ast.Raise: ("raise", "check compile-time conditions with `assert`"),
            ast.With: ("with", "call functions instead"),
            ast.ClassDef: ("class", "define it outside the kernel, or pass values as tuples"),
            ast.Match: ("match", "use if / elif"),
            ast.Break: ("break", "put the condition into a while loop: `while i < n and not done:`"),
            ast.Continue: ("continue", "put the rest of the loop body under `if not …:`"),
            ast.Import: ("import", "import at the top of the file"),
            ast.ImportFrom: ("import", "import at the top of the file"),
            ast.Global: ("global", "pass the value as an argument and return it"),
            ast.Nonlocal: ("nonlocal", "pass the value as an argument and return it"),
            ast.Delete: ("del", "leave it out: a value that is not used costs nothing"),
            ast.AsyncFor: ("async", "use a plain for loop"),
            ast.AsyncWith: ("async", "call functions instead"),
            ast.AsyncFunctionDef: ("async", "use a plain function"),
        }.get(type(node), (f"the statement {type(node).__name__}", "see the language reference in docs/language.md"))
        return UnsupportedSyntaxError(f"'{what}' cannot be used in a kernel", instead)

    def assign(self, target: ast.expr, value: Any, scope: Scope) -> None:
        match target:
            case ast.Name(id=name):
                scope.locals[name] = value
            case ast.Tuple(elts=elements) | ast.List(elts=elements):
                self.unpack(target, elements, value, scope)
            case ast.Subscript(value=base):
                with self.at(target):
                    is_array = isinstance(self.expression(base, scope), Array)
                    raise UnsupportedSyntaxError(
                        "elements cannot be assigned: a tile is a value",
                        "write blocks with mc.store(array, index, tile)" if is_array else "make a new tile: x = mc.where(condition, new, x)",
                    )
            case _:
                with self.at(target):
                    raise UnsupportedSyntaxError("only names can be assigned in a kernel", "assign to a name, or to several: a, b = …")

    def unpack(self, target: ast.expr, elements: list[ast.expr], value: Any, scope: Scope) -> None:
        with self.at(target):
            if isinstance(value, Tile) or not isinstance(value, tuple | list | range):
                raise OperandError(f"{kind_of(value)} cannot be unpacked", "unpack tuples only")
            values = list(value)
            stars = [i for i, e in enumerate(elements) if isinstance(e, ast.Starred)]
            if stars:
                first, rest = stars[0], len(elements) - stars[0] - 1
                if len(values) >= len(elements) - 1:
                    values = [*values[:first], values[first : len(values) - rest], *values[len(values) - rest :]]
            if len(values) != len(elements):
                raise OperandError(f"{len(elements)} names are assigned, but there are {len(values)} values", "make the numbers equal")
        for element, item in zip(elements, values):
            self.assign(element.value if isinstance(element, ast.Starred) else element, item, scope)

    def assert_statement(self, test: ast.expr, message: ast.expr | None, scope: Scope) -> None:
        condition = self.expression(test, scope)
        if isinstance(condition, Tile):
            raise NotConstantError(
                "`assert` checks compile-time values, but this condition is known only when the kernel runs",
                "assert on constants and fixed dimensions; clip or mask the rest",
            )
        if not condition:
            text = self.expression(message, scope) if message is not None else ast.unparse(test)
            raise StaticAssertionError(f"assertion failed: {text}", "choose constants or shapes that satisfy it")

    # if.

    def if_statement(self, node: ast.If, scope: Scope, after: Names, rest: Sequence[ast.stmt], live: Names) -> Any:
        """Returns NO_RETURN where execution goes on behind the `if`, else the function's return value."""
        condition = self.condition(node.test, scope, "if")
        if isinstance(condition, bool):
            return self.block(node.body if condition else node.orelse, scope, after)
        if not _contains_return([*node.body, *node.orelse]):
            self.branches(condition, node.body, node.orelse, scope, after, node)
            return NO_RETURN
        if scope.loops:
            raise UnsupportedSyntaxError(
                "'return' cannot leave a loop that runs on the device", "set a variable and test it after the loop, or use `while`"
            )
        # With `return` in a branch, everything behind the `if` belongs to the branch that goes on.
        def side(body: Sequence[ast.stmt]) -> Any:
            with isolated(scope):
                outcome = self.block([*body, *rest], scope, live)
            return None if outcome is NO_RETURN else outcome

        return self.select(condition, lambda: side(node.body), lambda: side(node.orelse), "the returned value", node)

    def condition(self, test: ast.expr, scope: Scope, statement: str) -> bool | Tile:
        """A branch condition: a Python bool known now, or a bool scalar."""
        value = self.expression(test, scope)
        if not isinstance(value, Tile):
            with self.at(test):
                return bool(value)
        if value.shape:
            raise OperandError(
                f"`{statement}` needs one truth value, not a tile of type {value!r}",
                "use mc.where to choose element by element, or reduce first: mc.any(x), mc.all(x)",
            ).at(self.frames(test))
        with self.at(test):
            return value if value.dtype is bool_ else ops.not_equal(value, 0)

    def branches(
        self, condition: Tile, body: Sequence[ast.stmt], orelse: Sequence[ast.stmt], scope: Scope, after: Names, node: ast.AST
    ) -> None:
        """An scf.if whose results are the variables that a branch assigns and that are read later."""
        names = sorted((assigned(body) | assigned(orelse)) & (after | scope.captured))

        def side(statements: Sequence[ast.stmt]) -> list[Any]:
            with isolated(scope):
                self.block(statements, scope, after)
                return [scope.locals.get(name, MISSING) for name in names]

        results = self.select(condition, lambda: side(body), lambda: side(orelse), [f"'{name}'" for name in names], node)
        for name, value in zip(names, results):
            if value is MISSING:
                value = Undefined(
                    f"'{name}' has no value if this condition does not hold (line {node.lineno})",  # type: ignore[attr-defined]
                    f"give '{name}' a value before the `if`, or in both branches",
                )
            scope.locals[name] = value

    def select(self, condition: Tile, then: Callable[[], Any], orelse: Callable[[], Any], what: Any, node: ast.AST) -> Any:
        """Traces both sides into an scf.if; returns their merged outcome (values, or lists and tuples of values)."""
        draft = ir.Operation.create("scf.if", results=[], operands=[condition.value], regions=2)
        blocks = [ir.Block.create_at_start(region, []) for region in draft.regions]
        outcomes = []
        for block, side in zip(blocks, (then, orelse)):
            with ir.InsertionPoint(block):
                outcomes.append(side())
        pairs: list[tuple[Tile, Tile]] = []
        merged = self.merge(outcomes[0], outcomes[1], what, blocks, pairs, node)
        types = [a.value.type for a, _ in pairs]
        final = ir.Operation.create("scf.if", results=types, operands=[condition.value], regions=2)
        for block, values, region in zip(blocks, zip(*pairs) if pairs else ((), ()), final.regions):
            with ir.InsertionPoint(block):
                scf.yield_([v.value for v in values])
            block.append_to(region)
        draft.erase()
        results = iter(Tile(result, a.dtype, a.shape) for result, (a, _) in zip(final.results, pairs))
        return _fill(merged, results)

    def merge(self, a: Any, b: Any, what: Any, blocks: list[ir.Block], pairs: list[tuple[Tile, Tile]], node: ast.AST) -> Any:
        """The common form of two outcomes; tiles are collected in `pairs` and leave a _HOLE to be filled."""
        if isinstance(what, list):
            return [self.merge(x, y, name, blocks, pairs, node) for x, y, name in zip(a, b, what)]
        if a is MISSING or b is MISSING:
            return MISSING
        if isinstance(a, Undefined) or isinstance(b, Undefined):
            return a if isinstance(a, Undefined) else b
        if isinstance(a, tuple | list) and isinstance(b, tuple | list) and len(a) == len(b):
            return tuple(self.merge(x, y, what, blocks, pairs, node) for x, y in zip(a, b))
        if not isinstance(a, Tile) and not isinstance(b, Tile) and _same_constant(a, b):
            return a
        if is_number(a) or is_number(b):
            dtype = next((v.dtype for v in (a, b) if isinstance(v, Tile)), None) or default_dtype(a)
            if is_number(a):
                a = self.number_in(blocks[0], a, dtype)
            if is_number(b):
                b = self.number_in(blocks[1], b, dtype)
        if isinstance(a, Tile) and isinstance(b, Tile) and (a.dtype, a.shape) == (b.dtype, b.shape):
            pairs.append((a, b))
            return _HOLE
        raise BranchTypeError(
            f"{what} is {kind_of(a)} if the condition holds, but {kind_of(b)} if not",
            "give it the same element type and shape on both paths, with .to() or mc.broadcast_to",
        ).at(self.frames(node))

    def number_in(self, block: ir.Block, number: Any, dtype: DType) -> Tile:
        with ir.InsertionPoint(block):
            return constant(number, dtype)

    # Loops.

    def for_statement(self, node: ast.For, scope: Scope, after: Names) -> None:
        if node.orelse:
            raise UnsupportedSyntaxError("'else' on a loop cannot be used in a kernel", "put the code behind the loop")
        iterable = self.expression(node.iter, scope)
        if isinstance(iterable, Range):
            self.runtime_loop(node, iterable, scope, after)
            return
        if isinstance(iterable, Tile | Array) or not isinstance(iterable, tuple | list | range | dict | zip | enumerate):
            raise OperandError(
                f"a kernel cannot loop over {kind_of(iterable)}", "loop over range(…), or over a tuple that is known at compile time"
            ).at(self.frames(node.iter))
        live = loop_live(node, after)
        for item in iterable:  # known now: unrolled
            self.assign(node.target, item, scope)
            if self.block(node.body, scope, live) is not NO_RETURN:
                raise UnsupportedSyntaxError("'return' cannot leave a loop", "set a variable and test it after the loop")

    def runtime_loop(self, node: ast.For, bounds: Range, scope: Scope, after: Names) -> None:
        if not isinstance(node.target, ast.Name):
            raise UnsupportedSyntaxError("range(…) gives one loop variable", "write `for i in range(…):`").at(self.frames(node.target))
        carried = self.carried(node, scope, after, exclude=node.target.id)
        lower, upper, step = (i32_value(v) for v in (bounds.start, bounds.stop, bounds.step))
        loop = scf.ForOp(lower, upper, step, [t.value for t in carried.tiles])
        for name, attribute in bounds.attributes().items():
            loop.operation.attributes[name] = attribute
        with isolated(scope, loops=1), ir.InsertionPoint(loop.body):
            carried.enter(scope, loop.inner_iter_args)
            scope.locals[node.target.id] = Tile(loop.induction_variable, i32, ())
            self.loop_body(node, scope, after)
            scf.yield_(carried.leave(self, scope, node))
        carried.finish(scope, loop.results, node)

    def while_statement(self, node: ast.While, scope: Scope, after: Names) -> None:
        if node.orelse:
            raise UnsupportedSyntaxError("'else' on a loop cannot be used in a kernel", "put the code behind the loop")
        carried = self.carried(node, scope, after)
        types = [t.value.type for t in carried.tiles]
        loop = ir.Operation.create("scf.while", results=types, operands=[t.value for t in carried.tiles], regions=2)
        before, body = (ir.Block.create_at_start(r, types, [ir.Location.current] * len(types)) for r in loop.regions)
        with isolated(scope, loops=1), ir.InsertionPoint(before):
            carried.enter(scope, before.arguments)
            condition = self.condition(node.test, scope, "while")
            if isinstance(condition, bool):
                raise UnsupportedSyntaxError(
                    f"this `while` condition is always {condition}", "test a value that the loop changes: `while i < n:`"
                ).at(self.frames(node.test))
            scf.condition(condition.value, list(before.arguments))
        with isolated(scope, loops=1), ir.InsertionPoint(body):
            carried.enter(scope, body.arguments)
            self.loop_body(node, scope, after)
            scf.yield_(carried.leave(self, scope, node))
        carried.finish(scope, loop.results, node)

    def loop_body(self, node: ast.For | ast.While, scope: Scope, after: Names) -> None:
        if self.block(node.body, scope, loop_live(node, after)) is not NO_RETURN:
            raise UnsupportedSyntaxError(
                "'return' cannot leave a loop that runs on the device", "set a variable and test it after the loop, or use `while`"
            )

    def carried(self, node: ast.For | ast.While, scope: Scope, after: Names, exclude: str = "") -> Carried:
        """The variables that the loop changes and that an iteration, or what follows, reads."""
        names = assigned(node.body) & (loop_live(node, after) | scope.captured) - {exclude}
        values, constants = {}, {}
        for name in sorted(names):
            value = scope.locals.get(name, MISSING)
            if value is MISSING or isinstance(value, Undefined):
                continue
            with self.at(node):
                runtime = _runtime_form(value)
            (constants if runtime is None else values)[name] = value if runtime is None else runtime
        return Carried(values, constants, assigned(node.body) - {exclude})

    # Expressions.

    def expression(self, node: ast.expr, scope: Scope) -> Any:
        with self.at(node):
            try:
                return self.evaluate(node, scope)
            except MosaicError:
                raise
            except RecursionError:
                raise
            except Exception as error:
                raise _python_error(error) from error

    def evaluate(self, node: ast.expr, scope: Scope) -> Any:
        match node:
            case ast.Constant(value=value):
                return value
            case ast.Name():
                return self.name(node, scope)
            case ast.Attribute(value=base, attr=attr):
                return self.attribute(self.expression(base, scope), attr)
            case ast.BinOp(left=left, op=op, right=right):
                return self.binary(op, self.expression(left, scope), self.expression(right, scope), node)
            case ast.UnaryOp(op=op, operand=operand):
                return self.unary(op, self.expression(operand, scope))
            case ast.Compare():
                return self.compare(node, scope)
            case ast.BoolOp(op=op, values=values):
                return self.boolean(op, values, scope)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                condition = self.condition(test, scope, "if")
                if isinstance(condition, bool):
                    return self.expression(body if condition else orelse, scope)
                return self.select(
                    condition,
                    lambda: self.expression(body, scope),
                    lambda: self.expression(orelse, scope),
                    "the value of this `if` expression",
                    node,
                )
            case ast.Call():
                return self.call(node, scope)
            case ast.Tuple(elts=elements):
                return tuple(self.elements(elements, scope))
            case ast.List(elts=elements):
                return list(self.elements(elements, scope))
            case ast.Dict(keys=keys, values=values) if None not in keys:
                return {self.expression(k, scope): self.expression(v, scope) for k, v in zip(keys, values) if k is not None}
            case ast.Subscript(value=base, slice=index):
                return self.subscript(self.expression(base, scope), self.expression(index, scope))
            case ast.Slice(lower=lower, upper=upper, step=step):
                return slice(*(None if part is None else self.expression(part, scope) for part in (lower, upper, step)))
            case ast.NamedExpr(target=ast.Name(id=name), value=value):
                scope.locals[name] = self.expression(value, scope)
                return scope.locals[name]
            case ast.Lambda():
                return LocalFunction(node, scope, self.file)
            case ast.JoinedStr(values=values):
                return "".join(self.formatted(value, scope) for value in values)
            case ast.ListComp(elt=element, generators=generators) | ast.GeneratorExp(elt=element, generators=generators):
                return list(self.comprehension(element, generators, scope))
            case ast.Starred():
                raise UnsupportedSyntaxError("'*' cannot be used here", "write the values one by one")
        raise UnsupportedSyntaxError(
            f"{type(node).__name__} cannot be used in a kernel", "see the language reference in docs/language.md"
        )

    def name(self, node: ast.Name, scope: Scope) -> Any:
        try:
            value = scope.find(node.id)
        except AttributeError:
            raise UndefinedNameError(f"'{node.id}' is not defined", "check the spelling, or define it before the kernel") from None
        if isinstance(value, Undefined):
            raise UndefinedNameError(value.message, value.help).at(self.frames(node))
        return value

    def attribute(self, base: Any, attr: str) -> Any:
        try:
            return getattr(base, attr)
        except AttributeError:
            if isinstance(base, Tile | Array):
                raise OperandError(f"{kind_of(base)} has no '{attr}'", "see what there is in docs/language.md") from None
            where = base.__name__ if isinstance(base, ModuleType) else type(base).__name__
            raise UndefinedNameError(f"'{where}' has no '{attr}'", "check the spelling") from None

    def elements(self, nodes: list[ast.expr], scope: Scope) -> Iterator[Any]:
        for node in nodes:
            if isinstance(node, ast.Starred):
                yield from self.expression(node.value, scope)
            else:
                yield self.expression(node, scope)

    def subscript(self, base: Any, index: Any) -> Any:
        if isinstance(base, Tile | Array | DType):
            return base[index]
        if isinstance(index, Tile):
            raise NotConstantError(
                f"a {type(base).__name__} is indexed at compile time, but the index is a value of type {index!r}",
                "use a constant index, or keep the data in an array and load it",
            )
        return base[index]

    def formatted(self, node: ast.expr, scope: Scope) -> str:
        if isinstance(node, ast.FormattedValue):
            value = self.expression(node.value, scope)
            if isinstance(value, Tile):
                raise NotConstantError("an f-string holds compile-time values", "print runtime values with mc.device_print")
            return format(value, "" if node.format_spec is None else self.expression(node.format_spec, scope))
        return str(self.expression(node, scope))

    def comprehension(self, element: ast.expr, generators: list[ast.comprehension], scope: Scope) -> Iterator[Any]:
        first, *rest = generators
        iterable = self.expression(first.iter, scope)
        if isinstance(iterable, Range) and all(isinstance(v, int) for v in (iterable.start, iterable.stop, iterable.step)):
            iterable = range(iterable.start, iterable.stop, iterable.step)  # type: ignore[arg-type]
        if not isinstance(iterable, tuple | list | range | dict | zip | enumerate):
            raise UnsupportedSyntaxError(
                f"a comprehension cannot run over {kind_of(iterable) if not isinstance(iterable, Range) else 'a range known only at run time'}",
                "comprehensions are unrolled at compile time; work on whole tiles, or use a for loop",
            ).at(self.frames(first.iter))
        for item in iterable:
            inner = Scope({}, scope.globals, scope, scope.captured, scope.loops)
            self.assign(first.target, item, inner)
            conditions = [self.condition(test, inner, "if") for test in first.ifs]
            if any(isinstance(c, Tile) for c in conditions):
                raise NotConstantError("a comprehension's `if` is decided at compile time", "use mc.where")
            if all(conditions):
                if rest:
                    yield from self.comprehension(element, rest, inner)
                else:
                    yield self.expression(element, inner)

    def binary(self, op: ast.operator, left: Any, right: Any, node: ast.AST) -> Any:
        function, symbol = _BINARY[type(op)]
        for side in (left, right):
            if isinstance(side, Range | LocalFunction) or side is None:
                raise OperandError(f"'{symbol}' cannot be applied to {kind_of(side)}", "use it on tiles and numbers")
        try:
            return function(left, right)
        except TypeError as error:
            if isinstance(left, Tile) or isinstance(right, Tile):
                raise OperandError(f"'{symbol}' cannot combine {kind_of(left)} and {kind_of(right)}", "use it on tiles and numbers") from None
            raise error

    def unary(self, op: ast.unaryop, operand: Any) -> Any:
        if isinstance(op, ast.Not):
            if not isinstance(operand, Tile):
                return not operand
            if operand.shape:
                raise OperandError(f"`not` needs one truth value, not a tile of type {operand!r}", "use ~x for element by element")
            return ops.bitwise_not(operand if operand.dtype is bool_ else ops.not_equal(operand, 0))
        return {ast.USub: operator.neg, ast.UAdd: operator.pos, ast.Invert: operator.invert}[type(op)](operand)

    def compare(self, node: ast.Compare, scope: Scope) -> Any:
        left = self.expression(node.left, scope)
        result: Any = True
        for op, right_node in zip(node.ops, node.comparators):
            right = self.expression(right_node, scope)
            one = self.compare_two(op, left, right)
            if isinstance(one, Tile) and isinstance(result, Tile):
                result = ops.bitwise_and(result, one)
            elif isinstance(one, Tile):
                result = one if result else False
            else:
                result = result if one else False
            left = right
        return result

    def compare_two(self, op: ast.cmpop, left: Any, right: Any) -> Any:
        match op:
            case ast.Is():
                return left is right
            case ast.IsNot():
                return left is not right
            case ast.In() | ast.NotIn():
                if isinstance(left, Tile) or isinstance(right, Tile | Array):
                    raise OperandError("`in` works on compile-time values only", "compare tiles with == and reduce with mc.any")
                return (left in right) == isinstance(op, ast.In)
        return _COMPARE[type(op)](left, right)

    def boolean(self, op: ast.boolop, nodes: list[ast.expr], scope: Scope) -> Any:
        """`and`, `or`: Python's own on compile-time values; on scalars both sides are computed."""
        is_and = isinstance(op, ast.And)
        result: Any = is_and
        for node in nodes:
            value = self.expression(node, scope)
            if isinstance(value, Tile):
                value = self.truth(value, node, "and" if is_and else "or")
                result = value if not isinstance(result, Tile) else (ops.bitwise_and if is_and else ops.bitwise_or)(result, value)
            elif bool(value) != is_and:  # decides at once
                return value
            elif not isinstance(result, Tile):
                result = value
        return result

    def truth(self, value: Tile, node: ast.expr, word: str) -> Tile:
        if value.shape:
            raise OperandError(
                f"`{word}` needs single truth values, not a tile of type {value!r}", f"use {'&' if word == 'and' else '|'} element by element"
            ).at(self.frames(node))
        return value if value.dtype is bool_ else ops.not_equal(value, 0)

    # Calls.

    def call(self, node: ast.Call, scope: Scope) -> Any:
        function = self.expression(node.func, scope)
        args = list(self.elements(node.args, scope))
        kwargs: dict[str, Any] = {}
        for keyword in node.keywords:
            value = self.expression(keyword.value, scope)
            kwargs |= {keyword.arg: value} if keyword.arg is not None else value
        return self.apply(function, args, kwargs, node)

    def apply(self, function: Any, args: list[Any], kwargs: dict[str, Any], node: ast.AST) -> Any:
        if function is range:
            function = range_
        if function in _BUILTINS and any(isinstance(a, Tile) for a in args):
            function = _BUILTINS[function]
        if isinstance(function, LocalFunction):
            return self.inline(function.node, function.scope, function.file, function.name, args, kwargs, node)
        if _is_operation(function):
            return self.operation(function, args, kwargs, node)
        if isinstance(function, DType):
            return function(*args, **kwargs)
        if isinstance(function, Kernel):
            raise OperandError(
                f"'{function.name}' is a kernel, and a kernel cannot call another one", "move the shared part into a plain function and call that"
            )
        if isinstance(function, functools.partial):
            return self.apply(function.func, [*function.args, *args], {**function.keywords, **kwargs}, node)
        if isinstance(function, FunctionType) and not _is_library(function):
            enclosing = Scope(_closure(function), function.__globals__)
            return self.inline(
                function_node(function), enclosing, display_path(function.__code__.co_filename), function.__name__, args, kwargs, node, function
            )
        if not callable(function):
            raise OperandError(f"{kind_of(function)} cannot be called", "call functions and mc operations")
        runtime = next((a for a in [*args, *kwargs.values()] if isinstance(a, Tile | Array)), None)
        if runtime is not None and not _takes_tiles(function):
            name = getattr(function, "__name__", str(function))
            suggestion = f"use mc.{name}" if hasattr(ops, name) else "use the operations of mc; Python's own work on compile-time values"
            if function is print:
                suggestion = "print runtime values with mc.device_print"
            raise OperandError(f"'{name}' cannot be applied to {kind_of(runtime)}", suggestion)
        return function(*args, **kwargs)

    def operation(self, function: Any, args: list[Any], kwargs: dict[str, Any], node: ast.AST) -> Any:
        """Calls one of the DSL's operations, or a method of a tile or array."""
        try:
            inspect.signature(function).bind(*args, **kwargs)
        except TypeError as error:
            name = function.__name__
            prefix = "." if isinstance(function, MethodType) else "mc."
            raise OperandError(f"{prefix}{name}: {error}", f"its form is {prefix}{name}{inspect.signature(function)}") from None

        def callback(value: Any) -> Any:
            """Functions given to mc.reduce and mc.scan are the user's: traced when the operation calls them."""
            if isinstance(value, LocalFunction | FunctionType):
                return lambda *scalars: self.apply(value, list(scalars), {}, node)
            return value

        return function(*map(callback, args), **{k: callback(v) for k, v in kwargs.items()})

    def inline(
        self,
        definition: FunctionNode,
        enclosing: Scope,
        file: str,
        name: str,
        args: list[Any],
        kwargs: dict[str, Any],
        node: ast.AST,
        function: FunctionType | None = None,
    ) -> Any:
        """Traces a function's body in place of a call."""
        if len(self.calls) >= MAX_INLINE_DEPTH:
            raise UnsupportedSyntaxError(
                f"'{name}' calls itself, or calls are nested more than {MAX_INLINE_DEPTH} deep", "functions are inlined: use a loop"
            )
        if function is not None:
            signature = inspect.signature(function)
        else:
            signature = self.local_signature(definition, enclosing)
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise OperandError(f"{name}: {error}", f"its form is {name}{signature}") from None
        bound.apply_defaults()
        body = definition.body if isinstance(definition.body, list) else [ast.copy_location(ast.Return(definition.body), definition.body)]
        scope = Scope(dict(bound.arguments), enclosing.globals, enclosing, captured_names(body))
        self.calls.append(span_of(node, self.file))
        self.caller_locations.append(ir.Location.current)
        outer, self.file = self.file, file
        try:
            outcome = self.block(body, scope, frozenset())
        finally:
            self.file = outer
            self.calls.pop()
            self.caller_locations.pop()
        return None if outcome is NO_RETURN else outcome

    def local_signature(self, node: FunctionNode, scope: Scope) -> inspect.Signature:
        a = node.args
        kinds = inspect.Parameter
        positional = [*a.posonlyargs, *a.args]
        defaults: list[Any] = [kinds.empty] * (len(positional) - len(a.defaults)) + [self.expression(d, scope) for d in a.defaults]
        params = [kinds(p.arg, kinds.POSITIONAL_OR_KEYWORD, default=d) for p, d in zip(positional, defaults)]
        if a.vararg:
            params.append(kinds(a.vararg.arg, kinds.VAR_POSITIONAL))
        for p, d in zip(a.kwonlyargs, a.kw_defaults):
            params.append(kinds(p.arg, kinds.KEYWORD_ONLY, default=kinds.empty if d is None else self.expression(d, scope)))
        return inspect.Signature(params)


@dataclass
class Carried:
    """The variables of a loop: `values` become its results (numbers as scalars), `constants` must not change."""

    values: dict[str, Any]
    constants: dict[str, Any]
    assigned: Names

    @property
    def tiles(self) -> list[Tile]:
        return [tile for value in self.values.values() for tile in _flatten(value)]

    def enter(self, scope: Scope, arguments: Sequence[ir.Value]) -> None:
        """Gives the variables their values at the start of an iteration."""
        scope.locals.update(self._wrapped(arguments))

    def _wrapped(self, arguments: Sequence[ir.Value]) -> dict[str, Any]:
        tiles = iter(Tile(value, t.dtype, t.shape) for value, t in zip(arguments, self.tiles))
        return {name: _fill(_holes(value), tiles) for name, value in self.values.items()}

    def leave(self, tracer: Tracer, scope: Scope, node: ast.For | ast.While) -> list[ir.Value]:
        """The variables' values at the end of an iteration, their types checked."""
        for name, before in self.constants.items():
            after = scope.locals.get(name)
            if not _same_constant(before, after):
                raise CarriedTypeError(
                    f"'{name}' is {kind_of(before)} before the loop and {kind_of(after)} after an iteration",
                    "a compile-time value cannot change in a loop that runs on the device; use another name inside, or mc.static_range to unroll",
                ).at(tracer.frames(_last_assignment(node, name)))
        result: list[ir.Value] = []
        for name, before in self.values.items():
            after = scope.locals[name]
            if isinstance(after, Undefined):
                raise UndefinedNameError(after.message, after.help).at(tracer.frames(_last_assignment(node, name)))
            matched = _match(before, after)
            if matched is None:
                help = "give it one element type and shape before the loop and in it"
                if isinstance(before, Tile) and isinstance(after, Tile) and before.shape == after.shape:
                    help = f"convert at the end of the body: {name} = {name}.to(mc.{before.dtype}), or start from {after.dtype}"
                raise CarriedTypeError(
                    f"'{name}' is {kind_of(before)} before the loop and {kind_of(after)} after an iteration", help
                ).at(tracer.frames(_last_assignment(node, name)))
            result += [t.value for t in matched]
        return result

    def finish(self, scope: Scope, results: Sequence[ir.Value], node: ast.For | ast.While) -> None:
        """Gives the variables their values after the loop."""
        for name in self.assigned - self.constants.keys():
            scope.locals[name] = Undefined(
                f"'{name}' gets its value only inside the loop on line {node.lineno}, which may not run at all",
                f"give '{name}' a value before the loop",
            )
        scope.locals.update(self._wrapped(results))


_HOLE = object()


def _holes(value: Any) -> Any:
    return tuple(_holes(v) for v in value) if isinstance(value, tuple) else _HOLE


def _fill(form: Any, tiles: Iterator[Tile]) -> Any:
    """`form` with every _HOLE replaced by the next tile."""
    if isinstance(form, tuple | list):
        return type(form)(_fill(v, tiles) for v in form)
    return next(tiles) if form is _HOLE else form


def _flatten(value: Any) -> list[Tile]:
    return [t for v in value for t in _flatten(v)] if isinstance(value, tuple) else [value]


def _runtime_form(value: Any) -> Any:
    """A variable as a loop can carry it: a tile, or a tuple of them; numbers become scalars. None where it cannot be."""
    if isinstance(value, Tile):
        return value
    if is_number(value):
        return constant(value, default_dtype(value))
    if isinstance(value, tuple | list) and value:
        items = tuple(_runtime_form(v) for v in value)
        return None if any(i is None for i in items) else items
    return None


def _match(before: Any, after: Any) -> list[Tile] | None:
    """The tiles of `after`, if it has the types of `before`; numbers take the type they had."""
    if isinstance(before, tuple):
        if not isinstance(after, tuple | list) or len(after) != len(before):
            return None
        parts = [_match(b, a) for b, a in zip(before, after)]
        return None if any(p is None for p in parts) else [t for p in parts if p is not None for t in p]
    if is_number(after):
        fits = before.shape == () and (before.dtype.is_float or not isinstance(after, float)) and isinstance(after, bool) == (before.dtype is bool_)
        return [constant(after, before.dtype)] if fits else None
    if isinstance(after, Tile) and (after.dtype, after.shape) == (before.dtype, before.shape):
        return [after]
    return None


def _same_constant(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if isinstance(a, Tile | Array) or isinstance(b, Tile | Array):
        return False
    try:
        return type(a) is type(b) and bool(a == b)
    except Exception:
        return False


def _last_assignment(loop: ast.For | ast.While, name: str) -> ast.AST:
    """The last statement of a loop's body that assigns `name`."""
    found: ast.AST = loop
    for statement in ast.walk(loop):
        if isinstance(statement, ast.Assign | ast.AugAssign | ast.AnnAssign) and statement is not loop:
            is_later = statement.lineno >= getattr(found, "lineno", 0) or found is loop
            if name in assigned([statement]) and is_later:
                found = statement
    return found


def _contains_return(statements: Sequence[ast.stmt]) -> bool:
    pending: list[ast.AST] = list(statements)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Return):
            return True
        if not isinstance(node, ast.FunctionDef | ast.Lambda):
            pending.extend(ast.iter_child_nodes(node))
    return False


def captured_names(body: Sequence[ast.stmt]) -> Names:
    """Names that nested functions read: their values matter wherever such a function may be called."""
    nested = [n for s in body for n in ast.walk(s) if isinstance(n, ast.FunctionDef | ast.Lambda)]
    return frozenset().union(*(reads(n) for n in nested))


_BINARY: dict[type, tuple[Callable[[Any, Any], Any], str]] = {
    ast.Add: (operator.add, "+"),
    ast.Sub: (operator.sub, "-"),
    ast.Mult: (operator.mul, "*"),
    ast.Div: (operator.truediv, "/"),
    ast.FloorDiv: (operator.floordiv, "//"),
    ast.Mod: (operator.mod, "%"),
    ast.Pow: (operator.pow, "**"),
    ast.MatMult: (operator.matmul, "@"),
    ast.BitAnd: (operator.and_, "&"),
    ast.BitOr: (operator.or_, "|"),
    ast.BitXor: (operator.xor, "^"),
    ast.LShift: (operator.lshift, "<<"),
    ast.RShift: (operator.rshift, ">>"),
}
_COMPARE: dict[type, Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


def _fold(function: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    folded = lambda *values: functools.reduce(function, values)
    folded.__mosaic_op__ = True  # type: ignore[attr-defined]
    folded.__name__ = function.__name__
    return folded


_BUILTINS: dict[Any, Any] = {max: _fold(ops.maximum), min: _fold(ops.minimum), abs: ops.abs}


def _is_operation(function: Any) -> bool:
    if getattr(function, "__mosaic_op__", False):
        return True
    return isinstance(function, MethodType) and isinstance(function.__self__, Tile | Array)


def _takes_tiles(function: Any) -> bool:
    """Python's own functions that treat tiles as opaque values."""
    return function in (isinstance, type, len, tuple, list, zip, enumerate, reversed, id, repr, int, float, bool, getattr, hasattr)


@functools.cache
def _library_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    return tuple({paths["stdlib"], paths["platstdlib"], paths["purelib"], paths["platlib"]})


def _is_library(function: FunctionType | BuiltinFunctionType) -> bool:
    """Whether a function belongs to Python or an installed package, and so runs at compile time instead of being inlined."""
    module = getattr(function, "__module__", None) or ""
    if module.split(".")[0] == "mosaic_compile":
        return False
    file = function.__code__.co_filename if isinstance(function, FunctionType) else ""
    return module.split(".")[0] in sys.stdlib_module_names or file.startswith(_library_folders())


def _closure(function: FunctionType) -> dict[str, Any]:
    cells = function.__closure__ or ()
    values = {}
    for name, cell in zip(function.__code__.co_freevars, cells):
        try:
            values[name] = cell.cell_contents
        except ValueError:
            continue  # not assigned yet: an undefined name, if it is read
    return values


# The kernel's function.


def trace(kernel: Kernel, spec: Specialization) -> ir.Module:
    """The kernel as a module of the `tile` dialect, in a context of its own.

    Raises a MosaicError with the user's line for every mistake in the kernel's text.
    """
    function = kernel.function
    node = function_node(function)
    tracer = Tracer(display_path(function.__code__.co_filename))
    context = new_context()
    with context, tracer.location(node):
        module = ir.Module.create()
        with ir.InsertionPoint(module.body):
            _trace_function(tracer, kernel, spec, node)
    return module


def _array_type(param: ArrayParam, spec: Specialization) -> ir.Type:
    dynamic = ir.ShapedType.get_dynamic_size()
    sizes = [dynamic if n is None else n for n in spec.sizes_of(param)]
    strides = spec.layout_of(param).strides
    dynamic_stride = ir.ShapedType.get_dynamic_stride_or_offset()
    layout = ir.StridedLayoutAttr.get(0, [dynamic_stride if s is None else s for s in strides])
    tensor = ir.RankedTensorType.get(sizes, ir.Type.parse(spec.dtype_of(param).mlir))
    return ArrayType.get(ir.TypeAttr.get(tensor), layout)


def _argument_attributes(param: ArrayParam | ScalarParam, spec: Specialization) -> ir.DictAttr:
    attributes: dict[str, ir.Attribute] = {
        "tile.name": ir.StringAttr.get(param.name),
        "tile.dtype": ir.StringAttr.get(spec.dtype_of(param).name),
    }
    if isinstance(param, ArrayParam):
        layout = spec.layout_of(param)
        i64_type = ir.IntegerType.get_signless(64)
        attributes["tile.dims"] = ir.ArrayAttr.get(
            [ir.StringAttr.get(d) if isinstance(d, str) else ir.IntegerAttr.get(i64_type, d) for d in param.spec.dims]
        )
        if param.spec.access is not None:
            attributes["tile.access"] = ir.StringAttr.get(param.spec.access)
        attributes["tile.align"] = ir.IntegerAttr.get(i64_type, layout.align)
        attributes["tile.stride_multiples"] = ir.DenseI64ArrayAttr.get(list(layout.stride_multiples))
        attributes["tile.dim_multiples"] = ir.DenseI64ArrayAttr.get(
            [spec.dim_multiples.get(d, 1) if isinstance(d, str) else d for d in param.spec.dims]
        )
    return ir.DictAttr.get(attributes)


def _trace_function(tracer: Tracer, kernel: Kernel, spec: Specialization, node: FunctionNode) -> None:
    params = [
        p for p in kernel.signature.params if isinstance(p, ScalarParam) or (isinstance(p, ArrayParam) and spec.has(p))
    ]
    types = [_array_type(p, spec) if isinstance(p, ArrayParam) else ir_type(spec.dtype_of(p)) for p in params]
    outer = func.FuncOp(kernel.name, (types, []))
    outer.operation.attributes["tile.kernel"] = ir.UnitAttr.get()
    outer.operation.attributes["tile.grid"] = ir.ArrayAttr.get([ir.StringAttr.get(g) for g in kernel.grid_text(spec)])
    outer.operation.attributes["tile.options"] = ir.DictAttr.get(
        {k: ir.Attribute.parse(str(int(v))) for k, v in spec.options.items() if v is not None}
    )
    outer.arg_attrs = [_argument_attributes(p, spec) for p in params]
    block = outer.add_entry_block()
    with ir.InsertionPoint(block):
        values: dict[str, Any] = {}
        dims: dict[str, Tile | int] = dict(spec.dims)
        for param, argument in zip(params, block.arguments):
            if isinstance(param, ScalarParam):
                values[param.name] = Tile(argument, spec.dtype_of(param), ())
                continue
            sizes: list[Tile | int] = []
            for axis, dim in enumerate(param.spec.dims):
                if isinstance(dim, str) and dim not in dims:
                    axis_attribute = ir.IntegerAttr.get(ir.IntegerType.get_signless(64), axis)
                    dims[dim] = Tile(DimOp(argument, axis_attribute, ir_type(i32)).result, i32, ())
                sizes.append(dims[dim] if isinstance(dim, str) else dim)
            values[param.name] = Array(
                argument, param.name, spec.dtype_of(param), tuple(sizes), param.spec.access, tuple(range(len(sizes)))
            )
        for param in kernel.signature.params:
            if isinstance(param, ConstParam):
                values[param.name] = spec.constants[param.name]
            elif isinstance(param, ArrayParam) and not spec.has(param):
                values[param.name] = None
        body = node.body if isinstance(node.body, list) else [ast.copy_location(ast.Return(node.body), node.body)]
        enclosing = Scope(_closure(kernel.function), kernel.function.__globals__)
        scope = Scope(values, kernel.function.__globals__, enclosing, captured_names(body))
        outcome = tracer.block(body, scope, frozenset())
        if outcome is not NO_RETURN and outcome is not None:
            raise UnsupportedSyntaxError(
                "a kernel returns nothing: its results go to arrays", "write them with mc.store(array, index, tile)"
            ).at(tracer.frames(next((s for s in ast.walk(node) if isinstance(s, ast.Return)), node)))
        func.return_([])
