"""`mosaic-compile FILE --tune`: which entry of `tune` is the fastest on this machine, for arrays that are made here."""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack, redirect_stdout
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from . import targets
from .artifact import Artifact
from .driver import Compilation, cached_artifact
from .errors import UsageError
from .language.kernel import Kernel
from .language.specialization import Specialization
from .runtime.arguments import Bound, bind
from .targets import Target

if TYPE_CHECKING:
    from .check.inputs import Wanted
    from .tuning.report import TuningReport

# What asks for something else of the command, by its name in `options`.
_NOT_WITH = {
    "check": "--check", "sanitize": "--sanitize", "emit": "--emit", "dump_ir": "--dump-ir", "override": "--override",
    "pass_option": "--pass-option", "timing": "--timing", "print_pipeline": "--print-pipeline",
}  # fmt: skip


def add_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--tune",
        action="store_true",
        help="time the entries of `tune` on this machine and keep the fastest for calls; --shape gives every dimension; "
        "with -o, the artifact is compiled with it",
    )


def wants(options: argparse.Namespace) -> bool:
    """Whether kernels are to be tuned; raises UsageError for options that do not fit together."""
    for name, option in _NOT_WITH.items():
        if options.tune and getattr(options, name):
            raise UsageError(f"{option} does not go with --tune", "leave one of the two out")
    return bool(options.tune)


def run(
    options: argparse.Namespace,
    target: Target,
    kernels: Mapping[str, Kernel],
    wanted: Callable[[Kernel], Wanted],
    describe: Callable[[str, Specialization, Artifact], None],
) -> None:
    """Tunes kernels, prints what is found, and writes the artifacts that -o asks for.

    wanted: what the command line says of a kernel's arguments. describe: prints an artifact. Raises UsageError,
    ArgumentError, TuningError and the compiler's errors.
    """
    device = _device(target)
    several = len(kernels) > 1
    for number, (name, kernel) in enumerate(kernels.items()):
        options.kernel = name if several else options.kernel  # for the command that repeats a failure
        own = wanted(kernel)
        _check_sizes(kernel, own)
        with redirect_stdout(sys.stderr):  # what the kernel prints
            report = _tuned(kernel, own, target, device)
        print(f"{'' if not number else chr(10)}{report}")
        if options.output:
            folder = options.output / name if several else options.output
            spec, artifact = _frozen(kernel, own, target, report)
            artifact.save(folder)
            describe(name, spec, artifact)
            print(f"  written to {folder}")
        sys.stdout.flush()


def _device(target: Target) -> int | None:
    """The number of the GPU that the target is, None for this CPU; raises UsageError for other machines."""
    here = targets.gpu_of_this_machine()
    if target.name == targets.HOST:
        return None
    if target.name == here and targets.is_nvidia(target):
        return 0
    has = "no GPU" if here is None else f"an {here}"
    raise UsageError(
        f"--tune runs kernels, and this machine, which has {has}, does not run those for {target.name}",
        f"tune on the machine that they are for, or for this one: --target {here if here in targets.GPUS else targets.HOST}",
    )


def _check_sizes(kernel: Kernel, wanted: Wanted) -> None:
    present = [p for p in kernel.signature.arrays if not p.spec.optional or p.name in wanted.arrays]
    dims = dict.fromkeys(d for p in present for d in p.spec.dims if isinstance(d, str))
    known: set[str | int] = {*wanted.dims, *wanted.given, *kernel.defaults}
    known |= {d for p in present if p.name in wanted.files for d in p.spec.dims}
    known |= {c.name for c in kernel.signature.constants if c.default is not inspect.Parameter.empty}
    missing = [d for d in dims if d not in known]
    if missing:
        raise UsageError(
            f"--tune needs the size of every dimension, and {', '.join(missing)} of '{kernel.name}' "
            f"{'has' if len(missing) == 1 else 'have'} none",
            f"--shape {' '.join(f'{d}=4096' for d in missing)}",
        )


def _tuned(kernel: Kernel, wanted: Wanted, target: Target, device: int | None) -> TuningReport:
    from .check.inputs import make_inputs
    from .check.machine import on_gpu
    from .runtime.packing import packed
    from .tuning.autotune import tune_bound
    from .tuning.progress import on_terminals

    arguments: dict[str, Any] = dict(make_inputs(kernel, wanted).arguments)
    bound: Bound = bind(kernel, (), arguments)
    with ExitStack() as memory:
        if device is None:
            bound = memory.enter_context(packed(bound))
        else:
            there = {
                name: memory.enter_context(on_gpu(info, arguments[name], device))
                for name, info in bound.arrays.items()
            }
            bound = replace(bound, arrays=there)
        with on_terminals("", transient=True) as watch:
            return tune_bound(kernel, bound, target, device, watch=watch)


def _frozen(
    kernel: Kernel, wanted: Wanted, target: Target, report: TuningReport
) -> tuple[Specialization, Artifact]:
    """The artifact with the fastest entry, whose manifest says what was measured."""
    from .cli_check import scalars

    given = {name: value for name, value in wanted.given.items() if name not in scalars(kernel)}
    spec = kernel.specialize(
        dims=wanted.dims, multiples=wanted.multiples, arrays=wanted.arrays, tuned=report.best.entry, **given
    )
    artifact = targets.backend(target).complete(cached_artifact(kernel, spec, Compilation(target)))
    tuned = {**report.about, "microseconds": report.best.microseconds, "sizes": dict(report.sizes)}
    return spec, Artifact({**artifact.manifest, "tuned": tuned}, artifact.files)
