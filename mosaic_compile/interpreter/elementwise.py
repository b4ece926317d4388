"""The meaning of `arith` and `math` on NumPy arrays and scalars.

Every result has its operation's element type. Floats narrower than 32 bits are computed in f32 and rounded
once, functions such as exp in f64; integers wrap; an integer division by zero gives zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from .evaluator import Entry, Env, Op
from .values import signed, unsigned

try:
    from scipy.special import erf as _erf
except ImportError:
    _erf = np.vectorize(math.erf, otypes=[np.float64])

Function = Callable[..., Any]


# What wraps a NumPy function into an entry.


def _exact(function: Function) -> Entry:
    """A function that NumPy computes in the operands' type, without another rounding or type."""
    return lambda op, env, *xs: function(*xs)


def _float(function: Function) -> Entry:
    """Arithmetic: f32 and f64 as they are, narrower types in f32."""

    def entry(op: Op, env: Env, *xs: Any) -> Any:
        dtype = xs[0].dtype
        if dtype.itemsize >= 4:
            return function(*xs)
        return function(*(x.astype(np.float32) for x in xs)).astype(dtype)

    return entry


def _function(function: Function) -> Entry:
    """A mathematical function: in f64, so that f32 results are correctly rounded but for rare ties."""
    return lambda op, env, *xs: function(*(x.astype(np.float64) for x in xs)).astype(xs[0].dtype)


def _integer(function: Function) -> Entry:
    """Integer arithmetic that wraps; i1 counts modulo 2."""

    def entry(op: Op, env: Env, *xs: Any) -> Any:
        if xs[0].dtype != bool:
            return function(*xs)
        return (function(*(x.astype(np.int8) for x in xs)) & 1).astype(bool)

    return entry


def _unsigned(function: Function) -> Entry:
    """An integer function of the operands' bits read as unsigned."""
    return lambda op, env, *xs: signed(function(*map(unsigned, xs)), xs[0].dtype)


def as_signed(x: Any) -> Any:
    """i1 read as a signed number: true is -1."""
    return -x.astype(np.int8) if x.dtype == bool else x


# Division.


def _divide_toward_zero(a: Any, b: Any) -> Any:
    quotient = np.floor_divide(a, b)
    inexact = (quotient * b != a) & (b != 0)
    return quotient + (inexact & ((a < 0) != (b < 0)))


def _divide_up(a: Any, b: Any) -> Any:
    quotient = np.floor_divide(a, b)
    return quotient + ((quotient * b != a) & (b != 0))


# The larger and the smaller: of NumPy's, either zero may come out; -0 is the smaller one (IEEE 754-2019, 9.6).


def _maximum(a: Any, b: Any) -> Any:
    return np.where((a == 0) & (b == 0), a + b, np.maximum(a, b))[()]


def _minimum(a: Any, b: Any) -> Any:
    return np.where((a == 0) & (b == 0), -(-a - b), np.minimum(a, b))[()]


# Products of twice the width.


def _high_unsigned(a: Any, b: Any) -> Any:
    """The high half of the product of unsigned words."""
    bits = a.dtype.itemsize * 8
    if bits < 64:
        return ((a.astype(np.uint64) * b.astype(np.uint64)) >> np.uint64(bits)).astype(a.dtype)
    half, low = np.uint64(32), np.uint64(0xFFFFFFFF)
    a1, a0, b1, b0 = a >> half, a & low, b >> half, b & low
    middle = a1 * b0 + (a0 * b0 >> half)
    return a1 * b1 + (middle >> half) + ((a0 * b1 + (middle & low)) >> half)


def _mului_extended(op: Op, env: Env, a: Any, b: Any) -> tuple[Any, Any]:
    return a * b, signed(_high_unsigned(unsigned(a), unsigned(b)), a.dtype)


def _mulsi_extended(op: Op, env: Env, a: Any, b: Any) -> tuple[Any, Any]:
    # A negative a counts as a + 2^bits when read as unsigned, which adds b to the high half.
    high = signed(_high_unsigned(unsigned(a), unsigned(b)), a.dtype)
    return a * b, high - np.where(a < 0, b, 0) - np.where(b < 0, a, 0)


def _addui_extended(op: Op, env: Env, a: Any, b: Any) -> tuple[Any, Any]:
    total = a + b
    return total, unsigned(total) < unsigned(a)


# Comparison: the functions are in the order of the predicates' numbers.

_SIGNED = [np.equal, np.not_equal, np.less, np.less_equal, np.greater, np.greater_equal]
_UNSIGNED = [np.less, np.less_equal, np.greater, np.greater_equal]


def _cmpi(op: Op, env: Env, a: Any, b: Any) -> Any:
    predicate = op.attributes["predicate"]
    if predicate < 6:
        return _SIGNED[predicate](as_signed(a), as_signed(b))
    return _UNSIGNED[predicate - 6](unsigned(a), unsigned(b))


def _unordered(a: Any, b: Any) -> Any:
    return np.isnan(a) | np.isnan(b)


_ORDERED: list[Function] = [
    lambda a, b: np.zeros(np.broadcast(a, b).shape, bool)[()],  # false
    np.equal,
    np.greater,
    np.greater_equal,
    np.less,
    np.less_equal,
    lambda a, b: (a < b) | (a > b),  # one
    lambda a, b: ~_unordered(a, b),  # ord
]
# What is left of ueq, ugt, uge, ult, ule, une, uno and true without "or unordered".
_OR_UNORDERED = [*_ORDERED[1:7], _ORDERED[0], _ORDERED[7]]


def _cmpf(op: Op, env: Env, a: Any, b: Any) -> Any:
    predicate = op.attributes["predicate"]
    if predicate < 8:
        return _ORDERED[predicate](a, b)
    return _OR_UNORDERED[predicate - 8](a, b) | _unordered(a, b)


def _select(op: Op, env: Env, condition: Any, a: Any, b: Any) -> Any:
    if not np.ndim(condition):
        return a if condition else b
    return np.where(condition, a, b)


# Conversions.


def _convert(op: Op, env: Env, x: Any) -> Any:
    return x.astype(op.results[0].dtype)


def _extend_signed(op: Op, env: Env, x: Any) -> Any:
    return as_signed(x).astype(op.results[0].dtype)


def _extend_unsigned(op: Op, env: Env, x: Any) -> Any:
    return unsigned(x).astype(op.results[0].dtype)


def _truncate_integer(op: Op, env: Env, x: Any) -> Any:
    dtype = op.results[0].dtype
    return (x & 1).astype(dtype) if dtype.kind == "b" else x.astype(dtype)


def _float_to_unsigned(op: Op, env: Env, x: Any) -> Any:
    dtype = op.results[0].dtype
    return signed(x.astype(f"u{dtype.name}"), dtype)


def _bitcast(op: Op, env: Env, x: Any) -> Any:
    return np.asarray(x).view(op.results[0].dtype)[()]


def _constant(op: Op, env: Env) -> Any:
    value = op.attributes["value"]
    return value if isinstance(value, np.ndarray) else op.results[0].dtype.type(value)


# Functions that NumPy has not.


def _fma(op: Op, env: Env, a: Any, b: Any, c: Any) -> Any:
    dtype = a.dtype
    if dtype == np.float64:
        return np.asarray(_fused(a, b, c), np.float64)[()]
    x, y, z = (v.astype(np.float64) for v in (a, b, c))
    product = x * y  # exact
    total, lost = _two_sum(product, z)
    total = _to_odd(total, lost)
    if dtype.itemsize < 4:  # ml_dtypes rounds by way of f32
        single = total.astype(np.float32)
        total = _to_odd(single, total - single)
    return total.astype(dtype)


def _two_sum(a: Any, b: Any) -> tuple[Any, Any]:
    """a + b, and what rounding took from it (Knuth, "The Art of Computer Programming", 4.2.2)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _to_odd(x: Any, lost: Any) -> Any:
    """x + lost rounded to odd, where x is it to nearest: rounding again gives what rounding once would
    (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums: proved algorithms using rounding to
    odd", IEEE Transactions on Computers, 2008)."""
    even = np.asarray(x).view(f"i{x.dtype.itemsize}") % 2 == 0
    toward = np.nextafter(x, np.copysign(x.dtype.type(np.inf), lost.astype(x.dtype)))
    return np.where(even & (lost != 0) & np.isfinite(x), toward, x)[()]


def _fused_one(a: float, b: float, c: float) -> float:
    if not (math.isfinite(a) and math.isfinite(b)):
        return a * b + c
    if not math.isfinite(c):
        return c
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    if exact == 0:
        return a * b + c  # for the sign
    try:
        return float(exact)
    except OverflowError:
        return math.inf if exact > 0 else -math.inf


_fused = np.frompyfunc(_fused_one, 3, 1)


def _count_leading_zeros(x: Any) -> Any:
    bits = x.dtype.itemsize * 8
    count = np.zeros_like(x)
    for shift in range(bits):
        count = count + ((x >> x.dtype.type(shift)) == 0).astype(x.dtype)
    return count


def _count_trailing_zeros(x: Any) -> Any:
    bits = x.dtype.itemsize * 8
    lowest = x & (~x + x.dtype.type(1))
    return np.where(x == 0, x.dtype.type(bits), x.dtype.type(bits - 1) - _count_leading_zeros(lowest))


REGISTRY: dict[str, Entry] = {
    "arith.constant": _constant,
    # Floats.
    "arith.addf": _float(np.add),
    "arith.subf": _float(np.subtract),
    "arith.mulf": _float(np.multiply),
    "arith.divf": _float(np.divide),
    "arith.remf": _float(np.fmod),
    "arith.negf": _exact(np.negative),
    "arith.maximumf": _float(_maximum),
    "arith.minimumf": _float(_minimum),
    "arith.maxnumf": _float(np.fmax),
    "arith.minnumf": _float(np.fmin),
    # Integers.
    "arith.addi": _integer(np.add),
    "arith.subi": _integer(np.subtract),
    "arith.muli": _integer(np.multiply),
    "arith.divsi": _integer(_divide_toward_zero),
    "arith.divui": _unsigned(np.floor_divide),
    "arith.floordivsi": _integer(np.floor_divide),
    "arith.ceildivsi": _integer(_divide_up),
    "arith.ceildivui": _unsigned(_divide_up),
    "arith.remsi": _integer(np.fmod),
    "arith.remui": _unsigned(np.mod),
    "arith.maxsi": _exact(np.maximum),
    "arith.minsi": _exact(np.minimum),
    "arith.maxui": _unsigned(np.maximum),
    "arith.minui": _unsigned(np.minimum),
    "arith.mului_extended": _mului_extended,
    "arith.mulsi_extended": _mulsi_extended,
    "arith.addui_extended": _addui_extended,
    # Bits.
    "arith.andi": _exact(np.bitwise_and),
    "arith.ori": _exact(np.bitwise_or),
    "arith.xori": _exact(np.bitwise_xor),
    "arith.shli": _exact(np.left_shift),
    "arith.shrsi": _exact(np.right_shift),
    "arith.shrui": _unsigned(np.right_shift),
    "math.ctpop": _unsigned(lambda x: np.bitwise_count(x).astype(x.dtype)),
    "math.ctlz": _unsigned(_count_leading_zeros),
    "math.cttz": _unsigned(_count_trailing_zeros),
    # Comparison and choice.
    "arith.cmpi": _cmpi,
    "arith.cmpf": _cmpf,
    "arith.select": _select,
    # Conversions.
    "arith.extf": _convert,
    "arith.truncf": _convert,
    "arith.extsi": _extend_signed,
    "arith.extui": _extend_unsigned,
    "arith.trunci": _truncate_integer,
    "arith.sitofp": _extend_signed,
    "arith.uitofp": _extend_unsigned,
    "arith.fptosi": _convert,
    "arith.fptoui": _float_to_unsigned,
    "arith.bitcast": _bitcast,
    "arith.index_cast": _extend_signed,
    "arith.index_castui": _extend_unsigned,
    # Functions.
    "math.absf": _exact(np.abs),
    "math.absi": _exact(np.abs),
    "math.sqrt": _float(np.sqrt),
    "math.floor": _float(np.floor),
    "math.ceil": _float(np.ceil),
    "math.trunc": _float(np.trunc),
    "math.roundeven": _float(np.rint),
    "math.round": _float(
        lambda x: np.trunc(x + np.copysign(np.nextafter(x.dtype.type(0.5), x.dtype.type(0)), x))
    ),
    "math.copysign": _float(np.copysign),
    "math.fma": _fma,
    "math.rsqrt": _function(lambda x: 1 / np.sqrt(x)),
    "math.cbrt": _function(np.cbrt),
    "math.exp": _function(np.exp),
    "math.exp2": _function(np.exp2),
    "math.expm1": _function(np.expm1),
    "math.log": _function(np.log),
    "math.log2": _function(np.log2),
    "math.log10": _function(np.log10),
    "math.log1p": _function(np.log1p),
    "math.sin": _function(np.sin),
    "math.cos": _function(np.cos),
    "math.tan": _function(np.tan),
    "math.asin": _function(np.arcsin),
    "math.acos": _function(np.arccos),
    "math.atan": _function(np.arctan),
    "math.atan2": _function(np.arctan2),
    "math.sinh": _function(np.sinh),
    "math.cosh": _function(np.cosh),
    "math.tanh": _function(np.tanh),
    "math.erf": _function(_erf),
    "math.powf": _function(np.power),
}
