"""Matrix product whose work is cut into equal shares, whatever the number of tiles."""

import mosaic_compile as mc
from mosaic_compile.kernels.matmul import T, grouped, product
from mosaic_compile.kernels.split_k_matmul import reference


@mc.kernel(
    grid=lambda M, N, K, BM, BN, BK, num_sms: (
        mc.minimum(mc.cdiv(M, BM) * mc.cdiv(N, BN) * mc.cdiv(K, BK), num_sms),
    ),
    tune=dict(
        gpu=[
            dict(BM=128, BN=128, BK=64, num_warps=8, num_stages=4),  # 128 KiB of shared memory
            dict(BM=64, BN=128, BK=64, num_warps=4, num_stages=6),  # 144 KiB
            dict(BM=64, BN=64, BK=64, num_warps=4, num_stages=3),  # 48 KiB
            dict(BM=64, BN=64, BK=32, num_warps=4, num_stages=3),  # 24 KiB
        ],
        cpu=[dict(BM=64, BN=64, BK=64)],
    ),
    reference=reference,
)
def stream_k_matmul(
    a: T["M", "K"],
    b: T["K", "N"],
    c: mc.InOut[mc.f32["M", "N"]],
    scale: mc.f32 = 1.0,
    *,
    precision: mc.Const = "ieee",
    BM: mc.Const = 128,
    BN: mc.Const = 128,
    BK: mc.Const = 64,
    GROUP_M: mc.Const = 8,
):
    """c += scale * a @ b, in f32, as `split_k_matmul` with the same parameters.

    As many programs as run at once share the steps of all tiles evenly: one may end a tile that another has
    begun, and begin the next. Tiles are added atomically, in any order: the last bits of c differ from run to run.

    Osama, Merrill, Cecka, Garland and Owens, "Stream-K: work-centric parallel decomposition for dense
    matrix-matrix multiplication on the GPU", 2023.
    """
    M, K, N = a.shape[0], a.shape[1], b.shape[1]
    rows, columns, steps = mc.cdiv(M, BM), mc.cdiv(N, BN), mc.cdiv(K, BK)
    share = mc.cdiv(rows * columns * steps, mc.num_programs(0))
    first = mc.program_id(0) * share
    last = mc.minimum(first + share, rows * columns * steps)
    for tile in range(first // steps, mc.cdiv(last, steps)):
        m, n = grouped(tile, rows, columns, GROUP_M)
        here = range(mc.maximum(first - tile * steps, 0), mc.minimum(last - tile * steps, steps))
        mc.atomic_add(c, (m, n), scale * product(a, b, m, n, here, BM, BN, BK, precision))
