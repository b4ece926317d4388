"""A kernel's parameters as arguments of its `func.func`: their types, attributes, and values inside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mosaic_compile.dialects.tile import ArrayType, DimOp
from mosaic_compile.language.arrays import ArrayParam, ConstParam, ScalarParam
from mosaic_compile.language.dtypes import i32
from mosaic_compile.language.kernel import Kernel
from mosaic_compile.language.op import ir_type
from mosaic_compile.language.specialization import Specialization
from mosaic_compile.language.tile import Array, Tile
from mosaic_compile.mlir import ir


def runtime_params(kernel: Kernel, spec: Specialization) -> list[ArrayParam | ScalarParam]:
    """The parameters that are arguments: scalars, and the arrays that are given."""
    params = kernel.signature.params
    return [p for p in params if isinstance(p, ScalarParam) or (isinstance(p, ArrayParam) and spec.has(p))]


def argument_type(param: ArrayParam | ScalarParam, spec: Specialization) -> ir.Type:
    if isinstance(param, ScalarParam):
        return ir_type(spec.dtype_of(param))
    dynamic = ir.ShapedType.get_dynamic_size()
    sizes = [dynamic if n is None else n for n in spec.sizes_of(param)]
    strides = spec.layout_of(param).strides
    dynamic_stride = ir.ShapedType.get_dynamic_stride_or_offset()
    layout = ir.StridedLayoutAttr.get(0, [dynamic_stride if s is None else s for s in strides])
    tensor = ir.RankedTensorType.get(sizes, ir.Type.parse(spec.dtype_of(param).mlir))
    return ArrayType.get(ir.TypeAttr.get(tensor), layout)


def argument_attributes(param: ArrayParam | ScalarParam, spec: Specialization) -> ir.DictAttr:
    """What dialects/tile.py lists for each argument."""
    attributes: dict[str, ir.Attribute] = {
        "tile.name": ir.StringAttr.get(param.name),
        "tile.dtype": ir.StringAttr.get(spec.dtype_of(param).name),
    }
    if isinstance(param, ArrayParam):
        layout, dims = spec.layout_of(param), param.spec.dims
        i64 = ir.IntegerType.get_signless(64)
        attributes["tile.dims"] = ir.ArrayAttr.get(
            [ir.StringAttr.get(d) if isinstance(d, str) else ir.IntegerAttr.get(i64, d) for d in dims]
        )
        if param.spec.access is not None:
            attributes["tile.access"] = ir.StringAttr.get(param.spec.access)
        attributes["tile.align"] = ir.IntegerAttr.get(i64, layout.align)
        attributes["tile.stride_multiples"] = ir.DenseI64ArrayAttr.get(list(layout.stride_multiples))
        attributes["tile.dim_multiples"] = ir.DenseI64ArrayAttr.get(
            [spec.dim_multiples.get(d, 1) if isinstance(d, str) else d for d in dims]
        )
    return ir.DictAttr.get(attributes)


def parameter_values(kernel: Kernel, spec: Specialization, arguments: Sequence[ir.Value]) -> dict[str, Any]:
    """What each parameter's name stands for in the kernel's body."""
    values: dict[str, Any] = {}
    dims: dict[str, Tile | int] = dict(spec.dims)
    for param, argument in zip(runtime_params(kernel, spec), arguments):
        if isinstance(param, ScalarParam):
            values[param.name] = Tile(argument, spec.dtype_of(param), ())
        else:
            values[param.name] = _array(param, spec, argument, dims)
    for other in kernel.signature.params:
        if isinstance(other, ConstParam):
            values[other.name] = spec.constants[other.name]
        elif isinstance(other, ArrayParam) and not spec.has(other):
            values[other.name] = None
    return values


def dimension_names(kernel: Kernel, spec: Specialization) -> dict[str, str]:
    """How each dimension is written in the kernel's body."""
    names: dict[str, str] = {}
    for param in runtime_params(kernel, spec):
        for axis, dim in enumerate(param.spec.dims if isinstance(param, ArrayParam) else ()):
            if isinstance(dim, str):
                names.setdefault(dim, f"{param.name}.shape[{axis}]")
    return names


def _array(param: ArrayParam, spec: Specialization, argument: ir.Value, dims: dict[str, Tile | int]) -> Array:
    """The view of a whole array; a dimension's size is read from the first array that has it."""
    sizes: list[Tile | int] = []
    for axis, dim in enumerate(param.spec.dims):
        if isinstance(dim, str) and dim not in dims:
            axis_attribute = ir.IntegerAttr.get(ir.IntegerType.get_signless(64), axis)
            dims[dim] = Tile(DimOp(argument, axis_attribute, ir_type(i32)).result, i32, ())
        sizes.append(dims[dim] if isinstance(dim, str) else dim)
    axes = tuple(range(len(sizes)))
    return Array(argument, param.name, spec.dtype_of(param), tuple(sizes), param.spec.access, axes)
