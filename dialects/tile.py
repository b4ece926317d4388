"""The `tile` dialect: one program of a kernel, as operations on tiles held by value.

A tile is a builtin tensor (`tensor<128x64xbf16>`), a scalar is a builtin number (`i32`). Elementwise work stays in `arith`
and `math` on tensors, control flow in `scf`, the kernel itself is a `func.func` with the attribute `tile.kernel`. Nothing
here knows of a target. Unsigned 8-bit elements are `i8`: the operations carry the sign (`arith.divui`, `arith.extui`).

A kernel's function carries, as attributes:

    tile.kernel           unit: this function is a kernel
    tile.grid             array of strings: the number of programs on each grid axis, in the dimension names ("cdiv(M, 128)")
    tile.options          dictionary: num_warps, num_stages, num_ctas, maxnreg
    and on each argument:
    tile.name             string: the parameter's name
    tile.dtype            string: the DSL's element type ("bf16", "u8")
    tile.dims             array of strings or integers, arrays only: the dimensions ("M", 64)
    tile.access           "in", "out" or "inout", arrays only; absent where the kernel's own loads and stores decide
    tile.align            integer, arrays only: the pointer is a multiple of this many bytes
    tile.stride_multiples array of integers, arrays only: each stride is a multiple of this many elements
    tile.dim_multiples    array of integers, arrays only: each dimension is a multiple of this
"""

# No `from __future__ import annotations` here: ext reads the annotations themselves.
from collections.abc import Sequence
from typing import Any

from mosaic_compile.mlir import ext, ir

Operand = ext.Operand
Result = ext.Result


class Tile(ext.Dialect, name="tile"):
    pass


class ArrayType(Tile.Type, name="array"):
    """A kernel's array argument: `!tile.array<tensor<?x64xbf16>, strided<[?, 1]>>`.

    `shape` holds dimensions and element type; `layout` holds the strides in elements. `?` is known at launch only.
    """

    shape: Any
    layout: Any


def _verify(op: Any, holds: bool, message: str) -> bool:
    """Reports `message` at the op's line unless `holds`."""
    if not holds:
        op.operation.location.emit_error(f"'{op.operation.name}' {message}")
    return holds


def array_type_of(value: ir.Value) -> tuple[ir.RankedTensorType, list[int]]:
    """Shape with element type, and strides (-1 where dynamic), of a value of array type."""
    parsed = ArrayType(value.type)
    tensor = ir.TypeAttr(parsed.shape).value
    dynamic = ir.ShapedType.get_dynamic_stride_or_offset()
    strides = [-1 if s == dynamic else s for s in ir.StridedLayoutAttr(parsed.layout).strides]
    return ir.RankedTensorType(tensor), strides


def shape_of(type_: ir.Type) -> list[int]:
    """A tile's shape; [] for a scalar."""
    return list(ir.RankedTensorType(type_).shape) if isinstance(type_, ir.RankedTensorType) else []


def element_type_of(type_: ir.Type) -> ir.Type:
    """A tile's element type; a scalar's own type."""
    return ir.RankedTensorType(type_).element_type if isinstance(type_, ir.RankedTensorType) else type_


# What passes write on block accesses, one entry for each dimension of the array.
_FACTS = {
    "multiples": (ir.DenseI64ArrayAttr, "array<i64: …>"),
    "starts_inside": (ir.DenseBoolArrayAttr, "array<i1: …>"),
    "in_bounds": (ir.DenseBoolArrayAttr, "array<i1: …>"),
}
PATHS = ("descriptor", "pointers")


def _verify_facts(op: Any, rank: int) -> bool:
    """What passes have written so far has the right types and sizes. Whether it is true is theirs to know."""
    attributes = op.operation.attributes
    for name, (type_, form) in _FACTS.items():
        if name not in attributes:
            continue
        given = attributes[name]
        fits = isinstance(given, type_) and len(given) == rank
        if not _verify(op, fits, f"has {name} = {given}, but takes {form} of {rank}, one for each dimension"):
            return False
    if "multiples" in attributes and not _verify(
        op,
        min(attributes["multiples"], default=1) > 0,
        f"has multiples = {attributes['multiples']}, but takes positive numbers",
    ):
        return False
    for name in ("path", "path_reason"):
        if name in attributes and not _verify(
            op,
            isinstance(attributes[name], ir.StringAttr),
            f"has {name} = {attributes[name]}, but takes a string",
        ):
            return False
    if "path" not in attributes:
        return True
    path = attributes["path"].value
    return _verify(
        op, path in PATHS, f'has path = {attributes["path"]}, but a path is "descriptor" or "pointers"'
    ) and _verify(
        op,
        path == "pointers" or op.operation.name != "tile.atomic_add",
        'has path = "descriptor", but goes through pointers only',
    )


def _verify_pad(op: Any, tile: ir.Type) -> bool:
    element, pad = element_type_of(tile), op.operation.attributes.get("pad")
    fits = isinstance(pad, ir.FloatAttr | ir.IntegerAttr | ir.BoolAttr) and pad.type == element
    return _verify(op, fits, f"has pad = {pad}, but takes a number of type {element}")


def _verify_block(op: Any, tile: ir.Type) -> bool:
    """A block access: one offset for each array dimension, one axis for each tile dimension, one element type."""
    tensor, _ = array_type_of(op.array)
    given = op.operation.attributes.get("axes")
    if not _verify(
        op,
        isinstance(given, ir.DenseI64ArrayAttr),
        f"has axes = {given}, but takes array<i64: …>, one for each dimension of the tile",
    ):
        return False
    axes = list(given)
    return (
        _verify(
            op,
            len(op.offsets) == tensor.rank,
            f"takes {tensor.rank} offsets, one for each dimension of the array",
        )
        and _verify(
            op,
            len(set(axes)) == len(axes) == len(shape_of(tile)),
            "names one array axis for each tile dimension",
        )
        and _verify(op, all(0 <= a < tensor.rank for a in axes), "names an axis that the array does not have")
        and _verify(
            op, element_type_of(tile) == tensor.element_type, "moves elements of the array's own type only"
        )
        and _verify_facts(op, tensor.rank)
    )


# The grid.


class ProgramIdOp(Tile.Operation, name="program_id", traits=[ext.Pure]):
    """This program's index on a grid axis: i32, 0 <= id < num_programs."""

    axis: Any
    result: Result[ir.IntegerType]


class NumProgramsOp(Tile.Operation, name="num_programs", traits=[ext.Pure]):
    """The number of programs on a grid axis: i32, at least 1."""

    axis: Any
    result: Result[ir.IntegerType]


class DimOp(Tile.Operation, name="dim", traits=[ext.Pure]):
    """The size of an array's dimension: i32, at least 0."""

    array: Operand[ArrayType]
    axis: Any
    result: Result[ir.IntegerType]


# Memory. Every access is clipped: what lies outside the array reads as `pad` and is not written.


class LoadOp(Tile.Operation, name="load"):
    """Loads the block that starts at `offsets` (elements, one per array dimension).

    Tile dimension i runs along the array's axis axes[i]; array dimensions not in `axes` are read at their offset only.
    Passes add what they know, one entry per array dimension: `multiples` (array<i64>: the offset is a multiple of this),
    `starts_inside` (array<i1>: it is not negative), `in_bounds` (array<i1>: no element is outside); and `path` with
    `path_reason`, how the block is moved and why.
    """

    array: Operand[ArrayType]
    offsets: Sequence[Operand[Any]]
    axes: Any
    pad: Any
    result: Result[Any]

    @classmethod
    def verify_invariants(cls, op: Any) -> bool:
        return _verify_block(op, op.result.type) and _verify_pad(op, op.result.type)


class _BlockWrite(Tile.Operation):
    """Base of the accesses that write a tile to the block at `offsets`; the counterpart of `tile.load`."""

    array: Operand[ArrayType]
    value: Operand[Any]
    offsets: Sequence[Operand[Any]]
    axes: Any

    @classmethod
    def verify_invariants(cls, op: Any) -> bool:
        return _verify_block(op, op.value.type)


class StoreOp(_BlockWrite, name="store"):
    """Stores a tile."""


class AtomicAddOp(_BlockWrite, name="atomic_add"):
    """Adds a tile, each element atomically (relaxed, visible to the whole device)."""


class _Indexed(Tile.Operation):
    """Base of the element-indexed accesses: one index tile for each array dimension, all of the value's shape."""

    @classmethod
    def verify_indices(cls, op: Any, tile: ir.Type) -> bool:
        tensor, _ = array_type_of(op.array)
        shape = shape_of(tile)
        return (
            _verify(
                op,
                len(op.indices) == tensor.rank,
                f"takes {tensor.rank} index tiles, one for each dimension of the array",
            )
            and _verify(
                op,
                all(shape_of(i.type) == shape for i in op.indices),
                "takes index tiles of the value's shape",
            )
            and _verify(
                op, op.mask is None or shape_of(op.mask.type) == shape, "takes a mask of the value's shape"
            )
            and _verify(
                op,
                element_type_of(tile) == tensor.element_type,
                "moves elements of the array's own type only",
            )
        )


class GatherOp(_Indexed, name="gather"):
    """Loads the elements at the given indices; outside the array, or where the mask is false: `pad`."""

    array: Operand[ArrayType]
    indices: Sequence[Operand[Any]]
    pad: Any
    result: Result[Any]
    mask: Operand[Any] | None = None

    @classmethod
    def verify_invariants(cls, op: Any) -> bool:
        return cls.verify_indices(op, op.result.type)


class ScatterOp(_Indexed, name="scatter"):
    """Stores elements at the given indices; `combine` is "set" or "add" (atomic)."""

    array: Operand[ArrayType]
    value: Operand[Any]
    indices: Sequence[Operand[Any]]
    combine: Any
    mask: Operand[Any] | None = None

    @classmethod
    def verify_invariants(cls, op: Any) -> bool:
        return cls.verify_indices(op, op.value.type)


# Making and reshaping tiles.


class IotaOp(Tile.Operation, name="iota", traits=[ext.Pure]):
    """0, 1, 2 … as a one-dimensional i32 tile."""

    result: Result[ir.RankedTensorType]


class BroadcastOp(Tile.Operation, name="broadcast", traits=[ext.Pure]):
    """NumPy broadcasting of a scalar or tile to the result's shape."""

    source: Operand[Any]
    result: Result[ir.RankedTensorType]

    @classmethod
    def verify_invariants(cls, op: Any) -> bool:
        source, result = shape_of(op.source.type), shape_of(op.result.type)
        fits = len(source) <= len(result) and all(
            s in (1, r) for s, r in zip(reversed(source), reversed(result))
        )
        return _verify(op, fits, f"cannot broadcast {source} to {result}")


class ReshapeOp(Tile.Operation, name="reshape", traits=[ext.Pure]):
    """The same elements in row-major order under another shape."""

    source: Operand[ir.RankedTensorType]
    result: Result[ir.RankedTensorType]

    @classmethod
    def verify_invariants(cls, op: Any) -> bool:
        def count(value: ir.Value) -> int:
            total = 1
            for extent in shape_of(value.type):
                total *= extent
            return total

        return _verify(op, count(op.source) == count(op.result), "must keep the number of elements")


class PermuteOp(Tile.Operation, name="permute", traits=[ext.Pure]):
    """Result dimension i is source dimension order[i]."""

    source: Operand[ir.RankedTensorType]
    order: Any
    result: Result[ir.RankedTensorType]

    @classmethod
    def verify_invariants(cls, op: Any) -> bool:
        source, order = shape_of(op.source.type), list(op.order)
        is_permutation = sorted(order) == list(range(len(source)))
        return _verify(
            op, is_permutation, "takes an order that is a permutation of the dimensions"
        ) and _verify(
            op, shape_of(op.result.type) == [source[d] for d in order], "must permute the source's shape"
        )


class CatOp(Tile.Operation, name="cat", traits=[ext.Pure]):
    """Two tiles one after the other along `axis`."""

    first: Operand[ir.RankedTensorType]
    second: Operand[ir.RankedTensorType]
    axis: Any
    result: Result[ir.RankedTensorType]


class SplitOp(Tile.Operation, name="split", traits=[ext.Pure]):
    """The two halves of a tile along `axis`."""

    source: Operand[ir.RankedTensorType]
    axis: Any
    first: Result[ir.RankedTensorType]
    second: Result[ir.RankedTensorType]


# Matrix products, reductions, scans.


class DotOp(Tile.Operation, name="dot", traits=[ext.Pure]):
    """acc + a @ b for (M,K) and (K,N), or with a leading batch dimension; `precision` is "ieee", "tf32" or "tf32x3"."""

    a: Operand[ir.RankedTensorType]
    b: Operand[ir.RankedTensorType]
    acc: Operand[ir.RankedTensorType]
    precision: ir.StringAttr
    result: Result[ir.RankedTensorType]

    @classmethod
    def verify_invariants(cls, op: Any) -> bool:
        a, b, acc = (shape_of(v.type) for v in (op.a, op.b, op.acc))
        fits = len(a) == len(b) >= 2 and a[-1] == b[-2] and a[:-2] == b[:-2] and acc == [*a[:-1], b[-1]]
        return _verify(op, fits, f"cannot multiply {a} by {b} into {acc}")


def _length(type_: ir.Type) -> int:
    """Of a vector; of anything else 0."""
    return type_.shape[0] if isinstance(type_, ir.VectorType) else 0


class Dot2Op(Tile.Operation, name="dot2", traits=[ext.Pure]):
    """acc + the sum of the two products of the bf16 in the words of a and of b, i32 each; acc is of f32.

    Vectors, on the way to a CPU that has an instruction for it, which may round in a way of its own.
    """

    a: Operand[Any]
    b: Operand[Any]
    acc: Operand[Any]
    result: Result[Any]

    @classmethod
    def verify_invariants(cls, op: Any) -> bool:
        same = op.a.type == op.b.type and op.acc.type == op.result.type
        fits = same and _length(op.a.type) == _length(op.acc.type)
        return _verify(op, fits, "takes words of one type, and as many accumulators as words")


class SquareOp(Tile.Operation, name="square", traits=[ext.Pure]):
    """acc + a @ b.T for a and b of two rows, each a word of 64 bits: four bf16 with an acc of f32, eight i8 with one of i32.

    Vectors, on the way to 64-bit Arm; acc and the result are two by two, row by row. bf16 may be rounded in a way of its own.
    """

    a: Operand[Any]
    b: Operand[Any]
    acc: Operand[Any]
    result: Result[Any]

    @classmethod
    def verify_invariants(cls, op: Any) -> bool:
        same = op.a.type == op.b.type and op.acc.type == op.result.type
        fits = same and _length(op.a.type) == 2 and _length(op.acc.type) == 4
        return _verify(op, fits, "takes two words twice, and accumulators of two by two")


class Dot4Op(Tile.Operation, name="dot4", traits=[ext.Pure]):
    """acc + the sum of the four products of the bytes of a and of b, element by element, which are i32.

    The bytes of b are signed, those of a as `signed` says. The sum wraps. Scalars, tensors and, on the way to a CPU, vectors.
    """

    a: Operand[Any]
    b: Operand[Any]
    acc: Operand[Any]
    signed: Any
    result: Result[Any]

    @classmethod
    def verify_invariants(cls, op: Any) -> bool:
        types = {v.type for v in (op.a, op.b, op.acc, op.result)}
        return _verify(op, len(types) == 1, "takes and gives values of one type")


# IRDL takes the variable number of operands of one operation as of one type. Operations that combine tiles of several
# element types therefore have a first and up to three more operands and results, made by `several`.
MAX_COMBINED = 4
_MORE = ("second", "third", "fourth")


def several(op: type, values: Sequence[ir.Value], *attributes: Any, results: Sequence[ir.Type] = ()) -> Any:
    """Makes a YieldOp, ReduceOp or ScanOp of one to MAX_COMBINED values (and as many results)."""
    more = dict(zip(_MORE, values[1:]))
    more_results = {f"{name}_result": type_ for name, type_ in zip(_MORE, results[1:])}
    return op(values[0], *attributes, *results[:1], **more, **more_results)


class YieldOp(Tile.Operation, name="yield", traits=[ir.IsTerminatorTrait]):
    """Ends the combine region of a reduce or scan."""

    first: Operand[Any]
    second: Operand[Any] | None = None
    third: Operand[Any] | None = None
    fourth: Operand[Any] | None = None


class ReduceOp(Tile.Operation, name="reduce", traits=[ext.Pure]):
    """Reduces tiles of one shape along `axis` with an associative, commutative `combine` region (order unspecified).

    The region takes the accumulated scalars, then the next element's, and yields the combined ones.
    """

    first: Operand[Any]
    axis: Any
    first_result: Result[Any]
    combine: ext.Region
    second: Operand[Any] | None = None
    third: Operand[Any] | None = None
    fourth: Operand[Any] | None = None
    second_result: Result[Any] | None = None
    third_result: Result[Any] | None = None
    fourth_result: Result[Any] | None = None


class ScanOp(Tile.Operation, name="scan", traits=[ext.Pure]):
    """Inclusive scan along `axis` with an associative `combine` region; `reverse` runs from the end."""

    first: Operand[Any]
    axis: Any
    reverse: Any
    first_result: Result[Any]
    combine: ext.Region
    second: Operand[Any] | None = None
    third: Operand[Any] | None = None
    fourth: Operand[Any] | None = None
    second_result: Result[Any] | None = None
    third_result: Result[Any] | None = None
    fourth_result: Result[Any] | None = None


class PrintOp(Tile.Operation, name="print"):
    """Prints a value of the DSL's type `dtype` while the kernel runs, for debugging."""

    value: Operand[Any]
    text: ir.StringAttr
    dtype: ir.StringAttr


class VariableOp(Tile.Operation, name="variable"):
    """What a variable of the kernel holds, for the breakpoint that follows; `dtype` is the DSL's type."""

    value: Operand[Any]
    text: ir.StringAttr
    dtype: ir.StringAttr


class BreakpointOp(Tile.Operation, name="breakpoint"):
    """Stops each program for the person who debugs it.

    Its attribute `tile.constants` is a dictionary of the kernel's compile-time numbers.
    """
