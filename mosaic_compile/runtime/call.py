"""`kernel(a, b, c)`: arrays on a GPU run there, arrays on the host on its CPU, compiled on first use."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mosaic_compile import driver, targets
from mosaic_compile.artifact import Artifact
from mosaic_compile.errors import LaunchError
from mosaic_compile.language.kernel import Candidate, Kernel
from mosaic_compile.tuning.lookup import entry_for

from . import cuda, direct, forms
from .arguments import Bound, bind, place_of, specialize_call
from .arrays import HOST
from .interpret import interpret
from .launch import Launcher
from .packing import packed

RUNS_ON_CPU = True  # whether arrays on the host go to the CPU target, rather than to the interpreter

# What os.environ keeps, as it keeps it: asking os.environ itself takes a tenth of a call.
_ENVIRONMENT = os.environ._data  # type: ignore[attr-defined]
_INTERPRET = os.environ.encodekey("MOSAIC_INTERPRET")
_OFF = (None, os.environ.encodevalue(""), os.environ.encodevalue("0"))

_compiled: dict[tuple[Any, ...], Any] = {}
_lock = threading.Lock()


def call(kernel: Kernel, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Runs a kernel on a call's arguments; raises ArgumentError, LaunchError and the compiler's errors."""
    interpreted = _ENVIRONMENT.get(_INTERPRET) not in _OFF
    form = None
    if not interpreted and RUNS_ON_CPU:
        launch = direct.LAUNCHES.get(kernel)
        if launch is not None and launch(*args, **kwargs):
            return
        form = forms.form_of(kernel, args, kwargs)
        prepared = None if form is None else forms.prepared_for(form)
        if form is not None and prepared is not None:
            forms.run(prepared, form)
            direct.learn(kernel, form, prepared, args, kwargs)
            return
    bound = bind(kernel, args, kwargs)
    if interpreted or (place_of(bound)[0] == HOST and not RUNS_ON_CPU):
        interpret(kernel, bound)
        return
    with packed(bound) as packed_bound:
        forms.run_bound(loaded(kernel, packed_bound).prepare(packed_bound), packed_bound, form)


def loaded(kernel: Kernel, bound: Bound) -> Any:
    """The compiled kernel for these arguments where their arrays are: a Launcher for a GPU, or a Program for the CPU.

    From memory, from disk, or compiled now.
    """
    target, number = target_of(bound)
    if number is None:
        from .cpu import Program  # LLVM takes its time to load

        return _loaded(kernel, bound, target, Program, None)
    return _loaded(kernel, bound, target, lambda artifact: Launcher(artifact, number), number)


def target_of(bound: Bound) -> tuple[targets.Target, int | None]:
    """What a call is compiled for: the GPU that holds its arrays, with its number, or this machine's CPU."""
    kind, number = place_of(bound)
    return (targets.host_cpu(), None) if kind == HOST else (_target(number), number)


def _loaded(
    kernel: Kernel,
    bound: Bound,
    target: targets.Target,
    load: Callable[[Artifact], Any],
    device: int | None,
) -> Any:
    tuned = entry_for(kernel, bound, target, device)
    entries = kernel.first_choices(target.machine, bound.given, bound.sizes) if tuned is None else (tuned,)
    # The others are for where the first does not fit the target.
    key = (kernel, device, repr(entries), specialize_call(kernel, bound, entries[0]).key)
    found = _compiled.get(key)
    if found is None:
        with _lock:
            found = _compiled.get(key)
            if found is None:
                found = _compiled[key] = load(_compile(kernel, bound, target, entries))
    return found


@functools.cache
def _target(device: int) -> targets.Target:
    cuda.require_driver()
    capability = cuda.compute_capability(device)
    assert capability is not None
    name = f"sm{capability[0]}{capability[1]}"
    if name not in targets.GPUS:
        raise LaunchError(
            f"this GPU is an {name}, which kernels are not compiled for",
            f"the targets are: {', '.join(targets.GPUS)}",
        )
    return targets.GPUS[name]


def _compile(kernel: Kernel, bound: Bound, target: targets.Target, entries: Sequence[Candidate]) -> Artifact:
    """The artifact with the first of these entries that fits the target."""
    compilation = driver.Compilation(target)
    specs = [specialize_call(kernel, bound, entry) for entry in entries]
    return driver.first_that_fits(specs, lambda s: driver.cached_artifact(kernel, s, compilation))[1]
