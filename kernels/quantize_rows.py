"""Rows of activations as 8-bit numbers, in groups with a scale each."""

import numpy as np

import mosaic_compile as mc
from mosaic_compile.kernels.quantized_matmul import LANES

T = mc.DTypeVar("T", mc.f32, mc.bf16, mc.f16)


def reference(x: np.ndarray, *, G=32, W=LANES) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The definition: scales as f32 has them, numbers rounded to nearest."""
    m, k = x.shape
    blocks = -(-k // (W * G))
    groups = np.zeros((m, blocks * W * G), np.float32)
    groups[:, :k] = x
    groups = groups.reshape(m, blocks, W, G)
    scales = abs(groups).max(-1) / np.float32(127)
    inverse = np.divide(np.float32(1), scales, out=np.zeros_like(scales), where=scales != 0)
    q = np.floor(groups * inverse[..., None] + np.float32(0.5)).astype(np.int8)
    values = q.reshape(m, blocks, W, G // 4, 4).swapaxes(2, 3).reshape(m, blocks, W * G)
    return tuple(a.swapaxes(0, 1) for a in (values, scales, q.sum(-1, dtype=np.int32)))


@mc.kernel(grid=lambda M, B: (M, B), tune=[dict(num_warps=4)], reference=reference)
def quantize_rows(
    x: T["M", "K"],
    q: mc.Out[mc.i8["B", "M", "E"]],
    scales: mc.Out[mc.f32["B", "M", "W"]],
    sums: mc.Out[mc.i32["B", "M", "W"]],
    *,
    G: mc.Const = 32,
    W: mc.Const = LANES,
):
    """x, group by group, as q * scale with q from -127 to 127, as quantized_matmul takes it.

    x: M rows of K elements of type T. q: their bytes in B = ceil(K / (W * G)) blocks of E = W * G, in the order that
    quantized_matmul says; scales, sums: of each group the scale and the sum of its q. G: the size of a group. What is beyond K
    counts as zero.
    """
    m, b = mc.program_id(0), mc.program_id(1)
    groups = mc.load(x, (m, b), (1, W * G)).to(mc.f32).reshape((W, G))
    scale = mc.max(mc.abs(groups), 1) / 127.0
    inverse = mc.where(scale > 0.0, 1.0 / mc.where(scale > 0.0, scale, 1.0), 0.0)
    values = mc.floor(groups * inverse[:, None] + 0.5).to(mc.i32)
    words = mc.permute(values.reshape((W, G // 4, 4)), (1, 0, 2)).reshape((1, W * G))
    mc.store(q[b], (m, 0), words.to(mc.i8))
    mc.store(scales[b], (m, 0), scale[None, :])
    mc.store(sums[b], (m, 0), mc.sum(values, 1)[None, :])
