"""Formulas as Python writes them: numbers whose operators build `arith` and `math`, on scalars, vectors and tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mosaic_compile.mlir import arith, ir, math
from mosaic_compile.mlir_llvm import intrinsic

from .elements import element_of, splat_constant, with_element
from .narrow_floats import FORMATS, Format, integer_type


@dataclass(frozen=True, eq=False)
class Number:
    """A float, an integer or a truth value. fused: whether a * b + c is one instruction, rounded once. avx512: whether the
    machine has AVX-512's instructions.

    A Python number beside it is a constant of its type. Floats compare ordered: false where one is NaN.
    """

    value: ir.Value
    fused: bool
    avx512: bool = False

    @property
    def is_float(self) -> bool:
        return not isinstance(element_of(self.value.type), ir.IntegerType)

    @property
    def format(self) -> Format:
        """Of a float."""
        return FORMATS[str(element_of(self.value.type))]

    def with_value(self, value: ir.Value) -> Number:
        return Number(value, self.fused, self.avx512)

    @property
    def is_avx512(self) -> bool:
        """Whether AVX-512's own instructions take a vector of this type."""
        return self.avx512 and str(self.value.type) in _SUFFIXES

    def constant(self, x: Any) -> Number:
        return x if isinstance(x, Number) else self.with_value(splat_constant(x, self.value.type))

    def _apply(
        self, on_floats: Callable[..., Any] | None, on_integers: Callable[..., Any] | None, x: Any
    ) -> Number:
        function = on_floats if self.is_float else on_integers
        assert function is not None
        return self.with_value(function(self.value, self.constant(x).value))

    def __add__(self, x: Any) -> Number:
        return self._apply(arith.addf, arith.addi, x)

    def __sub__(self, x: Any) -> Number:
        return self._apply(arith.subf, arith.subi, x)

    def __mul__(self, x: Any) -> Number:
        return self._apply(arith.mulf, arith.muli, x)

    def __truediv__(self, x: Any) -> Number:
        return self._apply(arith.divf, None, x)

    def __and__(self, x: Any) -> Number:
        return self._apply(None, arith.andi, x)

    def __or__(self, x: Any) -> Number:
        return self._apply(None, arith.ori, x)

    def __xor__(self, x: Any) -> Number:
        return self._apply(None, arith.xori, x)

    def __lshift__(self, x: Any) -> Number:
        return self._apply(None, arith.shli, x)

    def __rshift__(self, x: Any) -> Number:
        """Integers keep their sign."""
        return self._apply(None, arith.shrsi, x)

    def shifted_down(self, x: Any) -> Number:
        """As an unsigned integer."""
        return self._apply(None, arith.shrui, x)

    def __radd__(self, x: Any) -> Number:
        return self.constant(x) + self

    def __rsub__(self, x: Any) -> Number:
        return self.constant(x) - self

    def __rmul__(self, x: Any) -> Number:
        return self.constant(x) * self

    def __rtruediv__(self, x: Any) -> Number:
        return self.constant(x) / self

    def __neg__(self) -> Number:
        return self.with_value(arith.negf(self.value)) if self.is_float else 0 - self

    def __abs__(self) -> Number:
        return self.with_value(math.absf(self.value))

    def _compare(self, on_floats: Any, on_integers: Any, x: Any) -> Number:
        compare, predicate = (arith.cmpf, on_floats) if self.is_float else (arith.cmpi, on_integers)
        return self.with_value(compare(predicate, self.value, self.constant(x).value))

    def __lt__(self, x: Any) -> Number:
        return self._compare(arith.CmpFPredicate.OLT, arith.CmpIPredicate.slt, x)

    def __gt__(self, x: Any) -> Number:
        return self._compare(arith.CmpFPredicate.OGT, arith.CmpIPredicate.sgt, x)

    def is_equal(self, x: Any) -> Number:
        return self._compare(arith.CmpFPredicate.OEQ, arith.CmpIPredicate.eq, x)

    @property
    def bits(self) -> Number:
        """A float's bits, as an integer of its width."""
        return self.with_value(arith.bitcast(integer_type(self.value.type, self.format.width), self.value))

    def as_float(self, type_: ir.Type) -> Number:
        """An integer's bits, read as a float of another type's elements."""
        return self.with_value(arith.bitcast(type_, self.value))

    def resized(self, bits: int) -> Number:
        """An integer with other bits above its low ones: none, or zeros."""
        type_ = integer_type(self.value.type, bits)
        grows = bits > ir.IntegerType(element_of(self.value.type)).width
        return self.with_value((arith.extui if grows else arith.trunci)(type_, self.value))

    def converted(self, element: ir.Type) -> Number:
        """A signed integer as the nearest float."""
        return self.with_value(arith.sitofp(with_element(self.value.type, element), self.value))

    def to(self, element: ir.Type) -> Number:
        """A float in another format, rounded."""
        type_ = with_element(self.value.type, element)
        if type_ == self.value.type:
            return self
        convert = arith.extf if FORMATS[str(element)].width > self.format.width else arith.truncf
        return self.with_value(convert(type_, self.value))


def where(condition: Number, a: Any, b: Any) -> Number:
    """One of a and b, of which one is a Number."""
    like = a if isinstance(a, Number) else b
    return like.with_value(arith.select(condition.value, like.constant(a).value, like.constant(b).value))


def multiply_add(a: Number, b: Any, c: Any) -> Number:
    """a * b + c, rounded once where the machine can."""
    if not a.fused:
        return a * b + c
    return a.with_value(math.fma(a.value, a.constant(b).value, a.constant(c).value))


def polynomial(x: Number, coefficients: Sequence[float]) -> Number:
    """Coefficients from the constant on, by Horner's rule."""
    *rest, result = coefficients
    total = x.constant(result)
    for coefficient in reversed(rest):
        total = multiply_add(total, x, coefficient)
    return total


_SUFFIXES = {"vector<16xf32>": "ps.512", "vector<8xf64>": "pd.512"}
_CURRENT_ROUNDING = 4
_MINIMUM, _MAXIMUM = 4, 5  # of numbers with their signs


def _avx512(name: str, x: Number, others: Sequence[ir.Value]) -> Number:
    """An instruction of AVX-512's on all lanes of x and others: what it leaves where a lane is masked out is x."""
    type_ = x.value.type
    lanes = ir.IntegerType.get_signless(ir.VectorType(type_).shape[0])
    last = [x.value, arith.constant(lanes, -1), _i32(_CURRENT_ROUNDING)]
    full_name = f"llvm.x86.avx512.mask.{name}.{_SUFFIXES[str(type_)]}"
    return x.with_value(intrinsic(full_name, type_, [x.value, *others, *last]))


def _i32(number: int) -> ir.Value:
    return arith.constant(ir.IntegerType.get_signless(32), number)


def scaled(x: Number, exponent: Number) -> Number:
    """x times 2 to the power of a whole number, rounded once, by AVX-512."""
    return _avx512("scalef", x, [exponent.value])


def maximum(a: Number, b: Number) -> Number:
    """NaN where one of them is, and +0 above -0, by AVX-512."""
    return _extremum(a, b, _MAXIMUM)


def minimum(a: Number, b: Number) -> Number:
    return _extremum(a, b, _MINIMUM)


def _extremum(a: Number, b: Number, which: int) -> Number:
    ordered = a._compare(arith.CmpFPredicate.ORD, None, b)
    return where(ordered, _avx512("range", a, [b.value, _i32(which)]), a + b)


def square_root(x: Number) -> Number:
    return x.with_value(math.sqrt(x.value))


def copy_sign(magnitude: Number, sign: Number) -> Number:
    return magnitude.with_value(math.copysign(magnitude.value, sign.value))
