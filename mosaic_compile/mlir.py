"""The MLIR Python bindings: the one place that imports them (from the torch-mlir wheel)."""

from torch_mlir import ir
from torch_mlir.dialects import arith, ext, func, math, scf
from torch_mlir.passmanager import PassManager

__all__ = ["PassManager", "arith", "bool_attribute", "ext", "func", "ir", "math", "new_context", "scf"]


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


def bool_attribute(value: object) -> ir.Attribute:
    """An i1; not an ir.BoolAttr: a false one is falsy, and ext's builders take that for a missing attribute."""
    return ir.IntegerAttr.get(ir.IntegerType.get_signless(1), int(bool(value)))
