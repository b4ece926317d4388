"""Conversions between all pairs of element types, and typed scalars."""

from __future__ import annotations

import pytest

import mosaic_compile as mc
from mosaic_compile.language.dtypes import DTYPES

from .values import ALL, FLOATS, FP8, outcome, tile, tracing


@pytest.mark.parametrize("source", ALL)
@pytest.mark.parametrize("shape", ["", "[4, 8]"])
def test_convert(source, shape):
    with tracing():
        for target in ALL:
            impossible = source in (*FLOATS, *FP8) and target == "i4"
            expected = "ElementTypeError" if impossible else target + shape
            assert outcome(mc.convert, tile(source + shape), DTYPES[target]) == expected, target
            assert outcome(tile(source + shape).to, DTYPES[target]) == expected, target


@pytest.mark.parametrize("dtype", ALL)
def test_conversion_to_the_same_type_is_the_tile_itself(dtype):
    with tracing():
        x = tile(f"{dtype}[4]")
        assert x.to(DTYPES[dtype]) is x


@pytest.mark.parametrize("source", ALL)
def test_bitcast(source):
    with tracing():
        for target in ALL:
            keeps = DTYPES[source].bits == DTYPES[target].bits and source != "bool" and target != "bool"
            expected = f"{target}[4]" if keeps else "ElementTypeError"
            assert outcome(mc.bitcast, tile(f"{source}[4]"), DTYPES[target]) == expected, target


@pytest.mark.parametrize("dtype", ALL)
def test_typed_scalars(dtype):
    value = True if dtype == "bool" else 1
    with tracing():
        assert outcome(DTYPES[dtype], value) == dtype
        assert outcome(DTYPES[dtype], tile(f"{dtype}[4]")) == f"{dtype}[4]"


@pytest.mark.parametrize(
    ("dtype", "value", "result"),
    [
        (mc.i32, 3.0, "i32"),
        (mc.i32, 1.5, "MixedTypesError"),
        (mc.i32, 2**31, "MixedTypesError"),
        (mc.i32, float("nan"), "MixedTypesError"),
        (mc.i32, float("inf"), "MixedTypesError"),
        (mc.bool_, 1, "MixedTypesError"),
        (mc.f8e4m3, 448, "f8e4m3"),
        (mc.f8e4m3, 1000, "MixedTypesError"),
        (mc.f8e4m3, float("inf"), "MixedTypesError"),
        (mc.f8e4m3, float("nan"), "f8e4m3"),
        (mc.f8e5m2, float("inf"), "f8e5m2"),
        (mc.f32, "1", "OperandError"),
        (mc.f32, None, "OperandError"),
    ],
)
def test_numbers_that_a_type_holds(dtype, value, result):
    with tracing():
        assert outcome(dtype, value) == result


@pytest.mark.parametrize("target", ["f32", float, None, 3])
def test_what_is_no_element_type(target):
    with tracing():
        assert outcome(mc.convert, tile("f32[4]"), target) == "OperandError"
        assert outcome(mc.bitcast, tile("f32[4]"), target) == "OperandError"
        assert outcome(mc.zeros, 4, target) == "OperandError"


@pytest.mark.parametrize("other", ["x", None, (1, 2)])
def test_what_is_no_tile(other):
    with tracing():
        assert outcome(mc.convert, other, mc.f32) == "OperandError"


@pytest.mark.parametrize("number", [3, 0.5, True])
def test_numbers_convert_to_scalars(number):
    with tracing():
        assert outcome(mc.convert, number, mc.f32) == "f32"
        assert outcome(mc.convert, number, mc.bool_) == "bool"


def test_names_of_other_libraries():
    assert (mc.float32, mc.bfloat16, mc.int64, mc.uint8) == (mc.f32, mc.bf16, mc.i64, mc.u8)
    assert (mc.float8_e4m3fn, mc.float8_e5m2) == (mc.f8e4m3, mc.f8e5m2)


@pytest.mark.parametrize(
    ("dtype", "smallest", "largest", "size"),
    [
        (mc.i8, -128, 127, 1),
        (mc.u8, 0, 255, 1),
        (mc.i4, -8, 7, 0.5),
        (mc.i32, -(2**31), 2**31 - 1, 4),
        (mc.u32, 0, 2**32 - 1, 4),
        (mc.i64, -(2**63), 2**63 - 1, 8),
    ],
)
def test_facts_of_integer_types(dtype, smallest, largest, size):
    assert (dtype.min, dtype.max, dtype.bytes) == (smallest, largest, size)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_facts_of_types(dtype):
    assert repr(dtype) == dtype.name
    assert dtype.is_float + dtype.is_integer + (dtype is mc.bool_) == 1
    assert dtype.is_fp8 == (dtype.name in FP8)
    if dtype.bits >= 8:
        assert dtype.numpy.itemsize == dtype.bytes
