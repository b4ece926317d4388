"""tile-to-tt, fp8 part: conversions by integer arithmetic, for GPUs that have none.

A float of e exponent and m mantissa bits reads, up to its sign, as a number of m fractional bits whose powers of two are
counted from 2^-bias; below the smallest normal number it counts in steps. Both ways go through f32 (8 and 23 bits,
bias 127), which holds every fp8 value. OCP 8-bit floating point specification (OFP8), revision 1.0, 2023.
"""

from __future__ import annotations

from dataclasses import dataclass

from mosaic_compile.dialects import tt
from mosaic_compile.dialects.tile import element_type_of, shape_of
from mosaic_compile.mlir import arith, ir, math


@dataclass(frozen=True)
class Format:
    """An fp8 format: bits of mantissa, bias of the exponent, its largest finite code, and what its codes beyond mean."""

    mantissa: int
    bias: int
    infinity: int | None  # the code of infinity; codes above it, or above the largest finite one, are NaN
    nan: int

    @property
    def step(self) -> float:
        """The distance of numbers below the smallest normal one."""
        return 2.0 ** (1 - self.bias - self.mantissa)


FORMATS = {"f8E4M3FN": Format(3, 7, None, 0x7F), "f8E5M2": Format(2, 15, 0x7C, 0x7D)}


def with_element(type_: ir.Type, element: ir.Type) -> ir.Type:
    return (
        ir.RankedTensorType.get(shape_of(type_), element)
        if isinstance(type_, ir.RankedTensorType)
        else element
    )


def splat_constant(value: int | float, type_: ir.Type) -> ir.Value:
    """A constant of a scalar or tensor type."""
    element = element_type_of(type_)
    number = (
        ir.IntegerAttr.get(element, int(value))
        if isinstance(element, ir.IntegerType)
        else ir.FloatAttr.get(element, value)
    )
    attribute = (
        ir.DenseElementsAttr.get_splat(type_, number) if isinstance(type_, ir.RankedTensorType) else number
    )
    return arith.constant(type_, attribute)


def is_fp8(type_: ir.Type) -> bool:
    return str(element_type_of(type_)).startswith("f8")


def width(type_: ir.Type) -> int:
    """The bits of a floating-point type's elements."""
    return ir.FloatType(element_type_of(type_)).width


def _in_32_bits(type_: ir.Type) -> tuple[ir.Type, ir.Type]:
    return with_element(type_, ir.IntegerType.get_signless(32)), with_element(type_, ir.F32Type.get())


def from_fp8(source: ir.Value, target: ir.Type) -> ir.Value:
    """fp8 to any wider floating-point type, exactly."""
    form = FORMATS[str(element_type_of(source.type))]
    i32, f32 = _in_32_bits(target)
    byte = arith.extui(i32, tt.BitcastOp(source, with_element(target, ir.IntegerType.get_signless(8))).result)
    magnitude = arith.andi(byte, splat_constant(0x7F, i32))
    steps = arith.sitofp(f32, magnitude)
    small = arith.mulf(steps, splat_constant(form.step, f32))
    placed = arith.shli(magnitude, splat_constant(23 - form.mantissa, i32))
    normal = tt.BitcastOp(arith.addi(placed, splat_constant((127 - form.bias) << 23, i32)), f32).result
    is_small = arith.cmpi(arith.CmpIPredicate.ult, magnitude, splat_constant(1 << form.mantissa, i32))
    value = arith.select(is_small, small, normal)
    if form.infinity is not None:
        is_infinite = arith.cmpi(arith.CmpIPredicate.eq, magnitude, splat_constant(form.infinity, i32))
        value = arith.select(is_infinite, splat_constant(float("inf"), f32), value)
    is_nan = arith.cmpi(arith.CmpIPredicate.uge, magnitude, splat_constant(form.nan, i32))
    value = arith.select(is_nan, splat_constant(float("nan"), f32), value)
    sign = arith.shli(arith.andi(byte, splat_constant(0x80, i32)), splat_constant(24, i32))
    result = tt.BitcastOp(arith.ori(tt.BitcastOp(value, i32).result, sign), f32).result
    if width(target) == 32:
        return result
    return (arith.extf if width(target) > 32 else arith.truncf)(target, result)


def fp8_bits(source: ir.Value, target: ir.Type) -> ir.Value:
    """The bits of a number as fp8, to nearest, ties to even; `source` rounds to a finite value."""
    form = FORMATS[str(element_type_of(target))]
    i32, f32 = _in_32_bits(source.type)
    if width(source.type) != 32:
        source = (arith.extf if width(source.type) < 32 else arith.truncf)(f32, source)

    def bits_of(value: ir.Value) -> ir.Value:
        return tt.BitcastOp(value, i32).result

    magnitude = math.absf(source)
    # Numbers from 2^23 steps on count in steps too: such a sum is rounded, and its low bits are their number.
    anchor = splat_constant(form.step * 2.0**23, f32)
    small = arith.subi(bits_of(arith.addf(magnitude, anchor)), bits_of(anchor))
    dropped = 23 - form.mantissa
    bits, shift = bits_of(magnitude), splat_constant(dropped, i32)
    last = arith.andi(arith.shrui(bits, shift), splat_constant(1, i32))
    rounded = arith.addi(arith.addi(bits, splat_constant((1 << dropped - 1) - 1, i32)), last)
    normal = arith.subi(arith.shrui(rounded, shift), splat_constant((127 - form.bias) << form.mantissa, i32))
    smallest = splat_constant(2.0 ** (1 - form.bias), f32)
    is_small = arith.cmpf(arith.CmpFPredicate.OLT, magnitude, smallest)
    sign = arith.andi(arith.shrui(bits_of(source), splat_constant(24, i32)), splat_constant(0x80, i32))
    code = arith.ori(arith.select(is_small, small, normal), sign)
    return arith.trunci(with_element(source.type, ir.IntegerType.get_signless(8)), code)
