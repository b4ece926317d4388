"""Kernels in golden files, with calls under the sanitizer and the whole report that they must give.

    === name of the case
    @mc.kernel …                 the user's text; its last value `report` is what is compared
    ---
    race: …                      the report, as it is shown

`pytest tests/sanitizer --update` writes the reports anew; read the difference before committing it.
"""

from __future__ import annotations

import itertools
import linecache
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import mosaic_compile as mc
from mosaic_compile.sanitizer import Report

GOLDENS = Path(__file__).parent / "goldens"
_numbers = itertools.count()


@dataclass(frozen=True)
class Case:
    name: str
    text: str
    expected: str

    def report(self) -> Report:
        file = f"<case {next(_numbers)}>"
        linecache.cache[file] = len(self.text), None, self.text.splitlines(keepends=True), file
        names: dict[str, Any] = {"mc": mc, "np": np}
        exec(compile(self.text, file, "exec"), names)
        return names["report"]

    def actual(self) -> str:
        report = self.report()
        text = report.render()
        for finding in report.findings:
            text = text.replace(finding.frames[-1].file, "kernel.py")
        return text


def read_cases(path: Path) -> list[Case]:
    cases = []
    for part in path.read_text().split("=== ")[1:]:
        name, _, rest = part.partition("\n")
        text, _, expected = rest.partition("\n---\n")
        cases.append(Case(name, text, expected.strip("\n")))
    return cases


def write_cases(path: Path, cases: list[Case]) -> None:
    path.write_text("\n".join(f"=== {c.name}\n{c.text}\n---\n{c.actual()}\n" for c in cases))
