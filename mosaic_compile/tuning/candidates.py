"""What is tried: the entries of a kernel's `tune` list and what the user adds, each compiled code once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mosaic_compile.errors import ArgumentError
from mosaic_compile.language.kernel import Candidate, Kernel
from mosaic_compile.language.specialization import OPTIONS, Specialization
from mosaic_compile.runtime.arguments import Bound, specialize_call


@dataclass(frozen=True)
class Choice:
    """An entry and what a call's arguments make of it."""

    entry: Candidate
    spec: Specialization


def choices(
    kernel: Kernel, bound: Bound, machine: str, added: Sequence[Candidate] = ()
) -> tuple[Choice, ...]:
    """The candidates for a call on a "gpu" or a "cpu", without those that are specialised as one before them.

    added: entries to try behind those of `tune`. Raises ArgumentError.
    """
    for entry in added:
        _check_added(kernel, bound, entry)
    found: dict[str, Choice] = {}
    for entry in (*kernel.candidates(machine, bound.given), *added):
        spec = specialize_call(kernel, bound, entry)
        options = sorted(spec.options.items()) if machine == "gpu" else []  # CPUs have no warps
        found.setdefault(repr((sorted(spec.constants.items()), options)), Choice(entry, spec))
    return tuple(found.values())


def _check_added(kernel: Kernel, bound: Bound, entry: Candidate) -> None:
    known = {c.name for c in kernel.signature.constants} | OPTIONS.keys()
    if not isinstance(entry, Mapping):
        raise ArgumentError(
            f"{kernel.name}.autotune: the candidate {entry!r} is no dict",
            "write candidates=[dict(BLOCK=64, num_warps=4)]",
            (kernel.span,),
        )
    for name in entry.keys() - known:
        raise ArgumentError(
            f"{kernel.name}.autotune: a candidate sets '{name}', which is not a constant of '{kernel.name}'",
            f"there are: {', '.join(sorted(known))}",
            (kernel.span,),
        )
    for name in sorted(entry.keys() & bound.given):
        raise ArgumentError(
            f"{kernel.name}.autotune: '{name}' is set by the call and by a candidate",
            "leave it out of one of the two",
            (kernel.span,),
        )


def words(entry: Mapping[str, Any]) -> str:
    """An entry as people read it: BM=64 num_warps=4."""
    return " ".join(f"{name}={value}" for name, value in entry.items()) or "defaults"
