"""The interpreter's entries, watched: arithmetic for mistakes, control flow for mistakes that decide something.

Entries that only move elements, and reductions, are the interpreter's own: they run on tainted values too, and
what a combine region computes is watched op by op.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from mosaic_compile.interpreter import REGISTRY, Entry, Env, Op, elementwise
from mosaic_compile.interpreter.tile import multiply

from . import births
from .births import Find
from .memory import MEMORY
from .tainted import Tainted, origin_of, select, union, value_of, with_origin
from .words import computes

# Elementwise arithmetic.


def _watched(entry: Entry, find: Find | None, inherit: Callable[..., Any] = union) -> Entry:
    """An elementwise entry. inherit: the result's origin by its operands."""

    def run(op: Op, env: Env, *xs: Any) -> Any:
        tainted = Tainted in map(type, xs)
        values = tuple(map(value_of, xs)) if tainted else xs
        result = entry(op, env, *values)
        found = find(op, result, *values) if find else ()
        if not tainted and not found:
            return result
        origin = inherit(xs) if tainted else np.int64(0)
        for kind, mask in found:
            origin = np.maximum(origin, _taint(op, env, kind, mask, values, result))
        return with_origin(result, origin)

    return run


def _taint(op: Op, env: Env, kind: str, mask: Any, operands: tuple[Any, ...], result: Any) -> Any:
    """The origin of mistakes; of operands and result, only the lanes in question are kept."""
    lanes = np.flatnonzero(mask)
    kept = [np.broadcast_to(x, np.shape(mask)).reshape(-1)[lanes] for x in (*operands, result)]

    def text(lane: int) -> str:
        at = np.searchsorted(lanes, lane)
        return computes(op, kind, *(x[at] for x in kept))

    return env.state.taint(kind, op, mask, text)


def _several(entry: Entry) -> Entry:
    """An elementwise entry with several results."""

    def run(op: Op, env: Env, *xs: Any) -> Any:
        results = entry(op, env, *map(value_of, xs))
        origin = union(xs)
        return tuple(with_origin(r, origin) for r in results) if np.any(origin) else results

    return run


def _dominated(by_ones: bool) -> Callable[..., Any]:
    """The origin of `a & b`, of `a | b`: where one side alone decides, the other's mistakes do not count."""

    def inherit(xs: tuple[Any, Any]) -> Any:
        decides = [(origin_of(x) == 0) & (~value_of(x) == 0 if by_ones else value_of(x) == 0) for x in xs]
        return np.where(decides[0] | decides[1], 0, union(xs))

    return inherit


def _select(op: Op, env: Env, condition: Any, a: Any, b: Any) -> Any:
    if Tainted in (type(condition), type(a), type(b)):
        return select(condition, a, b)
    return REGISTRY[op.name](op, env, condition, a, b)


# Matrix products.


def _dot(op: Op, env: Env, *xs: Any) -> Any:
    a, b, acc = map(value_of, xs)
    result = REGISTRY[op.name](op, env, a, b, acc)
    found = _births_of_dot(op, result, a, b, acc)
    tainted = Tainted in map(type, xs)
    if not tainted and not found:
        return result
    origin = np.broadcast_to(origin_of(xs[2]), result.shape)
    if tainted:
        rows = np.broadcast_to(origin_of(xs[0]), a.shape).max(-1, keepdims=True)
        columns = np.broadcast_to(origin_of(xs[1]), b.shape).max(-2, keepdims=True)
        origin = np.maximum(np.maximum(rows, columns), origin)
    for kind, mask in found:
        origin = np.maximum(origin, _taint(op, env, kind, mask, (), result))
    return with_origin(result, origin)


def _births_of_dot(op: Op, result: Any, a: Any, b: Any, acc: Any) -> births.Births:
    if result.dtype.kind == "i":
        exact = multiply(a, b, acc.dtype, op.attributes["precision"]) + acc.astype(np.int64)
        return (("overflow", exact != result),) if (exact != result).any() else ()
    if np.isfinite(result).all():
        return ()
    # What a row, a column and the accumulator hold, as the operands of one sum.
    of_row, of_column = a.max(-1, keepdims=True), b.max(-2, keepdims=True)
    least_row, least_column = a.min(-1, keepdims=True), b.min(-2, keepdims=True)
    return births.non_finite(op, result, of_row, of_column, least_row, least_column, acc)


# Control flow.


def _decides(op: Op, env: Env, value: Any, message: str) -> Any:
    """A scalar that decides what is run next. In a combine region it may be an array, which selects instead."""
    if type(value) is not Tainted or value.shape:
        return value
    env.state.blame(op, value.origin, lambda position: {"message": message})
    return value.value


def _if(op: Op, env: Env, condition: Any) -> Any:
    return REGISTRY[op.name](op, env, _decides(op, env, condition, "branches on the outcome"))


def _while(op: Op, env: Env, *carried: Any) -> Any:
    before, body = op.regions

    def checked(env: Env, *values: Any) -> tuple[Any, ...]:
        condition, *passed = before(env, *values)
        return _decides(op, env, condition, "loops on the outcome"), *passed

    return REGISTRY[op.name](replace(op, regions=(checked, body)), env, *carried)


def _overlaps(op: Op, env: Env) -> bool:
    """Whether a loop's iterations may overlap: its loads are issued early, or it is merged with a loop around it."""
    asked = op.attributes.get("tile.num_stages", 1) > 1 or "tile.warp_specialize" in op.attributes
    return asked or "tile.flatten" in op.attributes or any(loop.flat for loop in env.state.loops[-1:])


def _for(op: Op, env: Env, *operands: Any) -> Any:
    bounds = [_decides(op, env, x, "takes the outcome as a loop's bound") for x in operands[:3]]
    if not _overlaps(op, env):
        return REGISTRY[op.name](op, env, *bounds, *operands[3:])
    (body,) = op.regions
    with env.state.overlapping("tile.flatten" in op.attributes) as iterate:

        def next_iteration(env: Env, *arguments: Any) -> tuple[Any, ...]:
            iterate()
            return body(env, *arguments)

        return REGISTRY[op.name](replace(op, regions=(next_iteration,)), env, *bounds, *operands[3:])


def _shown(entry: Entry) -> Entry:
    """What a person looks at: the values alone."""
    return lambda op, env, *xs: entry(op, env, *map(value_of, xs))


def registry(overflows: bool) -> dict[str, Entry]:
    """The entries that watch what they compute. overflows: whether integer sums and products that do not fit
    are mistakes, which they are in IR that no pass has reassociated."""
    find = births.FIND | (births.OVERFLOWS if overflows else {})
    watched = {name: _watched(entry, find.get(name)) for name, entry in elementwise.REGISTRY.items()}
    several = ("arith.mului_extended", "arith.mulsi_extended", "arith.addui_extended")
    shown = ("tile.print", "tile.variable", "tile.breakpoint")
    return {
        **REGISTRY,
        **watched,
        "arith.constant": REGISTRY["arith.constant"],
        **{name: _several(REGISTRY[name]) for name in several},
        "arith.andi": _watched(REGISTRY["arith.andi"], None, _dominated(by_ones=False)),
        "arith.ori": _watched(REGISTRY["arith.ori"], None, _dominated(by_ones=True)),
        "arith.select": _select,
        "tile.dot": _dot,
        "scf.if": _if,
        "scf.for": _for,
        "scf.while": _while,
        **{name: _shown(REGISTRY[name]) for name in shown},
        **MEMORY,
    }
