"""Programs of one grid on several cores, where they cannot notice each other.

NumPy on small tiles holds Python's lock most of the time, so threads gain nothing: worker processes run the
programs, on arrays in files that all of them map. They start when a first run is seen to take long, and stay
for the next.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from mosaic_compile.mlir import ir, new_context
from mosaic_compile.passes import walk

from .evaluator import Function, Program, programs, run_grid

PATIENCE = 0.5  # seconds in one process before others are thought of
GAIN = 1.0  # seconds that they must be expected to save: starting them takes about that long
PARTS = 4  # a worker's share is cut into these, so that none is left alone at the end
ALONE = frozenset({"tile.print", "tile.breakpoint", "tile.atomic_add"})


def independent(module: ir.Module) -> bool:
    """Whether programs may run at once with the result of one after the other.

    Not so: sums by atomics, whose rounding depends on the order; arrays that are read and written; and what
    a person follows on the screen.
    """
    found = walk.operations(module.operation)
    written = walk.written_arrays(module.operation)
    return not any(
        op.name in ALONE
        or (op.name == "tile.scatter" and op.attributes["combine"].value == "add")
        or (op.name in walk.LOADS and op.operands[0] in written)
        for op in found
    )


def run_programs(
    module: ir.Module,
    functions: Mapping[str, Function],
    name: str,
    arguments: Sequence[Any],
    grid: Sequence[int],
    arithmetic: str,
    workers: int | None,
) -> None:
    """All programs of a grid, with the results of running one after the other.

    workers: processes, or None for one a core where that is expected to save time.
    """
    count = workers or os.cpu_count() or 1
    chosen = programs(grid)
    total = int(np.prod(grid))
    if count == 1 or total == 1 or not independent(module):
        run_grid(functions, name, arguments, grid, chosen)
        return
    if workers is None:
        done = _run_for(PATIENCE, functions, name, arguments, grid, chosen)
        left = (total - done) * PATIENCE / max(1, done)
        if left * (1 - 1 / count) < GAIN:
            run_grid(functions, name, arguments, grid, chosen)
            return
    _run_in_workers(module, arguments, grid, arithmetic, list(chosen), count)


def _run_for(
    seconds: float,
    functions: Mapping[str, Function],
    name: str,
    arguments: Sequence[Any],
    grid: Sequence[int],
    chosen: Iterator[Program],
) -> int:
    """Runs programs until the time is over; gives their number."""
    end, done = perf_counter() + seconds, 0
    while perf_counter() < end and (part := list(islice(chosen, 1))):
        run_grid(functions, name, arguments, grid, part)
        done += 1
    return done


@dataclass(frozen=True)
class Mapped:
    """An array argument as a file that processes share."""

    file: Path
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    written: bool

    def open(self) -> np.ndarray:
        size = int(np.prod(self.shape)) * self.dtype.itemsize
        if size == 0:
            return np.empty(self.shape, self.dtype)
        cells = np.memmap(self.file, np.uint8, "r+" if self.written else "r", shape=(size,))
        return np.ndarray(self.shape, self.dtype, cells)


def _run_in_workers(
    module: ir.Module,
    arguments: Sequence[Any],
    grid: Sequence[int],
    arithmetic: str,
    chosen: list[Program],
    count: int,
) -> None:
    from loky import get_reusable_executor

    text = module.operation.get_asm(enable_debug_info=True)
    size = -(-len(chosen) // (count * PARTS))
    parts = [chosen[i : i + size] for i in range(0, len(chosen), size)]
    with _mapped(module, arguments) as given:
        executor = get_reusable_executor(max_workers=count)
        tasks = [executor.submit(run_part, text, given, tuple(grid), arithmetic, part) for part in parts]
        try:
            for task in tasks:
                task.result()
        except BaseException:  # a program failed, or the user wants to stop
            executor.shutdown(wait=True, kill_workers=True)
            raise


@contextmanager
def _mapped(module: ir.Module, arguments: Sequence[Any]) -> Iterator[list[Any]]:
    """The arguments with arrays as files; what workers have written is copied back."""
    (kernel,) = walk.kernels(module)
    written = walk.written_arrays(kernel)
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="mosaic-", dir=memory) as folder:
        given: list[Any] = []
        for number, (parameter, value) in enumerate(zip(kernel.regions[0].blocks[0].arguments, arguments)):
            if isinstance(value, np.ndarray):
                file = Path(folder) / str(number)
                np.ascontiguousarray(value).view(np.uint8 if value.size else value.dtype).tofile(file)
                given.append(Mapped(file, value.dtype, value.shape, parameter in written))
            else:
                given.append(value)
        yield given
        for mapped, value in zip(given, arguments):
            if isinstance(mapped, Mapped) and mapped.written:
                value[...] = mapped.open()


@lru_cache(maxsize=8)
def _prepared(text: str, arithmetic: str) -> tuple[dict[str, Function], str]:
    from .launch import prepare_kernel

    with new_context():
        return prepare_kernel(ir.Module.parse(text), arithmetic)


def run_part(
    text: str, given: Sequence[Any], grid: tuple[int, ...], arithmetic: str, chosen: Sequence[Program]
) -> None:
    """A worker's share: these programs of the kernel in a module's text."""
    functions, name = _prepared(text, arithmetic)
    arguments = [a.open() if isinstance(a, Mapped) else a for a in given]
    run_grid(functions, name, arguments, grid, chosen)
