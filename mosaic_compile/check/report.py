"""What a check found: a table of what ran, where the mistake is made, and where in the outputs the errors lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from mosaic_compile.errors import MosaicError, UsageError

from .case import Case
from .difference import Difference, Element, relative_norm
from .picture import Line, draw, save_image
from .rounding import F64_ERROR, FUNCTION_ULPS, OUTPUT_ULPS, SAFETY, Rounding, is_float
from .writes import Write, Writes, writes_of

WORST = 5  # elements that are listed


@dataclass(frozen=True)
class Row:
    """One output (or all: "") of one way to run the kernel.

    difference: for "ok" and "differs". reason: for "failed" and "absent"; error: for "failed".
    """

    ran: str
    output: str
    status: Literal["ok", "differs", "failed", "absent"]
    difference: Difference | None = field(default=None, repr=False)
    reason: str = ""
    error: MosaicError | None = field(default=None, repr=False)

    @property
    def ok(self) -> bool:
        return self.status in ("ok", "absent")


@dataclass(frozen=True, eq=False)
class CheckReport:
    """rows: in the order of compilation. fault: where the mistake is made, as the first row that fails shows, or None."""

    case: Case
    roundings: dict[str, Rounding]
    rows: tuple[Row, ...]
    fault: str | None

    @property
    def ok(self) -> bool:
        return all(row.ok for row in self.rows)

    def __str__(self) -> str:
        return self.render()

    def render(self, *, pictures: bool | None = None) -> str:
        """The report as text. pictures: where the errors lie; None: if there is a mistake."""
        return "\n".join("".join(text for text, _ in line).rstrip() for line in self.lines(pictures))

    def lines(self, pictures: bool | None = None) -> list[Line]:
        """The report as lines of text with Rich's styles."""
        shown = any(row.status == "differs" for row in self.rows) if pictures is None else pictures
        lines = [*map(_plain, self._header()), [], *self._table(), *map(_plain, self._tolerances()), []]
        lines += [self._verdict(), *self._failure()]
        for row in self._pictured() if shown else ():
            lines += [[], *self._where(row)]
        return lines

    def save_image(self, file: Path) -> None:
        """Writes the map of the worst output as an image; raises UsageError where it cannot be drawn."""
        row = next(iter(self._pictured()), None)
        if row is None or row.difference is None or not row.difference.ratio.size:
            raise UsageError("there is no picture of errors", "nothing ran whose elements could be compared")
        save_image(file, row.difference, self.writes, row.output, f"{self.case.kernel.name}: {row.ran}")

    @cached_property
    def writes(self) -> Writes:
        """Who wrote which element; runs the kernel once more."""
        return writes_of(self.case)

    # The parts.

    def _header(self) -> list[str]:
        case = self.case
        chosen = {**case.spec.dtypes, **case.spec.constants, **case.spec.options}
        settings = " ".join(f"{k}={v}" for k, v in chosen.items() if v is not None)
        arguments = [_argument(case, name) for name in case.values]
        programs = int(np.prod(case.grid))
        count = f"{programs} program{'s' * (programs != 1)}"
        grid = f"{count}, grid ({', '.join(map(str, case.grid))})"
        name = f"{case.kernel.name} for {case.target.name}"
        return [f"{name}{': ' if settings else ''}{settings}", f"  {', '.join(arguments)}", f"  {grid}"]

    def _table(self) -> list[Line]:
        entries = [("", "output", "max error", "relative", "error/tolerance", "")]
        styles = ["bold"]
        for name, rounding in self.roundings.items():
            finite = np.isfinite(rounding.error)
            largest = float(rounding.error.max(initial=0.0, where=finite))
            relative = relative_norm(rounding.error, rounding.exact, finite)
            entries.append(("rounding", name, short(largest), short(relative), "", ""))
            styles.append("dim")
        for row in self.rows:
            if (found := row.difference) is None:
                mark = "FAILED" if row.status == "failed" else ""
                entries.append((row.ran, f"{mark}{': ' * bool(mark)}{row.reason}", "", "", "", ""))
                styles.append("red" if mark else "dim")
                continue
            numbers = (short(found.max_error), short(found.relative), short(found.worst_ratio))
            entries.append((row.ran, row.output, *numbers, "ok" if row.ok else "DIFFERS"))
            styles.append("green" if row.ok else "red")
        whole = [entry for entry in entries if any(entry[2:])]
        widths = [max(map(len, column)) for column in zip(*whole)]
        widths[0] = max(len(entry[0]) for entry in entries)
        return [
            [("  " + "  ".join(t.ljust(w) for t, w in zip(entry, widths)).rstrip(), style)]
            for entry, style in zip(entries, styles)
        ]

    def _tolerances(self) -> list[str]:
        """How the tolerances were derived."""
        lines = []
        for name, rounding in self.roundings.items():
            dtype = self.case.bound.arrays[name].dtype.name
            undecided = int(np.isinf(rounding.error).sum())
            if is_float(rounding.exact.dtype):
                how = f"{SAFETY} x what rounding does to elements of that size + {_least(dtype)}"
            else:
                how = "what rounding does" if rounding.error.any() else "none: rounding changes nothing"
            lines.append(f"  tolerance of {name}: {how}")
            if undecided:
                lines.append(
                    f"    {undecided} elements of it are not compared: rounding decides whether they are finite"
                )
        return lines

    def _verdict(self) -> Line:
        if self.ok:
            ran = list(dict.fromkeys(row.ran for row in self.rows if row.status == "ok"))
            listed = " and ".join(filter(None, [", ".join(ran[:-1]), *ran[-1:]]))
            return [
                ("ok", "bold green"),
                (f": {listed} agree{'s' * (len(ran) == 1)} with the interpreter", ""),
            ]
        return [("error", "bold red"), (f": {self.fault}", "")]

    def _failure(self) -> list[Line]:
        """Where in the kernel's text the first way that failed did so."""
        error = next((row.error for row in self.rows if row.error is not None), None)
        return [] if error is None else [[], *map(_plain, error.render().splitlines())]

    def _pictured(self) -> list[Row]:
        """The rows of the first way that went wrong; if all went well, the nearest to its tolerance for each output."""
        wrong = [row for row in self.rows if row.status == "differs"]
        if wrong:
            return [row for row in wrong if row.ran == wrong[0].ran]
        compared = [row for row in self.rows if row.difference is not None]
        best = {row.output: row for row in sorted(compared, key=lambda r: r.difference.worst_ratio)}  # type: ignore[union-attr]
        return [best[name] for name in self.case.outputs if name in best]

    def _where(self, row: Row) -> list[Line]:
        found = row.difference
        assert found is not None
        outside = (
            f"{found.wrong or 'none'} of {found.ratio.size} elements {'is' if found.wrong == 1 else 'are'}"
        )
        lines: list[Line] = [_plain(f"{row.ran}: {outside} outside of the tolerance of {row.output}")]
        if elements := found.worst(WORST):
            titles = ("element", row.ran, "interpreter", "error", "ulp", "relative", "program", "written at")
            entries = [titles, *(_described(e, self.writes.of(row.output, e.index)) for e in elements)]
            lines += [_plain(f"  {line}") for line in aligned(entries)]
        return [*lines, [], *([("  ", ""), *line] for line in draw(found, self.writes, row.output))]


def _plain(text: str) -> Line:
    return [(text, "")]


def _least(dtype: str) -> str:
    """What is allowed where the sample of rounding errors shows none."""
    if dtype == "f32":
        return f"{max(OUTPUT_ULPS, FUNCTION_ULPS)} ulp"
    if dtype == "f64":
        return f"{OUTPUT_ULPS} ulp + {number(F64_ERROR)} x the largest element"
    return f"{OUTPUT_ULPS} ulp, at least {FUNCTION_ULPS} ulp of f32"


def _argument(case: Case, name: str) -> str:
    value = case.values[name]
    if not isinstance(value, np.ndarray):
        return f"{name}={case.bound.scalars[name]}"
    shape = ", ".join(map(str, value.shape))
    return f"{name} {case.bound.arrays[name].dtype}[{shape}]"


def _described(element: Element, write: Write | None) -> tuple[str, ...]:
    index = f"[{', '.join(map(str, element.index))}]"
    values = (number(element.got), number(element.expected))
    errors = (short(element.error), short(element.ulps), short(element.relative))
    writer = ("none", "nowhere") if write is None else (str(write.program), _written_at(write))
    return (index, *values, *errors, *writer)


def _written_at(write: Write) -> str:
    """Which tile, and the line that stores it."""
    place = f"{write.place.file}:{write.place.line}" if write.place else ""
    if write.offsets is None or write.extents is None:
        return place
    sizes = " x ".join(map(str, write.extents))
    if all(start % extent == 0 for start, extent in zip(write.offsets, write.extents)):
        index = ", ".join(str(start // extent) for start, extent in zip(write.offsets, write.extents))
        tile = f"tile ({index}) of {sizes}"
    else:
        tile = f"block at ({', '.join(map(str, write.offsets))}) of {sizes}"
    return f"{tile}, {place}" if place else tile


def number(x: float | int | bool) -> str:
    """A value of an output, with as many digits as one compares."""
    return f"{x:.6g}" if isinstance(x, float) else str(x)


def short(x: float) -> str:
    """An error."""
    return f"{x:.3g}"


def aligned(entries: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as their widest entry."""
    widths = [max(map(len, column)) for column in zip(*entries)]
    return ["  ".join(t.ljust(w) for t, w in zip(entry, widths)).rstrip() for entry in entries]
