"""expand-squares: products of two rows by two columns as Arm's bfmmla (of four bf16 each) and smmla (of eight bytes).

Arm, "Architecture Reference Manual for A-profile": FEAT_BF16, FEAT_I8MM. bfmmla rounds as bfdot does, see expand-dot2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mosaic_compile.mlir import ir
from mosaic_compile.mlir_llvm import intrinsic
from mosaic_compile.mlir_tensors import vector

from .walk import operations


@dataclass(frozen=True)
class ExpandSquares:
    name: ClassVar[str] = "expand-squares"

    def run(self, module: ir.Module) -> None:
        with module.context:
            for op in operations(module.operation):
                if op.name == "tile.square":
                    with op.location, ir.InsertionPoint(op):
                        op.results[0].replace_all_uses_with(_product(*op.operands))
                    op.erase()


def _product(a: ir.Value, b: ir.Value, acc: ir.Value) -> ir.Value:
    if isinstance(acc.type.element_type, ir.IntegerType):
        name, type_ = "llvm.aarch64.neon.smmla", ir.VectorType.get([16], ir.IntegerType.get_signless(8))
    else:
        name, type_ = "llvm.aarch64.neon.bfmmla", ir.VectorType.get([8], ir.BF16Type.get())
    return intrinsic(name, acc.type, [acc, *(vector.bitcast(type_, words) for words in (a, b))])
