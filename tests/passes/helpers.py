"""What the passes' tests share: CHECK lines stand in the MLIR text, or in the kernel, that they check."""

from __future__ import annotations

import contextlib
import inspect
import io
from collections.abc import Callable
from typing import Any

from filecheck.finput import FInput
from filecheck.matcher import Matcher
from filecheck.options import Options
from filecheck.parser import Parser, pattern_for_opts

from mosaic_compile.frontend import trace
from mosaic_compile.mlir import ir, new_context
from mosaic_compile.passes import Pass, Upstream

SIMPLIFY = (Upstream("canonicalize"), Upstream("cse"))
# A kernel as the analyses find it: constants once, what does not change in a loop before it.
PREPARE = (*SIMPLIFY, Upstream("loop-invariant-code-motion"))


def run_passes(module: ir.Module, *passes: Pass | Upstream) -> ir.Module:
    for each in passes:
        each.run(module)
        assert module.operation.verify()
    return module


def filecheck(text: str, checks: str) -> None:
    """Matches `text` against the CHECK lines in `checks`; a failure shows both."""
    options = Options("checks", "output")
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        parser = Parser(options, io.StringIO(checks), *pattern_for_opts(options))
        failed = Matcher(options, FInput("output", text), parser).run()
    assert not failed, f"{said.getvalue()}\n--- after the passes:\n{text}\n--- checked against:\n{checks}"


def check(text: str, *passes: Pass | Upstream) -> None:
    """Runs passes on MLIR text, which holds the CHECK lines for what comes out."""
    with new_context(), ir.Location.unknown():
        filecheck(str(run_passes(ir.Module.parse(text), *passes)), text)


def checked(*passes: Pass | Upstream, **choices: Any) -> Callable[[Any], Callable[[], None]]:
    """Turns a kernel that holds CHECK lines in its comments into a test of what passes make of it."""

    def decorate(kernel: Any) -> Callable[[], None]:
        def test() -> None:
            module = trace(kernel, kernel.specialize(**choices))
            filecheck(str(run_passes(module, *passes)), inspect.getsource(kernel.function))

        test.__name__ = kernel.name
        return test

    return decorate
