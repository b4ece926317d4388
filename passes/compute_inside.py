"""compute-inside: of a tile that overhangs the array that it is stored to, only the part inside is computed.

    store(slice(generic(a, b))) ──► store(generic(slice(a), slice(b)))

The result is then as large as what is stored, and can be computed in the array itself (see reuse-destinations).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mosaic_compile.mlir import ir
from mosaic_compile.mlir_tensors import tensor

from .linalg_shape import empty, identity
from .views import Size
from .walk import defining_op, has_one_use, operations


@dataclass(frozen=True)
class ComputeInside:
    name: ClassVar[str] = "compute-inside"

    def run(self, module: ir.Module) -> None:
        with module.context:
            for op in operations(module.operation):
                if op.name == "tensor.extract_slice":
                    maker = defining_op(op.operands[0])
                    if maker is not None and _can_be_cut(maker, op) and has_one_use(op.operands[0]):
                        with op.location, ir.InsertionPoint(op):
                            op.results[0].replace_all_uses_with(_cut(maker, op))
                        op.erase()
                        maker.erase()


def _can_be_cut(maker: ir.Operation, cut: ir.Operation) -> bool:
    """Whether the maker computes each element on its own, from elements at that place or along fewer dimensions."""
    if maker.name != "linalg.generic" or len(maker.results) != 1 or maker.block != cut.block:
        return False
    maps = [ir.AffineMapAttr(m).value for m in maker.attributes["indexing_maps"]]
    body = maker.regions[0].blocks[0]
    starts_at_zero = not any(list(cut.attributes["static_offsets"]))
    return (
        maps[-1] == identity(maps[-1].n_dims)
        and all("parallel" in str(kind) for kind in maker.attributes["iterator_types"])
        and all(isinstance(e, ir.AffineDimExpr | ir.AffineConstantExpr) for m in maps for e in m.results)
        and not any(list(body.arguments)[-1].uses)
        and (starts_at_zero or all(o.operation.name != "linalg.index" for o in body.operations))
    )


def _cut(maker: ir.Operation, cut: ir.Operation) -> ir.Value:
    """The maker's result, of the part of it that `cut` takes."""
    offsets, sizes = _places(cut)
    maps = [ir.AffineMapAttr(m).value for m in maker.attributes["indexing_maps"]]
    count = len(maker.operands) - 1
    inputs = [_slice(value, map_, offsets, sizes) for value, map_ in zip(list(maker.operands)[:count], maps)]
    type_ = ir.RankedTensorType(cut.results[0].type)
    whole = empty(maker.results[0].type.shape, type_.element_type)
    output = _slice(whole, identity(len(sizes)), [0] * len(sizes), sizes)
    made = ir.Operation.create(
        maker.name,
        [type_],
        [*inputs, output],
        {name: maker.attributes[name] for name in maker.attributes},
        regions=1,
        loc=maker.location,
    )
    maker.regions[0].blocks[0].append_to(made.regions[0])
    return made.results[0]


def _places(cut: ir.Operation) -> tuple[list[Size], list[Size]]:
    """Where a slice starts, and its sizes, along each dimension."""
    given = iter(list(cut.operands)[1:])
    dynamic = ir.ShapedType.get_dynamic_size()
    offsets, sizes = (
        [next(given) if n == dynamic else n for n in cut.attributes[name]]
        for name in ("static_offsets", "static_sizes")
    )
    return offsets, sizes


def _slice(value: ir.Value, map_: ir.AffineMap, offsets: Sequence[Size], sizes: Sequence[Size]) -> ir.Value:
    """The part of an input that the slice of the result is computed from; scalars stay."""
    if not isinstance(value.type, ir.RankedTensorType):
        return value
    loops = [ir.AffineDimExpr(e).position if isinstance(e, ir.AffineDimExpr) else None for e in map_.results]
    starts: list[Size] = [0 if d is None else offsets[d] for d in loops]
    extents: list[Size] = [1 if d is None else sizes[d] for d in loops]
    if all(isinstance(e, int) and e == n for e, n in zip(extents, value.type.shape)):
        return value
    dynamic = ir.ShapedType.get_dynamic_size()
    static_starts, static_extents = (
        [n if isinstance(n, int) else dynamic for n in ns] for ns in (starts, extents)
    )
    return tensor.extract_slice(
        ir.RankedTensorType.get(static_extents, value.type.element_type),
        value,
        [n for n in starts if not isinstance(n, int)],
        [n for n in extents if not isinstance(n, int)],
        [],
        static_starts,
        static_extents,
        [1] * len(loops),
    )
