"""What a pipeline is made of: stages, each an ordered list of passes or one step of an outside compiler.

The list is the only place that knows the order. Dumping, timing and overriding are done by the driver, from the list.
"""

from __future__ import annotations

import linecache
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

from mosaic_compile.mlir import ir
from mosaic_compile.passes import Pass

from .targets import Target


class Recorder(Protocol):
    """Where a dump goes: called after every pass. `located` is the text with source locations, if that differs."""

    def record(
        self,
        stage: str,
        name: str,
        extension: str,
        text: str | bytes,
        milliseconds: float | None,
        located: str | None = None,
    ) -> None: ...


@dataclass
class Session:
    """One compilation: what is asked, what a back end keeps between its stages, how long each step took.

    edited: whether a stage's result came from a file, so that it may be anything that parses.
    """

    target: Target
    options: Mapping[str, Any]
    recorder: Recorder | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    tools: dict[str, Any] = field(default_factory=dict)
    timings: list[tuple[str, str, float]] = field(default_factory=list)  # stage, step, milliseconds
    edited: bool = False

    @contextmanager
    def timed(self, stage: str, step: str) -> Iterator[None]:
        start = perf_counter()
        try:
            yield
        finally:
            self.timings.append((stage, step, (perf_counter() - start) * 1000))


class Stage(Protocol):
    """A step of the pipeline whose result has a name and a file: what --emit, --override and the cache know."""

    @property
    def name(self) -> str: ...

    @property
    def extension(self) -> str: ...

    @property
    def summary(self) -> str:
        """What happens inside, in a few words."""

    def run(self, state: Any, session: Session) -> Any:
        """The next state; raises MosaicError."""

    def write(self, state: Any) -> str | bytes:
        """The state as a file's contents."""

    def read(self, file: Path, session: Session) -> Any:
        """The state that a file holds; raises OverrideError, OSError or UnicodeDecodeError."""


@dataclass(frozen=True)
class PassStage:
    """Passes of ours and of MLIR, on a module."""

    name: str
    passes: tuple[Pass, ...]
    extension: str = "mlir"

    @property
    def summary(self) -> str:
        return ", ".join(p.name for p in self.passes)

    def run(self, state: ir.Module, session: Session) -> ir.Module:
        for pass_ in self.passes:
            with session.timed(self.name, pass_.name):
                pass_.run(state)
            if session.recorder is not None:
                located = state.operation.get_asm(enable_debug_info=True)
                milliseconds = session.timings[-1][2]
                session.recorder.record(
                    self.name, pass_.name, self.extension, self.write(state), milliseconds, located
                )
        return state

    def write(self, state: ir.Module) -> str:
        return state.operation.get_asm()

    def read(self, file: Path, session: Session) -> ir.Module:
        file.read_bytes().decode()  # MLIR's parser does not say that a file is no text
        return parse_module(file)


def parse_module(file: Path) -> ir.Module:
    """A module of our dialects from a file, whose lines become its locations; raises OverrideError with the place."""
    from mosaic_compile.errors import OverrideError

    from .mlir import new_context

    linecache.checkcache(
        str(file)
    )  # errors show lines of it; it may have changed since this process read it last
    try:
        with new_context():
            module = ir.Module.parseFile(str(file))
            module.operation.verify()
            return module
    except ir.MLIRError as error:
        place, message = _first_diagnostic(error, file)
        raise OverrideError(
            f"{place}: {message}", "correct the file, or start from one that --dump-ir or --emit wrote"
        ) from None


def _first_diagnostic(error: ir.MLIRError, file: Path) -> tuple[str, str]:
    first = error.error_diagnostics[0]
    place = re.search(r":\d+:\d+(?=\D*$)", str(first.location))
    return f"{file}{place[0] if place else ''}", first.message
