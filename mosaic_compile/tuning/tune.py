"""Tuning a kernel for a call's arguments: which of its candidates is the fastest on this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any

from mosaic_compile.artifact import Artifact
from mosaic_compile.errors import MosaicError, TuningError
from mosaic_compile.frontend import trace
from mosaic_compile.language.kernel import Candidate, Kernel
from mosaic_compile.runtime.arguments import Bound
from mosaic_compile.targets import Target

from . import model, prune, results
from .arrays import array_sets
from .candidates import Choice, choices, words
from .compile import compile_all
from .machine import Machine
from .measure import FINAL, Ready, finals, launches, measure, wake
from .report import Row, TuningReport

Watch = Callable[[tuple[Row, ...], Mapping[int, str]], None]


def unwatched(rows: tuple[Row, ...], doing: Mapping[int, str]) -> None:
    """Nobody looks."""


def tune(
    kernel: Kernel,
    bound: Bound,
    target: Target,
    machine: Machine,
    added: Sequence[Candidate] = (),
    watch: Watch = unwatched,
) -> TuningReport:
    """Compiles and times the candidates on copies of the call's arrays, and gives what was found; nothing is kept.

    added: candidates beside those of `tune`. watch: gets the rows, and what happens to which, whenever that changes.
    Raises ArgumentError, and TuningError where no candidate can be used.
    """
    begin = perf_counter()
    found = choices(kernel, bound, target.machine, added)
    for choice in found:
        results.check_kept(kernel, choice.entry)
    state = _State(found, watch)
    _predict(kernel, bound, machine, state)
    artifacts = _compile(kernel, target, state)
    _time(artifacts, bound, machine, state)
    rows = tuple(state.rows)
    if all(row.timing is None for row in rows):
        raise _none_left(kernel, rows)
    best = min(rows, key=lambda row: row.microseconds)
    seconds = perf_counter() - begin
    return TuningReport(
        kernel.name, machine.about, results.bucket(bound.sizes), dict(bound.sizes), rows, best, seconds
    )


class _State:
    """The rows as they fill; each change is shown."""

    def __init__(self, found: Sequence[Choice], watch: Watch):
        self.specs = [choice.spec for choice in found]
        self.rows = [Row(choice.entry) for choice in found]
        self.doing: dict[int, str] = {}
        self._watch = watch
        self.show()

    def show(self) -> None:
        self._watch(tuple(self.rows), self.doing)

    def set(self, number: int, **changes: Any) -> None:
        self.rows[number] = replace(self.rows[number], **changes)
        self.doing.pop(number, None)
        self.show()

    def fail(self, number: int, error: MosaicError) -> None:
        self.set(number, state="failed", why=error.message, error=error)

    def waiting(self) -> list[int]:
        return [number for number, row in enumerate(self.rows) if row.state == "waiting"]


def _predict(kernel: Kernel, bound: Bound, machine: Machine, state: _State) -> None:
    if machine.rates is None:
        return
    for number, spec in enumerate(state.specs):
        try:
            traced = trace(kernel, spec)
        except MosaicError as error:
            state.fail(number, error)
            continue
        state.set(number, predicted=model.predicted(kernel, spec, traced, bound, machine.rates))
    for number, why in prune.by_model([row.predicted for row in state.rows]).items():
        state.set(number, state="pruned", why=why)


def _compile(kernel: Kernel, target: Target, state: _State) -> dict[int, Artifact]:
    numbers, artifacts = state.waiting(), {}

    def done(place: int, result: Artifact | MosaicError, seconds: float) -> None:
        number = numbers[place]
        if isinstance(result, MosaicError):
            state.fail(number, result)
        else:
            artifacts[number] = result
            state.set(number, compile_seconds=seconds)

    state.doing.update(dict.fromkeys(numbers, "compiling"))
    state.show()
    compile_all(kernel, [state.specs[number] for number in numbers], target, done)
    return artifacts


def _time(artifacts: Mapping[int, Artifact], bound: Bound, machine: Machine, state: _State) -> None:
    programs: dict[int, Any] = {}
    ready: dict[int, Ready] = {}
    for number in sorted(artifacts):
        try:
            programs[number] = machine.load(artifacts[number])
            state.set(number, resources=machine.resources(programs[number]))
        except MosaicError as error:
            state.fail(number, error)
    for number, why in prune.by_resources({n: state.rows[n].resources for n in programs}).items():
        state.set(number, state="pruned", why=why)
    left = [number for number in state.waiting() if number in programs]
    if not left:
        return
    access = {array["name"]: array["access"] for array in artifacts[left[0]].manifest["arrays"]}
    with array_sets(bound, access, machine) as sets:
        copied = replace(
            bound, arrays={n: replace(i, address=sets[0].addresses[n]) for n, i in bound.arrays.items()}
        )
        for number in left:
            state.doing[number] = "timing"
            state.show()
            best = min(row.microseconds for row in state.rows)
            try:
                candidate = Ready(programs[number].prepare(copied), bound.scalars, sets, machine)
                if not ready:
                    wake(candidate)
                state.set(number, state="timed", timing=measure(candidate, best))
                ready[number] = candidate
            except MosaicError as error:
                state.fail(number, error)
        _decide(ready, state)


def _decide(ready: Mapping[int, Ready], state: _State) -> None:
    """Times those that are close to the fastest again, in turn."""
    best = min((row.microseconds for row in state.rows), default=0.0)
    close = [number for number in ready if state.rows[number].microseconds <= FINAL * best]
    if len(close) < 2:
        return
    state.doing.update(dict.fromkeys(close, "timing again"))
    state.show()
    for number, timing in zip(close, finals([ready[number] for number in close], launches(best))):
        state.set(number, timing=timing)


def _none_left(kernel: Kernel, rows: Sequence[Row]) -> TuningError:
    reasons = "; ".join(f"{words(row.entry)}: {row.why}" for row in rows)
    helps = dict.fromkeys(row.error.help for row in rows if row.error is not None and row.error.help)
    return TuningError(
        f"no candidate of '{kernel.name}' can be used: {reasons}", "; ".join(helps) or None, (kernel.span,)
    )
