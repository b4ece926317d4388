"""Attention of sequences of different lengths that lie one after the other, without padding."""

import numpy as np

import mosaic_compile as mc
from mosaic_compile.kernels.flash_attention import reference as one_length
from mosaic_compile.kernels.online_softmax import (
    LOG2_E,
    averaged,
    blocks_in_sight,
    head_size,
    logarithm_of_sum,
    nothing_seen,
    sees,
    weighed,
)

E = mc.DTypeVar("E", mc.bf16, mc.f16, mc.f32)


def reference(q, k, v, query_starts, key_starts, scale, *, causal=False, window=0, softcap=0.0):
    """The definition, in float64: out and lse. One sequence after the other."""
    out, lse = np.zeros(q.shape), np.zeros(q.shape[1::-1])
    for b in range(len(query_starts) - 1):
        queries, keys = (slice(*starts[b : b + 2]) for starts in (query_starts, key_starts))
        one = (x.swapaxes(0, 1)[None] for x in (q[queries], k[keys], v[keys]))
        results = one_length(*one, scale, causal=causal, window=window, softcap=softcap)
        out[queries], lse[:, queries] = results[0][0].swapaxes(0, 1), results[1][0]
    return out, lse


@mc.kernel(
    grid=lambda S, STARTS, H, BM: (S // BM + STARTS - 1, H),
    tune=dict(
        gpu=[
            dict(BM=64, BN=64, num_warps=4, num_stages=3),
            dict(BM=128, BN=128, num_warps=8, num_stages=2),
            dict(BM=128, BN=64, num_warps=8, num_stages=3),
            dict(BM=64, BN=32, num_warps=4, num_stages=2),
            dict(BM=64, BN=16, num_warps=4, num_stages=1),
        ],
        cpu=[dict(BM=64, BN=64)],
    ),
    reference=reference,
)
def varlen_attention(
    q: E["S", "H", "D"],
    k: E["T", "HK", "D"],
    v: E["T", "HK", "D"],
    query_starts: mc.i32["STARTS"],
    key_starts: mc.i32["STARTS"],
    out: mc.Out[E["S", "H", "D"]],
    scale: mc.f32,
    lse: mc.Out[mc.f32["H", "S"]] | None = None,
    *,
    causal: mc.Const = False,
    window: mc.Const = 0,
    softcap: mc.Const = 0.0,
    precision: mc.Const = "ieee",
    BM: mc.Const = 128,
    BN: mc.Const = 64,
    D: mc.Const = 128,
):
    """`flash_attention` of each of STARTS - 1 sequences, whose tokens are neighbours in the arrays.

    q, out: the queries of all sequences, S x H x D; k, v: their keys and values, T x HK x D; lse: optional, H x S.
    query_starts, key_starts: i32, where each sequence's queries and keys begin, and where the last one's end:
    not falling, from 0 to S and T. Sequences may be empty. A sequence's numbers do not depend on its neighbours.
    The other parameters are those of `flash_attention`.

    Nothing says how long the longest sequence is: blocks of queries are numbered through all sequences.
    """
    assert causal or not window, (
        "window needs causal=True: it counts back from the last key that a query sees"
    )
    H, HK = q.shape[1], k.shape[1]
    BD = head_size(D)
    program, h = (
        mc.num_programs(0) - 1 - mc.program_id(0),
        mc.program_id(1),
    )  # a sequence's longest rows first
    b = sequence_of(program, query_starts, BM)
    start, key_start = mc.gather(query_starts, b), mc.gather(key_starts, b)
    S, T = mc.gather(query_starts, b + 1) - start, mc.gather(key_starts, b + 1) - key_start
    i = program - (start // BM + b)
    if i * BM >= S:
        return
    keys, values = (x.permute(1, 0, 2)[h * HK // H] for x in (k, v))
    queries = mc.load(q.permute(1, 0, 2)[h], offset=(start + i * BM, 0), shape=(BM, BD))
    factor = scale * LOG2_E

    def step(n, acc, total, top, last):
        """Adds the keys of block n, of which each query sees those up to `last`, or all (None)."""
        place = (key_start + n * BN, 0)
        scores = mc.dot(queries, mc.load(keys, offset=place, shape=(BN, BD)).T, precision=precision)
        weighted = mc.load(values, offset=place, shape=(BN, BD))
        seen = None
        if last is not None:
            number = n * BN + mc.iota(BN)
            seen = sees(number, last, window)
            # The next sequence's values have no weight, but infinity times 0 is NaN.
            weighted = mc.where((number < T)[:, None], weighted, 0.0)
        weights, decay, top = weighed(scores, seen, top, factor, softcap)
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

    row = i * BM + mc.iota(BM)
    place = (start + row)[:, None], mc.iota(BD)[None, :]
    mc.scatter(out.permute(1, 0, 2)[h], place, averaged(acc, total).to(out.dtype), mask=(row < S)[:, None])
    if lse is not None:
        mc.scatter(lse[h], start + row, logarithm_of_sum(total, top), mask=row < S)


def sequence_of(block, starts, BM):
    """The sequence that block number `block` of BM queries belongs to.

    Sequence b's blocks are numbered from starts[b] // BM + b on: enough for one more block than fills it. So it is
    the last one whose first block is not beyond `block`.
    """
    low, high = mc.i32(0), starts.shape[0] - 1
    while low + 1 < high:
        middle = (low + high) // 2
        begins = mc.gather(starts, middle) // BM + middle <= block
        low, high = mc.where(begins, middle, low), mc.where(begins, high, middle)
    return low
