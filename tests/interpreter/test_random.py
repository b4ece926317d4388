"""Random numbers in kernels, against known answers and the NumPy reference."""

import numpy as np
import pytest

import mosaic_compile as mc
from mosaic_compile.language.op import OPS

from .helpers import assert_same, launch

# Random123's kat_vectors for philox4x32, 10 rounds: counter, key, answer.
KNOWN_ANSWERS = [
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


@mc.kernel(grid=(1,))
def words(c0: mc.u32, c1: mc.u32, c2: mc.u32, c3: mc.u32, k0: mc.u32, k1: mc.u32, out: mc.u32[4]):
    result = mc.philox((c0, c1, c2, c3), (k0, k1))
    for i in mc.static_range(4):
        mc.store(out, i, result[i])


@pytest.mark.parametrize("counter, key, answer", KNOWN_ANSWERS)
def test_known_answers(counter, key, answer):
    out = np.zeros(4, np.uint32)
    launch(words, *counter, *key, out)
    assert [hex(v) for v in out] == [hex(v) for v in answer]
    reference = OPS["philox"].reference(counter, key)
    assert [hex(int(v)) for v in reference] == [hex(v) for v in answer]


@mc.kernel(grid=(1,))
def randoms(offsets: mc.i32[64], seed: mc.i64, bits: mc.u32[64], uniform: mc.f32[64], normal: mc.f32[64]):
    offset = mc.load(offsets, 0, 64)
    mc.store(bits, 0, mc.random_bits(seed, offset))
    mc.store(uniform, 0, mc.random_uniform(seed, offset))
    mc.store(normal, 0, mc.random_normal(seed, offset))


@pytest.mark.parametrize("seed", [0, 42, 2**40 + 17, -1])
def test_against_reference(seed):
    offsets = np.random.default_rng(0).integers(-(2**31), 2**31, 64).astype(np.int32)
    bits, uniform, normal = np.zeros(64, np.uint32), np.zeros(64, np.float32), np.zeros(64, np.float32)
    launch(randoms, offsets, seed, bits, uniform, normal)
    assert_same(bits, OPS["random_bits"].reference(seed, offsets.view(np.uint32)))
    assert_same(uniform, OPS["random_uniform"].reference(seed, offsets.view(np.uint32)))
    assert ((uniform >= 0) & (uniform < 1)).all()
    assert np.isfinite(normal).all() and abs(normal.mean()) < 0.6 and 0.5 < normal.std() < 1.5


def test_constant_seed():
    @mc.kernel(grid=(1,))
    def fixed(bits: mc.u32[8]):
        mc.store(bits, 0, mc.random_bits(2**33 + 5, mc.iota(8)))

    bits = np.zeros(8, np.uint32)
    launch(fixed, bits)
    assert_same(bits, OPS["random_bits"].reference(2**33 + 5, np.arange(8, dtype=np.uint32)))
