"""A call made ready for the interpreter: the kernel's IR, its arguments as NumPy arrays, the grid."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from mosaic_compile import targets
from mosaic_compile.errors import ArgumentError
from mosaic_compile.frontend import trace
from mosaic_compile.language.arrays import ArrayParam, ScalarParam
from mosaic_compile.language.kernel import Kernel
from mosaic_compile.language.specialization import Specialization
from mosaic_compile.language.symbolic import evaluate
from mosaic_compile.mlir import ir
from mosaic_compile.passes import walk
from mosaic_compile.stages import PassStage

from . import cuda
from .arguments import Bound, check_written, specialize_call
from .arrays import HOST, ArrayInfo, as_numpy
from .packing import pack_i4, unpack_i4

DEFAULT_TARGET = "sm90"  # whose passes are run where the machine has no GPU


@dataclass(frozen=True)
class HostCall:
    """What the interpreter runs. `values` are the arguments by name, in the order of the IR's function."""

    module: ir.Module
    values: dict[str, Any]
    grid: tuple[int, ...]
    written: frozenset[str]


def interpret(
    kernel: Kernel,
    bound: Bound,
    *,
    after: str | None = None,
    arithmetic: str = "hardware",
    workers: int | None = None,
) -> None:
    """Runs a kernel on a call's arguments, op by op; arrays on a GPU are copied to the host and back.

    after, arithmetic, workers: see Kernel.interpret. Raises ArgumentError and InterpreterError.
    """
    from mosaic_compile import interpreter

    _check_options(arithmetic, workers)
    spec = specialize_call(kernel, bound)
    module = trace(kernel, spec)
    if after is not None:
        run_tile_passes(module, after)
    with on_host(kernel, bound, spec, module) as host:
        if 0 not in host.grid:
            interpreter.run(
                module, list(host.values.values()), host.grid, arithmetic=arithmetic, workers=workers
            )


def _check_options(arithmetic: str, workers: int | None) -> None:
    from mosaic_compile.interpreter import ARITHMETIC

    if arithmetic not in ARITHMETIC:
        raise ArgumentError(f"there is no arithmetic '{arithmetic}'", f"there are: {', '.join(ARITHMETIC)}")
    if workers is not None and (type(workers) is not int or workers < 1):
        raise ArgumentError(
            f"workers={workers!r} is no number of processes", "give 1 or more, or leave it out"
        )


def run_tile_passes(module: ir.Module, after: str, target: str | None = None) -> None:
    """A target's passes on the `tile` dialect up to one by its name; of several with that name, the last.

    Raises ArgumentError where there is none.
    """
    here = targets.gpu_of_this_machine()
    name = target or (here if here in targets.TARGETS else None) or DEFAULT_TARGET
    stage = targets.stages(targets.find(name))[0]
    assert isinstance(stage, PassStage)
    names = [p.name for p in stage.passes]
    if after not in names:
        listed = ", ".join(dict.fromkeys(names))
        raise ArgumentError(f"no pass '{after}' runs on the tile dialect", f"there are: {listed}")
    last = len(names) - names[::-1].index(after)
    for pass_ in stage.passes[:last]:
        pass_.run(module)


@contextmanager
def on_host(kernel: Kernel, bound: Bound, spec: Specialization, module: ir.Module) -> Iterator[HostCall]:
    """The call's arguments for the interpreter; what it writes has reached the caller's arrays at the end."""
    written = written_arrays(module)
    check_written(bound.arrays, written)
    known = {**bound.sizes, "num_sms": os.cpu_count() or 1}
    grid = tuple(evaluate(text, known) for text in kernel.grid_text(spec))
    values: dict[str, Any] = {}
    with ExitStack() as stack:
        for param in kernel.signature.params:
            if isinstance(param, ScalarParam):
                values[param.name] = np.asarray(bound.scalars[param.name], spec.dtype_of(param).numpy)[()]
            elif isinstance(param, ArrayParam) and spec.has(param):
                array = _elements(bound.arrays[param.name], param.name in written)
                values[param.name] = stack.enter_context(array)
        yield HostCall(module, values, grid, written)


@contextmanager
def _elements(info: ArrayInfo, written: bool) -> Iterator[np.ndarray]:
    """An argument's elements: its own memory where that is on the host and each element has a place of its own."""
    on_gpu = info.device != HOST
    memory = cuda.download(info.device_index, *info.extent) if on_gpu else None
    array = as_numpy(info, memory)
    packed = array.shape != info.shape
    elements = unpack_i4(array) if packed else array
    yield elements
    if written and packed:
        array[...] = pack_i4(elements).view(array.dtype)
    if written and memory is not None:
        cuda.upload(info.device_index, info.extent[0], memory)


def written_arrays(module: ir.Module) -> frozenset[str]:
    """The names of the arrays that a traced kernel writes."""
    (kernel,) = walk.kernels(module)
    written = walk.written_arrays(kernel)
    arguments = zip(kernel.regions[0].blocks[0].arguments, walk.argument_attributes(kernel))
    return frozenset(given["tile.name"].value for argument, given in arguments if argument in written)
