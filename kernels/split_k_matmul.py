"""Matrix product for long sums and few results: K is split over programs that add into one result."""

import numpy as np

import mosaic_compile as mc
from mosaic_compile.kernels.matmul import T, grouped, product


def reference(a, b, c, scale=1.0) -> np.ndarray:
    """The definition, in float64."""
    a, b, c = (x.astype(np.float64) for x in (a, b, c))
    return c + float(scale) * (a @ b)


@mc.kernel(
    grid=lambda M, N, BM, BN, SPLIT: (mc.cdiv(M, BM) * mc.cdiv(N, BN), SPLIT),
    tune=dict(
        gpu=[
            dict(BM=64, BN=128, BK=64, SPLIT=8, num_warps=4, num_stages=4),  # 96 KiB of shared memory
            dict(BM=64, BN=64, BK=64, SPLIT=8, num_warps=4, num_stages=3),  # 48 KiB
            dict(BM=64, BN=64, BK=32, SPLIT=8, num_warps=4, num_stages=3),  # 24 KiB
        ],
        cpu=[
            dict(BM=64, BN=256, BK=256, SPLIT=4),
            dict(BM=16, BN=256, BK=256, SPLIT=8),  # few rows
        ],
    ),
    reference=reference,
)
def split_k_matmul(
    a: T["M", "K"],
    b: T["K", "N"],
    c: mc.InOut[mc.f32["M", "N"]],
    scale: mc.f32 = 1.0,
    *,
    precision: mc.Const = "ieee",
    BM: mc.Const = 64,
    BN: mc.Const = 128,
    BK: mc.Const = 64,
    SPLIT: mc.Const = 8,
    GROUP_M: mc.Const = 8,
):
    """c += scale * a @ b, in f32: zeros in c give the product, a bias or a residual in it are added.

    a: M x K and b: K x N, of type T. c: M x N, f32. scale: a number; for fp8, the product of the two factors'
    scales. Each tile of c is summed by SPLIT programs, of which each takes its share of K and adds
    atomically, in any order: the last bits of c differ from run to run.
    precision, BM, BN, BK, GROUP_M: those of `matmul`, which is the better where M x N has tiles for every
    multiprocessor.

    The split is the fixed one that Osama, Merrill, Cecka, Garland and Owens, "Stream-K", 2023, start from.
    """
    M, K, N = a.shape[0], a.shape[1], b.shape[1]
    m, n = grouped(mc.program_id(0), mc.cdiv(M, BM), mc.cdiv(N, BN), GROUP_M)
    share = mc.cdiv(mc.cdiv(K, BK), SPLIT)
    first = mc.program_id(1) * share
    steps = range(first, mc.minimum(first + share, mc.cdiv(K, BK)))
    mc.atomic_add(c, (m, n), scale * product(a, b, m, n, steps, BM, BN, BK, precision))
