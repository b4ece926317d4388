"""The MLIR Python bindings: the one place that imports them (from the torch-mlir wheel)."""

from torch_mlir import ir
from torch_mlir.dialects import arith, ext, func, math, scf
from torch_mlir.passmanager import PassManager

__all__ = ["PassManager", "arith", "ext", "func", "ir", "math", "new_context", "scf"]


def new_context() -> ir.Context:
    """A fresh context with our dialects loaded; contexts share nothing, so threads may each use one."""
    from mosaic_compile.dialects.tile import Tile
    from mosaic_compile.dialects.tt import TT

    context = ir.Context()
    context.enable_multithreading(False)  # one kernel is small; threads cost more than they give
    with context, ir.Location.unknown():
        Tile.load()
        TT.load()
    return context
