"""How far results may be off: what rounding does to a kernel on the inputs at hand.

The interpreter runs the kernel in exact arithmetic, which gives the values R that all else is compared with,
and in that of the hardware, which gives H. H - R is one sample of the kernel's rounding errors; another order
of sums and the functions of a GPU give others of its kind. So the tolerance of an element is

    SAFETY * noise + the larger of OUTPUT_ULPS ulp of R in its own type and FUNCTION_ULPS ulp of R in f32

where `noise` is the largest |H - R|, less one ulp, among the elements up to REACH times as large as this one.
One ulp is what two values on either side of a rounding boundary differ by, however close they are. What a narrow
output type hides, until sums cancel, is seen by running both arithmetics without rounding to it. Results
that cancel to little come with the errors of the large numbers that they are made of, hence REACH; but
what is smaller by far, as exponentials are, is not forgiven the errors of the largest. Where an output has few
elements, the kernel is run again on inputs that differ slightly, for more samples.
Integers and truth values must be equal, unless rounding changes them (H differs from R): then by no more.

To run a program again in another precision is what Kahan, "How futile are mindless assessments of roundoff in
floating-point computation?", 2006, proposes for finding out what rounding does to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np

from mosaic_compile import interpreter
from mosaic_compile.interpreter import Entry, Env, Op, bind_arguments
from mosaic_compile.interpreter.exact import is_float, wide
from mosaic_compile.mlir import ir

from .case import Case, run_kernel, same_layout

SAFETY = 8  # one sample of the errors stands for all
OUTPUT_ULPS = 2
# GPUs' functions are off by some ulp where the interpreter rounds once: exp by 2 + 1.2 |x| (CUDA C++ Programming Guide,
# intrinsic functions), divisions and square roots by 2.
FUNCTION_ULPS = 16
REACH = 1024.0
SAMPLES = 64  # the fewest elements among which noise is looked for
AGAIN = 8  # the most runs more for an output of fewer elements
NUDGE = 2.0**-6  # how far their inputs differ, relatively: bf16 has 8 bits
# Where the kernel computes in f64 there is nothing wider to compare with: errors relative to the largest element.
F64_ERROR = 2.0**-40


@dataclass(frozen=True, eq=False)
class Rounding:
    """One output in three arithmetics.

    real: without the kernel's own conversions to narrower types either; None if not run. hidden: |H - R| of both
    without such conversions, in float64. again: the same output of slightly other inputs.
    """

    exact: np.ndarray
    hardware: np.ndarray
    real: np.ndarray | None
    hidden: np.ndarray | float = 0.0
    again: tuple[Rounding, ...] = ()

    @property
    def error(self) -> np.ndarray:
        """|H - R|."""
        return distance(self.hardware, self.exact)

    @property
    def conversions(self) -> np.ndarray:
        """What the kernel's conversions to narrower types do to each element."""
        return np.zeros(self.exact.shape) if self.real is None else distance(self.real, self.exact)

    def tolerance(self, more: np.ndarray | float = 0.0) -> np.ndarray:
        """How far each element may be from R, in float64. more: errors of another source, by element.

        Infinite where rounding decides whether an element is finite.
        """
        if not is_float(self.exact.dtype):
            return np.full(self.exact.shape, self.error.max(initial=0.0))
        size, own, error = self.size, ulp(self.exact), self.error
        samples = (self, *self.again)
        sizes, excess = (
            np.concatenate(list(map(np.ravel, x))) for x in zip(*((s.size, s.excess) for s in samples))
        )
        if self.exact.dtype == np.float64:
            rest = OUTPUT_ULPS * own + F64_ERROR * size.max(initial=0.0)
        else:
            rest = np.maximum(OUTPUT_ULPS * own, FUNCTION_ULPS * ulp(size.astype(np.float32)))
        return np.where(np.isinf(error), np.inf, SAFETY * noise(excess, sizes, size) + rest + more)

    @property
    def size(self) -> np.ndarray:
        """|R|, 0 where it is not finite."""
        size = np.abs(wide(self.exact))
        return np.where(np.isfinite(size), size, 0.0)

    @property
    def excess(self) -> np.ndarray:
        """|H - R| less one ulp, or what the output's type hides; 0 where rounding decides whether an element is finite."""
        finite = np.where(np.isfinite(self.error), self.error, 0.0)
        return np.maximum(finite - ulp(self.exact), self.hidden)


def noise(excess: np.ndarray, sizes: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """For each wanted size the largest excess of samples up to REACH times as large, of which SAMPLES are looked at at least."""
    if not sizes.size:
        return np.zeros(wanted.shape)
    order = np.argsort(sizes)
    largest = np.maximum.accumulate(excess[order])
    count = np.searchsorted(sizes[order], REACH * wanted, side="right")
    return largest[np.clip(count, min(SAMPLES, sizes.size), sizes.size) - 1]


def ulp(x: np.ndarray) -> np.ndarray:
    """The distance to the next number of the same type, in float64, the farther of two; 0 for what is not finite."""
    with np.errstate(all="ignore"):
        above = np.abs(np.spacing(x).astype(np.float64))  # NaN for the largest number
        below = np.abs(wide(x) - wide(np.nextafter(x, np.zeros_like(x))))
        return np.nan_to_num(np.fmax(above, below), nan=0.0, posinf=0.0)


def distance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """|x - y| in float64, element by element: 0 where they are the same or both NaN, infinite where just one is finite."""
    if not is_float(y.dtype):
        x, y = (a.astype(np.int8) if a.dtype == ml_dtypes.int4 else a for a in (x, y))
        # Unequal integers differ, also where float64 does not hold them.
        return np.where(x == y, 0.0, np.maximum(np.abs(x.astype(np.float64) - y.astype(np.float64)), 1.0))
    a, b = wide(x), wide(y)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        difference = np.abs(a - b)
    return np.where(same, 0.0, np.where(np.isfinite(difference), difference, np.inf))


def _as_it_is(op: Op, env: Env, x: np.ndarray) -> np.ndarray:
    return x


# The two arithmetics without the conversions to narrower types that the kernel asks for.
REAL: dict[str, Entry] = interpreter.ARITHMETIC["exact"] | {"arith.truncf": _as_it_is}
UNROUNDED: dict[str, Entry] = interpreter.ARITHMETIC["hardware"] | {"arith.truncf": _as_it_is}


def roundings(case: Case) -> dict[str, Rounding]:
    """Each output in the three arithmetics; raises InterpreterError for a program that fails."""
    module = case.lowered(0)
    exact, hardware = (_interpreted(case, module, arithmetic) for arithmetic in ("exact", "hardware"))
    real = _run(case, module, REAL) if case.kernel.reference is not None else {}
    unrounded, unrounded_exact = (_run(case, module, r, as_float64=True) for r in (UNROUNDED, REAL))
    hidden = {name: _finite(distance(unrounded[name], unrounded_exact[name])) for name in case.outputs}
    again: list[dict[str, Rounding]] = []
    least = min(
        (array.size for array in exact.values() if array.size and is_float(array.dtype)), default=SAMPLES
    )
    for seed in range(min(AGAIN, -(-SAMPLES // least) - 1)):
        other = nudged(case, seed)
        pair = [_interpreted(other, module, arithmetic) for arithmetic in ("exact", "hardware")]
        again.append({name: Rounding(pair[0][name], pair[1][name], None) for name in case.outputs})
    return {
        name: Rounding(
            exact[name], hardware[name], real.get(name), hidden[name], tuple(more[name] for more in again)
        )
        for name in case.outputs
    }


def nudged(case: Case, seed: int) -> Case:
    """The case with each element of floating-point arrays changed by up to NUDGE of itself."""
    generator = np.random.default_rng(seed)

    def change(value: Any) -> Any:
        if not isinstance(value, np.ndarray) or not is_float(value.dtype):
            return value
        changed = same_layout(value)
        factor = 1 + NUDGE * generator.uniform(-1, 1, value.shape)
        with np.errstate(all="ignore"):
            changed[...] = (wide(value) * factor).astype(value.dtype)
        return changed

    return replace(case, values={name: change(value) for name, value in case.values.items()})


def _interpreted(case: Case, module: ir.Module, arithmetic: str) -> dict[str, np.ndarray]:
    arguments = case.arguments()
    if 0 not in case.grid:
        interpreter.run(module, list(arguments.values()), case.grid, arithmetic=arithmetic)
    return case.written(arguments)


def _run(
    case: Case, module: ir.Module, registry: Mapping[str, Entry], as_float64: bool = False
) -> dict[str, np.ndarray]:
    """The outputs by the entries of a registry; as_float64: those of floats are not rounded to their type."""
    arguments = case.arguments()
    names = list(arguments)
    bound = bind_arguments(module, list(arguments.values()))
    given = [value if isinstance(value, np.ndarray) else wide(value) for value in bound]
    if as_float64:
        given = [wide(v) if n in case.outputs else v for n, v in zip(names, given)]
    run_kernel(module, registry, given, case.grid)
    return (
        {n: v for n, v in zip(names, given) if n in case.outputs} if as_float64 else case.written(arguments)
    )


def _finite(errors: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(errors), errors, 0.0)
