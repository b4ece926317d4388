"""Matrix products, within the bound of their roundings in any order; products of single elements exactly."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mosaic_compile as mc

from .harness import apply
from .registry import checks
from .rounding import FORMATS, TF32, nearest, rounded, same, within
from .test_arithmetic import integers, wrapped
from .values import FP8, every, examples, pairs, specials, tiles

# Element types of a, of b, of the accumulator.
PRODUCTS = [
    (mc.f64, mc.f64, mc.f64),
    (mc.f32, mc.f32, mc.f32),
    (mc.bf16, mc.bf16, mc.f32),
    (mc.f16, mc.f16, mc.f32),
    (mc.f16, mc.f16, mc.f16),
    *((a, b, acc) for a, b in itertools.product(FP8, FP8) for acc in (mc.f32, mc.f16)),
    (mc.i8, mc.i8, mc.i32),
]
SIZES = st.sampled_from([1, 2, 3, 5, 8, 16])
SMALLEST = np.longdouble("1e-4900")  # an absolute error that says: zeros of either sign


def extended(x):
    """Exactly, in extended precision."""
    return (x if x.dtype == np.float64 else x.astype(np.float64)).astype(np.longdouble)


def operands(data, a_type, b_type, ordinary=True):
    """(M, K) and (K, N), or batches of them."""
    m, k, n = (data.draw(SIZES) for _ in range(3))
    batch = data.draw(st.sampled_from([(), (), (1,), (3,)]))
    a = data.draw(tiles(a_type, (*batch, m, k), ordinary=ordinary))
    return a, data.draw(tiles(b_type, (*batch, k, n), ordinary=ordinary))


@checks("dot", "Tile.__matmul__")
@pytest.mark.parametrize("a_type, b_type, acc_type", PRODUCTS, ids=str)
def test_dot(a_type, b_type, acc_type):
    unit = 0.0 if acc_type is mc.i32 else FORMATS[mc.f64 if acc_type is mc.f64 else mc.f32].unit

    def compare(actual, a, b, acc):
        if acc_type is mc.i32:
            exact = np.matmul(integers(a), integers(b)) + integers(acc)
            return same(actual, wrapped(exact, mc.i32))
        exact = np.matmul(extended(a), extended(b)) + extended(acc)
        sizes = np.matmul(np.abs(extended(a)), np.abs(extended(b))) + np.abs(extended(acc))
        roundings = (a.shape[-1] + 1) * unit * 1.001  # K products and as many sums, each on a part of the way
        return within(actual, exact, acc_type, absolute=roundings * sizes + SMALLEST)

    @examples(30)
    @given(data=st.data())
    def check(data):
        a, b = operands(data, a_type, b_type, ordinary=acc_type is not mc.i32)
        shape = (*a.shape[:-1], b.shape[-1])
        acc = data.draw(tiles(acc_type, shape, ordinary=acc_type is not mc.i32))
        zero = np.zeros(shape, acc_type.numpy)
        compare(apply(mc.dot, a, b, acc), a, b, acc)
        compare(apply(lambda a, b: mc.dot(a, b, dtype=acc_type), a, b), a, b, zero)
        transposed = np.ascontiguousarray(np.swapaxes(b, -1, -2))
        compare(apply(lambda a, b: mc.dot(a, b.T, dtype=acc_type), a, transposed), a, b, zero)
        if acc_type is not mc.f16:  # the accumulator where nothing is said
            compare(apply(lambda a, b: a @ b, a, b), a, b, zero)

    check()


@pytest.mark.parametrize("a_type, b_type", list(itertools.product(FP8, FP8)), ids=str)
def test_all_pairs_of_fp8(a_type, b_type):
    """One product each: exact in f32, NaN and infinities as IEEE 754 has them."""
    a, b = every(a_type)[:, None], every(b_type)[None, :]
    with np.errstate(all="ignore"):
        exact = a.astype(np.float64) * b.astype(np.float64)
    same(apply(mc.dot, a, b), rounded(exact, mc.f32) + np.float32(0))
    single = rounded(exact, mc.f32) + np.float32(0)  # the accumulator is added before the last rounding
    same(apply(lambda a, b: mc.dot(a, b, dtype=mc.f16), a, b), rounded(single, mc.f16))


def test_all_pairs_of_bytes():
    a, b = every(mc.i8)[:, None], every(mc.i8)[None, :]
    same(apply(mc.dot, a, b), wrapped(integers(a) * integers(b), mc.i32))


def test_i8_wraps():
    a, b = np.full((2, 64), -128, np.int8), np.full((64, 2), -128, np.int8)
    acc = np.full((2, 2), 2**31 - 1, np.int32)
    same(apply(mc.dot, a, b, acc), wrapped(integers(acc) + 2**20, mc.i32))


def words(rng, shape, dtype=mc.i32):
    return rng.integers(0, 2**32, shape, np.uint32).view(dtype.numpy)


def exact_dot4(a, b, acc):
    a, b, acc = np.broadcast_arrays(a, b, acc)
    bytes_of_a = np.ascontiguousarray(a).view(np.uint8 if a.dtype == np.uint32 else np.int8)
    bytes_of_b = np.ascontiguousarray(b).view(np.int8)
    products = bytes_of_a.astype(np.int64) * bytes_of_b
    return wrapped(products.reshape(*a.shape, 4).sum(-1) + acc, mc.i32)


@checks("dot4")
@pytest.mark.parametrize("dtype", [mc.i32, mc.u32], ids=str)
def test_dot4(dtype):
    """Every pair of bytes in every place, beside others; sums that wrap; shapes that broadcast."""
    rng = np.random.default_rng(0)
    for place in range(4):
        a, b = (words(rng, (256, 1)), words(rng, (1, 256)))
        a.view(np.uint8).reshape(256, 4)[:, place] = np.arange(256)
        b.view(np.uint8).reshape(256, 4)[:, place] = np.arange(256)
        a = a.view(dtype.numpy)
        acc = words(rng, (256, 256))
        same(apply(mc.dot4, a, b, acc), exact_dot4(a, b, acc))
        same(apply(mc.dot4, a, b), exact_dot4(a, b, np.int32(0)))
    a, b = (
        np.full((2,), x, np.uint32).view(t) for x, t in ((2**32 - 1, dtype.numpy), (0x80808080, np.int32))
    )
    for acc in (-(2**31), 2**31 - 1):
        same(apply(mc.dot4, a, b, np.int32(acc)), exact_dot4(a, b, np.int32(acc)))


@pytest.mark.parametrize("precision", ["ieee", "tf32"])
@pytest.mark.parametrize("dtype", [mc.f32, mc.f16, mc.bf16], ids=str)
def test_pairs_of_specials(dtype, precision):
    if precision == "tf32" and dtype is not mc.f32:
        pytest.skip("tf32 is for f32")
    a, b = pairs(specials(dtype))
    with np.errstate(all="ignore"):
        wide = [v.astype(np.float64) for v in (a, b)]
        if precision == "tf32":
            wide = [nearest(v, TF32) for v in wide]
        wanted = rounded(wide[0] * wide[1], mc.f32) + np.float32(0)
    same(apply(mc.dot, a, b, precision=precision), wanted)


@pytest.mark.parametrize("dtype", [mc.f64, mc.f32, mc.f16, mc.bf16, mc.f8e5m2], ids=str)
def test_infinities_and_nan(dtype):
    """Where they end up does not depend on the order of a sum."""

    @examples(25)
    @given(data=st.data())
    def check(data):
        a, b = operands(data, dtype, dtype)
        for x in (a, b):
            for value in (np.nan, np.inf, -np.inf, 0):
                at = data.draw(st.integers(0, 2 * x.size))
                if at < x.size:
                    x.flat[at] = value
        with np.errstate(all="ignore"):
            wanted = np.matmul(a.astype(np.float64), b.astype(np.float64))
        precisions = ("ieee", "tf32", "tf32x3") if dtype is mc.f32 else ("ieee",)
        for precision in precisions:
            actual = apply(mc.dot, a, b, precision=precision).astype(np.float64)
            np.testing.assert_array_equal(np.isnan(actual), np.isnan(wanted))
            np.testing.assert_array_equal(actual[np.isinf(wanted)], wanted[np.isinf(wanted)])

    check()


def test_tf32():
    """Operands rounded to 10 bits of mantissa, products summed in f32."""

    @examples(30)
    @given(data=st.data())
    def check(data):
        a, b = operands(data, mc.f32, mc.f32)
        a, b = (v * np.float32(np.pi) for v in (a, b))  # more bits than tf32 has
        x, y = (nearest(extended(v), TF32) for v in (a, b))
        error = (a.shape[-1] + 1) * FORMATS[mc.f32].unit * 1.001 * np.matmul(np.abs(x), np.abs(y)) + SMALLEST
        within(apply(mc.dot, a, b, precision="tf32"), np.matmul(x, y), mc.f32, absolute=error)

    check()


def test_tf32x3():
    """What three products leave out: the one of the low parts, and what the low parts lose in their own rounding.

    A rounding to tf32 leaves at most 2**-11 of a number, so each of the three is at most 2**-22 of |a| |b|.
    """

    @examples(30)
    @given(data=st.data())
    def check(data):
        a, b = operands(data, mc.f32, mc.f32)
        a, b = (v * np.float32(np.pi) for v in (a, b))
        exact = np.matmul(extended(a), extended(b))
        sizes = np.matmul(np.abs(extended(a)), np.abs(extended(b)))
        roundings = (a.shape[-1] + 3) * FORMATS[mc.f32].unit
        error = (3 * 2.0**-22 + roundings) * 1.01 * sizes + SMALLEST
        within(apply(mc.dot, a, b, precision="tf32x3"), exact, mc.f32, absolute=error)

    check()
