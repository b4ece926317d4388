"""What products of matrices share on the way to vectors: views of factors, conversions, and squares turned in registers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mosaic_compile.mlir import arith, ir
from mosaic_compile.mlir_tensors import memref, vector

from .linalg_shape import element_of, generic, identity, index_constant
from .views import block_of, permuted


@dataclass(frozen=True)
class Matrix:
    """A buffer of two dimensions (three with a batch) and what its type says."""

    value: ir.Value

    @property
    def type(self) -> ir.MemRefType:
        return ir.MemRefType(self.value.type)

    @property
    def shape(self) -> list[int]:
        return list(self.type.shape)

    @property
    def element(self) -> ir.Type:
        return self.type.element_type

    @property
    def strides(self) -> list[int]:
        return self.type.get_strides_and_offset()[0]

    def at(self, batch: ir.Value) -> Matrix:
        zero = index_constant(0)
        return Matrix(block_of(self.value, [batch, zero, zero], [1, *self.shape[1:]], kept=(1, 2)))

    def block(self, starts: Sequence[ir.Value], shape: Sequence[int]) -> Matrix:
        return Matrix(block_of(self.value, starts, shape))

    def copied(self, element: ir.Type) -> Matrix:
        """The same elements, row by row, converted to the accumulator's type."""
        buffer = memref.alloc(ir.MemRefType.get(self.shape, element), [], [])
        convert_into(self.value, buffer)
        return Matrix(buffer)


def pieces(size: int, step: int) -> list[tuple[int, int]]:
    """`size` cut into runs of `step` and what is left: (start, width of a piece)."""
    whole = size - size % step
    return [(0, step)] * (whole > 0) + [(whole, size - whole)] * (whole < size)


def factors(op: ir.Operation) -> list[Matrix]:
    """a, b and c of a product, with transposed views of what it reads transposed."""
    maps = [ir.AffineMapAttr(m).value for m in op.attributes["indexing_maps"]]
    loops = [[ir.AffineDimExpr(r).position for r in m.results] for m in maps]
    inner = maps[0].n_dims - 1
    turned = [loops[0][-1] != inner, loops[1][-2] != inner, False]
    return [Matrix(transposed(v) if t else v) for v, t in zip(op.operands, turned)]


def transposed(value: ir.Value) -> ir.Value:
    *batch, rows, columns = range(ir.MemRefType(value.type).rank)
    return permuted(value, [*batch, columns, rows])


def transposed_vectors(rows: list[ir.Value]) -> list[ir.Value]:
    """The columns of a square of vectors: each round merges row i with row i + n/2, element by element."""
    size = len(rows)
    low = [place for i in range(size // 2) for place in (i, size + i)]
    high = [place + size // 2 for place in low]
    for _ in range(size.bit_length() - 1):
        pairs = list(zip(rows[: size // 2], rows[size // 2 :]))
        rows = [vector.shuffle(a, b, mask) for a, b in pairs for mask in (low, high)]
    return rows


def power_of_two_below(n: int) -> int:
    return 1 << (n.bit_length() - 1)


def convert_into(source: ir.Value, target: ir.Value) -> None:
    element = ir.MemRefType(target.type).element_type
    generic(
        [source],
        [target],
        [identity(2)] * 2,
        ["parallel"] * 2,
        lambda elements: [converted(elements[0], element)],
    )


def converted(x: ir.Value, type_: ir.Type) -> ir.Value:
    """A number or vector in a wider type."""
    if x.type == type_:
        return x
    is_integer = isinstance(element_of(type_), ir.IntegerType)
    return (arith.extsi if is_integer else arith.extf)(type_, x)
