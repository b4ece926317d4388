"""Expressions: names, attributes, subscripts, displays; operators are in operators.py, calls in calls.py."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from mosaic_compile.errors import NotConstantError, OperandError, UndefinedNameError, UnsupportedSyntaxError
from mosaic_compile.language.dtypes import DType
from mosaic_compile.language.loops import Range
from mosaic_compile.language.op import kind_of
from mosaic_compile.language.tile import Array, Tile

from . import branches, calls, operators, statements
from .python import ordinary_python
from .scope import LocalFunction, Scope, Undefined


def evaluate(node: ast.expr, scope: Scope) -> Any:
    """The value of an expression: a tile or scalar known at run time, or a Python value known now."""
    with scope.frame.at(node):
        return _value(node, scope)


def _value(node: ast.expr, scope: Scope) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name():
            return read_name(node, scope)
        case ast.Attribute(value=base, attr=attr):
            return _attribute(evaluate(base, scope), attr)
        case ast.BinOp(left=left, op=op, right=right):
            return operators.binary(op, evaluate(left, scope), evaluate(right, scope))
        case ast.UnaryOp(op=op, operand=operand):
            return operators.unary(op, evaluate(operand, scope))
        case ast.Compare():
            return operators.compare(node, scope)
        case ast.BoolOp(op=op, values=values):
            return operators.boolean(op, values, scope)
        case ast.IfExp():
            return _conditional(node, scope)
        case ast.Call():
            return calls.call(node, scope)
        case ast.Tuple(elts=elements):
            return tuple(starred(elements, scope))
        case ast.List(elts=elements):
            return list(starred(elements, scope))
        case ast.Dict(keys=keys, values=values) if None not in keys:
            pairs = zip(keys, values)
            return {evaluate(k, scope): evaluate(v, scope) for k, v in pairs if k is not None}
        case ast.Subscript(value=base, slice=index):
            return _subscript(evaluate(base, scope), evaluate(index, scope))
        case ast.Slice(lower=lower, upper=upper, step=step):
            return slice(*(None if part is None else evaluate(part, scope) for part in (lower, upper, step)))
        case ast.NamedExpr(target=ast.Name(id=name), value=value):
            scope.locals[name] = evaluate(value, scope)
            return scope.locals[name]
        case ast.Lambda():
            return LocalFunction(node, scope)
        case ast.JoinedStr(values=values):
            return "".join(_formatted(value, scope) for value in values)
        case (
            ast.ListComp(elt=element, generators=generators)
            | ast.GeneratorExp(elt=element, generators=generators)
        ):
            return list(_comprehension(element, generators, scope))
        case ast.Starred():
            raise UnsupportedSyntaxError("'*' cannot be used here", "write the values one by one")
    raise UnsupportedSyntaxError(
        f"{type(node).__name__} cannot be used in a kernel", "see the language reference in docs/language.md"
    )


def read_name(node: ast.Name, scope: Scope) -> Any:
    try:
        value = scope.find(node.id)
    except KeyError:
        raise UndefinedNameError(
            f"'{node.id}' is not defined", "check the spelling, or define it before the kernel"
        ) from None
    if isinstance(value, Undefined):
        raise UndefinedNameError(value.message, value.help).at(scope.frame.spans(node))
    return value


def _attribute(base: Any, attr: str) -> Any:
    try:
        return getattr(base, attr)
    except AttributeError:
        if isinstance(base, Tile | Array):
            raise OperandError(
                f"{kind_of(base)} has no '{attr}'", "see what there is in docs/language.md"
            ) from None
        where = base.__name__ if isinstance(base, ModuleType) else type(base).__name__
        raise UndefinedNameError(f"'{where}' has no '{attr}'", "check the spelling") from None


def _conditional(node: ast.IfExp, scope: Scope) -> Any:
    test = branches.condition(node.test, scope, "if")
    if isinstance(test, bool):
        return evaluate(node.body if test else node.orelse, scope)
    what = "the value of this `if` expression"
    return branches.select(
        test, lambda: evaluate(node.body, scope), lambda: evaluate(node.orelse, scope), what, scope, node
    )


def starred(nodes: list[ast.expr], scope: Scope) -> Iterator[Any]:
    """The values of a display or of arguments, `*values` spread out."""
    for node in nodes:
        if isinstance(node, ast.Starred):
            yield from evaluate(node.value, scope)
        else:
            yield evaluate(node, scope)


def _subscript(base: Any, index: Any) -> Any:
    if isinstance(base, Tile | Array | DType):
        return base[index]
    if isinstance(index, Tile):
        raise NotConstantError(
            f"a {type(base).__name__} is indexed at compile time, but the index is a value of type {index!r}",
            "use a constant index, or keep the data in an array and load it",
        )
    with ordinary_python():
        return base[index]


def _formatted(node: ast.expr, scope: Scope) -> str:
    if not isinstance(node, ast.FormattedValue):
        return str(evaluate(node, scope))
    value = evaluate(node.value, scope)
    if isinstance(value, Tile):
        raise NotConstantError(
            "an f-string holds compile-time values", "print runtime values with mc.device_print"
        )
    spec = "" if node.format_spec is None else evaluate(node.format_spec, scope)
    with ordinary_python():
        return format(value, spec)


def _comprehension(element: ast.expr, generators: list[ast.comprehension], scope: Scope) -> Iterator[Any]:
    first, *rest = generators
    iterable = evaluate(first.iter, scope)
    if isinstance(iterable, Range) and all(
        isinstance(v, int) for v in (iterable.start, iterable.stop, iterable.step)
    ):
        iterable = range(iterable.start, iterable.stop, iterable.step)  # type: ignore[arg-type]
    if not isinstance(iterable, tuple | list | range | dict | zip | enumerate):
        what = "a range known only at run time" if isinstance(iterable, Range) else kind_of(iterable)
        raise UnsupportedSyntaxError(
            f"a comprehension cannot run over {what}",
            "comprehensions are unrolled at compile time; work on whole tiles, or use a for loop",
        ).at(scope.frame.spans(first.iter))
    for item in iterable:
        inner = Scope(scope.frame, {}, scope.globals, scope, scope.captured, scope.loops)
        statements.assign(first.target, item, inner)
        conditions = [branches.condition(test, inner, "if") for test in first.ifs]
        if any(isinstance(c, Tile) for c in conditions):
            raise NotConstantError("a comprehension's `if` is decided at compile time", "use mc.where")
        if all(conditions):
            if rest:
                yield from _comprehension(element, rest, inner)
            else:
                yield evaluate(element, inner)
