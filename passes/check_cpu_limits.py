"""check-cpu-limits: what a kernel may contain that the LLVM back end cannot do, said with the kernel's line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mosaic_compile.errors import TargetLimitError
from mosaic_compile.mlir import ir

from .places import frames_of
from .walk import operations

REFUSED = {
    "tile.print": "mc.device_print prints in the interpreter and on GPUs, not on {target}",
    "tile.breakpoint": "breakpoint() works in the interpreter, not on {target}",
}


@dataclass(frozen=True)
class CheckCpuLimits:
    """target: its name, for messages."""

    name: ClassVar[str] = "check-cpu-limits"
    target: str = "cpu"

    def run(self, module: ir.Module) -> None:
        for op in operations(module.operation):
            if op.name in REFUSED:
                raise TargetLimitError(
                    REFUSED[op.name].format(target=self.target),
                    "call kernel.interpret(…), or set MOSAIC_INTERPRET=1",
                    frames_of(op.location),
                )
