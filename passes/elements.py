"""Scalars, tensors and vectors alike: their elements' type, constants, and what is computed in the same way."""

from __future__ import annotations

from mosaic_compile.mlir import arith, ir


def element_of(type_: ir.Type) -> ir.Type:
    """The element type of a tensor or vector; a scalar's own type."""
    return type_.element_type if isinstance(type_, ir.RankedTensorType | ir.VectorType) else type_


def with_element(type_: ir.Type, element: ir.Type) -> ir.Type:
    """The type of the same shape with other elements."""
    if isinstance(type_, ir.RankedTensorType):
        return ir.RankedTensorType.get(list(type_.shape), element, type_.encoding)
    if isinstance(type_, ir.VectorType):
        return ir.VectorType.get(list(type_.shape), element)
    return element


def width(type_: ir.Type) -> int:
    """The bits of a floating-point type's elements."""
    return ir.FloatType(element_of(type_)).width


def is_fp8(type_: ir.Type) -> bool:
    return str(element_of(type_)).startswith("f8")


def integer_attribute(value: int, type_: ir.Type) -> ir.Attribute:
    """An integer, given signed or unsigned."""
    most = (1 << type_.width - 1) - 1
    return ir.IntegerAttr.get(type_, value - 2 * (most + 1) if value > max(most, 1) else value)


def splat_constant(value: int | float, type_: ir.Type) -> ir.Value:
    """A constant of a scalar, tensor or vector type; integers are given signed or unsigned."""
    element = element_of(type_)
    is_integer = isinstance(element, ir.IntegerType)
    number = integer_attribute(int(value), element) if is_integer else ir.FloatAttr.get(element, value)
    return arith.constant(
        type_, number if element == type_ else ir.DenseElementsAttr.get_splat(type_, number)
    )


def sum_of_bytes(a: ir.Value, b: ir.Value, acc: ir.Value, signed: bool) -> ir.Value:
    """What `tile.dot4` means, byte by byte."""
    shift_a = arith.shrsi if signed else arith.shrui
    top = splat_constant(24, acc.type)
    for place in range(4):
        left = splat_constant(24 - 8 * place, acc.type)
        x, y = (shift(arith.shli(v, left), top) for v, shift in ((a, shift_a), (b, arith.shrsi)))
        acc = arith.addi(arith.muli(x, y), acc)
    return acc
