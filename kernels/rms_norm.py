"""Root mean square normalization of the rows of a matrix."""

import numpy as np

import mosaic_compile as mc
from mosaic_compile.kernels.softmax import ROW_TILES

T = mc.DTypeVar("T", mc.bf16, mc.f16, mc.f32)
W = mc.DTypeVar("W", mc.bf16, mc.f16, mc.f32)  # weights are often kept in another type


def reference(x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    """The definition, in float64."""
    x, weight = x.astype(np.float64), weight.astype(np.float64)
    return x / np.sqrt(np.mean(x * x, axis=1, keepdims=True) + eps) * weight


@mc.kernel(
    grid=lambda M, BM: (mc.cdiv(M, BM),),
    tune=dict(
        gpu=[dict(BM=1, BN=8192, num_warps=16, when=lambda N: N > 4096), *ROW_TILES],
        cpu=[
            dict(BM=1, BN=128),
            dict(BM=4, BN=1024),  # reads rows of up to 1024 elements once
            dict(BM=1, BN=4096),
        ],
    ),
    reference=reference,
)
def rms_norm(
    x: T["M", "N"],
    weight: W["N"],
    out: mc.Out[T["M", "N"]],
    eps: mc.f32,
    *,
    BM: mc.Const = 1,
    BN: mc.Const = 4096,
):
    """out[m, :] = x[m, :] / sqrt(mean(x[m, :]**2) + eps) * weight, computed in f32 and rounded once.

    x, out: M rows of N elements of type T. weight: N elements of type W. A program does BM rows. Rows of up
    to BN elements are read once, as one tile; longer ones twice. Where N is fixed when the kernel is
    compiled, only one of the two is left in it.

    Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019.
    """
    m = mc.program_id(0)
    N = x.shape[1]
    if N <= BN:
        rows = mc.load(x, (m, 0), (BM, BN)).to(mc.f32)
        mc.store(out, (m, 0), normalized(rows, (rows * rows).sum(1), N, eps, weight, 0).to(out.dtype))
    else:
        squares = mc.zeros((BM, BN), mc.f32)
        for n in range(mc.cdiv(N, BN)):
            block = mc.load(x, (m, n), (BM, BN)).to(mc.f32)
            squares += block * block
        total = squares.sum(1)
        for n in range(mc.cdiv(N, BN)):
            block = mc.load(x, (m, n), (BM, BN)).to(mc.f32)
            mc.store(out, (m, n), normalized(block, total, N, eps, weight, n).to(out.dtype))


def normalized(block, total, N, eps, weight, n):
    """A block of rows whose squares add up to `total`; n: which block of the row."""
    rstd = mc.rsqrt(total / mc.f32(N) + eps)
    return block * rstd[:, None] * mc.load(weight, n, block.shape[1]).to(mc.f32)
