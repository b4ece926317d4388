"""`kernel(a, b, c)`: arrays on a GPU run there, compiled on first use; arrays on the host run through the interpreter."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from mosaic_compile import driver, targets
from mosaic_compile.artifact import Artifact
from mosaic_compile.errors import LaunchError
from mosaic_compile.language.kernel import Kernel
from mosaic_compile.language.specialization import Specialization

from . import cuda
from .arguments import Bound, bind, specialize_call
from .arrays import HOST
from .interpret import interpret
from .launch import Launcher

_compiled: dict[tuple[Any, ...], Launcher] = {}
_lock = threading.Lock()


def call(kernel: Kernel, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Runs a kernel on a call's arguments; raises ArgumentError, LaunchError and the compiler's errors."""
    bound = bind(kernel, args, kwargs)
    place = next(((a.device, a.device_index) for a in bound.arrays.values()), (HOST, 0))
    if place[0] == HOST or os.environ.get("MOSAIC_INTERPRET", "0") not in ("", "0"):
        interpret(kernel, bound)
    else:
        launcher(kernel, bound, place[1])(bound)


def launcher(kernel: Kernel, bound: Bound, device: int) -> Launcher:
    """The compiled kernel for these arguments on a GPU: from memory, from disk, or compiled now."""
    spec = specialize_call(kernel, bound)
    key = (kernel, device, _key(spec))
    found = _compiled.get(key)
    if found is None:
        with _lock:
            found = _compiled.get(key)
            if found is None:
                found = _compiled[key] = Launcher(_compile(kernel, spec, bound, device), device)
    return found


def _key(spec: Specialization) -> tuple[Any, ...]:
    parts = (spec.dtypes, spec.dims, spec.dim_multiples, spec.layouts, spec.constants, spec.options)
    return tuple(tuple(sorted(p.items(), key=lambda item: item[0])) for p in parts)


@lru_cache
def _target(device: int) -> targets.Target:
    capability = cuda.compute_capability(device)
    assert capability is not None
    name = f"sm{capability[0]}{capability[1]}"
    if name not in targets.TARGETS:
        raise LaunchError(
            f"this GPU is an {name}, which kernels are not compiled for",
            f"the targets are: {', '.join(targets.TARGETS)}",
        )
    return targets.TARGETS[name]


def _compile(kernel: Kernel, spec: Specialization, bound: Bound, device: int) -> Artifact:
    """The artifact; where the call sets nothing that `tune` does, its first entry that fits the device is taken."""
    compilation = driver.Compilation(_target(device))
    entries = [entry for entry in kernel.tune if not entry.keys() & bound.given.keys()]
    specs = [specialize_call(kernel, bound, entry) for entry in entries] or [spec]
    return driver.first_that_fits(specs, lambda s: driver.cached_artifact(kernel, s, compilation))[1]
