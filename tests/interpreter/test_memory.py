"""Loads, stores, atomics, gathers and scatters: clipping, views, strides, narrow and unsigned element types."""

import itertools

import ml_dtypes
import numpy as np
import pytest

import mosaic_compile as mc
from mosaic_compile.frontend import trace
from mosaic_compile.interpreter import InterpreterError, run
from mosaic_compile.language.dtypes import DTYPES
from mosaic_compile.language.ops.memory import load_reference
from mosaic_compile.mlir import ir

from .helpers import assert_same, launch

T = mc.DTypeVar("T", *DTYPES.values())


def sample(dtype, shape, seed=0):
    """Random values that every element type can hold."""
    return np.random.default_rng(seed).integers(0, 8 if dtype.bits > 1 else 2, shape).astype(dtype.numpy)


@mc.kernel(grid=lambda M, N, BM, BN: (mc.cdiv(M, BM), mc.cdiv(N, BN)))
def copy(x: T["M", "N"], y: T["M", "N"], *, BM: mc.Const = 4, BN: mc.Const = 8):
    index = (mc.program_id(0), mc.program_id(1))
    mc.store(y, index, mc.load(x, index, (BM, BN)))


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_copy(dtype):
    """Every element type, edges that no tile divides, arrays with negative and transposed strides."""
    x = sample(dtype, (19, 9)).T[::-1]
    y = np.zeros((9, 38), dtype.numpy)[:, ::2]
    launch(copy, x, y, grid=(3, 3), T=dtype)
    assert_same(y, x)


@mc.kernel(grid=(1,))
def load_at(x: mc.f32["M", "N"], i: mc.i32, j: mc.i32, y: mc.f32[4, 8]):
    mc.store(y, (0, 0), mc.load(x, offset=(i, j), shape=(4, 8), pad=-1))


@mc.kernel(grid=(1,))
def store_at(x: mc.f32["M", "N"], i: mc.i32, j: mc.i32, y: mc.f32[4, 8]):
    mc.store(x, mc.load(y, (0, 0), (4, 8)), offset=(i, j))


@mc.kernel(grid=(1,))
def add_at(x: mc.f32["M", "N"], i: mc.i32, j: mc.i32, y: mc.f32[4, 8]):
    mc.atomic_add(x, mc.load(y, (0, 0), (4, 8)), offset=(i, j))


@pytest.mark.parametrize("kernel", [load_at, store_at, add_at])
@pytest.mark.parametrize("shape", [(6, 10), (2, 3), (0, 5), (5, 0)])
def test_offsets(kernel, shape):
    """Blocks inside, across every edge, and outside, near and far."""
    module = trace(kernel, kernel.specialize())
    rng = np.random.default_rng(1)
    for i, j in itertools.product((-100, -4, -3, 0, 1, 5, 2**31 - 1), (-(2**31), -7, 0, 3, 10)):
        x, y = rng.standard_normal(shape).astype(np.float32), rng.standard_normal((4, 8)).astype(np.float32)
        before, block = x.copy(), y.copy()
        run(module, [x, np.int32(i), np.int32(j), y], (1,))
        if kernel is load_at:
            assert_same(y, load_reference(x, None, (4, 8), offset=(i, j), pad=-1))
            continue
        for a, b in np.ndindex(4, 8):
            if 0 <= i + a < shape[0] and 0 <= j + b < shape[1]:
                before[i + a, j + b] = block[a, b] + (before[i + a, j + b] if kernel is add_at else 0)
        assert_same(x, before)


@mc.kernel(grid=(1,))
def point(x: mc.f32["M", "N"], i: mc.i32, y: mc.f32[8]):
    mc.store(y, 0, mc.load(x[i], 0, 8, pad=9))
    mc.store(x[i], 0, mc.load(y, 0, 8) + 1)


def test_points_outside():
    x = np.zeros((2, 5), np.float32)
    module = trace(point, point.specialize())
    for i in (-1, 2, 100):
        y = np.zeros(8, np.float32)
        run(module, [x, i, y], (1,))
        assert_same(y, np.full(8, 9, np.float32))
        assert not x.any()
    run(module, [x, 1, y], (1,))
    assert_same(y, np.array([0, 0, 0, 0, 0, 9, 9, 9], np.float32))
    assert_same(x, np.array([[0] * 5, [1] * 5], np.float32))


def test_in_bounds_is_checked():
    """What a pass claims about an access is held against every access."""
    module = trace(copy, copy.specialize(T=mc.f32))

    def mark(op):
        if op.name == "tile.load":
            op.attributes["in_bounds"] = ir.DenseBoolArrayAttr.get([True, False])
        return ir.WalkResult.ADVANCE

    with module.context:
        module.operation.walk(mark)
    x, y = np.ones((8, 9), np.float32), np.zeros((8, 9), np.float32)
    run(module, [x, y], (2, 2))
    assert_same(y, x)
    with pytest.raises(
        InterpreterError, match="array axis 0 is marked as in bounds, but elements 8 to 12 of 8"
    ):
        run(module, [x, y], (3, 1))


ADDABLE = mc.DTypeVar("A", mc.f32, mc.f64, mc.f16, mc.bf16, mc.i32, mc.i64)


@mc.kernel(grid=lambda N: (mc.cdiv(N, 16),))
def histogram(x: mc.i32["N"], counts: ADDABLE["K"]):
    values = mc.load(x, mc.program_id(0), 16, pad=-1)
    mc.scatter_add(counts, values, mc.ones(16, counts.dtype))


@mc.kernel(grid=lambda N: (mc.cdiv(N, 16),))
def total(x: mc.i32["N"], sums: ADDABLE["K"]):
    values = mc.load(x, mc.program_id(0), 16)
    mc.atomic_add(sums, 0, mc.sum(values).to(sums.dtype))


@pytest.mark.parametrize("dtype", ADDABLE.choices, ids=str)
def test_atomics(dtype):
    x = np.random.default_rng(4).integers(0, 5, 50).astype(np.int32)
    counts = np.zeros(5, dtype.numpy)
    launch(histogram, x, counts, grid=(4,), A=dtype)
    assert_same(counts, np.bincount(x, minlength=5).astype(dtype.numpy))
    sums = np.zeros(1, dtype.numpy)
    launch(total, x, sums, grid=(4,), A=dtype)
    assert_same(sums, x.sum(keepdims=True).astype(dtype.numpy))


@mc.kernel(grid=(1,))
def overlap(x: mc.f32["N"]):
    old = mc.load(x, 0, 8)
    mc.store(x, 0, old * 0)
    mc.store(x, 0, old + 1)


def test_tiles_are_values():
    """A tile keeps what it loaded, whatever is stored later."""
    x = np.arange(8, dtype=np.float32)
    launch(overlap, x)
    assert_same(x, np.arange(8, dtype=np.float32) + 1)


@mc.kernel(grid=(1,))
def unsigned_scalars(a: mc.u8, b: mc.u32, out: mc.i64[2]):
    mc.store(out, 0, a.to(mc.i64))
    mc.store(out, 1, b.to(mc.i64))


def test_unsigned_scalars():
    out = np.zeros(2, np.int64)
    launch(unsigned_scalars, 200, 2**32 - 1, out)
    assert list(out) == [200, 2**32 - 1]


def test_bfloat16_scalar():
    @mc.kernel(grid=(1,))
    def scale(x: mc.bf16[4], s: mc.bf16):
        mc.store(x, 0, mc.load(x, 0, 4) * s)

    x = np.arange(4).astype(ml_dtypes.bfloat16)
    launch(scale, x, 1.5)
    assert_same(x, (np.arange(4) * 1.5).astype(ml_dtypes.bfloat16))
