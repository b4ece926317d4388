"""What the sanitizer keeps while a kernel runs: the current program's mistakes, the loops it is in, what was found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mosaic_compile.errors import Span
from mosaic_compile.interpreter import Op
from mosaic_compile.interpreter.evaluator import whole
from mosaic_compile.passes.places import frames_of

from .report import Clipped, Finding, Program
from .shadow import Shadow
from .tainted import FLOAT_RANK, LANE_BITS, LAST_LANE, VALUE_RANK

FLOAT_KINDS = frozenset({"nan", "infinity"})


@dataclass(frozen=True, eq=False)
class Mistake:
    """Lanes of one operation, in one program, that went wrong; text(lane) says how, lanes in row-major order."""

    kind: str
    op: Op
    text: Callable[[int], str]


@dataclass
class Loop:
    """A loop whose iterations may overlap, by the clock: when it began, and when its current iteration did.

    flat: it is merged with the loops inside it.
    """

    began: int
    iteration: int
    flat: bool


@dataclass
class Clip:
    """How many of an access's elements were outside the array."""

    array: str
    outside: int = 0
    total: int = 0


@dataclass(eq=False)
class Watch:
    """State of one run. shadows: by id() of the arrays that the interpreter computes with."""

    grid: tuple[int, ...]
    shadows: dict[int, Shadow]
    program: Program = (0, 0, 0)
    number: int = 0
    mistakes: list[Mistake] = field(default_factory=list)
    loops: list[Loop] = field(default_factory=list)
    clock: int = 0  # counts iterations of the loops that may overlap
    sites: list[Op] = field(default_factory=list)
    site_numbers: dict[Op, int] = field(default_factory=dict)
    clips: dict[Op, Clip] = field(default_factory=dict)
    found: dict[Any, Finding] = field(default_factory=dict)
    frames: dict[Op, tuple[Span, ...]] = field(default_factory=dict)

    def begin(self, number: int, program: Program) -> None:
        """From here on, this program runs; values of the last one are gone, and so are their mistakes."""
        self.number, self.program = number, program
        self.mistakes.clear()

    def program_at(self, number: int) -> Program:
        """A program's place in the grid, by its number."""
        x, y, z = np.unravel_index(number, whole(self.grid), order="F")
        return int(x), int(y), int(z)

    def place(self, op: Op) -> tuple[Span, ...]:
        if op not in self.frames:
            self.frames[op] = frames_of(op.location)
        return self.frames[op]

    def site(self, op: Op) -> int:
        """The operation's number in the marks of array elements."""
        if op not in self.site_numbers:
            self.site_numbers[op] = len(self.sites)
            self.sites.append(op)
        return self.site_numbers[op]

    # Mistakes in values.

    def taint(self, kind: str, op: Op, mask: Any, text: Callable[[int], str]) -> Any:
        """The origin of a value of which the lanes in `mask` are mistakes."""
        rank = (FLOAT_RANK if kind in FLOAT_KINDS else VALUE_RANK) - len(self.mistakes)
        self.mistakes.append(Mistake(kind, op, text))
        lanes = np.arange(np.size(mask), dtype=np.int64).reshape(np.shape(mask))
        return np.where(mask, (rank << LANE_BITS | LAST_LANE) - lanes, 0)[()]

    def blame(self, op: Op, origin: Any, use: Callable[[tuple[int, ...]], dict[str, Any]]) -> None:
        """Reports the mistakes in `origin`, where `op` makes use of the value.

        use: for a position in `origin`, what fields of the finding it gives; its message is what the
        program does with the outcome.
        """
        origin = np.asarray(origin)
        ranks = origin >> LANE_BITS
        for rank in np.unique(ranks[ranks != 0])[::-1]:
            mistake = self.mistakes[(VALUE_RANK if rank > FLOAT_RANK else FLOAT_RANK) - rank]
            places = np.flatnonzero(ranks == rank)
            position = _position(places[0], origin.shape)

            def example(mistake: Mistake = mistake, position: tuple[int, ...] = position) -> Finding:
                fields = use(position)
                what = mistake.text(LAST_LANE - (int(origin[position]) & LAST_LANE))
                outcome = fields.pop("message")
                return Finding(
                    mistake.kind,
                    f"program {self.program} {what}, and {outcome}",
                    self.place(mistake.op),
                    f"it {outcome} here",
                    self.place(op),
                    program=self.program,
                    **fields,
                )

            self.report(mistake.kind, mistake.op, op, len(places), example)

    def report(self, kind: str, op: Op, other: Op, count: int, example: Callable[[], Finding]) -> None:
        """One finding for each kind and pair of places: the first example, and how often."""
        key = kind, self.place(op) or op, self.place(other) or other
        seen = self.found.get(key)
        self.found[key] = (
            replace(example(), count=count) if seen is None else replace(seen, count=seen.count + count)
        )

    # Loops.

    @contextmanager
    def overlapping(self, flat: bool) -> Iterator[Callable[[], None]]:
        """A loop whose iterations may overlap; the value is to be called as each iteration begins."""
        loop = Loop(self.clock + 1, self.clock + 1, flat)
        self.loops.append(loop)

        def iterate() -> None:
            self.clock += 1
            loop.iteration = self.clock

        try:
            yield iterate
        finally:
            self.loops.pop()

    # Clipping.

    def clip(self, op: Op, array: str, outside: int, total: int) -> None:
        """Counts an access's elements outside the array, of all that it is about."""
        count = self.clips.setdefault(op, Clip(array))
        count.outside += outside
        count.total += total

    def clipped(self) -> tuple[Clipped, ...]:
        return tuple(Clipped(self.place(op), c.array, c.outside, c.total) for op, c in self.clips.items())


def _position(index: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(map(int, np.unravel_index(index, shape)))
