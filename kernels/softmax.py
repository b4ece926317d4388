"""Softmax of the rows of a matrix."""

import numpy as np

import mosaic_compile as mc

T = mc.DTypeVar("T", mc.bf16, mc.f16, mc.f32)

LOWEST = -3.4028234663852886e38  # of f32

ROW_TILES = [  # of what reduces rows, on GPUs
    dict(BM=32, BN=64, num_warps=2, when=lambda N: N <= 64),
    dict(BM=8, BN=128, num_warps=2, when=lambda N: N <= 128),
    dict(BM=4, BN=256, num_warps=2, when=lambda N: N <= 256),
    dict(BM=2, BN=512, num_warps=1, when=lambda N: N <= 512),
    dict(BM=1, BN=1024, num_warps=2, when=lambda N: N <= 1024),
    dict(BM=1, BN=2048, num_warps=4, when=lambda N: N <= 2048),
    dict(BM=1, BN=4096, num_warps=8),
    dict(BM=1, BN=4096, num_warps=4),
    dict(BM=1, BN=4096, num_warps=2),
    dict(BM=1, BN=8192, num_warps=8),
    dict(BM=1, BN=8192, num_warps=16),
    dict(BM=2, BN=2048, num_warps=8),
]


def reference(x: np.ndarray) -> np.ndarray:
    """The definition, in float64."""
    x = x.astype(np.float64)
    e = np.exp(x - x.max(axis=1, keepdims=True, initial=-np.inf))
    return e / e.sum(axis=1, keepdims=True)


@mc.kernel(
    grid=lambda M, BM: (mc.cdiv(M, BM),),
    tune=dict(
        gpu=[dict(BM=1, BN=8192, num_warps=8, when=lambda N: N > 4096), *ROW_TILES],
        cpu=[
            dict(BM=4, BN=256),
            dict(BM=4, BN=1024),  # reads rows of up to 1024 elements once
            dict(BM=1, BN=4096),
        ],
    ),
    reference=reference,
)
def softmax(x: T["M", "N"], out: mc.Out[T["M", "N"]], *, BM: mc.Const = 1, BN: mc.Const = 4096):
    """out[m, :] = exp(x[m, :]) / sum(exp(x[m, :])), computed in f32.

    x, out: M rows of N elements of type T. A program does BM rows. Rows of up to BN elements are read once,
    as one tile; longer ones twice: first for the maximum and the sum together, then for the result (Milakov
    and Gimelshein, "Online normalizer calculation for softmax", 2018). Where N is fixed when the kernel is
    compiled, only one of the two is left in it.

    A row that is minus infinity throughout gives NaN, as everywhere.
    """
    m = mc.program_id(0)
    N = x.shape[1]
    if N <= BN:
        rows = load_block(x, m, 0, BM, BN)
        e = mc.exp(rows - rows.max(1, keepdims=True))
        mc.store(out, (m, 0), (e * (1.0 / e.sum(1, keepdims=True))).to(out.dtype))
    else:
        top = mc.full((BM, 1), LOWEST, mc.f32)  # finite, so that blocks of minus infinity add nothing
        total = mc.zeros((BM, 1), mc.f32)
        for n in range(mc.cdiv(N, BN)):
            block = load_block(x, m, n, BM, BN)
            higher = mc.maximum(top, block.max(1, keepdims=True))
            total = total * mc.exp(top - higher) + mc.exp(block - higher).sum(1, keepdims=True)
            top = higher
        share = 1.0 / total
        for n in range(mc.cdiv(N, BN)):
            e = mc.exp(load_block(x, m, n, BM, BN) - top)
            mc.store(out, (m, n), (e * share).to(out.dtype))


def load_block(x, m, n, BM, BN):
    """In f32; what lies outside counts as minus infinity, whose exponential is 0."""
    return mc.load(x, (m, n), (BM, BN), pad=float("-inf")).to(mc.f32)
