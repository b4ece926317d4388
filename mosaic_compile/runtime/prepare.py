"""An artifact on given arrays, up to the launch: for what runs many artifacts on the same arrays, as tuning does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mosaic_compile.artifact import Artifact

from . import forms
from .arguments import Bound
from .launch import Launcher


@dataclass(frozen=True)
class PreparedCall:
    """A kernel on a call's arguments; the caller keeps the arrays alive.

    program: a `launch.Launcher` (with `resources`) or a `cpu.Program`.
    """

    program: Any
    prepared: Any
    arguments: forms.Form

    def launch(self) -> None:
        """Starts the kernel on a GPU's current stream and returns at once; on a CPU it is done at the return.

        Raises LaunchError.
        """
        forms.run(self.prepared, self.arguments)


def prepare_artifact(artifact: Artifact, bound: Bound, device: int = 0) -> PreparedCall:
    """Loads an artifact and checks that it fits a call's arguments (`arguments.bind` makes them).

    device: the number of the GPU; of no matter for a CPU's artifact. Raises ArgumentError and LaunchError.
    """
    program: Any
    if artifact.manifest["backend"] == "llvm":
        from .cpu import Program

        program = Program(artifact)
    else:
        program = Launcher(artifact, device)
    return PreparedCall(program, program.prepare(bound), forms.of_bound(bound))
