"""Conversions between element types, rounding as PyTorch's `.to` does; what is too large for fp8 does not saturate."""

from __future__ import annotations

from typing import Any

import numpy as np

from mosaic_compile.errors import ElementTypeError, OperandError
from mosaic_compile.mlir import arith

from ..dtypes import DType, bool_, f32, i8, i32
from ..op import constant, ir_type, is_number, kind_of, op, require_constant, require_tile
from ..tile import Tile


def _reference(x: Any, dtype: DType) -> Any:
    x = np.asarray(x)
    if dtype.is_float and dtype.bits < 32 and x.dtype.kind == "f" and x.dtype.itemsize > 4:
        x = x.astype(np.float32)  # f64 goes through f32, as in PyTorch
    return x.astype(dtype.numpy)


@op(reference=_reference)
def convert(x: Any, dtype: DType) -> Tile:
    """x with another element type; also written x.to(dtype). A number becomes a scalar of that type.

    To a narrower float: to nearest, ties to even; beyond the largest value f16, bf16 and f8e5m2 give infinity
    and f8e4m3 (which has none) NaN. Float to integer: toward zero; out of range is undefined. Integer to
    integer: the low bits. Anything to bool: whether it is not zero.
    """
    if not isinstance(dtype, DType):
        raise OperandError(f".to() takes an element type, not {kind_of(dtype)}", "write x.to(mc.f32)")
    if is_number(x):
        return constant(x != 0 if dtype is bool_ else x, dtype)
    x = require_tile(x, ".to()")
    source = x.dtype
    if source is dtype:
        return x
    type_ = ir_type(dtype, x.shape)

    def made(value: Any) -> Tile:
        return Tile(value, dtype, x.shape)

    if dtype is bool_:
        if source.is_fp8 or source.bits == 4:
            return convert(convert(x, f32 if source.is_fp8 else i8), bool_)
        zero = constant(0, source, x.shape).value
        if source.is_float:
            return made(arith.cmpf(arith.CmpFPredicate.UNE, x.value, zero))
        return made(arith.cmpi(arith.CmpIPredicate.ne, x.value, zero))
    if source.is_float and dtype.is_float:
        # Two types of which neither holds the other meet in f32, which holds both exactly.
        if source.bits < 32 and dtype.bits < 32:
            through = arith.extf(ir_type(f32, x.shape), x.value)
            return made(arith.truncf(type_, through))
        if source.bits == 64 and dtype.bits < 32:
            return convert(convert(x, f32), dtype)
        return made((arith.extf if dtype.bits > source.bits else arith.truncf)(type_, x.value))
    if source.is_float:
        if source.is_fp8:
            return convert(convert(x, f32), dtype)
        if dtype.bits == 4:
            raise ElementTypeError(
                f"no direct conversion from {source} to i4", "go through i8: x.to(mc.i8).to(mc.i4)"
            )
        if dtype.bits < 32:
            # Through i32, so that what does not fit wraps as it does for integers, on every machine alike.
            return convert(convert(x, i32), dtype)
        return made((arith.fptoui if dtype.kind == "uint" else arith.fptosi)(type_, x.value))
    if dtype.is_float:
        if source.bits == 4:
            return convert(convert(x, i8), dtype)
        if dtype.bits < 32:  # through f32, rounding twice as PyTorch does
            return convert(convert(x, f32), dtype)
        return made((arith.sitofp if source.kind == "int" else arith.uitofp)(type_, x.value))
    if dtype.bits == source.bits:
        return made(x.value)  # same bits, other sign
    if dtype.bits < source.bits:
        return made(arith.trunci(type_, x.value))
    return made((arith.extsi if source.kind == "int" else arith.extui)(type_, x.value))


@op(reference=lambda x, dtype: x.view(dtype.numpy))
def bitcast(x: Any, dtype: DType) -> Tile:
    """The same bits read as another element type of the same width."""
    x = require_tile(x, "mc.bitcast")
    dtype = require_constant(dtype, DType, "mc.bitcast's element type")
    if x.dtype.bits != dtype.bits or bool_ in (x.dtype, dtype):
        raise ElementTypeError(
            f"mc.bitcast keeps the width: {x.dtype} has {x.dtype.bits} bits, {dtype} has {dtype.bits}",
            "convert instead: x.to(…)",
        )
    if x.dtype.mlir == dtype.mlir:
        return Tile(x.value, dtype, x.shape)
    return Tile(arith.bitcast(ir_type(dtype, x.shape), x.value), dtype, x.shape)


__all__ = ["bitcast", "convert"]
