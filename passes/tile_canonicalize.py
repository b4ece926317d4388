"""tile-canonicalize: simplifies what upstream's canonicalize does not know, the tile operations.

    shapes     permute, reshape, broadcast: of one another, of constants and broadcast scalars; the identities
    cat/split  each undoes the other
    permute    of a load that nothing else reads: the load takes the permuted axes
    dot        dot(a, b, 0) + x becomes dot(a, b, x)
    loads      one instead of two equal ones where nothing can have changed the array; none that nobody reads

Equal loads are merged by this rule (see walk.written_arrays): from an array that the kernel never writes,
wherever the first comes before the second on every path; from an array that it writes, only in one block of
code with no write and no nested block between them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from mosaic_compile.dialects.tile import BroadcastOp, PermuteOp, ReshapeOp, element_type_of, shape_of
from mosaic_compile.mlir import arith, ir

from .walk import LOADS, WRITES, defining_op, has_one_use, kernels, operations, splat, written_arrays


@dataclass(frozen=True)
class TileCanonicalize:
    name: ClassVar[str] = "tile-canonicalize"

    def run(self, module: ir.Module) -> None:
        with module.context:
            for op in operations(module.operation):
                if op.name in _RULES:
                    _apply(_RULES[op.name], op)
            for kernel in kernels(module):
                _share_loads(kernel.regions[0].blocks[0], {}, written_arrays(kernel))
            # Users come behind what they use, so backwards one walk finds chains of unused operations.
            for op in reversed(operations(module.operation)):
                if _is_removable(op) and not any(True for result in op.results for _ in result.uses):
                    op.erase()


Rule = Callable[[ir.Operation], Sequence[ir.Value] | None]


def _apply(rule: Rule, op: ir.Operation) -> None:
    with ir.InsertionPoint(op), op.location:
        replacements = rule(op)
    if replacements is not None:
        for old, new in zip(op.results, replacements):
            old.replace_all_uses_with(new)
        op.erase()


def _is_removable(op: ir.Operation) -> bool:
    """Whether an operation has no effect but its results; operations of `tile` have either."""
    return op.name.split(".")[0] in ("tile", "arith", "math") and len(op.results) > 0


# Shapes: _permute, _reshape and _broadcast make an operation in its simplest form, at the current insertion
# point; _simpler_… find out whether there is a form simpler than the operation itself.


def _tile_type(like: ir.Value, shape: Sequence[int]) -> ir.Type:
    return ir.RankedTensorType.get(list(shape), element_type_of(like.type))


def _source_of(value: ir.Value, name: str) -> ir.Value | None:
    """The operand of the operation `name` that made the value."""
    op = defining_op(value)
    return op.operands[0] if op is not None and op.name == name else None


def _uniform(value: ir.Value, shape: Sequence[int]) -> ir.Value | None:
    """A tile of one repeated element under another shape: its order and size do not matter."""
    element = splat(value)
    if element is not None:
        type_ = _tile_type(value, shape)
        return arith.constant(type_, ir.DenseElementsAttr.get_splat(type_, element))
    scalar = _source_of(value, "tile.broadcast")
    return _broadcast(scalar, list(shape)) if scalar is not None and not shape_of(scalar.type) else None


def _simpler_permute(source: ir.Value, order: list[int]) -> ir.Value | None:
    shape = shape_of(source.type)
    result_shape = [shape[d] for d in order]
    if order == sorted(order):
        return source
    if (uniform := _uniform(source, result_shape)) is not None:
        return uniform
    if (inner := _source_of(source, "tile.permute")) is not None:
        inner_order = list(defining_op(source).opview.order)  # type: ignore[union-attr]
        return _permute(inner, [inner_order[d] for d in order])
    if (moved := [d for d in order if shape[d] > 1]) == sorted(moved):  # only ones change places
        return _reshape(source, result_shape)
    return None


def _permute(source: ir.Value, order: list[int]) -> ir.Value:
    simpler = _simpler_permute(source, order)
    if simpler is not None:
        return simpler
    shape = shape_of(source.type)
    type_ = _tile_type(source, [shape[d] for d in order])
    return PermuteOp(source, ir.DenseI64ArrayAttr.get(order), type_).result


def _simpler_reshape(source: ir.Value, shape: list[int]) -> ir.Value | None:
    if shape_of(source.type) == shape:
        return source
    if (uniform := _uniform(source, shape)) is not None:
        return uniform
    inner = _source_of(source, "tile.reshape")
    return None if inner is None else _reshape(inner, shape)


def _reshape(source: ir.Value, shape: list[int]) -> ir.Value:
    simpler = _simpler_reshape(source, shape)
    return ReshapeOp(source, _tile_type(source, shape)).result if simpler is None else simpler


def _simpler_broadcast(source: ir.Value, shape: list[int]) -> ir.Value | None:
    source_shape = shape_of(source.type)
    if source_shape == shape:
        return source
    if splat(source) is not None:
        return _uniform(source, shape)
    if (inner := _source_of(source, "tile.broadcast")) is not None:
        return _broadcast(inner, shape)
    core = _without_leading_ones(source_shape)
    if source_shape and core == _without_leading_ones(shape):
        return _reshape(source, shape)
    if (inner := _source_of(source, "tile.reshape")) is not None:
        inner_shape = shape_of(inner.type)
        # Broadcasting adds leading ones by itself.
        if len(inner_shape) <= len(shape) and _without_leading_ones(inner_shape) == core:
            return _broadcast(inner, shape)
    return None


def _broadcast(source: ir.Value, shape: list[int]) -> ir.Value:
    simpler = _simpler_broadcast(source, shape)
    return BroadcastOp(source, _tile_type(source, shape)).result if simpler is None else simpler


def _without_leading_ones(shape: Sequence[int]) -> list[int]:
    first = next((i for i, n in enumerate(shape) if n != 1), len(shape))
    return list(shape[first:])


def _one(value: ir.Value | None) -> list[ir.Value] | None:
    return None if value is None else [value]


def _permute_rule(op: ir.Operation) -> Sequence[ir.Value] | None:
    source, order = op.operands[0], list(op.opview.order)
    simpler = _simpler_permute(source, order)
    return _one(_permuted_load(source, order, op.results[0].type) if simpler is None else simpler)


def _permuted_load(value: ir.Value, order: list[int], type_: ir.Type) -> ir.Value | None:
    """The load of `value` with its axes in another order, in its old place: memory may change later."""
    load = defining_op(value)
    if load is None or load.name != "tile.load" or not has_one_use(value):
        return None
    axes = list(load.opview.axes)
    attributes = _attributes_of(load)
    attributes["axes"] = ir.DenseI64ArrayAttr.get([axes[d] for d in order])
    return ir.Operation.create(
        "tile.load", [type_], list(load.operands), attributes, loc=load.location, ip=ir.InsertionPoint(load)
    ).result


def _attributes_of(op: ir.Operation) -> dict[str, ir.Attribute]:
    return {name: op.attributes[name] for name in op.attributes}


def _reshape_rule(op: ir.Operation) -> Sequence[ir.Value] | None:
    return _one(_simpler_reshape(op.operands[0], shape_of(op.results[0].type)))


def _broadcast_rule(op: ir.Operation) -> Sequence[ir.Value] | None:
    return _one(_simpler_broadcast(op.operands[0], shape_of(op.results[0].type)))


# cat and split.


def _cat_rule(op: ir.Operation) -> Sequence[ir.Value] | None:
    first, second = op.operands
    split = defining_op(first)
    if split is not None and split.name == "tile.split" and split.attributes["axis"] == op.attributes["axis"]:
        return [split.operands[0]] if list(split.results) == [first, second] else None
    elements = [element for half in op.operands if (element := splat(half)) is not None]
    if len(elements) == 2 and elements[0] == elements[1]:
        return _one(_uniform(first, shape_of(op.results[0].type)))
    return None


def _split_rule(op: ir.Operation) -> Sequence[ir.Value] | None:
    source = op.operands[0]
    cat = defining_op(source)
    if cat is not None and cat.name == "tile.cat" and cat.attributes["axis"] == op.attributes["axis"]:
        halves = list(cat.operands)
        return halves if [h.type for h in halves] == [r.type for r in op.results] else None
    half = _uniform(source, shape_of(op.results[0].type))
    return None if half is None else [half, half]


# dot.


def _add_rule(op: ir.Operation) -> Sequence[ir.Value] | None:
    """dot(a, b, 0) + x as dot(a, b, x)."""
    for product, other in (op.operands, reversed(op.operands)):
        dot = defining_op(product)
        if dot is None or dot.name != "tile.dot" or not _is_zero(dot.operands[2]):
            continue
        # Only in one block: a product must not move into a loop.
        if has_one_use(product) and dot.block == op.block:
            operands = [dot.operands[0], dot.operands[1], other]
            attributes = _attributes_of(dot)
            return ir.Operation.create(
                "tile.dot", [product.type], operands, attributes, loc=dot.location
            ).results
    return None


def _is_zero(value: ir.Value) -> bool:
    element = splat(value)
    return element is not None and element.value == 0


_RULES: dict[str, Rule] = {
    "arith.addf": _add_rule,
    "arith.addi": _add_rule,
    "tile.broadcast": _broadcast_rule,
    "tile.cat": _cat_rule,
    "tile.permute": _permute_rule,
    "tile.reshape": _reshape_rule,
    "tile.split": _split_rule,
}


# Loads.


def _share_loads(block: ir.Block, constant: dict[tuple, ir.Operation], written: set[ir.Value]) -> None:
    """Replaces loads by earlier equal ones; `constant` holds those from arrays that are never written."""
    volatile: dict[tuple, ir.Operation] = {}
    for op in [op.operation for op in block.operations]:
        if op.name in LOADS:
            known = volatile if op.operands[0] in written else constant
            earlier = known.setdefault(_load_key(op), op)
            if earlier is not op:
                op.results[0].replace_all_uses_with(earlier.results[0])
                op.erase()
                continue
        if op.name in WRITES or len(op.regions):
            volatile.clear()
        for region in op.regions:
            for inner in region.blocks:
                _share_loads(inner, dict(constant), written)


def _load_key(op: ir.Operation) -> tuple:
    attributes = [op.attributes[n] for n in ("axes", "pad", "operandSegmentSizes") if n in op.attributes]
    return (op.name, op.results[0].type, *op.operands, *attributes)
