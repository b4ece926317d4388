"""Running sums along the rows of a matrix."""

import numpy as np

import mosaic_compile as mc

T = mc.DTypeVar("T", mc.f32, mc.bf16, mc.f16, mc.i32, mc.i16, mc.i8, mc.u8)
S = mc.DTypeVar("S", mc.f32, mc.bf16, mc.f16, mc.i32)


def reference(x: np.ndarray, *, exclusive: bool = False, reverse: bool = False) -> np.ndarray:
    """The definition: in float64, of integers in 32 bits, which wrap around."""
    x = x.astype(np.int32 if x.dtype.kind in "iu" else np.float64)
    x = x[:, ::-1] if reverse else x
    if exclusive:
        x = np.concatenate([np.zeros_like(x[:, :1]), x[:, :-1]], axis=1)
    sums = np.cumsum(x, axis=1, dtype=x.dtype)
    return sums[:, ::-1] if reverse else sums


@mc.kernel(
    grid=lambda M, BM: (mc.cdiv(M, BM),),
    tune=dict(
        gpu=[
            dict(BM=16, BN=64, num_warps=1, when=lambda N: N <= 64),
            dict(BM=8, BN=128, num_warps=1, when=lambda N: N <= 128),
            dict(BM=4, BN=256, num_warps=1, when=lambda N: N <= 256),
            dict(BM=2, BN=512, num_warps=1, when=lambda N: N <= 512),
            dict(BM=1, BN=1024, num_warps=2, when=lambda N: N <= 1024),
            dict(BM=1, BN=2048, num_warps=2),
            dict(BM=1, BN=4096, num_warps=8),
            dict(BM=1, BN=4096, num_warps=1),
        ],
        cpu=[
            dict(BM=16, BN=128),  # a vector across rows
            dict(BM=32, BN=64),
            dict(BM=4, BN=128),  # few rows
        ],
    ),
    reference=reference,
)
def cumsum(
    x: T["M", "N"],
    out: mc.Out[S["M", "N"]],
    *,
    exclusive: mc.Const = False,
    reverse: mc.Const = False,
    BM: mc.Const = 1,
    BN: mc.Const = 2048,
):
    """out[m, n] = x[m, 0] + … + x[m, n], added in f32, or for integers in i32.

    x: M rows of N elements of type T. out: the same shape; f32, bf16 or f16, rounded once, where x is
    floating-point, i32 where it is not. exclusive: without x[m, n] itself. reverse: from the end of the row.
    A program does BM rows, BN elements at a time: inside a block the sums are a parallel scan, the sum of the
    blocks before is carried.

    Blelloch, "Prefix sums and their applications", 1990.
    """
    assert x.dtype.is_float == out.dtype.is_float, f"sums of {x.dtype} cannot be {out.dtype}"
    m = mc.program_id(0)
    blocks = mc.cdiv(x.shape[1], BN)
    shift = (1 if reverse else -1) if exclusive else 0
    carry = mc.zeros((BM, 1), mc.f32 if x.dtype.is_float else mc.i32)
    for step in range(blocks):
        n = blocks - 1 - step if reverse else step
        block = mc.load(x, offset=(m * BM, n * BN + shift), shape=(BM, BN)).to(carry.dtype)
        mc.store(out, (m, n), (carry + mc.cumsum(block, 1, reverse=reverse)).to(out.dtype))
        carry += block.sum(1, keepdims=True)
