"""Arithmetic: floats against one rounding of the exact result, integers against Python's."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mosaic_compile as mc
from mosaic_compile.language.dtypes import DType

from .harness import apply
from .registry import checks
from .rounding import FORMATS, rounded, same, within
from .values import (
    FLOATS,
    INTEGERS,
    NUMBERS,
    WHOLE,
    broadcasting,
    every,
    examples,
    pairs,
    shapes,
    specials,
    tiles,
)

# Integers.


def integers(x: Any) -> np.ndarray:
    """Python's integers, which neither wrap nor divide toward zero."""
    return np.asarray(x).astype(object)


def wrapped(x: np.ndarray, dtype: DType) -> np.ndarray:
    """The low bits of Python's integers."""
    count = 1 << dtype.bits
    x = np.asarray(x, object)
    lowest = [(int(v) - dtype.min) % count + dtype.min for v in x.ravel()]
    return np.array(lowest, dtype.numpy).reshape(x.shape)


@dataclass(frozen=True)
class Binary:
    """How an operation is written, its meaning on Python's integers, and what its right operand may be."""

    function: Callable[..., Any]
    meaning: Callable[[Any, Any], Any]
    right: str = "any"


BINARY = {
    "add": Binary(operator.add, operator.add),
    "subtract": Binary(operator.sub, operator.sub),
    "multiply": Binary(operator.mul, operator.mul),
    "floor_divide": Binary(operator.floordiv, operator.floordiv, "not zero"),
    "remainder": Binary(operator.mod, operator.mod, "not zero"),
    "cdiv": Binary(mc.cdiv, lambda a, b: -(-a // b), "not zero"),
    "maximum": Binary(mc.maximum, np.maximum),
    "minimum": Binary(mc.minimum, np.minimum),
    "bitwise_and": Binary(operator.and_, operator.and_),
    "bitwise_or": Binary(operator.or_, operator.or_),
    "bitwise_xor": Binary(operator.xor, operator.xor),
    "shift_left": Binary(operator.lshift, operator.lshift, "shift"),
    "shift_right": Binary(operator.rshift, operator.rshift, "shift"),
}


def _right(case: Binary, b: np.ndarray, dtype: DType) -> np.ndarray:
    """b where the operation is defined, other values elsewhere."""
    if case.right == "not zero":
        return np.where(b == 0, 3, b).astype(b.dtype)
    if case.right == "shift":
        return np.asarray(integers(b) % dtype.bits).astype(b.dtype)
    return b


@checks(*BINARY)
@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
@pytest.mark.parametrize("name", BINARY)
def test_integers(name, dtype):
    case = BINARY[name]

    @examples(12)
    @given(data=st.data())
    def check(data):
        first, second = data.draw(broadcasting(2))
        a, b = data.draw(tiles(dtype, first)), _right(case, data.draw(tiles(dtype, second)), dtype)
        same(apply(case.function, a, b), wrapped(case.meaning(integers(a), integers(b)), dtype))

    check()


@pytest.mark.parametrize("dtype", [mc.i8, mc.u8], ids=str)
@pytest.mark.parametrize("name", BINARY)
def test_all_pairs_of_bytes(name, dtype):
    case = BINARY[name]
    right = every(dtype)
    if case.right != "any":
        right = right[right != 0] if case.right == "not zero" else np.arange(8).astype(dtype.numpy)
    a, b = every(dtype)[:, None], right[None, :]
    same(apply(case.function, a, b), wrapped(case.meaning(integers(a), integers(b)), dtype))


UNARY = {
    "negate": (operator.neg, INTEGERS),
    "bitwise_not": (operator.invert, INTEGERS),
    "abs": (abs, INTEGERS),
    "positive": (operator.pos, (*INTEGERS, mc.bool_)),
}


@checks("negate", "bitwise_not", "abs", "Tile.__neg__", "Tile.__invert__", "Tile.__abs__", "Tile.__pos__")
@pytest.mark.parametrize(
    "name, dtype", [(name, dtype) for name, (_, dtypes) in UNARY.items() for dtype in dtypes], ids=str
)
def test_integers_unary(name, dtype):
    function = UNARY[name][0]

    @examples(12)
    @given(data=st.data())
    def check(data):
        x = data.draw(tiles(dtype, data.draw(shapes())))
        same(apply(function, x), wrapped(function(integers(x)), dtype) if dtype is not mc.bool_ else x)

    check()
    if dtype.bits == 8:
        same(apply(function, every(dtype)), wrapped(function(integers(every(dtype))), dtype))


@pytest.mark.parametrize("function", [operator.and_, operator.or_, operator.xor])
def test_truth_values(function):
    a, b = pairs(every(mc.bool_))
    same(apply(function, a, b), function(a, b))
    same(apply(operator.invert, every(mc.bool_)), ~every(mc.bool_))
    same(apply(abs, every(mc.bool_)), every(mc.bool_))


# Floats.


def exactly(name: str, a: Any, b: Any, dtype: DType) -> np.ndarray:
    """a and b combined and rounded once; in f32 first if the type is narrower, as the language says."""
    function = {"add": np.add, "subtract": np.subtract, "multiply": np.multiply, "divide": np.divide}[name]
    with np.errstate(all="ignore"):
        if dtype is mc.f64:
            return _by_fractions(function, *np.broadcast_arrays(a, b))
        # float64 holds enough that rounding its result to f32 is rounding the exact one.
        wide = function(a.astype(np.float64), b.astype(np.float64))
        single = rounded(wide, mc.f32)
        return single if dtype is mc.f32 else rounded(single, dtype)


def _by_fractions(function: Any, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """In Python's fractions where these are defined: they convert to floats with one rounding."""
    result = np.asarray(function(a, b))  # for NaN, infinities, zeros and their signs
    exact = {
        np.add: operator.add,
        np.subtract: operator.sub,
        np.multiply: operator.mul,
        np.divide: operator.truediv,
    }
    for at in np.ndindex(a.shape):
        if not (np.isfinite(a[at]) and np.isfinite(b[at]) and (b[at] or function is not np.divide)):
            continue
        value = exact[function](Fraction(float(a[at])), Fraction(float(b[at])))
        try:
            result[at] = float(value) or np.copysign(0.0, result[at])
        except OverflowError:
            result[at] = np.inf if value > 0 else -np.inf
    return result


DIVIDE = Binary(operator.truediv, operator.truediv)


@checks("divide")
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", ["add", "subtract", "multiply", "divide"])
def test_floats(name, dtype):
    function = (BINARY | {"divide": DIVIDE})[name].function

    @examples(25)
    @given(data=st.data())
    def check(data):
        first, second = data.draw(broadcasting(2))
        a, b = data.draw(tiles(dtype, first)), data.draw(tiles(dtype, second))
        same(apply(function, a, b), exactly(name, a, b, dtype))

    check()
    a, b = pairs(specials(dtype))
    same(apply(function, a, b), exactly(name, a, b, dtype))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", ["maximum", "minimum"])
def test_extrema(name, dtype):
    """NaN if either is, and the zeros ordered: IEEE 754-2019's maximum and minimum."""

    @examples(25)
    @given(data=st.data())
    def check(data):
        first, second = data.draw(broadcasting(2))
        a, b = data.draw(tiles(dtype, first)), data.draw(tiles(dtype, second))
        same(apply(getattr(mc, name), a, b), extremum(name, a, b))

    check()
    a, b = pairs(specials(dtype))
    same(apply(getattr(mc, name), a, b), extremum(name, a, b))


def extremum(name: str, a: Any, b: Any) -> np.ndarray:
    """By sorting keys: the value, then the sign of zero."""
    a, b = np.broadcast_arrays(a, b)
    x, y = a.astype(np.float64), b.astype(np.float64)
    below = (x < y) | ((x == y) & np.signbit(x) & ~np.signbit(y))
    chosen = np.where(below == (name == "maximum"), b, a)
    return np.where(np.isnan(x) | np.isnan(y), a.dtype.type(np.nan), chosen)


@checks("clamp")
@pytest.mark.parametrize("dtype", NUMBERS, ids=str)
def test_clamp(dtype):
    @examples(20)
    @given(data=st.data())
    def check(data):
        x_shape, low_shape, high_shape = data.draw(broadcasting(3))
        x, low, high = (data.draw(tiles(dtype, shape)) for shape in (x_shape, low_shape, high_shape))
        if dtype.is_float:
            low, high = (
                np.where(np.isnan(v), dtype.numpy.type(1), v).astype(dtype.numpy) for v in (low, high)
            )
        swapped = wide(low) > wide(high)
        low, high = np.where(swapped, high, low), np.where(swapped, low, high)
        shape = np.broadcast_shapes(x.shape, low.shape)
        result = apply(mc.clamp, x, low, high)
        assert result.shape == shape and result.dtype == dtype.numpy
        r, v, lo, hi = (np.broadcast_to(wide(t), shape) for t in (result, x, low, high))
        inside = (lo <= v) & (v <= hi)
        wanted = np.where(inside | (v != v), v, np.where(v < lo, lo, hi))
        np.testing.assert_array_equal(r, wanted)

    check()


def wide(x: np.ndarray) -> np.ndarray:
    return x.astype(np.int64) if x.dtype.kind in "iu" else x.astype(np.float64)


FLOAT_UNARY = {"negate": operator.neg, "abs": abs, "positive": operator.pos}


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", FLOAT_UNARY)
def test_floats_unary(name, dtype):
    """Bit by bit: only the sign changes."""
    sign = np.array(1 << (dtype.bits - 1), f"u{dtype.bits // 8}")

    def meaning(x):
        bits = x.view(sign.dtype)
        return (bits ^ sign if name == "negate" else bits & ~sign if name == "abs" else bits).view(x.dtype)

    @examples(12)
    @given(data=st.data())
    def check(data):
        x = data.draw(tiles(dtype, data.draw(shapes())))
        same(apply(FLOAT_UNARY[name], x), meaning(x))

    check()
    if dtype.bits == 16:
        same(apply(FLOAT_UNARY[name], every(dtype)), meaning(every(dtype)))


# a * b + c with one rounding.


def fused(a: float, b: float, c: float, dtype: DType) -> Any:
    """a * b + c of one element, in Python's fractions."""
    if not all(map(np.isfinite, (a, b, c))):
        with np.errstate(all="ignore"):
            return (
                np.float64(a) * np.float64(b) + np.float64(c)
                if np.isfinite(a * b)
                else np.float64(_sum(a, b, c))
            )
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    if exact == 0:  # a sum of opposites is +0, a sum of zeros of one sign keeps it
        negative = np.signbit(c) and (np.signbit(a) != np.signbit(b)) and c == 0
        return np.float64(-0.0 if negative else 0.0)
    return nearest_fraction(exact, dtype)


def _sum(a: float, b: float, c: float) -> float:
    """With an infinity or NaN among them; a product of finite numbers is finite, however large."""
    product = np.float64(a) * np.float64(b)
    if np.isfinite(a) and np.isfinite(b):
        return c
    return float(product + c)


def nearest_fraction(x: Fraction, dtype: DType) -> np.float64:
    """A fraction to nearest, ties to even."""
    format = FORMATS[dtype]
    size = abs(x)
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    if size < Fraction(2) ** exponent:
        exponent -= 1
    place = max(exponent, format.smallest) - format.precision + 1
    result = round(size / Fraction(2) ** place) * Fraction(2) ** place  # Python's round takes ties to even
    value = np.inf if result > Fraction(format.largest) else float(result)
    return np.float64(value if x > 0 else -value)


@checks("fma")
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_fma(dtype):
    @examples(60)
    @given(data=st.data())
    def check(data):
        a, b, c = (data.draw(tiles(dtype, shape)) for shape in data.draw(broadcasting(3)))
        if data.draw(st.booleans()):  # cancellation: c is the rounded product with the other sign
            with np.errstate(all="ignore"):
                c = -(a * b)
        with np.errstate(all="ignore"):
            wanted = [
                fused(*map(float, abc), dtype)
                for abc in zip(*(v.ravel().astype(np.float64) for v in np.broadcast_arrays(a, b, c)))
            ]
        wanted = np.array(wanted, np.float64).astype(dtype.numpy)
        same(apply(mc.fma, a, b, c), wanted.reshape(np.broadcast_shapes(a.shape, b.shape, c.shape)))

    check()


def test_fma_rounds_once():
    """Products and sums on which rounding twice, at any of the usual widths, ends elsewhere."""
    rng = np.random.default_rng(0)
    for dtype in FLOATS:
        precision = FORMATS[dtype].precision
        a = (1 + rng.integers(0, 2 ** (precision - 1), 400) / 2.0 ** (precision - 1)).astype(dtype.numpy)
        b = (1 + rng.integers(0, 2 ** (precision - 1), 400) / 2.0 ** (precision - 1)).astype(dtype.numpy)
        for scale in (
            1,
            2.0**-precision,
            2.0 ** -(2 * precision),
            -(2.0 ** (precision + 3)),
            2.0 ** (2 * precision),
        ):
            c = (scale * (1 + rng.integers(0, 3, 400))).astype(dtype.numpy)
            wanted = [fused(*map(float, abc), dtype) for abc in zip(a, b, c)]
            same(apply(mc.fma, a, b, c), np.array(wanted).astype(dtype.numpy))


# Powers.

EXPONENTS = (0, 1, 2, 3, 5, 8, 10)


@checks("power", "Tile.__pow__")
@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
@pytest.mark.parametrize("exponent", EXPONENTS)
def test_integer_power(exponent, dtype):
    @examples(8)
    @given(data=st.data())
    def check(data):
        x = data.draw(tiles(dtype, data.draw(shapes())))
        same(apply(lambda x: x**exponent, x), wrapped(integers(x) ** exponent, dtype))

    check()


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("exponent", EXPONENTS)
def test_float_power(exponent, dtype):
    """Of n factors by repeated squaring, the relative error is at most that of n - 1 roundings."""

    @examples(8)
    @given(data=st.data())
    def check(data):
        x = data.draw(tiles(dtype, data.draw(shapes()), ordinary=True))
        exact = x.astype(np.longdouble) ** exponent
        with np.errstate(all="ignore"):
            tiny = 2.0 ** FORMATS[dtype].smallest  # below, products lose digits
            defined = (np.abs(exact) < FORMATS[dtype].largest / 2) & ((np.abs(exact) > tiny) | (exact == 0))
        x = np.where(defined, x, dtype.numpy.type(1)).astype(dtype.numpy)
        exact = x.astype(np.longdouble) ** exponent
        # A rounding is half a unit in the last place, the last of them exact's own.
        within(apply(lambda x: x**exponent, x), exact, dtype, ulps=max(exponent - 2, 0) + 2.0**-10)

    check()
    everything = np.array([np.nan, np.inf, -np.inf, -0.0, 0.0, -1], dtype.numpy)
    if exponent < 2:
        same(apply(lambda x: x**exponent, everything), everything if exponent else np.ones(6, dtype.numpy))


# Numbers beside tiles, and Python's operators.

OPERATORS = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "truediv": operator.truediv,
    "floordiv": operator.floordiv,
    "mod": operator.mod,
    "and": operator.and_,
    "or": operator.or_,
    "xor": operator.xor,
    "lshift": operator.lshift,
    "rshift": operator.rshift,
}
ON_FLOATS = ("add", "sub", "mul", "truediv")


@checks(*(f"Tile.__{side}{name}__" for name, side in itertools.product(OPERATORS, ("", "r"))))
@pytest.mark.parametrize("name", OPERATORS)
def test_numbers_beside_tiles(name):
    """A bare number takes the tile's type, on either side."""
    function = OPERATORS[name]
    for dtype in (*FLOATS, *WHOLE):
        if (dtype.is_float and name not in ON_FLOATS) or (not dtype.is_float and name == "truediv"):
            continue
        if dtype is mc.bool_ and name not in ("and", "or", "xor"):
            continue
        number: Any = True if dtype is mc.bool_ else 3
        x = np.array([1, 2, 5, 7, 1]).astype(dtype.numpy)
        beside = np.full(5, number).astype(dtype.numpy)
        for left, right, actual in (
            (x, beside, apply(lambda x: function(x, number), x)),  # noqa: B023 - called here
            (beside, x, apply(lambda x: function(number, x), x)),  # noqa: B023
        ):
            if dtype.is_float:
                long = {"sub": "subtract", "mul": "multiply", "truediv": "divide"}.get(name, name)
                same(actual, exactly(long, left, right, dtype))
            elif dtype is mc.bool_:
                same(actual, function(left, right))
            else:
                same(actual, wrapped(function(integers(left), integers(right)), dtype))


@checks("Tile.__rpow__")
def test_other_powers_say_how():
    with pytest.raises(mc.MosaicError, match=r"mc\.exp2\(b \* mc\.log2\(a\)\)"):
        apply(lambda x: 2**x, np.ones(3, np.float32))
    for exponent in (-1, 0.25):
        with pytest.raises(mc.MosaicError, match="compile-time exponent"):
            apply(lambda x: x**exponent, np.ones(3, np.float32))  # noqa: B023 - called here
