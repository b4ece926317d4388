"""read-in-place: a block that lies wholly inside its array is read where it is; only one that overhangs is copied and padded."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import ClassVar

from mosaic_compile.dialects.tile import shape_of
from mosaic_compile.mlir import arith, ir, scf
from mosaic_compile.mlir_tensors import bufferization, memref

from .linalg_shape import index_constant, named
from .views import block_of, permuted
from .walk import defining_op, operations


@dataclass(frozen=True)
class ReadInPlace:
    name: ClassVar[str] = "read-in-place"

    def run(self, module: ir.Module) -> None:
        with module.context:
            for op in operations(module.operation):
                if op.name == "tensor.pad":
                    source = defining_op(op.operands[0])
                    if source is not None and source.name == "bufferization.to_tensor":
                        with op.location, ir.InsertionPoint(op):
                            _choose(op, source.operands[0])


def _choose(pad: ir.Operation, view: ir.Value) -> None:
    """view: the block's part inside the array."""
    shape = shape_of(pad.results[0].type)
    dynamic = ir.ShapedType.get_dynamic_stride_or_offset()
    type_ = ir.MemRefType(view.type)
    # Only that neighbours are neighbours is worth knowing of the layout; it must be one for both branches.
    strides = [s if s == 1 else dynamic for s in type_.get_strides_and_offset()[0]]
    layout = ir.StridedLayoutAttr.get(dynamic, strides)
    whole = ir.MemRefType.get(shape, type_.element_type, layout)
    sizes = [memref.dim(view, index_constant(d)) for d in range(len(shape))]
    is_whole = reduce(
        arith.andi,
        [arith.cmpi(arith.CmpIPredicate.eq, s, index_constant(n)) for s, n in zip(sizes, shape)],
    )
    chosen = scf.IfOp(is_whole, [whole], has_else=True)
    with ir.InsertionPoint(chosen.then_block):
        scf.YieldOp([memref.cast(whole, view)])
    with ir.InsertionPoint(chosen.else_block):
        scf.YieldOp([memref.cast(whole, _padded_copy(pad, view, sizes, strides))])
    result = bufferization.to_tensor(pad.results[0].type, chosen.results[0], restrict=True)
    pad.results[0].replace_all_uses_with(result)
    pad.erase()


def _padded_copy(pad: ir.Operation, view: ir.Value, sizes: list[ir.Value], strides: list[int]) -> ir.Value:
    shape = shape_of(pad.results[0].type)
    type_ = ir.MemRefType(view.type)
    dynamic = ir.ShapedType.get_dynamic_size()
    unit = strides.index(1) if 1 in strides else len(shape) - 1
    order = [d for d in range(len(shape)) if d != unit] + [unit]
    buffer = memref.alloc(ir.MemRefType.get([shape[d] for d in order], type_.element_type), [], [])
    padding = list(pad.regions[0].blocks[0].operations)[-1].operands[0]
    named("linalg.fill", [padding], [buffer])
    # The same elements, in the order of the tile's dimensions.
    buffer = permuted(buffer, [order.index(d) for d in range(len(shape))])
    static_low = list(pad.attributes["static_low"])
    given = iter(list(pad.operands)[1:])
    low = [next(given) if n == dynamic else index_constant(n) for n in static_low]
    named("linalg.copy", [view], [block_of(buffer, low, sizes)])
    return buffer
