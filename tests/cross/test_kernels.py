"""The library's kernels on other machines: the kernels' own checks against float64, run there.

Tiles are small: every test has whole tiles and ragged ones, and qemu is slow.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest

import mosaic_compile as mc
from mosaic_compile.kernels import rms_norm, vector_add
from tests.kernels import (
    helpers,
    test_attention,
    test_elementwise,
    test_indexing,
    test_narrow_products,
    test_products,
    test_quantized,
    test_rows,
)
from tests.kernels.helpers import U32, assert_within, integers, least, random, roundoff, unwritten

from .machines import MACHINES, Machine


@pytest.fixture(scope="module")
def machines(tmp_path_factory):
    """Machines by name, each with what was built for it."""
    return functools.cache(lambda name: MACHINES[name][0](tmp_path_factory.mktemp(name)))


@pytest.fixture
def machine(machines, request) -> Machine:
    return machines(request.param)


def on(*names: str):
    """Runs a test on these machines: its argument `machine`, and the kernels' own checks."""
    chosen = [pytest.param(name, marks=MACHINES[name][1]) for name in names]
    return pytest.mark.parametrize("machine", chosen, indirect=True)


everywhere = on("arm64-linux", "hexagon-v67", "wasm32")


@pytest.fixture(autouse=True)
def checks_run_there(machine, monkeypatch):
    for module in (test_attention, test_elementwise, test_indexing, test_products, test_quantized, test_rows):
        monkeypatch.setattr(module, "launch", machine.launch)


@everywhere
@pytest.mark.parametrize("dtype", ["f32", "bf16", "f16", "f64"])
def test_vector_add(machine, dtype):
    for n in (0, 1, 64, 150):
        x, y, out = random(1, (n,), dtype), random(2, (n,), dtype), unwritten((n,), dtype)
        interpreted = unwritten((n,), dtype)
        machine.launch(vector_add, x=x, y=y, out=out, BLOCK=64)
        helpers.launch(vector_add, x=x, y=y, out=interpreted, BLOCK=64)
        np.testing.assert_array_equal(out, interpreted)
        expected = vector_add.reference(x, y)
        assert_within(out, expected, roundoff(out.dtype) * abs(expected))


@everywhere
@pytest.mark.parametrize("dtype", ["i32", "i8", "u8"])
def test_vector_add_of_integers(machine, dtype):
    for n in (1, 150):
        x, y, out = integers(1, (n,), dtype), integers(2, (n,), dtype), unwritten((n,), dtype)
        machine.launch(vector_add, x=x, y=y, out=out, BLOCK=64)
        np.testing.assert_array_equal(out, vector_add.reference(x, y))


@everywhere
@pytest.mark.parametrize("dtype,out", [("f32", "f32"), ("bf16", "f32"), ("f16", "f16"), ("f8e4m3", "bf16")])
def test_matmul(dtype, out):
    for m, n, k in ((16, 16, 16), (17, 31, 33), (1, 40, 7), (3, 0, 5)):
        test_products.check_matmul(m, n, k, dtype, out, scale=0.37, BK=16)


@everywhere
@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_softmax(dtype):
    for m, n in ((4, 16), (5, 40), (1, 1)):
        test_rows.check_softmax(random(4, (m, n), dtype, 4), BM=4, BN=16)


@everywhere
@pytest.mark.parametrize("dtype,weights", [("f32", "f32"), ("bf16", "f32"), ("f16", "f16")])
def test_rms_norm(machine, dtype, weights):
    for m, n in ((4, 16), (5, 40), (1, 1)):
        x, weight, out = random(6, (m, n), dtype, 3), random(7, (n,), weights), unwritten((m, n), dtype)
        machine.launch(rms_norm, x=x, weight=weight, out=out, eps=1e-5, BM=4, BN=16)
        expected = rms_norm.reference(x, weight, np.float32(1e-5).astype(np.float64))
        assert_within(out, expected, (roundoff(out.dtype) + (n + 8) * U32) * abs(expected) + least(out.dtype))


@everywhere
@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_flash_attention(dtype):
    for s, t in ((8, 8), (9, 13), (1, 5)):
        test_attention.check_attention(h=2, s=s, t=t, d=8, dtype=dtype, causal=True, BM=4, BN=8)


@everywhere
@pytest.mark.parametrize("dtype,sums", [("f32", "f32"), ("bf16", "f32"), ("i8", "i32")])
def test_cumsum(dtype, sums):
    for m, n in ((4, 16), (5, 40), (1, 1)):
        x = random(8, (m, n), dtype) if dtype in helpers.FLOATS else integers(8, (m, n), dtype)
        test_rows.check_cumsum(x, sums, BM=4, BN=16)


@everywhere
@pytest.mark.parametrize("dtype", test_indexing.ROWS)
def test_gather_rows(dtype):
    for n, d in ((4, 16), (5, 40), (0, 3)):
        test_indexing.check_gather_rows(7, d, integers(2, (n,), "i32", -2, 9), dtype, BM=4, BN=16)


@everywhere
def test_histogram():
    for n in (0, 16, 100):
        test_indexing.check_histogram(integers(5, (n,), "u8", 0, 5), 6, BLOCK=32)


@everywhere
@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu(approximate):
    test_elementwise.check_gelu(random(4, (5, 40), "f32", 3), approximate=approximate, BM=4, BN=16)


@mc.kernel(grid=lambda M, N, B: (mc.cdiv(M, B), mc.cdiv(N, B)))
def dot_of_integers(a: mc.i8["M", "K"], b: mc.i8["K", "N"], c: mc.Out[mc.i32["M", "N"]], *, B: mc.Const = 16):
    m, n = mc.program_id(0), mc.program_id(1)
    acc = mc.zeros((B, B), mc.i32)
    for k in range(mc.cdiv(a.shape[1], B)):
        acc = mc.dot(mc.load(a, (m, k), (B, B)), mc.load(b, (k, n), (B, B)), acc)
    mc.store(c, (m, n), acc)


@everywhere
def test_dot_of_integers(machine):
    for m, n, k in ((16, 16, 16), (17, 31, 33), (1, 5, 0)):
        a, b, c = integers(1, (m, k), "i8"), integers(2, (k, n), "i8"), unwritten((m, n), "i32")
        machine.launch(dot_of_integers, a=a, b=b, c=c)
        np.testing.assert_array_equal(c, a.astype(np.int32) @ b.astype(np.int32))


@on("arm64-linux", "arm64-linux-v8.6")
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("dtype", ["bf16", "i8"])
def test_dot_of_narrow_numbers(machine, dtype, turned):
    for m, n, k in ((16, 16, 16), (9, 19, 13), (1, 1, 1)):
        test_narrow_products.check_multiply(m, n, k, dtype, machine.launch, turned)
    test_narrow_products.check_multiply(5, 9, 7, dtype, machine.launch, turned, BM=2, BN=4, BK=2)
    test_narrow_products.check_multiply(21, 21, 40, dtype, machine.launch, turned, BM=12, BN=20, BK=24)


@everywhere
@pytest.mark.parametrize("bits", [4, 8])
def test_quantized_matmul(bits):
    for m, n, k in ((2, 4, 512), (3, 5, 600), (1, 3, 1)):
        test_quantized.check_quantized_matmul(m, n, k, bits)


@everywhere
def test_quantize_rows():
    for k in (512, 700):
        test_quantized.check_quantize_rows(k, 32, "f32")


@everywhere
def test_products_of_bytes(machine):
    test_quantized.check_bytes(functools.partial(machine.launch, test_quantized.bytes_by_bytes))


@mc.kernel(grid=lambda M, N, B: (M, mc.cdiv(N, B)))
def scaled(x: mc.i4["M", "N"], out: mc.Out[mc.f32["M", "N"]], scale: mc.f32, *, B: mc.Const = 32):
    m, n = mc.program_id(0), mc.program_id(1)
    mc.store(out, (m, n), mc.load(x, (m, n), (1, B)).to(mc.f32) * scale)


@everywhere
def test_two_elements_in_a_byte(machine):
    for shape in ((3, 32), (2, 35)):
        packed = integers(3, shape, "i8")
        out = unwritten((shape[0], 2 * shape[1]), "f32")
        machine.launch(scaled, x=packed, out=out, scale=0.25)
        low, high = ((packed << 4) >> 4), packed >> 4
        np.testing.assert_array_equal(out, np.stack([low, high], -1).reshape(out.shape) * np.float32(0.25))


@on("browser")
def test_in_a_browser(machine):
    test_attention.check_attention(h=2, s=9, t=13, d=8, dtype="bf16", causal=True, BM=4, BN=8)
    test_products.check_matmul(17, 31, 33, "bf16", "f32", scale=0.37, BK=16)
