"""matmul, batched_matmul, split_k_matmul, stream_k_matmul, persistent_matmul, linear."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mosaic_compile.kernels import (
    batched_matmul,
    linear,
    matmul,
    persistent_matmul,
    split_k_matmul,
    stream_k_matmul,
)

from .helpers import (
    EDGES,
    FLOATS,
    TARGETS,
    U32,
    assert_within,
    examples,
    launch,
    least,
    on_targets,
    random,
    roundoff,
    unwritten,
)

TILES = {"BM": 16, "BN": 16, "BK": 32, "GROUP_M": 2}
FACTORS = ["bf16", "f16", "f32", "f8e4m3", "f8e5m2"]
ACTIVATIONS = ["none", "relu", "gelu", "gelu_tanh", "silu"]
SLOPE = {"none": 1, "relu": 1, "gelu": 1.13, "gelu_tanh": 1.13, "silu": 1.1}  # how much errors are magnified
FACTOR_ERRORS = {"ieee": 0, "tf32": 2 * 2.0**-11, "tf32x3": 4 * 2.0**-22}


def wide(x):
    return abs(x.astype(np.float64))


def assert_products(c, kernel, a, b, scale, extra, activation="none", precision="ieee"):
    """Compares c with the kernel's reference; a batch is a leading dimension of all."""
    expected = kernel.reference(a, b, scale, **extra, activation=activation)
    magnitude = abs(scale) * (wide(a) @ wide(b)) + wide(extra.get("bias", np.zeros(())))
    before = ((a.shape[-1] + 4) * U32 + FACTOR_ERRORS[precision]) * magnitude
    after = SLOPE[activation] * before + 16 * U32 * magnitude
    after = after + 2 * U32 * wide(extra.get("residual", np.zeros(())))
    assert_within(c, expected, after + roundoff(c.dtype) * (abs(expected) + after) + least(c.dtype))


def check_matmul(
    m,
    n,
    k,
    dtype="f32",
    out="f32",
    target=None,
    *,
    kernel=matmul,
    bias=False,
    residual=False,
    scale=1.0,
    **constants,
):
    a, b, c = random(8, (m, k), dtype), random(9, (k, n), dtype), unwritten((m, n), out)
    extra = {"bias": random(10, (n,), out)} if bias else {}
    extra |= {"residual": random(11, (m, n), out)} if residual else {}
    launch(kernel, a=a, b=b, c=c, scale=scale, **extra, **TILES | constants, target=target)
    of_result = {k: v for k, v in constants.items() if k in ("activation", "precision")}
    assert_products(c, kernel, a, b, float(np.float32(scale)), extra, **of_result)


@on_targets
@pytest.mark.parametrize("m", EDGES)
@pytest.mark.parametrize("n,k", [(16, 32), (0, 5), (1, 1), (15, 33), (17, 31), (40, 0), (33, 70)])
def test_matmul_shapes(m, n, k, target):
    check_matmul(m, n, k, target=target)


@on_targets
@pytest.mark.parametrize("dtype", FACTORS)
@pytest.mark.parametrize("out", FLOATS)
def test_matmul_types(dtype, out, target):
    check_matmul(40, 33, 70, dtype, out, target, scale=0.37, bias=True, residual=True)


@on_targets
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_matmul_epilogue(bias, residual, activation, target):
    check_matmul(
        17, 40, 33, "bf16", "f32", target, bias=bias, residual=residual, activation=activation, scale=-2.5
    )


@on_targets
@pytest.mark.parametrize("precision", ["tf32", "tf32x3"])
def test_matmul_precision(precision, target):
    check_matmul(17, 40, 70, target=target, precision=precision)


@on_targets
@pytest.mark.parametrize("group", [1, 2, 3, 8])
def test_matmul_in_groups_of_any_height(group, target):
    check_matmul(80, 50, 5, target=target, GROUP_M=group)


@on_targets
@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.parametrize("n", [5, 16, 33])
def test_matmul_written_in_parts(parts, n, target):
    """Among them columns that lie in the first part only."""
    check_matmul(20, n, 40, "bf16", "bf16", target, bias=True, residual=True, PARTS=parts)
    check_matmul(20, n, 40, "bf16", "bf16", target, kernel=persistent_matmul, bias=True, PARTS=parts)


def test_matmul_of_views():
    """Transposed and strided factors; c is a part of a larger array, of which nothing else is written."""
    a, b = random(12, (33, 40), "f32").T, random(13, (33, 100), "f32")[:, ::3]
    large = np.zeros((60, 60), np.float32)
    c = large[5:45, 7:41]
    launch(matmul, a=a, b=b, c=c, scale=1.0, BM=16, BN=16, BK=16)
    bound = 40 * U32 * (abs(a) @ abs(b)).astype(np.float64)
    assert_within(c, matmul.reference(a, b), bound)
    c[...] = 0
    assert not large.any()


ANY_PRODUCT = dict(
    sizes=st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(0, 80)),
    dtype=st.sampled_from(FACTORS),
    scale=st.sampled_from([1.0, -0.37]),
    target=st.sampled_from(TARGETS),
)
ANY_EPILOGUE = dict(
    out=st.sampled_from(FLOATS),
    bias=st.booleans(),
    residual=st.booleans(),
    activation=st.sampled_from(ACTIVATIONS),
)


@given(**ANY_PRODUCT, **ANY_EPILOGUE)
@examples(40)
def test_matmul_of_any_shape(sizes, dtype, out, target, **options):
    check_matmul(*sizes, dtype, out, target, **options)


# The same products by programs that compute several tiles each: three programs, up to 15 tiles.


@on_targets
@pytest.mark.parametrize("m", EDGES)
@pytest.mark.parametrize("n,k", [(16, 32), (0, 5), (17, 31), (40, 0), (80, 70)])
def test_persistent_matmul_shapes(m, n, k, target):
    check_matmul(m, n, k, target=target, kernel=persistent_matmul)


@given(**ANY_PRODUCT, **ANY_EPILOGUE)
@examples(40)
def test_persistent_matmul_of_any_shape(sizes, dtype, out, target, **options):
    check_matmul(*sizes, dtype, out, target, kernel=persistent_matmul, **options)


# Weights row by row, and few rows of the other factor


def check_linear(
    m, n, k, dtype="f32", out="f32", target=None, *, bias=False, residual=False, scale=1.0, **constants
):
    x, w, y = random(8, (m, k), dtype), random(9, (n, k), dtype), unwritten((m, n), out)
    extra = {"bias": random(10, (n,), out)} if bias else {}
    extra |= {"residual": random(11, (m, n), out)} if residual else {}
    constants = {"BM": 16, "BN": 16, "BK": 32} | constants
    launch(linear, x=x, w=w, y=y, scale=scale, **extra, **constants, target=target)
    of_result = {k: v for k, v in constants.items() if k in ("activation", "precision")}
    assert_products(y, matmul, x, w.T, float(np.float32(scale)), extra, **of_result)


@on_targets
@pytest.mark.parametrize("rows", [1, 16], ids=["elementwise", "dot"])
@pytest.mark.parametrize("m", [0, 1, 3, 17])
@pytest.mark.parametrize("n,k", [(16, 32), (0, 5), (1, 1), (15, 33), (40, 0), (33, 70)])
def test_linear_shapes(rows, m, n, k, target):
    check_linear(m, n, k, target=target, BM=rows)


@given(**ANY_PRODUCT, **ANY_EPILOGUE, rows=st.sampled_from([1, 16]))
@examples(40)
def test_linear_of_any_shape(sizes, dtype, out, target, rows, **options):
    check_linear(*sizes, dtype, out, target, BM=rows, **options)


# Batches


def check_batched(
    batch, m, n, k, dtype="f32", out="f32", target=None, *, bias=False, residual=False, scale=1.0, **constants
):
    (count, of_a, of_b) = batch
    a, b, c = random(8, (of_a, m, k), dtype), random(9, (of_b, k, n), dtype), unwritten((count, m, n), out)
    extra = {"bias": random(10, (n,), out)} if bias else {}
    extra |= {"residual": random(11, (count, m, n), out)} if residual else {}
    launch(batched_matmul, a=a, b=b, c=c, scale=scale, **extra, **TILES | constants, target=target)
    of_result = {k: v for k, v in constants.items() if k in ("activation", "precision")}
    a, b = (np.repeat(x, count // max(1, len(x)), axis=0) for x in (a, b))
    assert_products(c, batched_matmul, a, b, float(np.float32(scale)), extra, **of_result)


BATCHES = [(0, 0, 0), (1, 1, 1), (3, 3, 3), (3, 1, 3), (3, 3, 1), (4, 2, 4)]


@on_targets
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("m,n,k", [(16, 16, 32), (17, 33, 70), (1, 15, 0), (0, 5, 5)])
def test_batched_matmul_shapes(batch, m, n, k, target):
    """As many matrices on both sides, one for all, one for two."""
    check_batched(batch, m, n, k, target=target)


@given(batch=st.sampled_from(BATCHES), **ANY_PRODUCT, **ANY_EPILOGUE)
@examples(40)
def test_batched_matmul_of_any_shape(batch, sizes, dtype, out, target, **options):
    check_batched(batch, *sizes, dtype, out, target, **options)


def test_batched_matmul_of_transposed_matrices():
    """Queries times keys: b is given as it lies, row by row."""
    q, k, c = random(12, (2, 20, 24), "f32"), random(13, (2, 30, 24), "f32"), unwritten((2, 20, 30), "f32")
    launch(batched_matmul, a=q, b=k.swapaxes(1, 2), c=c, **TILES)
    assert_products(c, batched_matmul, q, k.swapaxes(1, 2), 1.0, {})


# K split over programs


def check_split(
    m, n, k, dtype="f32", target=None, *, scale=1.0, kernel=split_k_matmul, shares=3, **constants
):
    """shares: the most programs that add to one element."""
    a, b, c = random(8, (m, k), dtype), random(9, (k, n), dtype), random(14, (m, n), "f32")
    before = c.copy()
    launch(kernel, a=a, b=b, c=c, scale=scale, **TILES, **constants, target=target)
    scale = float(np.float32(scale))
    magnitude = abs(scale) * (wide(a) @ wide(b)) + wide(before)
    bound = (k + shares + 4) * U32 * magnitude
    assert_within(c, kernel.reference(a, b, before, scale), bound)


@on_targets
@pytest.mark.parametrize("m", EDGES)
@pytest.mark.parametrize("n,k", [(16, 32), (0, 5), (17, 100), (40, 0), (33, 200)])
def test_split_k_matmul_shapes(m, n, k, target):
    """Among them: no K at all, less than one step for each program."""
    check_split(m, n, k, target=target, SPLIT=3)


@given(**ANY_PRODUCT, split=st.sampled_from([1, 2, 3, 8]))
@examples(40)
def test_split_k_matmul_of_any_shape(sizes, dtype, target, scale, split):
    check_split(*sizes, dtype, target, scale=scale, shares=split, SPLIT=split)


@on_targets
@pytest.mark.parametrize("m", EDGES)
@pytest.mark.parametrize("n,k", [(16, 32), (0, 5), (17, 100), (40, 0), (33, 200)])
def test_stream_k_matmul_shapes(m, n, k, target):
    """Among them: no K at all, shares that end within a tile, fewer steps than programs."""
    check_split(m, n, k, target=target, kernel=stream_k_matmul)


@given(**ANY_PRODUCT)
@examples(40)
def test_stream_k_matmul_of_any_shape(sizes, dtype, target, scale):
    check_split(*sizes, dtype, target, scale=scale, kernel=stream_k_matmul)
