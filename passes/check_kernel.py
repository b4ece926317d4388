"""check-kernel: mistakes that show in the whole kernel, or in its arrays' sizes, raised with the user's line.

Nothing here guesses: what is refused can never be right.

    a kernel that neither writes an array nor prints, and an output that is not written
    a block at a fixed place, wholly outside a fixed dimension, that is not behind an `if`
    a block of 4-bit elements with an odd number of them in a row
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mosaic_compile.dialects.tile import array_type_of, element_type_of
from mosaic_compile.errors import (
    NothingStoredError,
    OutsideArrayError,
    PackedElementsError,
    UnwrittenOutputError,
)
from mosaic_compile.mlir import ir

from .places import frames_of
from .walk import (
    WRITES,
    argument_attributes,
    array_sizes,
    block_extents,
    constant_integer,
    kernels,
    operations,
)

_USER_NAMES = {"tile.load": "mc.load", "tile.store": "mc.store", "tile.atomic_add": "mc.atomic_add"}


@dataclass(frozen=True)
class CheckKernel:
    name: ClassVar[str] = "check-kernel"

    def run(self, module: ir.Module) -> None:
        for kernel in kernels(module):
            arguments = dict(zip(kernel.regions[0].blocks[0].arguments, argument_attributes(kernel)))
            found = operations(kernel)
            _check_outputs(kernel, arguments, found)
            for op in found:
                if op.name in _USER_NAMES:
                    name = _name(arguments[op.operands[0]])
                    _check_place(op, name)
                    _check_packing(op, name)


def _name(attributes: dict[str, ir.Attribute]) -> str:
    return attributes["tile.name"].value if "tile.name" in attributes else "array"


def _check_outputs(
    kernel: ir.Operation, arguments: dict[ir.Value, dict[str, ir.Attribute]], found: list[ir.Operation]
) -> None:
    written = {op.operands[0] for op in found if op.name in WRITES}
    if not written and not any(op.name == "tile.print" for op in found):
        raise NothingStoredError(
            f"the kernel '{kernel.attributes['sym_name'].value}' writes nothing",
            "a kernel's results go to arrays: mc.store(array, index, tile)",
            frames_of(kernel.location),
        )
    for argument, attributes in arguments.items():
        access = attributes.get("tile.access")
        if access is not None and access.value == "out" and argument not in written:
            name = _name(attributes)
            raise UnwrittenOutputError(
                f"the kernel declares '{name}' as output but never writes it",
                f"write it with mc.store({name}, index, tile), or drop the marker mc.Out",
                frames_of(kernel.location),
            )


def _is_conditional(op: ir.Operation) -> bool:
    """Whether the user decides at run time if the operation runs; a `for` is taken to run."""
    parent = op.parent
    while parent is not None and parent.name != "func.func":
        if parent.name in ("scf.if", "scf.while"):
            return True
        parent = parent.parent
    return False


def _check_place(op: ir.Operation, name: str) -> None:
    accesses = zip(op.opview.offsets, block_extents(op), array_sizes(op.operands[0]))
    for axis, (offset, extent, size) in enumerate(accesses):
        start = constant_integer(offset)
        if start is None:
            continue
        is_before, is_behind = start + extent <= 0, size is not None and start >= size
        if (is_before or is_behind) and not _is_conditional(op):
            block = f"index {start}" if extent == 1 else f"the block {start} to {start + extent - 1}"
            of = f", which has the size {size}" if size is not None else ""
            from_end = "indices never count from the end; " if is_before and extent == 1 else ""
            raise OutsideArrayError(
                f"{_USER_NAMES[op.name]}: {block} is outside dimension {axis} of '{name}'{of}",
                f"{from_end}correct the index, or put the access under an `if`",
                frames_of(op.location),
            )


def _check_packing(op: ir.Operation, name: str) -> None:
    tensor, strides = array_type_of(op.operands[0])
    bits = getattr(element_type_of(tensor), "width", 8)
    if bits != 4 or 1 not in strides:
        return
    axis = len(strides) - 1 - strides[::-1].index(1)
    extent = block_extents(op)[axis]
    if extent % 2:
        raise PackedElementsError(
            f"{_USER_NAMES[op.name]}: the block has {extent} of '{name}'s elements in a row, "
            "but two 4-bit elements share a byte",
            f"make the tile's size in dimension {axis} even",
            frames_of(op.location),
        )
