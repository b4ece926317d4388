"""What the kernels' tests share: inputs, launches through the interpreter, comparison with derived bounds.

Each kernel is compared with its float64 reference: as traced, after the passes, and compiled for this machine's CPU. The bounds are what rounding
explains, element by element: a sum of n products in f32 is off by at most n * U32 times the sum of their
magnitudes (Higham, "Accuracy and Stability of Numerical Algorithms", 3.1), and the result is rounded once to its
type.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import settings

from mosaic_compile import interpreter, targets
from mosaic_compile.frontend import trace
from mosaic_compile.language.arrays import ArrayParam
from mosaic_compile.language.dtypes import DTYPES
from mosaic_compile.language.kernel import Kernel
from mosaic_compile.language.symbolic import evaluate
from mosaic_compile.runtime import call
from mosaic_compile.runtime.arguments import bind, specialize_call

TARGETS = [None, "sm90", "sm80", "cpu"]  # None: as traced
on_targets = pytest.mark.parametrize("target", TARGETS, ids=lambda t: t or "traced")
EDGES = [0, 1, 15, 16, 17, 40]  # around tiles of 16
SHAPES = [(5, n) for n in EDGES] + [(m, 17) for m in (0, 1, 3, 4)]  # around tiles of 4 x 16
FLOATS = ["bf16", "f16", "f32"]
PROGRAMS = 3  # of persistent kernels: what `num_sms` stands for

U32 = 2.0**-24  # unit roundoff of f32: the relative error of one operation


def examples(count: int) -> Any:
    """The same random examples in every run, as many as said."""
    return settings(max_examples=count, deadline=None, derandomize=True, database=None)


def roundoff(dtype: Any) -> float:
    """The relative error of rounding to a type."""
    return float(ml_dtypes.finfo(dtype).eps) / 2


def least(dtype: Any) -> float:
    """The error of rounding to a type where numbers are tiny."""
    return float(ml_dtypes.finfo(dtype).smallest_subnormal)


def name_of(dtype: Any) -> str:
    """The DSL's name of a NumPy type."""
    return next(name for name, d in DTYPES.items() if d.numpy == dtype)


def integers(
    seed: int, shape: tuple[int, ...], dtype: str, low: int = 0, high: int | None = None
) -> np.ndarray:
    """From low to high, both included; without high, all that the type holds."""
    limits = np.iinfo(numpy_type(dtype))
    low, high = (limits.min, limits.max) if high is None else (low, high)
    return np.random.default_rng([seed, *shape]).integers(low, high, shape, numpy_type(dtype), endpoint=True)


def numpy_type(name: str) -> np.dtype[Any]:
    return DTYPES[name].numpy


def random(seed: int, shape: tuple[int, ...], dtype: str, scale: float = 1.0) -> np.ndarray:
    values = np.random.default_rng([seed, *shape]).standard_normal(shape) * scale
    return values.astype(np.float32).astype(numpy_type(dtype))


def unwritten(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """An output whose every element the kernel has to write."""
    type_ = numpy_type(dtype)
    return np.full(shape, np.nan if type_.kind not in "iu" else 77, type_)


def launch(kernel: Kernel, *, target: str | None = None, **arguments: Any) -> None:
    """Runs a kernel op by op; with a target, after the passes on its tile stage; compiled, where that is this machine's."""
    bound = bind(kernel, (), arguments)
    if target == targets.HOST:
        call.loaded(kernel, bound)(bound)
        return
    spec = specialize_call(kernel, bound)
    module = trace(kernel, spec)
    if target is not None:
        for pass_ in targets.stages(targets.find(target))[0].passes:
            pass_.run(module)
        assert module.operation.verify()
    grid = tuple(evaluate(text, {**bound.sizes, "num_sms": PROGRAMS}) for text in kernel.grid_text(spec))
    given = [
        arguments[p.name]
        if isinstance(p, ArrayParam)
        else np.asarray(bound.scalars[p.name], spec.dtype_of(p).numpy)[()]
        for p in kernel.signature.params
        if p.name in bound.arrays or p.name in bound.scalars
    ]
    with np.errstate(all="ignore"):
        interpreter.run(module, given, grid)


def assert_within(actual: np.ndarray, expected: np.ndarray, bound: np.ndarray | float) -> None:
    """|actual - expected| <= bound, element by element; infinities and NaN are the same."""
    assert actual.shape == expected.shape
    wide = actual.astype(np.float64)
    with np.errstate(invalid="ignore"):
        good = (wide == expected) | (np.isnan(wide) & np.isnan(expected)) | (abs(wide - expected) <= bound)
        excess = abs(wide - expected) / np.maximum(bound, 1e-300)
    worst = (
        np.unravel_index(np.argmax(np.where(good, -1, np.nan_to_num(excess, nan=np.inf))), good.shape or (1,))
        if good.size
        else ()
    )
    assert good.all(), (
        f"{(~good).sum()} of {good.size} elements differ; at {tuple(map(int, worst))}: {wide[worst]} "
        f"instead of {expected[worst]}, {excess[worst]:.1f} times what rounding explains"
    )
