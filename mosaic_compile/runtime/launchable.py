"""`kernel.compile(a, b, c)`: the compiled kernel for arrays of one form, as a function that only launches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mosaic_compile.artifact import Artifact
from mosaic_compile.errors import ArgumentError
from mosaic_compile.language.arrays import ConstParam
from mosaic_compile.language.specialization import ALIGNMENT, OPTIONS

from . import forms
from .arguments import Bound, bind
from .arrays import ArrayInfo
from .cuda_launch import Resources
from .packing import packed

if TYPE_CHECKING:
    from mosaic_compile.language.kernel import Kernel


class Launchable:
    """A compiled kernel, called as the kernel is but without constants: `run(a, b, c)`.

    The arrays must have the element types, shapes, strides and devices of those that it was compiled for, addresses of the
    same alignment to 16 bytes, and may not overlap where they are written; all of this is checked. Other arrays raise
    ArgumentError: nothing is compiled any more. Arrays must live until the kernel has run.
    """

    def __init__(self, kernel: Kernel, program: Any, bound: Bound, form: forms.Form | None):
        self.kernel = kernel
        self._program = program
        self._prepared = program.prepare(bound)
        self._bound = bound
        self._key = form and form.key

    @property
    def artifact(self) -> Artifact:
        """The compiled kernel: its manifest and files."""
        artifact: Artifact = self._program.artifact
        return artifact

    @property
    def manifest(self) -> Mapping[str, Any]:
        return self.artifact.manifest

    @property
    def constants(self) -> Mapping[str, Any]:
        """The constants and compiler options that were given or chosen."""
        chosen = {k: v for k, v in self.manifest["options"].items() if v is not None}
        return {**self.manifest["constants"], **chosen}

    @property
    def resources(self) -> Resources | None:
        """What it takes of the GPU; None on a CPU."""
        return getattr(self._program, "resources", None)

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        """Runs the kernel on arrays like those that it was compiled for; raises ArgumentError and LaunchError."""
        form = forms.form_of(self.kernel, args, kwargs)
        if form is not None and form.key == self._key:
            forms.run(self._prepared, form)
        else:
            self._run_looking_closer(args, kwargs)

    def _run_looking_closer(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """A call that is written in another way, or whose arrays are others."""
        bound = bind(self.kernel, args, kwargs)
        if bound.given:
            names = ", ".join(f"'{name}'" for name in bound.given)
            raise ArgumentError(
                f"{names} was decided when '{self.kernel.name}' was compiled",
                "leave it out, or call the kernel itself",
            )
        with packed(bound) as packed_bound:
            self._check(packed_bound)
            forms.run(self._prepared, forms.of_bound(packed_bound))

    def _check(self, bound: Bound) -> None:
        compiled, given = self._bound.arrays, bound.arrays
        for name in compiled.keys() | given.keys():
            was, now = _words(compiled.get(name)), _words(given.get(name))
            if was != now:
                raise ArgumentError(
                    f"'{name}' is {now}, but this was compiled for {was}",
                    f"call {self.kernel.name} itself, or compile it for these arrays too",
                )

    def __repr__(self) -> str:
        return f"<{self.kernel.name} compiled for {self.manifest['target']}>"


def _words(info: ArrayInfo | None) -> str:
    """What a launch depends on in an array."""
    if info is None:
        return "left out"
    place = info.device if info.device == "cpu" else f"{info.device}:{info.device_index}"
    offset = info.address % ALIGNMENT
    return (
        f"{info.dtype} of shape {info.shape} with strides {info.strides} on {place}"
        + (f", {offset} bytes past a multiple of {ALIGNMENT}" if offset else "")
        + ("" if info.writable else ", read-only")
    )


def compile_for(kernel: Kernel, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Launchable:
    """The kernel compiled for a call's arguments, and loaded; nothing is run.

    Raises ArgumentError, LaunchError and the compiler's errors.
    """
    from .call import loaded

    bound = bind(kernel, args, kwargs)
    constants = OPTIONS.keys() | {p.name for p in kernel.signature.params if isinstance(p, ConstParam)}
    runtime = {name: value for name, value in kwargs.items() if name not in constants}
    with packed(bound) as packed_bound:
        program = loaded(kernel, packed_bound)
        return Launchable(kernel, program, packed_bound, forms.form_of(kernel, args, runtime))
