"""What an operation computed, in the kernel's words."""

from __future__ import annotations

from typing import Any

from mosaic_compile.interpreter import Op
from mosaic_compile.interpreter.values import unsigned
from mosaic_compile.language.dtypes import DTYPES

_SYMBOLS = {
    "add": "+", "sub": "-", "mul": "*", "divf": "/", "div": "//", "floordiv": "//", "rem": "%", "shl": "<<", "shr": ">>",
}  # fmt: skip
_NAMES = {"ceildiv": "cdiv", "absi": "abs", "powf": "power"}
_NAMES_OF_TYPES = {dtype.mlir: dtype.name for dtype in DTYPES.values() if dtype.kind != "uint"}


def computes(op: Op, kind: str, *values: Any) -> str:
    """What a program does that is a mistake, such as "computes 1.0 / 0.0 = inf".

    values: the operands and the result of the lane in question.
    """
    *operands, result = values
    if op.name == "tile.dot":
        product = "sums up a product of matrices"
        return (
            f"{product} that {_element(op)} does not hold" if kind == "overflow" else f"{product} to {result}"
        )
    if op.name.endswith("ui") and op.name != "arith.fptoui":
        operands = [unsigned(x) for x in operands]
    given = [str(x) for x in operands]
    element = _element(op)
    if op.name in ("arith.fptosi", "arith.fptoui", "arith.truncf", "arith.extf"):
        outcome = "which does not hold it" if kind == "conversion" else f"where it becomes {result}"
        return f"converts {given[0]} to {element}, {outcome}"
    if kind in ("nan", "infinity"):
        return f"computes {_expression(op, given)} = {result}"
    lost = f", which {element} does not hold" if kind == "overflow" else ""
    return f"computes {_expression(op, given)}{lost}"


def _expression(op: Op, given: list[str]) -> str:
    dialect, name = op.name.split(".")
    name = name if dialect == "math" or name in _SYMBOLS else name.removesuffix("si").removesuffix("ui")
    symbol = _SYMBOLS.get(name) or _SYMBOLS.get(name.removesuffix("f").removesuffix("i"))
    if symbol and dialect == "arith":
        left, right = given
        return f"{left} {symbol} {right}" if not right.startswith("-") else f"{left} {symbol} ({right})"
    return f"{_NAMES.get(name, name)}({', '.join(given)})"


def _element(op: Op) -> str:
    text = op.results[0].text
    element = text.removesuffix(">").rsplit("x", 1)[-1]
    name = _NAMES_OF_TYPES.get(element, element)
    return f"u{name.removeprefix('i')}" if op.name == "arith.fptoui" else name
