"""Conversions between element types: every value of the narrow ones, by definition of the formats and against PyTorch."""

from __future__ import annotations

import itertools
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mosaic_compile as mc
from mosaic_compile.language.dtypes import DType
from mosaic_compile.language.ops import as_dtype

from .harness import apply
from .registry import checks
from .rounding import FORMATS, rounded, same
from .test_arithmetic import integers, wrapped
from .values import ALL, every, examples, shapes, specials, tiles


def converted(x: np.ndarray, source: DType, result: DType) -> np.ndarray:
    """x in another type, by what the language says of conversions."""
    if not source.is_float:
        numbers = integers(x)
        if result is mc.bool_:
            return np.asarray(numbers != 0, bool)
        if not result.is_float:
            return wrapped(numbers, result)
        # f64 holds integers of 53 bits, extended precision those of 64.
        exact = np.array([int(v) for v in numbers.ravel()], np.longdouble).reshape(x.shape)
    else:
        exact = x.astype(np.float64)
        if result is mc.bool_:
            return np.isnan(exact) | (exact != 0)
        if not result.is_float:
            return wrapped(np.array([int(v) for v in exact.ravel()], object).reshape(x.shape), result)
    if result.bits < 32 and source.bits >= 32:
        return rounded(rounded(exact, mc.f32), result)  # f64 and integers go through f32, as in PyTorch
    return rounded(exact, result)


def defined(x: np.ndarray, source: DType, result: DType) -> np.ndarray:
    """x with what a float has no integer for replaced: NaN, infinities and what is out of range."""
    if not source.is_float or not result.is_integer:
        return x
    wide = x.astype(np.float64)
    # The numbers that lose their fraction to min … max: exact in f64, as x has at most 53 bits.
    fits = (np.trunc(wide) >= float(result.min)) & (np.trunc(wide) < float(result.max + 1))
    return np.where(fits, x, source.numpy.type(1)).astype(source.numpy)


def values(source: DType) -> np.ndarray:
    """All of a narrow type, or the special ones and the neighbours of what narrow types can hold."""
    if source.bits <= 16:
        return every(source)
    if not source.is_float:
        near = [2**k + d for k in range(source.bits - 1) for d in (-1, 0, 1)]
        return np.concatenate([specials(source), wrapped(np.array(near, object), source)])
    narrow = [every(t).astype(np.float64) for t in (mc.f16, mc.bf16, mc.f8e4m3, mc.f8e5m2)]
    with np.errstate(all="ignore"):
        edges = np.concatenate(narrow).astype(source.numpy)
        halves = (edges[:-1].astype(np.float64) / 2 + edges[1:].astype(np.float64) / 2).astype(
            source.numpy
        )  # ties
        beside = [np.nextafter(v, s * source.numpy.type(np.inf)) for v in (edges, halves) for s in (-1, 1)]
    limits = [
        sign * (2.0**k + d) for k in (7, 8, 15, 16, 31, 32, 63) for d in (-1, -0.5, 0) for sign in (-1, 1)
    ]
    return np.concatenate([specials(source), edges, halves, *beside, np.array(limits, source.numpy)])


PAIRS = [(s, r) for s, r in itertools.product(ALL, ALL) if not (s.is_float and not s.is_fp8 and r is mc.i4)]
PAIRS = [(s, r) for s, r in PAIRS if not (s.is_fp8 and r is mc.i4)]


@checks("convert", "Tile.to")
@pytest.mark.parametrize("source, result", PAIRS, ids=str)
def test_convert(source, result):
    x = defined(values(source), source, result)
    same(apply(mc.convert, x, dtype=result), converted(x, source, result))

    @examples(8)
    @given(data=st.data())
    def check(data):
        x = defined(data.draw(tiles(source, data.draw(shapes()))), source, result)
        wanted = converted(x, source, result)
        same(apply(lambda x: x.to(result), x), wanted)
        same(apply(lambda x: result(x), x), wanted)

    check()


@pytest.mark.parametrize("source", ["f64", "f32", "f16", "bf16", "f8e4m3", "f8e5m2"])
def test_float_to_i4_says_how(source):
    source = next(d for d in ALL if d.name == source)
    with pytest.raises(mc.MosaicError, match=r"x\.to\(mc\.i8\)\.to\(mc\.i4\)"):
        apply(mc.convert, np.zeros(1, source.numpy), dtype=mc.i4)


def test_against_pytorch():
    """Every pair of types that PyTorch has, on the same values."""
    torch = pytest.importorskip("torch")
    types = {
        mc.f64: torch.float64,
        mc.f32: torch.float32,
        mc.f16: torch.float16,
        mc.bf16: torch.bfloat16,
        mc.f8e4m3: torch.float8_e4m3fn,
        mc.f8e5m2: torch.float8_e5m2,
        mc.i64: torch.int64,
        mc.i32: torch.int32,
        mc.i16: torch.int16,
        mc.i8: torch.int8,
        mc.u8: torch.uint8,
        mc.bool_: torch.bool,
    }
    for source, result in itertools.permutations(types, 2):
        x = defined(values(source), source, result)
        if result is mc.f8e4m3:  # beyond, PyTorch gives NaN until 2.11 and the largest number since
            x = x[~(np.abs(x.astype(np.float64)) > FORMATS[result].largest)]
        bytes_ = torch.from_numpy(x.view(np.uint8).copy())
        there = (bytes_.bool() if source is mc.bool_ else bytes_.view(types[source])).to(types[result])
        wanted = there.view(torch.uint8).numpy().view(result.numpy)
        same(apply(mc.convert, x, dtype=result), wanted)


@pytest.mark.parametrize("result", [mc.f8e4m3, mc.f8e5m2, mc.bf16], ids=str)
@pytest.mark.parametrize("source", [mc.f64, mc.f32, mc.f16, mc.bf16], ids=str)
def test_against_ml_dtypes(source, result):
    """Overflow included, on which libraries differ."""
    with np.errstate(all="ignore"):
        single = values(source).astype(np.float32)
        same(apply(mc.convert, values(source), dtype=result), single.astype(result.numpy))


def test_fp8_overflow():
    """The formats' largest numbers, and the ties above them."""
    x = np.array(
        [448, 464, np.nextafter(464, 500, dtype=np.float32), 1e9, np.inf, -464, -465, -np.inf, np.nan],
        np.float32,
    )
    wanted = [448, 448, *[np.nan] * 3, -448, *[np.nan] * 3]
    same(apply(mc.convert, x, dtype=mc.f8e4m3), np.array(wanted).astype(ml_dtypes.float8_e4m3fn))
    x = np.array(
        [57344, np.nextafter(61440, 0, dtype=np.float32), 61440, 1e9, np.inf, -61440, np.nan], np.float32
    )
    wanted = [57344, 57344, np.inf, np.inf, np.inf, -np.inf, np.nan]
    same(apply(mc.convert, x, dtype=mc.f8e5m2), np.array(wanted).astype(ml_dtypes.float8_e5m2))


# Numbers.


@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_numbers(dtype):
    """mc.f32(x), mc.convert(x, mc.f32): a number as a scalar, rounded; mc.bool_ takes truth values."""
    numbers: list[Any] = [0, 1, True, False]
    if dtype.is_float:
        numbers += [0.1, -2.5, 1 / 3, -0.0, float("nan"), 240, 1e-30]
    elif dtype is not mc.bool_:
        numbers += [dtype.min, dtype.max, 5.0]
    for number in numbers:
        wanted = rounded(number, dtype) if dtype.is_float else np.array(number).astype(dtype.numpy)
        same(apply(lambda: mc.convert(number, dtype)), wanted)  # noqa: B023 - called here
        if dtype is not mc.bool_ or isinstance(number, bool):
            same(apply(lambda: dtype(number)), wanted)  # noqa: B023
            same(apply(lambda: as_dtype(number, dtype)), wanted)  # noqa: B023


# The same bits.

SAME_WIDTH = [(s, r) for s, r in itertools.product(ALL, ALL) if s.bits == r.bits and mc.bool_ not in (s, r)]


@checks("bitcast", "Tile.bitcast")
@pytest.mark.parametrize("source, result", SAME_WIDTH, ids=str)
def test_bitcast(source, result):
    def compare(x):
        for actual in (apply(mc.bitcast, x, dtype=result), apply(lambda x: x.bitcast(result), x)):
            assert actual.dtype == result.numpy
            bits = f"u{result.numpy.itemsize}"
            np.testing.assert_array_equal(actual.view(bits), x.view(bits))

    @examples(10)
    @given(data=st.data())
    def check(data):
        compare(data.draw(tiles(source, data.draw(shapes()))))

    check()
    compare(every(source) if source.bits <= 16 else specials(source))
