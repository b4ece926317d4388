"""What a pipeline is made of: stages, each an ordered list of passes or one step of an outside compiler.

The list is the only place that knows the order. Dumping, timing and overriding are done by the driver, from the list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Protocol

from mosaic_compile.mlir import ir
from mosaic_compile.passes import Pass

from .targets import Target


class Recorder(Protocol):
    """Where a dump goes: called after every pass."""

    def record(self, stage: str, name: str, extension: str, text: str | bytes, milliseconds: float, located: str | None = None) -> None: ...


@dataclass
class Session:
    """One compilation: what is asked, what a back end keeps between its stages, how long each step took."""

    target: Target
    options: Mapping[str, Any]
    recorder: Recorder | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    tools: dict[str, Any] = field(default_factory=dict)
    timings: list[tuple[str, str, float]] = field(default_factory=list)  # stage, step, milliseconds

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

    def run(self, state: Any, session: Session) -> Any:
        """The next state; raises MosaicError."""

    def write(self, state: Any) -> str | bytes:
        """The state as a file's contents."""

    def read(self, contents: bytes, file: str, session: Session) -> Any:
        """The state that a file holds; raises OverrideError."""


@dataclass(frozen=True)
class PassStage:
    """Passes of ours and of MLIR, on a module."""

    name: str
    passes: tuple[Pass, ...]
    extension: str = "mlir"
    read_module: Callable[[bytes, str], ir.Module] | None = None

    def run(self, state: ir.Module, session: Session) -> ir.Module:
        for pass_ in self.passes:
            with session.timed(self.name, pass_.name):
                pass_.run(state)
            if session.recorder is not None:
                located = state.operation.get_asm(enable_debug_info=True)
                session.recorder.record(self.name, pass_.name, self.extension, self.write(state), session.timings[-1][2], located)
        return state

    def write(self, state: ir.Module) -> str:
        return state.operation.get_asm()

    def read(self, contents: bytes, file: str, session: Session) -> ir.Module:
        return parse_module(contents.decode(), file)


def parse_module(text: str, file: str) -> ir.Module:
    """A module of our dialects from text; raises OverrideError with the place in the file."""
    from mosaic_compile.errors import OverrideError

    from .mlir import new_context

    try:
        with new_context():
            module = ir.Module.parse(text)
            module.operation.verify()
            return module
    except ir.MLIRError as error:
        first = error.error_diagnostics[0]
        place = first.location
        line = f"{file}:{place.start_line}:{place.start_col}" if hasattr(place, "start_line") else file
        raise OverrideError(f"{line}: {first.message}", "correct the file, or start from one that --dump-ir or --emit wrote") from None
