"""expand-dot2: products of two bf16 as the instruction that a machine has for them.

    "avx512bf16"  vdpbf16ps, of x86-64: one fused multiply-add after the other, to nearest
    "bfdot"       of 64-bit Arm: rounded to odd where the machine has no extended bf16 behaviour

Both take and give zero for numbers below the smallest normal one. (Intel, "Architecture Instruction Set Extensions Programming
Reference", VDPBF16PS; Arm, "Architecture Reference Manual for A-profile", BFDOT.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mosaic_compile.mlir import ir
from mosaic_compile.mlir_llvm import intrinsic
from mosaic_compile.mlir_tensors import vector

from .walk import operations

# By the unit and the lanes of f32.
INTRINSICS = {
    ("avx512bf16", 4): "llvm.x86.avx512bf16.dpbf16ps.128",
    ("avx512bf16", 8): "llvm.x86.avx512bf16.dpbf16ps.256",
    ("avx512bf16", 16): "llvm.x86.avx512bf16.dpbf16ps.512",
    ("bfdot", 4): "llvm.aarch64.neon.bfdot",
}


@dataclass(frozen=True)
class ExpandDot2:
    """unit: what multiplies bf16, see above; "" where no operation needs it."""

    name: ClassVar[str] = "expand-dot2"
    unit: str = ""

    def run(self, module: ir.Module) -> None:
        with module.context:
            for op in operations(module.operation):
                if op.name == "tile.dot2":
                    with op.location, ir.InsertionPoint(op):
                        op.results[0].replace_all_uses_with(self.product(*op.operands))
                    op.erase()

    def product(self, a: ir.Value, b: ir.Value, acc: ir.Value) -> ir.Value:
        lanes = acc.type.shape[0]
        pairs = ir.VectorType.get([2 * lanes], ir.BF16Type.get())
        factors = [vector.bitcast(pairs, words) for words in (a, b)]
        return intrinsic(INTRINSICS[self.unit, lanes], acc.type, [acc, *factors])
