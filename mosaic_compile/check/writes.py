"""Which program wrote each element of an output, with which block: found by running the kernel once more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mosaic_compile.errors import Span
from mosaic_compile.interpreter import REGISTRY, Entry, Env, Op, bind_arguments
from mosaic_compile.interpreter.evaluator import Program
from mosaic_compile.passes.places import frames_of

from .case import Case, run_kernel

BLOCK_WRITES = ("tile.store", "tile.atomic_add")
NOBODY = -1


@dataclass(frozen=True)
class Write:
    """One execution of a store.

    extents: the block's size along each axis of the array, 1 where it has none; offsets: its first element.
    Both are None for a scatter, whose elements have no order. place: the store in the kernel's text.
    """

    program: Program
    offsets: tuple[int, ...] | None
    extents: tuple[int, ...] | None
    place: Span | None


@dataclass(eq=False)
class Writes:
    """For each output (by name) the number of the last write to each element, NOBODY where there is none."""

    numbers: dict[str, np.ndarray]
    done: list[Write] = field(default_factory=list)

    def of(self, output: str, index: tuple[int, ...]) -> Write | None:
        number = int(self.numbers[output][index])
        return None if number == NOBODY else self.done[number]

    def tile(self, output: str) -> tuple[int, ...] | None:
        """The extents of the largest block that is stored to an output; None where all are scatters."""
        numbers = np.unique(self.numbers[output])
        extents = [self.done[n].extents for n in numbers if n != NOBODY]
        return max((e for e in extents if e is not None), key=np.prod, default=None)


@dataclass(eq=False)
class _Recorder:
    """The entries that write, which also write their number where the elements go."""

    writes: Writes
    shadows: dict[int, np.ndarray]  # by the identity of the array that the program writes

    def block(self, op: Op, env: Env, array: np.ndarray, value: Any, *offsets: Any) -> None:
        REGISTRY[op.name](op, env, array, value, *offsets)
        starts = tuple(map(int, offsets))
        extents = [1] * array.ndim
        for axis, extent in zip(op.attributes["axes"], np.shape(value)):
            extents[axis] = extent
        number = self._add(op, env, starts, tuple(extents))
        REGISTRY["tile.store"](op, env, self.shadows[id(array)], np.full(np.shape(value), number), *offsets)

    def scatter(self, op: Op, env: Env, array: np.ndarray, value: Any, *rest: Any) -> None:
        REGISTRY[op.name](op, env, array, value, *rest)
        number = self._add(op, env, None, None)
        plain = replace(op, attributes={**op.attributes, "combine": "set"})
        REGISTRY[op.name](plain, env, self.shadows[id(array)], np.full(np.shape(value), number), *rest)

    def _add(self, op: Op, env: Env, offsets: tuple[int, ...] | None, extents: tuple[int, ...] | None) -> int:
        frames = frames_of(op.location)
        self.writes.done.append(Write(env.program_id, offsets, extents, frames[-1] if frames else None))
        return len(self.writes.done) - 1

    def registry(self) -> Mapping[str, Entry]:
        return {**REGISTRY, **dict.fromkeys(BLOCK_WRITES, self.block), "tile.scatter": self.scatter}


def writes_of(case: Case) -> Writes:
    """Runs a case as traced, and watches its stores."""
    module = case.lowered(0)
    arguments = case.arguments()
    bound = dict(zip(arguments, bind_arguments(module, list(arguments.values()))))
    writes = Writes({name: np.full(bound[name].shape, NOBODY) for name in case.outputs})
    recorder = _Recorder(writes, {id(bound[name]): writes.numbers[name] for name in case.outputs})
    run_kernel(module, recorder.registry(), list(bound.values()), case.grid)
    return writes
