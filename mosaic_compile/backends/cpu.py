"""The first half of the way to LLVM: a kernel of the `tile` dialect becomes one program on memory.

What comes after, from memory to the object, is in llvm.py.
"""

from __future__ import annotations

from mosaic_compile.passes import (
    CheckKernel,
    HoistLoads,
    PropagateDivisibility,
    TileCanonicalize,
    Upstream,
)
from mosaic_compile.passes.check_cpu_limits import CheckCpuLimits
from mosaic_compile.passes.compute_inside import ComputeInside
from mosaic_compile.passes.expand_copies import ExpandCopies
from mosaic_compile.passes.matmul_to_vector import MatmulToVector
from mosaic_compile.passes.narrow_products import NarrowProducts
from mosaic_compile.passes.place_buffers import PlaceBuffers
from mosaic_compile.passes.read_in_place import ReadInPlace
from mosaic_compile.passes.reuse_destinations import ReuseDestinations
from mosaic_compile.passes.tile_to_linalg import TileToLinalg
from mosaic_compile.passes.vectorize import Vectorize
from mosaic_compile.stages import PassStage
from mosaic_compile.targets import CpuTarget


def program_stages(target: CpuTarget) -> tuple[PassStage, ...]:
    """From a traced kernel to one program in loops, vectors and memory."""
    tile = PassStage(
        "tile",
        (
            CheckKernel(),  # first, while the IR still looks like the user's text
            CheckCpuLimits(target.name, target.libm),
            Upstream("canonicalize"),
            TileCanonicalize(),
            Upstream("cse"),
            Upstream("loop-invariant-code-motion"),
            HoistLoads(),  # after the arithmetic of its offsets has left the loop
            PropagateDivisibility(),
            Upstream("canonicalize"),  # what has become constant folds
            Upstream("cse"),
        ),
    )
    linalg = PassStage(
        "linalg",
        (
            TileToLinalg(),
            Upstream("convert-elementwise-to-linalg"),
            Upstream("canonicalize"),
            Upstream("cse"),
            Upstream("linalg-fuse-elementwise-ops"),
            Upstream("canonicalize"),
            Upstream("cse"),
        ),
    )
    memory = PassStage(
        "memory",
        (
            ComputeInside(),  # before destinations are chosen
            ReadInPlace(),  # both decide where tiles lie, which bufferization follows
            ReuseDestinations(),
            Upstream("one-shot-bufferize"),
            Upstream("canonicalize"),
            Upstream("cse"),
            ExpandCopies(),
            NarrowProducts(
                target.bf16_products,
                target.byte_products,
                target.vector_bytes,
                target.vector_registers,
                target.squares,
            ),
            MatmulToVector(target.vector_bytes, target.vector_registers, target.small_integers),
            PlaceBuffers(),  # after the last pass that makes buffers
            Upstream("linalg-generalize-named-ops"),
            Vectorize(target.vector_bytes, target.small_integers),
            Upstream("convert-linalg-to-loops"),  # what has no vector form
            Upstream("canonicalize"),
            Upstream("cse"),
        ),
    )
    return (tile, linalg, memory)
