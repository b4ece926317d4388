"""What a pass is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from mosaic_compile.mlir import PassManager, ir


@runtime_checkable
class Pass(Protocol):
    """A pass of ours: a frozen dataclass whose fields are its options, changing a module in place.

    Raises a MosaicError (with the user's place, see passes.places) for what the user must change.
    """

    name: ClassVar[str]

    def run(self, module: ir.Module) -> None: ...


@dataclass(frozen=True)
class Upstream:
    """A pass of MLIR's own, by its name and options: Upstream("canonicalize")."""

    name: str  # type: ignore[misc]
    options: str = ""

    def run(self, module: ir.Module) -> None:
        text = f"{self.name}{{{self.options}}}" if self.options else self.name
        with module.context:
            PassManager.parse(f"builtin.module({text})").run(module.operation)
