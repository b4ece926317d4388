"""Where elementwise arithmetic goes wrong: for each operation, which lanes of a result are mistakes.

A function of the operation, its result and its operands gives (kind, mask) for each kind that occurs, where
the mask has the result's shape. Kinds are those of report.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mosaic_compile.interpreter import Op
from mosaic_compile.interpreter.values import unsigned

Births = tuple[tuple[str, Any], ...]
Find = Callable[..., Births]


def _if_any(kind: str, mask: Any) -> Births:
    return ((kind, mask),) if np.any(mask) else ()


# Floats.


def non_finite(op: Op, result: Any, *operands: Any) -> Births:
    """NaN where no operand is NaN, infinity where all are finite."""
    finite = np.isfinite(result)
    if finite.all():
        return ()
    nan = np.isnan(result)
    had_nan = _any_of(np.isnan, operands)
    had_other = _any_of(lambda x: ~np.isfinite(x), operands)
    return _if_any("nan", nan & ~had_nan) + _if_any("infinity", ~finite & ~nan & ~had_other)


def _any_of(test: Callable[[Any], Any], operands: tuple[Any, ...]) -> Any:
    found = test(operands[0])
    for x in operands[1:]:
        found = found | test(x)
    return found


def _to_integer(op: Op, result: Any, x: Any) -> Births:
    """A number whose whole part the type does not hold, or NaN."""
    bits = result.dtype.itemsize * 8
    low, high = (0.0, 2.0**bits) if op.name == "arith.fptoui" else (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1))
    whole = np.trunc(x.astype(np.float64))
    return _if_any("conversion", ~((whole >= low) & (whole < high)))


# Integers. Operations that are meant to wrap say so; truth values count modulo 2.


def _signed_only(find: Find) -> Find:
    def check(op: Op, result: Any, *operands: Any) -> Births:
        if result.dtype == bool or "tile.wraps" in op.attributes:
            return ()
        return find(op, result, *operands)

    return check


# The sign of a sum is wrong if both operands have the other one; of a difference, if the first has it and the
# second has the result's.


def _sum(op: Op, result: Any, a: Any, b: Any) -> Births:
    return _if_any("overflow", (a ^ result) & (b ^ result) < 0)


def _difference(op: Op, result: Any, a: Any, b: Any) -> Births:
    return _if_any("overflow", (a ^ b) & (a ^ result) < 0)


def _product(op: Op, result: Any, a: Any, b: Any) -> Births:
    if result.dtype.itemsize < 8:
        return _if_any("overflow", a.astype(np.int64) * b.astype(np.int64) != result)
    # The quotient by a factor that is not 0 gives the other one back, but for the one product that has none.
    divisor = np.where(b == 0, 1, b)
    lost = (b != 0) & (np.floor_divide(result, divisor) != a) | _without_quotient(a, b)
    return _if_any("overflow", lost)


def _without_quotient(a: Any, b: Any) -> Any:
    return (a == np.iinfo(a.dtype).min) & (b == -1)


def _quotient(op: Op, result: Any, a: Any, b: Any) -> Births:
    return _if_any("division", b == 0) + _if_any("overflow", _without_quotient(a, b))


def _unsigned_quotient(op: Op, result: Any, a: Any, b: Any) -> Births:
    return _if_any("division", b == 0)


def _magnitude(op: Op, result: Any, x: Any) -> Births:
    return _if_any("overflow", result < 0)


def _shift(op: Op, result: Any, a: Any, b: Any) -> Births:
    return _if_any("shift", unsigned(b) >= a.dtype.itemsize * 8)


# What can overflow: looked for in the kernel as it is traced only, since passes reassociate sums.
OVERFLOWS: dict[str, Find] = {
    "arith.addi": _signed_only(_sum),
    "arith.subi": _signed_only(_difference),
    "arith.muli": _signed_only(_product),
}

_FLOAT_ARITHMETIC = ("addf", "subf", "mulf", "divf", "remf", "extf", "truncf")
_FLOAT_FUNCTIONS = (
    "sqrt", "rsqrt", "cbrt", "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan", "asin", "acos",
    "atan", "atan2", "sinh", "cosh", "tanh", "erf", "powf", "fma",
)  # fmt: skip

FIND: dict[str, Find] = {
    **{f"arith.{name}": non_finite for name in _FLOAT_ARITHMETIC},
    **{f"math.{name}": non_finite for name in _FLOAT_FUNCTIONS},
    "arith.fptosi": _to_integer,
    "arith.fptoui": _to_integer,
    **dict.fromkeys(["arith.divsi", "arith.floordivsi", "arith.ceildivsi", "arith.remsi"], _quotient),
    **dict.fromkeys(["arith.divui", "arith.ceildivui", "arith.remui"], _unsigned_quotient),
    **dict.fromkeys(["arith.shli", "arith.shrsi", "arith.shrui"], _shift),
    "math.absi": _magnitude,
}
