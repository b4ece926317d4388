"""Compiling: runs a target's stages on a traced kernel, with dumping, timing, overriding and caching."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from . import cache, targets
from .artifact import FORMAT, Artifact
from .dump import Dump, problem
from .errors import MosaicError, OverrideError, TargetLimitError, UsageError
from .frontend import trace
from .language.arrays import ArrayParam, Param, ScalarParam
from .language.kernel import Kernel
from .language.specialization import Specialization
from .mlir import ir, new_context
from .passes import Pass
from .passes.choose_memory_path import check_paths
from .stages import PassStage, Session, Stage
from .targets import GpuTarget, Target

T = TypeVar("T")


@dataclass(frozen=True)
class Compilation:
    """What is asked of the compiler beside the kernel and its specialization.

    overrides: stage name to a file that takes the place of the stage's result. pass_options: pass name to its options.
    dump: a folder for the IR after each pass. until: the last stage to run.
    """

    target: Target
    overrides: Mapping[str, Path] = field(default_factory=dict)
    pass_options: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    dump: Path | None = None
    until: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What a compilation gave: each stage's result as text or bytes, the artifact where the last stage ran, the times."""

    results: Mapping[str, str | bytes]
    artifact: Artifact | None
    timings: tuple[tuple[str, str, float], ...]


def pipeline(compilation: Compilation) -> tuple[Stage, ...]:
    """The target's stages with the given pass options; raises UsageError for a pass or stage that is not there."""
    stages = targets.stages(compilation.target)
    known = {p.name for s in stages if isinstance(s, PassStage) for p in s.passes}
    for name in compilation.pass_options.keys() - known:
        raise UsageError(
            f"no pass '{name}' runs for {compilation.target.name}",
            f"the passes are: {', '.join(sorted(known))}",
        )
    names = [s.name for s in stages]
    for name in [*compilation.overrides, *([compilation.until] if compilation.until else [])]:
        if name not in names:
            raise UsageError(
                f"{compilation.target.name} has no stage '{name}'", f"its stages are: {', '.join(names)}"
            )
    return tuple(
        replace(s, passes=tuple(_with_options(p, compilation.pass_options.get(p.name, {})) for p in s.passes))
        if isinstance(s, PassStage)
        else s
        for s in stages
    )


def _with_options(pass_: Pass, options: Mapping[str, str]) -> Pass:
    if not options:
        return pass_
    known = {f.name: f for f in fields(pass_) if f.name != "name"}  # type: ignore[arg-type]
    values = {}
    for name, text in options.items():
        if name not in known:
            listed = ", ".join(known) or "none"
            raise UsageError(f"the pass '{pass_.name}' has no option '{name}'", f"its options are: {listed}")
        values[name] = _parse_option(pass_.name, name, text, type(getattr(pass_, name)))
    return replace(pass_, **values)  # type: ignore[type-var]


def _parse_option(pass_name: str, name: str, text: str, type_: type) -> Any:
    if type_ is bool:
        if text.lower() not in ("true", "false", "1", "0"):
            raise UsageError(
                f"{pass_name}.{name} is true or false, not '{text}'", f"--pass-option {pass_name}.{name}=true"
            )
        return text.lower() in ("true", "1")
    try:
        return type_(text)
    except ValueError:
        raise UsageError(
            f"{pass_name}.{name} takes a {type_.__name__}, not '{text}'",
            f"--pass-option {pass_name}.{name}=…",
        ) from None


def compile_kernel(
    kernel: Kernel, spec: Specialization, compilation: Compilation, traced: ir.Module | None = None
) -> Outcome:
    """Compiles a kernel through its target's stages. Nothing is cached: see `cached_artifact`.

    traced: the kernel's IR, if it was traced before; it is changed in place.
    Raises a MosaicError for mistakes in the kernel, limits of the target and failures of a back end.
    """
    stages = pipeline(compilation)
    recorder = None
    if compilation.dump is not None:
        about = _about(kernel, spec, compilation.target)
        recorder = Dump(
            compilation.dump, {**about, "source": {**about["source"], "sha256": _source_sum(kernel)}}
        )
    session = Session(compilation.target, spec.options, recorder)
    try:
        outcome = _run_stages(kernel, spec, stages, compilation, session, traced)
    except BaseException as error:
        if recorder is not None:  # what ran before the failure is what one wants to see
            recorder.finish(_problem(error), timings=session.timings)
        raise
    if recorder is not None:
        manifest = outcome.artifact.manifest if outcome.artifact is not None else None
        recorder.finish(manifest=manifest, timings=session.timings)
    return outcome


def _problem(error: BaseException) -> dict[str, Any]:
    if isinstance(error, MosaicError):
        return problem(error.message, error.help, error.frames[-1] if error.frames else None)
    interrupted = isinstance(error, KeyboardInterrupt)
    return problem("interrupted" if interrupted else f"{type(error).__name__}: {error}")


def _source_sum(kernel: Kernel) -> str | None:
    """The checksum of the kernel's file; None where it was made without one."""
    try:
        return hashlib.sha256(Path(kernel.span.file).read_bytes()).hexdigest()
    except OSError:
        return None


def _about(kernel: Kernel, spec: Specialization, target: Target) -> dict[str, Any]:
    """What the manifest and a dump's index both say of a kernel."""
    return {
        "kernel": kernel.name,
        "source": {"file": kernel.span.file, "line": kernel.span.line},
        "target": target.name,
        "constants": {
            k: v if isinstance(v, int | float | str | None) else str(v) for k, v in spec.constants.items()
        },
        "options": dict(spec.options),
        "dims": dict(spec.dims),
    }


def _run_stages(
    kernel: Kernel,
    spec: Specialization,
    stages: tuple[Stage, ...],
    compilation: Compilation,
    session: Session,
    traced: ir.Module | None,
) -> Outcome:
    with session.timed("tile", "trace"):
        state: Any = trace(kernel, spec) if traced is None else traced
    if session.recorder is not None:
        milliseconds = session.timings[-1][2]
        session.recorder.record(
            "tile", "trace", "mlir", state.operation.get_asm(), milliseconds, _located(state)
        )
    results, signature = _through(stages, state, compilation, session)
    artifact = (
        _artifact(kernel, spec, compilation, session, results, signature)
        if len(results) == len(stages)
        else None
    )
    return Outcome(results, artifact, tuple(session.timings))


def _through(
    stages: Sequence[Stage], state: Any, compilation: Compilation, session: Session
) -> tuple[dict[str, str | bytes], dict[str, Any]]:
    """Each stage's result, as far as `compilation.until`, and what the lowered function says of itself."""
    results: dict[str, str | bytes] = {}
    signature: dict[str, Any] = {}
    for stage in stages:
        if stage.name in compilation.overrides:
            state = _override(stage, compilation.overrides[stage.name], state, session)
        else:
            state = stage.run(state, session)
        results[stage.name] = stage.write(state)
        if isinstance(state, ir.Module):
            signature = _function_description(state) or signature
        if stage.name == compilation.until:
            break
    return results, signature


def _override(stage: Stage, file: Path, state: Any, session: Session) -> Any:
    """The edited file's state in place of the stage's result."""
    if not isinstance(stage, PassStage):
        stage.run(state, replace(session, recorder=None))  # for what the back end tells launchers
    try:
        state = stage.read(file, session)
    except OSError as error:
        reason = f"the file '{file}' for --override {stage.name} cannot be read: {error.strerror}"
        raise UsageError(reason, "give the path of an edited IR file") from None
    except UnicodeDecodeError:
        raise OverrideError(f"'{file}' is not text", f"give what --emit {stage.name} wrote, edited") from None
    session.edited = True
    if stage.name == "tile" and isinstance(session.target, GpuTarget):
        check_paths(state, session.target.name, session.target.tma)
    if session.recorder is not None:
        text = stage.write(state)
        extension = "mlir" if not isinstance(state, str | bytes) else stage.extension
        session.recorder.record(stage.name, "override", extension, text, None, _located(state))
    return state


def _located(state: Any) -> str | None:
    """A module of MLIR or Triton printed with its locations."""
    if isinstance(state, ir.Module):
        return state.operation.get_asm(enable_debug_info=True)
    return None if isinstance(state, str | bytes) else str(state)


def _function_description(module: ir.Module) -> dict[str, Any]:
    """What the lowered function says of its parameters and grid."""
    for op in module.body.operations:
        attributes = op.operation.attributes
        if "mosaic.arguments" in attributes:
            return {
                "parameters": json.loads(attributes["mosaic.arguments"].value),
                "grid": [g.value for g in attributes["mosaic.grid"]],
                "access": {a.name: a.attr.value for a in attributes["mosaic.access"]},
            }
    return {}


def _artifact(
    kernel: Kernel,
    spec: Specialization,
    compilation: Compilation,
    session: Session,
    results: Mapping[str, str | bytes],
    signature: Mapping[str, Any],
) -> Artifact:
    """What every back end says of a kernel in its manifest, made whole by the target's own."""
    if not signature:
        raise OverrideError(
            "the function has lost its attribute mosaic.arguments", "keep the attributes of the function"
        )
    about = {
        "format": FORMAT,
        **_about(kernel, spec, session.target),
        "doc": inspect.cleandoc(kernel.function.__doc__ or ""),
        "backend": session.target.backend,
        "grid": signature["grid"],
        "arguments": [p.name for p in kernel.signature.params if _is_passed(p, spec)],
        "parameters": _with_defaults(kernel, signature["parameters"]),
        "arrays": _arrays(kernel, spec, signature["access"]),
        "overrides": {stage: str(file) for stage, file in compilation.overrides.items()},
        "versions": versions(session.target),
    }
    try:
        return targets.backend(session.target).package(about, results, session)
    except TargetLimitError as error:
        raise error.at((kernel.span,)) from None


def _with_defaults(kernel: Kernel, parameters: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The compiled function's parameters, with what a call that leaves a scalar out passes."""
    defaults = {p.name: p.default for p in kernel.signature.params if isinstance(p, ScalarParam)}
    return [p | {"default": defaults[p["name"]]} if p["kind"] == "scalar" else p for p in parameters]


def _is_passed(param: Param, spec: Specialization) -> bool:
    """Whether a launch takes a value for it: neither a constant nor an optional array that is left out."""
    return spec.has(param) if isinstance(param, ArrayParam) else isinstance(param, ScalarParam)


def _arrays(kernel: Kernel, spec: Specialization, access: Mapping[str, str]) -> list[dict[str, Any]]:
    """What the kernel expects of each array argument: its type, and what the compiler relied on."""
    return [
        {
            "name": p.name,
            "dtype": spec.dtype_of(p).name,
            "dims": list(p.spec.dims),
            "sizes": list(spec.sizes_of(p)),
            "strides": list(spec.layout_of(p).strides),
            "stride_multiples": list(spec.layout_of(p).stride_multiples),
            "dim_multiples": [spec.dim_multiples.get(d, 1) if isinstance(d, str) else 1 for d in p.spec.dims],
            "align": spec.layout_of(p).align,
            "access": access[p.name],
        }
        for p in kernel.signature.arrays
        if spec.has(p)
    ]


def versions(target: Target) -> dict[str, str]:
    """The versions of everything that decides the result."""
    packages = {
        "mosaic-compile": "mosaic-compile",
        "torch-mlir": "torch-mlir",
        **{package: package for package in targets.backend(target).PACKAGES},
    }
    return {name: _version(package) for name, package in packages.items()}


@functools.cache
def _version(package: str) -> str:
    import importlib.metadata  # slow to import

    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def compile(
    kernel: Kernel,
    target: str | None = None,
    *,
    dims: Mapping[str, int] | None = None,
    multiples: Mapping[str, int] | None = None,
    arrays: Iterable[str] = (),
    **given: Any,
) -> Artifact:
    """Compiles a kernel ahead of time, with no GPU present; the result comes from the cache where it can.

    target: a name that `mosaic-compile --list-targets` shows; without it, this machine's GPU.
    dims: dimensions to fix. multiples: what others are multiples of. arrays: optional arrays to compile with.
    given: constants, compiler options (num_warps …) and element types.

        artifact = mc.compile(matmul, "sm90", dims={"K": 4096}, BM=64)
        artifact.save(Path("matmul"))
    """
    found = targets.choose(target)
    specs = choices(kernel, found.machine, dims=dims, multiples=multiples, arrays=arrays, **given)
    return first_that_fits(specs, lambda spec: cached_artifact(kernel, spec, Compilation(found)))[1]


def choices(
    kernel: Kernel, machine: str, *, arrays: Iterable[str] = (), **settings: Any
) -> list[Specialization]:
    """What to try on a kind of machine, best first (see Kernel.candidates)."""
    return [
        kernel.specialize(arrays=frozenset(arrays), tuned=entry, **settings)
        for entry in kernel.first_choices(machine, settings, settings.get("dims") or {})
    ]


def first_that_fits(
    specs: Sequence[Specialization],
    compile_one: Callable[[Specialization], T],
    refused: list[TargetLimitError] | None = None,
) -> tuple[Specialization, T]:
    """The first of the specializations that keeps within the target's limits; raises the last one's error.

    refused: takes the errors of those before it.
    """
    for spec in specs[:-1]:
        try:
            return spec, compile_one(spec)
        except TargetLimitError as error:
            if refused is not None:
                refused.append(error)
    return specs[-1], compile_one(specs[-1])


def cached_artifact(kernel: Kernel, spec: Specialization, compilation: Compilation) -> Artifact:
    """The compiled kernel, from the cache if it was compiled before; without dump, overrides or a last stage.

    The key is all that decides the result: the traced IR with its locations (so that constants, helpers and closures
    count), the target's pipeline with its options, the versions, the compiler's own text, and Triton's settings.
    """
    traced = trace(kernel, spec, _context())

    def make() -> Artifact:
        _local.context = None  # passes may leave anything in it
        artifact = compile_kernel(kernel, spec, compilation, traced).artifact
        assert artifact is not None
        return artifact

    return cache.get_or_make(cache_key(kernel, spec, compilation, traced), make)


_local = threading.local()


def _context() -> ir.Context:
    """This thread's context for kernels whose result is looked up: to make one takes as long as to trace a kernel."""
    if getattr(_local, "context", None) is None:
        _local.context = new_context()
    return _local.context


def cache_key(kernel: Kernel, spec: Specialization, compilation: Compilation, traced: ir.Module) -> str:
    """The name of a compiled kernel in the cache: see `cached_artifact`."""
    text = traced.operation.get_asm(enable_debug_info=True)
    about = json.dumps([_about(kernel, spec, compilation.target), kernel.function.__doc__], default=str)
    return cache.key(text, about, *_compiler(compilation))


def code_key(compilation: Compilation, traced: ir.Module) -> str:
    """A name for the code that a traced kernel is compiled to, wherever its text stands."""
    return cache.key(traced.operation.get_asm(), *_compiler(compilation))


def _compiler(compilation: Compilation) -> tuple[str, ...]:
    """All that decides the result beside the kernel."""
    target = compilation.target
    settings = repr(sorted(backend_settings().items()))
    return repr(pipeline(compilation)), repr(target), json.dumps(versions(target)), _compiler_text(), settings


# Environment variables by which Triton and LLVM make other code.
_BACKEND_SETTINGS = ("TRITON_", "LLVM_", "MLIR_", "DISABLE_", "NVPTX_", "AMDGCN_", "PTXAS_", "USE_IR_LOC")


def backend_settings() -> dict[str, str]:
    """This process's variables of that kind."""
    return {name: value for name, value in os.environ.items() if name.startswith(_BACKEND_SETTINGS)}


# Compiling in another process: there go a kernel's text and options, from there comes what makes the artifact here, where the
# kernel is. Kernels themselves are not pickled.


@dataclass(frozen=True)
class Compiled:
    """What the stages gave: their results, what the lowered function says of itself, what the back end told."""

    results: Mapping[str, str | bytes]
    signature: Mapping[str, Any]
    metadata: Mapping[str, Any]


def compile_text(text: str, options: Mapping[str, Any], target: Target) -> Compiled:
    """Compiles a traced kernel, given as MLIR's text with locations; raises a MosaicError as `compile_kernel` does."""
    compilation, session = Compilation(target), Session(target, options)
    with new_context():
        module = ir.Module.parse(text)
    results, signature = _through(pipeline(compilation), module, compilation, session)
    return Compiled(results, signature, session.metadata)


def artifact_of(
    kernel: Kernel, spec: Specialization, compilation: Compilation, compiled: Compiled
) -> Artifact:
    """The artifact of what `compile_text` made of the kernel."""
    session = Session(compilation.target, spec.options, metadata=dict(compiled.metadata))
    return _artifact(kernel, spec, compilation, session, compiled.results, compiled.signature)


@functools.cache
def _compiler_text() -> str:
    """A digest of this package's source, so that a development install never takes an older compiler's results."""
    from mosaic_compile import dialects, passes

    digest = hashlib.sha256()
    for package in (Path(__file__).parent, *(Path(p.__path__[0]) for p in (dialects, passes))):
        for file in sorted(package.rglob("*.py")):
            digest.update(f"{file.relative_to(package)}\0".encode() + file.read_bytes())
    return digest.hexdigest()
