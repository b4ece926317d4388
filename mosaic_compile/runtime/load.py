"""`mc.load(DIR)`: an artifact for this machine's GPU or CPU as a function, with nothing compiled and no compiler imported."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mosaic_compile.artifact import Artifact
from mosaic_compile.errors import ArgumentError, LaunchError, Span
from mosaic_compile.language.arrays import ArrayParam, ArraySpec, ScalarParam, Signature
from mosaic_compile.language.dtypes import DTYPES

from . import cuda, forms
from .arguments import bind, place_of
from .arrays import HOST
from .launch import Launcher, runs_on


def load(folder: Any, *rest: Any, **options: Any) -> Any:
    """`mc.load` as long as the compiler is not imported; then it is the operation of that name, in kernels too."""
    if (operations := sys.modules.get("mosaic_compile.language.ops")) is not None:
        return operations.load(folder, *rest, **options)
    return load_artifact(folder, *rest, **options)


load.__mosaic_op__ = True  # type: ignore[attr-defined]


class Loaded:
    """A compiled kernel from disk: called as the kernel is, without its constants.

    Its arrays must be as the artifact was compiled for: `manifest["arrays"]` says how.
    """

    def __init__(self, artifact: Artifact):
        self.artifact = artifact
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
        self.on_host = self.manifest["backend"] == "llvm"
        self._program = functools.cache(self._load)
        if self.on_host:
            self._program(0)  # says at once if this machine has not the instructions

    def _load(self, device: int) -> Any:
        """The code, loaded for the CPU or one of the GPUs."""
        if self.on_host:
            from .cpu import Program

            return Program(self.artifact)
        return Launcher(self.artifact, device)

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        """Runs the kernel; raises ArgumentError and LaunchError."""
        form = forms.form_of(self, args, kwargs)
        prepared = None if form is None else forms.prepared_for(form)
        if form is not None and prepared is not None:
            forms.run(prepared, form)
            return
        bound = bind(self, args, kwargs)
        place, device = place_of(bound)
        if (place == HOST) != self.on_host:
            here, there = ("on the host", "a GPU") if place == HOST else ("on a GPU", "the CPU")
            raise ArgumentError(
                f"the arrays are {here}, and this kernel runs on {there}",
                f"move them to {'the host' if self.on_host else 'a GPU'}",
            )
        forms.run_bound(self._program(device).prepare(bound), bound, form)

    def __repr__(self) -> str:
        return f"<{self.name}{self.__signature__} for {self.manifest['target']}>"


def load_artifact(folder: str | Path) -> Loaded:
    """The kernel that `mosaic-compile -o` or `Artifact.save` wrote into a folder, ready to be called.

    Raises CacheError where the folder holds no artifact, and LaunchError where it is for another machine.

        add = mc.load("add")
        add(x, y, out)
    """
    artifact = Artifact.load(Path(folder))
    target = artifact.manifest["target"]
    if artifact.manifest["backend"] != "llvm":
        gpus = [cuda.compute_capability(device) for device in range(cuda.device_count())]
        if not any(runs_on(target, gpu) for gpu in gpus):
            here = ", ".join(sorted({f"sm{gpu[0]}{gpu[1]}" for gpu in gpus if gpu})) or "no NVIDIA GPU"
            raise LaunchError(
                f"the artifact in '{folder}' is for {target}, and this machine has {here}",
                "compile it for this machine: --target "
                + (here.partition(",")[0] if "sm" in here else "cpu"),
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
