"""A kernel's run under the sanitizer."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from mosaic_compile.errors import ArgumentError
from mosaic_compile.frontend import trace
from mosaic_compile.interpreter import bind_arguments, prepare_module, run_grid
from mosaic_compile.interpreter.evaluator import programs
from mosaic_compile.language.kernel import Kernel
from mosaic_compile.passes import walk
from mosaic_compile.runtime.arguments import Bound, specialize_call
from mosaic_compile.runtime.interpret import HostCall, on_host, run_tile_passes

from .entries import registry
from .report import Finding, Report
from .shadow import Shadow, shadow_of
from .watch import Watch


def sanitize(
    kernel: Kernel, bound: Bound, *, uninitialized: Collection[str] = (), after: str | None = None
) -> Report:
    """Runs a kernel on a call's arguments, one program after the other, and tells what hardware would hide.

    uninitialized, after: see Kernel.sanitize. Raises ArgumentError and InterpreterError.
    """
    spec = specialize_call(kernel, bound)
    outputs = {p.name for p in kernel.signature.arrays if p.spec.access == "out" and spec.has(p)}
    for name in uninitialized:
        if name not in bound.arrays:
            raise ArgumentError(
                f"uninitialized names '{name}', which is no array of this call",
                f"there are: {', '.join(bound.arrays)}",
            )
    module = trace(kernel, spec)
    if after is not None:
        run_tile_passes(module, after)
    with on_host(kernel, bound, spec, module) as host:
        return _run(kernel, host, outputs | set(uninitialized), outputs, overflows=after is None)


def _run(
    kernel: Kernel, host: HostCall, uninitialized: set[str], outputs: set[str], overflows: bool
) -> Report:
    (function,) = walk.kernels(host.module)
    arguments = bind_arguments(host.module, list(host.values.values()))
    watch = Watch(
        host.grid,
        {
            id(argument): shadow_of(
                name, argument.shape, tracked=name in host.written, uninitialized=name in uninitialized
            )
            for name, argument in zip(host.values, arguments)
            if isinstance(argument, np.ndarray)
        },
    )
    prepared = prepare_module(host.module, registry(overflows))
    name = function.attributes["sym_name"].value
    for number, program in enumerate(programs(host.grid)):
        watch.begin(number, program)
        run_grid(prepared, name, arguments, host.grid, [program], watch)
    unwritten = [_unwritten(kernel, s) for s in watch.shadows.values() if s.name in outputs]
    return Report(
        kernel.name,
        int(np.prod(host.grid)),
        (*watch.found.values(), *filter(None, unwritten)),
        watch.clipped(),
    )


def _unwritten(kernel: Kernel, shadow: Shadow) -> Finding | None:
    missing = (shadow.writes == 0) & (shadow.adds == 0)
    if not missing.any():
        return None
    element = tuple(map(int, np.argwhere(missing)[0]))
    written = f"{shadow.name}[{', '.join(map(str, element))}]"
    return Finding(
        "unwritten",
        f"no program writes {written}",
        (kernel.span,),
        array=shadow.name,
        element=element,
        count=int(np.count_nonzero(missing)),
    )
