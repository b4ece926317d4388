"""flash_attention, rope."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mosaic_compile as mc
from mosaic_compile.kernels import flash_attention, rope

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


def check_attention(
    b=1,
    h=1,
    hk=1,
    s=16,
    t=16,
    d=16,
    dtype="f32",
    target=None,
    *,
    causal=False,
    window=0,
    softcap=0.0,
    scale=None,
    lse=True,
    magnitude=1.0,
    **constants,
):
    q, k = random(14, (b, h, s, d), dtype, magnitude), random(15, (b, hk, t, d), dtype, magnitude)
    v, out = random(16, (b, hk, t, d), dtype), unwritten((b, h, s, d), dtype)
    sums = {"lse": unwritten((b, h, s), "f32")} if lse else {}
    scale = float(np.float32(d**-0.5 if scale is None else scale))
    constants = {"BM": 16, "BN": 16, **constants}
    options = dict(causal=causal, window=window, softcap=softcap)
    launch(
        flash_attention,
        q=q,
        k=k,
        v=v,
        out=out,
        scale=scale,
        **options,
        **sums,
        **constants,
        target=target,
    )
    expected, expected_lse = flash_attention.reference(q, k, v, scale, **options)
    weight = weight_error(q, np.repeat(k, h // hk, 1), scale, softcap)
    mean_of_magnitudes = flash_attention.reference(q, k, abs(v), scale, **options)[0]
    assert_attention(out, sums.get("lse"), expected, expected_lse, mean_of_magnitudes, weight, q.dtype)


@on_targets
@pytest.mark.parametrize("s", [0, 1, 15, 16, 17, 40])
@pytest.mark.parametrize("t", [0, 1, 15, 16, 17, 40])
@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
def test_attention_lengths(s, t, causal, target):
    """Among them: fewer keys than queries, so that causal rows see none; no keys at all."""
    check_attention(s=s, t=t, causal=causal, target=target)


@on_targets
@pytest.mark.parametrize("blocks", [(16, 32), (32, 16), (64, 16)])
@pytest.mark.parametrize("s,t", [(70, 70), (33, 90), (90, 33)])
def test_attention_block_sizes(blocks, s, t, target):
    check_attention(s=s, t=t, causal=True, BM=blocks[0], BN=blocks[1], target=target)


@on_targets
@pytest.mark.parametrize("h,hk", [(4, 4), (6, 2), (4, 1), (1, 1)])
@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
def test_attention_heads(h, hk, causal, target):
    """Multi-head, grouped-query and multi-query attention."""
    check_attention(b=2, h=h, hk=hk, s=17, t=33, causal=causal, target=target)


@on_targets
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("d", [64, 128, 256, 80, 1])
def test_attention_types_and_head_sizes(dtype, d, target):
    check_attention(s=20, t=35, d=d, dtype=dtype, causal=True, target=target)


@pytest.mark.parametrize("lse", [False, True])
def test_attention_without_lse(lse):
    check_attention(s=17, t=17, lse=lse)


@on_targets
@pytest.mark.parametrize("magnitude", [1e-3, 30])
def test_attention_of_flat_and_steep_scores(magnitude, target):
    check_attention(s=20, t=70, scale=1.0, magnitude=magnitude, target=target)


@on_targets
@pytest.mark.parametrize("window", [1, 2, 16, 17, 31, 1000])
@pytest.mark.parametrize("s,t", [(1, 1), (1, 40), (40, 40), (70, 50), (33, 90)])
def test_attention_with_a_window(window, s, t, target):
    """Of one key, of a block, longer than all; fewer keys than queries."""
    check_attention(s=s, t=t, causal=True, window=window, target=target)


@on_targets
@pytest.mark.parametrize("blocks", [(16, 32), (32, 16), (64, 16)])
@pytest.mark.parametrize("window", [3, 40, 64, 70])
def test_attention_block_sizes_with_a_window(blocks, window, target):
    check_attention(s=90, t=120, causal=True, window=window, BM=blocks[0], BN=blocks[1], target=target)


@on_targets
@pytest.mark.parametrize("softcap", [1e-3, 1.0, 30.0, 1e4])
@pytest.mark.parametrize("window", [0, 20], ids=["all", "window"])
def test_attention_with_a_soft_cap(softcap, window, target):
    """Far below the scores, among them, and so far above that it changes nothing."""
    check_attention(
        s=20, t=50, causal=window > 0, window=window, softcap=softcap, scale=1.0, magnitude=3.0, target=target
    )


@given(
    sizes=st.tuples(st.integers(0, 70), st.integers(0, 70)),
    head=st.integers(1, 40),
    window=st.integers(0, 80),
    softcap=st.sampled_from([0.0, 0.5, 20.0]),
    blocks=st.sampled_from([(16, 16), (32, 16), (16, 32)]),
    target=st.sampled_from(TARGETS),
)
@examples(40)
def test_attention_of_any_shape(sizes, head, window, softcap, blocks, target):
    check_attention(
        s=sizes[0],
        t=sizes[1],
        d=head,
        causal=True,
        window=window,
        softcap=softcap,
        BM=blocks[0],
        BN=blocks[1],
        target=target,
    )


def test_attention_with_a_window_reads_only_its_blocks():
    """What lies in other blocks may be anything."""
    q, k, v = (random(seed, (1, 1, 64, 16), "f32") for seed in (23, 24, 25))
    expected = flash_attention.reference(q, k, v, 0.25, causal=True, window=8)[0]
    k[:, :, :32] = v[:, :, :32] = np.nan
    out = unwritten(q.shape, "f32")
    launch(flash_attention, q=q, k=k, v=v, out=out, scale=0.25, causal=True, window=8, BM=16, BN=16)
    np.testing.assert_allclose(out[:, :, 48:], expected[:, :, 48:], rtol=1e-5, atol=1e-6)


def test_a_window_needs_causal():
    q = random(17, (1, 1, 16, 32), "f32")
    message = r"window needs causal=True: it counts back from the last key that a query sees"
    with pytest.raises(mc.MosaicError, match=message):
        launch(flash_attention, q=q, k=q, v=q, out=np.zeros_like(q), scale=1.0, window=3, BM=16, BN=16)


def test_attention_takes_the_head_size_from_its_arrays():
    q = random(17, (1, 1, 16, 32), "f32")
    out = np.zeros_like(q)
    with pytest.raises(mc.MosaicError, match="D is set to 64, but the dimension D is 32"):
        launch(flash_attention, q=q, k=q, v=q, out=out, scale=1.0, BM=16, BN=16, D=64)
    launch(flash_attention, q=q, k=q, v=q, out=out, scale=1.0, BM=16, BN=16)
    np.testing.assert_allclose(out, flash_attention.reference(q, q, q, 1.0)[0], rtol=1e-5, atol=1e-6)


def check_rope(
    s, h, d, r, dtype="f32", target=None, *, positions=None, table=50, interleaved=False, **constants
):
    x, out = random(18, (s, h, d), dtype), unwritten((s, h, d), dtype)
    angles = np.random.default_rng(19).uniform(0, 6, (table, r))
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    rows = {} if positions is None else {"positions": positions}
    constants = {"BS": 4, "BH": 2, **constants}
    launch(rope, x=x, cos=cos, sin=sin, out=out, **rows, interleaved=interleaved, **constants, target=target)
    expected = rope.reference(x, cos, sin, **rows, interleaved=interleaved)
    # Two products of numbers no larger than the pair, and their sum.
    pairs = rope.reference(abs(x), abs(cos), -abs(sin), **rows, interleaved=interleaved)
    other = rope.reference(abs(x), abs(cos), abs(sin), **rows, interleaved=interleaved)
    before = 3 * U32 * np.maximum(abs(pairs), abs(other))
    assert_within(out, expected, before + roundoff(out.dtype) * (abs(expected) + before) + least(out.dtype))
    np.testing.assert_array_equal(out[..., 2 * r :], x[..., 2 * r :])


FORMS = pytest.mark.parametrize("interleaved", [False, True], ids=["halves", "interleaved"])


@on_targets
@FORMS
@pytest.mark.parametrize("s,h", [(0, 1), (1, 1), (3, 2), (4, 3), (5, 1), (9, 5), (5, 0)])
def test_rope(s, h, interleaved, target):
    check_rope(s, h, 16, 8, target=target, interleaved=interleaved)


@on_targets
@FORMS
@pytest.mark.parametrize("d,r", [(128, 64), (80, 40), (2, 1), (16, 4), (80, 16), (24, 6), (7, 3), (5, 2)])
def test_rope_head_sizes(d, r, interleaved, target):
    """Of any size, and rotated in part."""
    check_rope(5, 3, d, r, "bf16", target, interleaved=interleaved)


@on_targets
@FORMS
def test_rope_at_positions(interleaved, target):
    """In any order, twice, and outside the tables."""
    positions = np.array([3, 0, 49, 3, 50, -1, 2**31 - 1], np.int32)
    check_rope(7, 2, 16, 8, target=target, positions=positions, interleaved=interleaved)


@given(
    sizes=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    head=st.integers(1, 40).flatmap(lambda r: st.tuples(st.integers(2 * r, 90), st.just(r))),
    dtype=st.sampled_from(FLOATS),
    at=st.booleans(),
    interleaved=st.booleans(),
    blocks=st.sampled_from([(1, 8), (4, 1), (2, 2)]),
    target=st.sampled_from(TARGETS),
)
@examples(60)
def test_rope_of_any_shape(sizes, head, dtype, at, interleaved, blocks, target):
    positions = integers(20, sizes[:1], "i32", -3, 60) if at else None
    check_rope(
        *sizes,
        *head,
        dtype,
        target,
        positions=positions,
        interleaved=interleaved,
        BS=blocks[0],
        BH=blocks[1],
    )


def test_elements_of_heads_that_are_not_turned_are_copied():
    """Infinity and NaN among them."""
    x = random(21, (2, 1, 8), "f32")
    x[..., 5], x[..., 6] = np.inf, np.nan
    for interleaved in (False, True):
        out, table = unwritten(x.shape, "f32"), np.zeros((2, 2), np.float32)
        launch(rope, x=x, cos=table, sin=table, out=out, interleaved=interleaved)
        np.testing.assert_array_equal(out[..., 4:], x[..., 4:])


def test_rope_turns_no_more_than_a_head():
    x, table = np.zeros((1, 1, 4), np.float32), np.zeros((1, 4), np.float32)
    with pytest.raises(mc.MosaicError, match="4 angles turn 8 elements, but a head has 4"):
        launch(rope, x=x, cos=table, sin=table, out=np.zeros_like(x))
