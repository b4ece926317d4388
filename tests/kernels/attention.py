"""What rounding explains in attention: shared by the tests of its kernels."""

from __future__ import annotations

from typing import Any

import numpy as np

from .helpers import U32, assert_within, least, roundoff


def weight_error(q: Any, k: Any, scale: float, softcap: float) -> np.ndarray:
    """The relative error of weights, the same for all rows of a matrix of scores: (…, 1, 1).

    A score adds up d products, of which each is at most what the magnitudes give; its absolute error is the
    weight's relative one. The sum of t weights adds its own. With softcap, tanh is 1 - 2 / (1 + 2^a): its value
    is off by at most 16 U32 (1.5 by the rounding of a, 2 of 2^a, 2 of the sum, 8 of a GPU's division, 1 of the
    difference), and no step makes the error of the score larger.
    """
    q, k = abs(q.astype(np.float64)), abs(k.astype(np.float64))
    d, t = q.shape[-1], k.shape[-2]
    scores = scale * (q @ k.swapaxes(-1, -2)).max(initial=0, axis=(-2, -1))[..., None, None]
    return 2 * (d + 8) * U32 * scores + (t + 16 + 16 * softcap) * U32


def assert_attention(
    out: Any, lse: Any, expected: Any, expected_lse: Any, mean_of_magnitudes: Any, weight: Any, dtype: Any
) -> None:
    """out: weights are also rounded to `dtype`, their element type, before they meet the values."""
    bound = (2 * weight + roundoff(dtype)) * mean_of_magnitudes + roundoff(out.dtype) * abs(expected)
    assert_within(out, expected, 1.01 * bound + least(out.dtype))
    if lse is not None:
        with np.errstate(invalid="ignore"):
            bound = weight[..., 0] + 4 * U32 * abs(np.nan_to_num(expected_lse, neginf=0))
        assert_within(lse, expected_lse, bound)
