"""Views of buffers: blocks and other orders of dimensions, with the layouts that MLIR wants spelled out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from mosaic_compile.mlir import ir
from mosaic_compile.mlir_tensors import memref

Size: TypeAlias = "int | ir.Value"  # known at compile time or at run time


def block_of(
    source: ir.Value, starts: Sequence[ir.Value], sizes: Sequence[Size], kept: Sequence[int] | None = None
) -> ir.Value:
    """The block of a buffer that starts at these places; of its dimensions the kept ones (None: all), the rest of size 1."""
    type_ = ir.MemRefType(source.type)
    dynamic, unknown = ir.ShapedType.get_dynamic_size(), ir.ShapedType.get_dynamic_stride_or_offset()
    strides, _ = type_.get_strides_and_offset()
    axes = range(type_.rank) if kept is None else kept
    numbers = [s if isinstance(s, int) else dynamic for s in sizes]
    layout = ir.StridedLayoutAttr.get(unknown, [strides[a] for a in axes])
    return memref.SubViewOp(
        ir.MemRefType.get([numbers[a] for a in axes], type_.element_type, layout),
        source,
        list(starts),
        [s for s in sizes if not isinstance(s, int)],
        [],
        [dynamic] * type_.rank,
        numbers,
        [1] * type_.rank,
    ).result


def permuted(source: ir.Value, order: Sequence[int]) -> ir.Value:
    """A view whose dimension i is dimension order[i] of the buffer."""
    if list(order) == sorted(order):
        return source
    type_ = ir.MemRefType(source.type)
    strides, offset = type_.get_strides_and_offset()
    layout = ir.StridedLayoutAttr.get(offset, [strides[d] for d in order])
    result = ir.MemRefType.get([type_.shape[d] for d in order], type_.element_type, layout)
    return memref.transpose(result, source, ir.AffineMapAttr.get(ir.AffineMap.get_permutation(list(order))))
