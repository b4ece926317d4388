"""Entries that round nothing on the way: what a kernel would give if only memory had finite precision.

Floats of f32 and fewer bits are carried in float64; they are rounded where the kernel converts to a narrower type, where
it reads bits, and where it stores. The difference to the ordinary entries is what rounding does to a
kernel on the inputs at hand, from which comparisons derive their tolerances.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import elementwise, tile
from .elementwise import as_signed
from .evaluator import Entry, Env, Op
from .values import unsigned


def wide(x: Any) -> Any:
    """Floats as float64, anything else as it is."""
    return x.astype(np.float64) if is_float(x.dtype) else x


def is_float(dtype: np.dtype[Any]) -> bool:
    # The narrow types of ml_dtypes are of kind V; its integers are too.
    return dtype.kind == "f" or (dtype.kind == "V" and "int" not in dtype.name)


def _widened(entry: Entry) -> Entry:
    """An entry whose result has the type of its operation, carried in float64."""
    return lambda op, env, *xs: wide(np.asarray(entry(op, env, *xs)))[()]


def _bitcast(op: Op, env: Env, x: Any) -> Any:
    return wide(np.asarray(x).astype(op.operands[0].dtype).view(op.results[0].dtype))[()]


def _scatter(op: Op, env: Env, array: np.ndarray, value: Any, *rest: Any) -> None:
    tile.REGISTRY["tile.scatter"](op, env, array, np.asarray(value).astype(array.dtype), *rest)


def _dot(op: Op, env: Env, a: np.ndarray, b: np.ndarray, acc: np.ndarray) -> np.ndarray:
    # Machines round the operands of "tf32" in different ways: here they are not rounded at all.
    return np.matmul(a, b) + acc if acc.dtype.kind == "f" else tile.REGISTRY["tile.dot"](op, env, a, b, acc)


REGISTRY: dict[str, Entry] = {
    **{name: _widened(elementwise.REGISTRY[name]) for name in ("arith.constant", "arith.truncf")},
    "math.fma": lambda op, env, a, b, c: a * b + c,
    "arith.extf": lambda op, env, x: x,
    "arith.sitofp": lambda op, env, x: as_signed(x).astype(np.float64),
    "arith.uitofp": lambda op, env, x: unsigned(x).astype(np.float64),
    "arith.bitcast": _bitcast,
    "tile.load": _widened(tile.REGISTRY["tile.load"]),
    "tile.gather": _widened(tile.REGISTRY["tile.gather"]),
    "tile.scatter": _scatter,
    "tile.dot": _dot,
}
