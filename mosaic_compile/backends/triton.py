"""Triton as a back end: `tile` IR through `tt` to Triton's own stages, and a cubin or hsaco.

Triton compiles for every GPU without one being present. Its stages are run here one by one, rather than by
`triton.compile`, so that our driver can dump, time and override each.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

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
from mosaic_compile.targets import Target


def stages(target: Target) -> tuple[Any, ...]:
    """The whole way from a traced kernel to the binary."""
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
            CheckTritonLimits(target=target.name),
            ChooseMemoryPath(tma=target.tma),  # needs the facts of propagate-divisibility
        ),
    )
    tt = PassStage("tt", (TileToTT(vendor=target.vendor, fp8_e4m3=target.fp8_e4m3), Upstream("canonicalize"), Upstream("cse")))
    if target.vendor == "cuda":
        own = (("ttir", "ttir"), ("ttgir", "ttgir"), ("llvm", "llir"), ("ptx", "ptx"), ("cubin", "cubin"))
    else:
        own = (("ttir", "ttir"), ("ttgir", "ttgir"), ("llvm", "llir"), ("amdgcn", "amdgcn"), ("hsaco", "hsaco"))
    return (tile, tt, *(TritonStage(name, extension) for name, extension in own))


@dataclass(frozen=True)
class TritonStage:
    """One of Triton's stages; `extension` is Triton's name for it."""

    name: str
    extension: str

    def run(self, state: Any, session: Session) -> Any:
        compiler = session.tools.get("triton")
        if compiler is None:
            with session.timed(self.name, "import triton"):
                compiler = session.tools["triton"] = TritonCompiler(session)
        if isinstance(state, ir.Module):
            with session.timed(self.name, "parse"):
                state = compiler.parse(state)
        with session.timed(self.name, self.name):
            result, passes = compiler.run(self, state, session)
        if session.recorder is not None:
            for name, text in passes:
                session.recorder.record(self.name, name, self.extension, text, 0.0)
            session.recorder.record(self.name, self.name, self.extension, self.write(result), session.timings[-1][2])
        return result

    def write(self, state: Any) -> str | bytes:
        return state if isinstance(state, str | bytes) else str(state)

    def read(self, contents: bytes, file: str, session: Session) -> Any:
        if self.extension in ("cubin", "hsaco"):
            return contents
        if self.extension in ("llir", "ptx", "amdgcn"):
            return contents.decode()
        compiler = session.tools.setdefault("triton", None) or TritonCompiler(session)
        session.tools["triton"] = compiler
        return compiler.parse_text(contents.decode(), file)


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
        target = GPUTarget(session.target.vendor, session.target.arch, session.target.warp_size)
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
        return self.parse_text(triton_text(module, self.version), "the module after tile-to-tt")

    def parse_text(self, text: str, name: str) -> Any:
        """Triton's module from text; raises OverrideError where Triton's parser or verifier refuses it."""
        with tempfile.NamedTemporaryFile("w", suffix=".ttir") as file:
            file.write(text)
            file.flush()
            with _captured_errors() as errors:
                try:
                    module = self.ir.parse_mlir_module(file.name, self.context)
                except RuntimeError:
                    message = _first_diagnostic(errors()).replace(file.name, name)
                    raise OverrideError(f"Triton does not accept {name}: {message}", "correct the IR") from None
        module.context = self.context
        return module

    def run(self, stage: TritonStage, state: Any, session: Session) -> tuple[Any, list[tuple[str, str]]]:
        """The stage's result, and, while a dump is made, the IR after each of Triton's passes."""
        dumping = session.recorder is not None
        with _captured_errors(dumping) as errors:
            try:
                result = self.stages[stage.extension](state, session.metadata)
            except Exception as error:
                raise _stage_error(stage, session, errors(), error) from None
            return result, list(_passes_in(errors())) if dumping else []


def triton_text(module: ir.Module, version: str) -> str:
    """A module of our `tt` mirror as the generic form that Triton reads.

    Three things differ from what our bindings print: names with a dot, which IRDL does not have; the segment sizes that
    ext writes on every operation with a variable number of operands; and the descriptor type, which changed in Triton 3.8.
    """
    text = module.operation.get_asm(print_generic_op_form=True, enable_debug_info=True)
    text = text.replace('"tt.reduce_return"', '"tt.reduce.return"').replace('"tt.scan_return"', '"tt.scan.return"')
    lines = []
    for line in text.split("\n"):
        if "SegmentSizes" in line and '"tt.' in line and '"tt.load"' not in line or "resultSegmentSizes" in line:
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


_PASS_HEADER = re.compile(r"^// -----// IR Dump Before \S+?(?:: | \()([\w-]+).*//----- //$", re.MULTILINE)


def _passes_in(log: str) -> Iterator[tuple[str, str]]:
    """Name of each pass with the IR after it: Triton writes the IR before a pass, so each is the one before the next."""
    headers = list(_PASS_HEADER.finditer(log))
    for this, following, end in zip(headers, headers[1:], [*headers[2:], None]):
        body = log[following.end() : end.start() if end else len(log)]
        # Passes may write remarks of their own behind the module.
        yield this.group(1), body.split("\n// -----//")[0].strip() + "\n"


def _first_diagnostic(text: str) -> str:
    found = re.search(r'(?:loc\()?"?([^"\n]*?)"?:(\d+):(\d+)\)?: error: (.*)', text)
    return f"{found[1]}:{found[2]}:{found[3]}: {found[4]}" if found else (text.strip().split("\n") or [""])[-1]


def _stage_error(stage: TritonStage, session: Session, log: str, error: Exception) -> BackendError:
    """A failure of Triton's compiler in one line, with the kernel's line if Triton names it."""
    details = _first_diagnostic(log) or str(error).strip().split("\n")[0]
    if type(error).__name__ == "OutOfResources":
        return TargetLimitError(str(error), "use smaller tiles or fewer stages")  # type: ignore[return-value]
    return BackendError(
        f"Triton's stage '{stage.name}' failed for {session.target.name}: {details}",
        "the IR before it is shown by --dump-ir; other tile sizes, num_warps or num_stages often help",
    )


def disassemble(binary: bytes, target: Target) -> str | None:
    """SASS of a cubin with the kernel's lines, by the nvdisasm in Triton's wheel; None where there is no disassembler."""
    if target.vendor != "cuda":
        return None
    from triton import knobs

    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        command = [knobs.nvidia.nvdisasm.path, "--print-line-info", "--print-code", file.name]
        done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else None
