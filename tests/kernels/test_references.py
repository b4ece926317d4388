"""The references themselves, against formulas that share nothing with them: SciPy, einsum, loops."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special

from mosaic_compile.kernels import flash_attention, matmul, rms_norm, softmax, vector_add

from .helpers import random

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


@pytest.mark.parametrize("s,t", [(6, 6), (3, 9), (9, 3), (1, 5), (4, 0)])
@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
def test_flash_attention(s, t, causal):
    """One query at a time, over exactly the keys that it sees."""
    q, k, v = (
        random(10, (2, 6, s, 4), "f32"),
        random(11, (2, 3, t, 4), "f32"),
        random(12, (2, 3, t, 4), "f32"),
    )
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    out, lse = flash_attention.reference(q, k, v, 0.3, causal=causal)
    for b, h, i in np.ndindex(2, 6, s):
        seen = max(0, i + t - s + 1) if causal else t
        keys, values = k[b, h // 2, :seen], v[b, h // 2, :seen]
        scores = 0.3 * np.einsum("d,nd->n", q[b, h, i], keys)
        expected = np.einsum("n,nd->d", scipy.special.softmax(scores), values) if seen else np.zeros(4)
        np.testing.assert_allclose(out[b, h, i], expected, **EXACT)
        sums = scipy.special.logsumexp(scores) if seen else -np.inf
        np.testing.assert_allclose(lse[b, h, i], sums, **EXACT)
