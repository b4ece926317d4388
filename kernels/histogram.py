"""Counting values."""

import numpy as np

import mosaic_compile as mc

T = mc.DTypeVar("T", mc.i32, mc.i64, mc.u8)


def reference(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The definition."""
    inside = (values >= 0) & (values < len(counts))
    return counts + np.bincount(values[inside], minlength=len(counts)).astype(counts.dtype)


@mc.kernel(
    grid=lambda N, BLOCK: (mc.cdiv(N, BLOCK),),
    tune=dict(
        gpu=[dict(BLOCK=4096, num_warps=4), dict(BLOCK=1024, num_warps=4)],
        cpu=[dict(BLOCK=4096), dict(BLOCK=1024)],
    ),
    reference=reference,
)
def histogram(values: T["N"], counts: mc.InOut[mc.i32["BINS"]], *, BLOCK: mc.Const = 4096):
    """counts[v] += how often v is in `values`, for each v of 0 … BINS - 1.

    values: N elements of type T; those outside 0 … BINS - 1 are not counted. counts: BINS numbers, i32, which
    the caller sets to zero for a first histogram, or leaves to add to it. BLOCK: elements a program. Counts
    are added atomically one by one, so that many equal values wait for each other.
    """
    i = mc.program_id(0)
    block = mc.load(values, i, BLOCK)
    counted = i * BLOCK + mc.iota(BLOCK) < values.shape[0]  # what is loaded beyond the end would count as 0
    if values.dtype == mc.i64:
        counted &= (block >= 0) & (block < values.dtype(counts.shape[0]))
    mc.scatter_add(counts, block.to(mc.i32), mc.ones(BLOCK, mc.i32), mask=counted)
