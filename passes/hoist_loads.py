"""hoist-loads: loads that are the same in every iteration move out of their loops.

A load moves if it stands directly in the body of an scf.for (one under an `if` may never run), its operands
come from outside, and the kernel never writes the array (see walk.written_arrays). That the loop may run zero
times is no obstacle: loads are clipped. What is computed from hoisted loads follows in upstream's
loop-invariant-code-motion.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mosaic_compile.mlir import ir

from .walk import LOADS, defining_op, kernels, operations, written_arrays


@dataclass(frozen=True)
class HoistLoads:
    name: ClassVar[str] = "hoist-loads"

    def run(self, module: ir.Module) -> None:
        for kernel in kernels(module):
            written = written_arrays(kernel)
            for op in operations(kernel):
                if op.name in LOADS and op.operands[0] not in written:
                    _hoist(op)


def _hoist(load: ir.Operation) -> None:
    """Moves a load before the outermost loop in which nothing that it needs changes."""
    blocks = [_block_of(value) for value in load.operands]
    while load.parent.name == "scf.for" and load.block not in blocks:
        load.move_before(load.parent.operation)


def _block_of(value: ir.Value) -> ir.Block:
    op = defining_op(value)
    return value.owner if op is None else op.block
