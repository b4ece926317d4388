"""The meaning of the `tile` dialect.

A value of array type is the caller's NumPy array itself (unsigned integers read as signed).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .evaluator import Entry, Env, InterpreterError, Op
from .values import declared

# The grid.


def _program_id(op: Op, env: Env) -> Any:
    return np.int32(env.program_id[op.attributes["axis"]])


def _num_programs(op: Op, env: Env) -> Any:
    return np.int32(env.grid[op.attributes["axis"]])


def _dim(op: Op, env: Env, array: np.ndarray) -> Any:
    return np.int32(array.shape[op.attributes["axis"]])


# Blocks.


def window(
    op: Op, array: np.ndarray, offsets: Sequence[Any], shape: tuple[int, ...]
) -> tuple[tuple[slice, ...], np.ndarray]:
    """Where a block of `shape` meets the array: a part of the tile, and the view of the array that it is.

    Tile dimension i runs along array axis axes[i]; the array's other axes are fixed at their offsets.
    """
    axes = op.attributes["axes"]
    in_bounds = op.attributes.get("in_bounds", (False,) * array.ndim)
    extents = dict(zip(axes, shape))
    starts, stops = [int(o) for o in offsets], []
    index: list[Any] = []
    for axis, (start, size) in enumerate(zip(starts, array.shape)):
        stops.append(start + extents.get(axis, 1))
        if in_bounds[axis] and not (start >= 0 and stops[axis] <= size):
            elements = f"elements {start} to {stops[axis]} of {size}"
            raise InterpreterError(f"array axis {axis} is marked as in bounds, but {elements} are accessed")
        index.append(slice(max(0, start), min(size, stops[axis])))
    if any(i.start >= i.stop for i in index):  # nothing meets
        return (slice(0, 0),) * len(axes), np.empty((0,) * len(axes), array.dtype)
    part = tuple(slice(index[a].start - starts[a], index[a].stop - starts[a]) for a in axes)
    kept = sorted(axes)
    view = array[(*(i if a in extents else i.start for a, i in enumerate(index)), ...)]
    return part, view.transpose([kept.index(a) for a in axes])


def _load(op: Op, env: Env, array: np.ndarray, *offsets: Any) -> np.ndarray:
    shape = op.results[0].shape
    part, view = window(op, array, offsets, shape)
    if view.shape == shape:
        return np.array(view, order="C")
    result = np.full(shape, op.attributes["pad"], array.dtype)
    result[part] = view
    return result


def _store(op: Op, env: Env, array: np.ndarray, value: np.ndarray, *offsets: Any) -> None:
    part, view = window(op, array, offsets, value.shape)
    view[...] = value[part]


def _atomic_add(op: Op, env: Env, array: np.ndarray, value: np.ndarray, *offsets: Any) -> None:
    part, view = window(op, array, offsets, value.shape)
    view[...] = view + value[part]


# Single elements.


def selected(
    array: np.ndarray, rest: Sequence[Any], masked: bool
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Which elements lie inside the array and are not masked, and their indices."""
    indices = [np.asarray(i) for i in rest[: array.ndim]]
    chosen = np.asarray(rest[array.ndim]) if masked else np.ones(indices[0].shape, bool)
    for index, size in zip(indices, array.shape):
        chosen = chosen & (index >= 0) & (index < size)
    return chosen, tuple(index[chosen] for index in indices)


def _gather(op: Op, env: Env, array: np.ndarray, *rest: Any) -> Any:
    chosen, indices = selected(array, rest, masked=len(rest) > array.ndim)
    result = np.full(op.results[0].shape, op.attributes["pad"], array.dtype)
    result[chosen] = array[indices]
    return result[()]


def _scatter(op: Op, env: Env, array: np.ndarray, value: Any, *rest: Any) -> None:
    chosen, indices = selected(array, rest, masked=len(rest) > array.ndim)
    elements = np.asarray(value)[chosen]
    if op.attributes["combine"] == "add":
        np.add.at(array, indices, elements)
    else:
        array[indices] = elements


# Shapes.


def _iota(op: Op, env: Env) -> np.ndarray:
    return np.arange(op.results[0].shape[0], dtype=np.int32)


def _broadcast(op: Op, env: Env, x: Any) -> np.ndarray:
    return np.broadcast_to(x, op.results[0].shape)


def _reshape(op: Op, env: Env, x: np.ndarray) -> np.ndarray:
    return x.reshape(op.results[0].shape)


def _permute(op: Op, env: Env, x: np.ndarray) -> np.ndarray:
    return x.transpose(op.attributes["order"])


def _cat(op: Op, env: Env, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.concatenate((a, b), op.attributes["axis"])


def _split(op: Op, env: Env, x: np.ndarray) -> list[np.ndarray]:
    return np.split(x, 2, op.attributes["axis"])


# Products.


def to_tf32(x: np.ndarray) -> np.ndarray:
    """f32 rounded to 10 bits of mantissa, to nearest, ties to even; infinities and NaN stay."""
    bits = x.view(np.uint32)
    rounded = (bits + np.uint32(0xFFF) + ((bits >> np.uint32(13)) & np.uint32(1))) & np.uint32(0xFFFFE000)
    return np.where(np.isfinite(x), rounded.view(np.float32), x)


def multiply(a: np.ndarray, b: np.ndarray, dtype: np.dtype[Any], precision: str) -> np.ndarray:
    """a @ b in the precision of a matrix unit, before it is added to an accumulator of `dtype`."""
    if dtype.kind == "i":
        # Exact: products of 8-bit numbers summed over any tile stay far below 2^53.
        return np.matmul(a.astype(np.float64), b.astype(np.float64)).astype(np.int64)
    if dtype == np.float64:
        return np.matmul(a, b)
    a, b = np.ascontiguousarray(a, np.float32), np.ascontiguousarray(b, np.float32)
    if precision == "tf32":
        return np.matmul(to_tf32(a), to_tf32(b))
    if precision == "tf32x3":
        high_a, high_b = to_tf32(a), to_tf32(b)
        low_a, low_b = to_tf32(a - high_a), to_tf32(b - high_b)
        corrections = np.matmul(low_a, high_b) + np.matmul(high_a, low_b)
        # The low part of an infinity is NaN; the product of the high parts says all there is to say.
        return np.where(np.isnan(corrections), 0, corrections) + np.matmul(high_a, high_b)
    return np.matmul(a, b)


def _dot(op: Op, env: Env, a: np.ndarray, b: np.ndarray, acc: np.ndarray) -> np.ndarray:
    product = multiply(a, b, acc.dtype, op.attributes["precision"])
    return (product + acc.astype(product.dtype)).astype(acc.dtype)


def _dot4(op: Op, env: Env, a: Any, b: Any, acc: Any) -> Any:
    """In integers of 32 bits, byte by byte; what overflows wraps."""
    a_type = np.int8 if op.attributes["signed"] else np.uint8
    total = acc
    for place in range(0, 32, 8):
        left, right = ((x >> place).astype(t).astype(np.int32) for x, t in ((a, a_type), (b, np.int8)))
        total = total + left * right
    return total


# Reductions: the combine region runs on whole arrays of elements.


def _combine(op: Op, env: Env, left: Sequence[np.ndarray], right: Sequence[np.ndarray]) -> list[np.ndarray]:
    outcome = op.regions[0](env, *left, *right)
    return [np.broadcast_to(value, part.shape) for value, part in zip(outcome, left)]


def _single(op: Op, outputs: list[np.ndarray]) -> Any:
    return outputs[0] if len(op.results) == 1 else outputs


def _reduce(op: Op, env: Env, *sources: np.ndarray) -> Any:
    """Neighbours are combined in pairs until one is left, so the function need not be commutative."""
    parts = [np.moveaxis(s, op.attributes["axis"], 0) for s in sources]
    while (count := len(parts[0])) > 1:
        last = [p[count - 1 :] for p in parts] if count % 2 else None
        even = count - count % 2
        parts = _combine(op, env, [p[:even:2] for p in parts], [p[1:even:2] for p in parts])
        if last is not None:
            parts = [np.concatenate(pair) for pair in zip(parts, last)]
    return _single(op, [p[0] for p in parts])


def _scan(op: Op, env: Env, *sources: np.ndarray) -> Any:
    """Each element takes in the ones 1, 2, 4 … before it, as threads do side by side (Hillis and Steele, "Data
    parallel algorithms", 1986)."""
    axis = op.attributes["axis"]
    order = slice(None, None, -1 if op.attributes["reverse"] else 1)
    parts = [np.moveaxis(s, axis, 0)[order] for s in sources]
    length, distance = len(parts[0]), 1
    while distance < length:
        later = _combine(op, env, [p[:-distance] for p in parts], [p[distance:] for p in parts])
        parts = [np.concatenate((p[:distance], new)) for p, new in zip(parts, later)]
        distance *= 2
    return _single(op, [np.moveaxis(p[order], 0, axis) for p in parts])


def _print(op: Op, env: Env, value: Any) -> None:
    print(f"{env.program_id} {op.attributes['text']}", declared(value, op.attributes["dtype"]))


REGISTRY: dict[str, Entry] = {
    "tile.program_id": _program_id,
    "tile.num_programs": _num_programs,
    "tile.dim": _dim,
    "tile.load": _load,
    "tile.store": _store,
    "tile.atomic_add": _atomic_add,
    "tile.gather": _gather,
    "tile.scatter": _scatter,
    "tile.iota": _iota,
    "tile.broadcast": _broadcast,
    "tile.reshape": _reshape,
    "tile.permute": _permute,
    "tile.cat": _cat,
    "tile.split": _split,
    "tile.dot": _dot,
    "tile.dot4": _dot4,
    "tile.reduce": _reduce,
    "tile.scan": _scan,
    "tile.print": _print,
}
