"""Runs a kernel in every way that this machine has, and compares each with the interpreter."""

from __future__ import annotations

from mosaic_compile.language.kernel import Kernel
from mosaic_compile.runtime.arguments import Bound

from .case import Case, make_case
from .difference import Difference
from .executors import EXECUTORS, FAILURES, Executor, Judge, outputs_right
from .report import CheckReport, Row
from .rounding import Rounding, roundings


def check(kernel: Kernel, bound: Bound, target: str | None = None) -> CheckReport:
    """See Kernel.check."""
    case = make_case(kernel, bound, target)
    case.lowered(1)  # what the target refuses is said before anything runs, which may take long
    found = roundings(case)
    rows: list[Row] = []
    fault = None
    for executor in EXECUTORS[case.target.backend]:
        own, judge = _rows(case, executor, found)
        if fault is None and not all(row.ok for row in own):
            fault = executor.explain(case, judge)
        rows += own
    return CheckReport(case, found, tuple(rows), fault)


def _rows(case: Case, executor: Executor, found: dict[str, Rounding]) -> tuple[list[Row], Judge]:
    name = executor.name.format(target=case.target.name)
    tolerances = {o: r.tolerance(executor.tolerance(case, r)) for o, r in found.items()}
    judge = outputs_right({o: r.exact for o, r in found.items()}, tolerances)
    reason = executor.absent(case)
    if reason is not None:
        return [Row(name, "", "absent", reason=reason)], judge
    try:
        outputs = executor.run(case)
    except FAILURES as error:
        return [Row(name, "", "failed", reason=error.message, error=error)], judge
    rows = []
    for output, rounding in found.items():
        difference = Difference(outputs[output], rounding.exact, tolerances[output])
        rows.append(Row(name, output, "ok" if difference.ok else "differs", difference))
    return rows, judge
