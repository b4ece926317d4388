"""Timing candidates: many launches on arrays in turn; those that are hopeless get few."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

from .arrays import ArraySet
from .machine import Machine, Run

WAKE = 0.2  # seconds
WARM_UPS = 3
FIRST = 5  # launches that say how many more are worth it
HOPELESS = 1.5  # times the best: no more launches
FAR = 20.0  # times the best: one launch is enough, even the first
BUDGET = 100_000.0  # microseconds of launches of a candidate
MOST = 300
FINAL = 1.1  # times the best: those within are timed again, in turn
ROUNDS = 5


@dataclass(frozen=True)
class Ready:
    """A candidate that can be launched. prepared: has `run(addresses, scalars)`."""

    prepared: Any
    scalars: Mapping[str, Any]
    sets: Sequence[ArraySet]
    machine: Machine

    def times(self, count: int) -> list[float]:
        """Microseconds of that many launches; raises LaunchError."""
        return self.machine.time(self._runs(count))

    def _runs(self, count: int) -> Iterator[Run]:
        for number in range(count):
            arrays = self.sets[number % len(self.sets)]
            launch = partial(self.prepared.run, arrays.addresses, self.scalars)
            yield partial(self._restore, arrays), launch

    def _restore(self, arrays: ArraySet) -> None:
        for to, source, size in arrays.restore:
            self.machine.copy(to, source, size)


@dataclass(frozen=True)
class Timing:
    """microseconds: see Machine.typical. low, high: a quarter of the launches took less, and more. hopeless: few launches
    showed that others are much faster."""

    microseconds: float
    low: float
    high: float
    launches: int
    hopeless: bool = False


def timing(times: Sequence[float], machine: Machine, hopeless: bool = False) -> Timing:
    ordered = sorted(times)
    quarter = len(ordered) // 4
    low, high = ordered[quarter], ordered[-1 - quarter]
    return Timing(machine.typical(times), low, high, len(times), hopeless)


def wake(ready: Ready) -> None:
    """Launches a candidate for a while: clocks rise under load, and who comes first should not pay for that."""
    end, count = perf_counter() + WAKE, FIRST
    while perf_counter() < end:
        ready.times(count)
        count = min(2 * count, MOST)


def measure(ready: Ready, best: float) -> Timing:
    """Times a candidate. best: microseconds of the fastest so far; raises LaunchError where a launch fails."""
    for _ in range(WARM_UPS):
        cold = ready.times(1)
        if cold[0] > FAR * best:
            return timing(cold, ready.machine, hopeless=True)
    first = ready.times(FIRST)
    fastest = min(first)
    if fastest > HOPELESS * best:
        return timing(first, ready.machine, hopeless=True)
    count = launches(fastest)
    return timing(first if count <= FIRST else ready.times(count), ready.machine)


def launches(microseconds: float) -> int:
    """How many launches are worth their time."""
    return min(MOST, max(FIRST, int(BUDGET / max(microseconds, 1.0))))


def finals(ready: Sequence[Ready], count: int) -> list[Timing]:
    """Times candidates that are close to each other again, in turn: what the machine does meanwhile concerns all alike.

    count: launches of each.
    """
    times: list[list[float]] = [[] for _ in ready]
    for _ in range(ROUNDS):
        for own, candidate in zip(times, ready):
            own += candidate.times(max(1, count // ROUNDS))
    return [timing(own, candidate.machine) for own, candidate in zip(times, ready)]
