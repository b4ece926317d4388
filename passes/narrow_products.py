"""narrow-products: products of matrices of bf16 or i8 by instructions that multiply and add two or four neighbours at once.

    for each panel of columns of b, in words of 32 bits that hold two bf16 or four i8 of a column:
        for each few rows of a:
            acc = the tile of the result, in vector registers
            for k: acc[row] += dot(the word a[row, k], the words b[k, :])

What becomes of the words is up to expand-dot2 and expand-dot4. vpdpbusd takes bytes without a sign on its left: a + 128 stands
there, and the sum of 128 b over each column is taken from the result.

Arm's matrix instructions multiply words of 64 bits of two rows of a by those of two columns of b: acc is a square of two by two.

Products that no instruction takes are left to matmul-to-vector, whose register tiles these are.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from mosaic_compile.dialects.tile import Dot2Op, Dot4Op, SquareOp
from mosaic_compile.mlir import arith, bool_attribute, ir, scf
from mosaic_compile.mlir_tensors import memref, vector

from .elements import splat_constant
from .expand_dot4 import TOP_BITS
from .linalg_shape import generic, identity, index_constant
from .matrices import Matrix, factors, pieces, power_of_two_below, transposed, transposed_vectors
from .walk import operations

WORD, WIDE_WORD = 32, 64  # bits; the wide ones are those of squares
NARROWEST = 4  # words of the narrowest vector that the instructions take

# Gives a vector of b's words, from row k (of words) and column j of a panel on.
Words: TypeAlias = "Callable[[ir.Value, ir.Value], ir.Value]"


@dataclass(frozen=True)
class NarrowProducts:
    """floats: what multiplies bf16, as expand-dot2 has it. whole: what multiplies bytes, as expand-dot4 has it, of which "vnni"
    and "sdot" take products here. vector_bytes, registers: the width of the target's vectors, and how many it has. squares:
    whether it has Arm's bfmmla and smmla.
    """

    name: ClassVar[str] = "narrow-products"
    floats: str = ""
    whole: str = ""
    vector_bytes: int = 64
    registers: int = 32
    squares: bool = False

    def run(self, module: ir.Module) -> None:
        with module.context:
            for op in operations(module.operation):
                if op.name in ("linalg.matmul", "linalg.batch_matmul") and self.takes(op):
                    with op.location, ir.InsertionPoint(op):
                        self.each(*factors(op))
                    op.erase()

    def takes(self, op: ir.Operation) -> bool:
        a, _, c = (ir.MemRefType(operand.type) for operand in op.operands)
        element = str(a.element_type)
        has = (element == "bf16" and self.floats != "") or (
            element == "i8" and self.whole in ("vnni", "sdot")
        )
        return has and c.shape[-1] % NARROWEST == 0

    def each(self, a: Matrix, b: Matrix, c: Matrix) -> None:
        """c += a @ b, for matrices or for batches of them."""
        if c.type.rank == 2:
            self.multiply(a, b, c)
        else:
            _loop(0, c.shape[0], 1, lambda batch: self.multiply(*(m.at(batch) for m in (a, b, c))))

    def multiply(self, a: Matrix, b: Matrix, c: Matrix) -> None:
        biased = self.whole == "vnni" and a.element.width == 8
        rows, columns = c.shape
        square = self.squares and rows % 2 == 0 and rows >= 4
        bits = WIDE_WORD if square else WORD
        ragged = a.shape[1] % (bits // a.element.width) != 0
        if biased or ragged or a.strides[1] != 1:
            a = _padded(a, 1, bits, flipped=biased)
        if ragged or 1 not in b.strides:
            b = _padded(b, 0, bits)
        tall = 8 if self.registers >= 32 and rows >= 8 else 4
        tile_rows, tile_vectors = (rows, 4) if rows < 4 else (tall, 2)
        lanes = self.vector_bytes * 8 // c.element.width
        start = 0
        while start < columns:
            width = min(tile_vectors * lanes, power_of_two_below(columns - start))
            count = (columns - start) // width
            panel = Panel(a, b, c, width, min(lanes, width), tile_rows, biased, bits)
            _loop(start, count, width, panel.multiply)
            start += count * width


@dataclass(frozen=True)
class Panel:
    """`width` columns of a product, in vectors of `lanes` of them. biased: a's bytes have 128 added. bits: of a word."""

    a: Matrix
    b: Matrix
    c: Matrix
    width: int
    lanes: int
    tile_rows: int
    biased: bool
    bits: int

    @property
    def in_word(self) -> int:
        """How many elements a word has."""
        return self.bits // self.a.element.width

    @property
    def depth(self) -> int:
        """How many words a row of a has."""
        return self.a.shape[1] // self.in_word

    @property
    def type(self) -> ir.VectorType:
        """Of the accumulators."""
        return ir.VectorType.get([self.lanes], self.c.element)

    def offsets(self) -> list[ir.Value]:
        return [index_constant(j) for j in range(0, self.width, self.lanes)]

    def words(self, count: int) -> ir.VectorType:
        return ir.VectorType.get([count], ir.IntegerType.get_signless(self.bits))

    def multiply(self, column: ir.Value) -> None:
        """The panel from a column of the product on."""
        b = self.b.block([index_constant(0), column], [self.b.shape[0], self.width])
        rows = self.c.shape[0]
        if self.bits == WIDE_WORD:
            tile = functools.partial(self.squares, self.packed(b), column)
        else:
            few = rows <= self.tile_rows and b.strides[1] == 1  # too few rows to pay for a copy
            words = (
                functools.partial(self.interleaved, b)
                if few
                else functools.partial(self.loaded, self.packed(b))
            )
            tile = functools.partial(
                self.register_tile, words, self.bias(words) if self.biased else None, column
            )
        for first, height in pieces(rows, self.tile_rows):
            count = (rows - first) // height if first == 0 else 1
            _loop(first, count, height, functools.partial(tile, height))

    def packed(self, b: Matrix) -> ir.Value:
        """A copy of b as rows of words."""
        panel = memref.alloc(ir.MemRefType.get([self.depth, self.width], self.words(1).element_type), [], [])
        if b.strides[1] == 1:

            def interleave(k: ir.Value) -> None:
                for j in self.offsets():
                    vector.store(self.interleaved(b, k, j), panel, [k, j])

            _loop(0, self.depth, 1, interleave)
            return panel
        size = self.lanes
        while self.depth % size:
            size //= 2
        columns = Matrix(transposed(b.value))

        def turn(k: ir.Value) -> None:
            _loop(0, self.width // size, size, lambda j: turn_square(k, j))

        def turn_square(k: ir.Value, j: ir.Value) -> None:
            square = [self.along(columns, arith.addi(j, index_constant(i)), k, size) for i in range(size)]
            for i, row in enumerate(transposed_vectors(square)):
                vector.store(row, panel, [arith.addi(k, index_constant(i)), j])

        _loop(0, self.depth // size, size, turn)
        return panel

    def bias(self, words: Words) -> list[ir.Value]:
        """What 128 more in each byte of a adds to the columns; of four words at a time, which need not wait for each other."""
        zero, top = (splat_constant(bits, self.type) for bits in (0, TOP_BITS))
        chains = math.gcd(self.depth, 4)

        def add(k: ir.Value, sums: Sequence[ir.Value]) -> list[ir.Value]:
            first = arith.muli(k, index_constant(chains))
            places = [arith.addi(first, index_constant(i)) for i in range(chains)]
            right = [words(place, j) for place in places for j in self.offsets()]
            return [self.dot(top, x, acc) for x, acc in zip(right, sums)]

        count = len(self.offsets())
        sums = _accumulated(self.depth // chains, [zero] * chains * count, add)
        return [functools.reduce(arith.addi, sums[j::count]) for j in range(count)]

    def register_tile(
        self, words: Words, bias: list[ir.Value] | None, column: ir.Value, height: int, row: ir.Value
    ) -> None:
        rows = [arith.addi(row, index_constant(i)) for i in range(height)]
        columns = [arith.addi(column, j) for j in self.offsets()]
        acc = [vector.load(self.type, self.c.value, [r, j]) for r in rows for j in columns]
        if bias is not None:
            acc = [arith.subi(x, taken) for x, taken in zip(acc, bias * height)]

        def add(k: ir.Value, sums: Sequence[ir.Value]) -> list[ir.Value]:
            right = [words(k, j) for j in self.offsets()]
            before = iter(sums)
            following = []
            for r in rows:
                word = vector.extract(self.along(self.a, r, k, 1), [], [0])
                left = vector.broadcast(self.words(self.lanes), word)
                following += [self.dot(left, x, next(before)) for x in right]
            return following

        results = iter(_accumulated(self.depth, acc, add))
        for r in rows:
            for j in columns:
                vector.store(next(results), self.c.value, [r, j])

    def squares(self, panel: ir.Value, column: ir.Value, height: int, row: ir.Value) -> None:
        """A register tile of squares, each of two rows and two columns."""
        rows = [arith.addi(row, index_constant(i)) for i in range(height)]
        columns = [arith.addi(column, j) for j in self.offsets()]
        pairs = list(zip(rows[::2], rows[1::2]))
        acc = []
        for pair in pairs:
            for j in columns:
                acc += _regrouped(*(vector.load(self.type, self.c.value, [r, j]) for r in pair))

        def add(k: ir.Value, sums: Sequence[ir.Value]) -> list[ir.Value]:
            places = [index_constant(j) for j in range(0, self.width, 2)]
            right = [vector.load(self.words(2), panel, [k, j]) for j in places]
            before = iter(sums)
            following = []
            for pair in pairs:
                left = vector.interleave(*(self.along(self.a, r, k, 1) for r in pair))
                following += [SquareOp(left, x, acc, acc.type).result for x, acc in zip(right, before)]
            return following

        results = iter(_accumulated(self.depth, acc, add))
        for pair in pairs:
            for j in columns:
                lines = _regrouped(next(results), next(results))
                for r, line in zip(pair, lines):
                    vector.store(line, self.c.value, [r, j])

    def dot(self, left: ir.Value, right: ir.Value, acc: ir.Value) -> ir.Value:
        if self.a.element.width == 8:
            return Dot4Op(left, right, acc, bool_attribute(not self.biased), acc.type).result
        return Dot2Op(left, right, acc, acc.type).result

    def loaded(self, panel: ir.Value, word: ir.Value, column: ir.Value) -> ir.Value:
        """A word of each of `lanes` columns, of a packed panel."""
        return vector.load(self.words(self.lanes), panel, [word, column])

    def interleaved(self, b: Matrix, word: ir.Value, column: ir.Value) -> ir.Value:
        """A word of each of `lanes` columns, whose elements become neighbours."""
        type_ = ir.VectorType.get([self.lanes], b.element)
        first = arith.muli(word, index_constant(self.in_word))
        rows = [arith.addi(first, index_constant(i)) for i in range(self.in_word)]
        return vector.bitcast(
            self.words(self.lanes), _zipped([vector.load(type_, b.value, [r, column]) for r in rows])
        )

    def along(self, matrix: Matrix, row: ir.Value, word: ir.Value, count: int) -> ir.Value:
        """`count` words of a row."""
        type_ = ir.VectorType.get([count * self.in_word], matrix.element)
        place = arith.muli(word, index_constant(self.in_word))
        return vector.bitcast(self.words(count), vector.load(type_, matrix.value, [row, place]))


def _regrouped(first: ir.Value, second: ir.Value) -> list[ir.Value]:
    """Two rows of four as two squares, row by row, and the way back."""
    return [vector.shuffle(first, second, half) for half in ([0, 1, 4, 5], [2, 3, 6, 7])]


def _zipped(vectors: Sequence[ir.Value]) -> ir.Value:
    """All first elements, all second ones, and so on, of a number of vectors that is a power of two."""
    if len(vectors) == 1:
        return vectors[0]
    return vector.interleave(_zipped(vectors[::2]), _zipped(vectors[1::2]))


def _padded(matrix: Matrix, axis: int, bits: int, flipped: bool = False) -> Matrix:
    """The same elements row by row, with zeros up to whole words of `bits` along an axis; flipped: their top bits changed."""
    shape = matrix.shape
    shape[axis] += -shape[axis] % (bits // matrix.element.width)
    copy = memref.alloc(ir.MemRefType.get(shape, matrix.element), [], [])
    if shape != matrix.shape:
        zero = splat_constant(0, matrix.element)
        generic([], [copy], [identity(2)], ["parallel"] * 2, lambda _: [zero])
    top = splat_constant(0x80, matrix.element) if flipped else None
    inside = Matrix(copy).block([index_constant(0)] * 2, matrix.shape)
    generic(
        [matrix.value],
        [inside.value],
        [identity(2)] * 2,
        ["parallel"] * 2,
        lambda elements: [elements[0] if top is None else arith.xori(elements[0], top)],
    )
    return Matrix(copy)


def _loop(start: int, count: int, step: int, body: Callable[[ir.Value], None]) -> None:
    """body(start), body(start + step), … : `count` times."""
    end = start + count * step
    loop = scf.ForOp(*map(index_constant, (start, end, step)))
    with ir.InsertionPoint(loop.body):
        body(loop.induction_variable)
        scf.YieldOp([])


def _accumulated(
    count: int,
    first: Sequence[ir.Value],
    body: Callable[[ir.Value, Sequence[ir.Value]], Sequence[ir.Value]],
) -> list[ir.Value]:
    """What `count` times values = body(i, values) makes of the first ones."""
    loop = scf.ForOp(*map(index_constant, (0, count, 1)), list(first))
    with ir.InsertionPoint(loop.body):
        scf.YieldOp(list(body(loop.induction_variable, loop.inner_iter_args)))
    return list(loop.results)
