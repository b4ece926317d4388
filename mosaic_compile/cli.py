"""`mosaic-compile`: the command line."""

from __future__ import annotations

import argparse
import shlex
import sys
import traceback
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from . import __version__, passes, targets
from .driver import Compilation, Outcome, compile_kernel, pipeline
from .errors import MosaicError, TargetLimitError, UsageError
from .kernel_file import choose, load_kernels
from .language.dtypes import DTYPES
from .language.kernel import Kernel
from .language.specialization import Specialization
from .stages import PassStage
from .targets import Target

MISTAKE, USAGE = 1, 2


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="mosaic-compile",
        description="Compiles the kernels in a Python file for a GPU, with none present.",
        epilog="Exit codes: 0; 1 for a mistake in the kernel file or a limit of the target; 2 for a mistake on the command line.",
    )
    p.add_argument("file", metavar="FILE", type=Path, nargs="?", help="a Python file with functions marked @mc.kernel")
    p.add_argument("--target", metavar="T", help="the machine to compile for (--list-targets); without it, this machine's GPU")
    p.add_argument("--kernel", metavar="NAME", help="this kernel only; without it, every kernel in the file")
    p.add_argument("--set", metavar="NAME=VALUE", nargs="+", action="extend", default=[], help="constants, compiler options (num_warps=8) and element types (T=f16)")
    p.add_argument("--shape", metavar="NAME=SIZE", nargs="+", action="extend", default=[], help="fix a dimension (M=4096), or promise a multiple (M=%%16)")
    p.add_argument("--with", metavar="ARRAY", nargs="+", action="extend", default=[], dest="arrays", help="compile with these optional arrays")
    p.add_argument("--backend", metavar="B", choices=["triton"], help="the back end (triton)")
    p.add_argument("-o", metavar="DIR", type=Path, dest="output", help="write the artifact: binary, assembly, manifest.json")
    p.add_argument("--emit", metavar="STAGE", help="print a stage's result: tile, tt, ttir, ttgir, llvm, ptx, cubin, sass, or amdgcn, hsaco")
    p.add_argument("--dump-ir", metavar="DIR", type=Path, help="write the IR after every pass, and an index.json")
    p.add_argument("--override", metavar="STAGE=FILE", nargs="+", action="extend", default=[], help="take a stage's result from an edited file")
    p.add_argument("--pass-option", metavar="PASS.OPTION=VALUE", nargs="+", action="extend", default=[], help="set an option of a pass (--list-passes)")
    p.add_argument("--print-pipeline", action="store_true", help="print the stages and passes for the target, and stop")
    p.add_argument("--list-targets", action="store_true", help="list the targets, and stop")
    p.add_argument("--list-passes", action="store_true", help="list the passes and their options, and stop")
    p.add_argument("--timing", action="store_true", help="print where the time goes")
    p.add_argument("--debug", action="store_true", help="show Python tracebacks of the compiler")
    p.add_argument("--version", action="version", version=f"mosaic-compile {__version__}")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    argv = list(sys.argv[1:] if arguments is None else arguments)
    options = parser().parse_args(argv)
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        return run(options, errors)
    except UsageError as error:
        return _report(error, options, argv, errors, USAGE)
    except MosaicError as error:
        return _report(error, options, argv, errors, MISTAKE)
    except BrokenPipeError:  # the reader of --emit went away
        sys.stderr.close()
        return 0


def _report(error: MosaicError, options: argparse.Namespace, argv: list[str], errors: Console, code: int) -> int:
    if options.debug:
        traceback.print_exception(error)
    errors.print(error.render(), markup=False)
    if code == MISTAKE:
        errors.print(f"to repeat: {shlex.join(['mosaic-compile', *argv])}", markup=False)
    return code


def run(options: argparse.Namespace, errors: Console) -> int:
    if options.list_targets:
        _print_targets()
        return 0
    if options.list_passes:
        _print_passes()
        return 0
    compilation = Compilation(
        _target(options),
        overrides={name: Path(value) for name, value in _assignments("--override", options.override).items()},
        pass_options=_pass_options(options.pass_option),
        dump=options.dump_ir,
        until=None if options.emit in (None, "sass") or options.output else options.emit,
    )
    if options.print_pipeline:
        _print_pipeline(compilation)
        return 0
    if options.file is None:
        raise UsageError("no kernel file is given", "mosaic-compile kernel.py --target sm90")
    _check_emit(options.emit, compilation)
    kernels = choose(load_kernels(options.file), options.kernel, options.file)
    several = len(kernels) > 1
    if several and compilation.overrides:
        raise UsageError("--override replaces one kernel's IR, but the file has several kernels", f"name one: --kernel {next(iter(kernels))}")
    with Progress(
        SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=errors, transient=True, disable=not errors.is_terminal
    ) as progress:
        task = progress.add_task("", total=len(kernels))
        for kernel in kernels.values():
            progress.update(task, description=f"compiling {kernel.name} for {compilation.target.name}")
            asked = compilation
            if several and options.dump_ir:
                asked = Compilation(**{**vars(compilation), "dump": options.dump_ir / kernel.name})
            spec, outcome = _compile(kernel, asked, options, several)
            folder = options.output / kernel.name if several and options.output else options.output
            if folder and outcome.artifact:
                outcome.artifact.save(folder)
            progress.stop() if options.emit or options.timing else None
            _print_outcome(kernel, spec, asked, outcome, folder, options, errors)
            progress.advance(task)
    return 0


def _compile(kernel: Kernel, compilation: Compilation, options: argparse.Namespace, several: bool) -> tuple[Specialization, Outcome]:
    """Compiles with what the command line sets over the kernel's `tune` list.

    Without settings, the first entry of `tune` that fits the target's shared memory is taken.
    """
    dims, multiples = _shapes(options.shape)
    given = _settings(options.set)
    if several:  # a setting for one kernel of a file does not concern the others
        names = {c.name for c in kernel.signature.constants} | {v.name for v in kernel.signature.dtype_vars}
        given = {k: v for k, v in given.items() if k in names or k in passes_options()}
        dims = {k: v for k, v in dims.items() if k in kernel.signature.dims}
        multiples = {k: v for k, v in multiples.items() if k in kernel.signature.dims}
    arrays = frozenset(options.arrays)
    candidates: list[dict[str, Any]] = [dict(c) for c in kernel.tune] or [{}]
    for i, candidate in enumerate(candidates):
        spec = kernel.specialize(dims=dims, multiples=multiples, arrays=arrays, tuned=candidate, **given)
        try:
            return spec, compile_kernel(kernel, spec, compilation)
        except TargetLimitError:
            if i + 1 == len(candidates) or given.keys() & {*candidate}:
                raise
    raise AssertionError("unreachable")


def passes_options() -> frozenset[str]:
    from .language.specialization import OPTIONS

    return frozenset(OPTIONS)


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
    dims, multiples = {}, {}
    for name, text in _assignments("--shape", items).items():
        number = text.removeprefix("%")
        if not number.isdecimal():
            raise UsageError(f"--shape {name} takes a size or %MULTIPLE, not '{text}'", f"--shape {name}=4096 or --shape {name}=%16")
        (multiples if text.startswith("%") else dims)[name] = int(number)
    return dims, multiples


def _pass_options(items: list[str]) -> dict[str, dict[str, str]]:
    result: dict[str, dict[str, str]] = {}
    for name, value in _assignments("--pass-option", items).items():
        pass_name, dot, option = name.rpartition(".")
        if not dot:
            raise UsageError(f"--pass-option takes PASS.OPTION=VALUE, not '{name}={value}'", "--pass-option choose-memory-path.tma=false")
        result.setdefault(pass_name, {})[option] = value
    return result


def _target(options: argparse.Namespace) -> Target:
    if options.target is not None:
        return targets.find(options.target)
    found = targets.of_this_machine()
    if found is None:
        raise UsageError("this machine has no GPU that kernels can be compiled for", f"name a target: --target {' or '.join(targets.TARGETS)}")
    return found


def _check_emit(stage: str | None, compilation: Compilation) -> None:
    names = [s.name for s in pipeline(compilation)]
    allowed = [*names, *(["sass"] if compilation.target.vendor == "cuda" else [])]
    if stage is not None and stage not in allowed:
        raise UsageError(f"{compilation.target.name} has no stage '{stage}'", f"its stages are: {', '.join(allowed)}")


# Printing.


def _print_outcome(
    kernel: Kernel, spec: Specialization, compilation: Compilation, outcome: Outcome, folder: Path | None, options: argparse.Namespace, errors: Console
) -> None:
    if options.emit:
        _emit(options.emit, compilation, outcome)
    elif outcome.artifact:
        manifest = outcome.artifact.manifest
        chosen = {**spec.constants, **{k: v for k, v in spec.options.items() if v is not None}}
        settings = " ".join(f"{k}={v}" for k, v in chosen.items())
        print(f"{kernel.name} for {compilation.target.name}: {settings}")
        print(f"  grid ({', '.join(manifest['grid'])}), {manifest['threads']} threads, {manifest['shared_memory']} bytes of shared memory, {len(outcome.artifact.binary)} bytes of code")
        if folder:
            print(f"  written to {folder}")
    if compilation.dump:
        errors.print(f"  the IR after each pass is in {compilation.dump}", markup=False)
    if options.timing:
        _print_timings(outcome, errors)


def _emit(stage: str, compilation: Compilation, outcome: Outcome) -> None:
    if stage == "sass":
        from .backends.triton import disassemble

        assert outcome.artifact is not None
        text = disassemble(outcome.artifact.binary, compilation.target)
        if text is None:
            raise UsageError("there is no disassembler on this machine", "install triton, whose wheel has nvdisasm")
        sys.stdout.write(text)
        return
    result = outcome.results[stage]
    if isinstance(result, bytes):
        if sys.stdout.isatty():
            raise UsageError(f"'{stage}' is binary", f"send it to a file: --emit {stage} > kernel.{stage}, or use -o DIR")
        sys.stdout.buffer.write(result)
    else:
        sys.stdout.write(result if result.endswith("\n") else result + "\n")


def _print_timings(outcome: Outcome, errors: Console) -> None:
    table = Table("stage", "step", "ms", box=None, pad_edge=False)
    table.columns[2].justify = "right"
    for stage, step, milliseconds in outcome.timings:
        table.add_row(stage, step, f"{milliseconds:.1f}")
    table.add_row("", "total", f"{sum(ms for _, _, ms in outcome.timings):.1f}")
    errors.print(table)


def _print_targets() -> None:
    table = Table("target", "machine", "back end", "shared memory", box=None, pad_edge=False)
    for target in targets.TARGETS.values():
        table.add_row(target.name, target.description, target.backend, f"{target.shared_memory // 1024} KiB")
    Console(highlight=False, width=100).print(table)


def _print_passes() -> None:
    table = Table("pass", "options", "what it does", box=None, pad_edge=False)
    for pass_ in passes.ALL:
        summary = (sys.modules[pass_.__module__].__doc__ or "").strip().split("\n")[0]
        summary = summary.partition(": ")[2] or summary
        own = [f"{f.name}={f.default!r}" for f in fields(pass_) if f.name != "name"]  # type: ignore[arg-type]
        table.add_row(pass_.name, " ".join(own), summary)
    console = Console(highlight=False, width=120)
    console.print(table, markup=False)
    console.print("\nPasses of MLIR run between them by their own names; --print-pipeline shows the order for a target.")


def _print_pipeline(compilation: Compilation) -> None:
    for stage in pipeline(compilation):
        print(stage.name)
        if isinstance(stage, PassStage):
            for pass_ in stage.passes:
                own = ", ".join(f"{f.name}={getattr(pass_, f.name)!r}" for f in fields(pass_) if f.name not in ("name", "options"))  # type: ignore[arg-type]
                print(f"  {pass_.name}{f' ({own})' if own else ''}")
        else:
            print("  Triton's own passes")
