"""Every DSL operation that states its meaning in NumPy, compared with that meaning on each element type it takes.

References are evaluated in a wider type and rounded once; a tolerance counts units in the last place of the result.
"""

import functools
import itertools
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import mosaic_compile as mc
from mosaic_compile.language.dtypes import DTYPES, DType
from mosaic_compile.language.op import OPS

from .helpers import assert_same, launch
from .test_elementwise import specials

FLOATS = (mc.f16, mc.bf16, mc.f32, mc.f64)
INTEGERS = (mc.i8, mc.i16, mc.i32, mc.i64, mc.u8, mc.u32)
NUMBERS = (*FLOATS, *INTEGERS)
BITS = (*INTEGERS, mc.bool_)
ALL = tuple(DTYPES.values())


def compute(
    function: Any, inputs: list[tuple[DType, np.ndarray]], dtype: DType, shape: tuple[int, ...]
) -> np.ndarray:
    """A DSL function of one to three tiles, run in a kernel; the result has this element type and shape."""
    (a_type, a), (b_type, b), (c_type, c) = (*inputs, inputs[0], inputs[0])[:3]
    a_shape, b_shape, c_shape, y_shape = a.shape, b.shape, c.shape, shape or (1,)
    a_at, b_at, c_at, y_at = (tuple([0] * len(s)) for s in (a_shape, b_shape, c_shape, y_shape))
    count = len(inputs)

    @mc.kernel(grid=(1,))
    def kernel(x: a_type[a_shape], y: b_type[b_shape], z: c_type[c_shape], out: dtype[y_shape]):
        tiles = (mc.load(x, a_at, a_shape), mc.load(y, b_at, b_shape), mc.load(z, c_at, c_shape))
        mc.store(out, y_at, function(*tiles[:count]))

    out = np.zeros(y_shape, dtype.numpy)
    launch(kernel, a, b, c, out)
    return out.reshape(shape)


def wide(dtype: DType, x: np.ndarray) -> np.ndarray:
    if not dtype.is_float:
        return x
    return x.astype(np.longdouble if dtype is mc.f64 else np.float64)


def narrow(dtype: DType, x: Any) -> np.ndarray:
    x = np.asarray(x)
    return (x.astype(np.float64) if x.dtype == np.longdouble else x).astype(dtype.numpy)


def edges(dtype: DType) -> np.ndarray:
    """Special and random values of a DSL type."""
    return specials(dtype.mlir).view(dtype.numpy)


# Elementwise.


@dataclass(frozen=True)
class Case:
    """An operation's types, its number of operands, its result's type (None: the operands') and its accuracy."""

    dtypes: tuple[DType, ...]
    operands: int = 1
    result: DType | None = None
    ulps: float = 0
    options: dict[str, Any] = field(default_factory=dict)


FUNCTIONS = ("exp", "exp2", "log", "log2", "sin", "cos", "tanh", "erf", "sqrt", "rsqrt", "floor", "ceil")
UNARY = {name: Case(FLOATS, ulps=1) for name in FUNCTIONS}
BINARY = {name: Case(NUMBERS, 2) for name in ("add", "subtract", "multiply", "maximum", "minimum")}
DIVISIONS = {name: Case(INTEGERS, 2) for name in ("floor_divide", "remainder", "cdiv")}
COMPARISONS = ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")
ELEMENTWISE = {
    **UNARY,
    **BINARY,
    **DIVISIONS,
    **{name: Case((*NUMBERS, mc.bool_), 2, mc.bool_) for name in COMPARISONS},
    **{name: Case(BITS, 2) for name in ("bitwise_and", "bitwise_or", "bitwise_xor")},
    "bitwise_not": Case(BITS),
    "negate": Case(NUMBERS),
    "abs": Case(NUMBERS),
    "divide": Case(FLOATS, 2),
    "shift_left": Case(INTEGERS, 2),
    "shift_right": Case(INTEGERS, 2),
    "fma": Case(FLOATS, 3, ulps=1),
    "clamp": Case(NUMBERS, 3),
    "sigmoid": Case(FLOATS, ulps=3),
}


@pytest.mark.parametrize(
    "name, dtype", [(n, d) for n, case in ELEMENTWISE.items() for d in case.dtypes], ids=str
)
def test_elementwise(name, dtype):
    case, op = ELEMENTWISE[name], OPS[name]
    values = edges(dtype)
    inputs = [x.ravel() for x in np.meshgrid(*[values] * min(case.operands, 2))]
    if case.operands == 3:
        inputs.append(np.roll(inputs[0], 7))
    if name in DIVISIONS:  # a division by zero is undefined
        inputs = [x[inputs[1] != 0] for x in inputs]
    if name.startswith("shift"):
        inputs[1] = (inputs[1].astype(np.int64) % dtype.bits).astype(dtype.numpy)
    if name == "clamp":
        ordered = wide(dtype, inputs[1]) <= wide(dtype, inputs[2])
        inputs = [x[ordered] for x in inputs]
    if name == "sigmoid" and dtype is mc.f16:  # e ** -x overflows below
        inputs = [x[~(x < -10)] for x in inputs]
    result = case.result or dtype
    with np.errstate(all="ignore"):
        wanted = narrow(result, op.reference(*(wide(dtype, x) for x in inputs)))
    assert_same(compute(op.function, [(dtype, x) for x in inputs], result, wanted.shape), wanted, case.ulps)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("exponent", [0, 1, 2, 3, 10, 0.5, -0.5])
def test_power(exponent, dtype):
    x = np.abs(np.random.default_rng(0).standard_normal(32)).astype(dtype.numpy) + dtype.numpy.type(0.5)
    wanted = narrow(dtype, OPS["power"].reference(wide(dtype, x), exponent))
    actual = compute(functools.partial(_power, exponent), [(dtype, x)], dtype, x.shape)
    assert_same(actual, wanted, ulps=8 if exponent == 10 else 2)


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
@pytest.mark.parametrize("exponent", [0, 1, 2, 5])
def test_integer_power(exponent, dtype):
    x = edges(dtype)
    wanted = OPS["power"].reference(x, exponent)
    assert_same(
        compute(functools.partial(_power, exponent), [(dtype, x)], dtype, x.shape), wanted.astype(dtype.numpy)
    )


def _power(exponent, x):
    return x**exponent


@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_where(dtype):
    a = edges(dtype)
    b, condition = a[::-1].copy(), np.arange(len(a)) % 3 == 1
    inputs = [(mc.bool_, condition), (dtype, a), (dtype, b)]
    assert_same(compute(mc.where, inputs, dtype, a.shape), OPS["where"].reference(condition, a, b))


# Conversions.


def convertible(source: DType, result: DType) -> np.ndarray:
    """Values whose conversion is defined: floats to integers only in range."""
    x = edges(source)
    if source.is_float and result.is_integer:
        limit = min(result.max, 2**20, int(ml_dtypes.finfo(source.numpy).max))
        x = np.linspace(-limit if result.kind == "int" else 0, limit, 40).astype(source.numpy)
    return x


PAIRS = [(s, r) for s, r in itertools.product(ALL, ALL) if not (s.is_float and r is mc.i4)]


@pytest.mark.parametrize("source, result", PAIRS, ids=str)
def test_convert(source, result):
    x = convertible(source, result)
    with np.errstate(all="ignore"):
        wanted = OPS["convert"].reference(x, result)
    actual = compute(functools.partial(mc.convert, dtype=result), [(source, x)], result, x.shape)
    assert_same(actual, wanted)


SAME_WIDTH = [(s, r) for s, r in itertools.product(ALL, ALL) if s.bits == r.bits and mc.bool_ not in (s, r)]


@pytest.mark.parametrize("source, result", SAME_WIDTH, ids=str)
def test_bitcast(source, result):
    x = edges(source)
    actual = compute(functools.partial(mc.bitcast, dtype=result), [(source, x)], result, x.shape)
    np.testing.assert_array_equal(actual.view(np.uint8), OPS["bitcast"].reference(x, result).view(np.uint8))


# Making tiles.


@pytest.mark.parametrize("dtype", ALL, ids=str)
@pytest.mark.parametrize("name", ["full", "zeros", "ones", "iota"])
def test_creation(name, dtype):
    if name == "iota" and dtype is not mc.i32:
        pytest.skip("iota is i32")
    value = True if dtype is mc.bool_ else 5
    arguments = {
        "full": ((4, 8), value, dtype),
        "zeros": ((4, 8), dtype),
        "ones": ((4, 8), dtype),
        "iota": (16,),
    }[name]
    wanted = OPS[name].reference(*arguments)
    operation = functools.partial(_ignore, OPS[name].function, arguments)
    assert_same(compute(operation, [(mc.f32, np.zeros(1, np.float32))], dtype, wanted.shape), wanted)


def _ignore(function, arguments, x):
    return function(*arguments)


# Reductions and scans.

REDUCTIONS = {
    **{name: NUMBERS for name in ("sum", "prod", "max", "min", "argmax", "argmin", "cumsum", "cumprod")},
    "mean": FLOATS,
    "any": (mc.bool_,),
    "all": (mc.bool_,),
}
REDUCTIONS["sum"] = (*NUMBERS, mc.bool_)


def _result_type(name: str, dtype: DType) -> DType:
    if name.startswith("arg"):
        return mc.i32
    if name in ("sum", "prod", "cumsum", "cumprod") and not dtype.is_float and dtype.bits < 32:
        return mc.i32
    return dtype


@pytest.mark.parametrize("name, dtype", [(n, d) for n, dtypes in REDUCTIONS.items() for d in dtypes], ids=str)
def test_reduction(name, dtype):
    op, result = OPS[name], _result_type(name, dtype)
    rng = np.random.default_rng(len(name))
    if dtype is mc.bool_:
        x = rng.random((5, 7)) < (0.9 if name == "all" else 0.1)
    elif dtype.is_float:
        x = rng.standard_normal((5, 7)).astype(dtype.numpy)
    else:
        x = rng.integers(dtype.min, dtype.max, (5, 7), dtype=np.int64, endpoint=True).astype(dtype.numpy)
    for options in _options(name):
        wanted = narrow(result, op.reference(wide(dtype, x), **options))
        actual = compute(functools.partial(op.function, **options), [(dtype, x)], result, wanted.shape)
        if dtype.is_float and result is dtype:
            assert actual.dtype == wanted.dtype
            unit = float(ml_dtypes.finfo(dtype.numpy).eps)
            absolute = max(unit, 1e-6 if dtype is not mc.f64 else 0) * 4
            np.testing.assert_allclose(
                *(v.astype(np.float64) for v in (actual, wanted)), rtol=2 * unit, atol=absolute
            )
        else:
            assert_same(actual, wanted)


def _options(name: str) -> list[dict[str, Any]]:
    if name.startswith("cum"):
        return [{"axis": axis, "reverse": reverse} for axis in (0, -1) for reverse in (False, True)]
    return [{"axis": axis, "keepdims": keep} for axis in (None, 0, 1) for keep in (False, True)]


@pytest.mark.parametrize("name", ["max", "min", "argmax", "argmin", "sum"])
def test_reduction_of_specials(name):
    rows = np.array(
        [[1, np.nan, 3], [np.inf, 0, -np.inf], [-0.0, 0.0, -0.0], [np.nan, np.nan, 1], [2, 2, 1]], np.float32
    )
    result = _result_type(name, mc.f32)
    with np.errstate(all="ignore"):
        wanted = OPS[name].reference(rows, 1).astype(result.numpy)
    assert_same(
        compute(functools.partial(OPS[name].function, axis=1), [(mc.f32, rows)], result, (5,)), wanted
    )


# Shapes.

SHAPES: dict[str, list[dict[str, Any]]] = {
    "reshape": [{"shape": (4, 8)}, {"shape": (2, -1, 2)}, {"shape": (32,)}],
    "expand_dims": [{"axis": 0}, {"axis": 1}, {"axis": -1}],
    "permute": [{"order": (1, 0)}],
    "transpose": [{}],
    "broadcast_to": [{"shape": (3, 4, 8)}],
}
POSITIONAL = {"permute": "order", "reshape": "shape", "broadcast_to": "shape", "expand_dims": "axis"}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_shape(name, dtype):
    x = np.resize(edges(dtype), (4, 8))
    for options in SHAPES[name]:
        values = list(options.values())  # NumPy has other names for them
        wanted = OPS[name].reference(x, *values)
        actual = compute(
            functools.partial(_applied, OPS[name].function, values), [(dtype, x)], dtype, wanted.shape
        )
        assert_same(actual, wanted)


def _applied(function, values, x):
    return function(x, *values)


@pytest.mark.parametrize("dtype", ALL, ids=str)
@pytest.mark.parametrize("axis", [0, 1])
def test_cat_and_split(axis, dtype):
    a = np.resize(edges(dtype), (4, 8))
    b = np.resize(edges(dtype)[::-1], (4, 8))
    wanted = OPS["cat"].reference((a, b), axis)
    assert_same(compute(functools.partial(_cat, axis), [(dtype, a), (dtype, b)], dtype, wanted.shape), wanted)
    for i, part in enumerate(OPS["split"].reference(a, 4, axis)):
        assert_same(compute(functools.partial(_part, axis, i), [(dtype, a)], dtype, part.shape), part)


def _cat(axis, a, b):
    return mc.cat((a, b), axis)


def _part(axis, i, x):
    return mc.split(x, 4, axis)[i]


# Nothing is forgotten.

HERE = {
    *ELEMENTWISE,
    *REDUCTIONS,
    *SHAPES,
    "power",
    "where",
    "convert",
    "bitcast",
    "full",
    "zeros",
    "ones",
    "iota",
    "cat",
    "split",
}
ELSEWHERE = {
    "load",
    "gather",
    "dot",
    "dot4",
    "philox",
    "random_bits",
    "random_uniform",
}  # memory, products, random numbers


def test_every_reference_is_compared():
    assert {name for name, op in OPS.items() if op.reference is not None} == HERE | ELSEWHERE
