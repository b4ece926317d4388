"""A matrix product at edge sizes, against float64."""

import ml_dtypes
import numpy as np
import pytest

import mosaic_compile as mc
from mosaic_compile.frontend import trace
from mosaic_compile.interpreter import run

BM, BN, BK = 32, 16, 16


@mc.kernel(grid=lambda M, N: (mc.cdiv(M, BM), mc.cdiv(N, BN)))
def matmul(a: mc.bf16["M", "K"], b: mc.bf16["K", "N"], c: mc.bf16["M", "N"]):
    m, n = mc.program_id(0), mc.program_id(1)
    acc = mc.zeros((BM, BN), mc.float32)
    for k in range(mc.cdiv(a.shape[1], BK)):
        acc = mc.dot(mc.load(a, (m, k), (BM, BK)), mc.load(b, (k, n), (BK, BN)), acc)
    mc.store(c, (m, n), acc.to(c.dtype))


@pytest.fixture(scope="module")
def module():
    return trace(matmul, matmul.specialize())


@pytest.mark.parametrize(
    "m, n, k", [(1, 1, 1), (32, 16, 16), (33, 47, 65), (31, 15, 17), (100, 70, 0), (64, 32, 128)]
)
@pytest.mark.parametrize("transposed", [False, True])
def test_edges(module, m, n, k, transposed):
    rng = np.random.default_rng(m * n + k)
    a = rng.standard_normal((m, k)).astype(ml_dtypes.bfloat16)
    b = rng.standard_normal((k, n)).astype(ml_dtypes.bfloat16)
    if transposed:  # strides other than row-major
        b = np.ascontiguousarray(b.T).T
    c = np.full((m + 2, n + 3), 7, ml_dtypes.bfloat16)
    run(module, [a, b, c[1:-1, 1:-2]], (-(-m // BM), -(-n // BN)))
    wanted = a.astype(np.float64) @ b.astype(np.float64)
    scale = np.abs(a.astype(np.float64)) @ np.abs(b.astype(np.float64))
    assert (np.abs(c[1:-1, 1:-2].astype(np.float64) - wanted) <= 2**-8 * np.abs(wanted) + 1e-6 * scale).all()
    border = np.ones(c.shape, bool)
    border[1:-1, 1:-2] = False
    assert (c[border] == 7).all()  # nothing is written outside the view
