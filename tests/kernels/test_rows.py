"""softmax, rms_norm, layer_norm, cumsum, cross_entropy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mosaic_compile as mc
from mosaic_compile.kernels import cross_entropy, cumsum, layer_norm, rms_norm, softmax

from .helpers import (
    EDGES,
    FLOATS,
    SHAPES,
    TARGETS,
    U32,
    assert_within,
    examples,
    integers,
    launch,
    least,
    name_of,
    on_targets,
    random,
    roundoff,
    unwritten,
)

BLOCKS = st.sampled_from([(1, 64), (1, 16), (2, 32), (4, 16), (8, 8)])


def check_softmax(x, target=None, **constants):
    out = unwritten(x.shape, name_of(x.dtype))
    launch(softmax, x=x, out=out, target=target, **constants)
    with np.errstate(all="ignore"):
        expected = softmax.reference(x)
        wide = np.where(np.isfinite(x), x, np.nan).astype(np.float64)
        spread = np.fmax.reduce(wide, 1, initial=-1e38) - np.fmin.reduce(wide, 1, initial=1e38)
        # exp(x - max) inherits the rounding of x - max, once where the sum is rescaled and once in the result.
        relative = roundoff(x.dtype) + (2 * np.maximum(spread, 0)[:, None] + x.shape[1] + 32) * U32
        assert_within(out, expected, relative * np.nan_to_num(expected) + least(x.dtype))


@on_targets
@pytest.mark.parametrize("m", [0, 1, 4, 5])
@pytest.mark.parametrize("n", EDGES)
@pytest.mark.parametrize("dtype", FLOATS)
def test_softmax(m, n, dtype, target):
    """Rows of up to 16 elements are one tile, longer ones go block by block."""
    check_softmax(random(4, (m, n), dtype, 4), target, BM=4, BN=16)


@on_targets
@pytest.mark.parametrize("n", [16, 40])
def test_softmax_of_extreme_rows(n, target):
    """Large numbers, blocks and rows of minus infinity, the lowest number, infinity, NaN."""
    x = random(5, (9, n), "f32", 1e4)
    lowest = np.finfo(np.float32).min
    x[0], x[1], x[2], x[3] = -np.inf, lowest, np.inf, np.nan
    x[4, :-1] = -np.inf
    x[5, 1:] = -np.inf
    x[6, 0] = np.nan
    x[7, 0], x[7, 1:] = lowest, -np.inf
    x[8] = 88
    check_softmax(x, target, BM=4, BN=16)


@on_targets
@pytest.mark.parametrize("m", [0, 1, 4, 5])
@pytest.mark.parametrize("n", [1, 15, 16, 17, 40])
@pytest.mark.parametrize("dtype,weights", [(d, d) for d in FLOATS] + [("bf16", "f32"), ("f32", "f16")])
def test_rms_norm(m, n, dtype, weights, target):
    x, weight, out = random(6, (m, n), dtype, 3), random(7, (n,), weights), unwritten((m, n), dtype)
    launch(rms_norm, x=x, weight=weight, out=out, eps=1e-5, BM=4, BN=16, target=target)
    expected = rms_norm.reference(x, weight, np.float32(1e-5).astype(np.float64))
    relative = roundoff(out.dtype) + (n + 8) * U32
    assert_within(out, expected, relative * abs(expected) + least(out.dtype))


def test_rms_norm_of_zeros_is_zero():
    x, weight, out = np.zeros((2, 40), np.float32), np.ones(40, np.float32), unwritten((2, 40), "f32")
    launch(rms_norm, x=x, weight=weight, out=out, eps=1e-5, BM=4, BN=16)
    np.testing.assert_array_equal(out, 0)


def check_layer_norm(x, weights="f32", target=None, *, bias=True, moments=True, eps=1e-5, **constants):
    (m, n), eps = x.shape, float(np.float32(eps))
    weight, out = random(11, (n,), weights), unwritten((m, n), name_of(x.dtype))
    extra = {"bias": random(12, (n,), weights)} if bias else {}
    outputs = {name: unwritten((m,), "f32") for name in ("mean", "rstd")} if moments else {}
    launch(layer_norm, x=x, weight=weight, out=out, eps=eps, **extra, **outputs, target=target, **constants)
    expected, mean, rstd = layer_norm.reference(x, weight, eps, **extra)
    wide, weight = x.astype(np.float64), abs(weight.astype(np.float64))
    added = abs(extra.get("bias", np.zeros(n)).astype(np.float64))
    # A mean off by d moves the sum of squared differences by its square alone, or, where each column of the tile
    # has a mean of its own, at most by 2 d times the root of their product (Cauchy and Schwarz).
    mean_bound = (n + 8) * U32 * abs(wide).max(1)
    relative = mean_bound * rstd + (mean_bound * rstd) ** 2 + (n + 16) * U32
    centered = abs(wide - mean[:, None])
    before = weight * rstd[:, None] * (mean_bound[:, None] + (relative[:, None] + 4 * U32) * centered)
    before = before * (1 + relative[:, None]) + U32 * (abs(expected) + added)
    assert_within(out, expected, before + roundoff(out.dtype) * (abs(expected) + before) + least(out.dtype))
    if moments:
        assert_within(outputs["mean"], mean, mean_bound)
        assert_within(outputs["rstd"], rstd, relative * rstd)


@on_targets
@pytest.mark.parametrize("shape", [s for s in SHAPES if s[1]])
@pytest.mark.parametrize("dtype,weights", [("bf16", "f32"), ("f32", "f16")])
def test_layer_norm(shape, dtype, weights, target):
    check_layer_norm(random(13, shape, dtype, 3), weights, target, BM=4, BN=16)


@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 100)),
    dtype=st.sampled_from(FLOATS),
    bias=st.booleans(),
    moments=st.booleans(),
    blocks=BLOCKS,
    target=st.sampled_from(TARGETS),
)
@examples(60)
def test_layer_norm_of_any_shape(shape, dtype, bias, moments, blocks, target):
    x = random(14, shape, dtype, 3)
    check_layer_norm(x, dtype, target, bias=bias, moments=moments, BM=blocks[0], BN=blocks[1])


@on_targets
@pytest.mark.parametrize("n", [16, 40, 333])
def test_layer_norm_far_from_zero(n, target):
    """A mean of a thousand deviations: squares added up before the mean is subtracted would lose all digits."""
    check_layer_norm(random(15, (3, n), "f32") + np.float32(1000), target=target, BM=2, BN=16)


@pytest.mark.parametrize("n", [16, 40])
def test_layer_norm_of_equal_elements_is_the_bias(n):
    x, bias, out = np.full((2, n), 3, np.float32), random(16, (n,), "f32"), unwritten((2, n), "f32")
    launch(layer_norm, x=x, weight=np.ones(n, np.float32), bias=bias, out=out, BM=2, BN=16)
    assert_within(out, np.stack([bias, bias]).astype(np.float64), (n + 8) * U32 * 3 * 1e-5**-0.5)


SUMS = [(d, s) for d in FLOATS for s in FLOATS] + [(d, "i32") for d in ("i32", "i16", "i8", "u8")]


def check_cumsum(x, sums, target=None, *, exclusive=False, reverse=False, **constants):
    out = unwritten(x.shape, sums)
    launch(cumsum, x=x, out=out, exclusive=exclusive, reverse=reverse, target=target, **constants)
    expected = cumsum.reference(x, exclusive=exclusive, reverse=reverse)
    if sums == "i32":
        np.testing.assert_array_equal(out, expected)
    else:
        magnitude = cumsum.reference(abs(x), exclusive=exclusive, reverse=reverse)
        before = (x.shape[1] + 2) * U32 * magnitude
        assert_within(
            out, expected, before + roundoff(out.dtype) * (abs(expected) + before) + least(out.dtype)
        )


def summands(shape, dtype):
    return random(17, shape, dtype) if dtype in FLOATS else integers(17, shape, dtype)


@on_targets
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("exclusive", [False, True], ids=["inclusive", "exclusive"])
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_cumsum(shape, exclusive, reverse, target):
    check_cumsum(random(18, shape, "f32"), "f32", target, exclusive=exclusive, reverse=reverse, BM=4, BN=16)


@given(
    shape=st.tuples(st.integers(0, 9), st.integers(0, 100)),
    types=st.sampled_from(SUMS),
    exclusive=st.booleans(),
    reverse=st.booleans(),
    blocks=BLOCKS,
    target=st.sampled_from(TARGETS),
)
@examples(100)
def test_cumsum_of_any_shape_and_type(shape, types, exclusive, reverse, blocks, target):
    check_cumsum(
        summands(shape, types[0]),
        types[1],
        target,
        exclusive=exclusive,
        reverse=reverse,
        BM=blocks[0],
        BN=blocks[1],
    )


def test_sums_without_an_infinite_element_itself_are_finite():
    x, out = np.ones((1, 40), np.float32), unwritten((1, 40), "f32")
    x[0, 20] = np.inf
    launch(cumsum, x=x, out=out, exclusive=True, BM=1, BN=16)
    np.testing.assert_array_equal(out[0], [*range(21), *[np.inf] * 19])


def test_sums_of_integers_are_integers():
    x = np.zeros((1, 1), np.int32)
    with pytest.raises(mc.MosaicError, match="sums of i32 cannot be f32"):
        launch(cumsum, x=x, out=np.zeros((1, 1), np.float32))


def check_cross_entropy(
    logits, labels, target=None, *, lse=True, label_smoothing=0.0, ignore_index=-100, **constants
):
    m, v = logits.shape
    loss, sums = unwritten((m,), "f32"), {"lse": unwritten((m,), "f32")} if lse else {}
    options = dict(label_smoothing=label_smoothing, ignore_index=ignore_index)
    launch(
        cross_entropy, logits=logits, labels=labels, loss=loss, **sums, **options, target=target, **constants
    )
    with np.errstate(all="ignore"):
        expected, expected_lse = cross_entropy.reference(logits, labels, **options)
        wide = np.where(np.isfinite(logits), logits, np.nan).astype(np.float64)
        top, bottom = np.fmax.reduce(wide, 1, initial=-1e38), np.fmin.reduce(wide, 1, initial=1e38)
        spread = np.maximum(top - bottom, 0)
        # A term of the sum inherits the rounding of its exponent, once where it enters and once where the maximum
        # rises to its final value; the logarithm turns relative errors into absolute ones.
        log_bound = (2 * spread + v + 40) * U32
        mean_bound = (v + 8) * U32 * np.nan_to_num(abs(wide)).mean(1) if v else 0
        bound = 2 * log_bound + 4 * U32 * spread + label_smoothing * mean_bound
        assert_within(loss, expected, bound)
        if lse:
            assert_within(sums["lse"], expected_lse, log_bound + 2 * U32 * abs(np.nan_to_num(expected_lse)))


def classes(m, v, dtype="i64", ignored=-100):
    """Labels, about a quarter of them ignored."""
    labels = integers(19, (m,), dtype, 0, max(v - 1, 0))
    labels[integers(20, (m,), "i8", 0, 3) == 0] = ignored
    return labels


@on_targets
@pytest.mark.parametrize("shape", SHAPES)
def test_cross_entropy(shape, target):
    """Where there are no classes, every label is unknown."""
    check_cross_entropy(random(21, shape, "bf16", 4), classes(*shape), target, BM=4, BN=16)


@given(
    shape=st.tuples(st.integers(0, 9), st.integers(1, 100)),
    dtype=st.sampled_from(FLOATS),
    labels=st.sampled_from(["i32", "i64"]),
    label_smoothing=st.sampled_from([0.0, 0.1, 1.0]),
    ignore_index=st.sampled_from([-100, 0, 7]),
    lse=st.booleans(),
    blocks=BLOCKS,
    target=st.sampled_from(TARGETS),
)
@examples(100)
def test_cross_entropy_of_any_shape(shape, dtype, labels, label_smoothing, ignore_index, lse, blocks, target):
    check_cross_entropy(
        random(22, shape, dtype, 4),
        classes(*shape, labels, ignore_index),
        target,
        lse=lse,
        label_smoothing=label_smoothing,
        ignore_index=ignore_index,
        BM=blocks[0],
        BN=blocks[1],
    )


@on_targets
@pytest.mark.parametrize("v", [16, 40])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_cross_entropy_of_extreme_rows(v, label_smoothing, target):
    """Large logits, a large number common to all, blocks and rows of minus infinity, infinity, NaN."""
    logits = random(23, (9, v), "f32", 1e4)
    logits[1] = random(24, (v,), "f32") + np.float32(1e6)
    logits[2], logits[3], logits[4] = -np.inf, np.inf, np.nan
    logits[5, :-1] = -np.inf
    logits[6, 1:] = -np.inf
    logits[7, 0] = np.nan
    logits[8] = np.finfo(np.float32).min / (1 if label_smoothing == 0 else v)  # their sum is finite
    for label in (0, v - 1):
        labels = np.full(9, label, np.int64)
        check_cross_entropy(logits, labels, target, label_smoothing=label_smoothing, BM=4, BN=16)


@pytest.mark.parametrize("label", [-1, 40, -(2**31), 2**32 + 3, -(2**63), 2**63 - 1])
def test_labels_that_are_no_class_give_nan(label):
    logits, loss = random(25, (2, 40), "f32"), unwritten((2,), "f32")
    launch(cross_entropy, logits=logits, labels=np.array([label, -100]), loss=loss, BM=1, BN=16)
    np.testing.assert_array_equal(loss, [np.nan, 0])
