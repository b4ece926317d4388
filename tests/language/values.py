"""Tiles and arrays to call operations on, without a kernel around them."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mosaic_compile.dialects.tile import ArrayType, DimOp
from mosaic_compile.errors import MosaicError
from mosaic_compile.language.arrays import Access
from mosaic_compile.language.dtypes import DTYPES, i32
from mosaic_compile.language.op import ir_type
from mosaic_compile.language.tile import Array, Tile
from mosaic_compile.mlir import ir, new_context

FLOATS = ("f64", "f32", "f16", "bf16")
FP8 = ("f8e4m3", "f8e5m2")
INTEGERS = ("i64", "i32", "i16", "i8", "u8", "u32")
ALL = tuple(DTYPES)


@functools.cache
def _context() -> ir.Context:
    return new_context()  # one for all tests: making one takes longer than a test


@contextmanager
def tracing(verify: bool = True) -> Iterator[ir.Module]:
    """Operations called inside go into a module, which is verified at the end.

    verify: False where an error is expected after an operation was begun.
    """
    with _context(), ir.Location.unknown():
        module = ir.Module.create()
        with ir.InsertionPoint(module.body):
            yield module
        assert not verify or module.operation.verify()


def _parse(text: str) -> tuple[str, list[str]]:
    match = re.fullmatch(r"(\w+)(?:\[(.*)\])?", text)
    assert match, text
    return match[1], [part.strip() for part in (match[2] or "").split(",") if part.strip()]


def _value(type_: ir.Type) -> ir.Value:
    return ir.Operation.create("builtin.unrealized_conversion_cast", results=[type_]).result


def tile(text: str) -> Tile:
    """A tile of a type such as "f32[8, 16]", or a scalar such as "i32"."""
    name, dims = _parse(text)
    shape = tuple(map(int, dims))
    return Tile(_value(ir_type(DTYPES[name], shape)), DTYPES[name], shape)


def array(text: str, access: Access | None = None, name: str = "a") -> Array:
    """An array such as "f32[M, 64]": dimensions with names are known at launch only."""
    dtype_name, dims = _parse(text)
    dtype = DTYPES[dtype_name]
    dynamic = ir.ShapedType.get_dynamic_size()
    tensor = ir.RankedTensorType.get([int(d) if d.isdigit() else dynamic for d in dims], ir_type(dtype))
    stride = ir.ShapedType.get_dynamic_stride_or_offset()
    layout = ir.StridedLayoutAttr.get(0, [*[stride] * (len(dims) - 1), 1])
    value = _value(ArrayType.get(ir.TypeAttr.get(tensor), layout))
    axis_type = ir.IntegerType.get_signless(64)
    sizes = tuple(
        int(d)
        if d.isdigit()
        else Tile(DimOp(value, ir.IntegerAttr.get(axis_type, k), ir_type(i32)).result, i32, ())
        for k, d in enumerate(dims)
    )
    return Array(value, name, dtype, sizes, access, tuple(range(len(dims))))


def outcome(function: Any, *args: Any, **kwargs: Any) -> str:
    """The type of what an operation gives, or the class of the error that it raises."""
    try:
        return repr(function(*args, **kwargs))
    except MosaicError as error:
        return type(error).__name__
