"""tile-to-tt, elementwise part: what Triton's arith and math cannot take as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mosaic_compile.dialects import tt
from mosaic_compile.dialects.tile import element_type_of, shape_of
from mosaic_compile.mlir import arith, ir, math

from .elements import is_fp8, splat_constant, sum_of_bytes, width, with_element
from .narrow_floats import FORMATS, narrow, widen

if TYPE_CHECKING:
    from .tile_to_tt import TileToTTLowering


# math functions that Triton computes in f32 and f64 only; narrower types go through f32.
WIDENED = (
    *(f"math.{f}" for f in ("exp", "exp2", "log", "log2", "sin", "cos", "tanh", "erf")),
    *(f"math.{f}" for f in ("sqrt", "rsqrt", "floor", "ceil")),
    "arith.divf",
)

# The vendor libraries' tanh: neither Triton nor the GPU has an accurate one of its own.
TANH = {
    ("cuda", 32): "__nv_tanhf",
    ("cuda", 64): "__nv_tanh",
    ("hip", 32): "__ocml_tanh_f32",
    ("hip", 64): "__ocml_tanh_f64",
}

# Where values still round to a finite fp8 value, and what lies beyond: PyTorch gives NaN for e4m3 (which has
# no infinity) and infinity for e5m2, where the GPU's own conversion saturates. 464 and 61440 are ties, which
# go to the even neighbour.
FP8_LIMIT = {
    "f8E4M3FN": (arith.CmpFPredicate.OLE, 464.0, float("nan")),
    "f8E5M2": (arith.CmpFPredicate.OLT, 61440.0, float("inf")),
}


def extend(lowering: TileToTTLowering, op: ir.Operation) -> Sequence[ir.Value]:
    """arith.extf"""
    source, target = lowering[op.operands[0]], op.results[0].type
    if is_fp8(source.type) and not lowering.fp8:
        return [from_fp8_bits(source, target)]
    if element_type_of(target) == ir.F64Type.get() and width(source.type) < 32:
        # Triton has no step from fp8 or bf16 to f64.
        source = _extended(source, with_element(target, ir.F32Type.get()))
    return [_extended(source, target)]


def _extended(source: ir.Value, target: ir.Type) -> ir.Value:
    return tt.FpToFpOp(source, target).result if is_fp8(source.type) else arith.extf(target, source)


def truncate(lowering: TileToTTLowering, op: ir.Operation) -> Sequence[ir.Value]:
    """arith.truncf"""
    type_ = op.results[0].type
    return [_to_fp8(lowering, lowering[op.operands[0]], type_)] if is_fp8(type_) else lowering.copy(op)


def from_integer(lowering: TileToTTLowering, op: ir.Operation) -> Sequence[ir.Value]:
    """arith.sitofp and uitofp: to fp8 through f32."""
    type_ = op.results[0].type
    if not is_fp8(type_):
        return lowering.copy(op)
    wide = with_element(type_, ir.F32Type.get())
    convert = arith.sitofp if op.name == "arith.sitofp" else arith.uitofp
    return [_to_fp8(lowering, convert(wide, lowering[op.operands[0]]), type_)]


def from_fp8_bits(source: ir.Value, target: ir.Type) -> ir.Value:
    """fp8 to any wider type by integer arithmetic, for GPUs that have no conversion."""
    byte = tt.BitcastOp(source, with_element(source.type, ir.IntegerType.get_signless(8))).result
    result = widen(byte, FORMATS[str(element_type_of(source.type))], _bitcast)
    if width(target) == 32:
        return result
    return (arith.extf if width(target) > 32 else arith.truncf)(target, result)


def _bitcast(value: ir.Value, type_: ir.Type) -> ir.Value:
    return tt.BitcastOp(value, type_).result


def _to_fp8(lowering: TileToTTLowering, source: ir.Value, type_: ir.Type) -> ir.Value:
    wide = source.type
    if not lowering.fp8:
        if width(wide) < 32:
            source = arith.extf(with_element(wide, ir.F32Type.get()), source)
        return _bitcast(narrow(source, FORMATS[str(element_type_of(type_))], _bitcast), type_)
    within, limit, beyond = FP8_LIMIT[str(element_type_of(type_))]
    fits = arith.cmpf(within, math.absf(source), splat_constant(limit, wide))  # false for NaN
    bits = ir.IntegerType.get_signless(8)
    converted = tt.FpToFpOp(source, type_)
    converted.operation.attributes["rounding"] = _i32(tt.ROUND_NEAREST_EVEN)
    as_bits = _bitcast(converted.result, with_element(type_, bits))
    if beyond == float("inf"):
        outside = _infinity_bits(source, wide, with_element(type_, bits))
    else:
        outside = splat_constant(0x7F, with_element(type_, bits))
    return _bitcast(arith.select(fits, as_bits, outside), type_)


def _infinity_bits(source: ir.Value, wide: ir.Type, bits: ir.Type) -> ir.Value:
    """f8E5M2's bits for what does not fit: infinity with the sign of `source`, or NaN."""
    negative = arith.cmpf(arith.CmpFPredicate.OLT, source, splat_constant(0.0, wide))
    infinity = arith.select(negative, splat_constant(0xFC - 256, bits), splat_constant(0x7C, bits))
    is_nan = arith.cmpf(arith.CmpFPredicate.UNO, source, source)
    return arith.select(is_nan, splat_constant(0x7F, bits), infinity)


def _i32(value: int) -> ir.Attribute:
    return ir.IntegerAttr.get(ir.IntegerType.get_signless(32), value)


def widened(lowering: TileToTTLowering, op: ir.Operation) -> Sequence[ir.Value]:
    """A function of f16 or bf16, computed in f32."""
    type_ = op.results[0].type
    element = element_type_of(type_)
    operands = [lowering[o] for o in op.operands]
    narrow = ir.FloatType(element).width < 32
    if narrow:
        wide = with_element(type_, ir.F32Type.get())
        operands = [arith.extf(wide, o) for o in operands]
    result = _function(lowering, op, operands)
    return [arith.truncf(type_, result) if narrow else result]


def _function(lowering: TileToTTLowering, op: ir.Operation, operands: list[ir.Value]) -> ir.Value:
    type_ = operands[0].type
    if op.name == "math.tanh":
        symbol = TANH[lowering.vendor, ir.FloatType(element_type_of(type_)).width]
        empty = ir.StringAttr.get("")
        return tt.ExternElementwiseOp(
            operands, empty, empty, ir.StringAttr.get(symbol), ir.BoolAttr.get(True), type_
        ).result
    return ir.Operation.create(op.name, results=[type_], operands=operands).results[0]


def negate(lowering: TileToTTLowering, op: ir.Operation) -> Sequence[ir.Value]:
    """arith.negf, which Triton 3.6 does not take: times -1, right for zeros too, and not folded back."""
    source = lowering[op.operands[0]]
    return [arith.mulf(source, splat_constant(-1.0, source.type))]


def select(lowering: TileToTTLowering, op: ir.Operation) -> Sequence[ir.Value]:
    """arith.select: Triton takes a condition of the values' shape."""
    condition, a, b = (lowering[o] for o in op.operands)
    if shape_of(condition.type) != shape_of(a.type):
        condition = tt.SplatOp(condition, with_element(a.type, condition.type)).result
    return [arith.select(condition, a, b)]


def bitcast(lowering: TileToTTLowering, op: ir.Operation) -> Sequence[ir.Value]:
    return [tt.BitcastOp(lowering[op.operands[0]], lowering.convert_type(op.results[0].type)).result]


def full_product(lowering: TileToTTLowering, op: ir.Operation) -> Sequence[ir.Value]:
    """arith.mului_extended: the low and the high half of a product."""
    a, b = (lowering[o] for o in op.operands)
    return [arith.muli(a, b), tt.MulhiUIOp(a, b, a.type).result]


def floor_divide(lowering: TileToTTLowering, op: ir.Operation) -> Sequence[ir.Value]:
    """arith.floordivsi: the quotient toward zero, one less where the signs differ and a remainder is left."""
    a, b = (lowering[o] for o in op.operands)
    quotient, inexact = _divide(a, b)
    zero = splat_constant(0, a.type)
    opposite = arith.cmpi(arith.CmpIPredicate.slt, arith.xori(a, b), zero)
    less = arith.subi(quotient, splat_constant(1, a.type))
    return [arith.select(arith.andi(inexact, opposite), less, quotient)]


def ceil_divide(lowering: TileToTTLowering, op: ir.Operation) -> Sequence[ir.Value]:
    """arith.ceildivsi: the quotient toward zero, one more where the signs agree and a remainder is left."""
    a, b = (lowering[o] for o in op.operands)
    quotient, inexact = _divide(a, b)
    same = arith.cmpi(arith.CmpIPredicate.sge, arith.xori(a, b), splat_constant(0, a.type))
    more = arith.addi(quotient, splat_constant(1, a.type))
    return [arith.select(arith.andi(inexact, same), more, quotient)]


def _divide(a: ir.Value, b: ir.Value) -> tuple[ir.Value, ir.Value]:
    quotient = arith.divsi(a, b)
    remainder = arith.subi(a, arith.muli(quotient, b))
    return quotient, arith.cmpi(arith.CmpIPredicate.ne, remainder, splat_constant(0, a.type))


def ceil_divide_unsigned(lowering: TileToTTLowering, op: ir.Operation) -> Sequence[ir.Value]:
    """arith.ceildivui, without overflow: (a - 1) / b + 1, and 0 for 0."""
    a, b = (lowering[o] for o in op.operands)
    one, zero = splat_constant(1, a.type), splat_constant(0, a.type)
    rounded = arith.addi(arith.divui(arith.subi(a, one), b), one)
    return [arith.select(arith.cmpi(arith.CmpIPredicate.eq, a, zero), zero, rounded)]


def wrapping(lowering: TileToTTLowering, op: ir.Operation) -> Sequence[ir.Value]:
    """Integer sums, differences and products: all wrap here, those that are meant to no longer say so."""
    results = lowering.copy(op)
    if "tile.wraps" in op.attributes:
        del results[0].owner.attributes["tile.wraps"]
    return results


def dot4(lowering: TileToTTLowering, op: ir.Operation) -> Sequence[ir.Value]:
    """tile.dot4: byte by byte, as Triton has no such operation."""
    a, b, acc = (lowering[o] for o in op.operands)
    return [sum_of_bytes(a, b, acc, op.attributes["signed"].value)]


def constant(lowering: TileToTTLowering, op: ir.Operation) -> Sequence[ir.Value]:
    """arith.constant: i4 values become i8."""
    type_ = op.results[0].type
    if str(element_type_of(type_)) != "i4":
        return lowering.copy(op)
    attribute = op.attributes["value"]
    value = (
        attribute.get_splat_value().value if isinstance(attribute, ir.DenseElementsAttr) else attribute.value
    )
    return [splat_constant(value - 16 if value > 7 else value, lowering.convert_type(type_))]


def same_width(lowering: TileToTTLowering, op: ir.Operation) -> Sequence[ir.Value]:
    """Widening i4 to i8, or narrowing i8 to i4, where both are i8: keep, or cut and extend the sign."""
    source = lowering[op.operands[0]]
    target = lowering.convert_type(op.results[0].type)
    to_i4 = str(element_type_of(op.results[0].type)) == "i4"
    if op.name == "arith.trunci" and to_i4:
        byte = (
            source
            if element_type_of(source.type) == element_type_of(target)
            else arith.trunci(target, source)
        )
        four = splat_constant(4, target)
        return [arith.shrsi(arith.shli(byte, four), four)]
    if source.type == target:
        return [source]
    return lowering.copy(op)


RULES = {
    "arith.extf": extend,
    "arith.truncf": truncate,
    "arith.sitofp": from_integer,
    "arith.uitofp": from_integer,
    "arith.negf": negate,
    "arith.select": select,
    "arith.bitcast": bitcast,
    **dict.fromkeys(["arith.addi", "arith.subi", "arith.muli"], wrapping),
    "arith.mului_extended": full_product,
    "arith.floordivsi": floor_divide,
    "arith.ceildivsi": ceil_divide,
    "arith.ceildivui": ceil_divide_unsigned,
    "tile.dot4": dot4,
    "arith.constant": constant,
    "arith.extsi": same_width,
    "arith.trunci": same_width,
    **dict.fromkeys(WIDENED, widened),
}
