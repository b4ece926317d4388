"""expand-float-conversions: conversions of narrow floating-point numbers by integer arithmetic.

fp8 has no instructions on CPUs, f16 not on all; those for bf16 take numbers below the smallest normal one for zero; and none
converts f64 to a narrow format in one rounding. Formats: OCP 8-bit floating point specification (OFP8), revision 1.0, 2023, and
IEEE 754-2019. f64 goes through f32 rounded to odd, which makes the second rounding right (S. Boldo, G. Melquiond: Emulation of
FMA and correctly rounded sums, IEEE Transactions on Computers, 2008).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mosaic_compile.mlir import arith, ir

from .walk import operations

_F32_MANTISSA, _F32_BIAS, _F32_INFINITY, _F32_NAN = 23, 127, 0x7F800000, 0x7FC00000


@dataclass(frozen=True)
class _Format:
    """A narrow format: its bits of mantissa, its exponent's bias, its largest finite code, and what is beyond.

    Codes behind `largest` are infinity and NaN; a format without infinity has NaN alone.
    """

    bits: int
    mantissa: int
    bias: int
    largest: int
    nan: int

    @property
    def sign_place(self) -> int:
        return self.bits - 1

    @property
    def has_infinity(self) -> bool:
        return self.largest + 1 != self.nan

    @property
    def step(self) -> float:
        """The distance of numbers below the smallest normal one."""
        return 2.0 ** (1 - self.bias - self.mantissa)


_FORMATS = {
    "f8E4M3FN": _Format(8, 3, 7, 0x7E, 0x7F),
    "f8E5M2": _Format(8, 2, 15, 0x7B, 0x7E),
    "f16": _Format(16, 10, 15, 0x7BFF, 0x7E00),
    "bf16": _Format(16, 7, _F32_BIAS, 0x7F7F, 0x7FC0),
}


@dataclass(frozen=True)
class ExpandFloatConversions:
    """f16: whether the machine converts between f16 and f32 itself."""

    name: ClassVar[str] = "expand-float-conversions"
    f16: bool = True

    def run(self, module: ir.Module) -> None:
        with module.context:
            for op in operations(module.operation):
                if op.name in ("arith.extf", "arith.truncf"):
                    with op.location, ir.InsertionPoint(op):
                        convert = self._extend if op.name == "arith.extf" else self._truncate
                        new = convert(op.operands[0], op.results[0].type)
                    if new is not None:
                        op.results[0].replace_all_uses_with(new)
                        op.erase()
                    elif "fastmath" in op.attributes:
                        # Upstream's emulation allows that rounding in between is left out; the DSL does not.
                        del op.attributes["fastmath"]

    def _format(self, type_: ir.Type) -> _Format | None:
        """The format to take apart; None for those that the machine converts."""
        name = str(_element(type_))
        return None if name == "f16" and self.f16 else _FORMATS.get(name)

    def _extend(self, value: ir.Value, target: ir.Type) -> ir.Value | None:
        form = self._format(value.type)
        if form is None:
            return None
        wide = _widen(value, form)
        if _width(target) == 32:
            return wide
        if _width(target) == 64:
            return arith.extf(target, wide)
        return self._truncate(wide, target) or arith.truncf(target, wide)

    def _truncate(self, value: ir.Value, target: ir.Type) -> ir.Value | None:
        form = self._format(target)
        if form is None and not (_width(value.type) == 64 and _width(target) < 32):
            return None
        if _width(value.type) == 64:
            value = _round_to_odd(value)
        elif _width(value.type) < 32:
            f32 = _like(value.type, ir.F32Type.get())
            value = self._extend(value, f32) or arith.extf(f32, value)
        return arith.truncf(target, value) if form is None else _narrow(value, form, target)


def _element(type_: ir.Type) -> ir.Type:
    return type_.element_type if isinstance(type_, ir.VectorType) else type_


def _width(type_: ir.Type) -> int:
    return _element(type_).width


def _like(type_: ir.Type, element: ir.Type) -> ir.Type:
    """A scalar or vector type with other elements."""
    if not isinstance(type_, ir.VectorType):
        return element
    return ir.VectorType.get(type_.shape, element, scalable=type_.scalable_dims)


def _integer(type_: ir.Type, bits: int) -> ir.Type:
    return _like(type_, ir.IntegerType.get_signless(bits))


def _constant(type_: ir.Type, number: int | float) -> ir.Value:
    element = _element(type_)
    is_integer = isinstance(element, ir.IntegerType)
    value = ir.IntegerAttr.get(element, int(number)) if is_integer else ir.FloatAttr.get(element, number)
    splat = ir.DenseElementsAttr.get_splat(type_, value) if isinstance(type_, ir.VectorType) else value
    return arith.constant(type_, splat)


def _widen(value: ir.Value, form: _Format) -> ir.Value:
    """A narrow number as f32, exactly."""
    i32, f32 = _integer(value.type, 32), _like(value.type, ir.F32Type.get())
    shift = _F32_MANTISSA - form.mantissa

    def number(n: int) -> ir.Value:
        return _constant(i32, n)

    code = arith.extui(i32, arith.bitcast(_integer(value.type, form.bits), value))
    if form.bias == _F32_BIAS:  # bf16 is the upper half of f32
        return arith.bitcast(f32, arith.shli(code, number(shift)))
    magnitude = arith.andi(code, number((1 << form.sign_place) - 1))
    sign = arith.shli(arith.subi(code, magnitude), number(31 - form.sign_place))
    placed = arith.shli(magnitude, number(shift))
    normal = arith.addi(placed, number((_F32_BIAS - form.bias) << _F32_MANTISSA))
    steps = arith.mulf(arith.sitofp(f32, magnitude), _constant(f32, form.step))
    is_small = arith.cmpi(arith.CmpIPredicate.ult, magnitude, number(1 << form.mantissa))
    finite = arith.select(is_small, arith.bitcast(i32, steps), normal)
    beyond = arith.ori(placed, number(_F32_INFINITY)) if form.has_infinity else number(_F32_NAN)
    is_beyond = arith.cmpi(arith.CmpIPredicate.ugt, magnitude, number(form.largest))
    return arith.bitcast(f32, arith.ori(sign, arith.select(is_beyond, beyond, finite)))


def _narrow(value: ir.Value, form: _Format, target: ir.Type) -> ir.Value:
    """f32 as a narrow number: to nearest, ties to even; beyond the largest finite one infinity, or else NaN."""
    i32, f32 = _integer(value.type, 32), value.type
    shift = _F32_MANTISSA - form.mantissa

    def number(n: int) -> ir.Value:
        return _constant(i32, n)

    bits = arith.bitcast(i32, value)
    magnitude = arith.andi(bits, number(0x7FFFFFFF))
    sign = arith.shrui(arith.xori(bits, magnitude), number(31 - form.sign_place))
    is_odd = arith.andi(arith.shrui(magnitude, number(shift)), number(1))
    rounded = arith.addi(arith.addi(magnitude, number((1 << (shift - 1)) - 1)), is_odd)
    finite = arith.shrui(rounded, number(shift))
    if form.bias != _F32_BIAS:
        normal = arith.subi(finite, number((_F32_BIAS - form.bias) << form.mantissa))
        # Adding 2^23 steps leaves no bit below a step: the addition rounds.
        base = _constant(f32, form.step * 2.0**_F32_MANTISSA)
        total = arith.bitcast(i32, arith.addf(arith.bitcast(f32, magnitude), base))
        steps = arith.subi(total, arith.bitcast(i32, base))
        smallest_normal = number((_F32_BIAS - form.bias + 1) << _F32_MANTISSA)
        is_small = arith.cmpi(arith.CmpIPredicate.ult, magnitude, smallest_normal)
        finite = arith.select(is_small, steps, normal)
    # Rounding up past the largest finite number has reached the code behind it, or one further.
    clipped = arith.minui(finite, number(form.largest + 1))
    is_nan = arith.cmpi(arith.CmpIPredicate.ugt, magnitude, number(_F32_INFINITY))
    code = arith.ori(sign, arith.select(is_nan, number(form.nan), clipped))
    return arith.bitcast(target, arith.trunci(_integer(value.type, form.bits), code))


def _round_to_odd(value: ir.Value) -> ir.Value:
    """f64 as f32: where it is not exact, the neighbour whose last bit is 1."""
    i32, f32 = _integer(value.type, 32), _like(value.type, ir.F32Type.get())
    i64 = _integer(value.type, 64)
    nearest = arith.truncf(f32, value)
    back = arith.extf(value.type, nearest)
    magnitude = _constant(i64, 0x7FFFFFFFFFFFFFFF)
    exact, wide = (arith.andi(arith.bitcast(i64, v), magnitude) for v in (value, back))
    went_away = arith.extui(i32, arith.cmpi(arith.CmpIPredicate.ugt, wide, exact))
    inexact = arith.extui(i32, arith.cmpf(arith.CmpFPredicate.ONE, back, value))
    bits = arith.subi(arith.bitcast(i32, nearest), arith.andi(went_away, inexact))
    return arith.bitcast(f32, arith.ori(bits, inexact))
