"""paged_attention, merge_attention, and how many splits there are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mosaic_compile.kernels import merge_attention, paged_attention
from mosaic_compile.kernels.paged_attention import number_of_splits

from .attention import assert_attention, weight_error
from .helpers import (
    FLOATS,
    TARGETS,
    U32,
    assert_within,
    examples,
    integers,
    launch,
    least,
    on_targets,
    random,
    roundoff,
    unwritten,
)


def pages_of(lengths, page, shape, dtype, window):
    """Caches and tables with NaN and wild page numbers where nothing is read; and the caches without NaN."""
    most = max([-(-n // page) for n in lengths], default=0) + 1
    count = len(lengths) * most + 2
    table = (
        np.random.default_rng(7).permutation(count)[: len(lengths) * most].reshape(-1, most).astype(np.int32)
    )
    clean = [random(seed, (count, page, *shape), dtype) for seed in (8, 9)]
    wild, unread = table.copy(), np.ones((count, page), bool)
    for b, n in enumerate(lengths):
        first = max(0, n - window) if window else 0
        tokens = np.arange(first, n)
        unread[table[b, tokens // page], tokens % page] = False
        wild[b, -(-n // page) :] = -(2**31)
        wild[b, : first // page] = 2**31 - 1
    poisoned = [cache.copy() for cache in clean]
    for cache in poisoned:
        cache[unread] = np.nan
    return clean, table, poisoned, wild


def check_paged(
    lengths,
    hk=1,
    g=2,
    d=16,
    page=16,
    splits=1,
    dtype="f32",
    parts="f32",
    target=None,
    *,
    window=0,
    softcap=0.0,
    lse=True,
    **constants,
):
    b = len(lengths)
    (k, v), table, (poisoned_k, poisoned_v), wild = pages_of(lengths, page, (hk, d), dtype, window)
    q, out = random(10, (b, hk, g, d), dtype), unwritten((splits, b, hk, g, d), parts)
    sums = {"lse": unwritten((splits, b, hk, g), "f32")} if lse else {}
    scale = float(np.float32(d**-0.5))
    constants = {"BG": 16, "BN": 16, **constants}
    given = dict(q=q, lengths=np.array(lengths, np.int32), out=out, scale=scale)
    options = dict(window=window, softcap=softcap)
    launch(
        paged_attention,
        k_cache=poisoned_k,
        v_cache=poisoned_v,
        page_table=wild,
        **given,
        **options,
        **sums,
        **constants,
        target=target,
    )
    caches = dict(k_cache=k, page_table=table, BN=constants["BN"])
    expected, expected_lse = paged_attention.reference(v_cache=v, **caches, **given, **options)
    mean_of_magnitudes = paged_attention.reference(v_cache=abs(v), **caches, **given, **options)[0]
    weight = weight_error(
        q, k.reshape(-1, hk, d).swapaxes(0, 1), scale, softcap
    )  # of all tokens in the cache
    assert_attention(out, sums.get("lse"), expected, expected_lse, mean_of_magnitudes, weight, q.dtype)


LENGTHS = [0, 1, 15, 16, 17, 70]


@on_targets
@pytest.mark.parametrize("splits", [1, 2, 3, 7])
@pytest.mark.parametrize("page", [1, 8, 16, 24, 64])
def test_pages_and_splits(page, splits, target):
    """Pages smaller than a step, equal, larger, and of no power of two; more splits than steps."""
    check_paged(LENGTHS, page=page, splits=splits, target=target)


@on_targets
@pytest.mark.parametrize("window", [1, 2, 16, 17, 40, 1000])
@pytest.mark.parametrize("page", [8, 16, 64])
def test_windows(window, page, target):
    check_paged(LENGTHS, page=page, splits=2, window=window, target=target)


@on_targets
@pytest.mark.parametrize("softcap", [1e-3, 1.0, 1e4])
def test_soft_caps(softcap, target):
    check_paged([40, 33], splits=2, softcap=softcap, window=30, target=target)


@on_targets
@pytest.mark.parametrize("hk,g", [(1, 1), (3, 2), (2, 16), (1, 17), (2, 40)])
def test_heads(hk, g, target):
    """Multi-head, grouped-query and multi-query attention: less than a tile of heads, one, more."""
    check_paged([5, 40], hk=hk, g=g, splits=2, target=target)


@on_targets
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("d", [64, 128, 80, 3])
def test_types_and_head_sizes(dtype, d, target):
    check_paged([40, 21], d=d, dtype=dtype, splits=2, target=target)
    check_paged([40, 21], d=d, dtype=dtype, parts=dtype, target=target)


@pytest.mark.parametrize("lengths", [[], [0], [0, 0]], ids=str)
def test_without_keys(lengths):
    check_paged(lengths, splits=2)


@given(
    lengths=st.lists(st.integers(0, 100), max_size=4),
    heads=st.tuples(st.integers(1, 3), st.integers(1, 20)),
    page=st.sampled_from([4, 16, 32, 48, 64]),
    splits=st.integers(1, 5),
    window=st.integers(0, 60),
    block=st.sampled_from([16, 32]),
    lse=st.booleans(),
    target=st.sampled_from(TARGETS),
)
@examples(60)
def test_any_sequences(lengths, heads, page, splits, window, block, lse, target):
    check_paged(lengths, *heads, page=page, splits=splits, window=window, BN=block, lse=lse, target=target)


@pytest.mark.parametrize("splits", [1, 3])
def test_merged_splits_are_the_attention_to_all_keys(splits):
    """Against one query at a time over exactly its keys."""
    lengths, hk, g, d = [0, 3, 70], 2, 3, 16
    (k, v), table, _, _ = pages_of(lengths, 16, (hk, d), "f32", 0)
    q = random(11, (3, hk, g, d), "f32")
    parts, lses = unwritten((splits, 3, hk, g, d), "f32"), unwritten((splits, 3, hk, g), "f32")
    launch(
        paged_attention,
        q=q,
        k_cache=k,
        v_cache=v,
        page_table=table,
        lengths=np.array(lengths, np.int32),
        out=parts,
        scale=0.25,
        lse=lses,
        BN=16,
    )
    out, lse = unwritten((3 * hk * g, d), "f32"), unwritten((3 * hk * g,), "f32")
    launch(
        merge_attention, parts=parts.reshape(splits, -1, d), lses=lses.reshape(splits, -1), out=out, lse=lse
    )
    for (b, h, i), result, logarithm in zip(np.ndindex(3, hk, g), out, lse):
        tokens = [(table[b, t // 16], t % 16) for t in range(lengths[b])]
        weights = np.exp([0.25 * np.vdot(q[b, h, i], k[page, place, h]) for page, place in tokens])
        values = [v[page, place, h] for page, place in tokens]
        expected = np.dot(weights / weights.sum(), values) if tokens else np.zeros(d)
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)
        with np.errstate(divide="ignore"):
            np.testing.assert_allclose(logarithm, np.log(weights.sum()), rtol=1e-5)


def check_merge(splits, n, d, dtype="f32", target=None, *, lse=True, **constants):
    parts, lses = random(12, (splits, n, d), "f32"), random(13, (splits, n), "f32", 5)
    empty = integers(14, (splits, n), "i32", 0, 2) == 0
    parts[empty], lses[empty] = 0, -np.inf
    out, sums = unwritten((n, d), dtype), {"lse": unwritten((n,), "f32")} if lse else {}
    launch(merge_attention, parts=parts, lses=lses, out=out, **sums, **constants, target=target)
    expected, expected_lse = merge_attention.reference(parts, lses)
    # Exponents are differences of logarithms, each rounded after its product with log2(e).
    weight = (8 * abs(np.where(empty, 0, lses)).max(initial=0) + splits + 16) * U32
    bound = 2 * weight * merge_attention.reference(abs(parts), lses)[0] + roundoff(out.dtype) * abs(expected)
    assert_within(out, expected, 1.01 * bound + least(out.dtype))
    if lse:
        bound = weight + 4 * U32 * abs(np.nan_to_num(expected_lse, neginf=0))
        assert_within(sums["lse"], expected_lse, bound)


@on_targets
@pytest.mark.parametrize("splits", [0, 1, 3, 16, 40])
@pytest.mark.parametrize("n,d", [(5, 16), (1, 80), (3, 7), (0, 16)])
def test_merge(splits, n, d, target):
    check_merge(splits, n, d, target=target)


@on_targets
@pytest.mark.parametrize("dtype", FLOATS)
def test_merge_to_types(dtype, target):
    check_merge(5, 4, 64, dtype, target, lse=False, BS=4)


@pytest.mark.parametrize(
    "sequences,heads,longest,splits",
    [
        (1, 8, 0, 1),
        (1, 8, 100, 1),  # less than two steps
        (33, 8, 4096, 1),  # a full round of programs
        (1, 8, 4096, 32),  # steps of 64, two for each part
        (4, 8, 131072, 8),  # as many as run at once
    ],
)
def test_number_of_splits(sequences, heads, longest, splits):
    assert number_of_splits(sequences, heads, longest, 132) == splits


def test_splits_fill_the_machine():
    """Parts of two steps and more; a grid of four rounds is left as it is."""
    for sequences in (1, 2, 5, 16, 50, 300):
        for longest in (1, 64, 1000, 32768):
            splits = number_of_splits(sequences, 8, longest, 132)
            assert 1 <= splits <= max(1, longest // 64 // 2 + 1)
            assert splits == 1 or sequences * 8 * splits <= 4 * 2 * 132
