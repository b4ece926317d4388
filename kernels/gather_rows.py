"""Rows of a table by their indices: the lookup of embeddings."""

import numpy as np

import mosaic_compile as mc

T = mc.DTypeVar("T", mc.bf16, mc.f16, mc.f32, mc.f8e4m3, mc.f8e5m2, mc.i32, mc.i8, mc.u8)
Index = mc.DTypeVar("Index", mc.i32, mc.i64)


def reference(table: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """The definition: nothing is computed, so elements keep their type."""
    inside = (indices >= 0) & (indices < len(table))
    out = np.zeros((len(indices), table.shape[1]), table.dtype)
    out[inside] = table[indices[inside]]
    return out


@mc.kernel(
    grid=lambda N, D, BM, BN: (mc.cdiv(N, BM), mc.cdiv(D, BN)),
    tune=dict(
        gpu=[
            dict(BM=4, BN=256, num_warps=2, when=lambda D: D <= 256),
            dict(BM=4, BN=1024, num_warps=4, when=lambda D: D <= 1024),
            dict(BM=1, BN=2048, num_warps=4),
            dict(BM=8, BN=128, num_warps=4),
        ],
        cpu=[
            dict(BM=1, BN=1024),
            dict(BM=1, BN=4096),
        ],
    ),
    reference=reference,
)
def gather_rows(
    table: T["V", "D"],
    indices: Index["N"],
    out: mc.Out[T["N", "D"]],
    *,
    BM: mc.Const = 1,
    BN: mc.Const = 2048,
):
    """out[n, :] = table[indices[n], :], and zeros where the index is outside 0 … V - 1.

    table: V rows of D elements of type T. indices: N numbers, i32 or i64. out: N rows of D elements of type
    T. BM, BN: the tile of a program.
    """
    m, n = mc.program_id(0), mc.program_id(1)
    index = mc.load(indices, m, BM)
    row = mc.where((index >= 0) & (index < indices.dtype(table.shape[0])), index, -1).to(mc.i32)
    mc.store(out, (m, n), mc.gather(table, (row[:, None], (n * BN + mc.iota(BN))[None, :])))
