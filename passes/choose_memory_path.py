"""choose-memory-path: decides whether a GPU moves a block with a tensor descriptor (TMA) or with pointers.

The decision is written on the operation, with its reason: `path` ("descriptor" or "pointers") and
`path_reason`. It stands apart from the lowering, so that one can read and edit it. The rules of the
tensor memory accelerator are in the PTX ISA, "Tensor Map", and the CUDA driver API, cuTensorMapEncodeTiled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from mosaic_compile.dialects.tile import array_type_of, element_type_of, shape_of
from mosaic_compile.errors import OverrideError
from mosaic_compile.mlir import ir

from .places import frames_of
from .walk import BLOCK_ACCESSES, LOADS, argument_attributes, operations, written_arrays

MAX_RANK = 5
MIN_ROW_BYTES = 16  # the box's innermost dimension, and what every stride and the base are multiples of

# Operations that hand a tile on to a matrix product element by element, or reordered.
_TRANSPARENT = ("tile.permute", "tile.reshape", "tile.broadcast", "scf.yield")


@dataclass(frozen=True)
class ChooseMemoryPath:
    """tma: whether the target has a tensor memory accelerator."""

    name: ClassVar[str] = "choose-memory-path"
    tma: bool = False

    def run(self, module: ir.Module) -> None:
        with module.context:
            for function in module.body.operations:
                alignments = _argument_facts(function)
                both = read_arrays(function.operation) & written_arrays(function.operation)
                for op in operations(function.operation):
                    if op.name in BLOCK_ACCESSES:
                        obstacle = self.obstacle(op, alignments)
                        if obstacle is None and op.operands[0] in both:
                            obstacle = (
                                "the kernel reads and writes the array, "
                                "and TMA keeps no order with other accesses"
                            )
                        path = "pointers" if obstacle else "descriptor"
                        op.attributes["path"] = ir.StringAttr.get(path)
                        op.attributes["path_reason"] = ir.StringAttr.get(
                            obstacle or "all conditions of TMA hold"
                        )

    def obstacle(self, op: ir.Operation, facts: dict[ir.Value, dict[str, Any]]) -> str | None:
        """Why a descriptor cannot, or should not, move this block; None where it should."""
        if not self.tma:
            return "the target has no tensor memory accelerator"
        if op.name == "tile.atomic_add":
            return "atomic additions go through pointers"
        view, tile = op.opview, _tile_of(op)
        return (
            _shape_obstacle(view, tile)
            or (
                "the tile is a single row: a descriptor pays from two dimensions on"
                if _is_row(tile)
                else None
            )
            or _layout_obstacle(view, tile, facts[view.array])
            or _pad_obstacle(op, view)
            or (
                None
                if _meets_dot(op)
                else "the tile takes part in no matrix product: threads load it straight to registers"
            )
        )


def check_paths(module: ir.Module, target: str, tma: bool) -> None:
    """Refuses a descriptor in edited IR where none can move the block; raises OverrideError at the edited line."""
    with module.context:
        for function in module.body.operations:
            facts = _argument_facts(function)
            for op in operations(function.operation):
                if "path" not in op.attributes or op.attributes["path"].value != "descriptor":
                    continue
                frames, view, tile = frames_of(op.location), op.opview, _tile_of(op)
                if not tma:
                    raise OverrideError(
                        f"this block is moved by TMA, which {target} does not have",
                        f"emit the file again for {target}",
                        frames,
                    )
                obstacle = (
                    _shape_obstacle(view, tile)
                    or _layout_obstacle(view, tile, facts[view.array])
                    or _pad_obstacle(op, view)
                )
                if obstacle is not None:
                    raise OverrideError(
                        f"TMA cannot move this block: {obstacle}", 'write path = "pointers"', frames
                    )


def _tile_of(op: ir.Operation) -> ir.Type:
    return op.opview.result.type if op.name == "tile.load" else op.opview.value.type


def read_arrays(root: ir.Operation) -> set[ir.Value]:
    return {op.operands[0] for op in operations(root) if op.name in LOADS}


def _argument_facts(function: Any) -> dict[ir.Value, dict[str, Any]]:
    return dict(zip(function.arguments, argument_attributes(function.operation)))


def element_bits(type_: ir.Type) -> int:
    return ir.IntegerType(type_).width if isinstance(type_, ir.IntegerType) else ir.FloatType(type_).width


def _shape_obstacle(view: Any, tile: ir.Type) -> str | None:
    tensor, _ = array_type_of(view.array)
    bits = element_bits(element_type_of(tile))
    if bits < 8:
        return f"{element_type_of(tile)} elements are not whole bytes"
    if tensor.rank > MAX_RANK:
        return f"a descriptor has at most {MAX_RANK} dimensions, the array has {tensor.rank}"
    return None


def _is_row(tile: ir.Type) -> bool:
    return sum(extent > 1 for extent in shape_of(tile)) < 2


def _layout_obstacle(view: Any, tile: ir.Type, facts: dict[str, Any]) -> str | None:
    tensor, strides = array_type_of(view.array)
    axes, shape = list(view.axes), shape_of(tile)
    bits = element_bits(element_type_of(tile))
    row = [i for i, axis in enumerate(axes) if strides[axis] == 1]
    if not row:
        return "no dimension of the tile has neighbouring elements (stride 1)"
    if len(row) > 1:
        return "two dimensions of the array have stride 1"
    if shape[row[0]] * bits // 8 < MIN_ROW_BYTES:
        return f"rows of {shape[row[0]] * bits // 8} bytes are shorter than {MIN_ROW_BYTES}"
    if facts["tile.align"].value % MIN_ROW_BYTES:
        return f"the array's address is not known to be a multiple of {MIN_ROW_BYTES} bytes"
    multiples = list(facts["tile.stride_multiples"])
    for axis in range(tensor.rank):
        if axis != axes[row[0]] and multiples[axis] * bits // 8 % MIN_ROW_BYTES:
            return f"the stride of dimension {axis} is not known to be a multiple of {MIN_ROW_BYTES} bytes"
    return None


def _pad_obstacle(op: ir.Operation, view: Any) -> str | None:
    if op.name != "tile.load":
        return None
    pad = view.pad
    if pad.value == 0:
        return None
    in_bounds = op.attributes.get("in_bounds")
    if in_bounds is not None and all(in_bounds):
        return None
    return f"outside the array a descriptor reads 0, not {pad.value}"


def _meets_dot(op: ir.Operation) -> bool:
    """Whether a loaded tile flows into a matrix product, or a stored one comes from it."""
    seen: set[ir.Value] = set()
    if op.name == "tile.load":
        return _flows_to_dot(op.results[0], seen)
    return _comes_from_dot(op.opview.value, seen)


def _elementwise(op: ir.Operation) -> bool:
    return op.name.startswith(("arith.", "math.")) or op.name in _TRANSPARENT


def _flows_to_dot(value: ir.Value, seen: set[ir.Value]) -> bool:
    if value in seen:
        return False
    seen.add(value)
    for use in value.uses:
        user = use.owner.operation
        if user.name == "tile.dot":
            return True
        if (
            _elementwise(user)
            and user.name != "scf.yield"
            and any(_flows_to_dot(r, seen) for r in user.results)
        ):
            return True
    return False


def _comes_from_dot(value: ir.Value, seen: set[ir.Value]) -> bool:
    if value in seen or not isinstance(value, ir.OpResult):
        return False
    seen.add(value)
    op = value.owner.operation
    if op.name == "tile.dot":
        return True
    if op.name in ("scf.for", "scf.if", "scf.while"):
        yielded = [
            block.operations[len(block.operations) - 1].operands
            for region in op.regions
            for block in region.blocks
        ]
        index = value.result_number
        return any(len(values) > index and _comes_from_dot(values[index], seen) for values in yielded)
    return _elementwise(op) and any(_comes_from_dot(o, seen) for o in op.operands)
