"""`kernel.autotune(…)`: tunes for a call, keeps the result, shows what happens."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from mosaic_compile.language.kernel import Candidate, Kernel
from mosaic_compile.runtime import forms
from mosaic_compile.runtime.arguments import Bound, bind
from mosaic_compile.runtime.call import target_of
from mosaic_compile.runtime.packing import packed
from mosaic_compile.targets import Target

from . import results
from .lookup import machine_of, remember, result_name
from .machine import Machine
from .report import Row, TuningReport, table, title
from .tune import Watch, tune


def autotune(
    kernel: Kernel,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    candidates: Sequence[Candidate] = (),
    progress: bool | None = None,
) -> TuningReport:
    """See Kernel.autotune."""
    with packed(bind(kernel, args, kwargs)) as bound:
        return tune_bound(kernel, bound, *target_of(bound), candidates, progress)


def tune_bound(
    kernel: Kernel,
    bound: Bound,
    target: Target,
    device: int | None,
    candidates: Sequence[Candidate] = (),
    progress: bool | None = None,
) -> TuningReport:
    """Tunes for a call whose arrays are on a GPU, or on the host where `device` is None; raises as Kernel.autotune does."""
    machine = machine_of(device)
    with results.alone(machine.about):
        return _tune_and_keep(kernel, bound, target, machine, candidates, progress)


def tune_first(kernel: Kernel, bound: Bound, target: Target, device: int | None) -> Candidate:
    """The fastest entry for a call, which is tuned now, unless another process has done that meanwhile."""
    machine = machine_of(device)
    with results.alone(machine.about):
        name = result_name(kernel, bound, target, machine.about)
        kept = None if name is None else results.look_up(name, kernel)
        if kept is None:
            return _tune_and_keep(kernel, bound, target, machine, (), None).best.entry
    remember(kernel, bound, machine.about, kept.entry)
    return kept.entry


def _tune_and_keep(
    kernel: Kernel,
    bound: Bound,
    target: Target,
    machine: Machine,
    candidates: Sequence[Candidate],
    progress: bool | None,
) -> TuningReport:
    with _shown(title(kernel.name, bound.sizes, machine.about), progress) as watch:
        report = tune(kernel, bound, target, machine, candidates, watch)
    entry = report.best.entry
    name = result_name(kernel, bound, target, machine.about)
    if name is not None:
        kept = results.Kept(entry, report.best.microseconds, dict(bound.sizes))
        results.keep(name, kernel, machine.about, kept)
    remember(kernel, bound, machine.about, entry)
    forms.forget()
    return report


@contextmanager
def _shown(heading: str, progress: bool | None) -> Iterator[Watch]:
    """What shows the candidates on standard error while they are tuned: a table that fills, on terminals.

    progress: whether to; None: where standard error is a terminal.
    """
    if not (sys.stderr.isatty() if progress is None else progress):
        yield lambda rows, doing: None
        return
    from rich.console import Console
    from rich.live import Live

    # Back ends redirect the process's standard error while they run: progress has a way of its own.
    with os.fdopen(os.dup(sys.stderr.fileno()), "w") as file:
        console = Console(file=file, width=None if sys.stderr.isatty() else 200)
        console.print(heading, highlight=False)
        with Live(console=console, refresh_per_second=4) as live:

            def watch(rows: tuple[Row, ...], doing: Mapping[int, str]) -> None:
                live.update(table(rows, dict(doing)))

            yield watch
