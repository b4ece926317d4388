"""The compiler's passes, one file each, named as the pass is. `ALL` is what the command line shows."""

from .base import Pass, Upstream
from .check_kernel import CheckKernel
from .check_triton_limits import CheckTritonLimits
from .choose_memory_path import ChooseMemoryPath
from .hoist_loads import HoistLoads
from .propagate_divisibility import PropagateDivisibility
from .tile_canonicalize import TileCanonicalize
from .tile_to_tt import TileToTT

ALL: tuple[type[Pass], ...] = (
    CheckKernel,
    TileCanonicalize,
    HoistLoads,
    PropagateDivisibility,
    CheckTritonLimits,
    ChooseMemoryPath,
    TileToTT,
)

__all__ = [
    "ALL",
    "CheckKernel",
    "CheckTritonLimits",
    "ChooseMemoryPath",
    "HoistLoads",
    "Pass",
    "PropagateDivisibility",
    "TileCanonicalize",
    "TileToTT",
    "Upstream",
]
