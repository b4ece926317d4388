"""Expressions over dimension names: what a kernel's grid is before the arrays are known.

`grid=lambda M, N, BM, BN: (mc.cdiv(M, BM), mc.cdiv(N, BN))` is called with `Symbol`s for the dimensions and
numbers for the constants; the result prints as "cdiv(M, 128)", which `evaluate` computes when the dimensions
are known.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mosaic_compile.errors import GridError


def cdiv(a: int, b: int) -> int:
    return -(-a // b)


_FUNCTIONS: dict[str, Callable[..., int]] = {"cdiv": cdiv, "min": min, "max": max}
_OPERATORS: dict[type, Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


@dataclass(frozen=True, eq=False, repr=False)
class Symbol:
    """An integer expression in text form."""

    text: str

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__

    def __bool__(self) -> bool:
        raise GridError(
            f"the grid cannot branch on '{self.text}', which is known at launch only",
            "use mc.minimum, mc.maximum or mc.cdiv",
        )

    def _binary(self, symbol: str, other: Any, swapped: bool = False) -> Symbol:
        if isinstance(other, bool) or not isinstance(other, int | Symbol):
            raise GridError(
                f"the grid cannot combine '{self.text}' with {other!r}", "use whole numbers and dimensions"
            )
        left, right = (other, self) if swapped else (self, other)
        return Symbol(f"({left} {symbol} {right})")

    def __add__(self, other: Any) -> Symbol:
        return self._binary("+", other)

    def __radd__(self, other: Any) -> Symbol:
        return self._binary("+", other, True)

    def __sub__(self, other: Any) -> Symbol:
        return self._binary("-", other)

    def __rsub__(self, other: Any) -> Symbol:
        return self._binary("-", other, True)

    def __mul__(self, other: Any) -> Symbol:
        return self._binary("*", other)

    def __rmul__(self, other: Any) -> Symbol:
        return self._binary("*", other, True)

    def __floordiv__(self, other: Any) -> Symbol:
        return self._binary("//", other)

    def __rfloordiv__(self, other: Any) -> Symbol:
        return self._binary("//", other, True)

    def __mod__(self, other: Any) -> Symbol:
        return self._binary("%", other)

    def __rmod__(self, other: Any) -> Symbol:
        return self._binary("%", other, True)

    def __truediv__(self, other: Any) -> Symbol:
        raise GridError(
            f"the grid divides '{self.text}' with /", "use // or mc.cdiv: a grid is made of whole numbers"
        )

    __rtruediv__ = __truediv__

    def __lt__(self, other: Any) -> bool:
        return self.__bool__()

    __eq__ = __ne__ = __gt__ = __le__ = __ge__ = __lt__  # type: ignore[assignment]
    __hash__ = object.__hash__


def call(name: str, *arguments: int | Symbol) -> int | Symbol:
    """cdiv, min or max of numbers and expressions."""
    if any(isinstance(a, Symbol) for a in arguments):
        for argument in arguments:
            if not isinstance(argument, int | Symbol):
                raise TypeError(f"{name} takes whole numbers and dimensions, not {argument!r}")
        return Symbol(f"{name}({', '.join(map(str, arguments))})")
    return _FUNCTIONS[name](*arguments)


def evaluate(text: str, values: Mapping[str, int]) -> int:
    """The number that an expression stands for; KeyError names a missing dimension."""

    def visit(node: ast.AST) -> int:
        match node:
            case ast.Expression(body=body):
                return visit(body)
            case ast.Constant(value=int() as value):
                return value
            case ast.Name(id=name):
                return values[name]
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                return _OPERATORS[type(op)](visit(left), visit(right))
            case ast.Call(func=ast.Name(id=name), args=args) if name in _FUNCTIONS:
                return _FUNCTIONS[name](*map(visit, args))
        raise ValueError(f"'{text}' is not a grid expression")

    return visit(ast.parse(text, mode="eval"))
