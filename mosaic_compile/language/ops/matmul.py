"""Matrix products of tiles."""

from __future__ import annotations

from typing import Any

import numpy as np

from mosaic_compile.dialects.tile import Dot4Op, DotOp
from mosaic_compile.errors import ElementTypeError, MixedTypesError, ShapeError
from mosaic_compile.mlir import bool_attribute, ir

from ..dtypes import DType, f32, i32, u32
from ..op import (
    broadcast,
    broadcast_shapes,
    constant,
    conversion_help,
    ir_type,
    op,
    require_constant,
    require_tile,
)
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


def _dot4_reference(a: Any, b: Any, acc: Any = 0) -> Any:
    a, b = (np.ascontiguousarray(x) for x in np.broadcast_arrays(a, b))
    bytes_of_a = a.view(np.uint8 if a.dtype == np.uint32 else np.int8).reshape(*a.shape, 4)
    bytes_of_b = b.view(np.int8).reshape(*b.shape, 4)
    return (bytes_of_a.astype(np.int64) * bytes_of_b).sum(-1) + acc


@op(reference=_dot4_reference)
def dot4(a: Any, b: Any, acc: Any = None) -> Tile:
    """acc + the sum of the four products of the bytes of a and of b, element by element; the sum wraps.

    a: u32 for four bytes from 0 to 255, i32 for four from -128 to 127. b: i32, four bytes from -128 to 127.
    acc: i32; without it, 0. Machines have an instruction for it (dp4a, sdot, vpdpbusd, vrmpy): arrays of bytes
    are passed as arrays of words, x.view(numpy.int32).
    """
    a, b = require_tile(a, "mc.dot4"), require_tile(b, "mc.dot4")
    if a.dtype not in (i32, u32):
        raise ElementTypeError(
            f"mc.dot4 takes four bytes in each element, i32 or u32, not {a!r}",
            "pass the array of bytes as one of words: x.view(numpy.int32)",
        )
    if b.dtype is not i32:
        raise ElementTypeError(
            f"mc.dot4's second factor is i32, four signed bytes, not {b!r}",
            "let the unsigned bytes be the first factor" if b.dtype is u32 else "pass an array of words",
        )
    acc = constant(0, i32, ()) if acc is None else require_tile(acc, "mc.dot4's accumulator")
    if acc.dtype is not i32:
        raise ElementTypeError(f"mc.dot4 accumulates in i32, not {acc.dtype}", "convert it: .to(mc.i32)")
    shape = broadcast_shapes("mc.dot4", *(x.shape for x in (a, b, acc) if x.shape))
    a, b, acc = (broadcast(x, shape) for x in (a, b, acc))
    signed = bool_attribute(a.dtype is i32)
    return Tile(Dot4Op(a.value, b.value, acc.value, signed, ir_type(i32, shape)).result, i32, shape)


__all__ = ["dot", "dot4"]
