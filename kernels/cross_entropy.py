"""The loss of language models: cross entropy of rows of logits, without their softmax in memory."""

import numpy as np

import mosaic_compile as mc

T = mc.DTypeVar("T", mc.bf16, mc.f16, mc.f32)
L = mc.DTypeVar("L", mc.i64, mc.i32)

LOWEST = -3.4028234663852886e38  # of f32


def reference(logits, labels, *, label_smoothing=0.0, ignore_index=-100) -> tuple[np.ndarray, np.ndarray]:
    """The definition, in float64: loss and lse."""
    logits = logits.astype(np.float64)
    top = logits.max(axis=1, initial=-np.inf)
    top = np.where(top == -np.inf, 0, top)
    with np.errstate(divide="ignore"):
        lse = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    (known,) = np.nonzero((labels >= 0) & (labels < logits.shape[1]))
    picked = np.full(len(labels), np.nan)
    picked[known] = logits[known, labels[known]]
    loss = (1 - label_smoothing) * (lse - picked)
    if label_smoothing:
        loss += label_smoothing * (lse - logits.mean(axis=1))
    return np.where(labels == ignore_index, 0, loss), lse


@mc.kernel(
    grid=lambda M, BM: (mc.cdiv(M, BM),),
    tune=dict(
        gpu=[
            dict(BM=16, BN=128, num_warps=4, when=lambda V: V <= 128),
            dict(BM=4, BN=1024, num_warps=4, when=lambda V: V <= 1024),
            dict(BM=1, BN=2048, num_warps=8),  # the vocabularies of language models
            dict(BM=1, BN=4096, num_warps=16),
            dict(BM=1, BN=4096, num_warps=8),
            dict(BM=1, BN=8192, num_warps=16),
        ],
        cpu=[
            dict(BM=1, BN=128),
            dict(BM=1, BN=256),
            dict(BM=4, BN=128),
        ],
    ),
    reference=reference,
)
def cross_entropy(
    logits: T["M", "V"],
    labels: L["M"],
    loss: mc.Out[mc.f32["M"]],
    lse: mc.Out[mc.f32["M"]] | None = None,
    *,
    label_smoothing: mc.Const = 0.0,
    ignore_index: mc.Const = -100,
    BM: mc.Const = 1,
    BN: mc.Const = 2048,
):
    """loss[m] = lse[m] - logits[m, labels[m]], with lse[m] = log(sum(exp(logits[m, :]))), computed in f32.

    logits: M rows of V elements of type T. labels: M numbers of 0 … V - 1, i64 or i32. loss, and the optional
    output lse: M elements, f32, as PyTorch's cross_entropy with reduction="none".
    label_smoothing: the part s of the label's probability that is spread over all classes; the loss becomes
    lse - (1 - s) * logits[m, labels[m]] - s * mean(logits[m, :]).
    ignore_index: rows of this label have a loss of 0. Another label that is no class gives NaN.
    A program does BM rows, and reads them once, BN elements at a time.

    The running maximum: Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018; label
    smoothing: Szegedy et al., "Rethinking the Inception architecture", 2016.
    """
    m = mc.program_id(0)
    V = logits.shape[1]
    # Each column of the tile keeps a maximum and a sum of its own: no reduction waits inside the loop.
    top = mc.full((BM, BN), LOWEST, mc.f32)  # finite, so that minus infinity adds nothing
    total = mc.zeros((BM, BN), mc.f32)
    sums = mc.zeros((BM, BN), mc.f32)
    for n in range(mc.cdiv(V, BN)):
        block = mc.load(logits, (m, n), (BM, BN), pad=float("-inf")).to(mc.f32)
        ratio = mc.exp(-mc.abs(block - top))
        total = mc.where(block > top, total * ratio + 1.0, total + ratio)
        top = mc.maximum(top, block)
        if label_smoothing:
            sums += mc.where(n * BN + mc.iota(BN) < V, block, 0.0)
    highest = top.max(1)
    log_total = mc.log((total * mc.exp(top - highest[:, None])).sum(1))

    label = mc.load(labels, m, BM)
    known = (label >= 0) & (label < labels.dtype(V))
    picked = mc.gather(logits, (m * BM + mc.iota(BM), label.to(mc.i32)), mask=known, pad=float("nan"))
    # Differences from the maximum first: what all logits have in common cancels without rounding.
    result = log_total + (1.0 - label_smoothing) * (highest - picked.to(mc.f32))
    if label_smoothing:
        result += label_smoothing * (highest - sums.sum(1) / mc.f32(V))
    mc.store(loss, m, mc.where(label == ignore_index, 0.0, result))
    if lse is not None:
        mc.store(lse, m, highest + log_total)
