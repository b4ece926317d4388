"""expand-dot4: products of four bytes as the instruction that a machine has for them.

    "vnni"     vpdpbusd, of x86-64: unsigned bytes by signed ones
    "pmaddwd"  x86-64 without it: products of 16 bits, summed in pairs
    "sdot"     of 64-bit Arm: signed bytes by signed ones
    "wasm"     WebAssembly: products of 16 bits, summed in pairs
    "hvx"      vrmpy, of Hexagon: signed or unsigned bytes by signed ones
    ""         none of these: byte by byte

Bytes that a mask keeps below 128 are signed as well as unsigned, whichever is cheaper. vpdpbusd takes a signed byte a as
(a + 128) - 128: the sum of 128 b is taken away at the end of a chain of products, and leaves loops in which b stays the same.

LLVM's own partial reductions, which become the same instructions, are free to add to another lane.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from mosaic_compile.mlir import arith, ir
from mosaic_compile.mlir_llvm import intrinsic
from mosaic_compile.mlir_tensors import vector

from .elements import splat_constant, sum_of_bytes
from .walk import defining_op, operations, splat

TOP_BITS = 0x80808080  # of four bytes; as unsigned bytes, each is 128
ONES = 0x00010001  # two numbers of 16 bits

# A product that was taken as one of unsigned bytes: its value is the first number less the second.
Difference: TypeAlias = "tuple[ir.Value, ir.Value]"


@dataclass(frozen=True)
class ExpandDot4:
    """unit: what multiplies bytes, see above. vector_bytes: the width of the machine's vectors."""

    name: ClassVar[str] = "expand-dot4"
    unit: str = ""
    vector_bytes: int = 32

    def run(self, module: ir.Module) -> None:
        differences: dict[ir.Value, Difference] = {}
        with module.context:
            for op in operations(module.operation):
                if op.name == "tile.dot4":
                    with op.location, ir.InsertionPoint(op):
                        self.replace(op, differences)
                    op.erase()

    def replace(self, op: ir.Operation, differences: dict[ir.Value, Difference]) -> None:
        a, b, acc = op.operands
        signed, small = op.attributes["signed"].value, _is_small(a)
        if not self.unit or not self.fits(acc.type):
            result = sum_of_bytes(a, b, acc, signed)
        elif self.unit == "vnni" and signed and not small:
            main, taken = differences.get(acc) or (acc, splat_constant(0, acc.type))
            top = splat_constant(TOP_BITS, acc.type)
            difference = _vpdpbusd(arith.xori(a, top), b, main), _vpdpbusd(top, b, taken)
            result = arith.subi(*difference)
            differences[result] = difference
        else:
            result = UNITS[self.unit](a, b, acc, signed, small)
        op.results[0].replace_all_uses_with(result)

    def fits(self, type_: ir.Type) -> bool:
        """Whether the unit takes values of a type: whole vectors, of which x86-64 has narrow ones too."""
        if not isinstance(type_, ir.VectorType):
            return False
        narrowest = 16 if self.unit in ("vnni", "pmaddwd") else self.vector_bytes
        return narrowest <= 4 * type_.shape[0] <= self.vector_bytes


def _vpdpbusd(a: ir.Value, b: ir.Value, acc: ir.Value) -> ir.Value:
    bits = 32 * acc.type.shape[0]
    return intrinsic(f"llvm.x86.avx512.vpdpbusd.{bits}", acc.type, [acc, _bytes(a), _bytes(b)])


def _vnni(a: ir.Value, b: ir.Value, acc: ir.Value, signed: bool, small: bool) -> ir.Value:
    return _vpdpbusd(a, b, acc)


# Two products of 16 bits each, added in 32; and, on x86-64, the instruction that makes such numbers of bytes.
_PMADDWD = {4: "llvm.x86.sse2.pmadd.wd", 8: "llvm.x86.avx2.pmadd.wd", 16: "llvm.x86.avx512.pmaddw.d.512"}
_PMADDUBSW = {
    4: "llvm.x86.ssse3.pmadd.ub.sw.128",
    8: "llvm.x86.avx2.pmadd.ub.sw",
    16: "llvm.x86.avx512.pmaddubs.w.512",
}


def _pmaddwd(a: ir.Value, b: ir.Value, acc: ir.Value, signed: bool, small: bool) -> ir.Value:
    lanes = acc.type.shape[0]
    if not small:
        return _in_pairs(_PMADDWD[lanes], a, b, acc, signed)
    narrow = intrinsic(_PMADDUBSW[lanes], _pairs(acc.type), [_bytes(a), _bytes(b)])  # 2 * 127 * 128 fits
    ones = vector.bitcast(_pairs(acc.type), splat_constant(ONES, acc.type))
    return arith.addi(acc, intrinsic(_PMADDWD[lanes], acc.type, [narrow, ones]))


def _wasm(a: ir.Value, b: ir.Value, acc: ir.Value, signed: bool, small: bool) -> ir.Value:
    return _in_pairs("llvm.wasm.dot", a, b, acc, signed)


def _in_pairs(name: str, a: ir.Value, b: ir.Value, acc: ir.Value, signed: bool) -> ir.Value:
    """The even bytes, then the odd ones, as numbers of 16 bits; `name` multiplies these and adds neighbours."""
    pairs = _pairs(acc.type)
    eight = splat_constant(8, pairs)
    for odd in (False, True):
        x, y = (
            _half(vector.bitcast(pairs, v), eight, odd, arith.shrsi if is_signed else arith.shrui)
            for v, is_signed in ((a, signed), (b, True))
        )
        acc = arith.addi(acc, intrinsic(name, acc.type, [x, y]))
    return acc


def _pairs(words: ir.Type) -> ir.Type:
    return ir.VectorType.get([2 * words.shape[0]], ir.IntegerType.get_signless(16))


def _half(
    pairs: ir.Value, eight: ir.Value, odd: bool, shift: Callable[[ir.Value, ir.Value], ir.Value]
) -> ir.Value:
    """The upper (odd) or lower bytes of numbers of 16 bits, extended to these."""
    return shift(pairs if odd else arith.shli(pairs, eight), eight)


def _sdot(a: ir.Value, b: ir.Value, acc: ir.Value, signed: bool, small: bool) -> ir.Value:
    if signed or small:
        return _signed_dot(a, b, acc)
    difference = arith.xori(a, splat_constant(TOP_BITS, acc.type))  # a - 128, signed
    of_b = _signed_dot(b, splat_constant(0x01010101, acc.type), splat_constant(0, acc.type))
    return arith.addi(_signed_dot(difference, b, acc), arith.shli(of_b, splat_constant(7, acc.type)))


def _signed_dot(a: ir.Value, b: ir.Value, acc: ir.Value) -> ir.Value:
    return intrinsic("llvm.aarch64.neon.sdot", acc.type, [acc, _bytes(a), _bytes(b)])


def _vrmpy(a: ir.Value, b: ir.Value, acc: ir.Value, signed: bool, small: bool) -> ir.Value:
    kind = "vrmpybv" if signed or small else "vrmpybusv"
    return intrinsic(f"llvm.hexagon.V6.{kind}.acc.128B", acc.type, [acc, a, b])


UNITS: dict[str, Callable[[ir.Value, ir.Value, ir.Value, bool, bool], ir.Value]] = {
    "vnni": _vnni,
    "pmaddwd": _pmaddwd,
    "sdot": _sdot,
    "wasm": _wasm,
    "hvx": _vrmpy,
}


def _bytes(words: ir.Value) -> ir.Value:
    byte = ir.IntegerType.get_signless(8)
    return vector.bitcast(ir.VectorType.get([4 * words.type.shape[0]], byte), words)


def _is_small(value: ir.Value) -> bool:
    """Whether a mask keeps all bytes below 128."""
    op = defining_op(value)
    if op is None or op.name != "arith.andi":
        return False
    masks = [splat(operand) for operand in op.operands]
    return any(m is not None and ir.IntegerAttr(m).value & TOP_BITS == 0 for m in masks)
