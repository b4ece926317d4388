"""Matrix products of tiles."""

from __future__ import annotations

from typing import Any

import numpy as np

from mosaic_compile.dialects.tile import DotOp
from mosaic_compile.errors import ElementTypeError, MixedTypesError, ShapeError
from mosaic_compile.mlir import ir

from ..dtypes import DType, f32, i32
from ..op import constant, conversion_help, ir_type, op, require_constant, require_tile
from ..tile import Tile

# Element types of a and b, and what a product of them may accumulate in (the first is the default).
ACCUMULATORS = {
    "f64": ("f64",),
    "f32": ("f32",),
    "bf16": ("f32",),
    "f16": ("f32", "f16"),
    "f8e4m3": ("f32", "f16"),
    "f8e5m2": ("f32", "f16"),
    "i8": ("i32",),
}
PRECISIONS = ("ieee", "tf32", "tf32x3")


def _reference(a: Any, b: Any, acc: Any = None, **_: Any) -> Any:
    product = np.matmul(np.asarray(a).astype(np.float64), np.asarray(b).astype(np.float64))
    return product if acc is None else product + acc


@op(reference=_reference)
def dot(a: Any, b: Any, acc: Any = None, *, precision: str = "ieee", dtype: DType | None = None) -> Tile:
    """acc + a @ b for tiles (M, K) and (K, N), or (B, M, K) and (B, K, N); a transposed operand is written
    b.T.

    a, b: f64, f32, bf16, f16, f8e4m3, f8e5m2 (the two fp8 types mix) or i8.
    acc: the accumulator's tile; without one, zeros of `dtype`, or of f32, f64 or i32 as the operands have it.
    precision: for f32 operands "ieee" (full), "tf32" (operands rounded to 10 bits of mantissa) or "tf32x3"
    (three tf32 products that recover nearly all bits).
    """
    a, b = require_tile(a, "mc.dot"), require_tile(b, "mc.dot")
    if a.dtype.name not in ACCUMULATORS:
        exact = {"u8": "mc.f16", "i4": "mc.i8", "bool": "mc.i8"}.get(a.dtype.name)
        help = (
            f"convert it: .to({exact}) holds every value"
            if exact
            else "convert it to a matrix type: .to(mc.bf16)"
        )
        raise ElementTypeError(f"mc.dot cannot multiply {a!r}", help)
    if a.dtype is not b.dtype and not (a.dtype.is_fp8 and b.dtype.is_fp8):
        raise MixedTypesError(
            f"mc.dot has mixed element types: {a!r} and {b!r}",
            conversion_help(a, b),
        )
    if a.ndim != b.ndim or a.ndim not in (2, 3):
        raise ShapeError(
            f"mc.dot takes two matrices, or two batches of them, not {a!r} and {b!r}",
            "reshape to two dimensions",
        )
    if a.shape[-1] != b.shape[-2] or a.shape[:-2] != b.shape[:-2]:
        raise ShapeError(
            f"mc.dot cannot multiply {a!r} by {b!r}: {a.shape[-1]} columns meet {b.shape[-2]} rows",
            "the last dimension of the first must equal the second-to-last of the second; .T transposes",
        )
    if require_constant(precision, str, "mc.dot's precision") not in PRECISIONS:
        raise ElementTypeError(f"mc.dot has no precision {precision!r}", "use 'ieee', 'tf32' or 'tf32x3'")
    if precision != "ieee" and a.dtype is not f32:
        raise ElementTypeError(f"precision={precision!r} is for f32 operands, not {a!r}", "leave it out")
    allowed = ACCUMULATORS[a.dtype.name]
    shape = (*a.shape[:-1], b.shape[-1])
    if acc is None:
        chosen = dtype if dtype is not None else {"f64": a.dtype, "i32": i32}.get(allowed[0], f32)
        acc = constant(0, require_constant(chosen, DType, "mc.dot's dtype"), shape)
    acc = require_tile(acc, "mc.dot's accumulator")
    if acc.dtype.name not in allowed:
        raise ElementTypeError(
            f"mc.dot of {a.dtype} accumulates in {' or '.join(allowed)}, not {acc.dtype}",
            "leave dtype out" if dtype is not None else f"make acc with mc.zeros({shape}, mc.{allowed[0]})",
        )
    if acc.shape != shape:
        raise ShapeError(
            f"mc.dot of {a!r} and {b!r} gives the shape {shape}, but the accumulator is {acc!r}",
            f"make acc with mc.zeros({shape}, …)",
        )
    result = DotOp(
        a.value, b.value, acc.value, ir.StringAttr.get(precision), ir_type(acc.dtype, shape)
    ).result
    return Tile(result, acc.dtype, shape)


__all__ = ["dot"]
