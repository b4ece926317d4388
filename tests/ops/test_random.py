"""Random numbers, against Philox in Python's integers, published vectors, XLA's generator and Triton's interpreter; and as samples."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

import mosaic_compile as mc

from .harness import apply
from .registry import checks
from .rounding import same
from .values import broadcasting, examples, tiles

WORDS = st.integers(0, 2**32 - 1)


def philox(counter, key, rounds=10):
    """Philox 4x32 of one counter (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011, section 3.3)."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(rounds):
        a, b = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (b >> 32) ^ c1 ^ k0, b % 2**32, (a >> 32) ^ c3 ^ k1, a % 2**32
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return c0, c1, c2, c3


# Random123's kat_vectors: rounds, counter, key, answer.
KNOWN = [
    (7, [0] * 4, [0] * 2, [0x5F6FB709, 0x0D893F64, 0x4F121F81, 0x4F730A48]),
    (10, [0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    (10, [0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        10,
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


@pytest.mark.parametrize("rounds, counter, key, answer", KNOWN)
def test_known_answers(rounds, counter, key, answer):
    assert list(philox(counter, key, rounds)) == answer
    words = [np.array(w, np.uint32) for w in (*counter, *key)]
    actual = apply(lambda *w: mc.philox(w[:4], w[4:], rounds=rounds), *words)
    assert [int(w) for w in actual] == answer


@checks("philox")
@pytest.mark.parametrize("dtype", [mc.u32, mc.i32], ids=str)
def test_philox(dtype):
    @examples(30)
    @given(data=st.data())
    def check(data):
        words = [data.draw(tiles(dtype, shape)) for shape in data.draw(broadcasting(4))]
        key = data.draw(WORDS), data.draw(WORDS)
        actual = apply(lambda *counter: mc.philox(counter, key), *words)
        spread = np.broadcast_arrays(*words)
        for at in np.ndindex(spread[0].shape):
            wanted = philox([int(w[at]) % 2**32 for w in spread], key)
            assert tuple(int(w[at]) for w in actual) == wanted

    check()


def test_as_xla():
    """What JAX's "rbg" keys are made of: the same words for the same key and counter, of which XLA's upper half is the key."""
    jax = pytest.importorskip("jax")
    key, start = np.array([3, 0x9ABCDEF0], np.uint32), 2**32 - 3  # the counter's low word overflows
    state = np.array([*key, start % 2**32, start >> 32], np.uint32)
    algorithm = jax.lax.RandomAlgorithm.RNG_PHILOX
    _, wanted = jax.lax.rng_bit_generator(state, (32,), np.uint32, algorithm)
    counters = [start + i for i in range(8)]
    low, high = (np.array([c >> shift & 0xFFFFFFFF for c in counters], np.uint32) for shift in (0, 32))
    words = tuple(map(int, key))
    actual = apply(lambda a, b: mc.philox((a, b, *words), words), low, high)
    same(np.stack(actual, 1).ravel(), np.asarray(wanted))


TRITON = """
import json, sys
import torch, triton, triton.language as tl

@triton.jit
def kernel(seed, bits, uniform, normal, N: tl.constexpr):
    offset = tl.arange(0, N)
    tl.store(bits + offset, tl.randint(seed, offset))
    tl.store(uniform + offset, tl.rand(seed, offset))
    tl.store(normal + offset, tl.randn(seed, offset))

result = {}
for seed in json.loads(sys.argv[1]):
    bits, uniform, normal = torch.zeros(64, dtype=torch.int32), torch.zeros(64), torch.zeros(64)
    kernel[(1,)](seed, bits, uniform, normal, 64)
    result[seed] = [x.tolist() for x in (bits, uniform, normal)]
print(json.dumps(result))
"""


def test_as_triton(tmp_path):
    """tl.randint and tl.rand bit by bit, tl.randn but for the rounding of its logarithm and cosine."""
    pytest.importorskip("triton")
    pytest.importorskip("torch")
    script = tmp_path / "triton_random.py"  # its interpreter, too, reads the kernel's text
    script.write_text(TRITON)
    seeds = [0, 42, 2**31 - 1]
    done = subprocess.run(
        [sys.executable, str(script), json.dumps(seeds)],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    for seed, (bits, uniform, normal) in json.loads(done.stdout).items():
        functions = (mc.random_bits, mc.random_uniform, mc.random_normal)
        actual = [apply(functools.partial(f, int(seed)), np.arange(64, dtype=np.int32)) for f in functions]
        same(actual[0], np.array(bits, np.int32).view(np.uint32))
        same(actual[1], np.array(uniform, np.float32))
        np.testing.assert_allclose(actual[2], np.array(normal, np.float32), rtol=1e-5, atol=1e-6)


@checks("random_bits", "random_uniform", "random_normal")
def test_bits_and_what_is_made_of_them():
    """Seeds that are numbers or scalars, offsets of both signs; uniform and normal numbers by their definitions."""

    @examples(40)
    @given(data=st.data())
    def check(data):
        seed = data.draw(st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(0, 100)))
        offset = data.draw(tiles(data.draw(st.sampled_from([mc.i32, mc.u32])), (8,)))
        key = seed % 2**32, seed >> 32 & 0xFFFFFFFF
        words = np.array([philox((int(o) % 2**32, 0, 0, 0), key) for o in offset], np.uint64)
        bits = words[:, 0].astype(np.uint32)
        same(apply(lambda o: mc.random_bits(seed, o), offset), bits)
        same(apply(mc.random_bits, np.int64(seed), offset), bits)
        if 0 <= seed < 2**31:
            same(apply(mc.random_bits, np.int32(seed), offset), bits)
        uniform = apply(mc.random_uniform, np.int64(seed), offset)
        # 31 of the bits as a fraction; in f32 it is rounded twice.
        signed = words.astype(np.int64)
        signed = np.where(signed >= 2**31, 2**32 - 1 - signed, signed)
        fractions = signed * 4.6566127342e-10
        np.testing.assert_allclose(uniform, fractions[:, 0], rtol=3 * 2.0**-24)
        assert uniform.dtype == np.float32 and ((uniform >= 0) & (uniform < 1)).all()
        first = np.maximum(fractions[:, 0], 1e-7)
        normal = np.sqrt(-2 * np.log(first)) * np.cos(2 * np.pi * fractions[:, 1])
        actual = apply(mc.random_normal, np.int64(seed), offset)
        # ln(u) near 1 has the error of u, and so its root; the cosine that of its argument, below 2 pi.
        error = 2.0**-24 * (
            8 + 8 * np.abs(normal) + 4 / np.sqrt(-2 * np.log(np.minimum(first, 1 - 2.0**-24)))
        )
        assert actual.dtype == np.float32 and (np.abs(actual - normal) <= error).all()

    check()


@pytest.mark.parametrize("seed", [0, 1, 2**40 + 17])
def test_samples(seed):
    """20000 consecutive offsets are a sample of the distribution: fixed seeds, so a fixed outcome."""
    offset = np.arange(20000, dtype=np.int32)
    uniform = apply(lambda o: mc.random_uniform(seed, o), offset)
    normal = apply(lambda o: mc.random_normal(seed, o), offset)
    assert scipy.stats.kstest(uniform, "uniform").pvalue > 1e-3
    assert scipy.stats.kstest(normal, "norm").pvalue > 1e-3
    assert abs(scipy.stats.pearsonr(uniform[1:], uniform[:-1]).statistic) < 4 / np.sqrt(len(offset))
    bits = apply(lambda o: mc.random_bits(seed, o), offset)
    for bit in range(32):  # each bit is set half the time, within five standard deviations
        assert abs(np.count_nonzero(bits >> bit & 1) - 10000) < 5 * np.sqrt(5000)
