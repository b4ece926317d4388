"""LLVM as a back end: from a program on memory to objects for CPUs, WebAssembly and Hexagon.

What reaches it is one `func.func` a kernel whose body is one program, in `scf`, `cf`, `memref`, `vector`, `arith` and `math`
(passes/pass_pointers.py says what its arguments are).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mosaic_compile import targets
from mosaic_compile.artifact import Artifact
from mosaic_compile.errors import BackendError, OverrideError
from mosaic_compile.mlir import ir
from mosaic_compile.passes import Upstream
from mosaic_compile.passes.expand_dot2 import ExpandDot2
from mosaic_compile.passes.expand_dot4 import ExpandDot4
from mosaic_compile.passes.expand_math import ExpandMath
from mosaic_compile.passes.expand_narrow_floats import ExpandNarrowFloats
from mosaic_compile.passes.expand_squares import ExpandSquares
from mosaic_compile.passes.export_entry import ExportEntry
from mosaic_compile.passes.pass_pointers import PassPointers
from mosaic_compile.stages import PassStage, Session
from mosaic_compile.targets import HOST, CpuTarget

from . import codegen, isolated
from .c_header import header
from .cpu import program_stages
from .link import file_name, link
from .translate import translate

PACKAGES = ("llvmlite",)  # whose versions decide the result
LOADER = Path(__file__).parent / "loader.mjs"  # what runs WebAssembly modules


def stages(target: CpuTarget) -> tuple[Any, ...]:
    """The whole way from a traced kernel to the object."""
    return (*program_stages(target), *machine_stages(target))


def machine_stages(target: CpuTarget) -> tuple[Any, ...]:
    """The way from a program on memory to the object."""
    dialect = PassStage(
        "llvm-dialect",
        (
            ExpandMath(target.fma, target.rounding, target.sqrt, target.avx512),
            ExpandNarrowFloats(
                _lacking(target)
            ),  # after the functions of narrow numbers, which go through f32
            ExpandDot2(
                target.bf16_products
            ),  # after bf16 has become its bits, which the instruction takes as bf16
            ExpandSquares(),
            ExpandDot4(target.byte_products, target.vector_bytes),
            PassPointers(),
            ExportEntry(),
            Upstream("convert-vector-to-scf", "full-unroll=true"),
            Upstream("lower-affine"),
            Upstream("convert-scf-to-cf"),
            Upstream("memref-expand"),
            Upstream("expand-strided-metadata"),
            Upstream("lower-affine"),  # expand-strided-metadata writes its arithmetic so
            Upstream("arith-expand"),
            Upstream("convert-math-to-llvm"),
            Upstream("convert-math-to-libm"),  # what LLVM has no intrinsic for; it takes vectors apart
            Upstream("convert-vector-to-llvm"),
            Upstream(
                "convert-arith-to-llvm"
            ),  # before memref's, which leaves arithmetic inside of atomic updates alone
            Upstream("finalize-memref-to-llvm"),
            Upstream("convert-index-to-llvm"),
            Upstream("convert-ub-to-llvm"),
            Upstream("convert-func-to-llvm"),
            Upstream("convert-cf-to-llvm"),
            Upstream("reconcile-unrealized-casts"),
            Upstream("canonicalize"),
            Upstream("cse"),
            Upstream("ensure-debug-info-scope-on-llvm-func", "emission-kind=LineTablesOnly"),
        ),
    )
    return (
        dialect,
        LlvmStage("llvm", "llir", "prepare"),
        LlvmStage("llvm-opt", "llir", "optimize"),
        LlvmStage("asm", "s", "assembly"),
        LlvmStage("object", "o", "object"),
    )


def _lacking(target: CpuTarget) -> tuple[str, ...]:
    """The element types that the machine has no right conversions for (those for bf16 flush small numbers to zero)."""
    return ("f8E4M3FN", "f8E5M2", "bf16", *(() if target.f16 else ("f16",)))


@dataclass(frozen=True)
class Generated:
    """Assembly, with the IR that it was made from: so is the object, where there is no assembler."""

    contents: str
    source: str


@dataclass(frozen=True)
class LlvmStage:
    """A step of LLVM's: `step` is its function in codegen.py."""

    name: str
    extension: str
    step: str

    @property
    def summary(self) -> str:
        return {
            "prepare": "mlir-to-llvm",
            "optimize": "LLVM's passes at -O3",
            "assembly": "llvm-to-asm",
            "object": "llvm-to-object",
        }[self.step]

    def run(self, state: Any, session: Session) -> Any:
        with session.timed(self.name, self.summary):
            result = self._result(state, session)
        if session.recorder is not None:
            milliseconds = session.timings[-1][2]
            name = "mlir-to-llvm" if self.step == "prepare" else self.step
            session.recorder.record(self.name, name, self.extension, self.write(result), milliseconds)
        return result

    def _result(self, state: Any, session: Session) -> Any:
        alone = _needs_own_process(session)
        if isinstance(state, ir.Module):
            text = (
                isolated.call(translate.__module__, "translate_text", _text(state))
                if alone
                else translate(state)
            )
            return self._generate(text, session)
        if isinstance(state, Generated):
            assert isinstance(session.target, CpuTarget)
            machine = codegen.Machine.of(session.target)
            if not alone and codegen.can_assemble(machine):
                return codegen.assembled(state.contents, machine)
            return self._generate(state.source, session)
        contents = self._generate(state, session)
        return Generated(contents, state) if self.step == "assembly" else contents

    def _generate(self, text: str, session: Session) -> Any:
        assert isinstance(session.target, CpuTarget)
        machine = codegen.Machine.of(session.target)
        if _needs_own_process(session):
            return isolated.call(codegen.__name__, self.step, text, machine)
        return getattr(codegen, self.step)(text, machine)

    def write(self, state: Any) -> str | bytes:
        return state.contents if isinstance(state, Generated) else state

    def read(self, file: Path, session: Session) -> Any:
        if self.step == "assembly":
            raise OverrideError(
                "the object is made from LLVM IR, not from assembly", "edit that: --override llvm-opt=FILE"
            )
        if self.step == "object":
            contents = file.read_bytes()
            if not contents.startswith(_OBJECT_MAGIC):
                raise OverrideError(f"'{file}' is not an object file", "give what --emit object wrote")
            return contents
        try:
            return self._checked(file.read_text(encoding="utf-8"), session)
        except BackendError as error:
            raise OverrideError(f"'{file}': {error.message}", "correct the IR") from None

    def _checked(self, text: str, session: Session) -> str:
        assert isinstance(session.target, CpuTarget)
        return isolated.call(codegen.__name__, "prepare", text, codegen.Machine.of(session.target))


_OBJECT_MAGIC = (b"\x7fELF", b"\0asm", b"\xcf\xfa\xed\xfe")


def _needs_own_process(session: Session) -> bool:
    """Whether LLVM might end the process: at IR that somebody edited, and on machines that fewer people compile for."""
    assert isinstance(session.target, CpuTarget)
    return session.edited or not (session.target.name == HOST or session.target.triple.startswith("x86_64"))


def _text(module: ir.Module) -> str:
    return module.operation.get_asm(enable_debug_info=True)


def package(about: Mapping[str, Any], results: Mapping[str, str | bytes], session: Session) -> Artifact:
    """The artifact of a compilation: `about` is the manifest as far as it is the same for every back end.

    The shared library is made when the artifact is saved for others, not for the cache: see `complete`.
    """
    target = session.target
    assert isinstance(target, CpuTarget)
    code, assembly = results["object"], results["asm"]
    assert isinstance(code, bytes) and isinstance(assembly, str)
    name = about["kernel"]
    names = {"binary": f"{name}.o", "assembly": f"{name}.s", "header": f"{name}.h"}
    machine = {"triple": target.triple, "cpu": target.cpu, "features": target.features}
    manifest = {**about, "entry": f"{name}_run", "machine": machine, "files": names}
    contents = {"binary": code, "assembly": assembly.encode(), "header": header(manifest).encode()}
    return Artifact(manifest, {names[kind]: data for kind, data in contents.items()})


def complete(artifact: Artifact) -> Artifact:
    """The artifact with a shared library, or the reason why there is none; for browsers with what loads it."""
    manifest = artifact.manifest
    target = targets.find(manifest["target"])
    assert isinstance(target, CpuTarget)
    contents, reason = link(artifact.binary, target, manifest["kernel"])
    if contents is None:
        return Artifact({**manifest, "library": {"missing": reason}}, artifact.files)
    name = file_name(target, manifest["kernel"])
    names, added = {"library": name}, {name: contents}
    if target.shared_library == ".wasm":
        names["loader"] = LOADER.name
        added[LOADER.name] = LOADER.read_bytes()
    linked = {**manifest, "library": {"linker": reason}, "files": {**manifest["files"], **names}}
    return Artifact(linked, {**artifact.files, **added})


def describe(manifest: Mapping[str, Any]) -> str:
    """What is worth knowing of an artifact, in a few words."""
    missing = manifest.get("library", {}).get("missing")
    return f"{manifest['machine']['cpu']}{f', nothing linked ({missing})' if missing else ''}"
