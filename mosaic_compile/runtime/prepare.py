"""An artifact on given arrays, up to the launch: for what runs many artifacts on the same arrays, as tuning does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mosaic_compile.artifact import Artifact

from .arguments import Bound
from .launch import Launcher


@dataclass(frozen=True)
class PreparedCall:
    """A kernel on a call's arguments; the caller keeps the arrays alive."""

    program: Any
    bound: Bound

    def launch(self) -> None:
        """Starts the kernel on a GPU's current stream and returns at once; on a CPU it is done at the return.

        Raises LaunchError.
        """
        self.program(self.bound)


def prepare_artifact(artifact: Artifact, bound: Bound, device: int = 0) -> PreparedCall:
    """Loads an artifact and checks that it fits a call's arguments (`arguments.bind` makes them).

    device: the number of the GPU; of no matter for a CPU's artifact. Raises ArgumentError and LaunchError.
    """
    if artifact.manifest["backend"] == "llvm":
        from .cpu import Program

        return PreparedCall(Program(artifact), bound)
    return PreparedCall(Launcher(artifact, device), bound)
