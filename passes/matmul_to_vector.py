"""matmul-to-vector: matrix products as register tiles of vectors that loop over the inner dimension.

    for each panel of columns of b (as wide as a few vectors), copied to stand row by row:
        for each few rows of a:
            acc = the tile of the result, in vector registers
            for k: acc[row] += a[row, k] * b[k, :]

Where b's rows are contiguous and of the result's type, the first rows of a make the copy: they read b where it is, and what they
wait for memory is hidden behind their arithmetic.

Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication", 2008; the tiles of the kernel itself
are the blocks that stay in the second cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mosaic_compile.mlir import arith, ir, scf
from mosaic_compile.mlir_tensors import memref, vector

from .linalg_shape import index_constant
from .matrices import (
    Matrix,
    convert_into,
    converted,
    factors,
    pieces,
    power_of_two_below,
    transposed,
    transposed_vectors,
)
from .walk import operations


@dataclass(frozen=True)
class MatmulToVector:
    """vector_bytes: the width of the target's vectors. registers: how many of them it has. small: whether vectors hold integers
    of up to 32 bits only.
    """

    name: ClassVar[str] = "matmul-to-vector"
    vector_bytes: int = 32
    registers: int = 16
    small: bool = False

    def run(self, module: ir.Module) -> None:
        with module.context:
            for op in operations(module.operation):
                if op.name in ("linalg.matmul", "linalg.batch_matmul"):
                    with op.location, ir.InsertionPoint(op):
                        a, b, c = factors(op)
                        if op.name == "linalg.batch_matmul":
                            self.batched(a, b, c)
                        else:
                            self.multiply(a, b, c)
                    op.erase()

    def batched(self, a: Matrix, b: Matrix, c: Matrix) -> None:
        loop = scf.ForOp(index_constant(0), index_constant(c.shape[0]), index_constant(1))
        with ir.InsertionPoint(loop.body):
            self.multiply(*(m.at(loop.induction_variable) for m in (a, b, c)))
            scf.YieldOp([])

    def multiply(self, a: Matrix, b: Matrix, c: Matrix) -> None:
        """c += a @ b"""
        rows, columns, element = a.shape[0], b.shape[1], c.element
        scalar = self.small and isinstance(element, ir.FloatType)
        lanes = 1 if scalar else self.vector_bytes * 8 // element.width
        if a.element != element or a.strides[1] != 1:
            a = a.copied(element)
        tile_rows, tile_vectors = self.tile(rows)
        start = 0
        while start < columns:
            width = min(tile_vectors * lanes, power_of_two_below(columns - start))
            count = (columns - start) // width
            self.panels(a, b, c, start, width, count, tile_rows, min(lanes, width))
            start += count * width

    def tile(self, rows: int) -> tuple[int, int]:
        """How many rows and vectors of the result are in registers at once."""
        if rows < 4:
            return rows, 4
        return (8, 2) if self.registers >= 32 and rows >= 8 else (4, 2)

    def panels(
        self, a: Matrix, b: Matrix, c: Matrix, start: int, width: int, count: int, tile_rows: int, lanes: int
    ) -> None:
        """`count` panels of `width` columns, from `start` on."""
        (rows, depth), element = a.shape, c.element
        keep = (
            b.element == element and b.strides[1] == 1 and rows <= tile_rows
        )  # too few rows to pay for a copy
        panel = None if keep else memref.alloc(ir.MemRefType.get([depth, width], element), [], [])
        loop = scf.ForOp(index_constant(0), index_constant(count), index_constant(1))
        with ir.InsertionPoint(loop.body):
            offset = arith.muli(loop.induction_variable, index_constant(width))
            column = arith.addi(offset, index_constant(start))
            source = b.block([index_constant(0), column], [depth, width])
            done = 0  # tiles of rows
            if panel is not None:
                if source.element == element and source.strides[1] == 1:
                    self.register_tile(
                        a, source, c, index_constant(0), column, tile_rows, width, lanes, Matrix(panel)
                    )
                    done = 1
                elif source.strides[0] == 1 and lanes > 1:
                    _transpose_into(source, Matrix(panel), lanes)
                else:
                    convert_into(source.value, panel)
                source = Matrix(panel)
            for first, height in pieces(rows, tile_rows):
                low, high = (done, rows // height) if first == 0 else (0, 1)
                inner = scf.ForOp(index_constant(low), index_constant(high), index_constant(1))
                with ir.InsertionPoint(inner.body):
                    place = arith.muli(inner.induction_variable, index_constant(height))
                    row = arith.addi(place, index_constant(first))
                    self.register_tile(a, source, c, row, column, height, width, lanes)
                    scf.YieldOp([])
            scf.YieldOp([])

    def register_tile(
        self,
        a: Matrix,
        b: Matrix,
        c: Matrix,
        row: ir.Value,
        column: ir.Value,
        height: int,
        width: int,
        lanes: int,
        copy: Matrix | None = None,
    ) -> None:
        """c[row :, column :] += a[row :] @ b for `height` rows and `width` columns; `copy` gets what it reads of b."""
        depth, element = a.shape[1], c.element
        type_ = ir.VectorType.get([lanes], element)
        rows = [arith.addi(row, index_constant(i)) for i in range(height)]
        offsets = [index_constant(j) for j in range(0, width, lanes)]
        columns = [arith.addi(column, j) for j in offsets]
        acc = [vector.load(type_, c.value, [r, j]) for r in rows for j in columns]
        loop = scf.ForOp(index_constant(0), index_constant(depth), index_constant(1), acc)
        with ir.InsertionPoint(loop.body):
            k = loop.induction_variable
            right = [vector.load(type_, b.value, [k, j]) for j in offsets]
            if copy is not None:
                for x, j in zip(right, offsets):
                    vector.store(x, copy.value, [k, j])
            sums = iter(loop.inner_iter_args)
            following = []
            for r in rows:
                left = vector.broadcast(type_, memref.load(a.value, [r, k]))
                following += [_multiply_add(left, x, next(sums)) for x in right]
            scf.YieldOp(following)
        results = iter(loop.results)
        for r in rows:
            for j in columns:
                vector.store(next(results), c.value, [r, j])


def _transpose_into(source: Matrix, target: Matrix, lanes: int) -> None:
    """Copies a matrix whose columns are contiguous to one whose rows are, by blocks in registers."""
    depth, width = source.shape
    size = lanes
    while depth % size or width % size:
        size //= 2
    if size == 1:
        convert_into(source.value, target.value)
        return
    narrow = ir.VectorType.get([size], source.element)
    wide = ir.VectorType.get([size], target.element)
    columns = Matrix(transposed(source.value))  # contiguous along its rows
    outer = scf.ForOp(index_constant(0), index_constant(depth), index_constant(size))
    with ir.InsertionPoint(outer.body):
        k = outer.induction_variable
        inner = scf.ForOp(index_constant(0), index_constant(width), index_constant(size))
        with ir.InsertionPoint(inner.body):
            j = inner.induction_variable
            rows = [
                converted(vector.load(narrow, columns.value, [arith.addi(j, index_constant(i)), k]), wide)
                for i in range(size)
            ]
            for i, row in enumerate(transposed_vectors(rows)):
                vector.store(row, target.value, [arith.addi(k, index_constant(i)), j])
            scf.YieldOp([])
        scf.YieldOp([])


def _multiply_add(a: ir.Value, b: ir.Value, acc: ir.Value) -> ir.Value:
    if isinstance(ir.VectorType(acc.type).element_type, ir.IntegerType):
        return arith.addi(arith.muli(a, b), acc)
    return vector.fma(a, b, acc)
