"""Tiles made from nothing, and constants of the IR."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mosaic_compile as mc
from mosaic_compile.interpreter.values import decode
from mosaic_compile.language.op import ir_type
from mosaic_compile.mlir import ir, new_context

from .harness import apply
from .registry import checks
from .rounding import FORMATS, rounded, same
from .values import ALL, every, examples, shapes, specials, tiles


@checks("full")
@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_full(dtype):
    """Every number that the type holds, and numbers that it rounds."""
    for value in every(dtype) if dtype.bits <= 8 else specials(dtype):
        same(apply(lambda: mc.full((2, 3), number_of(value), dtype)), np.full((2, 3), value))  # noqa: B023 - called here

    @examples(10)
    @given(data=st.data())
    def check(data):
        shape = data.draw(shapes(min_dims=1))
        scalar = data.draw(tiles(dtype, ()))
        same(apply(lambda x: mc.full(shape, x, dtype), scalar), np.full(shape, scalar))
        if dtype.is_float:
            number = data.draw(st.floats(-200, 200))
            same(apply(lambda: mc.full(shape, number, dtype)), np.broadcast_to(rounded(number, dtype), shape))

    check()


def number_of(value):
    """A Python number."""
    if value.dtype == bool:
        return bool(value)
    return int(value) if value.dtype.kind in "iu" or "int" in value.dtype.name else float(value)


@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_numbers_that_do_not_fit(dtype):
    number = 10**400 if dtype is mc.f64 else 1.1 * FORMATS[dtype].largest if dtype.is_float else dtype.max + 1
    if dtype is not mc.bool_:
        with pytest.raises(mc.MosaicError, match="does not fit"):
            apply(lambda: mc.full((2,), number, dtype))
    if dtype is mc.f8e4m3:
        with pytest.raises(mc.MosaicError, match="no infinity"):
            apply(lambda: mc.full((2,), float("inf"), dtype))


@checks("zeros", "ones")
@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_zeros_and_ones(dtype):
    for shape in ((1,), (4, 8), (3, 1, 5)):
        same(apply(lambda: mc.zeros(shape, dtype)), np.zeros(shape, dtype.numpy))  # noqa: B023
        same(apply(lambda: mc.ones(shape, dtype)), np.ones(shape, dtype.numpy))  # noqa: B023


@checks("iota")
@pytest.mark.parametrize("size", [1, 2, 7, 256])
def test_iota(size):
    same(apply(lambda: mc.iota(size)), np.arange(size, dtype=np.int32))


@pytest.mark.parametrize("shape", [(2, 3), (40, 7)])  # MLIR prints, and so hands out, larger ones as bytes
@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_dense_constants(dtype, shape):
    """A constant tile whose elements differ: what canonicalization may fold to."""
    values = every(dtype) if dtype.bits <= 8 else specials(dtype)
    values = np.resize(values, shape)
    with new_context(), ir.Location.unknown():
        type_ = ir_type(dtype, values.shape)
        text = ", ".join(_literal(v) for v in values.ravel())
        flat = ir.RankedTensorType.get([values.size], type_.element_type)
        actual = decode(ir.Attribute.parse(f"dense<[{text}]> : {flat}")).reshape(shape)
    width = f"u{values.dtype.itemsize}"
    small = values.dtype in (ml_dtypes.int4, np.bool_)
    a, w = (v.astype(np.int8) if small else v.view(width) for v in (actual, values))
    np.testing.assert_array_equal(a, w)


def _literal(value):
    """An element in MLIR's text: floats by their bits."""
    if value.dtype == bool:
        return "true" if value else "false"
    if value.dtype.kind in "iu" or "int" in value.dtype.name:
        signed = (
            np.array(value).astype(np.int8)
            if value.dtype.name == "int4"
            else value.view(f"i{value.itemsize}")
        )
        return str(int(signed))
    return f"0x{int(value.view(f'u{value.itemsize}')):0{2 * value.itemsize}X}"
