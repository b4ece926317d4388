"""Entries for arith and math against Python's integers and NumPy's float64, on specials in all pairs and random values."""

from __future__ import annotations

import math
import operator
import pathlib
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from mosaic_compile.interpreter import REGISTRY

from .helpers import assert_same, evaluate

INTEGERS = {"i8": np.int8, "i16": np.int16, "i32": np.int32, "i64": np.int64}
FLOATS = {"f16": np.float16, "bf16": ml_dtypes.bfloat16, "f32": np.float32, "f64": np.float64}
TYPES: dict[str, Any] = {"i1": np.bool_, **INTEGERS, **FLOATS}
TYPES |= {"i4": ml_dtypes.int4, "f8E4M3FN": ml_dtypes.float8_e4m3fn, "f8E5M2": ml_dtypes.float8_e5m2}


def specials(type_: str) -> np.ndarray:
    """Edge values of a type and random ones."""
    rng = np.random.default_rng(7)
    dtype = np.dtype(TYPES[type_])
    if type_ == "i1":
        return np.array([False, True])
    if type_ in (*INTEGERS, "i4"):
        bits = 4 if type_ == "i4" else dtype.itemsize * 8
        low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
        edges = [0, 1, -1, 2, -2, 3, -3, 7, -7, low, low + 1, high, high - 1]
        return np.array([*edges, *rng.integers(low, high, 12, endpoint=True)], np.int64).astype(dtype)
    edges = [0, -0.0, 1, -1, 0.5, -0.5, 1.5, 2.5, -2.5, 0.49999997, 3, np.inf, -np.inf, np.nan]
    info = ml_dtypes.finfo(dtype)
    limits = [info.max, info.min, info.tiny, info.smallest_subnormal]
    many = np.concatenate([rng.standard_normal(12), 10 * rng.standard_normal(12)])
    return np.concatenate([np.array(part, np.float64) for part in (edges, limits, many)]).astype(dtype)


def pairs(type_: str) -> tuple[np.ndarray, np.ndarray]:
    values = specials(type_)
    a, b = np.meshgrid(values, values)
    return a.ravel(), b.ravel()


def apply(
    name: str, operands: list[np.ndarray], source: str, results: list[str], attributes: str = ""
) -> tuple[Any, ...]:
    """One op on tiles, and on the first few elements as scalars, which must agree."""

    def module(wrap: Callable[[str], str]) -> str:
        arguments = ", ".join(f"%{i}: {wrap(source)}" for i in range(len(operands)))
        names = ", ".join(f"%{i}" for i in range(len(operands)))
        types = ", ".join(wrap(r) for r in results)
        outputs = ", ".join(f"%r#{i}" for i in range(len(results)))
        signature = f"({', '.join([wrap(source)] * len(operands))}) -> ({types})"
        body = f'%r:{len(results)} = "{name}"({names}) {attributes} : {signature}'
        return f"func.func @f({arguments}) -> ({types}) {{ {body}\n return {outputs} : {types} }}"

    tiles = evaluate(module(lambda t: f"tensor<{len(operands[0])}x{t}>"), *operands)
    scalar = module(lambda t: t)
    for i in range(0, len(operands[0]), max(1, len(operands[0]) // 7)):
        for one, many in zip(evaluate(scalar, *(x[i] for x in operands)), tiles):
            assert_same(one, many[i])
    return tiles


# Integers, against Python's.


def bits_of(type_: str) -> int:
    return 1 if type_ == "i1" else int(type_[1:])


def to_unsigned(x: int, bits: int) -> int:
    return x & ((1 << bits) - 1)


def to_signed(x: int, bits: int) -> int:
    x = to_unsigned(x, bits)
    return x - (1 << bits) if x >> (bits - 1) else x


def integers(x: np.ndarray) -> list[int]:
    """Signed numbers; of i1, true is -1."""
    return [-int(v) if x.dtype == bool else int(v) for v in x]


def pack(values: list[int], type_: str) -> np.ndarray:
    if type_ == "i1":
        return np.array([bool(v & 1) for v in values])
    return np.array([to_signed(v, bits_of(type_)) for v in values], np.int64).astype(TYPES[type_])


def toward_zero(a: int, b: int) -> int:
    return 0 if b == 0 else abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def floor(a: int, b: int) -> int:
    return 0 if b == 0 else a // b


def up(a: int, b: int) -> int:
    return 0 if b == 0 else -(-a // b)


SIGNED = {
    "addi": operator.add,
    "subi": operator.sub,
    "muli": operator.mul,
    "divsi": toward_zero,
    "floordivsi": floor,
    "ceildivsi": up,
    "remsi": lambda a, b: 0 if b == 0 else a - toward_zero(a, b) * b,
    "maxsi": max,
    "minsi": min,
    "andi": operator.and_,
    "ori": operator.or_,
    "xori": operator.xor,
}
UNSIGNED = {
    "divui": floor,
    "ceildivui": up,
    "remui": lambda a, b: 0 if b == 0 else a % b,
    "maxui": max,
    "minui": min,
}


@pytest.mark.parametrize("type_", ["i1", *INTEGERS])
@pytest.mark.parametrize("name", [*SIGNED, *UNSIGNED])
def test_integer(name, type_):
    if type_ == "i1" and name not in ("addi", "subi", "muli", "andi", "ori", "xori", "maxui", "minui"):
        pytest.skip("division and signed order of truth values")
    a, b = pairs(type_)
    bits = bits_of(type_)
    if name in UNSIGNED:
        wanted = [
            UNSIGNED[name](to_unsigned(x, bits), to_unsigned(y, bits))
            for x, y in zip(integers(a), integers(b))
        ]
    else:
        wanted = [SIGNED[name](x, y) for x, y in zip(integers(a), integers(b))]
    assert_same(apply(f"arith.{name}", [a, b], type_, [type_])[0], pack(wanted, type_))


@pytest.mark.parametrize("type_", INTEGERS)
@pytest.mark.parametrize("name", ["shli", "shrsi", "shrui"])
def test_shift(name, type_):
    bits = bits_of(type_)
    a, b = np.meshgrid(specials(type_), np.arange(bits).astype(TYPES[type_]))
    a, b = a.ravel(), b.ravel()
    shift = {
        "shli": lambda x, n: x << n,
        "shrsi": lambda x, n: x >> n,
        "shrui": lambda x, n: to_unsigned(x, bits) >> n,
    }
    wanted = [shift[name](x, y) for x, y in zip(integers(a), integers(b))]
    assert_same(apply(f"arith.{name}", [a, b], type_, [type_])[0], pack(wanted, type_))


@pytest.mark.parametrize("type_", INTEGERS)
@pytest.mark.parametrize("name", ["mului_extended", "mulsi_extended", "addui_extended"])
def test_extended(name, type_):
    a, b = pairs(type_)
    bits = bits_of(type_)
    xs, ys = integers(a), integers(b)
    if name != "mulsi_extended":
        xs, ys = ([to_unsigned(v, bits) for v in values] for values in (xs, ys))
    wanted = [(x + y if name == "addui_extended" else x * y) for x, y in zip(xs, ys)]
    high_type = "i1" if name == "addui_extended" else type_
    low, high = apply(f"arith.{name}", [a, b], type_, [type_, high_type])
    assert_same(low, pack(wanted, type_))
    assert_same(high, pack([w >> bits for w in wanted], high_type))


@pytest.mark.parametrize("type_", ["i1", *INTEGERS])
@pytest.mark.parametrize("predicate", range(10))
def test_cmpi(predicate, type_):
    a, b = pairs(type_)
    xs, ys = integers(a), integers(b)
    if predicate >= 6:
        xs, ys = ([to_unsigned(v, bits_of(type_)) for v in values] for values in (xs, ys))
    compare = [operator.eq, operator.ne, *[operator.lt, operator.le, operator.gt, operator.ge] * 2][predicate]
    wanted = np.array([compare(x, y) for x, y in zip(xs, ys)])
    assert_same(apply("arith.cmpi", [a, b], type_, ["i1"], f"{{predicate = {predicate} : i64}}")[0], wanted)


@pytest.mark.parametrize("type_", INTEGERS)
@pytest.mark.parametrize("name", ["absi", "ctpop", "ctlz", "cttz"])
def test_integer_functions(name, type_):
    bits = bits_of(type_)
    reference = {
        "absi": abs,
        "ctpop": lambda x: to_unsigned(x, bits).bit_count(),
        "ctlz": lambda x: bits - to_unsigned(x, bits).bit_length(),
        "cttz": lambda x: bits if x == 0 else (x & -x).bit_length() - 1,
    }[name]
    x = specials(type_)
    wanted = pack([reference(v) for v in integers(x)], type_)
    assert_same(apply(f"math.{name}", [x], type_, [type_])[0], wanted)


# Floats, against float64.


def in_double(function: Callable[..., Any], *xs: np.ndarray) -> np.ndarray:
    """The function in float64, rounded to the operands' type by way of f32 if that is narrower, as the compiler does."""
    with np.errstate(all="ignore"):
        wide = function(*(x.astype(np.float64) for x in xs))
        return (wide.astype(np.float32) if xs[0].dtype.itemsize < 4 else wide).astype(xs[0].dtype)


FLOAT_BINARY = {
    "arith.addf": np.add,
    "arith.subf": np.subtract,
    "arith.mulf": np.multiply,
    "arith.divf": np.divide,
    "arith.remf": np.fmod,
    "arith.maximumf": np.maximum,
    "arith.minimumf": np.minimum,
    "arith.maxnumf": np.fmax,
    "arith.minnumf": np.fmin,
    "math.copysign": np.copysign,
    "math.atan2": np.arctan2,
    "math.powf": np.power,
}
FLOAT_UNARY = {
    "arith.negf": np.negative,
    "math.absf": np.abs,
    "math.sqrt": np.sqrt,
    "math.rsqrt": lambda x: 1 / np.sqrt(x),
    "math.cbrt": np.cbrt,
    "math.floor": np.floor,
    "math.ceil": np.ceil,
    "math.trunc": np.trunc,
    "math.roundeven": np.rint,
    "math.round": lambda x: np.copysign(np.floor(np.abs(x) + np.where(np.abs(x) < 2**50, 0.5, 0)), x),
    "math.exp": np.exp,
    "math.exp2": np.exp2,
    "math.expm1": np.expm1,
    "math.log": np.log,
    "math.log2": np.log2,
    "math.log10": np.log10,
    "math.log1p": np.log1p,
    "math.sin": np.sin,
    "math.cos": np.cos,
    "math.tan": np.tan,
    "math.asin": np.arcsin,
    "math.acos": np.arccos,
    "math.atan": np.arctan,
    "math.sinh": np.sinh,
    "math.cosh": np.cosh,
    "math.tanh": np.tanh,
}


@pytest.mark.parametrize("type_", FLOATS)
@pytest.mark.parametrize("name", FLOAT_BINARY)
def test_float_binary(name, type_):
    a, b = pairs(type_)
    exact = name not in ("math.atan2", "math.powf")
    actual = apply(name, [a, b], type_, [type_])[0]
    assert_same(actual, in_double(FLOAT_BINARY[name], a, b), ulps=0 if exact else 1)


@pytest.mark.parametrize("type_", FLOATS)
@pytest.mark.parametrize("name", FLOAT_UNARY)
def test_float_unary(name, type_):
    x = specials(type_)
    # Narrow results are rounded from f64 at once here, by way of f32 in the reference.
    assert_same(apply(name, [x], type_, [type_])[0], in_double(FLOAT_UNARY[name], x), ulps=1)


def test_erf():
    x = specials("f32")
    wanted = np.array([math.erf(v) for v in x.astype(np.float64)]).astype(np.float32)
    assert_same(apply("math.erf", [x], "f32", ["f32"])[0], wanted, ulps=1)


@pytest.mark.parametrize("name", ["arith.maximumf", "arith.minimumf", "arith.maxnumf", "arith.minnumf"])
def test_nan_in_extrema(name):
    """maximumf gives NaN if either is, maxnumf the other one."""
    a, b = np.array([np.nan, 1, np.nan], np.float32), np.array([2, np.nan, np.nan], np.float32)
    other = [2, 1, np.nan] if "num" in name else [np.nan] * 3
    assert_same(apply(name, [a, b], "f32", ["f32"])[0], np.array(other, np.float32))


CMPF = [
    "false",
    "oeq",
    "ogt",
    "oge",
    "olt",
    "ole",
    "one",
    "ord",
    "ueq",
    "ugt",
    "uge",
    "ult",
    "ule",
    "une",
    "uno",
    "true",
]


@pytest.mark.parametrize("type_", FLOATS)
@pytest.mark.parametrize("predicate", range(16))
def test_cmpf(predicate, type_):
    a, b = pairs(type_)
    name = CMPF[predicate]
    wanted = []
    for x, y in zip(a.astype(np.float64), b.astype(np.float64)):
        if np.isnan(x) or np.isnan(y):
            wanted.append(name[0] == "u" or name == "true")
        elif name in ("false", "true", "ord", "uno"):
            wanted.append(name in ("true", "ord"))
        else:
            wanted.append(bool(getattr(operator, name[1:])(x, y) if name[1:] != "ne" else x != y))
    actual = apply("arith.cmpf", [a, b], type_, ["i1"], f"{{predicate = {predicate} : i64}}")[0]
    assert_same(actual, np.array(wanted))


# Conversions and choice.


@pytest.mark.parametrize("source", ["i1", "i4", "i8", "i16", "i32", "i64"])
@pytest.mark.parametrize("result", ["i1", "i4", "i8", "i16", "i32", "i64", *FLOATS])
def test_convert_integer(source, result):
    x = specials(source)
    values = integers(x)
    from_unsigned = [to_unsigned(v, bits_of(source)) for v in values]
    if result in FLOATS:
        if source == "i4":
            pytest.skip("i4 converts by way of i8")
        with np.errstate(all="ignore"):
            signed, unsigned = (np.array(v).astype(TYPES[result]) for v in (values, from_unsigned))
        # NumPy and ml_dtypes take some of these by way of f32, so a tie may round the other way.
        assert_same(apply("arith.sitofp", [x], source, [result])[0], signed, ulps=1)
        assert_same(apply("arith.uitofp", [x], source, [result])[0], unsigned, ulps=1)
    elif bits_of(result) > bits_of(source):
        assert_same(apply("arith.extsi", [x], source, [result])[0], pack(values, result))
        assert_same(apply("arith.extui", [x], source, [result])[0], pack(from_unsigned, result))
    elif bits_of(result) < bits_of(source):
        assert_same(apply("arith.trunci", [x], source, [result])[0], pack(values, result))


@pytest.mark.parametrize("source", FLOATS)
def test_float_to_integer(source):
    x = np.array([0, -0.0, 0.99, -0.99, 1.5, 2.5, -2.5, 100.7, -100.7], np.float64).astype(TYPES[source])
    wanted = np.trunc(x.astype(np.float64)).astype(np.int32)
    assert_same(apply("arith.fptosi", [x], source, ["i32"])[0], wanted)
    positive = np.abs(x) * x.dtype.type(1.25)
    wanted = np.trunc(positive.astype(np.float64)).astype(np.uint8).view(np.int8)
    assert_same(apply("arith.fptoui", [positive], source, ["i8"])[0], wanted)


def test_truncf_ties_to_even():
    x = np.array([1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -1 - 2**-8], np.float32)
    wanted = np.array([1, 1 + 2**-6, 1 + 2**-7, -1], np.float32).astype(ml_dtypes.bfloat16)
    assert_same(apply("arith.truncf", [x], "f32", ["bf16"])[0], wanted)


def test_truncf_out_of_range():
    """f8E4M3FN has no infinity: NaN above 464; f8E5M2 and the wider types give infinity."""
    x = np.array([448, 464, 465, -1e9, np.inf, np.nan], np.float32)
    wanted = np.array([448, 448, np.nan, np.nan, np.nan, np.nan])
    assert_same(apply("arith.truncf", [x], "f32", ["f8E4M3FN"])[0], wanted.astype(ml_dtypes.float8_e4m3fn))
    x = np.array([57344, 61439, 61440, -1e9, np.inf, np.nan], np.float32)
    wanted = np.array([57344, 57344, np.inf, -np.inf, np.inf, np.nan])
    assert_same(apply("arith.truncf", [x], "f32", ["f8E5M2"])[0], wanted.astype(ml_dtypes.float8_e5m2))
    x = np.array([65504, 65519, 65520, -1e9], np.float32)
    wanted = np.array([65504, 65504, np.inf, -np.inf], np.float16)
    assert_same(apply("arith.truncf", [x], "f32", ["f16"])[0], wanted)


@pytest.mark.parametrize("source", ["f16", "bf16", "f8E4M3FN", "f8E5M2"])
def test_extf_is_exact(source):
    bits = np.dtype(TYPES[source]).itemsize * 8
    x = np.arange(1 << bits, dtype=f"u{bits // 8}").view(TYPES[source])
    wide = apply("arith.extf", [x], source, ["f32"])[0]
    assert_same(apply("arith.truncf", [wide], "f32", [source])[0], x)


@pytest.mark.parametrize(
    "source, result", [("f32", "i32"), ("i32", "f32"), ("bf16", "i16"), ("i16", "f16"), ("f8E5M2", "i8")]
)
def test_bitcast(source, result):
    x = specials(source)
    assert_same(apply("arith.bitcast", [x], source, [result])[0], x.view(TYPES[result]))


def test_index_cast():
    text = "func.func @f(%x: i32) -> (i32) {{ %i = arith.{0} %x : i32 to index\n %r = arith.{0} %i : index to i32\n return %r : i32 }}"
    for name in ("index_cast", "index_castui"):
        assert evaluate(text.format(name), np.int32(-5)) == (-5,)


@pytest.mark.parametrize("type_", TYPES)
def test_select(type_):
    a, b = pairs(type_)
    condition = np.arange(len(a)) % 3 == 0
    tile = f"tensor<{len(a)}x{type_}>"
    text = "func.func @f(%c: {0}, %a: {1}, %b: {1}) -> {1} {{ %r = arith.select %c, %a, %b : {0}, {1}\n return %r : {1} }}"
    chosen = evaluate(text.format(f"tensor<{len(a)}xi1>", tile), condition, a, b)[0]
    assert_same(chosen, np.where(condition, a, b))
    assert evaluate(text.format("i1", tile).replace(": i1, tensor", ": tensor"), np.True_, a, b)[0] is a


def test_dense_constant():
    text = "func.func @f() -> tensor<2x2xi32> { %c = arith.constant dense<[[1, 2], [3, -4]]> : tensor<2x2xi32>\n return %c : tensor<2x2xi32> }"
    assert_same(evaluate(text)[0], np.array([[1, 2], [3, -4]], np.int32))


@pytest.mark.parametrize("type_", TYPES)
def test_constant(type_):
    dtype = TYPES[type_]
    one, two = ("true", "false") if type_ == "i1" else ("1", "-2") if type_[0] == "i" else ("1.0", "-2.0")
    text = f"""func.func @f() -> ({type_}, tensor<2x2x{type_}>) {{
      %a = arith.constant {one}{"" if type_ == "i1" else f" : {type_}"}
      %b = arith.constant dense<{two}> : tensor<2x2x{type_}>
      return %a, %b : {type_}, tensor<2x2x{type_}> }}"""
    scalar, splat = evaluate(text)
    values = np.array([True, False]) if type_ == "i1" else np.array([1, -2]).astype(dtype)
    assert_same(scalar, values[0])
    assert_same(splat, np.full((2, 2), values[1]))


IN_THE_LANGUAGE = {"math.fma"}  # tested as operations of the language, in tests/ops


def test_every_entry_is_tested():
    text = pathlib.Path(__file__).read_text()
    names = {name for name in REGISTRY if name.startswith(("arith.", "math."))} - IN_THE_LANGUAGE
    missing = [n for n in names if n.split(".")[1] not in text]
    assert not missing
