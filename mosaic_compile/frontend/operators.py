"""Operators: Python's own on compile-time values, the DSL's operations on tiles."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

from mosaic_compile.errors import HelperError, OperandError
from mosaic_compile.language import ops
from mosaic_compile.language.dtypes import bool_
from mosaic_compile.language.loops import Range
from mosaic_compile.language.op import kind_of
from mosaic_compile.language.tile import Array, Tile

from . import expressions
from .python import ordinary_python
from .scope import LocalFunction, Scope

_BINARY: dict[type[ast.operator], tuple[Callable[[Any, Any], Any], str]] = {
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
_UNARY: dict[type[ast.unaryop], tuple[Callable[[Any], Any], str]] = {
    ast.USub: (operator.neg, "-"),
    ast.UAdd: (operator.pos, "+"),
    ast.Invert: (operator.invert, "~"),
}
_COMPARE: dict[type[ast.cmpop], tuple[Callable[[Any, Any], Any], str]] = {
    ast.Eq: (operator.eq, "=="),
    ast.NotEq: (operator.ne, "!="),
    ast.Lt: (operator.lt, "<"),
    ast.LtE: (operator.le, "<="),
    ast.Gt: (operator.gt, ">"),
    ast.GtE: (operator.ge, ">="),
}


def binary(op: ast.operator, left: Any, right: Any) -> Any:
    function, symbol = _BINARY[type(op)]
    return _combine(function, symbol, left, right)


def _combine(function: Callable[[Any, Any], Any], symbol: str, left: Any, right: Any) -> Any:
    for side in (left, right):
        if isinstance(side, Range | LocalFunction) or side is None:
            raise OperandError(
                f"'{symbol}' cannot be applied to {kind_of(side)}", "use it on tiles and numbers"
            )
    try:
        with ordinary_python():
            return function(left, right)
    except HelperError:
        if isinstance(left, Tile) or isinstance(right, Tile):
            raise OperandError(
                f"'{symbol}' cannot combine {kind_of(left)} and {kind_of(right)}",
                "use it on tiles and numbers",
            ) from None
        raise


def unary(op: ast.unaryop, operand: Any) -> Any:
    if isinstance(op, ast.Not):
        return _not(operand)
    with ordinary_python():
        return _UNARY[type(op)][0](operand)


def _is_true(value: Any) -> bool:
    with ordinary_python():
        return bool(value)


def _not(operand: Any) -> Any:
    if not isinstance(operand, Tile):
        return not _is_true(operand)
    if operand.shape:
        raise OperandError(
            f"`not` needs one truth value, not a tile of type {operand!r}",
            "write ~(a > 0) element by element",
        )
    return ops.bitwise_not(operand if operand.dtype is bool_ else ops.not_equal(operand, 0))


def compare(node: ast.Compare, scope: Scope) -> Any:
    """`a < b <= c` is `a < b and b <= c`; every operand is computed once."""
    left = expressions.evaluate(node.left, scope)
    result: Any = True
    for op, right_node in zip(node.ops, node.comparators):
        right = expressions.evaluate(right_node, scope)
        one = _compare_two(op, left, right)
        if isinstance(one, Tile) and isinstance(result, Tile):
            result = ops.bitwise_and(result, one)
        elif isinstance(one, Tile):
            result = one if result else False
        elif len(node.ops) == 1:
            result = one  # not always a bool: NumPy compares element by element
        else:
            result = result if _is_true(one) else False
        left = right
    return result


def _compare_two(op: ast.cmpop, left: Any, right: Any) -> Any:
    match op:
        case ast.Is():
            return left is right
        case ast.IsNot():
            return left is not right
        case ast.In() | ast.NotIn():
            if isinstance(left, Tile) or isinstance(right, Tile | Array):
                raise OperandError(
                    "`in` works on compile-time values only", "compare tiles with == and reduce with mc.any"
                )
            with ordinary_python():
                return (left in right) == isinstance(op, ast.In)
    with ordinary_python():
        return _COMPARE[type(op)][0](left, right)


def boolean(op: ast.boolop, nodes: list[ast.expr], scope: Scope) -> Any:
    """`and`, `or`: Python's own on compile-time values; on scalars both sides are computed."""
    is_and = isinstance(op, ast.And)
    result: Any = is_and
    for node in nodes:
        value = expressions.evaluate(node, scope)
        if isinstance(value, Tile):
            value = _truth(value, node, "and" if is_and else "or", scope)
            combine = ops.bitwise_and if is_and else ops.bitwise_or
            result = combine(result, value) if isinstance(result, Tile) else value
        elif _is_true(value) != is_and:  # decides at once
            return value
        elif not isinstance(result, Tile):
            result = value
    return result


def _truth(value: Tile, node: ast.expr, word: str, scope: Scope) -> Tile:
    if value.shape:
        raise OperandError(
            f"`{word}` needs single truth values, not a tile of type {value!r}",
            f"write (a > 0) {'&' if word == 'and' else '|'} (b > 0) element by element, with the parentheses",
        ).at(scope.frame.spans(node))
    return value if value.dtype is bool_ else ops.not_equal(value, 0)
