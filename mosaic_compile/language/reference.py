"""docs/operations.md, made from the operations' own signatures and docstrings.

python -m mosaic_compile.language.reference > docs/operations.md
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from mosaic_compile import api
from mosaic_compile.language import ops

FAMILIES = {
    "memory": "Moving tiles between arrays and values",
    "creation": "Making tiles",
    "elementwise": "Elementwise",
    "convert": "Conversions",
    "shape": "Shapes",
    "matmul": "Matrix products",
    "reduction": "Reductions and scans",
    "random": "Random numbers",
    "program": "The program and its grid",
    "numbers": "On tiles, numbers and grids alike",
    "loops": "Loops",
}
OPERATORS = {
    "add": "a + b", "subtract": "a - b", "multiply": "a * b", "divide": "a / b", "floor_divide": "a // b",
    "remainder": "a % b", "power": "a ** b", "negate": "-x", "equal": "a == b", "not_equal": "a != b",
    "less": "a < b", "less_equal": "a <= b", "greater": "a > b", "greater_equal": "a >= b",
    "bitwise_and": "a & b", "bitwise_or": "a | b", "bitwise_xor": "a ^ b", "bitwise_not": "~x",
    "shift_left": "a << b", "shift_right": "a >> b",
}  # fmt: skip


def operations() -> dict[str, list[tuple[str, Callable[..., Any]]]]:
    """By family: how each operation is written, and its function."""
    found: dict[str, list[tuple[str, Callable[..., Any]]]] = {family: [] for family in FAMILIES}
    for name, function in {**{n: getattr(ops, n) for n in OPERATORS}, **vars(api)}.items():
        if not getattr(function, "__mosaic_op__", False):
            continue
        family = function.__module__.rpartition(".")[2]
        written = OPERATORS.get(name) or f"mc.{name}{_parameters(function)}"
        found[family].append((written, function))
    return found


def _parameters(function: Callable[..., Any]) -> str:
    """A call's form, without Python's types: the docstrings say more than they could."""
    signature = inspect.signature(function)
    bare = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=signature.empty))


def markdown() -> str:
    lines = [
        "# Operations",
        "",
        "Made from the operations' docstrings by `python -m mosaic_compile.language.reference`. "
        "[language.md](language.md) says",
        "what tiles, arrays and kernels are.",
    ]
    for family, title in FAMILIES.items():
        lines += ["", f"## {title}", ""]
        for written, function in operations()[family]:
            doc = " ".join(inspect.cleandoc(function.__doc__ or "").split())
            lines.append(f"- **`{written}`** — {doc}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(markdown(), end="")
