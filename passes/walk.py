"""What passes share: walking a module and looking at values."""

from __future__ import annotations

from mosaic_compile.dialects.tile import array_type_of, shape_of
from mosaic_compile.mlir import ir

LOADS = frozenset({"tile.load", "tile.gather"})
BLOCK_ACCESSES = frozenset({"tile.load", "tile.store", "tile.atomic_add"})
WRITES = frozenset({"tile.store", "tile.atomic_add", "tile.scatter"})


def operations(root: ir.Operation) -> list[ir.Operation]:
    """All operations below `root` in program order, each before what it contains.

    Being a list, it can be gone through while operations are replaced and erased.
    """
    found: list[ir.Operation] = []

    def visit(op: ir.Operation) -> ir.WalkResult:
        found.append(op)
        return ir.WalkResult.ADVANCE

    root.walk(visit, ir.WalkOrder.PRE_ORDER)
    return found


def kernels(module: ir.Module) -> list[ir.Operation]:
    """The kernels of a module: its functions with the attribute `tile.kernel`."""
    return [op.operation for op in module.body.operations if "tile.kernel" in op.operation.attributes]


def defining_op(value: ir.Value) -> ir.Operation | None:
    """The operation that a value is the result of; None for the arguments of functions and loops."""
    owner = value.owner
    return None if isinstance(owner, ir.Block) else owner.operation


def has_one_use(value: ir.Value) -> bool:
    return sum(1 for _ in value.uses) == 1


def splat(value: ir.Value) -> ir.Attribute | None:
    """The element of a constant that is the same everywhere; a scalar constant's value."""
    op = defining_op(value)
    if op is None or op.name != "arith.constant":
        return None
    attribute = op.attributes["value"]
    if isinstance(attribute, ir.DenseElementsAttr):
        return attribute.get_splat_value() if attribute.is_splat else None
    return attribute


def constant_integer(value: ir.Value) -> int | None:
    """The value of a scalar integer constant."""
    attribute = splat(value) if isinstance(value.type, ir.IntegerType) else None
    return attribute.value if isinstance(attribute, ir.IntegerAttr) else None


def written_arrays(root: ir.Operation) -> set[ir.Value]:
    """The array arguments that a kernel writes.

    The launcher refuses arguments that overlap one that the kernel writes. So what is not in this set keeps
    its contents while the kernel runs, and its loads may be merged and moved; what is in it may be changed
    by this program and, at any time, by others.
    """
    return {op.operands[0] for op in operations(root) if op.name in WRITES}


def array_uses(kernel: ir.Operation) -> dict[ir.Value, str]:
    """How a kernel uses each array that it reads or writes: "in", "out" or "inout"."""
    written = written_arrays(kernel)
    read = {op.operands[0] for op in operations(kernel) if op.name in LOADS}
    return {
        array: "inout" if array in read and array in written else "in" if array in read else "out"
        for array in read | written
    }


def argument_attributes(kernel: ir.Operation) -> list[dict[str, ir.Attribute]]:
    """The attributes of each of a kernel's arguments (see dialects/tile.py)."""
    if "arg_attrs" not in kernel.attributes:
        return [{} for _ in kernel.regions[0].blocks[0].arguments]
    return [{item.name: item.attr for item in given} for given in kernel.attributes["arg_attrs"]]


def block_extents(access: ir.Operation) -> list[int]:
    """The size of a block access in each of the array's dimensions."""
    view = access.opview
    tile = access.results[0] if access.name == "tile.load" else access.operands[1]
    extents = [1] * len(view.offsets)
    for axis, extent in zip(view.axes, shape_of(tile.type)):
        extents[axis] = extent
    return extents


def array_sizes(array: ir.Value) -> list[int | None]:
    """Each dimension's size, None where it is known at launch only."""
    tensor, _ = array_type_of(array)
    return [None if tensor.is_dynamic_dim(a) else tensor.get_dim_size(a) for a in range(tensor.rank)]
