"""`kernel(a, b, c)`: arrays on a GPU run there, arrays on the host on its CPU, compiled on first use."""

from __future__ import annotations

import functools
import itertools
import os
import threading
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np

from mosaic_compile import driver, targets
from mosaic_compile.artifact import Artifact
from mosaic_compile.errors import ArgumentError, LaunchError
from mosaic_compile.language.arrays import ArrayParam, ConstParam, ScalarParam
from mosaic_compile.language.dtypes import i4
from mosaic_compile.language.kernel import Kernel
from mosaic_compile.language.specialization import ALIGNMENT, OPTIONS, Specialization

from . import cuda, threads
from .arguments import Bound, bind, check_scalar, specialize_call
from .arrays import HOST
from .interpret import interpret
from .launch import Launcher
from .packing import packed

RUNS_ON_CPU = True  # whether arrays on the host go to the CPU target, rather than to the interpreter
REMEMBERED = 4096  # calls whose preparation is kept

_compiled: dict[tuple[Any, ...], Any] = {}
_prepared: dict[Hashable, Any] = {}
_lock = threading.Lock()


def call(kernel: Kernel, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Runs a kernel on a call's arguments; raises ArgumentError, LaunchError and the compiler's errors."""
    interpreted = os.environ.get("MOSAIC_INTERPRET", "0") not in ("", "0")
    form = None if interpreted or not RUNS_ON_CPU else _form(kernel, args, kwargs)
    if form is not None and _run_like_before(form):
        return
    bound = bind(kernel, args, kwargs)
    place = next(((a.device, a.device_index) for a in bound.arrays.values()), (HOST, 0))
    if interpreted or (place[0] == HOST and not RUNS_ON_CPU):
        interpret(kernel, bound)
    elif place[0] == HOST:
        with packed(bound) as packed_bound:
            _run(program(kernel, packed_bound), packed_bound, form)
    else:
        launcher(kernel, bound, place[1])(bound)


def call_program(owner: Any, loaded: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Runs a program (see cpu.py) on a call's arguments; `owner` has the signature of a kernel."""
    form = _form(owner, args, kwargs)
    if form is None or not _run_like_before(form):
        _run(loaded, bind(owner, args, kwargs), form)


def _run_like_before(form: _Form) -> bool:
    """Runs a call whose preparation is known; False where it is not."""
    try:
        prepared = _prepared.get(form.key)
    except TypeError:  # a constant that cannot be hashed
        return False
    if prepared is None:
        return False
    prepared.run(form.addresses, form.scalars)
    return True


def _run(loaded: Any, bound: Bound, form: _Form | None) -> None:
    """Prepares and runs a call, and keeps the preparation."""
    if any(info.device != HOST for info in bound.arrays.values()):
        raise ArgumentError(
            "the arrays are on a GPU, and this kernel runs on the CPU", "move them to the host"
        )
    prepared = loaded.prepare(bound)
    if form is not None:
        if len(_prepared) >= REMEMBERED:
            _prepared.clear()
        with suppress(TypeError):  # a constant that cannot be hashed
            _prepared[form.key] = prepared
    prepared.run({name: info.address for name, info in bound.arrays.items()}, bound.scalars)


def launcher(kernel: Kernel, bound: Bound, device: int) -> Launcher:
    """The compiled kernel for these arguments on a GPU: from memory, from disk, or compiled now."""
    return _loaded(kernel, bound, _target(device), lambda artifact: Launcher(artifact, device), device)


def program(kernel: Kernel, bound: Bound) -> Any:
    """The compiled kernel for these arguments on this machine's CPU: from memory, from disk, or compiled now."""
    from .cpu import Program  # LLVM takes its time to load

    return _loaded(kernel, bound, targets.host_cpu(), Program, None)


def _loaded(
    kernel: Kernel,
    bound: Bound,
    target: targets.Target,
    load: Callable[[Artifact], Any],
    device: int | None,
) -> Any:
    spec = specialize_call(kernel, bound)
    key = (kernel, device, _key(spec))
    found = _compiled.get(key)
    if found is None:
        with _lock:
            found = _compiled.get(key)
            if found is None:
                found = _compiled[key] = load(_compile(kernel, spec, bound, target))
    return found


def _key(spec: Specialization) -> tuple[Any, ...]:
    parts = (spec.dtypes, spec.dims, spec.dim_multiples, spec.layouts, spec.constants, spec.options)
    return tuple(tuple(sorted(p.items(), key=lambda item: item[0])) for p in parts)


@functools.cache
def _target(device: int) -> targets.Target:
    capability = cuda.compute_capability(device)
    assert capability is not None
    name = f"sm{capability[0]}{capability[1]}"
    if name not in targets.GPUS:
        raise LaunchError(
            f"this GPU is an {name}, which kernels are not compiled for",
            f"the targets are: {', '.join(targets.GPUS)}",
        )
    return targets.GPUS[name]


def _compile(kernel: Kernel, spec: Specialization, bound: Bound, target: targets.Target) -> Artifact:
    """The artifact; where the call sets nothing that `tune` does, its first entry that fits the target is taken."""
    compilation = driver.Compilation(target)
    entries = kernel.candidates(target.machine, bound.given)
    specs = [specialize_call(kernel, bound, entry) for entry in entries]
    return driver.first_that_fits(specs, lambda s: driver.cached_artifact(kernel, s, compilation))[1]


# Calls like one before: what decides the preparation, without looking at more.

_ARRAY, _SCALAR, _CONSTANT = "array", "scalar", "constant"


@functools.cache
def _parameters(
    kernel: Kernel,
) -> tuple[tuple[tuple[str, str, Any], ...], Mapping[str, tuple[str, str, Any]]]:
    kinds = {ArrayParam: _ARRAY, ScalarParam: _SCALAR, ConstParam: _CONSTANT}
    listed = tuple((p.name, kinds[type(p)], p) for p in kernel.signature.params)
    by_name = {p[0]: p for p in listed} | {name: (name, _CONSTANT, None) for name in OPTIONS}
    return listed, by_name


class _Form(NamedTuple):
    """A call on arrays of the host. key: what decides how it is prepared; addresses, scalars: what does not."""

    key: Hashable
    addresses: dict[str, int]
    scalars: dict[str, Any]


def _form(kernel: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> _Form | None:
    """A call's form; None where that takes a closer look: arrays of other libraries, and calls that may be mistaken."""
    listed, by_name = _parameters(kernel)
    if len(args) > len(listed):
        return None
    given: Iterable[tuple[tuple[str, str, Any], Any]] = zip(listed, args)
    if kwargs:
        if not kwargs.keys() <= by_name.keys():
            return None
        given = itertools.chain(given, ((by_name[name], value) for name, value in kwargs.items()))
    key: list[Any] = [kernel, threads.get_num_threads()]
    addresses: dict[str, int] = {}
    scalars: dict[str, Any] = {}
    for (name, kind, declared), value in given:
        key.append(name)
        if kind is _ARRAY:
            if type(value) is np.ndarray and value.dtype != i4.numpy:
                address = value.__array_interface__["data"][0]
                key += (address % ALIGNMENT, value.shape, value.strides, value.dtype, value.flags.writeable)
            elif value is None:
                continue
            elif type(value).__module__ == "torch" and value.device.type == HOST:
                address = value.data_ptr()
                key += (address % ALIGNMENT, value.shape, value.stride(), value.dtype)
            else:
                return None
            addresses[name] = address
        elif kind is _SCALAR:
            try:
                scalars[name] = check_scalar(declared, value)
            except ArgumentError:
                return None
        else:
            key += (type(value), value)
    return _Form(tuple(key), addresses, scalars)
