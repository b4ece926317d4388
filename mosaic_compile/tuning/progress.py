"""What people see while a kernel is tuned: a table that fills."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from .report import Row, table
from .tune import Watch


@contextmanager
def on_terminals(heading: str, transient: bool = False) -> Iterator[Watch]:
    """As `shown`, where standard error is a terminal; else nothing is shown."""
    if not sys.stderr.isatty():
        yield lambda rows, doing: None
        return
    with shown(heading, transient) as watch:
        yield watch


@contextmanager
def shown(heading: str, transient: bool = False) -> Iterator[Watch]:
    """Shows the candidates on standard error: on terminals as they are tuned, elsewhere once all is done.

    transient: whether the table is gone afterwards.
    """
    from rich.console import Console
    from rich.live import Live

    # Back ends redirect the process's standard error while they run: progress has a way of its own.
    with os.fdopen(os.dup(sys.stderr.fileno()), "w") as file:
        console = Console(file=file, width=None if sys.stderr.isatty() else 200)
        if not transient:
            console.print(heading, highlight=False)
        with Live(console=console, refresh_per_second=4, transient=transient) as live:

            def watch(rows: tuple[Row, ...], doing: Mapping[int, str]) -> None:
                live.update(table(rows, dict(doing)))

            yield watch
