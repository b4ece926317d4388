"""`mc.load(DIR)`: an artifact for this machine's CPU as a function, with nothing compiled."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mosaic_compile.artifact import Artifact
from mosaic_compile.errors import LaunchError, Span
from mosaic_compile.language.arrays import ArrayParam, ArraySpec, ScalarParam, Signature
from mosaic_compile.language.dtypes import DTYPES


class Loaded:
    """A compiled kernel from disk: called as the kernel is, without its constants.

    Its arrays must be as the artifact was compiled for: `manifest["arrays"]` says how.
    """

    def __init__(self, artifact: Artifact):
        from .cpu import Program

        self.manifest = artifact.manifest
        self.name: str = self.manifest["kernel"]
        self.__doc__ = self.manifest["doc"]
        source = self.manifest["source"]
        self.span = Span(source["file"], source["line"], 0, source["line"], 0)
        self.signature = _signature(self.manifest)
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        self.__signature__ = inspect.Signature(
            [inspect.Parameter(p.name, kind) for p in self.signature.params]
        )
        self.function = self
        self.program = Program(artifact)

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        """Runs the kernel; raises ArgumentError and LaunchError."""
        from .call import call_program

        call_program(self, self.program, args, kwargs)

    def __repr__(self) -> str:
        return f"<{self.name}{self.__signature__} for {self.manifest['target']}>"


def load_artifact(folder: str | Path) -> Loaded:
    """The kernel that `mosaic-compile -o` or `Artifact.save` wrote into a folder, ready to be called.

    Raises CacheError where the folder holds no artifact, and LaunchError where it is for another machine.

        add = mc.load("add")
        add(x, y, out)
    """
    artifact = Artifact.load(Path(folder))
    if artifact.manifest["backend"] != "llvm":
        raise LaunchError(
            f"the artifact in '{folder}' is for {artifact.manifest['target']}, and mc.load runs those for CPUs",
            "call the kernel itself: on a GPU it compiles what it needs",
        )
    return Loaded(artifact)


def _signature(manifest: Mapping[str, Any]) -> Signature:
    arrays = {
        a["name"]: ArrayParam(a["name"], ArraySpec(DTYPES[a["dtype"]], tuple(a["dims"]), a["access"]))
        for a in manifest["arrays"]
    }
    scalars = {
        p["name"]: ScalarParam(p["name"], DTYPES[p["dtype"]], p["default"])
        for p in manifest["parameters"]
        if p["kind"] == "scalar"
    }
    return Signature(tuple((arrays | scalars)[name] for name in manifest["arguments"]))
