"""Conversions and arithmetic of bf16, f16 and fp8 in compiled code, bit by bit against ml_dtypes and float64."""

from dataclasses import replace

import numpy as np
import pytest

from mosaic_compile import targets
from mosaic_compile.language.dtypes import DTYPES
from mosaic_compile.runtime.cpu import Program

from .programs import array, bound, compile_program, program

NARROW = ["f16", "bf16", "f8e4m3", "f8e5m2"]
WITHOUT_F16 = replace(targets.host_cpu(), f16=False)


def elementwise(source, target, body):
    """out[i] = body of in[i], for all elements in one program; `body` takes %v and gives %w."""
    a, b = DTYPES[source].mlir, DTYPES[target].mlir
    return program(
        "apply",
        [array("x", source, ["N"], [1], "in", a), array("y", target, ["N"], [1], "out", b)],
        ["1"],
        f"""
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %n = memref.dim %x, %c0 : memref<?x{a}, strided<[1]>>
  scf.for %i = %c0 to %n step %c1 {{
    %v = memref.load %x[%i] : memref<?x{a}, strided<[1]>>
    {body}
    memref.store %w, %y[%i] : memref<?x{b}, strided<[1]>>
  }}""",
    )


def apply(text, x, target, machine=None):
    artifact, _ = compile_program(text, machine)
    y = np.zeros(x.shape, DTYPES[target].numpy)
    Program(artifact)(bound(artifact, {"x": x, "y": y}))
    return y


def codes(dtype):
    """Every number of a narrow type."""
    word = np.dtype(f"u{dtype.numpy.itemsize}")
    return np.arange(1 << dtype.bits, dtype=np.uint32).astype(word).view(dtype.numpy)


def hard_numbers(dtype, wide):
    """Numbers of a wide type around every number of a narrow one, and around the middle of each two; the rest at random."""
    with np.errstate(invalid="ignore"):
        narrow = codes(dtype).astype(np.float64)
    finite = np.sort(narrow[np.isfinite(narrow)])
    top = finite[-1] + (finite[-1] - finite[-2]) * np.array([0.25, 0.5, 0.75, 1, 2])
    with np.errstate(over="ignore"):
        exact = np.concatenate([finite, (finite[1:] + finite[:-1]) / 2, top, -top]).astype(wide)
    around = [exact, np.nextafter(exact, wide(np.inf)), np.nextafter(exact, wide(-np.inf))]
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e38, -1e38], wide)
    words = np.random.default_rng(3).integers(0, 1 << 32, 50000, np.uint32).view(np.float32)
    with np.errstate(invalid="ignore"):
        words = words.astype(wide)
    return np.concatenate([*around, special, words])


def same(got, expected):
    """Equal bits, where a NaN equals every other."""
    word = f"u{got.dtype.itemsize}"
    either = np.isnan(got.astype(np.float64)) & np.isnan(expected.astype(np.float64))
    np.testing.assert_array_equal(
        np.where(either, 0, got.view(word)), np.where(either, 0, expected.view(word))
    )


@pytest.mark.parametrize("machine", [None, WITHOUT_F16], ids=["host", "without f16"])
@pytest.mark.parametrize("wide", ["f32", "f64"])
@pytest.mark.parametrize("name", NARROW)
def test_every_number_becomes_wider(name, wide, machine):
    dtype = DTYPES[name]
    body = f"%w = arith.extf %v : {dtype.mlir} to {wide}"
    with np.errstate(invalid="ignore"):
        same(
            apply(elementwise(name, wide, body), codes(dtype), wide, machine),
            codes(dtype).astype(DTYPES[wide].numpy),
        )


@pytest.mark.parametrize("machine", [None, WITHOUT_F16], ids=["host", "without f16"])
@pytest.mark.parametrize("wide", ["f32", "f64"])
@pytest.mark.parametrize("name", NARROW)
def test_numbers_become_narrower_with_one_rounding(name, wide, machine):
    dtype = DTYPES[name]
    x = hard_numbers(dtype, DTYPES[wide].numpy.type)
    body = f"%w = arith.truncf %v : {wide} to {dtype.mlir}"
    with np.errstate(over="ignore", invalid="ignore"):
        expected = rounded(x, dtype)
        same(apply(elementwise(wide, name, body), x, name, machine), expected)


def rounded(x, dtype):
    """The nearest numbers of a type, ties to even; exact in float64 (ml_dtypes rounds f64 to f32 first)."""
    if dtype.name == "f16":
        return x.astype(np.float16)
    limits = {"bf16": (8, -133), "f8e4m3": (4, -9), "f8e5m2": (3, -16)}
    digits, least = limits[dtype.name]
    wide = x.astype(np.float64)
    _, exponent = np.frexp(np.where(np.isfinite(wide), wide, 1.0))
    step = np.ldexp(1.0, np.maximum(exponent - digits, least))
    nearest = np.where(np.isfinite(wide), np.round(wide / step) * step, wide)
    return nearest.astype(np.float32).astype(dtype.numpy)  # exact but for what is beyond the largest number


@pytest.mark.parametrize("machine", [None, WITHOUT_F16], ids=["host", "without f16"])
@pytest.mark.parametrize("name", NARROW)
def test_arithmetic_rounds_each_result(name, machine):
    dtype = DTYPES[name]
    mlir = dtype.mlir
    body = f"""%t = arith.constant 1.5 : {mlir}
    %a = arith.mulf %v, %t : {mlir}
    %b = math.absf %a : {mlir}
    %w = arith.addf %b, %t : {mlir}"""
    x = codes(dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        product = rounded(x.astype(np.float64) * 1.5, dtype)
        expected = rounded(np.abs(product.astype(np.float64)) + 1.5, dtype)
        same(apply(elementwise(name, name, body), x, name, machine), expected)
