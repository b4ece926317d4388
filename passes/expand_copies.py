"""expand-copies: copies of buffers as `linalg.copy`, which becomes loops. `memref.copy` would call a library of MLIR's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mosaic_compile.mlir import ir

from .linalg_shape import named
from .walk import operations


@dataclass(frozen=True)
class ExpandCopies:
    name: ClassVar[str] = "expand-copies"

    def run(self, module: ir.Module) -> None:
        with module.context:
            for op in operations(module.operation):
                if op.name == "memref.copy":
                    with op.location, ir.InsertionPoint(op):
                        named("linalg.copy", [op.operands[0]], [op.operands[1]])
                    op.erase()
