"""Which element types each elementwise operation takes, and what it gives."""

from __future__ import annotations

import operator

import numpy as np
import pytest

import mosaic_compile as mc
from mosaic_compile.language import ops

from .values import ALL, FLOATS, INTEGERS, outcome, tile, tracing

NUMBERS = (*FLOATS, *INTEGERS)
WHOLE = (*INTEGERS, "bool")

UNARY = {
    **{
        getattr(mc, name): FLOATS
        for name in [
            "exp",
            "exp2",
            "log",
            "log2",
            "sin",
            "cos",
            "tanh",
            "erf",
            "sqrt",
            "rsqrt",
            "floor",
            "ceil",
            "sigmoid",
        ]
    },
    mc.abs: (*NUMBERS, "bool"),
    operator.neg: NUMBERS,
    operator.pos: ALL,
    operator.invert: WHOLE,
}
BINARY = {
    operator.add: NUMBERS,
    operator.sub: NUMBERS,
    operator.mul: NUMBERS,
    operator.truediv: FLOATS,
    operator.floordiv: INTEGERS,
    operator.mod: INTEGERS,
    mc.cdiv: INTEGERS,
    mc.minimum: NUMBERS,
    mc.maximum: NUMBERS,
    operator.and_: WHOLE,
    operator.or_: WHOLE,
    operator.xor: WHOLE,
    operator.lshift: INTEGERS,
    operator.rshift: INTEGERS,
}
COMPARISONS = (operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge)


@pytest.mark.parametrize("function", UNARY, ids=lambda f: f.__name__)
def test_unary(function):
    with tracing():
        for dtype in ALL:
            expected = f"{dtype}[4, 8]" if dtype in UNARY[function] else "ElementTypeError"
            assert outcome(function, tile(f"{dtype}[4, 8]")) == expected, dtype


@pytest.mark.parametrize("function", BINARY, ids=lambda f: f.__name__)
def test_binary(function):
    with tracing():
        for dtype in ALL:
            expected = f"{dtype}[4, 8]" if dtype in BINARY[function] else "ElementTypeError"
            assert outcome(function, tile(f"{dtype}[4, 8]"), tile(f"{dtype}[4, 8]")) == expected, dtype


@pytest.mark.parametrize("function", COMPARISONS, ids=lambda f: f.__name__)
def test_comparison(function):
    with tracing():
        for dtype in ALL:
            expected = "bool[8]" if dtype in (*NUMBERS, "bool") else "ElementTypeError"
            assert outcome(function, tile(f"{dtype}[8]"), tile(f"{dtype}[8]")) == expected, dtype


@pytest.mark.parametrize("function", [*BINARY, *COMPARISONS], ids=lambda f: f.__name__)
def test_element_types_never_mix(function):
    with tracing():
        for a in ALL:
            for b in ALL:
                if a != b:
                    assert outcome(function, tile(f"{a}[4]"), tile(f"{b}[4]")) == "MixedTypesError", (a, b)


@pytest.mark.parametrize(
    ("a", "b", "result"),
    [
        ("f32[4, 8]", "f32[8]", "f32[4, 8]"),
        ("f32[8]", "f32[4, 8]", "f32[4, 8]"),
        ("f32[4, 1]", "f32[1, 8]", "f32[4, 8]"),
        ("f32", "f32[4, 8]", "f32[4, 8]"),
        ("f32[4, 8]", "f32", "f32[4, 8]"),
        ("f32", "f32", "f32"),
        ("f32[1]", "f32", "f32[1]"),
        ("f32[2, 4, 1]", "f32[4, 8]", "f32[2, 4, 8]"),
        ("f32[4]", "f32[8]", "ShapeError"),
        ("f32[4, 8]", "f32[4]", "ShapeError"),
        ("f32[4, 8]", "f32[8, 4]", "ShapeError"),
    ],
)
def test_broadcasting(a, b, result):
    with tracing():
        assert outcome(operator.add, tile(a), tile(b)) == result
        assert outcome(mc.maximum, tile(a), tile(b)) == result
        compared = result.replace("f32", "bool")
        assert outcome(operator.lt, tile(a), tile(b)) == compared


@pytest.mark.parametrize(
    ("dtype", "number", "fits"),
    [
        ("f32", 1, True),
        ("f32", 0.5, True),
        ("f32", True, True),
        ("f32", np.float32(0.5), True),
        ("f32", np.int64(3), True),
        ("f32", float("inf"), True),
        ("f32", float("nan"), True),
        ("f32", 1e39, False),
        ("f32", 10**400, False),
        ("f64", 1e39, True),
        ("f16", 65504, True),
        ("f16", 1e6, False),
        ("bf16", -3.0e38, True),
        ("i32", 3, True),
        ("i32", np.int32(3), True),
        ("i32", True, True),
        ("i32", 0.5, False),
        ("i32", 2.0, False),
        ("i32", 2**31, False),
        ("i32", -(2**31), True),
        ("i64", 2**31, True),
        ("i8", 128, False),
        ("u8", 255, True),
        ("u8", -1, False),
        ("u32", 2**32 - 1, True),
    ],
)
@pytest.mark.parametrize("function", [operator.add, mc.minimum, operator.lt], ids=lambda f: f.__name__)
def test_bare_numbers_take_the_tiles_type(function, dtype, number, fits):
    kind = "bool" if function is operator.lt else dtype
    expected = f"{kind}[4]" if fits else "MixedTypesError"
    with tracing():
        assert outcome(function, tile(f"{dtype}[4]"), number) == expected
        assert outcome(function, number, tile(f"{dtype}[4]")) == expected


@pytest.mark.parametrize("number", [1, 0.5, np.int32(1)])
def test_truth_values_do_not_meet_numbers(number):
    with tracing():
        assert outcome(operator.and_, tile("bool[4]"), number) == "MixedTypesError"
        assert outcome(operator.and_, tile("bool[4]"), True) == "bool[4]"


@pytest.mark.parametrize(
    "function", [operator.add, operator.mul, mc.maximum, operator.eq], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("other", [None, "a", (1, 2), [1], {}, object(), np.ones(4), mc.f32, len])
def test_other_values_are_refused(function, other):
    with tracing():
        assert outcome(function, tile("f32[4]"), other) == "OperandError"
        assert outcome(function, other, tile("f32[4]")) == "OperandError"


@pytest.mark.parametrize(
    ("base", "exponent", "result"),
    [
        ("f32[4]", 2, "f32[4]"),
        ("f32[4]", 0, "f32[4]"),
        ("f32[4]", 3.0, "f32[4]"),
        ("f32[4]", 0.5, "f32[4]"),
        ("f32[4]", -0.5, "f32[4]"),
        ("i32[4]", 2, "i32[4]"),
        ("u8[4]", 7, "u8[4]"),
        ("i32[4]", 0.5, "ElementTypeError"),
        ("f32[4]", -1, "OperandError"),
        ("f32[4]", 1.5, "OperandError"),
        ("f32[4]", "2", "OperandError"),
        ("bool[4]", 2, "ElementTypeError"),
        ("f8e4m3[4]", 2, "ElementTypeError"),
        ("i4[4]", 2, "ElementTypeError"),
    ],
)
def test_power(base, exponent, result):
    with tracing():
        assert outcome(operator.pow, tile(base), exponent) == result


def test_power_of_a_tile_by_a_tile():
    with tracing():
        assert outcome(operator.pow, tile("f32[4]"), tile("f32[4]")) == "OperandError"
        assert outcome(operator.pow, 2.0, tile("f32[4]")) == "OperandError"


@pytest.mark.parametrize("dtype", ALL)
def test_where_takes_every_type(dtype):
    with tracing():
        assert outcome(mc.where, tile("bool[4]"), tile(f"{dtype}[4]"), tile(f"{dtype}[4]")) == f"{dtype}[4]"


@pytest.mark.parametrize(
    ("condition", "a", "b", "result"),
    [
        ("bool[4]", "f32[4]", 0.0, "f32[4]"),
        ("bool[4]", 0.0, "f32[4]", "f32[4]"),
        ("bool", "f32[4]", "f32[4]", "f32[4]"),
        ("bool[4, 1]", "f32[8]", "f32", "f32[4, 8]"),
        ("bool[4, 8]", "f32", "f32", "f32[4, 8]"),
        ("bool[4]", 1, 2, "i32[4]"),
        ("bool[4]", 1, 2.5, "f32[4]"),
        ("bool[4]", True, False, "bool[4]"),
        ("bool[4]", 1, 2**40, "i64[4]"),
        (True, "f32[4]", 0.0, "f32[4]"),
        ("bool[4]", "f32[8]", 0.0, "ShapeError"),
        ("bool[4]", "f32[4]", "bf16[4]", "MixedTypesError"),
        ("i32[4]", "f32[4]", 0.0, "ElementTypeError"),
        ("bool[4]", "f32[4]", "x", "OperandError"),
    ],
)
def test_where(condition, a, b, result):
    def value(x):
        return tile(x) if isinstance(x, str) and x != "x" else x

    with tracing():
        assert outcome(mc.where, value(condition), value(a), value(b)) == result


@pytest.mark.parametrize("dtype", ALL)
def test_clamp_and_fma(dtype):
    x = f"{dtype}[4]"
    with tracing():
        assert outcome(mc.clamp, tile(x), tile(x), tile(x)) == (x if dtype in NUMBERS else "ElementTypeError")
        assert outcome(mc.fma, tile(x), tile(x), tile(x)) == (x if dtype in FLOATS else "ElementTypeError")


def test_clamp_with_numbers():
    with tracing():
        assert outcome(mc.clamp, tile("f32[4]"), 0, 1.5) == "f32[4]"
        assert outcome(mc.clamp, tile("i32[4]"), 0, 1.5) == "MixedTypesError"


@pytest.mark.parametrize(
    ("a", "b", "c", "result"),
    [
        ("f32[4, 1]", "f32[8]", "f32", "f32[4, 8]"),
        ("f32", "f32", "f32[4]", "f32[4]"),
        ("f32[4]", "bf16[4]", "f32[4]", "MixedTypesError"),
        ("f32[4]", "f32[4]", "bf16[4]", "MixedTypesError"),
    ],
)
def test_fma_broadcasts(a, b, c, result):
    with tracing():
        assert outcome(mc.fma, tile(a), tile(b), tile(c)) == result


def test_fma_with_numbers():
    with tracing():
        assert outcome(mc.fma, tile("bf16[4]"), 2.0, 1.0) == "bf16[4]"
        assert outcome(mc.fma, 2.0, 3.0, tile("bf16[4]")) == "bf16[4]"
        assert outcome(mc.fma, 2.0, tile("bf16[4]"), 3.0) == "bf16[4]"
        assert outcome(mc.fma, 1.0, 2.0, 3.0) == "OperandError"


@pytest.mark.parametrize(("a", "b", "result"), [(7, 2, 4), (-7, 2, -3), (8, 2, 4)])
def test_cdiv_of_numbers(a, b, result):
    assert mc.cdiv(a, b) == result


def test_minimum_and_maximum_of_numbers():
    assert (mc.minimum(3, 4), mc.maximum(3, 4.5)) == (3, 4.5)


@pytest.mark.parametrize("name", ["cdiv", "minimum", "maximum"])
def test_numbers_stay_numbers_in_a_kernel(name):
    with tracing():
        assert not isinstance(getattr(mc, name)(7, 2), mc.language.tile.Tile)
        assert outcome(getattr(ops, name), tile("i32"), 2) == "i32"


@pytest.mark.parametrize(
    "function", [mc.exp, mc.abs, operator.neg, operator.invert], ids=lambda f: f.__name__
)
def test_scalars(function):
    dtype = "i32" if function is operator.invert else "f32"
    with tracing():
        assert outcome(function, tile(dtype)) == dtype
