"""Attention without the matrix of scores in memory."""

import math

import numpy as np

import mosaic_compile as mc

E = mc.DTypeVar("E", mc.bf16, mc.f16, mc.f32)

LOG2_E, LN_2 = math.log2(math.e), math.log(2)
LOWEST = -(2.0**126)  # below every score, and finite: rows that see no key stay at 0 instead of NaN


def reference(q, k, v, scale, *, causal=False) -> tuple[np.ndarray, np.ndarray]:
    """The definition, in float64: out and lse."""
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    (_, H, S, _), (_, HK, T, _) = q.shape, k.shape
    k, v = (np.repeat(x, H // HK, axis=1) for x in (k, v))
    scores = float(scale) * (q @ k.swapaxes(2, 3))
    if causal:
        scores = np.where(np.arange(T) <= np.arange(S)[:, None] + T - S, scores, -np.inf)
    top = scores.max(axis=3, keepdims=True, initial=-np.inf)
    top = np.where(np.isfinite(top), top, 0)
    weights = np.exp(scores - top)
    total = weights.sum(axis=3, keepdims=True)
    with np.errstate(divide="ignore"):
        lse = (top + np.log(total))[..., 0]
    return weights @ v / np.where(total == 0, 1, total), lse


@mc.kernel(
    grid=lambda S, H, B, BM: (mc.cdiv(S, BM), H, B),
    tune=[
        dict(BM=128, BN=128, num_warps=8, num_stages=2),
        dict(BM=128, BN=64, num_warps=8, num_stages=2),
        dict(BM=64, BN=32, num_warps=4, num_stages=2),
        dict(BM=64, BN=16, num_warps=4, num_stages=1),
    ],
    reference=reference,
)
def flash_attention(
    q: E["B", "H", "S", "D"],
    k: E["B", "HK", "T", "D"],
    v: E["B", "HK", "T", "D"],
    out: mc.Out[E["B", "H", "S", "D"]],
    scale: mc.f32,
    lse: mc.Out[mc.f32["B", "H", "S"]] | None = None,
    *,
    causal: mc.Const = False,
    precision: mc.Const = "ieee",
    BM: mc.Const = 128,
    BN: mc.Const = 64,
    D: mc.Const = 128,
):
    """out = softmax(scale * q @ k^T) @ v for each batch and head; lse: the logarithm of the softmax's sum.

    q, out: S queries of H heads, each of D elements of type E. k, v: T keys of HK heads, of which each serves
    H / HK heads of queries (multi-head, grouped-query and multi-query attention). lse is optional, and f32.
    scale: positive, usually D ** -0.5.
    causal: query s sees the keys up to s + T - S, so the last query sees all. A query that sees none gives 0.
    precision: of products of f32 elements, "ieee" or the faster "tf32" and "tf32x3" (see mc.dot).
    BM, BN: queries of a program, keys of a step. D: the head size, which the arrays give in a call.

    Dao, "FlashAttention-2", 2023, with the running maximum of Milakov and Gimelshein, 2018; grouped queries:
    Ainslie et al., 2023. Scores are kept times log2(e), so that exp2 suffices.
    """
    (H, S), (HK, T) = q.shape[1:3], k.shape[1:3]
    BD = max(16, 1 << (D - 1).bit_length())  # tiles are powers of two; what is beyond D loads as zeros
    i, h, b = mc.program_id(0), mc.program_id(1), mc.program_id(2)
    if causal:
        i = mc.num_programs(0) - 1 - i  # the longest rows first, so that no program is left alone at the end
    keys, values = k[b, h * HK // H], v[b, h * HK // H]
    queries = mc.load(q[b, h], (i, 0), (BM, BD))
    factor = scale * LOG2_E

    def step(n, acc, total, top, last):
        """Adds the keys of block n, of which each query sees those up to `last`, or all (None)."""
        scores = mc.dot(queries, mc.load(keys, (n, 0), (BN, BD)).T, precision=precision)
        if last is not None:
            scores = mc.where(n * BN + mc.iota(BN) <= last, scores, float("-inf"))
        higher = mc.maximum(top, scores.max(1) * factor)
        weights = mc.exp2(scores * factor - higher[:, None])
        decay = mc.exp2(top - higher)
        weighted = mc.load(values, (n, 0), (BN, BD))
        acc = mc.dot(weights.to(v.dtype), weighted, acc * decay[:, None], precision=precision)
        return acc, total * decay + weights.sum(1), higher

    acc = mc.zeros((BM, BD), mc.f32)
    total = mc.zeros(BM, mc.f32)
    top = mc.full(BM, LOWEST, mc.f32)
    if causal:
        first = i * BM + T - S  # what the first query sees last; each query sees one key more
        last = (first + mc.iota(BM))[:, None]
        full, end = mc.maximum(first + 1, 0) // BN, mc.cdiv(mc.clamp(first + BM, 0, T), BN)
    else:
        last = T - 1
        full, end = T // BN, mc.cdiv(T, BN)
    for n in range(full):  # without masks
        acc, total, top = step(n, acc, total, top, None)
    for n in range(full, end):
        acc, total, top = step(n, acc, total, top, last)

    mc.store(out[b, h], (i, 0), (acc / mc.where(total == 0.0, 1.0, total)[:, None]).to(out.dtype))
    if lse is not None:
        mc.store(lse[b, h], i, top * LN_2 + mc.log(total))
