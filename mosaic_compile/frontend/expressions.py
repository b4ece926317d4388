"""Expressions: names, attributes, subscripts, displays; operators are in operators.py, calls in calls.py."""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any

from mosaic_compile.errors import NotConstantError, OperandError, UndefinedNameError, UnsupportedSyntaxError
from mosaic_compile.language import habits, ops
from mosaic_compile.language.dtypes import DType
from mosaic_compile.language.op import is_number, kind_of
from mosaic_compile.language.tile import Array, Tile

from . import branches, calls, operators, statements
from .python import ordinary_python
from .scope import Scope, Undefined


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
            entries = [(evaluate(k, scope), evaluate(v, scope)) for k, v in pairs if k is not None]
            with ordinary_python():
                return dict(entries)
        case ast.Subscript(value=base, slice=index):
            return _subscript(evaluate(base, scope), evaluate(index, scope))
        case ast.Slice(lower=lower, upper=upper, step=step):
            return slice(*(None if part is None else evaluate(part, scope) for part in (lower, upper, step)))
        case ast.NamedExpr(target=ast.Name(id=name), value=value):
            return _walrus(name, evaluate(value, scope), scope)
        case ast.Lambda():
            return calls.local_function(node, scope)
        case ast.JoinedStr(values=values):
            return _fstring(values, scope)
        case (
            ast.ListComp(elt=element, generators=generators)
            | ast.GeneratorExp(elt=element, generators=generators)
        ):
            return list(_comprehension(element, generators, scope))
        case ast.Starred():
            raise UnsupportedSyntaxError("'*' cannot be used here", "write the values one by one")
    what, instead = _UNSUPPORTED.get(
        type(node), ("this expression", "see the language reference in docs/language.md")
    )
    raise UnsupportedSyntaxError(f"{what} cannot be used in a kernel", instead)


_UNSUPPORTED: dict[type[ast.expr], tuple[str, str]] = {
    ast.Await: ("'await'", "call plain functions"),
    ast.Yield: ("'yield'", "return a tuple of values, or store them to an array"),
    ast.YieldFrom: ("'yield'", "return a tuple of values, or store them to an array"),
    ast.Set: ("a set", "use a tuple"),
    ast.SetComp: ("a set comprehension", "use a list comprehension"),
    ast.DictComp: ("a dict comprehension", "write the dict out, or make it before the kernel"),
    ast.Dict: ("'**' in a dict", "write the entries out"),
}


def _walrus(name: str, value: Any, scope: Scope) -> Any:
    while scope.is_comprehension and scope.enclosing is not None:  # as in Python: a variable of the function
        scope = scope.enclosing
    if scope.walrus is not None:
        raise UnsupportedSyntaxError(
            f"':=' cannot be used in {scope.walrus}", "assign in a statement of its own"
        )
    scope.locals[name] = value
    return value


def read_name(node: ast.Name, scope: Scope) -> Any:
    try:
        value = scope.find(node.id)
    except KeyError:
        raise UndefinedNameError(
            f"'{node.id}' is not defined",
            scope.dimension(node.id)
            or habits.for_name(node.id, scope.visible(), _operations())
            or "check the spelling, or define it before the kernel",
        ) from None
    if isinstance(value, Undefined):
        raise UndefinedNameError(value.message, value.help).at(scope.frame.spans(node))
    return value


def _attribute(base: Any, attr: str) -> Any:
    try:
        return getattr(base, attr)
    except AttributeError:
        if attr == "to" and is_number(base):  # a fixed dimension is a number, another one a scalar
            return functools.partial(ops.convert, base)
        where = kind_of(base)
        if isinstance(base, ModuleType):
            where = "mc" if base.__name__ == "mosaic_compile" else f"'{base.__name__}'"
        help = _instead(base, attr)
        help = help or ("check the spelling" if isinstance(base, ModuleType) else "see docs/language.md")
        raise UndefinedNameError(f"{where} has no '{attr}'", help) from None


def _instead(base: Any, attr: str) -> str | None:
    """What to write for `base.attr`, which is not there."""
    known = {name for name in dir(base) if not name.startswith("_")}
    if isinstance(base, ModuleType) and base.__name__ == "mosaic_compile":
        return habits.in_module(attr, known)
    if isinstance(base, Tile):
        return habits.of_tile(attr, known, _operations())
    if isinstance(base, Array):
        return habits.of_array(attr, known, _operations())
    return habits.did_you_mean(attr, known)


@functools.cache
def _operations() -> frozenset[str]:
    """The names of the operations in mc."""
    import mosaic_compile

    return frozenset(n for n, f in vars(mosaic_compile).items() if getattr(f, "__mosaic_op__", False))


def _conditional(node: ast.IfExp, scope: Scope) -> Any:
    test = branches.condition(node.test, scope, "if")
    if isinstance(test, bool):
        return evaluate(node.body if test else node.orelse, scope)
    what = "the value of this `if` expression"
    with scope.without_walrus("an `if` expression whose condition is known only when the kernel runs"):
        return branches.select(
            test, lambda: evaluate(node.body, scope), lambda: evaluate(node.orelse, scope), what, scope, node
        )


def starred(nodes: list[ast.expr], scope: Scope) -> Iterator[Any]:
    """The values of a display or of arguments, `*values` spread out."""
    for node in nodes:
        if isinstance(node, ast.Starred):
            values = evaluate(node.value, scope)
            with scope.frame.at(node):
                if isinstance(values, Tile | Array) or not isinstance(values, Iterable):
                    raise OperandError(
                        f"'*' takes a tuple or list, not {kind_of(values)}", "leave the '*' out"
                    )
                with ordinary_python():
                    spread = list(values)
            yield from spread
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


def _fstring(values: list[ast.expr], scope: Scope) -> str:
    text = "".join(v.value for v in values if isinstance(v, ast.Constant) and isinstance(v.value, str))
    return "".join(_formatted(value, text.strip(" :=,"), scope) for value in values)


def _formatted(node: ast.expr, text: str, scope: Scope) -> str:
    if not isinstance(node, ast.FormattedValue):
        return str(evaluate(node, scope))
    value = evaluate(node.value, scope)
    if isinstance(value, Tile):
        written = ast.unparse(node.value)
        raise NotConstantError(
            "an f-string holds compile-time values",
            f"pass the value: mc.device_print({text or written!r}, {written})",
        )
    spec = "" if node.format_spec is None else evaluate(node.format_spec, scope)
    conversions: dict[int, Callable[[Any], str]] = {ord("r"): repr, ord("s"): str, ord("a"): ascii}
    with ordinary_python():
        return format(conversions[node.conversion](value) if node.conversion in conversions else value, spec)


def unrolled(iterable: Any, node: ast.expr, scope: Scope) -> Iterator[Any]:
    """The items of a loop or comprehension over something known at compile time."""
    with scope.frame.at(node):
        if isinstance(iterable, Tile | Array) or not isinstance(iterable, Iterable):
            raise OperandError(
                f"a kernel cannot loop over {kind_of(iterable)}",
                "loop over range(…), or over a tuple that is known at compile time",
            )
        with ordinary_python():
            items = list(iterable)
    yield from items


def _decided(test: ast.expr, scope: Scope) -> bool:
    """A comprehension's `if`."""
    value = branches.condition(test, scope, "if")
    if isinstance(value, Tile):
        raise NotConstantError(
            "a comprehension's `if` is decided at compile time, but this is known only when the kernel runs",
            "use mc.where on tiles",
        ).at(scope.frame.spans(test))
    return value


def _comprehension(element: ast.expr, generators: list[ast.comprehension], scope: Scope) -> Iterator[Any]:
    first, *rest = generators
    iterable = evaluate(first.iter, scope)
    for item in unrolled(iterable, first.iter, scope):
        inner = Scope(
            scope.frame, {}, scope.globals, scope, scope.captured, loops=scope.loops, is_comprehension=True
        )
        statements.assign(first.target, item, inner)
        if all(_decided(test, inner) for test in first.ifs):
            if rest:
                yield from _comprehension(element, rest, inner)
            else:
                yield evaluate(element, inner)
