"""Layer normalization of the rows of a matrix."""

import numpy as np

import mosaic_compile as mc
from mosaic_compile.kernels.softmax import ROW_TILES

T = mc.DTypeVar("T", mc.bf16, mc.f16, mc.f32)
W = mc.DTypeVar("W", mc.bf16, mc.f16, mc.f32)  # weights are often kept in another type


def reference(x, weight, eps=1e-5, bias=None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The definition, in float64: out, mean and rstd."""
    x = x.astype(np.float64)
    mean = x.mean(axis=1)
    rstd = 1 / np.sqrt(x.var(axis=1) + eps)
    out = (x - mean[:, None]) * rstd[:, None] * weight.astype(np.float64)
    return out if bias is None else out + bias.astype(np.float64), mean, rstd


@mc.kernel(
    grid=lambda M, BM: (mc.cdiv(M, BM),),
    tune=dict(
        gpu=[
            # With as many registers as it would like, fewer rows would be in flight.
            dict(BM=1, BN=4096, num_warps=8, maxnreg=40, when=lambda N: 2048 < N <= 4096),
            *ROW_TILES,
            dict(BM=1, BN=4096, num_warps=4, maxnreg=64),
        ],
        cpu=[
            dict(BM=1, BN=128),
            dict(BM=4, BN=1024),  # reads rows of up to 1024 elements once
            dict(BM=1, BN=4096),
        ],
    ),
    reference=reference,
)
def layer_norm(
    x: T["M", "N"],
    weight: W["N"],
    out: mc.Out[T["M", "N"]],
    eps: mc.f32 = 1e-5,
    bias: W["N"] | None = None,
    mean: mc.Out[mc.f32["M"]] | None = None,
    rstd: mc.Out[mc.f32["M"]] | None = None,
    *,
    BM: mc.Const = 1,
    BN: mc.Const = 4096,
):
    """out[m, :] = (x[m, :] - mean) * rstd * weight + bias, computed in f32 and rounded once.

    mean and rstd = 1 / sqrt(variance + eps) are those of row m; the variance divides by N, at least 1.
    x, out: M rows of N elements of type T. weight and, optional, bias: N elements of type W. mean and rstd:
    optional outputs of M elements, f32, for the gradient. A program does BM rows. Rows of up to BN elements
    are read once, as one tile; longer ones twice. Where N is fixed when the kernel is compiled, only one of
    the two is left in it.

    Ba, Kiros and Hinton, "Layer normalization", 2016. Variances add up squares of differences from the mean,
    never squares: long rows by the updates of Welford, "Note on a method for calculating corrected sums of
    squares and products", 1962, in each column of the tile, whose results are put together as Chan, Golub
    and LeVeque, "Algorithms for computing the sample variance", 1983, do.
    """
    m = mc.program_id(0)
    N = x.shape[1]
    if N <= BN:
        rows = mc.load(x, (m, 0), (BM, BN)).to(mc.f32)
        center = rows.sum(1) / mc.f32(N)
        centered = mc.where(mc.iota(BN) < N, rows - center[:, None], 0.0)
        scale = inverse_deviation((centered * centered).sum(1), N, eps)
        mc.store(out, (m, 0), transformed(rows, center, scale, weight, bias, 0).to(out.dtype))
    else:
        means = mc.zeros((BM, BN), mc.f32)  # of each column of the tile, over its blocks
        squares = mc.zeros((BM, BN), mc.f32)
        for n in range(mc.cdiv(N, BN)):
            block = mc.load(x, (m, n), (BM, BN)).to(mc.f32)
            delta = mc.where(n * BN + mc.iota(BN) < N, block - means, 0.0)
            means += delta * (1.0 / mc.f32(n + 1))
            squares += delta * (block - means)
        counts = mc.cdiv(N - mc.iota(BN), BN).to(mc.f32)
        center = (counts * means).sum(1) / mc.f32(N)
        offsets = means - center[:, None]
        scale = inverse_deviation((squares + counts * offsets * offsets).sum(1), N, eps)
        for n in range(mc.cdiv(N, BN)):
            block = mc.load(x, (m, n), (BM, BN)).to(mc.f32)
            mc.store(out, (m, n), transformed(block, center, scale, weight, bias, n).to(out.dtype))
    if mean is not None:
        mc.store(mean, m, center)
    if rstd is not None:
        mc.store(rstd, m, scale)


def inverse_deviation(squares, N, eps):
    """Of rows whose squared differences from their means add up to `squares`."""
    return mc.rsqrt(squares / mc.f32(N) + eps)


def transformed(block, center, scale, weight, bias, n):
    """A normalized block of rows; n: which block of the row."""
    BN = block.shape[1]
    result = (block - center[:, None]) * scale[:, None] * mc.load(weight, n, BN).to(mc.f32)
    return result if bias is None else result + mc.load(bias, n, BN).to(mc.f32)
