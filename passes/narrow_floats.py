"""Narrow floating-point types by integer arithmetic, for machines that have no conversions for them.

A float of e exponent and m mantissa bits reads, up to its sign, as a number of m fractional bits whose powers of two are
counted from 2^-bias; below the smallest normal number it counts in steps. IEEE 754-2019, 3.4; OCP 8-bit floating point
specification (OFP8), revision 1.0, 2023. What is too large becomes infinity, or NaN where there is none, as in PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mosaic_compile.mlir import arith, ir

from .elements import element_of, splat_constant, with_element

# The same bits as another type: the dialects have an operation each.
Bitcast = Callable[[ir.Value, ir.Type], ir.Value]


@dataclass(frozen=True)
class Format:
    """A binary floating-point format: its bits, and how many of them are mantissa.

    Without infinity, the largest exponent holds numbers too, and all ones is the only NaN.
    """

    width: int
    mantissa: int
    has_infinity: bool = True

    @property
    def bias(self) -> int:
        return (1 << self.width - self.mantissa - 2) - 1

    @property
    def magnitude(self) -> int:
        """All bits but the sign."""
        return (1 << self.width - 1) - 1

    @property
    def beyond(self) -> int:
        """The code of what is too large: infinity, or NaN."""
        return self.magnitude >> self.mantissa << self.mantissa if self.has_infinity else self.magnitude

    @property
    def nan(self) -> int:
        return self.beyond | 1 << self.mantissa - 1

    @property
    def step(self) -> float:
        """The distance of numbers below the smallest normal one."""
        return 2.0 ** (1 - self.bias - self.mantissa)


FORMATS = {
    "f8E4M3FN": Format(8, 3, has_infinity=False),
    "f8E5M2": Format(8, 2),
    "bf16": Format(16, 7),
    "f16": Format(16, 10),
    "f32": Format(32, 23),
    "f64": Format(64, 52),
}


def integer_type(type_: ir.Type, bits: int) -> ir.Type:
    """Integers of so many bits, in the shape of a type."""
    return with_element(type_, ir.IntegerType.get_signless(bits))


def widen(bits: ir.Value, form: Format, bitcast: Bitcast) -> ir.Value:
    """The bits of a narrow float as f32, exactly."""
    wide, i32 = FORMATS["f32"], integer_type(bits.type, 32)
    f32 = with_element(bits.type, ir.F32Type.get())
    word, dropped = arith.extui(i32, bits), wide.mantissa - form.mantissa
    if form.bias == wide.bias:
        return bitcast(arith.shli(word, splat_constant(dropped, i32)), f32)
    magnitude = arith.andi(word, splat_constant(form.magnitude, i32))
    placed = arith.shli(magnitude, splat_constant(dropped, i32))
    normal = arith.addi(placed, splat_constant(wide.bias - form.bias << wide.mantissa, i32))
    small = bitcast(arith.mulf(arith.sitofp(f32, magnitude), splat_constant(form.step, f32)), i32)
    is_small = arith.cmpi(arith.CmpIPredicate.ult, magnitude, splat_constant(1 << form.mantissa, i32))
    value = arith.select(is_small, small, normal)
    # With infinity, what stands in the mantissa tells it from NaN, on both sides.
    special = arith.ori(placed, splat_constant(wide.beyond if form.has_infinity else wide.nan, i32))
    is_special = arith.cmpi(arith.CmpIPredicate.uge, magnitude, splat_constant(form.beyond, i32))
    value = arith.select(is_special, special, value)
    sign = arith.andi(word, splat_constant(form.magnitude + 1, i32))
    return bitcast(arith.ori(value, arith.shli(sign, splat_constant(32 - form.width, i32))), f32)


def narrow(value: ir.Value, form: Format, bitcast: Bitcast) -> ir.Value:
    """The bits of an f32 or f64 as a narrow float: to nearest, ties to even."""
    wide, float_type = FORMATS[str(element_of(value.type))], value.type
    type_ = integer_type(float_type, wide.width)

    def number(n: int) -> ir.Value:
        return splat_constant(n, type_)

    bits, dropped = bitcast(value, type_), wide.mantissa - form.mantissa
    magnitude = arith.andi(bits, number(wide.magnitude))
    last = arith.andi(arith.shrui(magnitude, number(dropped)), number(1))
    rounded = arith.addi(arith.addi(magnitude, number((1 << dropped - 1) - 1)), last)
    code = arith.shrui(rounded, number(dropped))
    if form.bias != wide.bias:
        code = arith.subi(code, number(wide.bias - form.bias << form.mantissa))
        # Numbers from 2^mantissa steps on count in steps too: such a sum is rounded, and its low bits are their number.
        anchor = splat_constant(form.step * 2.0**wide.mantissa, float_type)
        small = arith.subi(
            bitcast(arith.addf(bitcast(magnitude, float_type), anchor), type_), bitcast(anchor, type_)
        )
        smallest = number(wide.bias - form.bias + 1 << wide.mantissa)
        is_small = arith.cmpi(arith.CmpIPredicate.ult, magnitude, smallest)
        code = arith.minui(arith.select(is_small, small, code), number(form.beyond))
    if form.has_infinity:
        is_nan = arith.cmpi(arith.CmpIPredicate.ugt, magnitude, number(wide.beyond))
        code = arith.select(is_nan, number(form.nan), code)
    sign = arith.andi(arith.shrui(bits, number(wide.width - form.width)), number(form.magnitude + 1))
    return arith.trunci(integer_type(float_type, form.width), arith.ori(code, sign))
