"""Statements: assignments and `assert` here, `if` in branches.py, loops in loops.py."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

from mosaic_compile.errors import (
    MixedTypesError,
    MosaicError,
    NotConstantError,
    OperandError,
    StaticAssertionError,
    UnsupportedSyntaxError,
)
from mosaic_compile.language.op import kind_of
from mosaic_compile.language.tile import Array, Tile

from . import branches, calls, expressions, loops, operators
from .liveness import Names, live_after_each
from .python import ordinary_python
from .scope import Scope

NO_RETURN = object()  # what a block gives that ran to its end


def block(statements: Sequence[ast.stmt], scope: Scope, live: Names) -> Any:
    """Runs statements; `live` may be read after them. Returns what a `return` gave, or NO_RETURN."""
    after = live_after_each(statements, live)
    for i, statement in enumerate(statements):
        with scope.frame.at(statement):
            if isinstance(statement, ast.Return):
                return _returned(statement, scope)
            if isinstance(statement, ast.If) and branches.returns(statement):
                return branches.if_with_return(statement, statements[i + 1 :], scope, live)
            run(statement, scope, after[i])
    return NO_RETURN


def _returned(node: ast.Return, scope: Scope) -> Any:
    value = None if node.value is None else expressions.evaluate(node.value, scope)
    if value is not None and scope.is_kernel:
        raise UnsupportedSyntaxError(
            "a kernel returns nothing: its results go to arrays",
            "write them with mc.store(array, index, tile)",
        )
    return value


def run(node: ast.stmt, scope: Scope, after: Names) -> None:
    """Runs one statement that does not return; `after` may be read behind it."""
    match node:
        case ast.Assign(
            targets=[ast.Name(id=name)],
            value=ast.BinOp(left=ast.Name(id=same) as read, op=op, right=right) as value,
        ) if same == name:
            with scope.frame.at(value):
                before, added = expressions.evaluate(read, scope), expressions.evaluate(right, scope)
                scope.locals[name] = _accumulated(op, name, before, added, scope)
        case ast.Assign(targets=targets, value=value):
            result = expressions.evaluate(value, scope)
            for target in targets:
                assign(target, result, scope)
        case ast.AnnAssign(target=target, value=ast.expr() as value):
            assign(target, expressions.evaluate(value, scope), scope)
        case ast.AnnAssign():
            pass  # a bare annotation declares nothing
        case ast.AugAssign(target=ast.Name(id=name) as target, op=op, value=value):
            before, added = expressions.read_name(target, scope), expressions.evaluate(value, scope)
            scope.locals[name] = _accumulated(op, name, before, added, scope)
        case ast.AugAssign(target=target):
            assign(target, None, scope)  # raises: only names can be assigned
        case ast.If():
            branches.if_statement(node, scope, after)
        case ast.For():
            loops.for_statement(node, scope, after)
        case ast.While():
            loops.while_statement(node, scope, after)
        case ast.Expr(value=ast.Constant()):
            pass  # a docstring
        case ast.Expr(value=value):
            expressions.evaluate(value, scope)
        case ast.Pass():
            pass
        case ast.Assert(test=test, msg=message):
            assert_statement(test, message, scope)
        case ast.FunctionDef(name=name, decorator_list=[]):
            scope.locals[name] = calls.local_function(node, scope)
        case ast.FunctionDef(name=name, decorator_list=[decorator, *_]):
            raise UnsupportedSyntaxError(
                f"'{name}' cannot be decorated inside a kernel",
                "define it outside the kernel, or call it as it is",
            ).at(scope.frame.spans(decorator))
        case _:
            raise _unsupported(node)


def _accumulated(op: ast.operator, name: str, before: Any, added: Any, scope: Scope) -> Any:
    """`name += added`, which is `name = name + added`."""
    try:
        return operators.binary(op, before, added)
    except MixedTypesError as error:
        error.help = loops.accumulation_help(op, name, before, added, scope) or error.help
        raise


_UNSUPPORTED: dict[type[ast.stmt], tuple[str, str]] = {
    ast.Try: ("try", "check conditions with `if`; a kernel has no exceptions"),
    ast.TryStar: ("try", "check conditions with `if`; a kernel has no exceptions"),
    ast.Raise: ("raise", "check compile-time conditions with `assert`"),
    ast.With: ("with", "call functions instead"),
    ast.ClassDef: ("class", "define it outside the kernel, or pass values as tuples"),
    ast.Match: ("match", "use if / elif"),
    ast.Break: (
        "break",
        "put the condition into a while loop, `while i < n and not done:`, or the rest under an `if`",
    ),
    ast.Continue: ("continue", "put the rest of the loop body under `if not …:`"),
    ast.Import: ("import", "import at the top of the file"),
    ast.ImportFrom: ("import", "import at the top of the file"),
    ast.Global: ("global", "pass the value as an argument and return it"),
    ast.Nonlocal: ("nonlocal", "pass the value as an argument and return it"),
    ast.Delete: ("del", "leave it out: a value that is not used costs nothing"),
    ast.AsyncFor: ("async", "use a plain for loop"),
    ast.AsyncWith: ("async", "call functions instead"),
    ast.AsyncFunctionDef: ("async", "use a plain function"),
}


def _unsupported(node: ast.stmt) -> MosaicError:
    otherwise = (f"the statement {type(node).__name__}", "see the language reference in docs/language.md")
    what, instead = _UNSUPPORTED.get(type(node), otherwise)
    return UnsupportedSyntaxError(f"'{what}' cannot be used in a kernel", instead)


def assign(target: ast.expr, value: Any, scope: Scope) -> None:
    match target:
        case ast.Name(id=name):
            scope.locals[name] = value
        case ast.Tuple(elts=elements) | ast.List(elts=elements):
            _unpack(target, elements, value, scope)
        case ast.Subscript(value=base):
            with scope.frame.at(target):
                is_array = isinstance(expressions.evaluate(base, scope), Array)
                if is_array:
                    raise UnsupportedSyntaxError(
                        "an array is not written by assignment", "write blocks: mc.store(array, index, tile)"
                    )
                raise UnsupportedSyntaxError(
                    "elements cannot be assigned: tiles and tuples are values",
                    "make a new one, such as x = mc.where(condition, new, x)",
                )
        case _:
            with scope.frame.at(target):
                raise UnsupportedSyntaxError(
                    "only names can be assigned in a kernel", "assign to a name, or to several: a, b = …"
                )


def _unpack(target: ast.expr, elements: list[ast.expr], value: Any, scope: Scope) -> None:
    with scope.frame.at(target):
        if isinstance(value, Tile) or not isinstance(value, tuple | list | range):
            raise OperandError(f"{kind_of(value)} cannot be unpacked", "unpack tuples only")
        values = list(value)
        stars = [i for i, e in enumerate(elements) if isinstance(e, ast.Starred)]
        if stars and len(values) >= len(elements) - 1:
            first, rest = stars[0], len(elements) - stars[0] - 1
            end = len(values) - rest
            values = [*values[:first], values[first:end], *values[end:]]
        if len(values) != len(elements):
            raise OperandError(
                f"{_count(len(values), 'value')} cannot be assigned to {_count(len(elements), 'name')}",
                "make the numbers equal",
            )
    for element, item in zip(elements, values):
        assign(element.value if isinstance(element, ast.Starred) else element, item, scope)


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'s' * (number != 1)}"


def assert_statement(test: ast.expr, message: ast.expr | None, scope: Scope) -> None:
    condition = expressions.evaluate(test, scope)
    if isinstance(condition, Tile):
        raise NotConstantError(
            "`assert` checks compile-time values, but this condition is known only when the kernel runs",
            "assert on constants and fixed dimensions; clip or mask the rest",
        )
    with ordinary_python():
        holds = bool(condition)
    if not holds:
        text = expressions.evaluate(message, scope) if message is not None else ast.unparse(test)
        raise StaticAssertionError(f"assertion failed: {text}", "choose constants or shapes that satisfy it")
