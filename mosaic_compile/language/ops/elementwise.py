"""Elementwise arithmetic, comparison, bit operations and mathematical functions, with NumPy broadcasting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mosaic_compile.errors import ElementTypeError, MixedTypesError, OperandError
from mosaic_compile.mlir import arith, ir, math

from ..dtypes import bool_, f32
from ..op import (
    broadcast,
    broadcast_shapes,
    constant,
    is_number,
    is_tracing,
    kind_of,
    meet,
    op,
    outside_kernel,
    require_arithmetic,
    require_bool,
    require_float,
    require_integer,
    require_tile,
)
from ..tile import Tile


def _scipy_erf(x: Any) -> Any:
    import math as python_math

    return np.vectorize(python_math.erf, otypes=[np.asarray(x).dtype])(x)


def _unary(function: Callable[[ir.Value], ir.Value], x: Tile) -> Tile:
    return Tile(function(x.value), x.dtype, x.shape)


def _float_function(name: str, x: Any, function: Callable[[ir.Value], ir.Value]) -> Tile:
    return _unary(function, require_float(require_tile(x, f"mc.{name}"), f"mc.{name}"))


def _arithmetic(what: str, a: Any, b: Any) -> tuple[Tile, Tile]:
    """Two operands of one numeric type."""
    a, b = meet(what, a, b)
    if a.dtype is bool_:
        raise ElementTypeError(
            f"{what} does not compute with truth values (bool)",
            "convert them: x.to(mc.i32); or combine them with & | ^ ~",
        )
    return require_arithmetic(a, what), b


# Arithmetic.


def _wrapping(result: ir.Value) -> ir.Value:
    """An integer sum, difference or product that is meant to wrap; in signed types, the sanitizer reports others."""
    result.owner.attributes["tile.wraps"] = ir.UnitAttr.get()
    return result


@op(reference=np.add)
def add(a: Any, b: Any) -> Tile:
    """a + b. Integers wrap around."""
    a, b = _arithmetic("'+'", a, b)
    result = (arith.addf if a.dtype.is_float else arith.addi)(a.value, b.value)
    return Tile(_wrapping(result) if a.dtype.kind == "uint" else result, a.dtype, a.shape)


@op(reference=np.subtract)
def subtract(a: Any, b: Any) -> Tile:
    """a - b. Integers wrap around."""
    a, b = _arithmetic("'-'", a, b)
    result = (arith.subf if a.dtype.is_float else arith.subi)(a.value, b.value)
    return Tile(_wrapping(result) if a.dtype.kind == "uint" else result, a.dtype, a.shape)


@op(reference=np.multiply)
def multiply(a: Any, b: Any) -> Tile:
    """a * b. Integers wrap around."""
    a, b = _arithmetic("'*'", a, b)
    result = (arith.mulf if a.dtype.is_float else arith.muli)(a.value, b.value)
    return Tile(_wrapping(result) if a.dtype.kind == "uint" else result, a.dtype, a.shape)


@op(reference=np.divide)
def divide(a: Any, b: Any) -> Tile:
    """a / b for floating-point tiles; a GPU may be off by 2 units in the last place (f32)."""
    a, b = _arithmetic("'/'", a, b)
    if not a.dtype.is_float:
        raise ElementTypeError(
            f"'/' divides floating-point tiles, not {a!r}",
            "use // for whole numbers, or convert: x.to(mc.f32)",
        )
    return Tile(arith.divf(a.value, b.value), a.dtype, a.shape)


_ON_FLOATS = {  # what to write instead
    "'//'": "round the quotient: mc.floor(a / b)",
    "'%'": "write a - mc.floor(a / b) * b",
}


def _integers(what: str, a: Any, b: Any) -> tuple[Tile, Tile]:
    a, b = _arithmetic(what, a, b)
    if a.dtype.is_float and what in _ON_FLOATS:
        raise ElementTypeError(f"{what} takes integer tiles, not {a!r}", _ON_FLOATS[what])
    return require_integer(a, what), b


@op(reference=np.floor_divide)
def floor_divide(a: Any, b: Any) -> Tile:
    """a // b for integers, rounded toward minus infinity as in Python. Division by zero is undefined."""
    a, b = _integers("'//'", a, b)
    divide_ = arith.divui if a.dtype.kind == "uint" else arith.floordivsi
    return Tile(divide_(a.value, b.value), a.dtype, a.shape)


@op(reference=np.mod)
def remainder(a: Any, b: Any) -> Tile:
    """a % b for integers, with the sign of b as in Python: a - (a // b) * b."""
    a, b = _integers("'%'", a, b)
    if a.dtype.kind == "uint":
        return Tile(arith.remui(a.value, b.value), a.dtype, a.shape)
    quotient = arith.floordivsi(a.value, b.value)
    multiple = _wrapping(
        arith.muli(quotient, b.value)
    )  # the difference fits, even where the multiple does not
    return Tile(_wrapping(arith.subi(a.value, multiple)), a.dtype, a.shape)


@op(reference=lambda a, b: a // b + (a % b != 0))
def cdiv(a: Any, b: Any) -> Any:
    """a / b rounded up, for whole numbers: the number of tiles of size b that cover a. Also for plain numbers
    and grids."""
    a, b = _integers("mc.cdiv", a, b)
    divide_ = arith.ceildivui if a.dtype.kind == "uint" else arith.ceildivsi
    return Tile(divide_(a.value, b.value), a.dtype, a.shape)


@op(reference=np.power)
def power(a: Any, b: Any) -> Tile:
    """a ** b for a whole, non-negative compile-time b (by repeated squaring), or 0.5 and -0.5; otherwise
    write exp2(b * log2(a))."""
    if (
        isinstance(b, Tile)
        or not is_number(b)
        or not (b in (0.5, -0.5) or (float(b).is_integer() and b >= 0))
    ):
        raise OperandError(
            f"'**' takes a compile-time exponent such as 2 or 0.5, not {kind_of(b)}",
            "write 1.0 / x ** 2 for negative ones, mc.exp2(b * mc.log2(a)) for others",
        )
    a = require_arithmetic(require_tile(a, "'**'"), "'**'")
    if b == 0.5:
        return sqrt(a)
    if b == -0.5:
        return rsqrt(a)
    result, square, exponent = None, a, int(b)
    while exponent:
        if exponent & 1:
            result = square if result is None else multiply(result, square)
        exponent >>= 1
        if exponent:
            square = multiply(square, square)
    return result if result is not None else constant(1, a.dtype, a.shape)


@op(reference=np.negative)
def negate(x: Any) -> Tile:
    """-x."""
    x = require_arithmetic(require_tile(x, "'-'"), "'-'")
    if x.dtype is bool_:
        raise ElementTypeError("'-' does not compute with truth values (bool)", "use ~x for not")
    if x.dtype.is_float:
        return _unary(arith.negf, x)
    return subtract(constant(0, x.dtype, x.shape), x)


@op(reference=np.abs)
def abs(x: Any) -> Tile:
    """The absolute value; the smallest integer stays as it is, as in NumPy."""
    x = require_arithmetic(require_tile(x, "abs"), "abs")
    if x.dtype.kind in ("uint", "bool"):
        return x
    return _unary(math.absf if x.dtype.is_float else math.absi, x)


@op(reference=lambda a, b, c: a * b + c)
def fma(a: Any, b: Any, c: Any) -> Tile:
    """a * b + c, rounded once (floating point)."""
    like = next((v for v in (a, b, c) if isinstance(v, Tile)), None)
    if like is None:
        require_tile(a, "mc.fma")  # raises
    a, b, c = (v if isinstance(v, Tile) else meet("mc.fma", v, like)[0] for v in (a, b, c))
    a, b = meet("mc.fma", a, b)
    b, c = meet("mc.fma", b, c)
    a = broadcast(require_float(a, "mc.fma"), b.shape)
    return Tile(math.fma(a.value, b.value, c.value), a.dtype, a.shape)


@op(reference=np.maximum)
def maximum(a: Any, b: Any) -> Tile:
    """The larger of a and b; NaN if either is NaN."""
    return _larger("mc.maximum", a, b)


def _larger(what: str, a: Any, b: Any) -> Tile:
    a, b = _arithmetic(what, a, b)
    function = {"float": arith.maximumf, "int": arith.maxsi, "uint": arith.maxui}[a.dtype.kind]
    return Tile(function(a.value, b.value), a.dtype, a.shape)


@op(reference=np.minimum)
def minimum(a: Any, b: Any) -> Tile:
    """The smaller of a and b; NaN if either is NaN."""
    return _smaller("mc.minimum", a, b)


def _smaller(what: str, a: Any, b: Any) -> Tile:
    a, b = _arithmetic(what, a, b)
    function = {"float": arith.minimumf, "int": arith.minsi, "uint": arith.minui}[a.dtype.kind]
    return Tile(function(a.value, b.value), a.dtype, a.shape)


@op(reference=np.clip)
def clamp(x: Any, low: Any, high: Any) -> Tile:
    """x limited to low <= x <= high; NaN stays NaN."""
    return _smaller("mc.clamp", _larger("mc.clamp", x, low), high)


# Comparison.

_FLOAT_PREDICATES = {
    "==": arith.CmpFPredicate.OEQ,
    "!=": arith.CmpFPredicate.UNE,
    "<": arith.CmpFPredicate.OLT,
    "<=": arith.CmpFPredicate.OLE,
    ">": arith.CmpFPredicate.OGT,
    ">=": arith.CmpFPredicate.OGE,
}
_SIGNED_PREDICATES = {
    "==": arith.CmpIPredicate.eq,
    "!=": arith.CmpIPredicate.ne,
    "<": arith.CmpIPredicate.slt,
    "<=": arith.CmpIPredicate.sle,
    ">": arith.CmpIPredicate.sgt,
    ">=": arith.CmpIPredicate.sge,
}
_UNSIGNED_PREDICATES = _SIGNED_PREDICATES | {
    "<": arith.CmpIPredicate.ult,
    "<=": arith.CmpIPredicate.ule,
    ">": arith.CmpIPredicate.ugt,
    ">=": arith.CmpIPredicate.uge,
}


def _compare(symbol: str, a: Any, b: Any) -> Tile:
    if a is None or b is None:
        raise OperandError(
            f"'{symbol}' takes a tile, not None",
            "to ask whether an optional array was given, write `is not None`",
        )
    a, b = meet(f"'{symbol}'", a, b)
    require_arithmetic(a, f"'{symbol}'")
    if a.dtype.is_float:
        result = arith.cmpf(_FLOAT_PREDICATES[symbol], a.value, b.value)
    else:
        table = _SIGNED_PREDICATES if a.dtype.kind == "int" else _UNSIGNED_PREDICATES
        result = arith.cmpi(table[symbol], a.value, b.value)
    return Tile(result, bool_, a.shape)


@op(reference=np.equal)
def equal(a: Any, b: Any) -> Tile:
    """a == b as truth values; NaN equals nothing."""
    return _compare("==", a, b)


@op(reference=np.not_equal)
def not_equal(a: Any, b: Any) -> Tile:
    """a != b as truth values."""
    return _compare("!=", a, b)


@op(reference=np.less)
def less(a: Any, b: Any) -> Tile:
    """a < b as truth values."""
    return _compare("<", a, b)


@op(reference=np.less_equal)
def less_equal(a: Any, b: Any) -> Tile:
    """a <= b as truth values."""
    return _compare("<=", a, b)


@op(reference=np.greater)
def greater(a: Any, b: Any) -> Tile:
    """a > b as truth values."""
    return _compare(">", a, b)


@op(reference=np.greater_equal)
def greater_equal(a: Any, b: Any) -> Tile:
    """a >= b as truth values."""
    return _compare(">=", a, b)


@op(reference=np.where)
def where(condition: Any, a: Any, b: Any) -> Tile:
    """a where the condition holds, b elsewhere; both are computed."""
    condition = require_bool(condition, "mc.where's condition")
    a, b = meet("mc.where", a, b)
    shape = broadcast_shapes("mc.where", condition.shape, a.shape)
    a, b = broadcast(a, shape), broadcast(b, shape)
    # A scalar condition selects whole tiles; another shape is repeated.
    condition = condition if not condition.shape else broadcast(condition, shape)
    return Tile(arith.select(condition.value, a.value, b.value), a.dtype, shape)


# Bits.


def _bitwise(symbol: str, a: Any, b: Any, function: Callable[[ir.Value, ir.Value], ir.Value]) -> Tile:
    a, b = meet(f"'{symbol}'", a, b)
    if a.dtype.is_float:
        raise ElementTypeError(
            f"'{symbol}' works on integers and truth values, not {a!r}", "compare or convert the tile first"
        )
    require_arithmetic(a, f"'{symbol}'")
    return Tile(function(a.value, b.value), a.dtype, a.shape)


@op(reference=np.bitwise_and)
def bitwise_and(a: Any, b: Any) -> Tile:
    """a & b, for integers and truth values."""
    return _bitwise("&", a, b, arith.andi)


@op(reference=np.bitwise_or)
def bitwise_or(a: Any, b: Any) -> Tile:
    """a | b, for integers and truth values."""
    return _bitwise("|", a, b, arith.ori)


@op(reference=np.bitwise_xor)
def bitwise_xor(a: Any, b: Any) -> Tile:
    """a ^ b, for integers and truth values."""
    return _bitwise("^", a, b, arith.xori)


@op(reference=np.invert)
def bitwise_not(x: Any) -> Tile:
    """~x, for integers and truth values."""
    x = require_tile(x, "'~'")
    all_ones = True if x.dtype is bool_ else (x.dtype.max if x.dtype.kind == "uint" else -1)
    if x.dtype.is_float:
        raise ElementTypeError(
            f"'~' works on integers and truth values, not {x!r}", "compare or convert the tile first"
        )
    return _bitwise("^", x, constant(all_ones, x.dtype), arith.xori)


@op(reference=np.left_shift)
def shift_left(a: Any, b: Any) -> Tile:
    """a << b. Shifting by the width of the type or more is undefined."""
    a, b = _integers("'<<'", a, b)
    return Tile(arith.shli(a.value, b.value), a.dtype, a.shape)


@op(reference=np.right_shift)
def shift_right(a: Any, b: Any) -> Tile:
    """a >> b, keeping the sign of signed types. Shifting by the width of the type or more is undefined."""
    a, b = _integers("'>>'", a, b)
    return Tile((arith.shrui if a.dtype.kind == "uint" else arith.shrsi)(a.value, b.value), a.dtype, a.shape)


# Functions.


@op(reference=np.exp)
def exp(x: Any) -> Tile:
    """e ** x."""
    return _float_function("exp", x, math.exp)


@op(reference=np.exp2)
def exp2(x: Any) -> Tile:
    """2 ** x."""
    return _float_function("exp2", x, math.exp2)


@op(reference=np.log)
def log(x: Any) -> Tile:
    """The natural logarithm; NaN below zero, minus infinity at zero."""
    return _float_function("log", x, math.log)


@op(reference=np.log2)
def log2(x: Any) -> Tile:
    """The logarithm to base 2."""
    return _float_function("log2", x, math.log2)


@op(reference=np.sin)
def sin(x: Any) -> Tile:
    """The sine of x in radians."""
    return _float_function("sin", x, math.sin)


@op(reference=np.cos)
def cos(x: Any) -> Tile:
    """The cosine of x in radians."""
    return _float_function("cos", x, math.cos)


@op(reference=np.tanh)
def tanh(x: Any) -> Tile:
    """The hyperbolic tangent."""
    return _float_function("tanh", x, math.tanh)


@op(reference=_scipy_erf)
def erf(x: Any) -> Tile:
    """The error function."""
    return _float_function("erf", x, math.erf)


@op(reference=np.sqrt)
def sqrt(x: Any) -> Tile:
    """The square root; NaN below zero."""
    return _float_function("sqrt", x, math.sqrt)


@op(reference=lambda x: 1 / np.sqrt(x))
def rsqrt(x: Any) -> Tile:
    """1 / sqrt(x)."""
    return _float_function("rsqrt", x, math.rsqrt)


@op(reference=np.floor)
def floor(x: Any) -> Tile:
    """The largest whole number not above x, in x's type."""
    return _float_function("floor", x, math.floor)


@op(reference=np.ceil)
def ceil(x: Any) -> Tile:
    """The smallest whole number not below x, in x's type."""
    return _float_function("ceil", x, math.ceil)


@op(reference=lambda x: 1 / (1 + np.exp(-x)))
def sigmoid(x: Any) -> Tile:
    """1 / (1 + e ** -x); f16 and bf16 are computed in f32, where e ** -x does not overflow, and rounded
    once."""
    from .convert import convert

    x = require_float(require_tile(x, "mc.sigmoid"), "mc.sigmoid")
    wide = convert(x, f32) if x.dtype.bits < 32 else x
    return convert(divide(1.0, add(1.0, exp(negate(wide)))), x.dtype)


def as_dtype(value: Any, dtype: Any) -> Any:
    """`mc.f32(x)`: a typed scalar from a number, or a tile converted."""
    from .convert import convert

    if not is_tracing():
        raise outside_kernel(f"mc.{dtype}(…)")
    if isinstance(value, Tile):
        return convert(value, dtype)
    if not is_number(value):
        raise OperandError(f"mc.{dtype}(…) takes a number or a tile, not {kind_of(value)}", "pass a number")
    if dtype is bool_ and not isinstance(value, bool | np.bool_):
        raise MixedTypesError(f"mc.bool_ takes True or False, not {value!r}", "compare instead: x != 0")
    return constant(value, dtype)


__all__ = [
    "abs", "add", "as_dtype", "bitwise_and", "bitwise_not", "bitwise_or", "bitwise_xor", "cdiv", "ceil",
    "clamp", "cos", "divide", "equal", "erf", "exp", "exp2", "floor", "floor_divide", "fma", "greater",
    "greater_equal", "less", "less_equal", "log", "log2", "maximum", "minimum", "multiply", "negate",
    "not_equal", "power", "remainder", "rsqrt", "shift_left", "shift_right", "sigmoid", "sin", "sqrt",
    "subtract", "tanh", "where",
]  # fmt: skip
