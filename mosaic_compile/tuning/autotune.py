"""`kernel.autotune(…)`: tunes for a call, and keeps the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mosaic_compile.language.kernel import Candidate, Kernel
from mosaic_compile.runtime import direct, forms
from mosaic_compile.runtime.arguments import Bound, bind
from mosaic_compile.runtime.call import target_of
from mosaic_compile.runtime.packing import packed
from mosaic_compile.targets import Target

from . import results
from .lookup import machine_of, remember, result_name
from .machine import Machine
from .progress import on_terminals, shown
from .report import TuningReport, title
from .tune import Watch, tune, unwatched


def autotune(
    kernel: Kernel,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    candidates: Sequence[Candidate] = (),
    progress: bool | None = None,
) -> TuningReport:
    """See Kernel.autotune."""
    with packed(bind(kernel, args, kwargs)) as bound:
        target, device = target_of(bound)
        if progress is False:
            return tune_bound(kernel, bound, target, device, candidates)
        heading = title(kernel.name, bound.sizes, machine_of(device).about)
        with (shown if progress else on_terminals)(heading) as watch:
            return tune_bound(kernel, bound, target, device, candidates, watch)


def tune_bound(
    kernel: Kernel,
    bound: Bound,
    target: Target,
    device: int | None,
    candidates: Sequence[Candidate] = (),
    watch: Watch = unwatched,
) -> TuningReport:
    """Tunes for a call whose arrays are on a GPU, or on the host where `device` is None, and keeps the result.

    candidates, watch: see tune.tune. Raises as Kernel.autotune does.
    """
    machine = machine_of(device)
    with results.alone(machine.about):
        return _tune_and_keep(kernel, bound, target, machine, candidates, watch)


def tune_first(kernel: Kernel, bound: Bound, target: Target, device: int | None) -> Candidate:
    """The fastest entry for a call, which is tuned now, unless another process has done that meanwhile."""
    machine = machine_of(device)
    with results.alone(machine.about):
        name = result_name(kernel, bound, target, machine.about)
        kept = None if name is None else results.look_up(name, kernel)
        if kept is None:
            with on_terminals(title(kernel.name, bound.sizes, machine.about), transient=True) as watch:
                return _tune_and_keep(kernel, bound, target, machine, (), watch).best.entry
    remember(kernel, bound, machine.about, kept.entry)
    return kept.entry


def _tune_and_keep(
    kernel: Kernel,
    bound: Bound,
    target: Target,
    machine: Machine,
    candidates: Sequence[Candidate],
    watch: Watch,
) -> TuningReport:
    report = tune(kernel, bound, target, machine, candidates, watch)
    entry = report.best.entry
    name = result_name(kernel, bound, target, machine.about)
    if name is not None:
        kept = results.Kept(entry, report.best.microseconds, dict(bound.sizes))
        results.keep(name, kernel, machine.about, kept)
    remember(kernel, bound, machine.about, entry)
    forms.forget()
    direct.forget()
    return report
