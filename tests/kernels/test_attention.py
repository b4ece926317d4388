"""flash_attention, rope."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mosaic_compile as mc
from mosaic_compile.kernels import flash_attention, rope

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
    launch(
        flash_attention,
        q=q,
        k=k,
        v=v,
        out=out,
        scale=scale,
        causal=causal,
        **sums,
        **constants,
        target=target,
    )
    expected, expected_lse = flash_attention.reference(q, k, v, scale, causal=causal)
    # Weights are off by the rounding of their scores, and rounded to the element type before they meet the values.
    wide = [np.repeat(abs(x.astype(np.float64)), r, 1) for x, r in ((q, 1), (k, h // hk), (v, h // hk))]
    scores = scale * (wide[0] @ wide[1].swapaxes(2, 3)).max(initial=0, axis=(2, 3))[..., None, None]
    weight = 2 * (d + 8) * U32 * scores + (t + 16) * U32
    mean_of_magnitudes = flash_attention.reference(q, k, abs(v), scale, causal=causal)[0]
    unit = roundoff(out.dtype)
    bound = (2 * weight + unit) * mean_of_magnitudes + unit * abs(expected)
    assert_within(out, expected, 1.01 * bound + least(out.dtype))
    if lse:
        with np.errstate(invalid="ignore"):
            sum_bound = weight[..., 0] + 4 * U32 * abs(np.nan_to_num(expected_lse, neginf=0))
        assert_within(sums["lse"], expected_lse, sum_bound)


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
