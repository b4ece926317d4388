"""Control flow: `scf` and `func`.

In the combine region of a reduction the scalars are whole arrays, so conditions may be arrays too: both
branches of an `if` are then run and selected from, and a `while` runs until no element goes on. Such
regions have no side effects.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .evaluator import Entry, Env, InterpreterError, Op


def _results(op: Op, values: tuple[Any, ...]) -> Any:
    return values[0] if len(op.results) == 1 else values


def _if(op: Op, env: Env, condition: Any) -> Any:
    then, orelse = op.regions
    if np.ndim(condition):
        taken, other = then(env), orelse(env)
        return _results(op, tuple(np.where(condition, a, b) for a, b in zip(taken, other)))
    return _results(op, (then if condition else orelse)(env))


def _for(op: Op, env: Env, lower: Any, upper: Any, step: Any, *carried: Any) -> Any:
    if any(np.ndim(bound) for bound in (lower, upper, step)):
        raise InterpreterError("the bounds of a loop in a combine region differ from element to element")
    body, index = op.regions[0], op.operands[0].dtype.type
    for i in range(int(lower), int(upper), int(step)):
        carried = body(env, index(i), *carried)
    return _results(op, carried)


def _while(op: Op, env: Env, *carried: Any) -> Any:
    before, body = op.regions
    while True:
        condition, *passed = before(env, *carried)
        if not np.any(condition):
            return _results(op, tuple(passed))
        following = body(env, *passed)
        if np.ndim(
            condition
        ):  # elements that are done stay as they are, and so does what `before` makes of them
            following = tuple(np.where(condition, new, old) for new, old in zip(following, carried))
        carried = following


def _call(op: Op, env: Env, *arguments: Any) -> Any:
    return _results(op, env.functions[op.attributes["callee"]](env, *arguments))


REGISTRY: dict[str, Entry] = {"scf.if": _if, "scf.for": _for, "scf.while": _while, "func.call": _call}
