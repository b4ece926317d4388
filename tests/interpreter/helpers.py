"""What the interpreter's tests share: tracing and running in one call, inputs, comparison."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from mosaic_compile.frontend import trace
from mosaic_compile.interpreter import REGISTRY, Env, prepare_module, run
from mosaic_compile.mlir import ir, new_context


def launch(kernel: Any, *arguments: Any, grid: tuple[int, ...] = (1,), **choices: Any) -> None:
    """Traces a kernel and runs it on arrays, which are written in place."""
    run(trace(kernel, kernel.specialize(**choices)), arguments, grid)


@functools.cache
def _context() -> ir.Context:
    """One for all: to make one takes longer than most tests."""
    return new_context()


def evaluate(text: str, *arguments: Any) -> tuple[Any, ...]:
    """The results of the function @f of a module in text form; tiles are NumPy arrays."""
    with _context(), ir.Location.unknown():
        functions = prepare_module(ir.Module.parse(text), REGISTRY)
    with np.errstate(all="ignore"):
        return functions["f"](Env(functions=functions), *arguments)


def assert_same(actual: Any, wanted: Any, ulps: float = 0) -> None:
    """Equal element types and values, NaN with NaN; floats may be `ulps` units in the last place apart."""
    assert actual.dtype == wanted.dtype, (actual.dtype, wanted.dtype)
    assert np.shape(actual) == np.shape(wanted), (np.shape(actual), np.shape(wanted))
    if actual.dtype.kind in "iub" or actual.dtype.name == "int4":
        np.testing.assert_array_equal(actual, wanted)
        return
    with np.errstate(all="ignore"):
        a, w = actual.astype(np.float64), wanted.astype(np.float64)
        unit = np.abs(np.spacing(wanted).astype(np.float64)) if ulps else 0
        same = (a == w) | (np.isnan(a) & np.isnan(w)) | (np.abs(a - w) <= ulps * unit)
    assert same.all(), f"{a[~same][:5]} instead of {w[~same][:5]}"
