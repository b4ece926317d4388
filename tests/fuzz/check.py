"""One program through the compiler: interpreted as traced, after each pass on the tile stage, and after the lowering to
Triton's dialect; or compiled for this machine's CPU and run there."""

from __future__ import annotations

import itertools
import linecache
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from mosaic_compile import driver, interpreter, targets
from mosaic_compile.frontend import trace
from mosaic_compile.interpreter import tt
from mosaic_compile.language.kernel import Kernel
from mosaic_compile.mlir import ir
from mosaic_compile.runtime.arguments import bind
from mosaic_compile.runtime.cpu import Program as Loaded

from .data import arguments
from .evaluate import evaluate
from .program import DTYPES, Elementwise, Program

_numbers = itertools.count()
# Functions of which the last bit is not fixed.
ROUNDED = frozenset({"exp", "exp2", "log", "log2", "sin", "cos", "tanh", "sigmoid", "rsqrt"})


class Mismatch(AssertionError):
    """A program means something else after a step of the compiler than before, or the step fails."""


def check(program: Program, target: str, passes: Sequence[Any] | None = None) -> None:
    """Compares a program's NumPy meaning with what the interpreter makes of it after every step to `target`'s tt IR.

    passes: on the tile stage, instead of the target's and the lowering. Raises Mismatch with the kernel, the step
    after which it differs, and the first elements that do.
    """
    wanted = arguments(program)
    evaluate(program, wanted)
    scalars = {s.name: DTYPES[s.dtype].type(s.value) for s in program.scalars}

    def compare(step: str, run: Callable[[dict[str, Any]], None]) -> None:
        found: dict[str, Any] = {**arguments(program), **scalars}
        guarded(f"running {step}", lambda: run(found))
        if difference := first_difference(wanted, found):
            raise Mismatch(f"{step}: {difference}\n\n{program.text}")

    def guarded(step: str, do: Callable[[], Any]) -> Any:
        try:
            return do()
        except Exception as error:
            notes = "\n".join(getattr(error, "__notes__", ()))
            raise Mismatch(f"{step}: {type(error).__name__}: {error}\n{notes}\n\n{program.text}") from error

    def interpret(found: dict[str, Any]) -> None:
        interpreter.run(module, list(found.values()), program.programs, workers=1)

    def lowered(found: dict[str, Any]) -> None:
        tt.launch(module, found, dict(program.sizes), program.programs)

    with defined(program) as kernel:
        spec = kernel.specialize(multiples=dict(program.multiples))
        module = guarded("tracing", lambda: trace(kernel, spec))
        compare("as traced", interpret)
        before = str(module)
        tile_stage, tt_stage = targets.stages(targets.find(target))[:2]
        for pass_ in tile_stage.passes if passes is None else passes:
            guarded(pass_.name, partial(_run, pass_, module))
            if (after := str(module)) != before:
                compare(f"after {pass_.name} ({target})", interpret)
                before = after
        if passes is None:
            for pass_ in tt_stage.passes:
                guarded(pass_.name, partial(_run, pass_, module))
            compare(f"after the lowering to tt ({target})", lowered)


def check_native(program: Program) -> None:
    """Compares a program's NumPy meaning with what it computes on this machine's CPU. Raises Mismatch.

    What uses functions of `ROUNDED` is only run.
    """
    wanted = arguments(program)
    evaluate(program, wanted)
    found = {**arguments(program), **{s.name: s.value for s in program.scalars}}
    with defined(program) as kernel:
        try:
            spec = kernel.specialize(multiples=dict(program.multiples))
            artifact = driver.compile_kernel(kernel, spec, driver.Compilation(targets.host_cpu())).artifact
            assert artifact is not None
            Loaded(artifact)(bind(kernel, (), found))
        except Exception as error:
            raise Mismatch(f"compiled: {type(error).__name__}: {error}\n\n{program.text}") from error
    if not uses_rounded_functions(program) and (difference := first_difference(wanted, found)):
        raise Mismatch(f"compiled: {difference}\n\n{program.text}")


def uses_rounded_functions(program: Program) -> bool:
    return any(isinstance(node, Elementwise) and node.op in ROUNDED for node in program.walk())


@contextmanager
def defined(program: Program) -> Iterator[Kernel]:
    """The kernel that a program's text defines; its lines are there for the frontend, and for error messages."""
    text, file = f"import mosaic_compile as mc\n\n{program.kernel_text}\n", f"<program {next(_numbers)}>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    names: dict[str, Any] = {"__name__": "random"}
    try:
        exec(compile(text, file, "exec"), names)
        yield names["kernel"]
    finally:
        del linecache.cache[file]


def _run(pass_: Any, module: ir.Module) -> None:
    pass_.run(module)
    assert module.operation.verify()


def first_difference(wanted: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]) -> str | None:
    """Where arrays differ, in words; NaN is like NaN, and a zero like one of the other sign."""
    for name, expected in wanted.items():
        a, b = (x if x.dtype.kind in "iub" else x.astype(np.float64) for x in (expected, found[name]))
        same = (a == b) | ((a != a) & (b != b))
        if not same.all():
            places = np.argwhere(~same)
            shown = ", ".join(
                f"{name}[{', '.join(map(str, at))}] is {found[name][tuple(at)]} instead of {expected[tuple(at)]}"
                for at in places[:4]
            )
            return f"{len(places)} of {same.size} elements differ: {shown}"
    return None
