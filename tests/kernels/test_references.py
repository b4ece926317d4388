"""The references themselves, against formulas that share nothing with them: SciPy, PyTorch, einsum, loops."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.special

from mosaic_compile.kernels import (
    batched_matmul,
    cross_entropy,
    cumsum,
    flash_attention,
    gated,
    gather_rows,
    gelu,
    histogram,
    layer_norm,
    linear,
    matmul,
    merge_attention,
    paged_attention,
    persistent_matmul,
    rms_norm,
    rope,
    softmax,
    split_k_matmul,
    stream_k_matmul,
    varlen_attention,
    vector_add,
)

from .helpers import integers, random

EXACT = dict(rtol=1e-13, atol=1e-13)


def test_vector_add():
    x, y = random(1, (50,), "f32"), random(2, (50,), "f32")
    np.testing.assert_array_equal(vector_add.reference(x, y), [float(a) + float(b) for a, b in zip(x, y)])


@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (5, 40)])
def test_softmax(shape):
    x = random(3, shape, "f32", 10)
    expected = scipy.special.softmax(x.astype(np.float64), axis=1)
    np.testing.assert_allclose(softmax.reference(x), expected, **EXACT)


def test_rms_norm():
    x, weight = random(4, (5, 40), "bf16"), random(5, (40,), "f32")
    for row, result in zip(x.astype(np.float64), rms_norm.reference(x, weight, 1e-3)):
        norm = np.sqrt(np.vdot(row, row) / row.size + 1e-3)
        np.testing.assert_allclose(result, row * weight / norm, **EXACT)


ACTIVATIONS = {
    "none": lambda x: x,
    "relu": lambda x: np.where(x > 0, x, 0),
    "gelu": lambda x: x * scipy.special.ndtr(x),
    "gelu_tanh": lambda x: x * scipy.special.expit(np.sqrt(8 / np.pi) * (x + 0.044715 * x * x * x)),
    "silu": lambda x: x * scipy.special.expit(x),
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_matmul(activation):
    a, b = random(6, (7, 9), "f8e4m3"), random(7, (9, 5), "f8e4m3")
    bias, residual = random(8, (5,), "bf16"), random(9, (7, 5), "bf16")
    wide = [x.astype(np.float64) for x in (a, b, bias, residual)]
    before = np.einsum("mk,kn->mn", wide[0], wide[1]) * 0.7 + wide[2]
    expected = ACTIVATIONS[activation](before) + wide[3]
    result = matmul.reference(a, b, 0.7, bias, residual, activation=activation)
    np.testing.assert_allclose(result, expected, **EXACT)


def test_persistent_matmul():
    assert persistent_matmul.reference is matmul.reference


def test_split_k_matmul():
    a, b, c = random(13, (7, 9), "f8e5m2"), random(14, (9, 5), "f8e5m2"), random(15, (7, 5), "f32")
    expected = c + 0.7 * np.einsum("mk,kn->mn", a.astype(np.float64), b.astype(np.float64))
    np.testing.assert_allclose(split_k_matmul.reference(a, b, c, 0.7), expected, **EXACT)
    assert stream_k_matmul.reference is split_k_matmul.reference


def test_linear():
    x, w = random(13, (7, 9), "bf16"), random(14, (5, 9), "bf16")
    bias, residual = random(8, (5,), "bf16"), random(9, (7, 5), "bf16")
    before = np.einsum("mk,nk->mn", x.astype(np.float64), w.astype(np.float64)) * 0.7 + bias.astype(
        np.float64
    )
    expected = before * scipy.special.expit(before) + residual.astype(np.float64)
    np.testing.assert_allclose(
        linear.reference(x, w, 0.7, bias, residual, activation="silu"), expected, **EXACT
    )


@pytest.mark.parametrize("of_a,of_b", [(4, 4), (1, 4), (4, 1), (2, 4)])
def test_batched_matmul(of_a, of_b):
    a, b = random(16, (of_a, 7, 9), "f32"), random(17, (of_b, 9, 5), "f32")
    bias, residual = random(18, (5,), "bf16"), random(19, (4, 7, 5), "bf16")
    result = batched_matmul.reference(a, b, 0.7, bias, residual, activation="silu")
    for i in range(4):
        one = a[i * of_a // 4].astype(np.float64), b[i * of_b // 4].astype(np.float64)
        before = np.einsum("mk,kn->mn", *one) * 0.7 + bias.astype(np.float64)
        expected = before * scipy.special.expit(before) + residual[i].astype(np.float64)
        np.testing.assert_allclose(result[i], expected, **EXACT)


@pytest.mark.parametrize("s,t", [(6, 6), (3, 9), (9, 3), (1, 5), (4, 0)])
@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("window,softcap", [(0, 0.0), (2, 0.0), (0, 0.7), (4, 5.0)])
def test_flash_attention(s, t, causal, window, softcap):
    """One query at a time, over exactly the keys that it sees."""
    options = dict(causal=causal, window=window if causal else 0, softcap=softcap)
    q, k, v = (
        random(10, (2, 6, s, 4), "f32"),
        random(11, (2, 3, t, 4), "f32"),
        random(12, (2, 3, t, 4), "f32"),
    )
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    out, lse = flash_attention.reference(q, k, v, 0.3, **options)
    for b, h, i in np.ndindex(2, 6, s):
        last = max(0, i + t - s + 1) if causal else t
        first = max(0, last - options["window"]) if options["window"] else 0
        keys, values = k[b, h // 2, first:last], v[b, h // 2, first:last]
        scores = 0.3 * np.einsum("d,nd->n", q[b, h, i], keys)
        if softcap:
            scores = softcap * (2 * scipy.special.expit(2 * scores / softcap) - 1)
        expected = np.einsum("n,nd->d", scipy.special.softmax(scores), values) if last else np.zeros(4)
        np.testing.assert_allclose(out[b, h, i], expected, **EXACT)
        sums = scipy.special.logsumexp(scores) if last else -np.inf
        np.testing.assert_allclose(lse[b, h, i], sums, **EXACT)


def test_varlen_attention():
    """Against torch's attention, one sequence after the other."""
    F, tensor = functional()
    q, k, v = random(33, (9, 4, 8), "f32"), random(34, (9, 2, 8), "f32"), random(35, (9, 2, 8), "f32")
    starts = np.array([0, 4, 4, 9], np.int32)
    out, lse = varlen_attention.reference(q, k, v, starts, starts, 0.3, causal=True)
    for first, end in itertools.pairwise(starts):
        one = (tensor(x[first:end].swapaxes(0, 1)[None]) for x in (q, k, v))
        expected = F.scaled_dot_product_attention(*one, is_causal=True, scale=0.3, enable_gqa=True)[0]
        np.testing.assert_allclose(out[first:end].swapaxes(0, 1), expected.numpy(), **EXACT)
    first_query = 0.3 * np.einsum("hd,hd->h", q[4], np.repeat(k[4], 2, axis=0).astype(np.float64))
    np.testing.assert_allclose(lse[:, 4], first_query, rtol=1e-6)


@pytest.mark.parametrize("splits", [1, 3])
def test_paged_attention(splits):
    """The splits' shares, put together by their sums, against torch's attention to all keys."""
    F, tensor = functional()
    lengths, table = np.array([21, 0, 8], np.int32), np.array([[5, 0, 2], [1, 1, 1], [4, -1, -1]], np.int32)
    q, k, v = (
        random(36, (3, 2, 3, 4), "f32"),
        random(37, (6, 8, 2, 4), "f32"),
        random(38, (6, 8, 2, 4), "f32"),
    )
    out = np.empty((splits, 3, 2, 3, 4))
    parts, lses = paged_attention.reference(q, k, v, table, lengths, out, 0.3, BN=4)
    merged, lse = merge_attention.reference(parts.reshape(splits, 18, 4), lses.reshape(splits, 18))
    for b, n in enumerate(lengths):
        keys, values = (x[table[b]].reshape(24, 2, 4)[:n].swapaxes(0, 1) for x in (k, v))
        expected = F.scaled_dot_product_attention(
            *(tensor(x) for x in (q[b], keys, values)), scale=0.3
        ).numpy()
        result = merged.reshape(3, 2, 3, 4)[b]
        np.testing.assert_allclose(result, expected if n else np.zeros((2, 3, 4)), **EXACT)
        scores = 0.3 * np.einsum("hgd,hnd->hgn", q[b].astype(np.float64), keys)
        sums = scipy.special.logsumexp(scores, axis=2) if n else np.full((2, 3), -np.inf)
        np.testing.assert_allclose(lse.reshape(3, 2, 3)[b], sums, **EXACT)


def functional():
    """torch.nn.functional, and a function to make float64 tensors."""
    torch = pytest.importorskip("torch")
    return torch.nn.functional, lambda x: torch.from_numpy(x.astype(np.float64))


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu(approximate):
    F, tensor = functional()
    x = random(20, (5, 40), "bf16", 3)
    expected = F.gelu(tensor(x), approximate=approximate).numpy()
    np.testing.assert_allclose(gelu.reference(x, approximate=approximate), expected, **EXACT)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gated(activation):
    gate, up = random(21, (5, 40), "f16", 3), random(22, (5, 40), "f16")
    expected = ACTIVATIONS[activation](gate.astype(np.float64)) * up
    np.testing.assert_allclose(gated.reference(gate, up, activation=activation), expected, **EXACT)


@pytest.mark.parametrize("with_bias", [False, True])
def test_layer_norm(with_bias):
    F, tensor = functional()
    x, weight, bias = random(23, (5, 40), "bf16", 3), random(24, (40,), "f16"), random(25, (40,), "f16")
    added = {"bias": bias} if with_bias else {}
    out, mean, rstd = layer_norm.reference(x, weight, 1e-3, **added)
    expected = F.layer_norm(tensor(x), (40,), tensor(weight), tensor(bias) if with_bias else None, 1e-3)
    np.testing.assert_allclose(out, expected.numpy(), **EXACT)
    for i, row in enumerate(x.astype(np.float64)):
        np.testing.assert_allclose(mean[i], sum(row) / 40, **EXACT)
        np.testing.assert_allclose(rstd[i] ** -2, sum((row - mean[i]) ** 2) / 40 + 1e-3, **EXACT)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("ignore_index", [-100, 3])
def test_cross_entropy(label_smoothing, ignore_index):
    F, tensor = functional()
    logits, labels = random(26, (30, 7), "f32", 5), integers(27, (30,), "i64", 0, 6)
    labels[4] = ignore_index
    options = dict(label_smoothing=label_smoothing, ignore_index=ignore_index)
    loss, lse = cross_entropy.reference(logits, labels, **options)
    labels_of_torch = tensor(labels).long()
    expected = F.cross_entropy(tensor(logits), labels_of_torch, reduction="none", **options)
    np.testing.assert_allclose(loss, expected.numpy(), **EXACT)
    np.testing.assert_allclose(lse, scipy.special.logsumexp(logits.astype(np.float64), axis=1), **EXACT)


def test_cross_entropy_of_masked_classes():
    logits = np.array([[0.0, -np.inf, 1.0], [-np.inf] * 3])
    with np.errstate(invalid="ignore"):
        loss, lse = cross_entropy.reference(logits, np.array([1, 0]))
    np.testing.assert_array_equal(loss, [np.inf, np.nan])
    np.testing.assert_allclose(lse, [np.log(1 + np.e), -np.inf], **EXACT)
    assert np.isnan(cross_entropy.reference(logits, np.array([3, -1]))[0]).all()


@pytest.mark.parametrize("dtype", ["f32", "i8"])
@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_cumsum(dtype, exclusive, reverse):
    x = random(28, (3, 9), "f32") if dtype == "f32" else integers(28, (3, 9), dtype)
    sums = cumsum.reference(x, exclusive=exclusive, reverse=reverse)
    for row, result in zip(x.tolist(), sums):
        for i in range(9):
            first, last = (i + exclusive, 9) if reverse else (0, i + 1 - exclusive)
            np.testing.assert_allclose(result[i], sum(row[first:last]), **EXACT)


def test_cumsum_of_integers_wraps_around():
    x = np.full((1, 3), 2**31 - 1, np.int32)
    np.testing.assert_array_equal(cumsum.reference(x), [[2**31 - 1, -2, 2**31 - 3]])


@pytest.mark.parametrize("dtype", ["i32", "u8"])
def test_histogram(dtype):
    values, counts = (
        integers(29, (200,), dtype, 0 if dtype == "u8" else -3, 12),
        integers(30, (9,), "i32", 0, 5),
    )
    expected = [counts[i] + values.tolist().count(i) for i in range(9)]
    np.testing.assert_array_equal(histogram.reference(values, counts), expected)


def test_gather_rows():
    table, indices = random(31, (5, 7), "bf16"), np.array([4, 0, 4, 5, -1, 2**40])
    for index, row in zip(indices, gather_rows.reference(table, indices)):
        np.testing.assert_array_equal(row, table[index] if 0 <= index < 5 else np.zeros(7))


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("positions", [None, [2, 0, 5, 2, -1]])
def test_rope(interleaved, positions):
    """Pair by pair, with a matrix of rotation."""
    x, angles = random(32, (5, 2, 8), "f32"), np.random.default_rng(33).uniform(0, 6, (5, 3))
    cos, sin = np.cos(angles), np.sin(angles)
    result = rope.reference(
        x, cos, sin, None if positions is None else np.array(positions), interleaved=interleaved
    )
    np.testing.assert_array_equal(result[..., 6:], x[..., 6:])
    for s, h, r in np.ndindex(5, 2, 3):
        row = s if positions is None else positions[s]
        angle = angles[row, r] if 0 <= row < 5 else 0
        pair = [2 * r, 2 * r + 1] if interleaved else [r, r + 3]
        matrix = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        np.testing.assert_allclose(result[s, h, pair], matrix @ x[s, h, pair].astype(np.float64), **EXACT)
