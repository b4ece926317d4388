"""A call to be checked: the kernel, its arguments as they were before it ran, the target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mosaic_compile import targets
from mosaic_compile.errors import ArgumentError
from mosaic_compile.frontend import trace
from mosaic_compile.interpreter import Entry, prepare_module, run_grid
from mosaic_compile.language.kernel import Kernel
from mosaic_compile.language.specialization import Specialization
from mosaic_compile.mlir import ir
from mosaic_compile.passes import walk
from mosaic_compile.runtime.arguments import Bound
from mosaic_compile.runtime.arrays import HOST
from mosaic_compile.runtime.interpret import on_host
from mosaic_compile.stages import Session
from mosaic_compile.targets import Target

from .machine import best_fit, gpu_of


@dataclass(frozen=True, eq=False)
class Case:
    """values: the arguments by name, in the order of the IR's function; nobody writes to these arrays.

    outputs: the arrays that the kernel writes, in the order of its signature. grid: the programs. gpu: the
    number of the GPU that is the target, None where this machine has none.
    """

    kernel: Kernel
    bound: Bound
    spec: Specialization
    target: Target
    gpu: int | None
    values: Mapping[str, Any]
    grid: tuple[int, ...]
    outputs: tuple[str, ...]

    def arguments(self) -> dict[str, Any]:
        """The arguments with arrays of their own, laid out as the caller's are."""
        return {name: same_layout(v) if isinstance(v, np.ndarray) else v for name, v in self.values.items()}

    def lowered(self, stages: int) -> ir.Module:
        """The kernel's IR after the first stages of the target; 0: as traced."""
        module = trace(self.kernel, self.spec)
        session = Session(self.target, self.spec.options)
        for stage in targets.stages(self.target)[:stages]:
            module = stage.run(module, session)
        return module

    def written(self, arguments: Mapping[str, Any]) -> dict[str, np.ndarray]:
        return {name: arguments[name] for name in self.outputs}


def make_case(kernel: Kernel, bound: Bound, target: str | None) -> Case:
    """target: by name; None: that of the GPU which holds the arrays, of this machine's GPU, or else its CPU's.

    Raises ArgumentError, UnknownTargetError and the compiler's errors.
    """
    chosen = _target(bound, target)
    gpu = gpu_of(bound, chosen)
    spec = best_fit(kernel, bound, chosen, gpu)
    with on_host(kernel, bound, spec, trace(kernel, spec)) as host:
        copies = {n: same_layout(v) if isinstance(v, np.ndarray) else v for n, v in host.values.items()}
    outputs = tuple(name for name in copies if name in host.written)
    return Case(kernel, bound, spec, chosen, gpu, copies, host.grid, outputs)


def _target(bound: Bound, name: str | None) -> Target:
    here = targets.gpu_of_this_machine()
    chosen = targets.find(name or (here if here in targets.GPUS else None) or targets.HOST)
    if any(a.device != HOST for a in bound.arrays.values()) and chosen.name != here:
        raise ArgumentError(
            f"the arrays are on a GPU ({here}), but the target is {chosen.name}",
            "leave the target out, or pass arrays on the host",
        )
    return chosen


def run_kernel(
    module: ir.Module, registry: Mapping[str, Entry], arguments: Sequence[Any], grid: Sequence[int]
) -> None:
    """Runs the kernel of a `tile` module by a registry, on arguments that `bind_arguments` gave."""
    (kernel,) = walk.kernels(module)
    run_grid(prepare_module(module, registry), kernel.attributes["sym_name"].value, arguments, grid)


def same_layout(array: np.ndarray) -> np.ndarray:
    """A copy with the same strides: compiled code relies on them."""
    if 0 in array.shape:
        return array.copy()
    steps = [(n - 1) * s for n, s in zip(array.shape, array.strides)]
    before, after = -sum(s for s in steps if s < 0), sum(s for s in steps if s > 0)
    memory = np.empty(before + after + array.itemsize, np.uint8)
    copy: np.ndarray = np.ndarray(array.shape, array.dtype, memory.data, before, array.strides)
    copy[...] = array
    return copy
