"""varlen_attention."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mosaic_compile.kernels import varlen_attention

from .attention import assert_attention, weight_error
from .helpers import FLOATS, TARGETS, examples, launch, on_targets, random, unwritten


def check_varlen(
    lengths,
    h=2,
    hk=1,
    d=16,
    dtype="f32",
    target=None,
    *,
    causal=True,
    window=0,
    softcap=0.0,
    lse=True,
    **constants,
):
    """lengths: of each sequence, queries and keys."""
    starts = np.cumsum([(0, 0), *lengths], axis=0, dtype=np.int32)
    query_starts, key_starts = np.ascontiguousarray(starts.T)
    s, t = starts[-1]
    q, k, v = random(1, (s, h, d), dtype), random(2, (t, hk, d), dtype), random(3, (t, hk, d), dtype)
    out = unwritten((s, h, d), dtype)
    sums = {"lse": unwritten((h, s), "f32")} if lse else {}
    scale = float(np.float32(d**-0.5))
    given = dict(query_starts=query_starts, key_starts=key_starts, scale=scale)
    options = dict(causal=causal, window=window, softcap=softcap)
    launch(
        varlen_attention,
        q=q,
        k=k,
        v=v,
        out=out,
        **given,
        **options,
        **sums,
        **{"BM": 16, "BN": 16, **constants},
        target=target,
    )
    expected, expected_lse = varlen_attention.reference(q, k, v, **given, **options)
    mean_of_magnitudes = varlen_attention.reference(q, k, abs(v), **given, **options)[0]
    by_head = lambda x: np.repeat(x.swapaxes(0, 1), h // x.shape[1], axis=0)
    weight = weight_error(
        by_head(q), by_head(k), scale, softcap
    )  # of all pairs: more than those in a sequence
    heads_first = (x.swapaxes(0, 1) for x in (out, expected, mean_of_magnitudes))
    out, expected, mean_of_magnitudes = heads_first
    assert_attention(out, sums.get("lse"), expected, expected_lse, mean_of_magnitudes, weight, q.dtype)


@on_targets
@pytest.mark.parametrize(
    "lengths",
    [
        [],
        [(0, 0)],
        [(1, 1)],
        [(16, 16), (16, 16)],
        [(0, 5), (5, 0), (0, 0), (3, 3), (0, 0)],
        [(1, 40), (40, 40), (17, 3), (1, 1), (33, 50)],
        [(2, 2)] * 40,
        [(15, 15), (1, 1), (16, 16), (17, 17)],
    ],
    ids=str,
)
@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
def test_lengths(lengths, causal, target):
    """No sequences, empty ones, many in a block, queries without keys."""
    check_varlen(lengths, causal=causal, target=target)


@on_targets
@pytest.mark.parametrize(
    "options", [dict(window=5), dict(window=20, softcap=2.0), dict(softcap=30.0)], ids=str
)
@pytest.mark.parametrize("blocks", [(16, 16), (32, 16), (16, 32)])
def test_options(options, blocks, target):
    lengths = [(20, 33), (70, 70), (1, 60)]
    check_varlen(lengths, h=6, hk=2, **options, BM=blocks[0], BN=blocks[1], target=target)


@on_targets
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("d", [64, 80, 3])
def test_types_and_head_sizes(dtype, d, target):
    check_varlen([(17, 17), (20, 35)], d=d, dtype=dtype, target=target)


@given(
    lengths=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=9),
    options=st.sampled_from([dict(causal=False), dict(), dict(window=7), dict(softcap=1.0, window=30)]),
    blocks=st.sampled_from([(16, 16), (32, 16), (16, 32)]),
    lse=st.booleans(),
    target=st.sampled_from(TARGETS),
)
@examples(60)
def test_any_lengths(lengths, options, blocks, lse, target):
    check_varlen(lengths, lse=lse, BM=blocks[0], BN=blocks[1], target=target, **options)


@on_targets
def test_sequences_do_not_touch_each_other(target):
    """NaN and infinity stay in the sequence that has them."""
    starts = np.array([0, 21, 40, 61], np.int32)
    q, k, v = (random(seed, (61, 1, 16), "f32") for seed in (4, 5, 6))
    expected, _ = varlen_attention.reference(q, k, v, starts, starts, 0.25)
    k[21:40], v[21:40] = np.nan, np.inf
    out = unwritten(q.shape, "f32")
    launch(
        varlen_attention,
        q=q,
        k=k,
        v=v,
        query_starts=starts,
        key_starts=starts,
        out=out,
        scale=0.25,
        BM=16,
        BN=16,
        target=target,
    )
    kept = np.r_[0:21, 40:61]
    np.testing.assert_allclose(out[kept], expected[kept], rtol=1e-5, atol=1e-6)
    assert np.isnan(out[21:40]).all()
