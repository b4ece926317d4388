"""MLIR's `llvm` dialect: the few operations that our passes build, and the translation to LLVM IR.

Upstream's Python classes for the dialect take longer to import than a small kernel takes to compile.
"""

from collections.abc import Sequence

from torch_mlir._mlir_libs._mlirDialectsLLVM import translate_module_to_llvmir

from .mlir import ir

__all__ = [
    "address",
    "atomic_add",
    "insert",
    "intrinsic",
    "load",
    "poison",
    "store",
    "translate_module_to_llvmir",
]

ATOMIC_ADD, MONOTONIC = 1, 2  # LLVM's AtomicBinOp and AtomicOrdering


def _i64(number: int) -> ir.IntegerAttr:
    return ir.IntegerAttr.get(ir.IntegerType.get_signless(64), number)


def poison(type_: ir.Type) -> ir.Value:
    """A record whose fields have no values yet."""
    return ir.Operation.create("llvm.mlir.poison", results=[type_]).result


def insert(record: ir.Value, value: ir.Value, place: Sequence[int]) -> ir.Value:
    position = {"position": ir.DenseI64ArrayAttr.get(list(place))}
    return ir.Operation.create(
        "llvm.insertvalue", results=[record.type], operands=[record, value], attributes=position
    ).result


def intrinsic(name: str, result: ir.Type, operands: Sequence[ir.Value]) -> ir.Value:
    """A call of one of LLVM's intrinsic functions."""
    attributes = {
        "intrin": ir.StringAttr.get(name),
        "operandSegmentSizes": ir.DenseI32ArrayAttr.get([len(operands), 0]),
        "op_bundle_sizes": ir.DenseI32ArrayAttr.get([]),
    }
    return ir.Operation.create(
        "llvm.call_intrinsic", results=[result], operands=list(operands), attributes=attributes
    ).result


def address(base: ir.Value, offset: int) -> ir.Value:
    """The pointer `offset` bytes behind another."""
    attributes = {
        "elem_type": ir.TypeAttr.get(ir.IntegerType.get_signless(8)),
        "rawConstantIndices": ir.DenseI32ArrayAttr.get([offset]),
    }
    return ir.Operation.create(
        "llvm.getelementptr", results=[base.type], operands=[base], attributes=attributes
    ).result


def load(type_: ir.Type, pointer: ir.Value, alignment: int) -> ir.Value:
    attributes = {"alignment": _i64(alignment)}
    return ir.Operation.create("llvm.load", results=[type_], operands=[pointer], attributes=attributes).result


def store(value: ir.Value, pointer: ir.Value, alignment: int) -> None:
    ir.Operation.create("llvm.store", operands=[value, pointer], attributes={"alignment": _i64(alignment)})


def atomic_add(pointer: ir.Value, value: ir.Value) -> ir.Value:
    """Adds to an integer that threads share, without an order for other memory; gives what was there before."""
    attributes = {"bin_op": _i64(ATOMIC_ADD), "ordering": _i64(MONOTONIC)}
    return ir.Operation.create(
        "llvm.atomicrmw", results=[value.type], operands=[pointer, value], attributes=attributes
    ).result
