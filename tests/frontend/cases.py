"""Kernels in golden files: text that is wrong on purpose, and the whole message that it must give.

A golden file holds cases of this form:

    === name of the case
    y = x +                      the user's text
    --- UndefinedNameError       the class
    error: …                     the message, as it is shown

Text without `@mc.kernel` is the body of the standard kernel below. `pytest tests/frontend --update` writes the
messages anew; read the difference before committing it.
"""

from __future__ import annotations

import itertools
import linecache
import textwrap
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import mosaic_compile as mc
from mosaic_compile.errors import MosaicError
from mosaic_compile.frontend import trace
from mosaic_compile.language.kernel import Kernel
from mosaic_compile.mlir import ir

GOLDENS = Path(__file__).parent / "goldens"

# x, h, t, u, m are tiles; n, p, c scalars; a, v, w, r arrays; B a constant.
HEADER = """\
@mc.kernel
def kernel(
    a: mc.f32["M", "N"], v: mc.f32["N"], r: mc.In[mc.f32["N"]], w: mc.Out[mc.f32["N"]], q: mc.bf16["K"],
    o: mc.f32["N"] | None = None, *, n: mc.i32, s: mc.f32, B: mc.Const = 16,
):
    p = mc.program_id(0)
    x = mc.load(v, p, B)  # f32[16]
    h = x.to(mc.bf16)
    m = mc.load(a, (p, 0), (16, 32))  # f32[16, 32]
    i = mc.iota(B)
"""

_numbers = itertools.count()


def source_of(text: str) -> str:
    """A case's text as a file."""
    return text if "@mc.kernel" in text or "mc.kernel(" in text else HEADER + textwrap.indent(text, "    ")


def run(source: str, file: str = "kernel.py", **names: Any) -> dict[str, Any]:
    """Executes `source` as if it were a file."""
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    namespace: dict[str, Any] = {"mc": mc, "np": np, "__name__": "user_kernels", **names}
    exec(compile(source, file, "exec", dont_inherit=True), namespace)
    return namespace


def last_kernel(namespace: dict[str, Any]) -> Kernel:
    return [value for value in namespace.values() if isinstance(value, Kernel)][-1]


def trace_text(text: str, **names: Any) -> ir.Module:
    """Traces the last kernel of a text, or the text as the standard kernel's body, and verifies the module."""
    kernel = last_kernel(run(source_of(text), f"kernel{next(_numbers)}.py", **names))
    module = trace(kernel, kernel.specialize())
    module.operation.verify()
    return module


def error_of(text: str) -> MosaicError | None:
    """The error of a case's text, from defining the kernel or from tracing it."""
    try:
        kernel = last_kernel(run(source_of(text)))
        trace(kernel, kernel.specialize(arrays={p.name for p in kernel.signature.arrays if p.spec.optional}))
    except MosaicError as error:
        return error
    return None


@dataclass(frozen=True)
class Case:
    """One case of a golden file."""

    name: str
    text: str
    expected: str

    @property
    def actual(self) -> str:
        try:
            error = error_of(self.text)
        except Exception as escaped:  # a message that Python made
            return f"--- ESCAPED {type(escaped).__name__}\n{escaped}\n"
        if error is None:
            return "--- no error\n"
        return f"--- {type(error).__name__}\n{error.render()}\n"

    def updated(self) -> Case:
        return replace(self, expected=self.actual)

    def __str__(self) -> str:
        return f"=== {self.name}\n{self.text}{self.expected}"


def read_cases(path: Path) -> list[Case]:
    cases = []
    for part in path.read_text().split("=== ")[1:]:
        name, _, rest = part.partition("\n")
        text, dashes, expected = rest.partition("--- ")
        cases.append(Case(name, text.rstrip() + "\n", (dashes + expected).rstrip() + "\n"))
    return cases


def write_cases(path: Path, cases: list[Case]) -> None:
    path.write_text("\n".join(map(str, cases)))
