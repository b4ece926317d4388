"""check-triton-limits: what a kernel may not ask of Triton, said with the kernel's line."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, prod
from typing import ClassVar

from mosaic_compile.dialects.tile import array_type_of, element_type_of, shape_of
from mosaic_compile.errors import TargetLimitError
from mosaic_compile.mlir import ir

from .choose_memory_path import element_bits
from .places import frames_of
from .tt_memory import packing_obstacle
from .walk import BLOCK_ACCESSES, block_extents, kernels, operations

MAX_ELEMENTS = 1 << 20  # Triton's TRITON_MAX_TENSOR_NUMEL
MIN_DOT_DEPTH = {8: 32, 16: 16, 32: 8, 64: 4}  # K of the smallest matrix instruction, by bits of an element
MIN_DOT_SIDE = 16
MAX_THREADS = 1024  # of a thread block, on NVIDIA and AMD alike
# Where warp specialization cuts tiles between warp groups (Hopper), Triton 3.6 was seen to compute wrong numbers with
# more stages than this: in loops of up to one product, and of more.
MAX_SPECIALIZED_STAGES = (4, 2)
DEFAULT_STAGES = 3  # of Triton's `num_stages`


@dataclass(frozen=True)
class CheckTritonLimits:
    """target: its name, for the message. warp_size: threads of a warp. clusters: whether a program may span
    several thread blocks. splits_tiles: see TileToTT."""

    name: ClassVar[str] = "check-triton-limits"
    target: str = "GPUs"
    warp_size: int = 32
    clusters: bool = True
    splits_tiles: bool = False

    def run(self, module: ir.Module) -> None:
        for kernel in kernels(module):
            self.check_options(kernel)
        errors = []
        for op in operations(module.operation):
            try:
                self.check_operation(op)
            except TargetLimitError as error:
                # A loop or branch only carries the tiles that others make.
                errors.append((op.name.startswith("scf."), _line(error), error))
        if errors:  # operations have moved, and merged constants have lost their place: the first in the text tells most
            raise min(errors, key=lambda e: e[:2])[2]

    def check_operation(self, op: ir.Operation) -> None:
        for value in (*op.results, *op.operands):
            self.check_type(op, value.type)
        if op.name == "tile.breakpoint":
            raise self.fail(
                op,
                f"breakpoint() works in the interpreter, not on {self.target}",
                "call kernel.interpret(…), or set MOSAIC_INTERPRET=1; on a GPU, mc.device_print shows values",
            )
        if op.name == "tile.dot":
            self.check_dot(op)
        if "tile.warp_specialize" in op.attributes and self.splits_tiles:
            self.check_specialized(op)
        if op.name in BLOCK_ACCESSES:
            self.check_span(op)
        if op.name in ("tile.store", "tile.scatter") and str(element_type_of(op.opview.value.type)) == "i4":
            self.check_packed(op)

    def fail(self, op: ir.Operation, message: str, help: str) -> TargetLimitError:
        return TargetLimitError(message, help, frames_of(op.location))

    def check_options(self, kernel: ir.Operation) -> None:
        options = options_of(kernel)
        warps, blocks = options.get("num_warps", 1), options.get("num_ctas", 1)
        if warps * self.warp_size > MAX_THREADS:
            raise self.fail(
                kernel,
                f"num_warps={warps} makes programs of {warps * self.warp_size} threads, "
                f"but {self.target} runs at most {MAX_THREADS}",
                f"use num_warps={MAX_THREADS // self.warp_size} or fewer",
            )
        if blocks > 1 and not self.clusters:
            raise self.fail(
                kernel,
                f"num_ctas={blocks} needs clusters of thread blocks, which {self.target} does not have",
                "leave num_ctas at 1, or compile for sm90 or sm100",
            )

    def check_type(self, op: ir.Operation, type_: ir.Type) -> None:
        shape = shape_of(type_)
        for extent in shape:
            if extent & (extent - 1):
                raise self.fail(
                    op,
                    f"a tile has the size {extent}, but sizes on {self.target} are powers of two",
                    f"use {1 << extent.bit_length()}: loads are padded "
                    "and stores clipped at the array's edges",
                )
        if prod(shape) > MAX_ELEMENTS:
            raise self.fail(
                op,
                f"a tile of {prod(shape)} elements is too large for {self.target}: at most {MAX_ELEMENTS}",
                "use smaller tiles in a loop",
            )

    def check_dot(self, op: ir.Operation) -> None:
        a, b = (op.operands[i].type for i in (0, 1))
        *_, m, k = shape_of(a)
        n = shape_of(b)[-1]
        element = element_type_of(a)
        depth = max(MIN_DOT_DEPTH[element_bits(element)], 16)
        for extent, least, which in (
            (m, MIN_DOT_SIDE, f"the first has {m} row{'s' * (m > 1)}"),
            (n, MIN_DOT_SIDE, f"the second has {n} column{'s' * (n > 1)}"),
            (k, depth, f"the inner dimension is {k}"),
        ):
            if extent < least:
                raise self.fail(
                    op,
                    f"mc.dot on {self.target} multiplies at least "
                    f"{MIN_DOT_SIDE}x{depth} by {depth}x{MIN_DOT_SIDE} "
                    f"({element} elements), but {which}",
                    f"use a tile of {least}: loads are padded with zeros; for a vector, multiply and mc.sum",
                )

    def check_specialized(self, loop: ir.Operation) -> None:
        inner = operations(loop)
        products = sum(op.name == "tile.dot" for op in inner)
        most = MAX_SPECIALIZED_STAGES[products > 1]
        set_here = [
            op.attributes["tile.num_stages"].value for op in inner if "tile.num_stages" in op.attributes
        ]
        stages = max(set_here, default=options_of(kernel_of(loop)).get("num_stages", DEFAULT_STAGES))
        if stages > most:
            raise self.fail(
                loop,
                f"a loop with warp_specialize and {products} mc.dot has {stages} stages, "
                f"but with more than {most} Triton computes wrong numbers for {self.target}",
                f"set num_stages={most} or fewer, or take warp_specialize off the loop",
            )

    def check_span(self, op: ir.Operation) -> None:
        """Distances within a block are counted in 32 bits. Strides known at launch only are not seen here."""
        _, strides = array_type_of(op.opview.array)
        distances = [(extent - 1) * max(stride, 0) for extent, stride in zip(block_extents(op), strides)]
        if sum(distances) >= 2**31:
            axis = distances.index(max(distances))
            raise self.fail(
                op,
                f"a block's elements lie up to {sum(distances)} elements apart, "
                f"but {self.target} counts to {2**31 - 1} within one",
                f"use a smaller tile in dimension {axis}, whose stride is {strides[axis]}",
            )

    def check_packed(self, op: ir.Operation) -> None:
        """Writing half a byte would lose what another program writes to the other half."""
        if op.name == "tile.scatter":
            raise self.fail(
                op,
                f"mc.scatter writes single elements, but on {self.target} two 4-bit elements share a byte",
                "use mc.store with an even number of neighbours, or an array of i8",
            )
        if (obstacle := packing_obstacle(op)) is not None:
            raise self.fail(
                op,
                f"mc.store writes two 4-bit elements at a time on {self.target}, but {obstacle}",
                "start at a tile index or at an even offset such as 2 * j, "
                "and promise even rows: --shape N=%2",
            )


def options_of(kernel: ir.Operation) -> dict[str, int]:
    """The compiler options that were set for a kernel."""
    if "tile.options" not in kernel.attributes:
        return {}
    return {a.name: a.attr.value for a in ir.DictAttr(kernel.attributes["tile.options"])}


def kernel_of(op: ir.Operation) -> ir.Operation:
    """The function around an operation."""
    while op.name != "func.func":
        op = op.parent
    return op


def _line(error: TargetLimitError) -> float:
    """The line in the kernel's own text."""
    return error.frames[0].line if error.frames else inf
