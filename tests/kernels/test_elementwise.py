"""vector_add, gelu, gated."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mosaic_compile as mc
from mosaic_compile.kernels import gated, gelu, vector_add

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


@on_targets
@pytest.mark.parametrize("n", EDGES)
@pytest.mark.parametrize("dtype", ["f32", "bf16", "f16", "f64"])
def test_vector_add(n, dtype, target):
    x, y, out = random(1, (n,), dtype), random(2, (n,), dtype), unwritten((n,), dtype)
    launch(vector_add, x=x, y=y, out=out, BLOCK=16, target=target)
    expected = vector_add.reference(x, y)
    assert_within(out, expected, roundoff(out.dtype) * abs(expected))


@on_targets
@pytest.mark.parametrize("dtype", ["i64", "i32", "i16", "i8", "u8"])
def test_vector_add_of_integers_wraps_around(dtype, target):
    x = integers(3, (40,), dtype)
    y, out = x[::-1].copy(), unwritten((40,), dtype)
    launch(vector_add, x=x, y=y, out=out, BLOCK=16, target=target)
    np.testing.assert_array_equal(out, vector_add.reference(x, y))


def check_gelu(x, target=None, *, approximate="none", **constants):
    out = unwritten(x.shape, name_of(x.dtype))
    launch(gelu, x=x, out=out, approximate=approximate, target=target, **constants)
    # The error function is off by a few units of 1, which 1 + erf(x) keeps where it cancels.
    before = 16 * U32 * abs(x.astype(np.float64))
    expected = gelu.reference(x, approximate=approximate)
    assert_within(out, expected, before + roundoff(x.dtype) * (abs(expected) + before) + least(x.dtype))


@on_targets
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu(shape, approximate, target):
    check_gelu(random(4, shape, "f32", 3), target, approximate=approximate, BM=4, BN=16)


@given(
    shape=st.tuples(st.integers(0, 9), st.integers(0, 70)),
    dtype=st.sampled_from(FLOATS),
    scale=st.sampled_from([1e-4, 1, 30, 1e4]),
    approximate=st.sampled_from(["none", "tanh"]),
    blocks=st.sampled_from([(1, 64), (2, 16), (8, 8)]),
    target=st.sampled_from(TARGETS),
)
@examples(60)
def test_gelu_of_any_shape(shape, dtype, scale, approximate, blocks, target):
    check_gelu(random(5, shape, dtype, scale), target, approximate=approximate, BM=blocks[0], BN=blocks[1])


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_of_infinity_and_nan(approximate):
    """As PyTorch's: minus infinity times a probability of 0 is NaN."""
    x, out = np.array([[np.inf, -np.inf, np.nan, 1e38, -1e38]], np.float32), unwritten((1, 5), "f32")
    launch(gelu, x=x, out=out, approximate=approximate, BM=1, BN=16)
    np.testing.assert_array_equal(out, [[np.inf, np.nan, np.nan, np.float32(1e38), 0]])


def test_gelu_has_two_forms():
    x = np.zeros((1, 1), np.float32)
    with pytest.raises(mc.MosaicError, match='approximate is "none" or "tanh", not \'erf\''):
        launch(gelu, x=x, out=x.copy(), approximate="erf")


def check_gated(gate, up, target=None, *, activation="silu", **constants):
    out = unwritten(gate.shape, name_of(gate.dtype))
    launch(gated, gate=gate, up=up, out=out, activation=activation, target=target, **constants)
    expected = gated.reference(gate, up, activation=activation)
    before = 20 * U32 * abs(gate.astype(np.float64) * up.astype(np.float64))
    assert_within(out, expected, before + roundoff(out.dtype) * (abs(expected) + before) + least(out.dtype))


@on_targets
@pytest.mark.parametrize("shape", SHAPES)
def test_gated(shape, target):
    check_gated(random(6, shape, "bf16", 3), random(7, shape, "bf16"), target, BM=4, BN=16)


@given(
    shape=st.tuples(st.integers(0, 9), st.integers(0, 70)),
    dtype=st.sampled_from(FLOATS),
    scale=st.sampled_from([1e-4, 1, 30]),
    activation=st.sampled_from(["none", "relu", "gelu", "gelu_tanh", "silu"]),
    blocks=st.sampled_from([(1, 64), (2, 16), (8, 8)]),
    target=st.sampled_from(TARGETS),
)
@examples(60)
def test_gated_of_any_shape(shape, dtype, scale, activation, blocks, target):
    gate, up = random(8, shape, dtype, scale), random(9, shape, dtype)
    check_gated(gate, up, target, activation=activation, BM=blocks[0], BN=blocks[1])


def test_gated_halves_of_one_array():
    """What one matrix product with both weights side by side gives."""
    both = random(10, (5, 80), "f32")
    check_gated(both[:, :40], both[:, 40:], BM=4, BN=16)
