"""The values that operations are tried on: special ones, random ones, every one of the narrow types."""

from __future__ import annotations

import functools
import math
from typing import Any

import ml_dtypes
import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import mosaic_compile as mc
from mosaic_compile.language.dtypes import DTYPES, DType

ALL = tuple(DTYPES.values())
FLOATS = (mc.f64, mc.f32, mc.f16, mc.bf16)
FP8 = (mc.f8e4m3, mc.f8e5m2)
INTEGERS = (mc.i64, mc.i32, mc.i16, mc.i8, mc.u8, mc.u32)
NUMBERS = (*FLOATS, *INTEGERS)
WHOLE = (*INTEGERS, mc.bool_)


def examples(count: int) -> Any:
    """The same examples in every run, as many as said."""
    return settings(max_examples=count, deadline=None, derandomize=True, database=None)


@functools.cache
def every(dtype: DType) -> np.ndarray:
    """Every value of a type of at most 16 bits, every NaN too."""
    if dtype is mc.bool_:
        return np.array([False, True])
    if dtype is mc.i4:
        return np.arange(-8, 8).astype(ml_dtypes.int4)
    return np.arange(1 << dtype.bits, dtype=f"u{dtype.bits // 8}").view(dtype.numpy)


@functools.cache
def specials(dtype: DType) -> np.ndarray:
    """Zeros, the smallest and the largest, their neighbours; of floats infinities, NaN and subnormals too."""
    if dtype.bits <= 8:
        return every(dtype)
    if not dtype.is_float:
        small = [0, 1, 2, 3, 7, 10, dtype.max, dtype.max - 1, dtype.max // 2 + 1, dtype.max // 3]
        negative = [-1, -2, -3, -7, -10, dtype.min, dtype.min + 1] if dtype.min else []
        return np.array([*small, *negative], dtype.numpy)
    info = ml_dtypes.finfo(dtype.numpy)
    positive = [0.0, 1.0, 2.0, 0.5, 1.5, 2.5, 3.0, math.pi, 10.0, 100.25, math.inf, math.nan]
    limits = [info.max, info.tiny, info.smallest_subnormal, 3 * info.smallest_subnormal, info.eps]
    limits += [
        info.tiny - info.smallest_subnormal,
        info.max / dtype.numpy.type(2),
        1 + info.eps,
        1 - info.eps / 2,
    ]
    values = np.array([*positive, *map(float, limits)], np.float64).astype(dtype.numpy)
    return np.concatenate([values, -values])


def shapes(min_dims: int = 0, max_dims: int = 3) -> st.SearchStrategy[tuple[int, ...]]:
    sides = st.sampled_from([1, 2, 3, 4, 5, 7, 8, 9])
    return st.lists(sides, min_size=min_dims, max_size=max_dims).map(tuple)


def broadcasting(count: int) -> st.SearchStrategy[tuple[tuple[int, ...], ...]]:
    """Shapes that broadcast together."""
    return hnp.mutually_broadcastable_shapes(num_shapes=count, max_dims=3, max_side=9).map(
        lambda shapes: shapes.input_shapes
    )


def moderate(dtype: DType, raw: np.ndarray) -> np.ndarray:
    """Numbers of ordinary size from random 16-bit words: floats below 8 in eighths and finer, integers up to 100."""
    if dtype.is_float:
        return (raw.astype(np.int16) / 2.0**12).astype(dtype.numpy)
    if dtype is mc.bool_:
        return raw % 2 == 1
    low, high = max(dtype.min, -100), min(dtype.max, 100)
    return (low + raw.astype(np.int64) % (high - low + 1)).astype(dtype.numpy)


@st.composite
def tiles(draw: Any, dtype: DType, shape: tuple[int, ...], ordinary: bool = False) -> np.ndarray:
    """An array of special values, any bit patterns and ordinary numbers, or of ordinary numbers only."""
    count = math.prod(shape)
    raw = np.frombuffer(draw(st.binary(min_size=11 * count, max_size=11 * count)), np.uint8)
    words = raw[: 2 * count].copy().view(np.uint16)
    common = moderate(dtype, words)
    if ordinary:
        return common.reshape(shape)
    size = max(dtype.bits // 8, 1)
    bits = raw[2 * count : (2 + size) * count].copy()
    patterns = every(dtype)[bits % len(every(dtype))] if dtype.bits < 8 else bits.view(dtype.numpy)
    choice, edges = raw[10 * count :], specials(dtype)
    result = np.where(choice % 4 == 0, patterns, edges[words.astype(int) % len(edges)])
    return np.where(choice % 4 == 3, common, result).astype(dtype.numpy).reshape(shape)


def pairs(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All pairs, as two arrays that broadcast to a square."""
    return values[:, None], values[None, :]
