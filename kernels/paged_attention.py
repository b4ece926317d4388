"""Decoding: attention of one new token of each sequence, whose keys and values lie in pages of a cache."""

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
    weighed,
)

E = mc.DTypeVar("E", mc.bf16, mc.f16, mc.f32)
P = mc.DTypeVar("P", mc.f32, mc.bf16, mc.f16)  # of what the splits give


def reference(
    q, k_cache, v_cache, page_table, lengths, out, scale, *, window=0, softcap=0.0, BN=64
) -> tuple[np.ndarray, np.ndarray]:
    """The definition, in float64: out and lse. `out` says how many splits there are."""
    SPLITS, B, HK, G, D = out.shape
    parts, lses = np.zeros(out.shape), np.zeros((SPLITS, B, HK, G))
    for b, length in enumerate(lengths.tolist()):
        pages = page_table[b, : -(-length // k_cache.shape[1])]
        k, v = (cache[pages].reshape(-1, HK, D)[:length].swapaxes(0, 1) for cache in (k_cache, v_cache))
        seen = np.arange(length) >= (length - window if window else 0)
        begin, end = int(np.argmax(seen)) // BN if length else 0, -(-length // BN)
        share = -(-(end - begin) // SPLITS)
        for s in range(SPLITS):
            part = slice((begin + s * share) * BN, (begin + (s + 1) * share) * BN)
            parts[s, b], lses[s, b] = attention_reference(
                q[b], k[:, part], v[:, part], scale, seen[part], softcap
            )
    return parts, lses


@mc.kernel(
    grid=lambda SPLITS, HK, G, BG, B: (SPLITS, HK * mc.cdiv(G, BG), B),
    tune=dict(
        gpu=[
            # Of the stages, the loads of page numbers take their share: 5 keep two blocks of keys and values each.
            dict(BG=16, BN=64, num_warps=4, num_stages=5),  # 66 KiB of shared memory for 16-bit heads of 128
            dict(BG=16, BN=64, num_warps=4, num_stages=7),
            dict(BG=16, BN=128, num_warps=8, num_stages=3),
            dict(BG=16, BN=64, num_warps=4, num_stages=3),
            dict(BG=16, BN=32, num_warps=4, num_stages=3),
            dict(BG=16, BN=16, num_warps=4, num_stages=2),
        ],
        cpu=[
            dict(BG=4, BN=16),
            dict(BG=8, BN=16),
            dict(BG=4, BN=32),
        ],  # blocks within a page: CPUs gather slowly
    ),
    reference=reference,
)
def paged_attention(
    q: E["B", "HK", "G", "D"],
    k_cache: E["PAGES", "PAGE", "HK", "D"],
    v_cache: E["PAGES", "PAGE", "HK", "D"],
    page_table: mc.i32["B", "MOST"],
    lengths: mc.i32["B"],
    out: mc.Out[P["SPLITS", "B", "HK", "G", "D"]],
    scale: mc.f32,
    lse: mc.Out[mc.f32["SPLITS", "B", "HK", "G"]] | None = None,
    *,
    window: mc.Const = 0,
    softcap: mc.Const = 0.0,
    precision: mc.Const = "ieee",
    BG: mc.Const = 16,
    BN: mc.Const = 64,
    D: mc.Const = 128,
    PAGE: mc.Const = 16,
):
    """Attention of each sequence's last token to all of its keys, these cut into SPLITS parts that run at once.

    q: for each of B sequences and HK heads of keys, the G heads of queries that share it, of D elements: what
    models have as B x H x D. k_cache, v_cache: pages of PAGE tokens, as vLLM keeps them with its layout "NHD".
    page_table: i32, B x MOST; token t of sequence b is number t % PAGE of page page_table[b, t // PAGE]. What is
    beyond a sequence's pages, or in pages before its window, is not read. lengths: i32, tokens of each
    sequence, with the new one, whose key and value are in the cache.
    out, lse: for each split, the attention to its part of the keys, and the logarithm of its softmax's sum: 0 and
    minus infinity where the part is empty. `merge_attention` makes one of them; a single split is the
    result, and may be written in q's type. lse is f32, and optional.
    scale, window, softcap, precision: those of `flash_attention`.
    BG, BN: heads of queries of a program, keys of a step. A step within a page is one block, others gather rows.

    Dao, Haziza, Massa and Sizov, "Flash-Decoding for long-context inference", 2023; Kwon et al., "Efficient
    memory management for large language model serving with PagedAttention", 2023.
    """
    SPLITS, G = out.shape[0], q.shape[2]
    BD = head_size(D)
    s, b = mc.program_id(0), mc.program_id(2)
    groups = mc.cdiv(G, BG)
    h, g = mc.program_id(1) // groups, mc.program_id(1) % groups
    length = mc.gather(lengths, b)
    queries = mc.load(q[b, h], (g, 0), (BG, BD))
    factor = scale * LOG2_E

    def step(n, acc, total, top, cut):
        """Adds the keys of block n, of which, if `cut`, some are outside the sequence or its window."""
        tokens = n * BN + mc.iota(BN)
        seen = None
        if cut:
            seen = (tokens < length) & (tokens >= length - window) if window else tokens < length
        keys, values = blocks((k_cache, v_cache), h, page_table[b], n, tokens, seen, BD, PAGE)
        scores = mc.dot(queries, keys.T, precision=precision)
        weights, decay, top = weighed(scores, seen, top, factor, softcap)
        acc = mc.dot(weights.to(q.dtype), values, acc * decay[:, None], precision=precision)
        return acc, total * decay + weights.sum(1), top

    acc, total, top = nothing_seen(BG, BD)
    begin, whole, full, end = blocks_in_sight(length - 1, 1, length, BN, True, window)
    share = mc.cdiv(end - begin, SPLITS)
    first = begin + s * share
    last = mc.minimum(first + share, end)
    if window:
        for n in mc.range(first, mc.minimum(whole, last), num_stages=1):
            acc, total, top = step(n, acc, total, top, True)
    for n in range(mc.maximum(first, whole), mc.minimum(full, last)):  # without masks
        acc, total, top = step(n, acc, total, top, False)
    for n in mc.range(mc.maximum(first, full), last, num_stages=1):  # at most one
        acc, total, top = step(n, acc, total, top, True)

    mc.store(out[s, b, h], (g, 0), averaged(acc, total).to(out.dtype))
    if lse is not None:
        mc.store(lse[s, b, h], g, logarithm_of_sum(total, top))


def blocks(caches, h, pages, n, tokens, seen, BD, PAGE):
    """The rows of head h for `tokens`, block n of a sequence with these pages: one tile for each of the caches.

    seen: the tokens that are read, the others give zeros; None: all.
    """
    BN = tokens.shape[0]
    heads = [cache.permute(2, 0, 1, 3)[h] for cache in caches]
    if seen is None and PAGE % BN == 0:
        per_page = PAGE // BN
        page = mc.gather(pages, n // per_page)
        return [mc.load(head[page], (n % per_page, 0), (BN, BD)) for head in heads]
    page = mc.gather(pages, tokens // PAGE, mask=seen)
    place = page[:, None], (tokens % PAGE)[:, None], mc.iota(BD)[None, :]
    mask = None if seen is None else seen[:, None]
    return [mc.gather(head, place, mask=mask) for head in heads]


def number_of_splits(sequences, kv_heads, longest, num_sms) -> int:
    """How many parts to cut the keys into, on the host: few sequences leave multiprocessors idle otherwise.

    sequences: B. kv_heads: HK. longest: tokens of the longest sequence. num_sms: multiprocessors of the GPU.
    Counts time in steps of 64 keys: programs run in rounds of two a multiprocessor, at most four rounds; starting
    one costs about 2 steps, merging about 3. No part is shorter than 2 steps.
    """
    programs, steps, places = max(1, sequences * kv_heads), -(-longest // 64), 2 * num_sms

    def time(splits: int) -> int:
        return -(-programs * splits // places) * (-(-steps // splits) + 2) + 3 * (splits > 1)

    return min(range(1, max(1, min(steps // 2, 4 * places // programs)) + 1), key=time)


def merge_reference(parts, lses) -> tuple[np.ndarray, np.ndarray]:
    """The definition, in float64: out and lse."""
    parts, lses = parts.astype(np.float64), lses.astype(np.float64)
    top = lses.max(axis=0, initial=-np.inf)
    top = np.where(np.isfinite(top), top, 0)
    weights = np.exp(lses - top)
    total = weights.sum(axis=0)
    with np.errstate(divide="ignore"):
        lse = top + np.log(total)
    return np.einsum("sn,snd->nd", weights, parts) / np.where(total == 0, 1, total)[:, None], lse


@mc.kernel(
    grid=lambda N: (N,),
    tune=[dict(BS=16, num_warps=4)],
    reference=merge_reference,
)
def merge_attention(
    parts: mc.f32["SPLITS", "N", "D"],
    lses: mc.f32["SPLITS", "N"],
    out: mc.Out[E["N", "D"]],
    lse: mc.Out[mc.f32["N"]] | None = None,
    *,
    BS: mc.Const = 16,
    D: mc.Const = 128,
):
    """The attention to all keys from the attention to parts of them, for N rows of D elements.

    parts: the results for each of SPLITS parts, f32. lses: the logarithms of their softmax's sums, minus infinity
    where a part has no keys. out: of type E. lse: of all keys; f32, optional. BS: parts of a step.
    """
    n = mc.program_id(0)
    rows, logarithms = parts.permute(1, 0, 2)[n], lses.T[n]
    acc, total, top = nothing_seen(1, head_size(D))
    for s in range(mc.cdiv(parts.shape[0], BS)):
        scores = mc.load(logarithms, s, BS, pad=float("-inf"))[None, :]
        weights, decay, top = weighed(scores, None, top, LOG2_E, 0.0)
        block = mc.load(rows, (s, 0), (BS, acc.shape[1]))
        acc = acc * decay[:, None] + (weights.T * block).sum(0, keepdims=True)
        total = total * decay + weights.sum(1)
    mc.store(out, (n, 0), averaged(acc, total).to(out.dtype))
    if lse is not None:
        mc.store(lse, n, logarithm_of_sum(total, top))
