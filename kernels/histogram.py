"""Counting values."""

import numpy as np

import mosaic_compile as mc

T = mc.DTypeVar("T", mc.i32, mc.i64, mc.u8)


def reference(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The definition."""
    inside = (values >= 0) & (values < len(counts))
    return counts + np.bincount(values[inside], minlength=len(counts)).astype(counts.dtype)


@mc.kernel(
    grid=lambda N, BLOCK, num_sms: (mc.minimum(mc.cdiv(N, BLOCK), 8 * num_sms),),
    tune=dict(
        gpu=[
            dict(BLOCK=256, BITS=4, num_warps=4, when=lambda BINS: BINS <= 256),
            dict(BLOCK=512, BITS=5, num_warps=4, when=lambda BINS: BINS <= 1024),
            dict(BLOCK=256, BITS=0, num_warps=8, when=lambda BINS: BINS > 1024),
            dict(BLOCK=512, BITS=5, num_warps=8),  # for any number of them
        ],
        cpu=[dict(BLOCK=4096), dict(BLOCK=1024)],
    ),
    reference=reference,
)
def histogram(
    values: T["N"], counts: mc.InOut[mc.i32["BINS"]], *, BLOCK: mc.Const = 4096, BITS: mc.Const = 0
):
    """counts[v] += how often v is in `values`, for each v of 0 … BINS - 1.

    values: N elements of type T; those outside 0 … BINS - 1 are not counted. counts: BINS numbers, i32, which
    the caller sets to zero for a first histogram, or leaves to add to it.
    BLOCK: elements of a step. Up to 4 ** BITS bins, a program counts by products of matrices: a value's upper and
    lower BITS bits stand for two unit vectors, whose outer products are added up on matrix units; at the end its
    counts are added to the others'. More bins take an atomic addition for each value, and equal values wait
    for each other.
    """
    BINS = counts.shape[0]
    blocks, first, programs = mc.cdiv(values.shape[0], BLOCK), mc.program_id(0), mc.num_programs(0)
    if BITS and BINS <= 1 << (2 * BITS):
        SIDE = 1 << BITS
        side = mc.iota(SIDE)
        total = mc.zeros((SIDE, SIDE), mc.i32)
        for i in mc.range(first, blocks, programs):
            v = bins_of(values, i, BLOCK, BINS)
            upper = (side[:, None] == (v >> BITS)[None, :]).to(mc.i8)
            lower = ((v & (SIDE - 1))[:, None] == side[None, :]).to(mc.i8)
            total = mc.dot(upper, lower, total)
        mc.scatter_add(counts, SIDE * side[:, None] + side[None, :], total)
    else:
        for i in mc.range(first, blocks, programs):
            mc.scatter_add(counts, bins_of(values, i, BLOCK, BINS), mc.ones(BLOCK, mc.i32))


def bins_of(values, i, BLOCK, BINS):
    """The bins of a block's values; -1 for what is not counted."""
    v, place = mc.load(values, i, BLOCK), i * BLOCK + mc.iota(BLOCK)
    counted = (v >= 0) & (v < values.dtype(BINS)) if values.dtype == mc.i64 else v >= 0
    return mc.where(counted & (place < values.shape[0]), v.to(mc.i32), -1)
