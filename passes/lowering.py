"""Rewriting a function from one dialect to another: a walk, and a registry of one short function an operation.

Signatures change on the way (an array becomes pointers, sizes and strides), so the new function is built beside the old one:
operations without an entry are copied with their operands and types mapped, their regions likewise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mosaic_compile.mlir import ir

Rule = Callable[[Any, ir.Operation], "Sequence[ir.Value] | None"]


@dataclass
class Lowering:
    """One rewrite in progress. `rules` give the new results of an operation; `convert_type` maps the types of the rest."""

    rules: Mapping[str, Rule]
    convert_type: Callable[[ir.Type], ir.Type] = lambda type_: type_
    values: dict[ir.Value, ir.Value] = field(default_factory=dict)

    def __getitem__(self, old: ir.Value) -> ir.Value:
        return self.values[old]

    def block(self, block: ir.Block) -> None:
        """Lowers a block's operations to the current insertion point."""
        for op in block.operations:
            self.operation(op.operation)

    def operation(self, op: ir.Operation) -> None:
        with op.location:
            rule = self.rules.get(op.name)
            results = self.copy(op) if rule is None else rule(self, op)
        for old, new in zip(op.results, results or ()):
            self.values[old] = new

    def copy(self, op: ir.Operation, **attributes: ir.Attribute) -> Sequence[ir.Value]:
        """The same operation on the new operands; `attributes` replace its own."""
        new = ir.Operation.create(
            op.name,
            results=[self.convert_type(r.type) for r in op.results],
            operands=[self.values[o] for o in op.operands],
            attributes=attributes_of(op) | attributes,
            regions=len(op.regions),
        )
        for old_region, new_region in zip(op.regions, new.regions):
            self.region(old_region, new_region)
        return list(new.results)

    def region(self, old: ir.Region, new: ir.Region) -> None:
        """Lowers a region's blocks into an empty one."""
        for old_block in old.blocks:
            arguments = list(old_block.arguments)
            new_block = new.blocks.append(
                *(self.convert_type(a.type) for a in arguments), arg_locs=[a.location for a in arguments]
            )
            self.values.update(zip(arguments, new_block.arguments))
            with ir.InsertionPoint(new_block):
                self.block(old_block)


def attributes_of(op: ir.Operation) -> dict[str, ir.Attribute]:
    return {name: op.attributes[name] for name in op.attributes}
