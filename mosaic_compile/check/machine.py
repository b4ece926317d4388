"""Running a case on the machine that its target is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from mosaic_compile import driver, targets
from mosaic_compile.language.dtypes import i4
from mosaic_compile.language.kernel import Kernel
from mosaic_compile.language.specialization import Specialization
from mosaic_compile.runtime import cuda
from mosaic_compile.runtime.arguments import Bound, bind, specialize_call
from mosaic_compile.runtime.arrays import CUDA, HOST, ArrayInfo, as_numpy
from mosaic_compile.runtime.launch import Launcher
from mosaic_compile.runtime.packing import pack_i4, packed, unpack_i4
from mosaic_compile.targets import Target
from mosaic_compile.tuning.lookup import kept_for


def gpu_of(bound: Bound, target: Target) -> int | None:
    """The number of the GPU that holds the arrays, or else of the first one, where it is the target."""
    number = next((a.device_index for a in bound.arrays.values() if a.device != HOST), 0)
    capability = cuda.compute_capability(number)
    here = capability is not None and f"sm{capability[0]}{capability[1]}" == target.name
    return number if here else None


def why_not(target: Target) -> str:
    """Why a target's code cannot run here."""
    here = targets.gpu_of_this_machine()
    if here == target.name:
        return f"kernels are launched on NVIDIA GPUs, not yet on {target.name}"
    return f"not on this machine, which has {'no GPU' if here is None else f'an {here}'}"


def best_fit(kernel: Kernel, bound: Bound, target: Target, gpu: int | None) -> Specialization:
    """What a call would run: what tuning has found, else of the candidates the first one that fits the GPU, where it is here."""
    if gpu is not None or target.name == targets.HOST:
        tuned = kept_for(kernel, bound, target, gpu)
        if tuned is not None:
            return specialize_call(kernel, bound, tuned)
    entries = kernel.first_choices(target.machine, bound.given, bound.sizes)
    specs = [specialize_call(kernel, bound, entry) for entry in entries]
    if gpu is None:
        return specs[0]
    compilation = driver.Compilation(target)
    return driver.first_that_fits(specs, lambda s: driver.cached_artifact(kernel, s, compilation))[0]


def run_on_gpu(
    kernel: Kernel,
    bound: Bound,
    spec: Specialization,
    target: Target,
    gpu: int,
    arguments: Mapping[str, Any],
) -> None:
    """Compiles, copies the arrays to the GPU in their layout, launches, and copies back what is there then.

    Raises the compiler's errors, ArgumentError and LaunchError.
    """
    launcher = Launcher(driver.cached_artifact(kernel, spec, driver.Compilation(target)), gpu)
    arrays = {name: arguments[name] for name in bound.arrays}
    with ExitStack() as stack:
        there = {
            name: stack.enter_context(on_gpu(bound.arrays[name], array, gpu))
            for name, array in arrays.items()
        }
        launcher(replace(bound, arrays=there))


def run_on_cpu(kernel: Kernel, spec: Specialization, target: Target, arguments: Mapping[str, Any]) -> None:
    """Compiles for this machine's CPU and runs on these arrays, which are written in place.

    Raises the compiler's errors, ArgumentError and LaunchError.
    """
    from mosaic_compile.runtime.cpu import Program  # LLVM takes its time to load

    program = Program(driver.cached_artifact(kernel, spec, driver.Compilation(target)))
    constants = {name: value for name, value in spec.constants.items() if name not in spec.dims}
    with packed(bind(kernel, (), {**arguments, **constants})) as bound:
        program(bound)


@contextmanager
def on_gpu(info: ArrayInfo, array: np.ndarray, gpu: int) -> Iterator[ArrayInfo]:
    """An array's copy on a GPU, at an address with the same low bits; what is in it at the end is copied back."""
    low, high = info.extent
    shift = low % 256  # of what the driver allocates, addresses are multiples of 256
    memory = np.zeros(high - low, np.uint8)
    host = replace(info, device=HOST, owner=None)
    elements = as_numpy(host, memory)
    is_packed = info.dtype is i4
    elements[...] = pack_i4(array).view(elements.dtype) if is_packed else array
    with cuda.using_device(gpu):
        block = cuda.allocate(shift + max(1, high - low))
    try:
        start = block + shift
        cuda.upload(gpu, start, memory)
        yield replace(info, address=start + info.address - low, device=CUDA, device_index=gpu, owner=None)
        memory[...] = cuda.download(gpu, start, start + high - low)
        array[...] = unpack_i4(elements) if is_packed else elements
    finally:
        with cuda.using_device(gpu):
            cuda.free(block)
