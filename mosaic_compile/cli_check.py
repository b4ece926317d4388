"""`mosaic-compile FILE --check` and `--sanitize`: kernels run on arrays that are made here."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from .errors import UsageError
from .language.arrays import ScalarParam
from .language.kernel import Kernel

if TYPE_CHECKING:
    from .check.inputs import Wanted

OK, FOUND = 0, 1

# What asks for something else of the command, by its name in `options`.
_NOT_WITH = {
    "emit": "--emit", "output": "-o", "dump_ir": "--dump-ir", "override": "--override", "pass_option": "--pass-option",
    "timing": "--timing", "print_pipeline": "--print-pipeline", "backend": "--backend",
}  # fmt: skip


def add_options(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    group = parser.add_argument_group(
        "running kernels, instead of compiling them, on arrays of random numbers",
        "Scalars are given by --set too. Dimensions that --shape does not give are a little more than a tile.",
    )
    group.add_argument(
        "--check",
        action="store_true",
        help="compare the reference, each step of the compilation, and the GPU if it is here, with the interpreter",
    )
    group.add_argument(
        "--sanitize",
        action="store_true",
        help="look for races, reads of what nothing wrote, overflow, NaN and infinity",
    )
    group.add_argument("--seed", metavar="S", type=int, help="of the random numbers (0)")
    group.add_argument(
        "--input", metavar="ARRAY=FILE", nargs="+", action="extend", default=[], help="arrays from .npy files"
    )
    group.add_argument(
        "--check-image", metavar="FILE", type=Path, help="with --check: draw where the errors lie (FILE.png)"
    )
    group.add_argument(
        "--clipped",
        action="store_true",
        help="with --sanitize: also count the elements of each access outside of its array",
    )
    return group


def wants(options: argparse.Namespace) -> bool:
    """Whether kernels are to be checked or sanitized; raises UsageError for options that do not fit together."""
    running = options.check or options.sanitize
    given_arrays = running or options.tune
    mode = "--check" if options.check else "--sanitize"
    for name, option in _NOT_WITH.items():
        if running and getattr(options, name):
            raise UsageError(f"{option} does not go with {mode}", "leave one of the two out")
    for option, given, needs, there in (
        ("--check-image", options.check_image, "--check", options.check),
        ("--clipped", options.clipped, "--sanitize", options.sanitize),
        ("--seed", options.seed is not None, "--check, --sanitize or --tune", given_arrays),
        ("--input", options.input, "--check, --sanitize or --tune", given_arrays),
    ):
        if given and not there:
            raise UsageError(
                f"{option} needs {needs}", f"mosaic-compile FILE {needs.split()[0].rstrip(',')} {option} …"
            )
    if options.seed is not None and options.seed < 0:
        raise UsageError(f"--seed is at least 0, not {options.seed}", "--seed 0")
    return running


def scalars(kernel: Kernel) -> set[str]:
    """What --set may name where a kernel is run, beside what it may name where it is compiled."""
    return {p.name for p in kernel.signature.params if isinstance(p, ScalarParam)}


def run(
    options: argparse.Namespace,
    kernels: Mapping[str, Kernel],
    wanted: Callable[[Kernel], Wanted],
) -> int:
    """Checks and sanitizes kernels, and prints what is found; gives the exit code.

    wanted: what the command line says of a kernel's arguments. Raises UsageError, ArgumentError, the
    compiler's errors and InterpreterError.
    """
    if options.check_image and len(kernels) > 1:
        raise UsageError(
            "--check-image takes one kernel, but the file has several",
            f"name one: --kernel {next(iter(kernels))}",
        )
    console = Console(soft_wrap=True, highlight=False)
    outcomes = []
    for number, (name, kernel) in enumerate(kernels.items()):
        options.kernel = (
            name if len(kernels) > 1 else options.kernel
        )  # for the command that repeats a failure
        print() if number else None
        if options.check:
            outcomes.append(_check(options, kernel, wanted(kernel), console))
        if options.sanitize:
            print() if options.check else None
            outcomes.append(_sanitize(options, kernel, wanted(kernel)))
        sys.stdout.flush()
    return OK if all(outcomes) else FOUND


def _arguments(kernel: Kernel, wanted: Wanted) -> dict[str, Any]:
    from .check.inputs import make_inputs

    inputs = make_inputs(kernel, wanted)
    sizes = " ".join(f"{name}={size}" for name, size in inputs.sizes.items())
    print(f"inputs: {f'--shape {sizes} ' if sizes else ''}--seed {wanted.seed}")
    return dict(inputs.arguments)


def _check(options: argparse.Namespace, kernel: Kernel, wanted: Wanted, console: Console) -> bool:
    arguments = _arguments(kernel, wanted)
    with redirect_stdout(sys.stderr):  # what the kernel prints
        report = kernel.check(**arguments, target=options.target)
        lines = report.lines()
    for line in lines:
        console.print(Text.assemble(*line))
    if options.check_image:
        report.save_image(options.check_image)
        print(f"\nthe picture is in {options.check_image}")
    return report.ok


def _sanitize(options: argparse.Namespace, kernel: Kernel, wanted: Wanted) -> bool:
    arguments = _arguments(kernel, wanted)
    with redirect_stdout(sys.stderr):
        report = kernel.sanitize(**arguments)
    print(report.render(clipped=options.clipped))
    return report.ok
