"""expand-narrow-floats: numbers of types that a machine has not, as integers that hold their bits.

    %s = arith.addf %a, %b : bf16  ──►  widen both to f32, add, round to nearest: %s : i16

Memory, loops and choices only move bits; there the types change, and no value of a narrow type is left. Every operation
of `arith`, and those of `math`, rounds to its type once, by way of f32. f64 becomes narrow in one rounding on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import ml_dtypes
import numpy as np

from mosaic_compile.mlir import arith, ir

from .elements import element_of, integer_attribute, width, with_element
from .lowering import Lowering, Rule, attributes_of
from .narrow_floats import FORMATS, integer_type, narrow, widen

_NUMPY = {
    "f8E4M3FN": ml_dtypes.float8_e4m3fn,
    "f8E5M2": ml_dtypes.float8_e5m2,
    "bf16": ml_dtypes.bfloat16,
    "f16": np.float16,
}
# Operations outside `arith` and `math` that compute with floats.
_VECTOR_ARITHMETIC = ("vector.fma", "vector.reduction")
_UPDATES = {
    arith.AtomicRMWKind.addf: arith.addf,
    arith.AtomicRMWKind.mulf: arith.mulf,
    arith.AtomicRMWKind.maximumf: arith.maximumf,
    arith.AtomicRMWKind.minimumf: arith.minimumf,
}


@dataclass(frozen=True)
class ExpandNarrowFloats:
    """types: the element types, in MLIR's names, that the machine cannot convert and compute with.

    Works on functions of `arith`, `math`, `scf`, `memref`, `tensor`, `vector` and `linalg.generic`; a named product of
    matrices must have become one of those. Raises ValueError for a type that is not in narrow_floats.FORMATS.
    """

    name: ClassVar[str] = "expand-narrow-floats"
    types: tuple[str, ...] = ("f8E4M3FN", "f8E5M2", "bf16")

    def __post_init__(self) -> None:
        unknown = [name for name in self.types if name not in _NUMPY]
        if unknown:
            raise ValueError(f"{unknown[0]} is not one of {', '.join(_NUMPY)}")

    def run(self, module: ir.Module) -> None:
        with module.context:
            for function in list(module.body.operations):
                with function.operation.location, ir.InsertionPoint(function.operation):
                    Expansion(frozenset(self.types)).operation(function.operation)
                function.operation.erase()


class Expansion(Lowering):
    """The rewrite of one function, which leaves none of the types in `narrow`."""

    def __init__(self, narrow: frozenset[str]):
        super().__init__(RULES, self.as_integers)
        self.narrow = narrow

    def is_narrow(self, type_: ir.Type) -> bool:
        return str(element_of(type_)) in self.narrow

    def as_integers(self, type_: ir.Type) -> ir.Type:
        """The type with integers for narrow floats."""
        if isinstance(type_, ir.FunctionType):
            inputs, results = ([self.as_integers(t) for t in ts] for ts in (type_.inputs, type_.results))
            return ir.FunctionType.get(inputs, results)
        if isinstance(type_, ir.MemRefType):
            element = self.as_integers(type_.element_type)
            return ir.MemRefType.get(list(type_.shape), element, type_.layout, type_.memory_space)
        return integer_type(type_, width(type_)) if self.is_narrow(type_) else type_

    def operation(self, op: ir.Operation) -> None:
        rule = self.rules.get(op.name)
        is_arithmetic = op.name.startswith(("arith.", "math.")) or op.name in _VECTOR_ARITHMETIC
        with op.location:
            if rule is not None:
                results = rule(self, op)
            elif is_arithmetic and any(self.is_narrow(v.type) for v in (*op.operands, *op.results)):
                results = self.computed(op)
            else:
                results = self.copy(op)
        for old, new in zip(op.results, results or ()):
            self.values[old] = new

    def copy(self, op: ir.Operation, **attributes: ir.Attribute) -> Sequence[ir.Value]:
        changed = {name: self.attribute(a) for name, a in attributes_of(op).items()}
        return super().copy(op, **changed | attributes)

    def attribute(self, attribute: ir.Attribute) -> ir.Attribute:
        """A type, or a constant; raises ValueError for one that is not the same everywhere."""
        if isinstance(attribute, ir.TypeAttr):
            return ir.TypeAttr.get(self.as_integers(attribute.value))
        if isinstance(attribute, ir.FloatAttr) and self.is_narrow(attribute.type):
            number = np.float64(attribute.value).astype(_NUMPY[str(attribute.type)])
            bits = int(number.view(f"u{number.itemsize}"))
            return integer_attribute(bits, self.as_integers(attribute.type))
        if isinstance(attribute, ir.DenseElementsAttr) and self.is_narrow(attribute.type):
            if not attribute.is_splat:
                raise ValueError(f"a constant of {attribute.type} whose elements differ")
            element = self.attribute(attribute.get_splat_value())
            return ir.DenseElementsAttr.get_splat(self.as_integers(attribute.type), element)
        return attribute

    def wide(self, old: ir.Value) -> ir.Value:
        """What an operand has become; a narrow one as f32."""
        if not self.is_narrow(old.type):
            return self[old]
        return widen(self[old], FORMATS[str(element_of(old.type))], _bitcast)

    def rounded(self, value: ir.Value, target: ir.Type) -> ir.Value:
        """A float as another type, which may be narrow, rounded once."""
        f32 = with_element(target, ir.F32Type.get())
        if width(value.type) < 32 and width(target) != width(value.type):
            value = arith.extf(f32, value)
        machine_rounds_twice = width(value.type) == 64 and width(target) < 32
        if self.is_narrow(target) or machine_rounds_twice:
            bits = narrow(value, FORMATS[str(element_of(target))], _bitcast)
            return bits if self.is_narrow(target) else _bitcast(bits, target)
        if value.type == target:
            return value
        return (arith.extf if width(target) > width(value.type) else arith.truncf)(target, value)

    def computed(self, op: ir.Operation) -> Sequence[ir.Value]:
        """The same operation on f32, its results rounded."""
        types = [
            with_element(t, ir.F32Type.get()) if self.is_narrow(t) else t
            for t in (r.type for r in op.results)
        ]
        wide = ir.Operation.create(op.name, types, [self.wide(o) for o in op.operands], attributes_of(op))
        return [
            self.rounded(new, old.type) if self.is_narrow(old.type) else new
            for old, new in zip(op.results, wide.results)
        ]


def _bitcast(value: ir.Value, type_: ir.Type) -> ir.Value:
    return arith.bitcast(type_, value)


# The rules.


def convert(expansion: Expansion, op: ir.Operation) -> Sequence[ir.Value]:
    """arith.extf and truncf"""
    return [expansion.rounded(expansion.wide(op.operands[0]), op.results[0].type)]


def move(expansion: Expansion, op: ir.Operation) -> Sequence[ir.Value]:
    """Constants and choices."""
    return expansion.copy(op)


def bitcast(expansion: Expansion, op: ir.Operation) -> Sequence[ir.Value]:
    source, target = expansion[op.operands[0]], expansion.as_integers(op.results[0].type)
    return [source if source.type == target else _bitcast(source, target)]


def update(expansion: Expansion, op: ir.Operation) -> Sequence[ir.Value]:
    """memref.atomic_rmw: reads, computes and writes, again if another program wrote in between."""
    value, array, *places = op.operands
    if not expansion.is_narrow(value.type):
        return expansion.copy(op)
    element = expansion.as_integers(value.type)
    operands = [expansion[v] for v in (array, *places)]
    again = ir.Operation.create("memref.generic_atomic_rmw", [element], operands, regions=1)
    block = again.regions[0].blocks.append(element, arg_locs=[op.location])
    with ir.InsertionPoint(block):
        form = FORMATS[str(value.type)]
        before = widen(block.arguments[0], form, _bitcast)
        combine = _UPDATES[arith.AtomicRMWKind(op.attributes["kind"].value)]
        after = narrow(combine(before, expansion.wide(value)), form, _bitcast)
        ir.Operation.create("memref.atomic_yield", [], [after])
    return list(again.results)


RULES: dict[str, Rule] = {
    "arith.constant": move,
    "arith.select": move,
    "arith.extf": convert,
    "arith.truncf": convert,
    "arith.bitcast": bitcast,
    "memref.atomic_rmw": update,
}
