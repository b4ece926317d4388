"""vectorize: elementwise work and reductions on buffers as loops over vectors of the target's width.

    linalg.generic over (rows, columns) ──► for row: for column step 16: load vectors, compute, store
                                            rest of the row with narrower vectors, single elements where sizes are dynamic

The vector dimension is one along which every operand's elements are neighbours, or do not change. Sums along it are
kept in several vectors, which are added up at the end. What has no such dimension, or a body that is more than
arithmetic, stays and becomes loops over elements.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, TypeAlias

from mosaic_compile.mlir import arith, ir, scf
from mosaic_compile.mlir_tensors import memref, vector

from .linalg_shape import index_constant
from .views import Size, permuted
from .walk import defining_op, operations

# A reduction's operation: the name that vector.reduction has for it.
KINDS = {
    "arith.addf": "add", "arith.mulf": "mul", "arith.maximumf": "maximumf", "arith.minimumf": "minimumf",
    "arith.addi": "add", "arith.muli": "mul", "arith.andi": "and", "arith.ori": "or", "arith.xori": "xor",
    "arith.maxsi": "maxsi", "arith.minsi": "minsi", "arith.maxui": "maxui", "arith.minui": "minui",
}  # fmt: skip
# Those whose vectors we reduce ourselves; the order makes no difference.
LANE_BY_LANE = ("arith.maximumf", "arith.minimumf")
SUMS = 4  # vectors that a sum is kept in: an addition takes about that many cycles
EXTREMA = 8  # the same for a maximum: one that keeps NaN is several instructions where no single one does


@dataclass(frozen=True)
class Vectorize:
    """vector_bytes: the width of the target's vectors. small: whether vectors hold integers of up to 32 bits only."""

    name: ClassVar[str] = "vectorize"
    vector_bytes: int = 32
    small: bool = False

    def run(self, module: ir.Module) -> None:
        with module.context:
            for op in operations(module.operation):
                if op.name == "linalg.generic" and not op.results:
                    with op.location, ir.InsertionPoint(op):
                        work = Work.of(op)
                        if work is not None and _emit(work, self.vector_bytes, self.small):
                            op.erase()


@dataclass(frozen=True, eq=False)
class Operand:
    """A buffer, and which loop each of its dimensions runs along (None: it is of size 1 there)."""

    buffer: ir.Value
    loops: tuple[int | None, ...]

    @property
    def type(self) -> ir.MemRefType:
        return ir.MemRefType(self.buffer.type)

    def with_last(self, loop: int) -> Operand:
        """A view whose last dimension runs along a loop, as vectors are loaded."""
        if loop not in self.loops or self.loops[-1] == loop:
            return self
        order = [d for d, running in enumerate(self.loops) if running != loop] + [self.loops.index(loop)]
        view = permuted(self.buffer, order)
        return Operand(view, tuple(self.loops[d] for d in order))

    def at(self, places: Places) -> list[ir.Value]:
        return [index_constant(0) if d is None else places[d] for d in self.loops]

    def is_regular_along(self, loop: int) -> bool:
        """Whether the elements along a loop are neighbours, or one and the same."""
        if loop not in self.loops:
            return True
        strides, _ = self.type.get_strides_and_offset()
        return self.loops.count(loop) == 1 and strides[self.loops.index(loop)] == 1


@dataclass(frozen=True)
class Work:
    """A linalg.generic: its operands, the loops' sizes and whether they reduce, its body."""

    operands: tuple[Operand, ...]  # buffers; the outputs are last
    scalars: dict[int, ir.Value]  # inputs that are no buffers, by position
    outputs: int
    sizes: tuple[int | None, ...]  # None: dynamic
    reduces: tuple[bool, ...]
    block: ir.Block

    @staticmethod
    def of(op: ir.Operation) -> Work | None:
        maps = [ir.AffineMapAttr(m).value for m in op.attributes["indexing_maps"]]
        reduces = tuple("reduction" in str(kind) for kind in op.attributes["iterator_types"])
        sizes: list[int | None] = [None] * len(reduces)
        operands, scalars = [], {}
        for position, (value, map_) in enumerate(zip(op.operands, maps)):
            if not isinstance(value.type, ir.MemRefType):
                scalars[position] = value
                continue
            loops = _loops_of(map_)
            if loops is None:
                return None
            operands.append(Operand(value, loops))
            for loop, size in zip(loops, operands[-1].type.shape):
                if loop is not None and size != ir.ShapedType.get_dynamic_size():
                    sizes[loop] = size
        outputs = op.attributes["operandSegmentSizes"][1]
        return Work(tuple(operands), scalars, outputs, tuple(sizes), reduces, op.regions[0].blocks[0])

    @property
    def results(self) -> tuple[Operand, ...]:
        return self.operands[len(self.operands) - self.outputs :]

    def size(self, loop: int) -> Size:
        known = self.sizes[loop]
        if known is not None:
            return known
        for operand in self.operands:
            if loop in operand.loops:
                return memref.dim(operand.buffer, index_constant(operand.loops.index(loop)))
        raise AssertionError("a loop that no operand runs along")


def _loops_of(map_: ir.AffineMap) -> tuple[int | None, ...] | None:
    """The loop of each result of an indexing map; None for a map that does more than choose."""
    loops: list[int | None] = []
    for result in map_.results:
        if isinstance(result, ir.AffineDimExpr):
            loops.append(ir.AffineDimExpr(result).position)
        elif isinstance(result, ir.AffineConstantExpr) and ir.AffineConstantExpr(result).value == 0:
            loops.append(None)
        else:
            return None
    return tuple(loops)


def _emit(work: Work, vector_bytes: int, small: bool) -> bool:
    """Loops over vectors in place of the work; False where it has no vector form."""
    body = [op.operation for op in work.block.operations]
    if not all(_is_arithmetic(op) for op in body[:-1]) or any(
        _bits(o.type.element_type) < 8 for o in work.operands
    ):
        return False
    loop = _vector_loop(work)
    if loop is None or (work.reduces[loop] and _reductions(work) is None):
        return False
    work = replace(work, operands=tuple(o.with_last(loop) for o in work.operands))
    types = list(_element_types(work, body))
    computed = [r.type for op in body[:-1] for r in op.results]
    scalar = small and not all(isinstance(t, ir.IntegerType) and t.width <= 32 for t in [*types, *computed])
    lanes = 1 if scalar else vector_bytes * 8 // max(_bits(t) for t in types)
    order = [d for d in range(len(work.sizes)) if d != loop and not work.reduces[d]]
    inner = [d for d in range(len(work.sizes)) if d != loop and work.reduces[d]]
    if work.reduces[loop] and inner:
        return False  # sums along several dimensions at once, the last by vectors
    _nest(work, order, {}, lambda places: _row(work, body, loop, lanes, inner, places))
    return True


def _vector_loop(work: Work) -> int | None:
    """The loop to run by vectors: the last one along which all operands are regular, a parallel one if there is."""
    rank = len(work.sizes)
    regular = [
        d for d in range(rank) if work.sizes[d] != 1 and all(o.is_regular_along(d) for o in work.operands)
    ]
    used = [d for d in regular if any(d in o.loops for o in work.operands)]
    parallel = [d for d in used if not work.reduces[d]]
    chosen = parallel or used
    return chosen[-1] if chosen else None


def _reductions(work: Work) -> list[ir.Operation] | None:
    """For each output, the operation that combines it with the rest of the body; None where that is not all it does."""
    block = work.block
    *_, end = (op.operation for op in block.operations)
    arguments = list(block.arguments)[-work.outputs :]
    found = []
    for value, argument in zip(end.operands, arguments):
        op = value.owner
        uses = [use.owner for use in argument.uses]
        if isinstance(op, ir.Block) or op.name not in KINDS or len(uses) != 1 or uses[0] != op:
            return None
        if len(list(value.uses)) != 1:
            return None
        found.append(op.operation if hasattr(op, "operation") else op)
    return found


def _is_arithmetic(op: ir.Operation) -> bool:
    return (
        op.name.startswith(("arith.", "math.")) and not op.regions and len(op.results) == 1
    ) or op.name in ("linalg.index", "tile.dot4")


def _element_types(work: Work, body: Sequence[ir.Operation]) -> Iterator[ir.Type]:
    yield from (o.type.element_type for o in work.operands)
    for op in body[:-1]:
        yield from (r.type for r in op.results if not isinstance(r.type, ir.IndexType))


def _bits(type_: ir.Type) -> int:
    return type_.width if hasattr(type_, "width") else 64


# Where in the loops we are, and the elements of operands that are the same from here on.
Places: TypeAlias = "dict[int | Operand, ir.Value]"


def _nest(work: Work, loops: Sequence[int], places: Places, body: Callable[[Places], None]) -> None:
    if not loops:
        body(places)
        return
    first, rest = loops[0], loops[1:]
    if work.sizes[first] == 1:
        _nest(work, rest, places | {first: index_constant(0)}, body)
        return
    loop = scf.ForOp(index_constant(0), _value(work.size(first)), index_constant(1))
    with ir.InsertionPoint(loop.body):
        _nest(work, rest, places | {first: loop.induction_variable}, body)
        scf.YieldOp([])


def _value(size: Size) -> ir.Value:
    return index_constant(size) if isinstance(size, int) else size


def _segments(size: Size, lanes: int) -> list[tuple[Size, Size, int]]:
    """A row cut into (start, end, lanes of the vectors there)."""
    if not isinstance(size, int):
        whole = arith.subi(size, arith.remui(size, index_constant(lanes)))
        return [(0, whole, lanes), (whole, size, 1)]
    found: list[tuple[Size, Size, int]] = []
    start = 0
    while start < size:
        width = min(lanes, 1 << ((size - start).bit_length() - 1))
        end = start + (size - start) // width * width
        found.append((start, end, width))
        start = end
    return found


def _row(
    work: Work, body: Sequence[ir.Operation], loop: int, lanes: int, inner: Sequence[int], places: Places
) -> None:
    """The work along the vector dimension."""
    size = work.size(loop)
    # What does not change along the row is read once: it might be written, as far as LLVM knows.
    inputs = work.operands[: len(work.operands) - work.outputs]
    for operand in inputs:
        if loop not in operand.loops and not any(d in operand.loops for d in inner):
            places = places | {operand: _read(operand, loop, 1, places)}
    if work.reduces[loop]:
        _reduce_row(work, body, loop, size, lanes, places)
        return

    def part(width: int, place: ir.Value) -> None:
        here = places | {loop: place}
        if inner:
            _carry(work, body, loop, width, inner, here)
            return
        for operand, value in zip(work.results, _compute(work, body, loop, width, here, None)):
            _write(operand, value, here)

    if not isinstance(size, int) and lanes > 1 and not inner and _can_be_repeated(work):
        _overlapping_vectors(size, lanes, part)
        return
    for start, end, width in _segments(size, lanes):
        _loop(start, end, width, partial(part, width))


def _loop(start: Size, end: Size, step: int, body: Callable[[ir.Value], None]) -> None:
    loop = scf.ForOp(_value(start), _value(end), index_constant(step))
    with ir.InsertionPoint(loop.body):
        body(loop.induction_variable)
        scf.YieldOp([])


def _overlapping_vectors(size: ir.Value, lanes: int, part: Callable[[int, ir.Value], None]) -> None:
    """A row whose last vector ends where the row does, and computes again what it shares with the one before."""
    last = arith.subi(size, index_constant(lanes))
    fits = scf.IfOp(arith.cmpi(arith.CmpIPredicate.sge, last, index_constant(0)), has_else=True)
    with ir.InsertionPoint(fits.then_block):
        _loop(0, size, lanes, lambda place: part(lanes, arith.minsi(place, last)))
        scf.YieldOp([])
    with ir.InsertionPoint(fits.else_block):
        _loop(0, size, 1, lambda place: part(1, place))
        scf.YieldOp([])


def _can_be_repeated(work: Work) -> bool:
    """Whether computing a part again gives the same: no output is read, nor lies where an input does."""
    inputs = work.operands[: len(work.operands) - work.outputs]
    if any(list(argument.uses) for argument in list(work.block.arguments)[-work.outputs :]):
        return False
    read = set().union(*(_memory_of(o.buffer) for o in inputs))
    return not any(_memory_of(o.buffer) & read for o in work.results)


def _memory_of(buffer: ir.Value) -> set[ir.Value]:
    """What a buffer may be a part of: arrays, which share no memory where one is written, or the kernel's own memory."""
    op = defining_op(buffer)
    if op is None or not op.operands:
        return {buffer}
    if op.name == "scf.if":
        number = ir.OpResult(buffer).result_number
        ends = [list(region.blocks[0].operations)[-1] for region in op.regions]
        return set().union(*(_memory_of(end.operands[number]) for end in ends))
    return _memory_of(op.operands[0])


def _carry(
    work: Work, body: Sequence[ir.Operation], loop: int, width: int, inner: Sequence[int], places: Places
) -> None:
    """Reductions across rows: the results of one vector's columns stay in registers."""
    results = work.results
    start = [_read(o, loop, width, places) for o in results]

    def step(loops: Sequence[int], here: Places, carried: list[ir.Value]) -> list[ir.Value]:
        if not loops:
            return _compute(work, body, loop, width, here, carried)
        inside = scf.ForOp(index_constant(0), _value(work.size(loops[0])), index_constant(1), carried)
        with ir.InsertionPoint(inside.body):
            following = step(
                loops[1:], here | {loops[0]: inside.induction_variable}, list(inside.inner_iter_args)
            )
            scf.YieldOp(following)
        return list(inside.results)

    for operand, value in zip(results, step(inner, places, start)):
        _write(operand, value, places)


def _reduce_row(
    work: Work, body: Sequence[ir.Operation], loop: int, size: Size, lanes: int, places: Places
) -> None:
    """Sums along a row, in several vectors at once, which are combined at the end."""
    combine = _reductions(work)
    assert combine is not None
    results = work.results
    at_once = EXTREMA if all(op.name in LANE_BY_LANE for op in combine) else SUMS
    totals = [_read(o, loop, 1, places) for o in results]
    if not isinstance(size, int):
        totals = _reduce_elements(work, body, loop, size, places, totals)
    else:
        for start, end, width in _segments(size, lanes):
            assert isinstance(start, int) and isinstance(end, int)
            many = at_once if width == lanes else 1
            while (end - start) % (many * width):
                many //= 2
            totals = _reduce_vectors(work, body, combine, loop, width, many, start, end, places, totals)
    for operand, value in zip(results, totals):
        _write(operand, value, places)


def _reduce_elements(
    work: Work,
    body: Sequence[ir.Operation],
    loop: int,
    size: ir.Value,
    places: Places,
    totals: list[ir.Value],
) -> list[ir.Value]:
    inside = scf.ForOp(index_constant(0), size, index_constant(1), totals)
    with ir.InsertionPoint(inside.body):
        here = places | {loop: inside.induction_variable}
        scf.YieldOp(_compute(work, body, loop, 1, here, list(inside.inner_iter_args)))
    return list(inside.results)


def _reduce_vectors(
    work: Work,
    body: Sequence[ir.Operation],
    combine: Sequence[ir.Operation],
    loop: int,
    width: int,
    many: int,
    start: int,
    end: int,
    places: Places,
    totals: list[ir.Value],
) -> list[ir.Value]:
    def terms(place: ir.Value, carried: list[ir.Value] | None) -> list[ir.Value]:
        return _compute(work, body, loop, width, places | {loop: place}, carried, combine)

    # The first vectors start the sums, so that no neutral element is needed.
    sums = [terms(index_constant(start + i * width), None) for i in range(many)]
    flat = [v for group in sums for v in group]
    stride = many * width
    if start + stride < end:
        inside = scf.ForOp(index_constant(start + stride), index_constant(end), index_constant(stride), flat)
        with ir.InsertionPoint(inside.body):
            carried, following = list(inside.inner_iter_args), []
            count = len(totals)
            for i in range(many):
                place = arith.addi(inside.induction_variable, index_constant(i * width))
                following += terms(place, carried[i * count : (i + 1) * count])
            scf.YieldOp(following)
        flat = list(inside.results)
    count = len(totals)
    outcome = []
    for position, (total, op) in enumerate(zip(totals, combine)):
        parts = flat[position::count]
        while len(parts) > 1:
            parts = [_combined(op, a, b) for a, b in zip(parts[::2], parts[1::2])]
        value = parts[0]
        if op.name in LANE_BY_LANE:
            value = _folded(op, value, width)
        elif isinstance(value.type, ir.VectorType):
            kind = ir.Attribute.parse(f"#vector.kind<{KINDS[op.name]}>")
            reduction = vector.ReductionOp(total.type, kind, value)
            if "fastmath" in op.attributes:
                reduction.operation.attributes["fastmath"] = op.attributes["fastmath"]
            value = reduction.result
        outcome.append(_combined(op, total, value))
    return outcome


def _folded(op: ir.Operation, value: ir.Value, width: int) -> ir.Value:
    """A vector's elements combined by halves: LLVM would go through them one by one."""
    half = width
    while half > 1:
        half //= 2
        turned = vector.shuffle(value, value, [(lane + half) % width for lane in range(width)])
        value = _combined(op, value, turned)
    return vector.extract(value, [], [0]) if width > 1 else value


def _combined(op: ir.Operation, a: ir.Value, b: ir.Value) -> ir.Value:
    attributes = {name: op.attributes[name] for name in op.attributes}
    return ir.Operation.create(op.name, [a.type], [a, b], attributes).results[0]


def _compute(
    work: Work,
    body: Sequence[ir.Operation],
    loop: int,
    width: int,
    places: Places,
    carried: list[ir.Value] | None,
    combine: Sequence[ir.Operation] | None = None,
) -> list[ir.Value]:
    """The body on vectors of `width` (1: on elements): what each output becomes.

    carried: the outputs so far; None reads them from memory, or, with `combine`, leaves the combining away.
    """
    *ops, end = body
    values: dict[ir.Value, ir.Value] = {}
    positions = [p for p in range(len(work.block.arguments)) if p not in work.scalars]
    first_output = len(work.block.arguments) - work.outputs
    for position, argument in enumerate(work.block.arguments):
        if position in work.scalars:
            values[argument] = _spread(work.scalars[position], width)
        elif position >= first_output and (carried is not None or combine is not None):
            if carried is not None:
                values[argument] = carried[position - first_output]
        elif list(argument.uses):
            operand = work.operands[positions.index(position)]
            values[argument] = _read(operand, loop, width, places)
    for op in ops:
        if carried is None and combine is not None and op in combine:
            # The other operand is the first sum.
            outputs = set(list(work.block.arguments)[first_output:])
            other = next(o for o in op.operands if o not in outputs)
            values[op.results[0]] = values[other] if other in values else _spread(other, width)
        elif op.name == "linalg.index":
            values[op.results[0]] = _index(op.attributes["dim"].value, loop, width, places)
        else:
            values[op.results[0]] = _on_vectors(op, values, width)
    return [values[v] if v in values else _spread(v, width) for v in end.operands]


def _vector(element: ir.Type, width: int) -> ir.Type:
    return element if width == 1 else ir.VectorType.get([width], element)


def _spread(value: ir.Value, width: int) -> ir.Value:
    return value if width == 1 else vector.broadcast(_vector(value.type, width), value)


def _index(dimension: int, loop: int, width: int, places: Places) -> ir.Value:
    value = _spread(places[dimension], width)
    if dimension != loop or width == 1:
        return value
    return arith.addi(value, vector.step(value.type))


def _on_vectors(op: ir.Operation, values: dict[ir.Value, ir.Value], width: int) -> ir.Value:
    attributes = {name: op.attributes[name] for name in op.attributes}
    type_ = _vector(op.results[0].type, width)
    if op.name == "arith.constant" and width > 1:
        attributes["value"] = ir.DenseElementsAttr.get_splat(type_, op.attributes["value"])
    operands = [values[o] if o in values else _spread(o, width) for o in op.operands]
    return ir.Operation.create(op.name, [type_], operands, attributes).results[0]


def _read(operand: Operand, loop: int, width: int, places: Places) -> ir.Value:
    if operand in places:
        return _spread(places[operand], width)
    indices = operand.at(places)
    if width > 1 and loop in operand.loops:
        return vector.load(_vector(operand.type.element_type, width), operand.buffer, indices)
    return _spread(memref.load(operand.buffer, indices), width)


def _write(operand: Operand, value: ir.Value, places: Places) -> None:
    indices = operand.at(places)
    if isinstance(value.type, ir.VectorType):
        vector.store(value, operand.buffer, indices)
    else:
        memref.store(value, operand.buffer, indices)
