"""Matrix products of a batch, with the epilogue of `matmul`."""

import numpy as np

import mosaic_compile as mc
from mosaic_compile.kernels.matmul import T, U, finish, grouped, product, tiles
from mosaic_compile.kernels.matmul import reference as matmul_reference


def reference(a, b, scale=1.0, bias=None, residual=None, *, activation="none") -> np.ndarray:
    """The definition, in float64."""
    B = 0 if 0 in (len(a), len(b)) else max(len(a), len(b))
    a, b = (np.repeat(x, B // max(1, len(x)), axis=0) for x in (a, b))
    return matmul_reference(a, b, scale, bias, residual, activation=activation)


@mc.kernel(
    grid=lambda B, M, N, BM, BN: (mc.cdiv(M, BM) * mc.cdiv(N, BN), 1, B),
    tune=tiles(lambda n: lambda B, M, N: n >= B * M * N),
    reference=reference,
)
def batched_matmul(
    a: T["BA", "M", "K"],
    b: T["BB", "K", "N"],
    c: mc.Out[U["B", "M", "N"]],
    scale: mc.f32 = 1.0,
    bias: U["N"] | None = None,
    residual: U["B", "M", "N"] | None = None,
    *,
    activation: mc.Const = "none",
    precision: mc.Const = "ieee",
    BM: mc.Const = 128,
    BN: mc.Const = 128,
    BK: mc.Const = 64,
    GROUP_M: mc.Const = 8,
    PARTS: mc.Const = 1,
):
    """c[i] = activation(scale * a[i] @ b[i] + bias) + residual[i] for each i of the batch, as `matmul`.

    a: BA x M x K and b: BB x K x N, of type T. c and, optional, residual: B x M x N, and bias: N, of type U.
    One of BA and BB is B, the other divides it: then each matrix serves so many neighbours, all of them where
    there is only one. B is at most 65535, the limit of a grid's third axis.
    The other parameters are those of `matmul`.
    """
    M, K, N = c.shape[1], a.shape[2], c.shape[2]
    i = mc.program_id(2)
    m, n = grouped(mc.program_id(0), mc.cdiv(M, BM), mc.cdiv(N, BN), GROUP_M)
    left, right = a[shared(i, c, a)], b[shared(i, c, b)]
    acc = product(left, right, m, n, range(mc.cdiv(K, BK)), BM, BN, BK, precision)
    added = residual[i] if residual is not None else None
    finish(c[i], m, n, acc, PARTS, scale, bias, added, activation)


def shared(i, batch, array):
    """Which matrix of `array` serves number i of a batch that may have more."""
    return i // (batch.shape[0] // array.shape[0])
