"""The meaning of a program in NumPy, written from docs/language.md and independent of mosaic_compile.

Programs of the grid run one after the other. A value is a NumPy array or scalar of its own element type: unsigned
integers are unsigned here, not bits as in the IR.

Comparisons with other evaluations are exact. So that they can be, programs are generated such that

- sums, products and matrix products of floating-point tiles, whose order is not fixed, have exact results;
- the sign of a zero, and the bits of a NaN, which minimum and maximum do not fix, are never looked at;
- what is undefined does not happen: division by zero, shifts by the width, conversions to integers out of range,
  elements that two programs write, elements that one scatter writes twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import reduce, singledispatch
from typing import Any

import numpy as np

from .program import (
    DTYPES,
    FLOATS,
    SUMMED_IN_I32,
    Assign,
    AtomicAdd,
    Bitcast,
    Block,
    Broadcast,
    Cat,
    Conditional,
    Convert,
    Dim,
    Dot,
    Elementwise,
    ExpandDims,
    Expr,
    For,
    Full,
    Gather,
    If,
    Iota,
    Literal,
    Load,
    NumPrograms,
    Permute,
    Place,
    Power,
    Program,
    ProgramId,
    Reduce,
    Reshape,
    Return,
    Scan,
    Scatter,
    Split,
    Statement,
    StaticFor,
    StaticIf,
    StaticIndex,
    Store,
    Var,
    View,
    While,
)

Value = Any  # np.ndarray or np.generic


class Returned(Exception):
    """A program ends before its last statement."""


@dataclass
class State:
    """One program of the grid."""

    program_id: tuple[int, ...]
    grid: tuple[int, ...]
    flag: bool
    arrays: Mapping[str, np.ndarray]
    variables: dict[str, Value]


def evaluate(program: Program, arrays: Mapping[str, np.ndarray]) -> None:
    """Runs a program of the grid after the other on arrays, by name, which are written in place."""
    nx, ny, nz = (*program.programs, 1, 1)[:3]
    scalars = {s.name: DTYPES[s.dtype].type(s.value) for s in program.scalars}
    with np.errstate(all="ignore"):
        for z in range(nz):
            for y in range(ny):
                for x in range(nx):
                    state = State((x, y, z), (nx, ny, nz), program.flag, arrays, dict(scalars))
                    with suppress(Returned):
                        run(program.body, state)


# Arithmetic.


def rounded_once(function: Callable[..., Value]) -> Callable[..., Value]:
    """Arithmetic of f16 and bf16: in f32, then rounded."""

    def call(*values: Value) -> Value:
        dtype = values[0].dtype
        if dtype.itemsize > 2 or dtype.kind in "iub":
            return function(*values)
        return function(*(v.astype(np.float32) for v in values)).astype(dtype)

    return call


def from_f64(function: Callable[..., Value]) -> Callable[..., Value]:
    """A function such as exp, whose f64 result rounds to the type."""
    return lambda *values: function(*(v.astype(np.float64) for v in values)).astype(values[0].dtype)


def floor_divide(a: Value, b: Value) -> Value:
    return np.floor_divide(a, b)


def remainder(a: Value, b: Value) -> Value:
    return a - np.floor_divide(a, b) * b


def ceil_divide(a: Value, b: Value) -> Value:
    quotient = np.floor_divide(a, b)
    return quotient + (quotient * b != a).astype(a.dtype)


def negate(x: Value) -> Value:
    return -x if x.dtype.kind != "u" else np.zeros((), x.dtype) - x


def sigmoid(x: Value) -> Value:
    one = x.dtype.type(1)
    return one / (one + np.exp(-x.astype(np.float64)).astype(x.dtype))


ELEMENTWISE: dict[str, Callable[..., Value]] = {
    "+": rounded_once(np.add),
    "-": rounded_once(np.subtract),
    "*": rounded_once(np.multiply),
    "/": rounded_once(np.divide),
    "//": floor_divide,
    "%": remainder,
    "cdiv": ceil_divide,
    "&": np.bitwise_and,
    "|": np.bitwise_or,
    "^": np.bitwise_xor,
    "<<": np.left_shift,
    ">>": np.right_shift,
    "and": np.logical_and,
    "or": np.logical_or,
    "not": np.logical_not,
    "neg": negate,
    "invert": np.invert,
    "abs": np.abs,
    "==": np.equal,
    "!=": np.not_equal,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
    "where": np.where,
    "minimum": rounded_once(np.minimum),
    "maximum": rounded_once(np.maximum),
    "clamp": rounded_once(lambda x, low, high: np.minimum(np.maximum(x, low), high)),
    "floor": rounded_once(np.floor),
    "ceil": rounded_once(np.ceil),
    "sqrt": rounded_once(np.sqrt),
    "exp": from_f64(np.exp),
    "exp2": from_f64(np.exp2),
    "log": from_f64(np.log),
    "log2": from_f64(np.log2),
    "sin": from_f64(np.sin),
    "cos": from_f64(np.cos),
    "tanh": from_f64(np.tanh),
    "rsqrt": from_f64(lambda x: 1 / np.sqrt(x)),
    "sigmoid": rounded_once(sigmoid),
}


def convert(x: Value, dtype: str) -> Value:
    """x with another element type, named; f64 and integers reach narrow floats through f32."""
    target = DTYPES[dtype]
    if dtype == "bool":
        return x.astype(np.float64) != 0 if x.dtype.kind not in "iub" else x != 0
    if target.kind in "iu" and x.dtype.kind not in "iub":
        return np.trunc(x.astype(np.float64)).astype(np.int64).astype(target)
    if target.kind not in "iub" and target.itemsize < 4:
        x = x.astype(np.float32)
    return x.astype(target)


# Expressions.


@singledispatch
def value_of(node: Any, state: State) -> Value:
    raise TypeError(f"{type(node).__name__} has no meaning")


def number(item: Expr | int, state: State) -> int:
    return item if isinstance(item, int) else int(value_of(item, state))


@value_of.register
def _(node: Literal, state: State) -> Value:
    return np.array(node.value).astype(DTYPES[node.dtype])[()]


@value_of.register
def _(node: Var, state: State) -> Value:
    return state.variables[node.name]


@value_of.register
def _(node: StaticIndex, state: State) -> Value:
    return state.variables[node.name]


@value_of.register
def _(node: ProgramId, state: State) -> Value:
    return np.int32(state.program_id[node.axis])


@value_of.register
def _(node: NumPrograms, state: State) -> Value:
    return np.int32(state.grid[node.axis])


@value_of.register
def _(node: Dim, state: State) -> Value:
    return np.int32(state.arrays[node.array].shape[node.axis])


@value_of.register
def _(node: Iota, state: State) -> Value:
    return np.arange(node.size, dtype=np.int32)


@value_of.register
def _(node: Full, state: State) -> Value:
    return np.full(node.shape, value_of(node.value, state))


@value_of.register
def _(node: Elementwise, state: State) -> Value:
    return ELEMENTWISE[node.op](*(value_of(operand, state) for operand in node.operands))


@value_of.register
def _(node: Power, state: State) -> Value:
    """By repeated squaring, each product rounded."""
    x = value_of(node.value, state)
    square = ELEMENTWISE["*"](x, x)
    match node.exponent:
        case 0:
            return np.ones_like(x)
        case 1:
            return x
        case 2:
            return square
        case 3:
            return ELEMENTWISE["*"](x, square)
    raise ValueError(node.exponent)


@value_of.register
def _(node: Conditional, state: State) -> Value:
    return value_of(node.then if value_of(node.condition, state) else node.orelse, state)


@value_of.register
def _(node: Convert, state: State) -> Value:
    return convert(value_of(node.value, state), node.dtype)


@value_of.register
def _(node: Bitcast, state: State) -> Value:
    return (
        np.ascontiguousarray(value_of(node.value, state))
        .view(DTYPES[node.dtype])
        .reshape(node.type.shape)[()]
    )


@value_of.register
def _(node: Reshape, state: State) -> Value:
    return np.reshape(value_of(node.value, state), node.shape)


@value_of.register
def _(node: ExpandDims, state: State) -> Value:
    return np.expand_dims(value_of(node.value, state), node.axis)


@value_of.register
def _(node: Permute, state: State) -> Value:
    return np.transpose(value_of(node.value, state), node.order)


@value_of.register
def _(node: Broadcast, state: State) -> Value:
    return np.broadcast_to(value_of(node.value, state), node.shape)


@value_of.register
def _(node: Cat, state: State) -> Value:
    return np.concatenate([value_of(node.first, state), value_of(node.second, state)], node.axis)


# Reductions and scans, one element after the other.

Combine = Callable[[tuple[Value, ...], tuple[Value, ...]], tuple[Value, ...]]

COMBINATIONS: dict[str, Combine] = {
    "sum": lambda a, b: (a[0] + b[0],),
    "mean": lambda a, b: (a[0] + b[0],),
    "prod": lambda a, b: (a[0] * b[0],),
    "cumsum": lambda a, b: (a[0] + b[0],),
    "cumprod": lambda a, b: (a[0] * b[0],),
    "max": lambda a, b: (ELEMENTWISE["maximum"](a[0], b[0]),),
    "min": lambda a, b: (ELEMENTWISE["minimum"](a[0], b[0]),),
    "any": lambda a, b: (a[0] | b[0],),
    "all": lambda a, b: (a[0] & b[0],),
    "xor": lambda a, b: (a[0] ^ b[0],),
    "larger": lambda a, b: (ELEMENTWISE["maximum"](a[0], b[0]),),
    "wrapping": lambda a, b: (a[0] + b[0],),
    "last nonzero": lambda a, b: (np.where(b[0] != 0, b[0], a[0]),),
    "sum and least": lambda a, b: (a[0] + b[0], np.minimum(a[1], b[1])),
    "affine": lambda a, b: (a[0] * b[0], a[1] * b[0] + b[1]),
}


def widened(x: Value, op: str) -> Value:
    """What sums and products add up in: f32 for narrower floats, i32 for narrower integers."""
    dtype = next(name for name, type_ in DTYPES.items() if type_ == x.dtype)
    if op not in ("sum", "prod", "mean", "cumsum", "cumprod"):
        return x
    if dtype in SUMMED_IN_I32:
        return x.astype(np.int32)
    return x.astype(np.float32) if dtype in FLOATS and x.dtype.itemsize < 4 else x


@value_of.register
def _(node: Reduce, state: State) -> Value:
    tiles = [np.asarray(value_of(operand, state)) for operand in node.operands]
    shape = tiles[0].shape
    axis, parts = (0, [t.reshape(-1) for t in tiles]) if node.axis is None else (node.axis, tiles)
    if node.op in ("argmax", "argmin"):
        # NumPy has no argmax of bf16; f64 holds all floats, and NaN comes first there too.
        x = parts[0].astype(np.float64) if parts[0].dtype.kind not in "iu" else parts[0]
        result = (np.argmax if node.op == "argmax" else np.argmin)(x, axis).astype(np.int32)
    else:
        moved = [np.moveaxis(widened(part, node.op), axis, 0) for part in parts]
        result = reduce(COMBINATIONS[node.op], zip(*moved))[node.pick]
        if node.op == "mean":
            result = result / result.dtype.type(parts[0].shape[axis])
        if node.op in ("sum", "prod", "mean"):
            result = result.astype(DTYPES[node.type.dtype])
    if node.keepdims:
        result = np.reshape(result, [1] * len(shape) if node.axis is None else node.type.shape)
    return result[()]


@value_of.register
def _(node: Scan, state: State) -> Value:
    order = slice(None, None, -1 if node.reverse else 1)
    tiles = [widened(value_of(operand, state), node.op) for operand in node.operands]
    rows = list(zip(*(np.moveaxis(tile, node.axis, 0)[order] for tile in tiles)))
    running = [rows[0]]
    for row in rows[1:]:
        running.append(COMBINATIONS[node.op](running[-1], row))
    result = np.stack([row[node.pick] for row in running])[order]
    return np.moveaxis(result, 0, node.axis).astype(DTYPES[node.type.dtype])


@value_of.register
def _(node: Dot, state: State) -> Value:
    a, b = value_of(node.a, state), value_of(node.b, state)
    dtype = DTYPES[node.dtype]
    wide = np.int64 if dtype.kind == "i" else np.float64  # exact: the operands are small whole numbers
    product = np.einsum("mk,kn->mn", a.astype(wide), b.astype(wide)).astype(dtype)
    return product if node.acc is None else ELEMENTWISE["+"](product, value_of(node.acc, state))


# Memory: every access is clipped.


def viewed(view: View, state: State) -> np.ndarray | None:
    """The part of an array that a view is; None where its point lies outside."""
    array = state.arrays[view.array]
    point = tuple(number(item, state) for item in view.point)
    if not all(0 <= i < size for i, size in zip(point, array.shape)):
        return None
    return array[point].transpose(view.order)


def met(
    place: Place, shape: tuple[int, ...], state: State
) -> tuple[tuple[Any, ...], tuple[Any, ...], np.ndarray] | None:
    """Where a block meets the array: indices into the tile, into the view, and the view; None where it does not."""
    starts = [number(item, state) for item in place.starts]
    view = viewed(place.view, state)
    if view is None:
        return None
    in_tile, in_view = [], []
    for start, extent, size in zip(starts, shape, view.shape):
        first = start if place.in_elements else start * extent
        steps = np.arange(extent)
        inside = steps[(first + steps >= 0) & (first + steps < size)]
        in_tile.append(inside)
        in_view.append(first + inside)
    return np.ix_(*in_tile), np.ix_(*in_view), view


@value_of.register
def _(node: Load, state: State) -> Value:
    dtype = DTYPES[node.type.dtype]
    result = np.full(node.type.shape, np.array(node.pad).astype(dtype))
    if meeting := met(node.place, node.type.shape, state):
        in_tile, in_view, view = meeting
        result[in_tile] = view[in_view]
    return result


def chosen_elements(
    view: View, indices: tuple[Expr, ...], mask: Expr | None, shape: tuple[int, ...], state: State
) -> tuple[np.ndarray, tuple[np.ndarray, ...], np.ndarray] | None:
    """Which of the elements of an index tile are accessed, their indices, and the view."""
    array = viewed(view, state)
    tiles = [np.broadcast_to(value_of(index, state), shape) for index in indices]
    chosen = np.broadcast_to(True if mask is None else value_of(mask, state), shape)
    if array is None:
        return None
    for tile, size in zip(tiles, array.shape):
        chosen = chosen & (tile >= 0) & (tile < size)
    return chosen, tuple(tile[chosen] for tile in tiles), array


@value_of.register
def _(node: Gather, state: State) -> Value:
    shape, dtype = node.type.shape, DTYPES[node.dtype]
    result = np.full(shape, np.array(node.pad).astype(dtype))
    if found := chosen_elements(node.view, node.indices, node.mask, shape, state):
        chosen, indices, view = found
        result[chosen] = view[indices]
    return result[()]


# Statements.


def run(block: Block, state: State) -> None:
    for statement in block:
        execute(statement, state)


@singledispatch
def execute(node: Statement, state: State) -> None:
    raise TypeError(f"{type(node).__name__} has no meaning")


@execute.register
def _(node: Assign, state: State) -> None:
    state.variables[node.name] = value_of(node.value, state)


@execute.register
def _(node: Split, state: State) -> None:
    state.variables |= zip(node.names, np.split(value_of(node.value, state), len(node.names), node.axis))


@execute.register
def _(node: For, state: State) -> None:
    for i in range(*(number(item, state) for item in (node.start, node.stop, node.step))):
        state.variables[node.name] = np.int32(i)
        run(node.body, state)


@execute.register
def _(node: StaticFor, state: State) -> None:
    for i in range(node.count):
        state.variables[node.name] = np.int32(i)
        run(node.body, state)


@execute.register
def _(node: While, state: State) -> None:
    while value_of(node.condition, state):
        run(node.body, state)


@execute.register
def _(node: If, state: State) -> None:
    run(node.then if value_of(node.condition, state) else node.orelse, state)


@execute.register
def _(node: StaticIf, state: State) -> None:
    run(node.then if state.flag else node.orelse, state)


@execute.register
def _(node: Return, state: State) -> None:
    raise Returned


@execute.register
def _(node: Store, state: State) -> None:
    value = value_of(node.value, state)
    value = np.reshape(value, value.shape or (1,) * len(node.place.starts))
    if meeting := met(node.place, value.shape, state):
        in_tile, in_view, view = meeting
        view[in_view] = value[in_tile]


@execute.register
def _(node: AtomicAdd, state: State) -> None:
    value = value_of(node.value, state)
    if meeting := met(node.place, value.shape, state):
        in_tile, in_view, view = meeting
        view[in_view] = view[in_view] + value[in_tile]


@execute.register
def _(node: Scatter, state: State) -> None:
    value = value_of(node.value, state)
    others = node.indices if node.mask is None else (*node.indices, node.mask)
    shape = np.broadcast_shapes(value.shape, *(other.type.shape for other in others))
    if found := chosen_elements(node.view, node.indices, node.mask, shape, state):
        chosen, indices, view = found
        elements = np.broadcast_to(value, shape)[chosen]
        for *index, element in zip(*indices, elements):
            at = tuple(index)
            view[at] = view[at] + element if node.adds else element
