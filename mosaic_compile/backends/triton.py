"""Triton as a back end: `tile` IR through `tt` to Triton's own stages, and a cubin or hsaco.

Triton compiles for every GPU without one being present. Its stages are run here one by one, rather than by
`triton.compile`, so that our driver can dump, time and override each.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mosaic_compile.artifact import TENSOR_MAP_TYPES, Artifact
from mosaic_compile.dump import without_locations
from mosaic_compile.errors import BackendError, OverrideError, TargetLimitError
from mosaic_compile.mlir import ir
from mosaic_compile.passes import (
    CheckKernel,
    CheckTritonLimits,
    ChooseMemoryPath,
    HoistLoads,
    PropagateDivisibility,
    TileCanonicalize,
    TileToTT,
    Upstream,
)
from mosaic_compile.stages import PassStage, Session
from mosaic_compile.targets import GpuTarget, Target

PACKAGES = ("triton",)  # whose versions decide the result


def stages(target: GpuTarget) -> tuple[Any, ...]:
    """The whole way from a traced kernel to the binary."""
    splits_tiles = target.arch == 90
    tile = PassStage(
        "tile",
        (
            CheckKernel(),  # first, while the IR still looks like the user's text
            Upstream("canonicalize"),
            TileCanonicalize(),
            Upstream("cse"),
            Upstream("loop-invariant-code-motion"),
            HoistLoads(),  # after the arithmetic of its offsets has left the loop
            PropagateDivisibility(),
            Upstream("canonicalize"),  # what has become constant folds
            Upstream("cse"),
            CheckTritonLimits(target.name, target.warp_size, target.clusters, splits_tiles),
            ChooseMemoryPath(tma=target.tma),  # needs the facts of propagate-divisibility
        ),
    )
    to_tt = TileToTT(vendor=target.vendor, fp8=target.fp8, splits_tiles=splits_tiles)
    tt = PassStage("tt", (to_tt, Upstream("canonicalize"), Upstream("cse")))
    if target.vendor == "cuda":
        machine = (TritonStage("ptx", "ptx", "llvm-to-ptx"), TritonStage("cubin", "cubin", "ptxas"))
    else:
        machine = (
            TritonStage("amdgcn", "amdgcn", "llvm-to-amdgcn"),
            TritonStage("hsaco", "hsaco", "assemble"),
        )
    own = (
        TritonStage("ttir", "ttir"),
        TritonStage("ttgir", "ttgir"),
        TritonStage("llvm", "llir", "mlir-to-llvm"),
    )
    return (tile, tt, *own, *machine)


@dataclass(frozen=True)
class TritonStage:
    """One of Triton's stages; `extension` is Triton's name for it.

    `step` names what leaves MLIR behind; without it, the stage consists of Triton's passes alone.
    """

    name: str
    extension: str
    step: str | None = None

    @property
    def summary(self) -> str:
        if self.step is None:
            return "Triton's own passes"
        return f"Triton's own passes, {self.step}" if self.name == "llvm" else self.step

    def run(self, state: Any, session: Session) -> Any:
        compiler = _compiler(self.name, session)
        record = session.recorder.record if session.recorder is not None else None
        if isinstance(state, ir.Module):
            with session.timed(self.name, "parse"):
                state = compiler.parse(state)
            if record is not None:
                text, located = state.str_nodebug(), str(state)
                record(self.name, "parse", "mlir", text, session.timings[-1][2], located)

        def record_pass(name: str, located: str) -> None:
            assert record is not None
            record(self.name, name, "mlir", without_locations(located), None, located)

        with session.timed(self.name, self.step or "Triton's passes"):
            result = compiler.run(self, state, session, record_pass if record is not None else None)
        if record is not None and self.step is not None:
            record(self.name, self.step, self.extension, self.write(result), session.timings[-1][2])
        return result

    def write(self, state: Any) -> str | bytes:
        return state if isinstance(state, str | bytes) else state.str_nodebug()

    def read(self, file: Path, session: Session) -> Any:
        contents = file.read_bytes()
        if self.extension in ("cubin", "hsaco"):
            if not contents.startswith(b"\x7fELF"):
                raise OverrideError(
                    f"'{file}' is not a {self.extension} file", f"give what --emit {self.name} wrote"
                )
            return contents
        text = contents.decode()
        if self.extension == "llir":
            _compiler(self.name, session).check_llvm(file, text)
        return (
            text if self.step is not None else _compiler(self.name, session).parse_file(str(file), str(file))
        )


def _compiler(stage: str, session: Session) -> TritonCompiler:
    """The session's compiler, made by the first stage that needs it."""
    if "triton" not in session.tools:
        with session.timed(stage, "import triton"):
            session.tools["triton"] = TritonCompiler(session)
    return session.tools["triton"]


class TritonCompiler:
    """Triton's compiler for one target and one set of options."""

    def __init__(self, session: Session):
        try:
            import triton
        except ImportError:
            raise BackendError("Triton is not installed", "pip install triton (Linux, 3.6 to 3.9)") from None
        from triton._C.libtriton import ir as triton_ir
        from triton.backends.compiler import GPUTarget, Language
        from triton.compiler.compiler import make_backend

        self.version = triton.__version__
        self.ir = triton_ir
        machine = _gpu(session)
        target = GPUTarget(machine.vendor, machine.arch, machine.warp_size)
        self.backend = make_backend(target)
        options = {name: value for name, value in session.options.items() if value is not None}
        # Explicit: Triton 3.10 changes the default.
        self.options = self.backend.parse_options({**options, "enable_fp_fusion": True})
        self.context = triton_ir.context()
        triton_ir.load_dialects(self.context)
        self.backend.load_dialects(self.context)
        self.stages: dict[str, Any] = {}
        self.backend.add_stages(self.stages, self.options, Language.TRITON)
        session.metadata.update({"target": target, **self.options.__dict__})

    def parse(self, module: ir.Module) -> Any:
        with tempfile.NamedTemporaryFile("w", suffix=".ttir") as file:
            file.write(triton_text(module, self.version))
            file.flush()
            try:
                return self.parse_file(file.name, "the module after tile-to-tt")
            except OverrideError as error:
                help = "this is a fault of Mosaic Compile, unless an edited file led here: please report it"
                raise BackendError(error.message, help) from None

    def parse_file(self, file: str, name: str) -> Any:
        """Triton's module from a file; raises OverrideError where Triton's parser or verifier refuses it."""
        with _captured_errors() as errors:
            try:
                module = self.ir.parse_mlir_module(file, self.context)
            except RuntimeError:
                message = _first_diagnostic(errors()).replace(file, name)
                raise OverrideError(f"Triton does not accept {name}: {message}", "correct the IR") from None
        module.context = self.context
        return module

    def check_llvm(self, file: Path, text: str) -> None:
        """Raises OverrideError for text that is not LLVM IR, at which Triton would end the process."""
        from llvmlite import binding
        from triton._C.libtriton import llvm

        context = llvm.context()
        empty = llvm.to_module(self.ir.builder(self.context).create_module(), context)
        try:
            llvm.link_extern_libs(empty, [str(file)])
        except ValueError:
            try:  # llvmlite may have another version of LLVM, but it says where
                binding.parse_assembly(text)
                place = ""
            except RuntimeError as error:
                found = re.search(r":(\d+:\d+: )error: (.*)", str(error))
                place = f": {found[1]}{found[2]}" if found else ""
            raise OverrideError(f"'{file}' is not LLVM IR{place}", "correct the IR") from None

    def run(
        self,
        stage: TritonStage,
        state: Any,
        session: Session,
        record: Callable[[str, str], None] | None = None,
    ) -> Any:
        """The stage's result; `record` gets the name of each of Triton's passes and the IR after it."""
        final = None
        # On a failure Triton also prints the IR, or a shell command: what is of use goes into our message.
        with _captured_errors(record is not None) as errors, redirect_stdout(io.StringIO()):
            try:
                result = self.stages[stage.extension](state, session.metadata)
                final = None if isinstance(state, str) else str(state)  # passes change a module in place
                failure = None
            except Exception as error:
                failure = _stage_error(stage, session, errors(), error)
            log = errors()
        if record is not None:
            for name, located in _passes_in(log, final):
                record(name, located)
        if failure is not None:
            raise failure
        return result


def triton_text(module: ir.Module, version: str) -> str:
    """A module of our `tt` mirror as the generic form that Triton reads.

    Three things differ from what our bindings print: names with a dot, which IRDL does not have; the segment sizes that
    ext writes on every operation with a variable number of operands; and the descriptor type, which changed in Triton 3.8.
    """
    text = module.operation.get_asm(print_generic_op_form=True, enable_debug_info=True)
    text = text.replace('"tt.reduce_return"', '"tt.reduce.return"').replace(
        '"tt.scan_return"', '"tt.scan.return"'
    )
    lines = []
    for line in text.split("\n"):
        if (
            "SegmentSizes" in line and '"tt.' in line and '"tt.load"' not in line
        ) or "resultSegmentSizes" in line:
            line = _SEGMENTS.sub("", line).replace(", }", "}").replace(" {}", "")
        lines.append(line)
    text = "\n".join(lines)
    if tuple(map(int, version.split(".")[:2])) >= (3, 8):
        text = re.sub(r"!tt\.tensordesc<tensor<([^<>]*)>>", r"!tt.tensordesc<\1>", text)
    return text


_SEGMENTS = re.compile(r"(?:operand|result)SegmentSizes = array<i32[^>]*>(?:, )?")


# Triton reports through the process's standard error: one compilation at a time may redirect it.
_ERRORS_LOCK = threading.Lock()


@contextmanager
def _captured_errors(dump_passes: bool = False) -> Iterator[Any]:
    """What is written to file descriptor 2 inside; with `dump_passes`, Triton writes its IR there before each pass."""
    with _ERRORS_LOCK, tempfile.TemporaryFile() as file:
        saved = os.dup(2)
        before = os.environ.get("MLIR_ENABLE_DUMP")
        os.dup2(file.fileno(), 2)
        if dump_passes:
            os.environ["MLIR_ENABLE_DUMP"] = "1"
        try:

            def text() -> str:
                file.seek(0)
                return file.read().decode(errors="replace")

            yield text
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            if dump_passes:
                os.environ.pop("MLIR_ENABLE_DUMP")
                if before is not None:
                    os.environ["MLIR_ENABLE_DUMP"] = before


# Triton 3.6: IR Dump Before CSE (cse) ('builtin.module' …; since 3.8: IR Dump Before CSEPass: cse{options} ('builtin.module' …
_PASS_HEADER = re.compile(
    r"^// -----// IR Dump Before (?P<cls>[^\n]*?)(?:: (?P<new>[\w-]+)[^\n]*?| \((?P<old>[\w-]*)\))? \('[^\n]*//----- //$",
    re.MULTILINE,
)


def _passes_in(log: str, final: str | None) -> Iterator[tuple[str, str]]:
    """Name of each pass with the IR after it: Triton writes the IR before a pass, so each is the one before the next.

    final: the IR after the last pass; None where a pass failed. A pass that runs others stands before them.
    """
    headers = list(_PASS_HEADER.finditer(log))
    bodies = [log[h.end() : n.start() if n else None] for h, n in zip(headers, [*headers[1:], None])]
    after = [*bodies[1:], *([final] if final is not None else [])]
    for header, body in zip(headers, after):
        # Passes may write remarks of their own, and their own steps, behind the module.
        module = body.split("\n// -----//")[0].strip().split("\n")
        while module and not module[-1].startswith(("}", "#")):
            module.pop()
        yield header["new"] or header["old"] or header["cls"].split("::")[-1], "\n".join(module) + "\n"


def _first_diagnostic(text: str) -> str:
    ptxas = re.search(r"line (\d+); (?:error|fatal)\s*: (.*)", text)
    if ptxas:
        return f"line {ptxas[1]} of the PTX: {re.sub(r' at start of file .*', '', ptxas[2]).strip()}"
    found = re.search(r'(?:loc\()?"?([^"\n]*?)"?:(\d+):(\d+)\)?: error: (.*)', text)
    return (
        f"{found[1]}:{found[2]}:{found[3]}: {found[4]}" if found else (text.strip().split("\n") or [""])[-1]
    )


def _stage_error(stage: TritonStage, session: Session, log: str, error: Exception) -> BackendError:
    """A failure of Triton's compiler in one line, with the kernel's line if Triton names it."""
    details = _first_diagnostic(f"{log}\n{error}".strip())
    if type(error).__name__ == "OutOfResources":
        return TargetLimitError(str(error), "use smaller tiles or fewer stages")  # type: ignore[return-value]
    return BackendError(
        f"Triton's stage '{stage.name}' failed for {session.target.name}: {details}",
        "the IR before it is shown by --dump-ir; other tile sizes, num_warps or num_stages often help",
    )


def package(about: Mapping[str, Any], results: Mapping[str, str | bytes], session: Session) -> Artifact:
    """The artifact of a compilation: `about` is the manifest as far as it is the same for every back end."""
    target, metadata = _gpu(session), session.metadata
    (assembly_stage, assembly), (binary_stage, binary) = list(results.items())[-2:]
    assert isinstance(binary, bytes)
    name = about["kernel"]
    if metadata["shared"] > target.shared_memory:
        raise TargetLimitError(
            f"'{name}' needs {metadata['shared']} bytes of shared memory, {target.name} has {target.shared_memory}",
            "use smaller tiles or fewer stages: --set BM=64, --set num_stages=2",
        )
    if session.recorder is not None and (sass := disassemble(binary, target)) is not None:
        session.recorder.record("sass", "nvdisasm", "sass", sass, None)
    names = {"binary": f"{name}.{binary_stage}", "assembly": f"{name}.{assembly_stage}"}
    manifest = {
        **about,
        "entry": metadata["name"],
        "threads": metadata["num_warps"] * target.warp_size,
        "cluster": metadata.get("num_ctas", 1),
        "shared_memory": metadata["shared"],
        "scratch": {
            kind: {
                "bytes_per_program": metadata.get(f"{kind}_scratch_size", 0),
                "align": metadata.get(f"{kind}_scratch_align", 1),
            }
            for kind in ("global", "profile")
        },
        "parameters": _parameters(about, metadata),
        "files": names,
    }
    text = assembly.encode() if isinstance(assembly, str) else assembly
    return Artifact(manifest, {names["binary"]: binary, names["assembly"]: text})


def _parameters(about: Mapping[str, Any], metadata: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The parameters with what Triton says of descriptors; it adds two pointers to scratch memory behind our own."""
    dtypes = {array["name"]: array["dtype"] for array in about["arrays"]}
    descriptors = iter(metadata.get("tensordesc_meta") or [])
    result = []
    for parameter in about["parameters"]:
        if parameter["kind"] == "descriptor":
            extra = next(descriptors, None) or {}
            parameter = parameter | {
                "swizzle": extra.get("swizzle"),
                "element_type": TENSOR_MAP_TYPES[dtypes[parameter["array"]]],
                "box": list(extra.get("block_size", parameter["box"])),
                "tile": parameter["box"],
            }
        result.append(parameter)
    return [*result, {"kind": "scratch", "name": "global"}, {"kind": "scratch", "name": "profile"}]


def complete(artifact: Artifact) -> Artifact:
    """The artifact as it is saved for others: for GPUs nothing more."""
    return artifact


def describe(manifest: Mapping[str, Any]) -> str:
    """What is worth knowing of an artifact, in a few words."""
    return f"{manifest['threads']} threads, {manifest['shared_memory']} bytes of shared memory"


def _gpu(session: Session) -> GpuTarget:
    assert isinstance(session.target, GpuTarget)
    return session.target


def disassemble(binary: bytes, target: Target) -> str | None:
    """SASS of a cubin with the kernel's lines, by the nvdisasm in Triton's wheel; None where there is no disassembler."""
    if not isinstance(target, GpuTarget) or target.vendor != "cuda":
        return None
    from triton import knobs

    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        command = [knobs.nvidia.nvdisasm.path, "--print-line-info", "--print-code", file.name]
        done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else None
