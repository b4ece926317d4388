"""The passes do not change what kernels compute: interpreted before and after, bit by bit where no sum is reordered."""

import copy

import ml_dtypes
import numpy as np
import pytest

import mosaic_compile as mc
from mosaic_compile.frontend import trace
from mosaic_compile.interpreter import run
from mosaic_compile.kernels.matmul import matmul
from mosaic_compile.passes import Upstream
from mosaic_compile.passes.check_kernel import CheckKernel
from mosaic_compile.passes.hoist_loads import HoistLoads
from mosaic_compile.passes.propagate_divisibility import PropagateDivisibility
from mosaic_compile.passes.tile_canonicalize import TileCanonicalize

from .helpers import PREPARE, run_passes

EACH = {
    "tile-canonicalize": (TileCanonicalize(),),
    "hoist-loads": (HoistLoads(),),
    "propagate-divisibility": (PropagateDivisibility(),),
    "all": (
        CheckKernel(),
        *PREPARE,
        TileCanonicalize(),
        HoistLoads(),
        Upstream("loop-invariant-code-motion"),
        PropagateDivisibility(),
        *PREPARE,
    ),
}


@mc.kernel(grid=lambda M, N: (mc.cdiv(M, 8) * mc.cdiv(N, 8),))
def shuffled(a: mc.f32["M", "N"], bias: mc.f32["N"], out: mc.f32["N", "M"], last: mc.f32["M", "N"]):
    """Transposes, halves, repeated loads, programs in one row, a running offset, a write between two reads."""
    columns = mc.cdiv(a.shape[1], 8)
    m, n = mc.program_id(0) // columns, mc.program_id(0) % columns
    x = mc.load(a, (m, n), (8, 8)) + mc.load(a, (m, n), (8, 8)).T.T
    left, right = mc.split(x, axis=1)
    x = mc.cat((left, right), axis=1)
    at = n * 8
    for _ in range(3):
        x = x + mc.load(bias, n, 8) * mc.load(bias, offset=at - 3, shape=8, pad=2)[None, :]
        at = at + 5
    mc.store(out, (n, m), x.T)
    seen = mc.load(last, (m, n), (8, 8))
    mc.store(last, (m, n), seen + 1)
    mc.store(out, (n, m), x.T + mc.load(last, (m, n), (8, 8)).T - seen.T)


@mc.kernel(grid=lambda M: (mc.cdiv(M, 16),))
def gathered(table: mc.f32["V", 24], index: mc.i32["M"], out: mc.f32["M", 24]):
    """A loop over a fixed dimension that the blocks do not divide, loads that do not change in it, a branch."""
    m = mc.program_id(0)
    for part in range(mc.cdiv(24, 16)):
        rows = mc.load(index, m, 16)
        x = mc.gather(table, (rows[:, None], (mc.iota(16) + part * 16)[None, :]), pad=-1)
        if part > 0:
            x = x * 2
        mc.store(out, (m, part), x)


@pytest.mark.parametrize("passes", EACH.values(), ids=EACH)
@pytest.mark.parametrize("m, n", [(8, 8), (19, 30), (1, 65)])
def test_shuffled(passes, m, n):
    rng = np.random.default_rng(m)
    arrays = [rng.standard_normal(s).astype(np.float32) for s in ((m, n), (n,), (n, m), (m, n))]
    compare(shuffled, passes, arrays, (-(-m // 8) * -(-n // 8),), multiples={"N": 1, "M": 1})


@pytest.mark.parametrize("passes", EACH.values(), ids=EACH)
def test_gathered(passes):
    rng = np.random.default_rng(0)
    index = rng.integers(-2, 12, 40).astype(np.int32)
    arrays = [rng.standard_normal((10, 24)).astype(np.float32), index, np.zeros((40, 24), np.float32)]
    compare(gathered, passes, arrays, (3,), multiples={"M": 1})


@pytest.mark.parametrize("passes", EACH.values(), ids=EACH)
@pytest.mark.parametrize("m, n, k, multiples", [(64, 32, 48, {"M": 32, "N": 32, "K": 16}), (40, 24, 56, {})])
def test_matmul(passes, m, n, k, multiples):
    rng = np.random.default_rng(k)
    arrays = [rng.standard_normal(s).astype(ml_dtypes.bfloat16) for s in ((m, k), (k, n), (m, n), (m, n))]
    a, b, c, residual = arrays
    choices = dict(arrays={"residual"}, activation="relu", BM=32, BN=16, BK=16, GROUP_M=2)
    tiles = -(-m // 32) * -(-n // 16)
    compare(matmul, passes, [a, b, c, 0.5, residual], (tiles,), multiples=multiples, **choices)


def compare(kernel, passes, arrays, grid, /, **choices):
    before, after = (trace(kernel, kernel.specialize(**choices)) for _ in range(2))
    run_passes(after, *passes)
    wanted, found = (copy.deepcopy(arrays) for _ in range(2))
    run(before, wanted, grid)
    run(after, found, grid)
    for x, y in zip(wanted, found):
        assert np.array_equal(x, y)
