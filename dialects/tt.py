"""A mirror of the part of Triton's `tt` dialect that we emit.

Operands, attributes and results are those of Triton's include/triton/Dialect/Triton/IR/TritonOps.td, so that the generic
form of a module parses and verifies there; what Triton checks is not checked again here. Enumerations are written as the
numbers that Triton gives them.
"""

# No `from __future__ import annotations` here: ext reads the annotations themselves.
from collections.abc import Sequence
from typing import Any

from mosaic_compile.mlir import ext, ir

Operand = ext.Operand
Result = ext.Result

CACHE_NONE = 1
EVICT_NORMAL = 1
ROUND_NEAREST_EVEN = 1
ATOMIC_ADD, ATOMIC_FADD = 4, 5
SEMANTIC_RELAXED = 1
SCOPE_GPU = 1
INPUT_PRECISION = {"tf32": 0, "tf32x3": 1, "ieee": 2}


class TT(ext.Dialect, name="tt"):
    pass


class PtrType(TT.Type, name="ptr"):
    """`!tt.ptr<f32>`"""

    pointee: Any


class TensorDescType(TT.Type, name="tensordesc"):
    """`!tt.tensordesc<tensor<128x64xbf16>>`: a block shape and element type, for the tensor memory accelerator."""

    block: Any


def ptr_to(element: ir.Type) -> ir.Type:
    return PtrType.get(ir.TypeAttr.get(element))


def tensor_descriptor(shape: Sequence[int], element: ir.Type) -> ir.Type:
    return TensorDescType.get(ir.TypeAttr.get(ir.RankedTensorType.get(list(shape), element)))


# Functions and the grid.


class FuncOp(TT.Operation, name="func", traits=[ir.IsIsolatedFromAboveTrait]):
    sym_name: ir.StringAttr
    function_type: ir.TypeAttr
    sym_visibility: ir.StringAttr
    arg_attrs: Any
    body: ext.Region


class ReturnOp(TT.Operation, name="return", traits=[ir.IsTerminatorTrait]):
    values: Sequence[Operand[Any]]


class GetProgramIdOp(TT.Operation, name="get_program_id", traits=[ext.Pure]):
    axis: Any
    result: Result[ir.IntegerType]


class GetNumProgramsOp(TT.Operation, name="get_num_programs", traits=[ext.Pure]):
    axis: Any
    result: Result[ir.IntegerType]


# Memory.


class AddPtrOp(TT.Operation, name="addptr", traits=[ext.Pure]):
    ptr: Operand[Any]
    offset: Operand[Any]
    result: Result[Any]


class LoadOp(TT.Operation, name="load"):
    ptr: Operand[Any]
    cache: Any
    evict: Any
    result: Result[Any]
    mask: Operand[Any] | None = None
    other: Operand[Any] | None = None


class StoreOp(TT.Operation, name="store"):
    ptr: Operand[Any]
    value: Operand[Any]
    cache: Any
    evict: Any
    mask: Operand[Any] | None = None


class AtomicRMWOp(TT.Operation, name="atomic_rmw"):
    ptr: Operand[Any]
    val: Operand[Any]
    atomic_rmw_op: Any
    sem: Any
    scope: Any
    result: Result[Any]
    mask: Operand[Any] | None = None


class MakeTensorDescOp(TT.Operation, name="make_tensor_descriptor", traits=[ext.Pure]):
    base: Operand[PtrType]
    shape: Sequence[Operand[Any]]
    strides: Sequence[Operand[Any]]
    result: Result[TensorDescType]


class DescriptorLoadOp(TT.Operation, name="descriptor_load"):
    desc: Operand[TensorDescType]
    indices: Sequence[Operand[Any]]
    cache: Any
    evict: Any
    result: Result[ir.RankedTensorType]


class DescriptorStoreOp(TT.Operation, name="descriptor_store"):
    desc: Operand[TensorDescType]
    src: Operand[ir.RankedTensorType]
    indices: Sequence[Operand[Any]]


# Shapes.


class MakeRangeOp(TT.Operation, name="make_range", traits=[ext.Pure]):
    start: Any
    end: Any
    result: Result[ir.RankedTensorType]


class SplatOp(TT.Operation, name="splat", traits=[ext.Pure]):
    src: Operand[Any]
    result: Result[ir.RankedTensorType]


class ExpandDimsOp(TT.Operation, name="expand_dims", traits=[ext.Pure]):
    src: Operand[ir.RankedTensorType]
    axis: Any
    result: Result[ir.RankedTensorType]


class BroadcastOp(TT.Operation, name="broadcast", traits=[ext.Pure]):
    src: Operand[ir.RankedTensorType]
    result: Result[ir.RankedTensorType]


class ReshapeOp(TT.Operation, name="reshape", traits=[ext.Pure]):
    src: Operand[ir.RankedTensorType]
    result: Result[ir.RankedTensorType]


class TransOp(TT.Operation, name="trans", traits=[ext.Pure]):
    src: Operand[ir.RankedTensorType]
    order: Any
    result: Result[ir.RankedTensorType]


class JoinOp(TT.Operation, name="join", traits=[ext.Pure]):
    """Two tensors along a new last dimension of size 2."""

    lhs: Operand[ir.RankedTensorType]
    rhs: Operand[ir.RankedTensorType]
    result: Result[ir.RankedTensorType]


class SplitOp(TT.Operation, name="split", traits=[ext.Pure]):
    """The inverse of join."""

    src: Operand[ir.RankedTensorType]
    first: Result[ir.RankedTensorType]
    second: Result[ir.RankedTensorType]


# Arithmetic.


class FpToFpOp(TT.Operation, name="fp_to_fp", traits=[ext.Pure]):
    """Conversions to and from fp8; narrowing ones carry the attribute `rounding`."""

    src: Operand[Any]
    result: Result[Any]


class BitcastOp(TT.Operation, name="bitcast", traits=[ext.Pure]):
    src: Operand[Any]
    result: Result[Any]


class MulhiUIOp(TT.Operation, name="mulhiui", traits=[ext.Pure]):
    x: Operand[Any]
    y: Operand[Any]
    result: Result[Any]


class ExternElementwiseOp(TT.Operation, name="extern_elementwise", traits=[ext.Pure]):
    """A call of a function in the vendor's device library."""

    srcs: Sequence[Operand[Any]]
    libname: Any
    libpath: Any
    symbol: Any
    pure: Any
    result: Result[Any]


class DotOp(TT.Operation, name="dot", traits=[ext.Pure]):
    a: Operand[ir.RankedTensorType]
    b: Operand[ir.RankedTensorType]
    c: Operand[ir.RankedTensorType]
    inputPrecision: Any
    maxNumImpreciseAcc: Any
    d: Result[ir.RankedTensorType]


# One to four operands and results, made by dialects.tile.several. IRDL allows no dot in a name: the back end prints the
# returns as tt.reduce.return and tt.scan.return.


class ReduceOp(TT.Operation, name="reduce", traits=[ext.Pure]):
    first: Operand[Any]
    axis: Any
    first_result: Result[Any]
    combine: ext.Region
    second: Operand[Any] | None = None
    third: Operand[Any] | None = None
    fourth: Operand[Any] | None = None
    second_result: Result[Any] | None = None
    third_result: Result[Any] | None = None
    fourth_result: Result[Any] | None = None


class ReduceReturnOp(TT.Operation, name="reduce_return", traits=[ir.IsTerminatorTrait]):
    first: Operand[Any]
    second: Operand[Any] | None = None
    third: Operand[Any] | None = None
    fourth: Operand[Any] | None = None


class ScanOp(TT.Operation, name="scan", traits=[ext.Pure]):
    first: Operand[Any]
    axis: Any
    reverse: Any
    first_result: Result[Any]
    combine: ext.Region
    second: Operand[Any] | None = None
    third: Operand[Any] | None = None
    fourth: Operand[Any] | None = None
    second_result: Result[Any] | None = None
    third_result: Result[Any] | None = None
    fourth_result: Result[Any] | None = None


class ScanReturnOp(TT.Operation, name="scan_return", traits=[ir.IsTerminatorTrait]):
    first: Operand[Any]
    second: Operand[Any] | None = None
    third: Operand[Any] | None = None
    fourth: Operand[Any] | None = None


class PrintOp(TT.Operation, name="print"):
    value: Operand[Any]
    prefix: Any
    hex: Any
    isSigned: Any
