"""`kernel(a, b, c)`: arrays on a GPU run there, compiled on first use; arrays on the host run through the interpreter."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from mosaic_compile import driver, targets
from mosaic_compile.artifact import Artifact
from mosaic_compile.errors import LaunchError
from mosaic_compile.language.arrays import ArrayParam, ScalarParam
from mosaic_compile.language.dtypes import i4
from mosaic_compile.language.kernel import Kernel
from mosaic_compile.language.specialization import Specialization
from mosaic_compile.language.symbolic import evaluate

from . import cuda
from .arguments import Bound, bind, check_written, specialize_call
from .arrays import HOST, as_numpy
from .launch import Launcher

_compiled: dict[tuple[Any, ...], Launcher] = {}
_lock = threading.Lock()


def call(kernel: Kernel, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Runs a kernel on a call's arguments; raises ArgumentError, LaunchError and the compiler's errors."""
    bound = bind(kernel, args, kwargs)
    place = next(((a.device, a.device_index) for a in bound.arrays.values()), (HOST, 0))
    if place[0] == HOST:
        interpret(kernel, bound)
    else:
        launcher(kernel, bound, place[1])(bound)


def interpret(kernel: Kernel, bound: Bound) -> None:
    """Runs a kernel on host arrays, op by op; raises LaunchError for arrays elsewhere."""
    from mosaic_compile import interpreter
    from mosaic_compile.frontend import trace

    if any(array.device != HOST for array in bound.arrays.values()):
        raise LaunchError(
            "the interpreter runs on the host, but the arrays are on a GPU", "pass copies: x.cpu()"
        )

    spec = specialize_call(kernel, bound)
    module = trace(kernel, spec)
    check_written(bound.arrays, written_arrays(module))
    grid = tuple(
        evaluate(text, {**bound.sizes, "num_sms": os.cpu_count() or 1}) for text in kernel.grid_text(spec)
    )
    values: list[Any] = []
    packed: list[tuple[np.ndarray, np.ndarray]] = []
    for param in kernel.signature.params:
        if isinstance(param, ScalarParam):
            values.append(np.asarray(bound.scalars[param.name], spec.dtype_of(param).numpy)[()])
        elif isinstance(param, ArrayParam) and spec.has(param):
            info = bound.arrays[param.name]
            array = as_numpy(info)
            if info.dtype is i4 and array.dtype.itemsize == 1 and array.shape != info.shape:
                elements = unpack_i4(array)
                packed.append((array, elements))
                array = elements
            values.append(array)
    if 0 not in grid:
        interpreter.run(module, values, grid)
    for array, elements in packed:
        array[...] = pack_i4(elements).view(array.dtype)


def unpack_i4(array: np.ndarray) -> np.ndarray:
    """Bytes of two 4-bit numbers, the low one first, as an array of i4 with twice as many columns."""
    signed = array.view(np.int8)
    low, high = (signed << 4).astype(np.int8) >> 4, signed >> 4
    return np.stack([low, high], -1).reshape(*array.shape[:-1], -1).astype(i4.numpy)


def pack_i4(elements: np.ndarray) -> np.ndarray:
    """The inverse of unpack_i4, as int8."""
    wide = elements.astype(np.int8)
    return ((wide[..., 0::2] & 15) | (wide[..., 1::2] << 4)).astype(np.int8)


def written_arrays(module: Any) -> frozenset[str]:
    """The names of the arrays that a traced kernel writes."""
    from mosaic_compile.passes import walk

    (kernel,) = walk.kernels(module)
    written = walk.written_arrays(kernel)
    arguments = zip(kernel.regions[0].blocks[0].arguments, walk.argument_attributes(kernel))
    return frozenset(given["tile.name"].value for argument, given in arguments if argument in written)


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
