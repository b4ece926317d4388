"""The tuned candidate for a call, where there is one. Looked for when a call is prepared, not when it is repeated."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import Any

from mosaic_compile import driver
from mosaic_compile.errors import MosaicError
from mosaic_compile.frontend import trace
from mosaic_compile.language.kernel import Candidate, Kernel
from mosaic_compile.runtime.arguments import Bound, specialize_call
from mosaic_compile.targets import Target

from . import results
from .machine import Machine

_found: dict[tuple[Any, ...], Candidate | None] = {}


def entry_for(kernel: Kernel, bound: Bound, target: Target, device: int | None) -> Candidate | None:
    """What `kept_for` gives; with MOSAIC_AUTOTUNE=1 a call like none before is tuned now.

    The call's arrays must be on the device. Raises as Kernel.autotune does.
    """
    found = kept_for(kernel, bound, target, device)
    wanted = os.environ.get("MOSAIC_AUTOTUNE", "0") not in ("", "0")
    if found is None and wanted and len(kernel.candidates(target.machine, bound.given)) > 1:
        from .autotune import tune_first

        return tune_first(kernel, bound, target, device)
    return found


def kept_for(kernel: Kernel, bound: Bound, target: Target, device: int | None) -> Candidate | None:
    """The entry that tuning has found for calls like this one; None where nothing is kept.

    device: the number of the GPU; None for the CPU. Once looked for, the answer stays for this process.
    """
    if not results.any_kept():
        return None
    about = machine_of(device).about
    key = _key(kernel, bound, about)
    if key not in _found:
        name = result_name(kernel, bound, target, about)
        kept = None if name is None else results.look_up(name, kernel)
        _found[key] = None if kept is None else kept.entry
    return _found[key]


def remember(kernel: Kernel, bound: Bound, about: Mapping[str, str], entry: Candidate) -> None:
    """Makes an entry the answer for calls like this one."""
    _found[_key(kernel, bound, about)] = entry


def _key(kernel: Kernel, bound: Bound, about: Mapping[str, str]) -> tuple[Any, ...]:
    buckets = tuple(results.bucket(bound.sizes).items())
    return kernel, tuple(bound.given), repr(specialize_call(kernel, bound).key), repr(about), buckets


def machine_of(device: int | None) -> Machine:
    """What times launches on a GPU, or, without one, on this machine's CPU."""
    if device is None:
        from .host import Host

        return Host()
    return _gpu(device)


@functools.cache
def _gpu(device: int) -> Machine:
    from .gpu import Gpu

    return Gpu(device)


def result_name(kernel: Kernel, bound: Bound, target: Target, about: Mapping[str, str]) -> str | None:
    """The name under which a result for this call is kept; None where no entry of `tune` goes through the frontend."""
    entries = kernel.candidates(target.machine, bound.given)
    for entry in entries:
        spec = specialize_call(kernel, bound, entry)
        try:
            key = driver.code_key(driver.Compilation(target), trace(kernel, spec))
        except MosaicError:
            continue
        return results.name_of(about, key, entries, bound.sizes)
    return None
