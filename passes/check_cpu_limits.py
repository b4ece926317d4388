"""check-cpu-limits: what a kernel may contain that the LLVM back end cannot do, said with the kernel's line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mosaic_compile.dialects.tile import element_type_of
from mosaic_compile.errors import TargetLimitError
from mosaic_compile.mlir import ir

from .places import frames_of
from .walk import operations

REFUSED = {
    "tile.print": "mc.device_print prints in the interpreter and on GPUs, not on {target}",
    "tile.breakpoint": "breakpoint() works in the interpreter, not on {target}",
}


# What stays a call of the C library (see expand_math.py), in the user's words.
CALLS = {"math.sin": "mc.sin", "math.cos": "mc.cos", "math.fma": "mc.fma"}


@dataclass(frozen=True)
class CheckCpuLimits:
    """target: its name, for messages. libm: whether code for it is linked with C's mathematical functions."""

    name: ClassVar[str] = "check-cpu-limits"
    target: str = "cpu"
    libm: bool = True

    def run(self, module: ir.Module) -> None:
        with module.context:
            self._check(module)

    def _check(self, module: ir.Module) -> None:
        for op in operations(module.operation):
            if op.name in CALLS and not self.libm and element_type_of(op.results[0].type) == ir.F64Type.get():
                raise TargetLimitError(
                    f"{CALLS[op.name]} of f64 needs C's mathematical functions, which {self.target} does not have",
                    "compute it in f32",
                    frames_of(op.location),
                )
            if op.name in REFUSED:
                raise TargetLimitError(
                    REFUSED[op.name].format(target=self.target),
                    "call kernel.interpret(…), or set MOSAIC_INTERPRET=1",
                    frames_of(op.location),
                )
