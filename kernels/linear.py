"""Linear layers for few rows, as decoding has them: all that matters is to read the weights once, and fast."""

import numpy as np

import mosaic_compile as mc
from mosaic_compile.kernels.matmul import T, U, finished
from mosaic_compile.kernels.matmul import reference as matmul_reference


def reference(x, w, scale=1.0, bias=None, residual=None, *, activation="none") -> np.ndarray:
    """The definition, in float64."""
    return matmul_reference(x, w.T, scale, bias, residual, activation=activation)


@mc.kernel(
    grid=lambda M, N, BM, BN: (mc.cdiv(N, BN), mc.cdiv(M, BM)),
    tune=dict(
        gpu=[
            dict(BM=1, BN=8, BK=1024, num_warps=4, when=lambda M: M == 1),
            dict(BM=16, BN=64, BK=256, num_warps=4, num_stages=5, when=lambda M: M <= 16),
            dict(BM=32, BN=64, BK=128, num_warps=4, num_stages=6, when=lambda M: M <= 32),
            dict(BM=64, BN=64, BK=128, num_warps=4, num_stages=6, when=lambda M, N: M <= 64 and N <= 8192),
            dict(BM=64, BN=128, BK=128, num_warps=4, num_stages=4, when=lambda M: M <= 64),
            dict(BM=128, BN=64, BK=64, num_warps=4, num_stages=8, when=lambda M, N: M > 64 and N <= 8192),
            dict(BM=128, BN=128, BK=64, num_warps=4, num_stages=3, when=lambda M: M > 64),
            dict(BM=16, BN=64, BK=128, num_warps=4, num_stages=5),  # 100 KiB of shared memory
            dict(BM=16, BN=128, BK=128, num_warps=4, num_stages=4),
            dict(BM=32, BN=64, BK=128, num_warps=4, num_stages=8),
            dict(BM=32, BN=128, BK=128, num_warps=4, num_stages=4),
            dict(BM=32, BN=128, BK=64, num_warps=4, num_stages=5),
            dict(BM=64, BN=128, BK=64, num_warps=4, num_stages=3),
            dict(BM=64, BN=128, BK=64, num_warps=4, num_stages=8),
            dict(BM=128, BN=64, BK=128, num_warps=4, num_stages=4),
            dict(BM=128, BN=64, BK=64, num_warps=4, num_stages=6),
            dict(BM=128, BN=128, BK=64, num_warps=4, num_stages=6),
            dict(BM=1, BN=8, BK=512, num_warps=4),
            dict(BM=1, BN=16, BK=256, num_warps=4),
            dict(BM=16, BN=32, BK=64, num_warps=4, num_stages=3),  # where shared memory is scarce: 18 KiB
        ],
        cpu=[dict(BM=1, BN=8, BK=1024, when=lambda M: M == 1), dict(BM=64, BN=64, BK=256)],
    ),
    reference=reference,
)
def linear(
    x: T["M", "K"],
    w: T["N", "K"],
    y: mc.Out[U["M", "N"]],
    scale: mc.f32 = 1.0,
    bias: U["N"] | None = None,
    residual: U["M", "N"] | None = None,
    *,
    activation: mc.Const = "none",
    precision: mc.Const = "ieee",
    BM: mc.Const = 16,
    BN: mc.Const = 64,
    BK: mc.Const = 128,
):
    """y = activation(scale * x @ w.T + bias) + residual, in f32 and rounded once: `matmul` for up to 128 rows.

    x: M rows of K elements and w: N rows of K elements, of type T. y and, optional, bias: N and residual: M x N,
    of type U. scale, activation, precision: those of `matmul`.
    BM, BN, BK: rows of x and of w, and how much of them a step takes. The rows of w are the first factor, since
    matrix units want 64 rows there and take 16 columns or fewer. BM = 1 multiplies and adds without them.
    """
    n, m = mc.program_id(0), mc.program_id(1)
    steps = mc.cdiv(x.shape[1], BK)
    if BM == 1:
        sums = mc.zeros((BN, BK), mc.f32)
        for k in range(steps):
            sums += mc.load(w, (n, k), (BN, BK)).to(mc.f32) * mc.load(x[m], k, BK).to(mc.f32)
        rows = sums.sum(1).reshape(1, BN)
    else:
        acc = mc.zeros((BN, BM), mc.f32)
        for k in range(steps):
            # In this order the two loads share a barrier.
            weights, row = mc.load(w, (n, k), (BN, BK)), mc.load(x, (m, k), (BM, BK))
            acc = mc.dot(weights, row.T, acc, precision=precision)
        rows = acc.T
    mc.store(y, (m, n), finished(rows, m, n, scale, bias, residual, activation).to(y.dtype))
