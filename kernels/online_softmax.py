"""What the attention kernels share: which keys are seen, and a softmax over blocks of them, one after the other."""

import math

import numpy as np

import mosaic_compile as mc

LOG2_E, LN_2 = math.log2(math.e), math.log(2)
LOWEST = -(2.0**126)  # below every score, and finite: rows that see no key stay at 0 instead of NaN


def attention_reference(q, k, v, scale, seen, softcap) -> tuple[np.ndarray, np.ndarray]:
    """The definition, in float64: out and lse of queries (…, S, D) for keys and values (…, T, D).

    seen: which keys each query sees, broadcast to (…, S, T). softcap: as in `weighed`.
    """
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    scores = float(scale) * (q @ k.swapaxes(-1, -2))
    if softcap:
        scores = softcap * np.tanh(scores / softcap)
    scores = np.where(seen, scores, -np.inf)
    top = scores.max(axis=-1, keepdims=True, initial=-np.inf)
    top = np.where(np.isfinite(top), top, 0)
    weights = np.exp(scores - top)
    total = weights.sum(axis=-1, keepdims=True)
    with np.errstate(divide="ignore"):
        lse = (top + np.log(total))[..., 0]
    return weights @ v / np.where(total == 0, 1, total), lse


def seen_reference(S, T, causal, window) -> np.ndarray:
    """Which of T keys each of S queries sees, as `sees` says: S x T truth values."""
    last = np.arange(S)[:, None] + T - S if causal else np.full((S, 1), T - 1)
    keys = np.arange(T)
    return (keys <= last) & (keys > last - window) if window else keys <= last


def head_size(D):
    """The width of tiles that hold a head: a power of two, and no less than products take."""
    return max(16, 1 << (D - 1).bit_length())


def sees(keys, last, window):
    """Which queries see which keys: those up to `last`, with a window only so many of them."""
    return (keys <= last) & (keys > last - window) if window else keys <= last


def blocks_in_sight(first, BM, T, BN, causal, window):
    """Blocks of BN of T keys for BM neighbouring queries: begin <= whole <= full <= end.

    Some query sees keys of the blocks from begin to end - 1, and all see all keys of those from whole to
    full - 1, which need no mask. first: the last key that the first query sees; each query sees one key more,
    if `causal`.
    """
    if not causal:
        return 0, 0, T // BN, mc.cdiv(T, BN)
    full, end = mc.maximum(first + 1, 0) // BN, mc.cdiv(mc.clamp(first + BM, 0, T), BN)
    if not window:
        return 0, 0, full, end
    begin = mc.maximum(first + 1 - window, 0) // BN
    whole = mc.clamp(mc.cdiv(first + BM - window, BN), begin, end)
    return begin, whole, mc.maximum(full, whole), end


def weighed(scores, seen, top, factor, softcap):
    """The weights of a block of scores, what earlier weights are multiplied by, and the highest score now.

    scores: rows x keys, f32. seen: which of them count; None: all. top: each row's highest score so far.
    factor: what scores are multiplied by, times log2(e), so that exp2 suffices.
    softcap: scores become softcap * tanh(score / softcap); 0: they stay.
    """
    if softcap:
        scores = 1.0 - 2.0 / (1.0 + mc.exp2(scores * (factor * (2 / softcap))))
        factor = softcap * LOG2_E
    if seen is not None:
        scores = mc.where(seen, scores, float("-inf"))
    higher = mc.maximum(top, scores.max(1) * factor)
    return mc.exp2(scores * factor - higher[:, None]), mc.exp2(top - higher), higher


def nothing_seen(rows, width):
    """Weighted values, sum of weights, highest score: of rows that have seen no keys yet."""
    return mc.zeros((rows, width), mc.f32), mc.zeros(rows, mc.f32), mc.full(rows, LOWEST, mc.f32)


def averaged(acc, total):
    """Weighted values divided by the sum of their weights; 0 for rows that have seen no keys."""
    return acc / mc.where(total == 0.0, 1.0, total)[:, None]


def logarithm_of_sum(total, top):
    """The logarithm of the softmax's sum; minus infinity for rows that have seen no keys."""
    return mc.where(total == 0.0, float("-inf"), top * LN_2 + mc.log(total))
