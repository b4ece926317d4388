"""Running a property on many random programs; the first that fails is made small."""

from __future__ import annotations

from collections.abc import Callable

import hypothesis
from hypothesis import HealthCheck, Phase, Verbosity

from .generate import programs
from .program import Program


def search(property_: Callable[[Program], None], *, count: int, seed: int, shrink: bool = True) -> None:
    """Calls a property on `count` programs, the same for the same seed; what it raises is raised for the smallest found."""
    phases = (Phase.generate, Phase.shrink) if shrink else (Phase.generate,)
    settings = hypothesis.settings(
        max_examples=count,
        phases=phases,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        verbosity=Verbosity.quiet,
        suppress_health_check=list(HealthCheck),
    )

    @hypothesis.seed(seed)
    @settings
    @hypothesis.given(programs())
    def run(program: Program) -> None:
        property_(program)

    run()
