"""Making tiles from nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from mosaic_compile.dialects.tile import IotaOp
from mosaic_compile.errors import MixedTypesError, OperandError

from ..dtypes import DType, bool_, i32
from ..op import broadcast, constant, ir_type, is_number, kind_of, op, require_constant, require_shape
from ..tile import Tile


@op(reference=lambda shape, value, dtype: np.full(shape, value, dtype.numpy))
def full(shape: Any, value: Any, dtype: DType) -> Tile:
    """A tile of one value: a number, or a scalar of that type."""
    shape = require_shape(shape, "mc.full")
    dtype = require_constant(dtype, DType, "mc.full's element type")
    if isinstance(value, Tile):
        if value.shape:
            raise OperandError(
                f"mc.full takes a number or a scalar, not a tile of type {value!r}",
                "use mc.broadcast_to for tiles",
            )
        if value.dtype is not dtype:
            raise MixedTypesError(
                f"mc.full makes {dtype}, but the value is {value!r}", f"convert it: value.to(mc.{dtype})"
            )
        return broadcast(value, shape)
    if not is_number(value):
        raise OperandError(f"mc.full takes a number or a scalar, not {kind_of(value)}", "pass a number")
    return constant(value, dtype, shape)


@op(reference=lambda shape, dtype: np.zeros(shape, dtype.numpy))
def zeros(shape: Any, dtype: DType) -> Tile:
    """A tile of zeros."""
    dtype = require_constant(dtype, DType, "mc.zeros' element type")
    return constant(False if dtype is bool_ else 0, dtype, require_shape(shape, "mc.zeros"))


@op(reference=lambda shape, dtype: np.ones(shape, dtype.numpy))
def ones(shape: Any, dtype: DType) -> Tile:
    """A tile of ones."""
    dtype = require_constant(dtype, DType, "mc.ones' element type")
    return constant(True if dtype is bool_ else 1, dtype, require_shape(shape, "mc.ones"))


@op(reference=lambda size: np.arange(size, dtype=np.int32))
def iota(size: Any) -> Tile:
    """0, 1, …, size - 1 as an i32 tile of one dimension."""
    shape = require_shape(size, "mc.iota")
    if len(shape) != 1:
        raise OperandError(
            f"mc.iota takes one size, not {shape}", "add dimensions after: mc.iota(64)[:, None]"
        )
    return Tile(IotaOp(ir_type(i32, shape)).result, i32, shape)


__all__ = ["full", "iota", "ones", "zeros"]
