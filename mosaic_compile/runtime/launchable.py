"""`kernel.compile(a, b, c)`: the compiled kernel for arrays of one form, as a function that only launches."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mosaic_compile.artifact import Artifact
from mosaic_compile.errors import ArgumentError
from mosaic_compile.language.arrays import ScalarParam
from mosaic_compile.language.specialization import ALIGNMENT, OPTIONS

from . import direct, forms
from .arguments import Bound, bind, check_scalar, check_written
from .arrays import ArrayInfo
from .cuda_launch import Resources
from .direct_plan import plan_of
from .packing import packed

if TYPE_CHECKING:
    from mosaic_compile.language.kernel import Kernel


class Launchable:
    """A compiled kernel, called as the kernel is but without constants: `run(a, b, c)`.

    The arrays must have the element types, shapes, strides and devices of those that it was compiled for, addresses of the
    same alignment to 16 bytes, and may not overlap where they are written; all of this is checked. Other arrays raise
    ArgumentError: nothing is compiled any more. Arrays must live until the kernel has run. On a CPU it keeps to the number of
    threads that was set when it was compiled.
    """

    def __init__(
        self, kernel: Kernel, program: Any, bound: Bound, args: Sequence[Any], kwargs: Mapping[str, Any]
    ):
        self.kernel = kernel
        self._program = program
        self._prepared = program.prepare(bound)
        # Without the arrays themselves, whose memory may be given back.
        self._arrays = {name: replace(info, owner=None) for name, info in bound.arrays.items()}
        self._names = tuple(p.name for p in kernel.signature.params)
        self._given = _expectations(kernel, {**dict(zip(self._names, args)), **kwargs})
        plan = plan_of(kernel, self._prepared, args, kwargs)
        self._launch = None if plan is None else direct.Table(plan).launch

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
        if self._launch is not None and self._launch(*args, **kwargs):
            return
        found = self._read(args, kwargs)
        if found is None:
            self._run_looking_closer(args, kwargs)
        else:
            self._prepared.run(*found)

    def _read(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[dict[str, int], dict[str, Any]] | None:
        """The arrays' addresses and the scalars, if the call gives what was given before; else None."""
        addresses: dict[str, int] = {}
        scalars: dict[str, Any] = {}
        values: Iterable[tuple[str, Any]] = zip(self._names, args)
        if kwargs:
            values = itertools.chain(values, kwargs.items())
        try:
            for name, value in values:
                read, expected = self._given[name]
                if read is None:
                    scalars[name] = check_scalar(expected, value)
                    continue
                addresses[name], found = read(value)
                if found != expected:
                    return None
        except (forms.CloserLook, KeyError, RuntimeError, AttributeError):
            return None
        complete = len(addresses) + len(scalars) == len(self._given) == len(args) + len(kwargs)
        return (addresses, scalars) if complete else None

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
            check_written(packed_bound.arrays, self._program.written)
            forms.run(self._prepared, forms.of_bound(packed_bound))

    def _check(self, bound: Bound) -> None:
        compiled, given = self._arrays, bound.arrays
        for name in {**compiled, **given}:
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
    return f"{info.dtype} of shape {info.shape} with strides {info.strides} on {place}" + (
        f", {offset} bytes past a multiple of {ALIGNMENT}" if offset else ""
    )


def _expectations(kernel: Kernel, given: Mapping[str, Any]) -> Mapping[str, tuple[Any, Any]]:
    """For each argument by its name what reads it and what must be read; for a scalar None and its parameter.

    Arrays of other libraries than NumPy and PyTorch, and those that are packed first, always take a closer look.
    """
    found: dict[str, tuple[Any, Any]] = {}
    params = {p.name: p for p in kernel.signature.params}
    for name, value in given.items():
        if isinstance(params[name], ScalarParam):
            found[name] = (None, params[name])
        elif value is None:
            found[name] = (_left_out, None)
        elif (read := forms.reader_of(value)) is not None:
            with suppress(forms.CloserLook):
                found[name] = (read, read(value)[1])
    return found


def _left_out(value: Any) -> tuple[int, Any]:
    return 0, value


def compile_for(kernel: Kernel, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Launchable:
    """The kernel compiled for a call's arguments, and loaded; nothing is run.

    Raises ArgumentError, LaunchError and the compiler's errors.
    """
    from .call import loaded

    bound = bind(kernel, args, kwargs)
    decided = {*OPTIONS, *(p.name for p in kernel.signature.constants)}  # constants are given by name alone
    passed = {name: value for name, value in kwargs.items() if name not in decided}
    with packed(bound) as packed_bound:
        return Launchable(kernel, loaded(kernel, packed_bound), packed_bound, args, passed)
