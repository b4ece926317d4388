"""Attention without the matrix of scores in memory."""

import numpy as np

import mosaic_compile as mc
from mosaic_compile.kernels.online_softmax import (
    LOG2_E,
    attention_reference,
    averaged,
    blocks_in_sight,
    head_size,
    logarithm_of_sum,
    nothing_seen,
    seen_reference,
    sees,
    weighed,
)

E = mc.DTypeVar("E", mc.bf16, mc.f16, mc.f32)


def reference(q, k, v, scale, *, causal=False, window=0, softcap=0.0) -> tuple[np.ndarray, np.ndarray]:
    """The definition, in float64: out and lse."""
    H, HK = q.shape[1], k.shape[1]
    k, v = (np.repeat(x, H // HK, axis=1) for x in (k, v))
    seen = seen_reference(q.shape[2], k.shape[2], causal, window)
    return attention_reference(q, k, v, scale, seen, softcap)


@mc.kernel(
    grid=lambda S, H, B, BM: (mc.cdiv(S, BM), H, B),
    tune=dict(
        gpu=[
            dict(BM=64, BN=64, num_warps=4, num_stages=3),  # 112 KiB of shared memory for 16-bit heads of 128
            dict(BM=64, BN=128, num_warps=4, num_stages=3),
            dict(BM=128, BN=128, num_warps=8, num_stages=3),
            dict(BM=128, BN=64, num_warps=8, num_stages=3),
            dict(BM=128, BN=64, num_warps=8, num_stages=2),
            dict(BM=64, BN=32, num_warps=4, num_stages=2),
            dict(BM=64, BN=16, num_warps=4, num_stages=1),
        ],
        cpu=[dict(BM=64, BN=64)],
    ),
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
    window: mc.Const = 0,
    softcap: mc.Const = 0.0,
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
    window: of these keys, a query sees the last so many (Mistral); 0: all. It needs `causal`.
    softcap: scores become softcap * tanh(score / softcap), which stays below softcap (Gemma 2); 0: they stay.
    precision: of products of f32 elements, "ieee" or the faster "tf32" and "tf32x3" (see mc.dot).
    BM, BN: queries of a program, keys of a step. D: the head size, which the arrays give in a call.

    Dao, "FlashAttention-2", 2023, with the running maximum of Milakov and Gimelshein, 2018; grouped queries:
    Ainslie et al., 2023; windows: Beltagy et al., "Longformer", 2020. Only blocks of keys that some query of the
    program sees are read.
    """
    assert causal or not window, (
        "window needs causal=True: it counts back from the last key that a query sees"
    )
    (H, S), (HK, T) = q.shape[1:3], k.shape[1:3]
    BD = head_size(D)
    i, h, b = mc.program_id(0), mc.program_id(1), mc.program_id(2)
    if causal:
        i = mc.num_programs(0) - 1 - i  # the longest rows first, so that no program is left alone at the end
    keys, values = k[b, h * HK // H], v[b, h * HK // H]
    queries = mc.load(q[b, h], (i, 0), (BM, BD))
    factor = scale * LOG2_E

    def step(n, acc, total, top, last):
        """Adds the keys of block n, of which each query sees those up to `last`, or all (None)."""
        scores = mc.dot(queries, mc.load(keys, (n, 0), (BN, BD)).T, precision=precision)
        seen = None if last is None else sees(n * BN + mc.iota(BN), last, window)
        weights, decay, top = weighed(scores, seen, top, factor, softcap)
        weighted = mc.load(values, (n, 0), (BN, BD))
        acc = mc.dot(weights.to(v.dtype), weighted, acc * decay[:, None], precision=precision)
        return acc, total * decay + weights.sum(1), top

    acc, total, top = nothing_seen(BM, BD)
    first, last = i * BM + T - S, T - 1  # what the first query sees last, what all of them see last
    if causal:
        last = (first + mc.iota(BM))[:, None]
    begin, whole, full, end = blocks_in_sight(first, BM, T, BN, causal, window)
    if window:
        for n in mc.range(begin, whole, num_stages=1):
            acc, total, top = step(n, acc, total, top, last)
    for n in range(whole, full):  # without masks
        acc, total, top = step(n, acc, total, top, None)
    # Few blocks: stages of their own would take shared memory from other programs.
    for n in mc.range(full, end, num_stages=1):
        acc, total, top = step(n, acc, total, top, last)

    mc.store(out[b, h], (i, 0), averaged(acc, total).to(out.dtype))
    if lse is not None:
        mc.store(lse[b, h], i, logarithm_of_sum(total, top))
