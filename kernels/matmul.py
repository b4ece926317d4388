"""Matrix product with a fused epilogue."""

import numpy as np

import mosaic_compile as mc
from mosaic_compile.kernels.activations import activated, activated_reference

T = mc.DTypeVar("T", mc.bf16, mc.f16, mc.f32, mc.f8e4m3, mc.f8e5m2)  # of the factors
U = mc.DTypeVar("U", mc.bf16, mc.f16, mc.f32)  # of the result, the bias and the residual


def tiles(up_to):
    """Tiles of a product, and how many warps and stages they take. up_to(n): the `when` for up to n results.

    For few results small tiles, so that each multiprocessor has one.
    """
    return dict(
        gpu=[
            dict(
                BM=64, BN=64, BK=64, num_warps=4, num_stages=5, when=up_to(2**19)
            ),  # 80 KiB for 16-bit types
            dict(BM=64, BN=128, BK=64, num_warps=4, num_stages=4, when=up_to(2**20)),  # 96 KiB
            dict(BM=128, BN=128, BK=64, num_warps=4, num_stages=4, when=up_to(2**21)),  # 128 KiB
            dict(BM=128, BN=256, BK=64, num_warps=8, num_stages=3),  # 144 KiB
            dict(BM=128, BN=256, BK=64, num_warps=8, num_stages=4, PARTS=2),  # 192 KiB
            dict(BM=128, BN=256, BK=64, num_warps=8, num_stages=4, PARTS=2, GROUP_M=4),
            dict(BM=128, BN=128, BK=64, num_warps=8, num_stages=3),  # 96 KiB
            dict(BM=128, BN=128, BK=32, num_warps=8, num_stages=3),  # 48 KiB
            dict(BM=64, BN=64, BK=32, num_warps=4, num_stages=3),  # 24 KiB
        ],
        cpu=[
            dict(BM=16, BN=256, BK=256, when=lambda M: M <= 16),
            dict(BM=256, BN=128, BK=256, when=lambda M: M >= 256),  # packs a block of b once for all of them
            dict(BM=64, BN=256, BK=256),
        ],
    )


def reference(a, b, scale=1.0, bias=None, residual=None, *, activation="none") -> np.ndarray:
    """The definition, in float64."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    x = float(scale) * (a @ b)
    if bias is not None:
        x = x + bias.astype(np.float64)
    x = activated_reference(x, activation)
    return x if residual is None else x + residual.astype(np.float64)


@mc.kernel(
    grid=lambda M, N, BM, BN: (mc.cdiv(M, BM) * mc.cdiv(N, BN),),
    tune=tiles(lambda n: lambda M, N: n >= M * N),
    reference=reference,
)
def matmul(
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
    """c = activation(scale * a @ b + bias) + residual, in f32 and rounded once.

    a: M x K and b: K x N, of type T. c, and what is optional, bias: N and residual: M x N, of type U.
    scale: a number; for fp8, the product of the two factors' scales.
    activation: "none", "relu", "gelu" (with erf), "gelu_tanh" or "silu".
    precision: for f32 factors, "ieee" or the faster "tf32" and "tf32x3" (see mc.dot).
    BM, BN, BK: the tiles of c are BM x BN, and a step multiplies BM x BK by BK x BN. GROUP_M: see `grouped`.
    PARTS: how many parts of a tile of c are written one after the other; more leave more shared memory to stages.

    Tillet, Kung and Cox, "Triton: an intermediate language and compiler for tiled neural network
    computations", 2019; gelu: Hendrycks and Gimpel, 2016; silu: Elfwing, Uchibe and Doya, 2017.
    """
    M, K, N = a.shape[0], a.shape[1], b.shape[1]
    m, n = grouped(mc.program_id(0), mc.cdiv(M, BM), mc.cdiv(N, BN), GROUP_M)
    acc = product(a, b, m, n, range(mc.cdiv(K, BK)), BM, BN, BK, precision)
    finish(c, m, n, acc, PARTS, scale, bias, residual, activation)


def product(a, b, m, n, steps, BM, BN, BK, precision):
    """Tile (m, n) of a @ b, in f32, over those of its blocks of K that the range `steps` names."""
    acc = mc.zeros((BM, BN), mc.f32)
    for k in steps:
        acc = mc.dot(mc.load(a, (m, k), (BM, BK)), mc.load(b, (k, n), (BK, BN)), acc, precision=precision)
    return acc


def finish(c, m, n, acc, PARTS, scale, bias, residual, activation):
    """Writes tile (m, n) of c, in PARTS side by side."""
    parts = mc.split(acc, PARTS, axis=1) if PARTS > 1 else (acc,)
    for i in mc.static_range(PARTS):
        j = n * PARTS + i
        mc.store(c, (m, j), finished(parts[i], m, j, scale, bias, residual, activation).to(c.dtype))


def finished(acc, m, n, scale, bias, residual, activation):
    """The epilogue of tile (m, n); bias and residual are arrays, or None."""
    acc *= scale
    if bias is not None:
        acc += mc.load(bias, n, acc.shape[1]).to(mc.f32)
    acc = activated(acc, activation)
    if residual is not None:
        acc += mc.load(residual, (m, n), acc.shape).to(mc.f32)
    return acc


def grouped(program, rows, columns, GROUP_M):
    """The tile of a program, in an order that reuses the L2 cache: down GROUP_M rows, then the next column.

    Programs that run at the same time then share few rows of a and few columns of b.
    """
    first = program // (GROUP_M * columns) * GROUP_M
    height = mc.clamp(rows - first, 1, GROUP_M)  # the last group may be lower
    place = program % (GROUP_M * columns)
    return first + place % height, place // height
