"""Product of activations and weights that are both kept in few bits, in groups with a scale each.

What multiplies is mc.dot4, four bytes at a time, so the layout is made for it. A row of K numbers is cut into blocks of LANES
groups. In a block, the bytes of a group stand below each other: word (t, g) holds the elements 4 t … 4 t + 3 of group g.

    words of a block, 8 bits:  (G / 4, LANES)     word (t, g): the bytes of elements 4 t … 4 t + 3 of group g
    words of a block, 4 bits:  (G / 8, LANES)     the low halves of the bytes are word (t, g), the high ones word (t + G / 8, g)
    scales of a block:         (LANES,)           of group g

So a vector of words meets a vector of scales lane by lane: the sums of a whole group are in one lane before they are converted
and scaled, the nibbles of a word are taken apart by one mask and one shift, and weights are read once, in the order of memory.
Within a byte and a group 4 bits lie as in the Q4_0 of llama.cpp: element j low, element j + G / 2 high, 8 more than their value.
"""

import numpy as np

import mosaic_compile as mc

T = mc.DTypeVar("T", mc.f32, mc.bf16, mc.f16)  # of the result
S = mc.DTypeVar("S", mc.f16, mc.f32)  # of the weights' scales

LANES = 16
LARGEST = {8: 127, 4: 7}  # of a quantized number


def reference(x, x_scales, x_sums, w, w_scales, *, BITS=4) -> np.ndarray:
    """The definition: integers exactly, the rest in float64."""
    x, x_scales, x_sums = (a.swapaxes(0, 1) for a in (x, x_scales, x_sums))
    lanes = w_scales.shape[-1]
    sums = np.einsum("mblg,nblg->mnbl", integers(x, lanes, 8), integers(w, lanes, BITS))
    if BITS == 4:
        sums = sums - 8 * x_sums[:, None].astype(np.int64)
    return np.einsum("mnbl,mbl,nbl->mn", sums, x_scales.astype(np.float64), w_scales.astype(np.float64))


@mc.kernel(
    grid=lambda M, N, BM, BN: (mc.cdiv(M, BM), mc.cdiv(N, BN)),
    tune=dict(
        cpu=[dict(BM=8, BN=16, when=lambda M: M > 8), dict(BM=1, BN=1)],
        gpu=[dict(BM=16, BN=16, num_warps=4), dict(BM=1, BN=16, num_warps=1)],
    ),
    reference=reference,
)
def quantized_matmul(
    x: mc.i32["B", "M", "X"],
    x_scales: mc.f32["B", "M", "W"],
    x_sums: mc.i32["B", "M", "W"],
    w: mc.u32["N", "B", "L"],
    w_scales: S["N", "B", "W"],
    out: mc.Out[T["M", "N"]],
    *,
    BITS: mc.Const = 4,
    W: mc.Const = LANES,
    X: mc.Const = 128,
    L: mc.Const = 64,
    BM: mc.Const = 1,
    BN: mc.Const = 1,
):
    """out = x @ w.T, sums of a group in i32, the rest in f32, rounded once.

    x, x_scales, x_sums: M rows as quantize_rows leaves them. w, w_scales: N rows as `quantized` makes them, of BITS (4 or 8)
    bits. A program does BM x BN of the result: one row of x where weights are to stream from memory, many where they are to
    be used again.

    Dettmers, Lewis, Belkada and Zettlemoyer, "LLM.int8()", 2022, scale products of 8 bits so; groups of 4 bits: Frantar,
    Ashkboos, Hoefler and Alistarh, "GPTQ", 2022.
    """
    assert BITS in (4, 8), f"weights have 4 or 8 bits, not {BITS}"
    assert L % W == 0 and 8 * L == BITS * X, f"{L} words of {BITS} bits in w do not fit {X} of 8 bits in x"
    m, n = mc.program_id(0), mc.program_id(1)
    acc = mc.zeros((BN, BM, W), mc.f32)
    for b in range(x.shape[0]):
        w_block, w_scale = (a.permute(1, 0, 2)[b] for a in (w, w_scales))
        total = products(x[b], x_sums[b], w_block, m, n, BITS, BM, BN, W)
        scale = mc.load(w_scale, (n, 0), (BN, W)).to(mc.f32)[:, None, :]
        acc += total.to(mc.f32) * (mc.load(x_scales[b], (m, 0), (BM, W))[None, :, :] * scale)
    mc.store(out, (m, n), mc.sum(acc, 2).T.to(out.dtype))


def products(x, x_sums, w, m, n, BITS, BM, BN, W):
    """The sums of a block's groups, BN x BM x W."""
    total, steps = mc.zeros((BN, BM, W), mc.i32), w.shape[1] // W
    if BITS == 4:  # the words hold 8 more than the weights
        total -= 8 * mc.load(x_sums, (m, 0), (BM, W))[None, :, :]
    for t in mc.static_range(steps):
        words = mc.load(w, offset=(n * BN, t * W), shape=(BN, W))[:, None, :]
        first = mc.load(x, offset=(m * BM, t * W), shape=(BM, W))[None, :, :]
        if BITS == 4:
            second = mc.load(x, offset=(m * BM, (t + steps) * W), shape=(BM, W))[None, :, :]
            total = mc.dot4(words & 0x0F0F0F0F, first, total)
            total = mc.dot4(words >> 4 & 0x0F0F0F0F, second, total)
        else:
            total = mc.dot4(first, mc.bitcast(words, mc.i32), total)
    return total


def quantized(
    weights: np.ndarray, bits: int, group: int, scale_type: type = np.float16
) -> tuple[np.ndarray, np.ndarray]:
    """Weights (N, K) as the words (N, B, L) and scales (N, B, LANES) of a row: q * scale, with q from -LARGEST to LARGEST.

    K is padded with zeros to whole blocks of LANES groups.
    """
    n, k = weights.shape
    blocks = -(-k // (LANES * group))
    padded = np.zeros((n, blocks * LANES * group), np.float32)
    padded[:, :k] = weights
    groups = padded.reshape(n, blocks, LANES, group)
    scales = (abs(groups).max(-1) / LARGEST[bits]).astype(scale_type)
    divisors = scales.astype(np.float32)[..., None]
    q = np.divide(groups, divisors, out=np.zeros_like(groups), where=divisors != 0)
    q = np.clip(np.rint(q), -LARGEST[bits], LARGEST[bits]).astype(np.int8)
    if bits == 4:
        low, high = np.split((q + 8).view(np.uint8), 2, axis=-1)
        q = low | high << 4
    steps = group * bits // 32
    words = q.reshape(n, blocks, LANES, steps, 4).swapaxes(2, 3)
    return np.ascontiguousarray(words).view(np.uint32).reshape(n, blocks, steps * LANES), scales


def integers(words: np.ndarray, lanes: int, bits: int) -> np.ndarray:
    """The numbers in words (N, B, L), as (N, B, lanes, G) in the order of their row: of 8 bits signed, of 4 bits from 0 to 15."""
    n, blocks, count = words.shape
    q = np.ascontiguousarray(words).view(np.int8 if bits == 8 else np.uint8)
    q = (
        q.reshape(n, blocks, count // lanes, lanes, 4)
        .swapaxes(2, 3)
        .reshape(n, blocks, lanes, 4 * count // lanes)
    )
    return (np.concatenate((q & 15, q >> 4), -1) if bits == 4 else q).astype(np.int64)


def expanded(words: np.ndarray, scales: np.ndarray, bits: int) -> np.ndarray:
    """What words (N, B, L) and scales (N, B, LANES) stand for, in float64: (N, K) with K in whole blocks."""
    q = integers(words, scales.shape[-1], bits) - (8 if bits == 4 else 0)
    return (q * scales.astype(np.float64)[..., None]).reshape(len(q), np.prod(q.shape[1:]))
