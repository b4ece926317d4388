"""What tuning has found, for people and programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mosaic_compile.errors import MosaicError

from .candidates import words
from .measure import Timing

State = Literal["waiting", "pruned", "failed", "timed"]


@dataclass(frozen=True)
class Row:
    """A candidate.

    state: "pruned" without being timed, "failed" or "timed"; "waiting" before. why: what speaks against it. predicted:
    microseconds by model.py. compile_seconds: near 0 for what comes from the cache. resources: of the machine, as far as known.
    """

    entry: Mapping[str, Any]
    state: State = "waiting"
    why: str = ""
    error: MosaicError | None = None
    predicted: float | None = None
    compile_seconds: float | None = None
    resources: Mapping[str, int] = field(default_factory=dict)
    timing: Timing | None = None

    @property
    def microseconds(self) -> float:
        return self.timing.microseconds if self.timing is not None else float("inf")


@dataclass(frozen=True)
class TuningReport:
    """A tuned kernel: its candidates in the order in which they were given, and the fastest.

    about: the device. bucket: the dimensions' sizes that the result is kept for. seconds: that it took. str(report) is a table.
    """

    kernel: str
    about: Mapping[str, str]
    bucket: Mapping[str, int]
    sizes: Mapping[str, int]
    rows: tuple[Row, ...]
    best: Row
    seconds: float

    def __str__(self) -> str:
        console = Console(width=200, color_system=None, highlight=False)
        with console.capture() as capture:
            console.print(table(self.rows), soft_wrap=True)
        lines = [line.rstrip() for line in capture.get().splitlines()]
        return "\n".join([self.title, *lines, self.summary])

    @property
    def title(self) -> str:
        return title(self.kernel, self.sizes, self.about)

    @property
    def summary(self) -> str:
        best = self.best
        first = next(row for row in self.rows if row.state == "timed")
        gain = f"{first.microseconds / best.microseconds:.2f}x as fast as {words(first.entry)}"
        than = "the first that runs" if first is best else gain
        return f"best: {words(best.entry)}, {time(best.microseconds)}, {than}; {self.seconds:.1f} s"


def title(kernel: str, sizes: Mapping[str, int], about: Mapping[str, str]) -> str:
    shape = " ".join(f"{name}={size}" for name, size in sizes.items())
    return f"{kernel}{f' with {shape}' if shape else ''} on {about['device']}"


def table(rows: Sequence[Row], doing: Mapping[int, str] | None = None) -> Table:
    """The candidates with what is known of them; doing: what happens to which just now. Empty columns are left out."""
    best = min((row.microseconds for row in rows), default=float("inf"))
    cells = [_cells(row, best, (doing or {}).get(number, "")) for number, row in enumerate(rows)]
    shown = Table(box=None, pad_edge=False, header_style="bold")
    names = [name for name in COLUMNS if any(own.get(name) for own in cells)]
    for name in names:
        shown.add_column(name, justify="left" if name in ("candidate", "") else "right", no_wrap=True)
    for row, own in zip(rows, cells):
        won = row.timing is not None and row.microseconds == best
        style = "bold green" if won else "dim" if row.why else None
        shown.add_row(*(Text(own.get(name, "")) for name in names), style=style)
    return shown


COLUMNS = (
    "candidate",
    "model",
    "compile s",
    "registers",
    "spilled",
    "shared",
    "time",
    "quartiles",
    "ratio",
    "",
)


def _cells(row: Row, best: float, doing: str) -> dict[str, str]:
    """The texts of a row by column."""
    cells = {"candidate": words(row.entry), "": row.why or doing}
    if row.predicted is not None:
        cells["model"] = time(row.predicted)
    if row.compile_seconds is not None:
        cells["compile s"] = f"{row.compile_seconds:.1f}"
    for column, name in (
        ("registers", "registers"),
        ("spilled", "local_memory"),
        ("shared", "shared_memory"),
    ):
        if name in row.resources:
            cells[column] = str(row.resources[name])
    if (timing := row.timing) is not None:
        cells["time"] = time(timing.microseconds)
        cells["quartiles"] = f"{time(timing.low)} … {time(timing.high)}"
        cells["ratio"] = f"{timing.microseconds / best:.2f}"
        if timing.hopeless:
            cells[""] = f"hopeless: {timing.launches} launch{'es' * (timing.launches > 1)}"
    return cells


def time(microseconds: float) -> str:
    if microseconds < 1000:
        return f"{microseconds:.1f} us"
    return f"{microseconds / 1000:.2f} ms" if microseconds < 1e6 else f"{microseconds / 1e6:.2f} s"
