"""`mosaic-compile`: the command line."""

from __future__ import annotations

import argparse
import difflib
import os
import shlex
import sys
import textwrap
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from . import __version__, cli_check, cli_tune, passes, targets
from .artifact import Artifact
from .driver import (
    Compilation,
    Outcome,
    cached_artifact,
    choices,
    compile_kernel,
    first_that_fits,
    pipeline,
)
from .errors import (
    ArgumentError,
    BackendError,
    CacheError,
    InternalError,
    MosaicError,
    TargetLimitError,
    UsageError,
)
from .kernel_file import check_file, choose, load_kernels
from .language.dtypes import DTYPES
from .language.kernel import Kernel
from .language.specialization import OPTIONS, Specialization
from .stages import PassStage, Stage

MISTAKE, USAGE, INTERRUPTED = 1, 2, 130


class _Parser(argparse.ArgumentParser):
    """Says mistakes in the form of all our messages."""

    def error(self, message: str) -> NoReturn:
        kind, _, rest = message.partition(": ")
        if kind != "unrecognized arguments":
            raise UsageError(message.replace("argument ", "", 1), "mosaic-compile --help shows the options")
        first = rest.split(" ")[0]
        if not first.startswith("-"):
            raise UsageError(f"'{first}' is one file too many", "give one kernel file at a time")
        close = difflib.get_close_matches(first.partition("=")[0], self._option_string_actions, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise UsageError(f"there is no option '{first}'", f"{hint}mosaic-compile --help shows the options")


def parser() -> argparse.ArgumentParser:
    p = _Parser(
        prog="mosaic-compile",
        usage="mosaic-compile FILE [--target T] [--kernel NAME] [-o DIR] [option …]",
        description="Compiles the kernels in a Python file for GPUs and CPUs, with none of them present.",
        epilog="Exit codes: 0; 1 for a mistake in the kernel file, also one that --check or --sanitize finds, or a "
        "limit of the target; 2 for a mistake on the command line or a folder that cannot be written.",
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=32, width=100),
    )

    def several(name: str, metavar: str, help: str, dest: str | None = None) -> None:
        dest = dest or name.removeprefix("--").replace("-", "_")
        p.add_argument(name, metavar=metavar, nargs="+", action="extend", default=[], dest=dest, help=help)

    p.add_argument(
        "file", metavar="FILE", type=Path, nargs="?", help="a Python file with functions marked @mc.kernel"
    )
    p.add_argument(
        "--target",
        metavar="T",
        help="the machine to compile for; without it, this machine's GPU or else its CPU",
    )
    p.add_argument("--kernel", metavar="NAME", help="this kernel only; without it, every kernel in the file")
    several("--set", "NAME=VALUE", "constants, compiler options (num_warps=8) and element types (T=f16)")
    several("--shape", "NAME=SIZE", "fix a dimension (M=4096), or promise a multiple (M=%%16)")
    several("--with", "ARRAY", "compile with these optional arrays", "arrays")
    p.add_argument("--backend", metavar="B", choices=["triton", "llvm"], help="the back end (triton, llvm)")
    p.add_argument(
        "-o", metavar="DIR", type=Path, dest="output", help="write binary, assembly and manifest.json"
    )
    p.add_argument(
        "--emit",
        metavar="STAGE",
        help="print a stage's result and stop there: tile, tt, ttir, ttgir, llvm, ptx, cubin, sass (AMD: amdgcn, hsaco; "
        "CPUs: tile, linalg, memory, llvm-dialect, llvm, llvm-opt, asm, object)",
    )
    p.add_argument(
        "--dump-ir", metavar="DIR", type=Path, help="write the IR after every pass, and an index.json"
    )
    several("--override", "STAGE=FILE", "take a stage's result from an edited file")
    several("--pass-option", "PASS.OPTION=VALUE", "set an option of a pass (--list-passes)")
    p.add_argument(
        "--print-pipeline", action="store_true", help="print the target's stages and passes, and stop"
    )
    p.add_argument("--list-targets", action="store_true", help="list the targets, and stop")
    p.add_argument("--list-passes", action="store_true", help="list the passes and their options, and stop")
    p.add_argument("--timing", action="store_true", help="print where the time goes")
    p.add_argument("--debug", action="store_true", help="show Python tracebacks of the compiler")
    p.add_argument("--version", action="version", version=f"mosaic-compile {__version__}")
    cli_tune.add_options(cli_check.add_options(p))
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    argv = list(sys.argv[1:] if arguments is None else arguments)
    options = argparse.Namespace(kernel=None, debug="--debug" in argv)
    try:
        parser().parse_args(argv, options)
        code = run(options)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader of --emit went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        _say("interrupted")
        return INTERRUPTED
    except MosaicError as error:
        return _report(error, options, argv)
    except OSError as error:
        file = f" ('{error.filename}')" if error.filename else ""
        failed = UsageError(f"a file cannot be read or written: {error.strerror or error}{file}")
        failed.__cause__ = error
        return _report(failed, options, argv)
    except Exception as error:
        fault = InternalError(
            f"the compiler itself failed: {type(error).__name__}: {error}",
            "please report this with the kernel; --debug shows where it happened",
        )
        fault.__cause__ = error
        return _report(fault, options, argv)


def _say(text: str) -> None:
    """To standard error: standard output is for results."""
    print(text, file=sys.stderr)


def _report(error: MosaicError, options: argparse.Namespace, argv: list[str]) -> int:
    if options.debug:
        traceback.print_exception(error.__cause__ or error)
    _say(error.render())
    if isinstance(error, UsageError | ArgumentError | CacheError):
        return USAGE
    chosen = [] if options.kernel is None or "--kernel" in " ".join(argv) else ["--kernel", options.kernel]
    _say(f"to repeat: {shlex.join(['mosaic-compile', *argv, *chosen])}")
    return MISTAKE


def run(options: argparse.Namespace) -> int:
    """Does what the options ask for, and gives the exit code; raises a MosaicError for mistakes."""
    if options.list_targets:
        _print_targets()
        return 0
    if options.list_passes:
        _print_passes()
        return 0
    _find_file(options)
    if options.file is not None:
        check_file(options.file)
    elif not options.print_pipeline:
        raise UsageError("no kernel file is given", "mosaic-compile kernel.py --target sm90")
    tunes = cli_tune.wants(options)
    if cli_check.wants(options) or tunes:
        return _run_kernels(options)
    compilation = Compilation(
        _target(options),
        overrides={name: Path(value) for name, value in _assignments("--override", options.override).items()},
        pass_options=_pass_options(options.pass_option),
        dump=options.dump_ir,
    )
    stages = pipeline(compilation)
    if options.print_pipeline:
        _print_pipeline(stages)
        return 0
    settings = Settings(_settings(options.set), *_shapes(options.shape), frozenset(options.arrays))
    kernels = _kernels(options)
    _check(options, compilation, kernels, settings)
    if options.emit not in (None, "sass") and not options.output:
        compilation = replace(compilation, until=options.emit)
    several = len(kernels) > 1
    with _progress() as progress:
        task = progress.add_task("", total=len(kernels))
        for name, kernel in kernels.items():
            options.kernel = name if several else options.kernel  # for the command that repeats a failure
            progress.update(task, description=f"compiling {name} for {compilation.target.name}")
            dump = options.dump_ir / name if several and options.dump_ir else options.dump_ir
            folder = options.output / name if several and options.output else options.output
            asked = replace(compilation, dump=dump)
            own = settings.of(kernel) if several else settings
            with redirect_stdout(sys.stderr):  # what the kernel prints while it is traced
                spec, outcome, tuned = _compile(kernel, asked, own, options)
            if folder and outcome.artifact:
                whole = targets.backend(compilation.target).complete(outcome.artifact)
                outcome = replace(outcome, artifact=whole)
                whole.save(folder)
            progress.stop() if options.emit or options.timing else None
            if options.emit:
                if several:
                    mark = ";" if options.emit in ("llvm", "llvm-opt", "amdgcn") else "//"
                    print(f"{mark} {name} for {compilation.target.name}")
                _emit(options.emit, asked, outcome)
            else:
                _print_artifact(name, spec, outcome)
                for line in (_assumed(outcome, own), tuned, f"written to {folder}" if folder else ""):
                    print(f"  {line}") if line else None
            if dump:
                _say(f"  the IR after each pass is in {dump}")
            if options.timing:
                _print_timings(outcome)
            sys.stdout.flush()
            progress.advance(task)
    return 0


def _kernels(options: argparse.Namespace) -> dict[str, Kernel]:
    with redirect_stdout(sys.stderr):  # what the file prints is no result of ours
        return choose(load_kernels(options.file), options.kernel, options.file)


def _run_kernels(options: argparse.Namespace) -> int:
    """--check, --sanitize and --tune."""
    from .check.inputs import Wanted

    if options.target is not None:
        targets.find(options.target)
    settings = Settings(
        _settings(options.set), *_shapes(options.shape), frozenset(options.arrays), scalars=True
    )
    files = {name: Path(value) for name, value in _assignments("--input", options.input).items()}
    kernels = _kernels(options)
    _check_names(options, kernels, settings)
    several = len(kernels) > 1

    def wanted(kernel: Kernel) -> Wanted:
        own = settings.of(kernel) if several else settings
        arrays = {p.name for p in kernel.signature.arrays}
        chosen = {name: file for name, file in files.items() if name in arrays or not several}
        return Wanted(own.given, own.dims, own.multiples, own.arrays, chosen, options.seed or 0)

    if not options.tune:
        return cli_check.run(options, kernels, wanted)

    def describe(name: str, spec: Specialization, artifact: Artifact) -> None:
        _print_artifact(name, spec, Outcome({}, artifact, ()))

    cli_tune.run(options, _target(options), kernels, wanted, describe)
    return 0


def _target(options: argparse.Namespace) -> targets.Target:
    """The target that --target and --backend name, or this machine; raises UsageError."""
    name = options.target or (targets.HOST if options.backend == "llvm" else None)
    target = targets.choose(name)
    if options.backend not in (None, target.backend):
        raise UsageError(
            f"{target.name} is compiled for by {target.backend}, not by {options.backend}",
            "leave --backend out",
        )
    return target


@contextmanager
def _progress() -> Iterator[Progress]:
    """A line that says what is being compiled, on terminals; gone when it is done."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    if not sys.stderr.isatty():
        yield Progress(*columns, disable=True)
        return
    # Back ends redirect the process's standard error while they run: progress has a way of its own.
    with (
        os.fdopen(os.dup(sys.stderr.fileno()), "w") as file,
        Progress(*columns, console=Console(file=file, force_terminal=True), transient=True) as progress,
    ):
        yield progress


@dataclass(frozen=True)
class Settings:
    """What --set, --shape and --with say. scalars: whether --set may name scalars: where kernels are run."""

    given: Mapping[str, Any]
    dims: Mapping[str, int]
    multiples: Mapping[str, int]
    arrays: frozenset[str]
    scalars: bool = False

    def names(self) -> set[str]:
        return {*self.given, *self.dims, *self.multiples, *self.arrays}

    def of(self, kernel: Kernel) -> Settings:
        """The part that concerns a kernel, where it stands in a file with others."""
        known = self.known(kernel)
        given, dims, multiples = (
            {k: v for k, v in part.items() if k in known} for part in (self.given, self.dims, self.multiples)
        )
        return Settings(given, dims, multiples, self.arrays & known, self.scalars)

    def known(self, kernel: Kernel) -> set[str]:
        """All names that the kernel has for them."""
        return _names_of(kernel) | (cli_check.scalars(kernel) if self.scalars else set())


def _names_of(kernel: Kernel) -> set[str]:
    """All that --set, --shape and --with may name."""
    signature = kernel.signature
    optional = {p.name for p in signature.arrays if p.spec.optional}
    return (
        {c.name for c in signature.constants}
        | {v.name for v in signature.dtype_vars}
        | {*signature.dims, *OPTIONS}
        | optional
    )


def _compile(
    kernel: Kernel, compilation: Compilation, settings: Settings, options: argparse.Namespace
) -> tuple[Specialization, Outcome, str]:
    """Compiles with what the command line sets over the kernel's `tune` list; also says which entry was taken and why."""
    of_kernel = f"'{kernel.name}' "
    machine = compilation.target.machine
    specs = choices(
        kernel,
        machine,
        dims=settings.dims,
        multiples=settings.multiples,
        arrays=settings.arrays,
        **settings.given,
    )
    refused: list[TargetLimitError] = []
    if options.emit or options.timing or compilation.dump or compilation.overrides:
        spec, outcome = first_that_fits(specs, lambda s: compile_kernel(kernel, s, compilation), refused)
    else:
        spec, artifact = first_that_fits(specs, lambda s: cached_artifact(kernel, s, compilation), refused)
        outcome = Outcome({}, artifact, ())
    entries = kernel.tune[machine]
    taken = kernel.first_choices(machine, settings.given, settings.dims)
    numbers = [entries.index(entry) + 1 for entry in taken if entry in entries]
    reasons = [
        f"entry {number} {short}"
        if (short := error.message.removeprefix(of_kernel)) != error.message
        else f"entry {number}: {error.message}"
        for number, error in zip(numbers, refused)
    ]
    return spec, outcome, f"tune entry {numbers[len(refused)]}: {'; '.join(reasons)}" if reasons else ""


def _check(
    options: argparse.Namespace, compilation: Compilation, kernels: Mapping[str, Kernel], settings: Settings
) -> None:
    """What is wrong whatever the kernels say; raises UsageError."""
    names = [s.name for s in pipeline(compilation)]
    allowed = [*names, *(["sass"] if targets.is_nvidia(compilation.target) else [])]
    first = next(iter(kernels))
    if options.emit is not None and options.emit not in allowed:
        raise UsageError(
            f"{compilation.target.name} has no stage '{options.emit}'",
            f"its stages are: {', '.join(allowed)}",
        )
    if options.emit == names[-1] and len(kernels) > 1:
        raise UsageError(
            f"--emit {options.emit} takes one kernel, but the file has several", f"name one: --kernel {first}"
        )
    if options.emit == names[-1] and sys.stdout.isatty():
        raise UsageError(
            f"'{options.emit}' is binary", f"--emit {options.emit} > kernel.{options.emit}, or -o DIR"
        )
    if compilation.overrides and len(kernels) > 1:
        raise UsageError(
            "--override takes one kernel, but the file has several", f"name one: --kernel {first}"
        )
    if (
        options.output
        and options.dump_ir
        and options.dump_ir.resolve().is_relative_to(options.output.resolve())
    ):
        raise UsageError("--dump-ir is inside the artifact's folder", "give --dump-ir a folder of its own")
    _check_names(options, kernels, settings)


def _check_names(options: argparse.Namespace, kernels: Mapping[str, Kernel], settings: Settings) -> None:
    known = set().union(*map(settings.known, kernels.values()))
    for name in sorted(settings.names() - known if len(kernels) > 1 else ()):  # one kernel says it itself
        raise UsageError(
            f"no kernel in '{options.file}' has a '{name}'", f"there are: {', '.join(sorted(known))}"
        )


# Reading arguments.


def _assignments(option: str, items: list[str]) -> dict[str, str]:
    result = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals or not name or not value:
            raise UsageError(f"{option} takes NAME=VALUE, not '{item}'", f"{option} {name or 'NAME'}=…")
        result[name] = value
    return result


def _settings(items: list[str]) -> dict[str, Any]:
    return {name: _value(text) for name, text in _assignments("--set", items).items()}


def _value(text: str) -> Any:
    """A number, true, false, none, an element type, or text."""
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    if text in DTYPES:
        return DTYPES[text]
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            continue
    return text


def _shapes(items: list[str]) -> tuple[dict[str, int], dict[str, int]]:
    """--shape M=4096 fixes, --shape M=%16 promises a multiple."""
    dims: dict[str, int] = {}
    multiples: dict[str, int] = {}
    for name, text in _assignments("--shape", items).items():
        number = text.removeprefix("%")
        if not number.isdecimal():
            raise UsageError(
                f"--shape {name} takes a size or %MULTIPLE, not '{text}'",
                f"--shape {name}=4096 or --shape {name}=%16",
            )
        (multiples if text.startswith("%") else dims)[name] = int(number)
    return dims, multiples


def _pass_options(items: list[str]) -> dict[str, dict[str, str]]:
    result: dict[str, dict[str, str]] = {}
    for name, value in _assignments("--pass-option", items).items():
        pass_name, dot, option = name.rpartition(".")
        if not dot:
            raise UsageError(
                f"--pass-option takes PASS.OPTION=VALUE, not '{name}={value}'",
                "--pass-option choose-memory-path.tma=false",
            )
        result.setdefault(pass_name, {})[option] = value
    return result


def _find_file(options: argparse.Namespace) -> None:
    """FILE behind an option that takes several values, as in --set BM=64 kernel.py, is not one of them."""
    for items in (
        options.set,
        options.shape,
        options.override,
        options.pass_option,
        options.arrays,
        options.input,
    ):
        if options.file is None and items and "=" not in items[-1] and items[-1].endswith(".py"):
            options.file = Path(items.pop())


# Printing.


def _print_artifact(name: str, spec: Specialization, outcome: Outcome) -> None:
    assert outcome.artifact is not None
    manifest = outcome.artifact.manifest
    chosen = {
        **spec.dtypes,
        **spec.dims,
        **spec.constants,
        **{k: v for k, v in spec.options.items() if v is not None},
    }
    settings = " ".join(f"{k}={v}" for k, v in chosen.items())
    kind = Path(manifest["files"]["binary"]).suffix[1:]
    print(f"{name} for {manifest['target']}{': ' if settings else ''}{settings}")
    print(
        f"  grid ({', '.join(map(_bare, manifest['grid']))}), {targets.describe(manifest)}, "
        f"{kind} of {len(outcome.artifact.binary)} bytes"
    )


def _assumed(outcome: Outcome, settings: Settings) -> str:
    """What the code relies on of dimensions that are known at launch, and how to take back what nobody promised."""
    assert outcome.artifact is not None
    multiples = {
        dim: multiple
        for array in outcome.artifact.manifest["arrays"]
        for dim, size, multiple in zip(array["dims"], array["sizes"], array["dim_multiples"])
        if size is None and multiple > 1
    }
    own = [dim for dim in multiples if dim not in settings.multiples]
    undo = f" (--shape {' '.join(f'{dim}=%1' for dim in own)} takes it back)" if own else ""
    listed = ", ".join(f"{dim} % {multiple} == 0" for dim, multiple in multiples.items())
    return f"assumes {listed}{undo}" if multiples else ""


def _bare(expression: str) -> str:
    """An expression without parentheses around the whole of it."""
    depth = 0
    for i, c in enumerate(expression):
        depth += (c == "(") - (c == ")")
        if depth == 0:
            return (
                expression[1:-1]
                if i > 0 and i + 1 == len(expression) and expression[0] == "("
                else expression
            )
    return expression


def _emit(stage: str, compilation: Compilation, outcome: Outcome) -> None:
    if stage == "sass":
        from .backends.triton import disassemble

        assert outcome.artifact is not None
        text = disassemble(outcome.artifact.binary, compilation.target)
        if text is None:
            raise BackendError(
                "nvdisasm cannot read the code", "Triton's wheel has the right one: install it again"
            )
        sys.stdout.write(text)
        return
    result = outcome.results[stage]
    if isinstance(result, bytes):
        sys.stdout.flush()
        sys.stdout.buffer.write(result)
    else:
        sys.stdout.write(result if result.endswith("\n") else result + "\n")


def _print_timings(outcome: Outcome) -> None:
    rows = [(stage, step, f"{milliseconds:8.1f}") for stage, step, milliseconds in outcome.timings]
    rows.append(("", "total", f"{sum(ms for _, _, ms in outcome.timings):8.1f}"))
    _say(_table([("stage", "step", "      ms"), *rows]))


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest entry."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in rows
    )


def _print_targets() -> None:
    rows = [(t.name, t.description, t.backend, targets.resources(t)) for t in targets.TARGETS.values()]
    print(_table([("target", "machine", "back end", "resources"), *rows]))


def _own_options(pass_: Any) -> list[tuple[str, Any]]:
    """The options of a pass with their values; of a class of passes with their defaults, as far as there are."""
    own = [f for f in fields(pass_) if f.name not in ("name", "options")]
    return [(f.name, getattr(pass_, f.name, None)) for f in own]


def _all_passes() -> list[Any]:
    """The passes for GPUs, and those for CPUs that are not among them, which only CPUs' kernels import."""
    stages = targets.stages(targets.CPUS["x86-64-v3"])
    of_cpus = [type(p) for s in stages if isinstance(s, PassStage) for p in s.passes]
    return list(dict.fromkeys([*passes.ALL, *(p for p in of_cpus if p is not passes.Upstream)]))


def _print_passes() -> None:
    for pass_ in _all_passes():
        summary = (sys.modules[pass_.__module__].__doc__ or "").strip().split("\n\n")[0]
        summary = summary.partition(": ")[2] or summary
        print(_with_options(pass_.name, _own_options(pass_)))
        print(textwrap.fill(" ".join(summary.split()), 100, initial_indent="    ", subsequent_indent="    "))
    print(
        "\nPasses of MLIR run between them by their own names; --print-pipeline shows the order for a target."
    )


def _with_options(name: str, options: Sequence[tuple[str, Any]]) -> str:
    return f"{name} ({', '.join(f'{k}={v!r}' for k, v in options)})" if options else name


def _print_pipeline(stages: Sequence[Stage]) -> None:
    for stage in stages:
        print(stage.name)
        if isinstance(stage, PassStage):
            for pass_ in stage.passes:
                print(f"  {_with_options(pass_.name, _own_options(pass_))}")
        else:
            print(f"  {stage.summary}")


if __name__ == "__main__":
    sys.exit(main())
