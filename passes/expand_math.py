"""expand-math: mathematical functions as straight arithmetic (formulas.py), where a machine would call a library.

f16 and bf16 are computed in f32 and rounded. For the C library stay sin and cos of f64, and fma of f64 where the machine
has none.

Largest errors of f32 in units of the last place, with and without fused operations (of every number where the function is not
trivial; of an eighth of them for sin and cos):

    exp 0.89 0.90   exp2 0.88 1.10   expm1 1.06 1.21   log 0.89 0.89   log2 1.17 1.33   log1p 0.97 0.97
    tanh 0.98 1.16   erf 1.10 1.19   rsqrt 0.50 0.50   sin 0.87 0.90   cos 0.88 0.94

Those of f64 are of the same size, but for rsqrt without fused operations: 1.4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from mosaic_compile.mlir import ir

from . import formulas, numbers
from .elements import element_of, width
from .numbers import Number, multiply_add
from .walk import operations

FORMULAS: Mapping[str, Callable[..., Number]] = {
    "math.exp": formulas.exp,
    "math.exp2": formulas.exp2,
    "math.expm1": formulas.expm1,
    "math.log": formulas.log,
    "math.log2": formulas.log2,
    "math.log1p": formulas.log1p,
    "math.tanh": formulas.tanh,
    "math.erf": formulas.erf,
    "math.rsqrt": formulas.rsqrt,
    "math.sin": formulas.sin,
    "math.cos": formulas.cos,
}
ROUNDING: Mapping[str, Callable[..., Number]] = {
    "math.floor": formulas.floor,
    "math.ceil": formulas.ceil,
    "math.trunc": formulas.trunc,
    "math.roundeven": formulas.roundeven,
}
ROOTS: Mapping[str, Callable[..., Number]] = {
    "math.sqrt": formulas.sqrt_by_products,
    "math.rsqrt": formulas.rsqrt_by_products,
}
EXTREMA: Mapping[str, Callable[..., Number]] = {
    "arith.maximumf": numbers.maximum,
    "arith.minimumf": numbers.minimum,
}
NOT_IN_F64 = ("math.sin", "math.cos")


@dataclass(frozen=True)
class ExpandMath:
    """What the machine has instructions for.

    fma: a * b + c of f32 and f64, rounded once. rounding: to whole numbers. sqrt: square roots; without it, those of f64 stay.
    avx512: of vectors, x 2^n and what keeps NaN of a maximum and a minimum.
    """

    name: ClassVar[str] = "expand-math"
    fma: bool = True
    rounding: bool = True
    sqrt: bool = True
    avx512: bool = False

    def run(self, module: ir.Module) -> None:
        with module.context:
            for op in operations(module.operation):
                formula = self.formula(op)
                if formula is not None:
                    with op.location, ir.InsertionPoint(op):
                        operands = [Number(o, self.fma, self.avx512) for o in op.operands]
                        op.results[0].replace_all_uses_with(formula(*operands).value)
                    op.erase()

    def formula(self, op: ir.Operation) -> Callable[..., Number] | None:
        """What takes the place of an operation; None where it stays."""
        if not op.results or not isinstance(element_of(op.results[0].type), ir.FloatType):
            return None
        bits = width(op.results[0].type)
        if op.name in EXTREMA:
            return EXTREMA[op.name] if Number(op.operands[0], self.fma, self.avx512).is_avx512 else None
        if op.name == "math.fma":
            return formulas.fma if bits < 32 or (bits == 32 and not self.fma) else None
        if op.name == "vector.fma":  # the products of matrices, which may round in between
            return _in_f32(multiply_add) if bits < 32 or not self.fma else None
        if op.name in ROUNDING:
            return None if self.rounding else _in_f32(ROUNDING[op.name])
        if op.name in ROOTS and bits < 64 and not self.sqrt:
            return _in_f32(ROOTS[op.name])
        if op.name not in FORMULAS or (bits == 64 and op.name in NOT_IN_F64):
            return None
        return _in_f32(FORMULAS[op.name])


def _in_f32(formula: Callable[..., Number]) -> Callable[..., Number]:
    """The formula, computed in f32 for narrower types."""

    def widened(*operands: Number) -> Number:
        element = element_of(operands[0].value.type)
        if width(element) >= 32:
            return formula(*operands)
        return formula(*(x.to(ir.F32Type.get()) for x in operands)).to(element)

    return widened
