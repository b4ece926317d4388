"""pass-pointers: arrays come as plain pointers, with their sizes and strides as numbers beside them.

A `memref` argument is a record in upstream's calling convention, and each has its own sizes. Here a dimension's name stands
for one number wherever it appears, so it is passed once; what is known when the kernel is compiled is not passed at all. The
function's attribute `mosaic.arguments` says, as JSON, what each parameter is: a pointer, a stride, a scalar, a dimension;
`mosaic.access` says how each array is used. Behind them come the place in the grid and the scratch memory, which
`mosaic.role` marks; `mosaic.bytes` is the scratch's size.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from mosaic_compile.mlir import arith, ir
from mosaic_compile.mlir_llvm import insert, poison

from .walk import argument_attributes, kernels

SCRATCH_ALIGNMENT = 64  # bytes: a cache line, and the widest vector


@dataclass
class _Parameters:
    """The parameters that take the place of a block's old arguments, behind which they are added."""

    block: ir.Block
    values: dict[tuple[Any, ...], ir.Value] = field(default_factory=dict)
    attributes: list[ir.DictAttr] = field(default_factory=list)

    def add(
        self,
        key: tuple[Any, ...],
        type_: ir.Type,
        location: ir.Location,
        attributes: Mapping[str, ir.Attribute],
    ) -> None:
        if key not in self.values:
            self.values[key] = self.block.add_argument(type_, location)
            self.attributes.append(ir.DictAttr.get(dict(attributes)))


# What a key of _Parameters holds, by its first entry.
_FIELDS = {
    "pointer": ("array",),
    "stride": ("array", "axis"),
    "scalar": ("name", "dtype"),
    "dim": ("name",),
}


@dataclass(frozen=True)
class PassPointers:
    name: ClassVar[str] = "pass-pointers"

    def run(self, module: ir.Module) -> None:
        with module.context:
            for kernel in kernels(module):
                with kernel.location:
                    _rewrite(kernel)


def _rewrite(kernel: ir.Operation) -> None:
    block = kernel.regions[0].blocks[0]
    old = list(block.arguments)
    given = argument_attributes(kernel)
    parameters = _parameters(block, old, given)
    with ir.InsertionPoint.at_block_begin(block):
        for argument, attributes in zip(old, given):
            argument.replace_all_uses_with(_value(argument, attributes, parameters.values))
    for _ in old:
        block.erase_argument(0)
    described = [
        {"kind": kind, **dict(zip(_FIELDS[kind], rest))}
        for kind, *rest in parameters.values
        if kind in _FIELDS
    ]
    function = ir.FunctionType.get([a.type for a in block.arguments], [])
    name = ir.StringAttr(kernel.attributes["sym_name"]).value
    kernel.attributes["sym_name"] = ir.StringAttr.get(f"{name}_program")
    kernel.attributes["function_type"] = ir.TypeAttr.get(function)
    kernel.attributes["arg_attrs"] = ir.ArrayAttr.get(parameters.attributes)
    kernel.attributes["mosaic.name"] = ir.StringAttr.get(name)
    kernel.attributes["mosaic.arguments"] = ir.StringAttr.get(json.dumps(described))
    kernel.attributes["mosaic.grid"] = kernel.attributes["tile.grid"]
    kernel.attributes["mosaic.access"] = _access(given)
    kernel.attributes["llvm.linkage"] = ir.Attribute.parse("#llvm.linkage<internal>")


def _value(argument: ir.Value, attributes: Any, new: Mapping[tuple[Any, ...], ir.Value]) -> ir.Value:
    """What stands for an old argument: a parameter, or a `memref` put together from several."""
    if "mosaic.role" in attributes:
        value = new[_role(argument, attributes)]
        is_memory = isinstance(argument.type, ir.MemRefType)
        return _memref(argument.type, value, [None], [None]) if is_memory else value
    name = attributes["tile.name"].value
    if not isinstance(argument.type, ir.MemRefType):
        return new["scalar", name, attributes["tile.dtype"].value]
    sizes = [None if d is None else new["dim", d] for d in _open_dims(argument.type, attributes)]
    strides = [
        new["stride", name, axis] if is_open else None
        for axis, is_open in enumerate(_open_strides(argument.type))
    ]
    if attributes["tile.dtype"].value == "i4":  # two elements a byte: the memref is of bytes
        strides = [s if s is None else arith.shrui(s, arith.constant(s.type, 1)) for s in strides]
    return _memref(argument.type, new["pointer", name], sizes, strides)


def _memref(
    type_: ir.MemRefType,
    pointer: ir.Value,
    sizes: Sequence[ir.Value | None],
    strides: Sequence[ir.Value | None],
) -> ir.Value:
    """A `memref` value over memory, in the form that upstream's conversion to LLVM leaves and resolves."""
    index = ir.IntegerType.get_signless(64)  # as upstream's conversions have it, whatever a pointer's width
    numbers = f"array<{type_.rank} x {index}>"
    record = poison(ir.Type.parse(f"!llvm.struct<(ptr, ptr, {index}, {numbers}, {numbers})>"))

    def number(value: ir.Value | None, known: int) -> ir.Value:
        return arith.constant(index, known) if value is None else value

    known_strides, _ = type_.get_strides_and_offset()
    contents: list[tuple[tuple[int, ...], ir.Value]]
    contents = [((0,), pointer), ((1,), pointer), ((2,), number(None, 0))]
    for axis in range(type_.rank):
        contents.append(((3, axis), number(sizes[axis], type_.shape[axis])))
        contents.append(((4, axis), number(strides[axis], known_strides[axis])))
    for place, value in contents:
        record = insert(record, value, place)
    return ir.Operation.create(
        "builtin.unrealized_conversion_cast", results=[type_], operands=[record]
    ).result


def _parameters(block: ir.Block, old: Sequence[ir.Value], given: Sequence[Any]) -> _Parameters:
    """Arrays with their strides, and scalars, in the kernel's order; then dimensions; then what `mosaic.role` marks."""
    new = _Parameters(block)
    pointer, i64 = ir.Type.parse("!llvm.ptr"), ir.IntegerType.get_signless(64)
    # Arrays that are written share no memory with others: launchers check it, the C ABI demands it.
    alone: dict[str, ir.Attribute] = {"llvm.noalias": ir.UnitAttr.get()}
    own = [(a, g) for a, g in zip(old, given) if "mosaic.role" not in g]
    for argument, attributes in own:
        name = attributes["tile.name"].value
        if not isinstance(argument.type, ir.MemRefType):
            key = ("scalar", name, attributes["tile.dtype"].value)
            new.add(key, argument.type, argument.location, {})
            continue
        align = {"llvm.align": attributes["tile.align"]} if "tile.align" in attributes else {}
        new.add(("pointer", name), pointer, argument.location, alone | align)
        for axis, is_open in enumerate(_open_strides(argument.type)):
            if is_open:
                new.add(("stride", name, axis), i64, argument.location, {})
    a_size = {"llvm.range": ir.Attribute.parse("#llvm.constant_range<i64, 0, 2147483648>")}
    for argument, attributes in own:
        if isinstance(argument.type, ir.MemRefType):
            for dim in _open_dims(argument.type, attributes):
                if dim is not None:
                    new.add(("dim", dim), i64, argument.location, a_size)
    for argument, attributes in zip(old, given):
        if "mosaic.role" not in attributes:
            continue
        kept = {"mosaic.role": attributes["mosaic.role"]}
        if isinstance(argument.type, ir.MemRefType):
            size = ir.IntegerAttr.get(i64, argument.type.shape[0])
            align = {"llvm.align": ir.IntegerAttr.get(i64, SCRATCH_ALIGNMENT)}
            kept = {**kept, **alone, **align, "mosaic.bytes": size}
        type_ = pointer if isinstance(argument.type, ir.MemRefType) else argument.type
        new.add(_role(argument, attributes), type_, argument.location, kept)
    return new


def _access(given: Sequence[Any]) -> ir.DictAttr:
    """How each array is used; where nothing says so, as if it were read and written."""
    both = ir.StringAttr.get("inout")
    return ir.DictAttr.get(
        {g["tile.name"].value: g.get("tile.access", both) for g in given if "tile.dims" in g}
    )


def _role(argument: ir.Value, attributes: Any) -> tuple[Any, ...]:
    return "role", attributes["mosaic.role"].value, argument.arg_number


def _open_dims(type_: ir.MemRefType, attributes: Any) -> list[str | None]:
    """For each dimension its name, or None where its size is known."""
    dims = [d.value for d in attributes["tile.dims"]]
    return [str(dim) if type_.is_dynamic_dim(axis) else None for axis, dim in enumerate(dims)]


def _open_strides(type_: ir.MemRefType) -> list[bool]:
    """For each dimension whether its stride is known at launch only."""
    strides, _ = type_.get_strides_and_offset()
    return [s == ir.ShapedType.get_dynamic_stride_or_offset() for s in strides]
