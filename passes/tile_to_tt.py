"""tile-to-tt: a kernel of the `tile` dialect as a Triton function.

The function's parameters, in this order, are what a launcher passes (`tt.arguments` on the function says the same, for the
manifest): a pointer for each array that is reached through pointers, a tensor descriptor for each (array, box) that is moved
by TMA, the scalars, the dimensions (i32), the strides (i64) that are not fixed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from mosaic_compile.dialects import tt
from mosaic_compile.dialects.tile import array_type_of, element_type_of, several, shape_of
from mosaic_compile.errors import UsageError
from mosaic_compile.mlir import bool_attribute, ir

from . import tt_elementwise, tt_memory, tt_shape
from .elements import is_fp8, splat_constant, with_element
from .lowering import Lowering, attributes_of
from .tt_memory import Box, box_of, stored_type, uses_descriptor
from .tt_shape import i32_attribute
from .walk import BLOCK_ACCESSES, argument_attributes, block_extents, operations

POINTER_ACCESSES = (*BLOCK_ACCESSES, "tile.gather", "tile.scatter")
# With fp8 operands Hopper's tensor cores accumulate in about 14 bits: sums of at most this many products are added up in
# full f32 (the interval of DeepSeek-V3's and CUTLASS's fp8 products).
FP8_PARTIAL_SUM = 128


@dataclass(frozen=True)
class ArrayArgument:
    """An array argument of the kernel: what its type and attributes say."""

    name: str
    dtype: str
    element: ir.Type
    dims: tuple[str | int, ...]
    sizes: tuple[int | None, ...]  # None where known at launch
    strides: tuple[int | None, ...]
    stride_multiples: tuple[int, ...]
    dim_multiples: tuple[int, ...]
    align: int
    access: str


@dataclass
class TileToTTLowering(Lowering):
    """The rewrite of one kernel: the mapping of values, and the new function's parameters."""

    vendor: str = "cuda"
    fp8: bool = True
    arrays: dict[ir.Value, ArrayArgument] = field(default_factory=dict)
    parameters: dict[tuple[Any, ...], ir.Value] = field(default_factory=dict)

    def array(self, old: ir.Value) -> ArrayArgument:
        return self.arrays[old]

    def pointer(self, array: ArrayArgument) -> ir.Value:
        return self.parameters["pointer", array.name]

    def descriptor(self, array: ArrayArgument, box: Box) -> ir.Value:
        return self.parameters["descriptor", array.name, box]

    def dim(self, array: ArrayArgument, axis: int) -> ir.Value:
        """The size of a dimension, i32."""
        size = array.sizes[axis]
        i32 = ir.IntegerType.get_signless(32)
        return splat_constant(size, i32) if size is not None else self.parameters["dim", array.dims[axis]]

    def stride(self, array: ArrayArgument, axis: int) -> int | ir.Value:
        """A stride in elements: a number where it is fixed, else i64."""
        stride = array.strides[axis]
        return stride if stride is not None else self.parameters["stride", array.name, axis]


@dataclass(frozen=True)
class TileToTT:
    """vendor: "cuda" or "hip", whose device library is called. fp8: whether the GPU converts to and from fp8.

    splits_tiles: whether Triton's warp specialization cuts a loop's tiles between warp groups, as it does on Hopper. It
    cuts descriptors that the kernel makes along with them, but not those that come from the host.
    """

    name: ClassVar[str] = "tile-to-tt"
    vendor: str = "cuda"
    fp8: bool = True
    splits_tiles: bool = False

    def __post_init__(self) -> None:
        if self.vendor not in ("cuda", "hip"):
            raise UsageError(
                f"tile-to-tt.vendor is cuda or hip, not '{self.vendor}'",
                "--pass-option tile-to-tt.vendor=cuda",
            )

    def run(self, module: ir.Module) -> None:
        with module.context:
            for function in list(module.body.operations):
                with function.operation.location, ir.InsertionPoint(function.operation):
                    specialized = any(
                        "tile.warp_specialize" in op.attributes for op in operations(function.operation)
                    )
                    _lower_kernel(function, self.vendor, self.fp8, self.splits_tiles and specialized)
                function.operation.erase()


def _convert_type(type_: ir.Type) -> ir.Type:
    """Tiles of i4 are computed with as i8."""
    element = element_type_of(type_)
    if isinstance(element, ir.IntegerType) and element.width == 4:
        return with_element(type_, ir.IntegerType.get_signless(8))
    return type_


def read_array(argument: ir.Value, attributes: dict[str, Any], used: str) -> ArrayArgument:
    """used: "in", "out" or "inout", as the kernel's own accesses are; what its signature says comes first."""
    tensor, strides = array_type_of(argument)
    dynamic = ir.ShapedType.get_dynamic_size()
    return ArrayArgument(
        name=attributes["tile.name"].value,
        dtype=attributes["tile.dtype"].value,
        element=tensor.element_type,
        dims=tuple(d.value for d in attributes["tile.dims"]),
        sizes=tuple(None if s == dynamic else s for s in tensor.shape),
        strides=tuple(None if s < 0 else s for s in strides),
        stride_multiples=tuple(attributes["tile.stride_multiples"]),
        dim_multiples=tuple(attributes["tile.dim_multiples"]),
        align=attributes["tile.align"].value,
        access=attributes["tile.access"].value if "tile.access" in attributes else used,
    )


def _lower_kernel(function: Any, vendor: str, fp8: bool, own_descriptors: bool) -> None:
    """own_descriptors: the kernel makes its tensor descriptors itself, instead of taking them as parameters."""
    old_arguments = list(function.arguments)
    given = argument_attributes(function.operation)
    lowering = TileToTTLowering(RULES, _convert_type, vendor=vendor, fp8=fp8)
    accesses = [op for op in operations(function.operation) if op.name in POINTER_ACCESSES]
    read = {op.operands[0] for op in accesses if op.name in ("tile.load", "tile.gather")}
    written = {op.operands[0] for op in accesses if op.name not in ("tile.load", "tile.gather")}
    for argument, attributes in zip(old_arguments, given):
        if "tile.dims" in attributes:
            used = ("inout" if argument in read else "out") if argument in written else "in"
            lowering.arrays[argument] = read_array(argument, attributes, used)

    parameters, boxes = _parameters(lowering, old_arguments, given, accesses, own_descriptors)
    new = tt.FuncOp(
        sym_name=function.operation.attributes["sym_name"],
        function_type=ir.TypeAttr.get(ir.FunctionType.get([p.type for p in parameters], [])),
        sym_visibility=ir.StringAttr.get("public"),
        arg_attrs=ir.ArrayAttr.get([_argument_attributes(p) for p in parameters]),
    )
    for name, attribute in attributes_of(function.operation).items():
        if name in ("tile.grid", "tile.options"):
            new.operation.attributes[name.replace("tile.", "mosaic.")] = attribute
    new.operation.attributes["mosaic.access"] = ir.DictAttr.get(
        {array.name: ir.StringAttr.get(array.access) for array in lowering.arrays.values()}
    )
    new.operation.attributes["mosaic.arguments"] = ir.StringAttr.get(
        json.dumps([p.description for p in parameters])
    )
    block = ir.Block.create_at_start(
        new.body, [p.type for p in parameters], [ir.Location.current] * len(parameters)
    )
    for parameter, value in zip(parameters, block.arguments):
        lowering.parameters[parameter.key] = value
        if parameter.key[0] == "scalar":
            lowering.values[old_arguments[parameter.key[1]]] = value
    with ir.InsertionPoint(block):
        for array, box in boxes:
            lowering.parameters["descriptor", array.name, box] = _make_descriptor(lowering, array, box)
        lowering.block(function.body.blocks[0])


@dataclass(frozen=True)
class Parameter:
    """A parameter of the compiled function: its key in the lowering, and its description in the manifest."""

    key: tuple[Any, ...]
    type: ir.Type
    description: dict[str, Any]
    divisible_by: int = 1


def _parameters(
    lowering: TileToTTLowering,
    arguments: list[ir.Value],
    given: list[dict[str, Any]],
    accesses: list[ir.Operation],
    own_descriptors: bool,
) -> tuple[list[Parameter], list[tuple[ArrayArgument, Box]]]:
    """The function's parameters, and the descriptors that the kernel has to make itself."""
    i32, i64 = ir.IntegerType.get_signless(32), ir.IntegerType.get_signless(64)
    pointers: list[Parameter] = []
    descriptors: list[Parameter] = []
    scalars: list[Parameter] = []
    strides: list[Parameter] = []
    boxes: list[tuple[ArrayArgument, Box]] = []
    dims: dict[str, Parameter] = {}
    by_pointer = {op.operands[0] for op in accesses if own_descriptors or not uses_descriptor(op)}
    for position, (argument, attributes) in enumerate(zip(arguments, given)):
        array = lowering.arrays.get(argument)
        if array is None:
            name, dtype = attributes["tile.name"].value, attributes["tile.dtype"].value
            description = {"kind": "scalar", "name": name, "dtype": dtype}
            scalars.append(Parameter(("scalar", position), argument.type, description))
            continue
        for axis, (dim, size) in enumerate(zip(array.dims, array.sizes)):
            if isinstance(dim, str) and size is None:
                multiple = max(array.dim_multiples[axis], dims[dim].divisible_by if dim in dims else 1)
                dims[dim] = Parameter(("dim", dim), i32, {"kind": "dim", "name": dim}, multiple)
        if argument in by_pointer:
            type_ = tt.ptr_to(stored_type(array.element))
            description = {
                "kind": "pointer",
                "array": array.name,
                "block": _largest_block(argument, accesses),
            }
            pointers.append(Parameter(("pointer", array.name), type_, description, array.align))
            strides += [
                Parameter(
                    ("stride", array.name, axis),
                    i64,
                    {"kind": "stride", "array": array.name, "axis": axis},
                    array.stride_multiples[axis],
                )
                for axis, stride in enumerate(array.strides)
                if stride is None
            ]
    for op in accesses:
        if uses_descriptor(op):
            array = lowering.arrays[op.operands[0]]
            tile = op.results[0].type if op.name == "tile.load" else op.opview.value.type
            box = box_of(list(op.opview.axes), shape_of(tile), array.strides)
            description = {
                "kind": "descriptor",
                "array": array.name,
                "axes": list(box.order),
                "box": list(box.extents),
            }
            type_ = tt.tensor_descriptor(box.extents, array.element)
            parameter = Parameter(("descriptor", array.name, box), type_, description)
            if parameter.key not in {p.key for p in descriptors}:
                descriptors.append(parameter)
                boxes.append((array, box))
    if own_descriptors:
        return [*pointers, *scalars, *dims.values(), *strides], boxes
    return [*pointers, *descriptors, *scalars, *dims.values(), *strides], []


def _largest_block(array: ir.Value, accesses: list[ir.Operation]) -> list[int]:
    """The extents of the blocks that pointers reach, along each of the array's axes: 32 bits must span them."""
    extents = [1] * array_type_of(array)[0].rank
    for op in accesses:
        if op.name in BLOCK_ACCESSES and op.operands[0] == array and not uses_descriptor(op):
            extents = [max(pair) for pair in zip(extents, block_extents(op))]
    return extents


def _make_descriptor(lowering: TileToTTLowering, array: ArrayArgument, box: Box) -> ir.Value:
    i64 = ir.IntegerType.get_signless(64)
    sizes = [lowering.dim(array, axis) for axis in box.order]
    strides = [lowering.stride(array, axis) for axis in box.order]
    values = [splat_constant(s, i64) if isinstance(s, int) else s for s in strides]
    type_ = tt.tensor_descriptor(box.extents, array.element)
    return tt.MakeTensorDescOp(lowering.pointer(array), sizes, values, type_).result


def _argument_attributes(parameter: Parameter) -> ir.Attribute:
    # Powers of two. Vectors have 16 bytes, which are 32 of the smallest elements.
    divisor = parameter.divisible_by & -parameter.divisible_by
    if divisor <= 1:
        return ir.DictAttr.get({})
    return ir.DictAttr.get({"tt.divisibility": i32_attribute(min(divisor, 32))})


# The rules that need no file of their own.


def program_id(lowering: TileToTTLowering, op: ir.Operation) -> Sequence[ir.Value]:
    return [tt.GetProgramIdOp(i32_attribute(op.attributes["axis"].value), op.results[0].type).result]


def num_programs(lowering: TileToTTLowering, op: ir.Operation) -> Sequence[ir.Value]:
    return [tt.GetNumProgramsOp(i32_attribute(op.attributes["axis"].value), op.results[0].type).result]


def dim(lowering: TileToTTLowering, op: ir.Operation) -> Sequence[ir.Value]:
    return [lowering.dim(lowering.array(op.operands[0]), op.attributes["axis"].value)]


def dot(lowering: TileToTTLowering, op: ir.Operation) -> Sequence[ir.Value]:
    a, b, acc = (lowering[o] for o in op.operands)
    if is_fp8(a.type) and not lowering.fp8:
        # f16 holds all values of both formats.
        a, b = (tt_elementwise.from_fp8_bits(x, with_element(x.type, ir.F16Type.get())) for x in (a, b))
    partial = 0
    if is_fp8(a.type):
        partial = min(shape_of(a.type)[-1], FP8_PARTIAL_SUM)
    precision = i32_attribute(tt.INPUT_PRECISION[op.attributes["precision"].value])
    return [tt.DotOp(a, b, acc, precision, i32_attribute(partial), acc.type).d]


def _combine(lowering: TileToTTLowering, op: ir.Operation, region: ir.Region, terminator: Any) -> None:
    (old,) = op.regions[0].blocks
    arguments = list(old.arguments)
    block = ir.Block.create_at_start(region, [a.type for a in arguments], [a.location for a in arguments])
    lowering.values.update(zip(arguments, block.arguments))
    with ir.InsertionPoint(block):
        *body, end = list(old.operations)
        for inner in body:
            lowering.operation(inner.operation)
        with end.operation.location:
            several(terminator, [lowering[v] for v in end.operands])


def reduce(lowering: TileToTTLowering, op: ir.Operation) -> Sequence[ir.Value]:
    axis, types = i32_attribute(op.attributes["axis"].value), [r.type for r in op.results]
    new = several(tt.ReduceOp, [lowering[o] for o in op.operands], axis, results=types)
    _combine(lowering, op, new.combine, tt.ReduceReturnOp)
    return list(new.operation.results)


def scan(lowering: TileToTTLowering, op: ir.Operation) -> Sequence[ir.Value]:
    axis, types = i32_attribute(op.attributes["axis"].value), [r.type for r in op.results]
    reverse = bool_attribute(op.attributes["reverse"].value)
    new = several(tt.ScanOp, [lowering[o] for o in op.operands], axis, reverse, results=types)
    _combine(lowering, op, new.combine, tt.ScanReturnOp)
    return list(new.operation.results)


def print_(lowering: TileToTTLowering, op: ir.Operation) -> Sequence[ir.Value]:
    signed = ir.DenseI32ArrayAttr.get([0 if op.attributes["dtype"].value.startswith("u") else 1])
    text = ir.StringAttr.get(f" {op.attributes['text'].value}: ")
    tt.PrintOp(lowering[op.operands[0]], text, bool_attribute(False), signed)
    return []


LOOP_ATTRIBUTES = {
    "tile.num_stages": "tt.num_stages",
    "tile.unroll": "tt.loop_unroll_factor",
    "tile.flatten": "tt.flatten",
    "tile.warp_specialize": "tt.warp_specialize",
}


def for_loop(lowering: TileToTTLowering, op: ir.Operation) -> Sequence[ir.Value]:
    results = lowering.copy(op)
    loop = ir.InsertionPoint.current.block.operations[
        len(ir.InsertionPoint.current.block.operations) - 1
    ].operation
    for old, new in LOOP_ATTRIBUTES.items():
        if old in loop.attributes:
            loop.attributes[new] = loop.attributes[old]
            del loop.attributes[old]
    return results


def return_(lowering: TileToTTLowering, op: ir.Operation) -> Sequence[ir.Value]:
    tt.ReturnOp([])
    return []


RULES = {
    **tt_elementwise.RULES,
    **tt_shape.RULES,
    **tt_memory.RULES,
    "tile.program_id": program_id,
    "tile.num_programs": num_programs,
    "tile.dim": dim,
    "tile.dot": dot,
    "tile.reduce": reduce,
    "tile.scan": scan,
    "tile.print": print_,
    "scf.for": for_loop,
    "func.return": return_,
}
