"""mc.dot of bf16 and of i8, which CPUs have instructions for: tiles of any shape, factors that lie in any way."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mosaic_compile as mc
from mosaic_compile.targets import HOST

from .helpers import U32, assert_within, examples, integers, launch, random, unwritten

on_cpu = functools.partial(launch, target=HOST)

T = mc.DTypeVar("T", mc.bf16, mc.i8)
U = mc.DTypeVar("U", mc.f32, mc.i32)


@mc.kernel(grid=lambda M, N, BM, BN: (mc.cdiv(M, BM), mc.cdiv(N, BN)))
def multiply(
    a: T["M", "K"],
    b: T["K", "N"],
    c: mc.InOut[U["M", "N"]],
    *,
    BM: mc.Const = 8,
    BN: mc.Const = 16,
    BK: mc.Const = 8,
):
    """c += a @ b"""
    m, n = mc.program_id(0), mc.program_id(1)
    acc = mc.load(c, (m, n), (BM, BN))
    for k in range(mc.cdiv(a.shape[1], BK)):
        acc = mc.dot(mc.load(a, (m, k), (BM, BK)), mc.load(b, (k, n), (BK, BN)), acc)
    mc.store(c, (m, n), acc)


@mc.kernel(grid=lambda M, N, BM, BN: (mc.cdiv(M, BM), mc.cdiv(N, BN)))
def multiply_turned(
    a: T["K", "M"],
    b: T["N", "K"],
    c: mc.InOut[U["M", "N"]],
    *,
    BM: mc.Const = 8,
    BN: mc.Const = 16,
    BK: mc.Const = 8,
):
    """c += a.T @ b.T"""
    m, n = mc.program_id(0), mc.program_id(1)
    acc = mc.load(c, (m, n), (BM, BN))
    for k in range(mc.cdiv(b.shape[1], BK)):
        acc = mc.dot(mc.load(a, (k, m), (BK, BM)).T, mc.load(b, (n, k), (BN, BK)).T, acc)
    mc.store(c, (m, n), acc)


@mc.kernel
def multiply_batch(a: T["B", "M", "K"], b: T["B", "K", "N"], c: mc.Out[U["B", "M", "N"]]):
    x, y = mc.load(a, (0, 0, 0), (2, 8, 16)), mc.load(b, (0, 0, 0), (2, 16, 32))
    mc.store(c, (0, 0, 0), mc.dot(x, y))


def factor(seed, shape, dtype):
    return integers(seed, shape, "i8") if dtype == "i8" else random(seed, shape, dtype)


def assert_product(c, before, a, b):
    """Integers exactly. Floats: K products are exact, and each is rounded at most twice to f32, to nearest or to odd, on its way
    into the sum, which K additions round again.
    """
    a, b, before = (x.astype(np.float64) for x in (a, b, before))
    expected = before + a @ b
    if c.dtype == np.int32:
        np.testing.assert_array_equal(c, expected)
    else:
        roundings = 2 * a.shape[-1] + 1
        assert_within(c, expected, 1.001 * roundings * 2 * U32 * (abs(before) + abs(a) @ abs(b)))


def check_multiply(m, n, k, dtype, run=on_cpu, turned=False, **tiles):
    a, b = factor(1, (m, k), dtype), factor(2, (k, n), dtype)
    before = integers(3, (m, n), "i32") >> 8 if dtype == "i8" else random(3, (m, n), "f32")
    c = before.copy()
    if turned:
        across = {"a": np.ascontiguousarray(a.T), "b": np.ascontiguousarray(b.T)}
        run(multiply_turned, **across, c=c, **tiles)
    else:
        run(multiply, a=a, b=b, c=c, **tiles)
    assert_product(c, before, a, b)


TILES = [(1, 4, 2), (2, 64, 32), (4, 8, 4), (8, 16, 1), (16, 32, 16), (32, 64, 2), (16, 1, 8), (4, 2, 16)]
both = pytest.mark.parametrize("dtype", ["bf16", "i8"])


@both
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("tile", TILES, ids=str)
def test_tiles(tile, turned, dtype):
    """As many rows, columns and neighbours along K as fit in every way, or do not; whole tiles, and ragged ones."""
    bm, bn, bk = tile
    for m, n, k in ((2 * bm, 2 * bn, 2 * bk), (bm + 1, bn + 3, 3 * bk + 1), (1, 1, 1)):
        check_multiply(m, n, k, dtype, turned=turned, BM=bm, BN=bn, BK=bk)


@both
def test_sizes(dtype):
    @examples(20)
    @given(m=st.integers(0, 40), n=st.integers(0, 40), k=st.integers(0, 40), turned=st.booleans())
    def check(m, n, k, turned):
        check_multiply(m, n, k, dtype, turned=turned)

    check()


@both
@pytest.mark.parametrize("step", [-1, 2])
def test_factors_with_gaps(step, dtype):
    a = factor(1, (40, 34), dtype)[:, ::step]
    b = factor(2, (2 * a.shape[1], 48), dtype)[::2, ::step]
    before = integers(3, (40, b.shape[1]), "i32") if dtype == "i8" else random(3, (40, b.shape[1]), "f32")
    c = before.copy()
    on_cpu(multiply, a=a, b=b, c=c)
    assert_product(c, before, a, b)


@both
def test_batches(dtype):
    a, b = factor(1, (2, 8, 16), dtype), factor(2, (2, 16, 32), dtype)
    c = unwritten((2, 8, 32), "i32" if dtype == "i8" else "f32")
    on_cpu(multiply_batch, a=a, b=b, c=c)
    assert_product(c, np.zeros(c.shape), a, b)


def test_extreme_bytes():
    """Sums of -128 * -128, which are the largest, and of -128 * 127."""
    for x, y in ((-128, -128), (-128, 127), (127, -128), (127, 127)):
        a, b, c = np.full((8, 32), x, np.int8), np.full((32, 16), y, np.int8), np.zeros((8, 16), np.int32)
        on_cpu(multiply, a=a, b=b, c=c)
        np.testing.assert_array_equal(c, 32 * x * y)


def test_infinities_and_nan():
    """Each in a row of its own: beside it a sum stays what it is."""
    a, b = np.ones((8, 7), np.float32), np.ones((7, 16), np.float32)
    a[1, 2], a[2, 6], a[3, 0] = np.inf, -np.inf, np.nan
    c = np.zeros((8, 16), np.float32)
    a, b = (x.astype(mc.bf16.numpy) for x in (a, b))
    on_cpu(multiply, a=a, b=b, c=c)
    np.testing.assert_array_equal(c, np.repeat([[7, np.inf, -np.inf, np.nan, 7, 7, 7, 7]], 16, axis=0).T)


def test_numbers_below_the_smallest_normal_one():
    """2^-130 * 2^100, as it is or as zero; what is beside it is not touched."""
    a, b = np.ones((8, 2), np.float32), np.ones((2, 16), np.float32)
    a[:, 0], b[0] = 2.0**-130, 2.0**100
    c = np.zeros((8, 16), np.float32)
    a, b = (x.astype(mc.bf16.numpy) for x in (a, b))
    b[1] = 2.0**-30
    on_cpu(multiply, a=a, b=b, c=c)
    assert len(set(c.flat)) == 1 and c[0, 0] in (2.0**-30, 2.0**-29)
