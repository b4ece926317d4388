"""Each kernel against its float64 reference, through the interpreter: as traced, and after the passes.

The bounds are what rounding explains, element by element: a sum of n products in f32 is off by at most
n * U32 times the sum of their magnitudes (Higham, "Accuracy and Stability of Numerical Algorithms", 3.1), and the
result is rounded once to its type.
"""

from __future__ import annotations

import numpy as np
import pytest

from mosaic_compile.kernels import flash_attention, matmul, rms_norm, softmax, vector_add

from .helpers import U32, assert_within, launch, least, numpy_type, random, roundoff, unwritten

TARGETS = [None, "sm90", "sm80"]  # None: as traced
targets = pytest.mark.parametrize("target", TARGETS, ids=lambda t: t or "traced")
EDGES = [0, 1, 15, 16, 17, 40]  # around tiles of 16
FLOATS = ["bf16", "f16", "f32"]


# vector_add


@targets
@pytest.mark.parametrize("n", EDGES)
@pytest.mark.parametrize("dtype", ["f32", "bf16", "f16", "f64"])
def test_vector_add(n, dtype, target):
    x, y, out = random(1, (n,), dtype), random(2, (n,), dtype), unwritten((n,), dtype)
    launch(vector_add, x=x, y=y, out=out, BLOCK=16, target=target)
    expected = vector_add.reference(x, y)
    assert_within(out, expected, roundoff(out.dtype) * abs(expected))


@targets
@pytest.mark.parametrize("dtype", ["i64", "i32", "i16", "i8", "u8"])
def test_vector_add_of_integers_wraps_around(dtype, target):
    type_ = numpy_type(dtype)
    limits = np.iinfo(type_)
    x = np.random.default_rng(3).integers(limits.min, limits.max, 40, type_, endpoint=True)
    y, out = x[::-1].copy(), unwritten((40,), dtype)
    launch(vector_add, x=x, y=y, out=out, BLOCK=16, target=target)
    np.testing.assert_array_equal(out, vector_add.reference(x, y))


# softmax


def check_softmax(x, target=None, **constants):
    out = unwritten(x.shape, {np.dtype(numpy_type(d)): d for d in FLOATS}[x.dtype])
    launch(softmax, x=x, out=out, target=target, **constants)
    with np.errstate(all="ignore"):
        expected = softmax.reference(x)
        wide = np.where(np.isfinite(x), x, np.nan).astype(np.float64)
        spread = np.fmax.reduce(wide, 1, initial=-1e38) - np.fmin.reduce(wide, 1, initial=1e38)
        # exp(x - max) inherits the rounding of x - max, once where the sum is rescaled and once in the result.
        relative = roundoff(x.dtype) + (2 * np.maximum(spread, 0)[:, None] + x.shape[1] + 32) * U32
        assert_within(out, expected, relative * np.nan_to_num(expected) + least(x.dtype))


@targets
@pytest.mark.parametrize("m", [0, 1, 4, 5])
@pytest.mark.parametrize("n", EDGES)
@pytest.mark.parametrize("dtype", FLOATS)
def test_softmax(m, n, dtype, target):
    """Rows of up to 16 elements are one tile, longer ones go block by block."""
    check_softmax(random(4, (m, n), dtype, 4), target, BM=4, BN=16)


@targets
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


# rms_norm


@targets
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


# matmul

SLOPE = {"none": 1, "relu": 1, "gelu": 1.13, "silu": 1.1}  # how much an activation magnifies an error
FACTOR_ERRORS = {"ieee": 0, "tf32": 2 * 2.0**-11, "tf32x3": 4 * 2.0**-22}


def check_matmul(
    m, n, k, dtype="f32", out="f32", target=None, *, bias=False, residual=False, scale=1.0, **constants
):
    a, b, c = random(8, (m, k), dtype), random(9, (k, n), dtype), unwritten((m, n), out)
    extra = {"bias": random(10, (n,), out)} if bias else {}
    extra |= {"residual": random(11, (m, n), out)} if residual else {}
    constants = {"BM": 16, "BN": 16, "BK": 32, "GROUP_M": 2, **constants}
    launch(matmul, a=a, b=b, c=c, scale=scale, **extra, **constants, target=target)
    scale, activation = float(np.float32(scale)), constants.get("activation", "none")
    expected = matmul.reference(a, b, scale, **extra, activation=activation)
    magnitude = abs(scale) * (abs(a.astype(np.float64)) @ abs(b.astype(np.float64)))
    magnitude = magnitude + abs(extra.get("bias", np.zeros(n)).astype(np.float64))
    before = ((k + 4) * U32 + FACTOR_ERRORS[constants.get("precision", "ieee")]) * magnitude
    after = SLOPE[activation] * before + 16 * U32 * magnitude
    after = after + 2 * U32 * abs(extra.get("residual", np.zeros((m, n))).astype(np.float64))
    bound = after + roundoff(c.dtype) * (abs(expected) + after) + least(c.dtype)
    assert_within(c, expected, bound)


@targets
@pytest.mark.parametrize("m", EDGES)
@pytest.mark.parametrize("n,k", [(16, 32), (0, 5), (1, 1), (15, 33), (17, 31), (40, 0), (33, 70)])
def test_matmul_shapes(m, n, k, target):
    check_matmul(m, n, k, target=target)


@targets
@pytest.mark.parametrize("dtype", ["bf16", "f16", "f32", "f8e4m3", "f8e5m2"])
@pytest.mark.parametrize("out", FLOATS)
def test_matmul_types(dtype, out, target):
    check_matmul(40, 33, 70, dtype, out, target, scale=0.37, bias=True, residual=True)


@targets
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("activation", ["none", "relu", "gelu", "silu"])
def test_matmul_epilogue(bias, residual, activation, target):
    check_matmul(
        17, 40, 33, "bf16", "f32", target, bias=bias, residual=residual, activation=activation, scale=-2.5
    )


@targets
@pytest.mark.parametrize("precision", ["tf32", "tf32x3"])
def test_matmul_precision(precision, target):
    check_matmul(17, 40, 70, target=target, precision=precision)


@targets
@pytest.mark.parametrize("group", [1, 2, 3, 8])
def test_matmul_in_groups_of_any_height(group, target):
    check_matmul(80, 50, 5, target=target, GROUP_M=group)


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


# flash_attention


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


@targets
@pytest.mark.parametrize("s", [0, 1, 15, 16, 17, 40])
@pytest.mark.parametrize("t", [0, 1, 15, 16, 17, 40])
@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
def test_attention_lengths(s, t, causal, target):
    """Among them: fewer keys than queries, so that causal rows see none; no keys at all."""
    check_attention(s=s, t=t, causal=causal, target=target)


@targets
@pytest.mark.parametrize("blocks", [(16, 32), (32, 16), (64, 16)])
@pytest.mark.parametrize("s,t", [(70, 70), (33, 90), (90, 33)])
def test_attention_block_sizes(blocks, s, t, target):
    check_attention(s=s, t=t, causal=True, BM=blocks[0], BN=blocks[1], target=target)


@targets
@pytest.mark.parametrize("h,hk", [(4, 4), (6, 2), (4, 1), (1, 1)])
@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
def test_attention_heads(h, hk, causal, target):
    """Multi-head, grouped-query and multi-query attention."""
    check_attention(b=2, h=h, hk=hk, s=17, t=33, causal=causal, target=target)


@targets
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("d", [64, 128, 256, 80, 1])
def test_attention_types_and_head_sizes(dtype, d, target):
    check_attention(s=20, t=35, d=d, dtype=dtype, causal=True, target=target)


@pytest.mark.parametrize("lse", [False, True])
def test_attention_without_lse(lse):
    check_attention(s=17, t=17, lse=lse)


@targets
@pytest.mark.parametrize("magnitude", [1e-3, 30])
def test_attention_of_flat_and_steep_scores(magnitude, target):
    check_attention(s=20, t=70, scale=1.0, magnitude=magnitude, target=target)


def test_attention_takes_the_head_size_from_its_arrays():
    import mosaic_compile as mc

    q = random(17, (1, 1, 16, 32), "f32")
    out = np.zeros_like(q)
    with pytest.raises(mc.MosaicError, match="D is set to 64, but the dimension D is 32"):
        launch(flash_attention, q=q, k=q, v=q, out=out, scale=1.0, BM=16, BN=16, D=64)
    launch(flash_attention, q=q, k=q, v=q, out=out, scale=1.0, BM=16, BN=16)
    np.testing.assert_allclose(out, flash_attention.reference(q, q, q, 1.0)[0], rtol=1e-5, atol=1e-6)
