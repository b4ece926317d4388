"""The ways in which a kernel is run to be compared with the interpreter, in the order of compilation.

A back end adds its own: a function from a case to what is then in the outputs, and why it may not run here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mosaic_compile import interpreter, targets
from mosaic_compile.errors import InterpreterError, LaunchError, MosaicError
from mosaic_compile.interpreter import tt
from mosaic_compile.interpreter.exact import is_float
from mosaic_compile.language.arrays import ArrayParam
from mosaic_compile.mlir import ir
from mosaic_compile.passes import walk
from mosaic_compile.stages import Session

from . import machine
from .case import Case
from .difference import Difference
from .rounding import Rounding

Outputs = dict[str, np.ndarray]
Judge = Callable[[Outputs], bool]


class ReferenceFailure(MosaicError):
    """A `reference` that fails, or gives something else than the kernel's outputs."""


# What makes a row fail rather than the check: the other errors are the caller's or the compiler's.
FAILURES = (InterpreterError, LaunchError, ReferenceFailure)


@dataclass(frozen=True)
class Executor:
    """name: what ran, with {target} for the target's name. run: raises FAILURES, or the compiler's errors.

    absent: why it cannot run here; None: it can. explain: what it means that this is the first one to fail,
    as a message; the judge says whether outputs are right. tolerance: what is added, by element.
    """

    name: str
    run: Callable[[Case], Outputs]
    absent: Callable[[Case], str | None]
    explain: Callable[[Case, Judge], str]
    tolerance: Callable[[Case, Rounding], np.ndarray | float] = lambda case, rounding: 0.0


# The author's function.


def _without_reference(case: Case) -> str | None:
    return None if case.kernel.reference is not None else "the kernel has none: @mc.kernel(reference=…)"


def _run_reference(case: Case) -> Outputs:
    function = case.kernel.reference
    assert function is not None
    known: dict[str, Any] = {**case.spec.constants, **{n: _plain(v) for n, v in case.arguments().items()}}
    wanted = inspect.signature(function).parameters
    given = {name: known[name] for name in wanted if name in known}
    try:
        with np.errstate(all="ignore"):
            result = function(**given)
    except Exception as error:
        raise ReferenceFailure(
            f"the reference of '{case.kernel.name}' raised {type(error).__name__}: {error}",
            "it takes inputs and constants by name",
            (case.kernel.span,),
        ) from error
    results = result if isinstance(result, tuple) else (result,)
    named = dict(zip(_results_in_order(case, len(results)), results))
    return {name: _as_output(case, name, named[name]) for name in case.outputs}


def _plain(value: Any) -> Any:
    """Arrays as they are, scalars as Python's numbers."""
    return (
        value if isinstance(value, np.ndarray) else (float(value) if is_float(value.dtype) else value.item())
    )


def _results_in_order(case: Case, count: int) -> list[str]:
    """The outputs that a reference's results are: those of the signature, or without optional ones left out."""
    declared = [
        p.name
        for p in case.kernel.signature.params
        if isinstance(p, ArrayParam) and (p.name in case.outputs or p.spec.access in ("out", "inout"))
    ]
    for names in (declared, list(case.outputs)):
        if len(names) == count:
            return names
    raise ReferenceFailure(
        f"the reference of '{case.kernel.name}' gives {count} arrays, the kernel writes {', '.join(declared)}",
        "return the outputs in the order of the signature",
        (case.kernel.span,),
    )


def _as_output(case: Case, name: str, result: Any) -> np.ndarray:
    array = case.values[name]
    result = np.asarray(result)
    if result.shape != array.shape:
        raise ReferenceFailure(
            f"the reference of '{case.kernel.name}' gives '{name}' the shape {result.shape}, which is {array.shape}",
            "return the outputs in the order of the signature",
            (case.kernel.span,),
        )
    with np.errstate(all="ignore"):
        return result.astype(array.dtype)


def _explain_reference(case: Case, right: Judge) -> str:
    return f"'{case.kernel.name}' and its reference do not agree: one of the two is wrong"


REFERENCE = Executor(
    "reference",
    _run_reference,
    _without_reference,
    _explain_reference,
    lambda case, rounding: 2 * rounding.conversions,  # which the reference does not do
)


# After the passes on the `tile` dialect.


def _run_module(case: Case, module: ir.Module) -> Outputs:
    arguments = case.arguments()
    if 0 not in case.grid:
        interpreter.run(module, list(arguments.values()), case.grid)
    return case.written(arguments)


def _explain_passes(case: Case, right: Judge) -> str:
    """Runs the kernel after one pass more at a time, until it is wrong."""
    module = case.lowered(0)
    session = Session(case.target, case.spec.options)
    for pass_ in targets.stages(session.target)[0].passes:
        pass_.run(module)
        try:
            ok = right(_run_module(case, module))
        except FAILURES:
            ok = False
        if not ok:
            return f"the pass '{pass_.name}' changes what the kernel means"
    return "the passes on the tile dialect change what the kernel means"


PASSES = Executor(
    "tile passes",
    lambda case: _run_module(case, case.lowered(1)),
    lambda case: None,
    _explain_passes,
)


# Lowered to Triton's dialect.


def _without_tt(case: Case) -> str | None:
    return None if case.target.backend == "triton" else f"{case.target.name} has no stage tt"


def _run_lowered(case: Case) -> Outputs:
    arguments = case.arguments()
    tt.launch(case.lowered(2), arguments, case.bound.sizes, case.grid)
    return case.written(arguments)


LOWERED = Executor(
    "tt",
    _run_lowered,
    _without_tt,
    lambda case, right: (
        "the stage tt, which lowers the tile dialect to Triton's, changes what the kernel means"
    ),
)


# The machine.

# Hopper's tensor cores add fp8 products in about 14 bits: see FP8_PARTIAL_SUM in passes/tile_to_tt.py.
FP8_SUM = 2.0**-13


def _run_on_machine(case: Case) -> Outputs:
    assert case.gpu is not None
    arguments = case.arguments()
    machine.run_on_gpu(case.kernel, case.bound, case.spec, case.target, case.gpu, arguments)
    return case.written(arguments)


def _machine_tolerance(case: Case, rounding: Rounding) -> np.ndarray | float:
    """What tensor cores do otherwise than the interpreter: they add fp8 products in few bits."""
    module = case.lowered(0)  # lives as long as its operations are looked at
    found = [op for op in walk.operations(module.operation) if op.name == "tile.dot"]
    of_fp8 = any("f8" in str(op.operands[0].type) for op in found)
    return FP8_SUM * rounding.size.max(initial=0.0) if of_fp8 else 0.0


MACHINE = Executor(
    "{target}",
    _run_on_machine,
    lambda case: None if case.gpu is not None else machine.why_not(case.target),
    lambda case, right: (
        f"Triton's compiler, or {case.target.name} itself, computes something else than the stage tt says"
    ),
    _machine_tolerance,
)

# This machine's CPU.


def _run_on_cpu(case: Case) -> Outputs:
    arguments = case.arguments()
    machine.run_on_cpu(case.kernel, case.spec, case.target, arguments)
    return case.written(arguments)


CPU = Executor(
    "{target}",
    _run_on_cpu,
    lambda case: None if case.target.name == targets.HOST else "not on this machine",
    lambda case, right: (
        "the lowering of the tile dialect for CPUs, or LLVM, computes something else than the tile dialect says"
    ),
)

EXECUTORS: Mapping[str, tuple[Executor, ...]] = {  # by back end
    "triton": (REFERENCE, PASSES, LOWERED, MACHINE),
    "llvm": (REFERENCE, PASSES, CPU),
}


def outputs_right(wanted: Mapping[str, np.ndarray], tolerances: Mapping[str, np.ndarray]) -> Judge:
    """A judge by the same measure as the rows."""
    return lambda got: all(Difference(got[n], wanted[n], tolerances[n]).ok for n in wanted)
