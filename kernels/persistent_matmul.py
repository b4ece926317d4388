"""Matrix product by as many programs as run at once, each of which computes one tile after the other."""

import mosaic_compile as mc
from mosaic_compile.kernels.matmul import T, U, finish, grouped, product, reference, tiles


@mc.kernel(
    grid=lambda M, N, BM, BN, num_sms: (mc.minimum(mc.cdiv(M, BM) * mc.cdiv(N, BN), num_sms),),
    tune=tiles(lambda n: lambda M, N: n >= M * N),
    reference=reference,
)
def persistent_matmul(
    a: T["M", "K"],
    b: T["K", "N"],
    c: mc.Out[U["M", "N"]],
    scale: mc.f32 = 1.0,
    bias: U["N"] | None = None,
    residual: U["M", "N"] | None = None,
    *,
    activation: mc.Const = "none",
    precision: mc.Const = "ieee",
    BM: mc.Const = 128,
    BN: mc.Const = 128,
    BK: mc.Const = 64,
    GROUP_M: mc.Const = 8,
    PARTS: mc.Const = 1,
):
    """c = activation(scale * a @ b + bias) + residual, as `matmul` with the same parameters.

    The loop over tiles and that over K are one to the pipeline (`flatten`): the loads of a program's next
    tile are in flight while it writes the last one.
    """
    M, K, N = a.shape[0], a.shape[1], b.shape[1]
    rows, columns = mc.cdiv(M, BM), mc.cdiv(N, BN)
    for tile in mc.range(mc.program_id(0), rows * columns, mc.num_programs(0), flatten=True):
        m, n = grouped(tile, rows, columns, GROUP_M)
        acc = product(a, b, m, n, range(mc.cdiv(K, BK)), BM, BN, BK, precision)
        finish(c, m, n, acc, PARTS, scale, bias, residual, activation)
