"""The machines that kernels are compiled for: a name, what it can do, and the stages that lead there."""

from __future__ import annotations

import difflib
import functools
import importlib
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from .errors import UnknownTargetError, UsageError

KIB = 1024


@dataclass(frozen=True)
class Target:
    """A machine; sizes are in bytes."""

    machine: ClassVar[str]  # its kind: "gpu" or "cpu"

    name: str
    description: str
    backend: str


@dataclass(frozen=True)
class GpuTarget(Target):
    """A GPU. `arch` is the back end's own name for it."""

    machine: ClassVar[str] = "gpu"
    vendor: str
    arch: int | str
    warp_size: int
    shared_memory: int  # that one program may use
    tma: bool = False  # a tensor memory accelerator: block copies by descriptor
    clusters: bool = False  # programs spread over several thread blocks
    fp8: bool = True  # conversions to and from f8e4m3 and f8e5m2


@dataclass(frozen=True)
class CpuTarget(Target):
    """A CPU, or what runs code as one does. `triple`, `cpu` and `features` are LLVM's words for it."""

    machine: ClassVar[str] = "cpu"
    triple: str
    cpu: str
    features: str
    vector_bytes: int
    vector_registers: int
    caches: tuple[int, ...]  # from the one next to a core on
    # Whether these are instructions: conversions between f16 and f32; a * b + c rounded once; rounding to whole numbers;
    # square roots; those of x86's AVX-512.
    f16: bool = True
    fma: bool = True
    rounding: bool = True
    sqrt: bool = True
    avx512: bool = False
    libm: bool = True  # C's mathematical functions are there to call
    byte_products: str = ""  # what multiplies bytes, as passes/expand_dot4.py has it
    bf16_products: str = ""  # what multiplies bf16, as passes/expand_dot2.py has it
    squares: bool = False  # Arm's bfmmla and smmla
    small_integers: bool = False  # vectors hold integers of up to 32 bits only
    position_independent: bool = True
    shared_library: str = ".so"  # the ending of a shared library's name


def _nvidia(name: str, description: str, arch: int, shared_kib: int, **features: Any) -> GpuTarget:
    return GpuTarget(name, description, "triton", "cuda", arch, 32, shared_kib * 1024, **features)


def _amd(name: str, description: str, shared_kib: int) -> GpuTarget:
    return GpuTarget(name, description, "triton", "hip", name, 64, shared_kib * 1024)


# Shared memory: CUDA C++ Programming Guide, technical specifications per compute capability (maximum per thread block);
# AMD: local data share per compute unit in the CDNA3 and CDNA4 instruction set references.
GPUS: Mapping[str, GpuTarget] = {
    t.name: t
    for t in (
        _nvidia("sm80", "NVIDIA Ampere: A100", 80, 163, fp8=False),
        _nvidia("sm89", "NVIDIA Ada: L4, L40, RTX 40", 89, 99),
        _nvidia("sm90", "NVIDIA Hopper: H100, H200", 90, 227, tma=True, clusters=True),
        _nvidia("sm100", "NVIDIA Blackwell: B200, GB200", 100, 227, tma=True, clusters=True),
        _nvidia("sm120", "NVIDIA Blackwell: RTX 50, RTX PRO", 120, 99, tma=True),
        _amd("gfx942", "AMD CDNA3: MI300X, MI325X", 64),
        _amd("gfx950", "AMD CDNA4: MI350X, MI355X", 160),
    )
}

HOST = "cpu"
_ARMV8_2 = "+v8.2a,+dotprod,+fullfp16"
_ARMV8_6 = f"{_ARMV8_2},+bf16,+i8mm"
_WASM = "+simd128,+bulk-memory,+nontrapping-fptoint,+sign-ext,+mutable-globals"


def _x86_64(level: int, description: str, features: str, vector: int, l2_kib: int) -> CpuTarget:
    name = f"x86-64-v{level}"
    caches = (32 * KIB, l2_kib * KIB, 16 * KIB * KIB)
    triple = "x86_64-unknown-linux-gnu"
    return CpuTarget(
        name,
        description,
        "llvm",
        triple,
        name,
        features,
        vector,
        vector // 2,
        caches,
        avx512=level >= 4,
        byte_products="pmaddwd",
    )


def _arm64(system: str, description: str, triple: str, **others: Any) -> CpuTarget:
    given: dict[str, Any] = {"cpu": "generic", "features": _ARMV8_2, "caches": (64 * KIB, 512 * KIB)} | others
    return CpuTarget(
        f"arm64-{system}",
        description,
        "llvm",
        triple,
        vector_bytes=16,
        vector_registers=32,
        byte_products="sdot",
        **given,
    )


def _hexagon(version: int) -> CpuTarget:
    return CpuTarget(
        f"hexagon-v{version}",
        f"Qualcomm Hexagon v{version} with HVX",
        "llvm",
        "hexagon-unknown-linux-musl",
        f"hexagonv{version}",
        f"+hvxv{version},+hvx-length128b",
        vector_bytes=128,
        vector_registers=32,
        caches=(32 * KIB, 1024 * KIB),
        byte_products="hvx",
        small_integers=True,  # of f32 HVX has vectors from v68 on, which round in a way of their own
        f16=False,
        fma=False,
        rounding=False,
        sqrt=False,
        libm=False,
    )


# Instruction sets: the x86-64 psABI's microarchitecture levels; Arm's Armv8.2-A with dot products and half precision,
# which phones have since 2018, and Armv8.6-A's products of bf16 and of bytes. AVX-512 is used at its full width (LLVM prefers
# half of it by default). Cache sizes are those of common cores; they only guide the sizes of blocks.
CPUS: Mapping[str, CpuTarget] = {
    t.name: t
    for t in (
        _x86_64(3, "x86-64 with AVX2: Intel and AMD since 2017", "", 32, 512),
        _x86_64(4, "x86-64 with AVX-512: Intel servers, AMD since 2022", "-prefer-256-bit", 64, 1024),
        _arm64("linux", "64-bit Arm with Linux: servers, boards", "aarch64-unknown-linux-gnu"),
        _arm64(
            "android",
            "64-bit Arm with Android",
            "aarch64-none-linux-android33",
            features=f"{_ARMV8_2},+reserve-x18",
        ),
        _arm64(
            "linux-v8.6",
            "64-bit Armv8.6 with Linux: servers since 2022",
            "aarch64-unknown-linux-gnu",
            features=_ARMV8_6,
            bf16_products="bfdot",
            squares=True,
        ),
        _arm64(
            "android-v8.6",
            "64-bit Armv8.6 with Android: phones since 2022",
            "aarch64-none-linux-android33",
            features=f"{_ARMV8_6},+reserve-x18",
            bf16_products="bfdot",
            squares=True,
        ),
        _arm64(
            "apple",
            "Apple silicon: M1 and newer, with macOS",
            "arm64-apple-macosx11.0",
            cpu="apple-m1",
            features="",
            caches=(128 * KIB, 12 * KIB * KIB),
            shared_library=".dylib",
        ),
        CpuTarget(
            "wasm32",
            "WebAssembly with SIMD: browsers, Node",
            "llvm",
            "wasm32-unknown-unknown",
            "generic",
            _WASM,
            vector_bytes=16,
            vector_registers=16,  # of the machines that run it
            caches=(32 * KIB, 512 * KIB),
            f16=False,
            fma=False,
            libm=False,
            byte_products="wasm",
            position_independent=False,
            shared_library=".wasm",
        ),
        *map(_hexagon, (67, 68, 73)),
    )
}


class _Targets(Mapping[str, Target]):
    """All targets by name; this machine's CPU is looked at when it is asked for."""

    def __getitem__(self, name: str) -> Target:
        return host_cpu() if name == HOST else {**GPUS, **CPUS}[name]

    def __iter__(self) -> Iterator[str]:
        return iter((*GPUS, HOST, *CPUS))

    def __len__(self) -> int:
        return len(GPUS) + 1 + len(CPUS)

    def __contains__(self, name: object) -> bool:
        return name == HOST or name in GPUS or name in CPUS


TARGETS: Mapping[str, Target] = _Targets()


def find(name: str) -> Target:
    """The target of that name; raises UnknownTargetError with the closest ones."""
    if name in TARGETS:
        return TARGETS[name]
    close = _by_machine(name) or difflib.get_close_matches(
        name.lower().replace("_", ""), TARGETS, n=1, cutoff=0.5
    )
    listed = ", ".join(TARGETS)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    raise UnknownTargetError(f"there is no target '{name}'", f"{hint}the targets are: {listed}")


def _by_machine(name: str) -> list[str]:
    """The targets whose description names a machine: H100, a100-80gb, "NVIDIA RTX 4090", hopper."""
    wanted = re.sub(r"[^a-z0-9]", "", name.lower())
    found = []
    for target in GPUS.values():
        vendor, family, machines = re.fullmatch(r"(\w+) (\w+): (.*)", target.description.lower()).groups()  # type: ignore[union-attr]
        asked = wanted.removeprefix(vendor).removeprefix("geforce")
        words = [family, *(re.sub(r"\W", "", machine) for machine in machines.split(","))]
        if any(asked.startswith(word) or (len(asked) > 3 and word.startswith(asked)) for word in words):
            found.append(target.name)
    return found


def backend(target: Target) -> Any:
    """The module of the target's back end.

    Each has `stages(target)`, the way from a traced kernel to the binary; `package(about, results, session)`, which makes
    the artifact; `complete(artifact)`, which adds what is made for `-o DIR` only; `describe(manifest)`, a line for people; and
    PACKAGES, whose versions decide the result.
    """
    return importlib.import_module(f"mosaic_compile.backends.{target.backend}")


def describe(manifest: Mapping[str, Any]) -> str:
    """What is worth knowing of an artifact beside what all have, in a few words."""
    return backend(find(manifest["target"])).describe(manifest)


def resources(target: Target) -> str:
    """What a program may use of a machine, in a few words."""
    if isinstance(target, GpuTarget):
        return f"{target.shared_memory // KIB} KiB of shared memory"
    assert isinstance(target, CpuTarget)
    return f"vectors of {target.vector_bytes} bytes"


def is_nvidia(target: Target) -> bool:
    return isinstance(target, GpuTarget) and target.vendor == "cuda"


def stages(target: Target) -> tuple[Any, ...]:
    """The stages from a traced kernel to the target's binary, in order."""
    return backend(target).stages(target)


def choose(name: str | None) -> Target:
    """The target of that name, or this machine's GPU, or its CPU where it has none; raises UsageError."""
    if name is not None:
        return find(name)
    here = gpu_of_this_machine()
    if here is None:
        return host_cpu()
    if here in GPUS:
        return GPUS[here]
    raise UsageError(
        f"this machine has a GPU ({here}) that is not among the targets",
        f"name a target to compile for: {', '.join(TARGETS)}",
    )


@functools.cache
def host_cpu() -> CpuTarget:
    """The CPU that this process runs on, as LLVM sees it."""
    from llvmlite import binding

    features = binding.get_host_cpu_features()
    wide = features.get("avx512f", False)
    x86 = binding.get_process_triple().startswith("x86_64")
    vector = 64 if wide else 32 if features.get("avx2", False) else 16
    return CpuTarget(
        HOST,
        "this machine's CPU",
        "llvm",
        binding.get_process_triple(),
        binding.get_host_cpu_name(),
        features.flatten() + (",-prefer-256-bit" if wide else ""),
        vector,
        16 if x86 and not wide else 32,
        _caches() or (32 * KIB, 1024 * KIB),
        f16=features.get("f16c", False) if x86 else True,
        avx512=wide,
        byte_products=_byte_products(features),
        bf16_products=_bf16_products(features),
        squares=features.get("bf16", False) and features.get("i8mm", False),
        shared_library={"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so"),
    )


def _byte_products(features: Mapping[str, bool]) -> str:
    """What multiplies bytes here. VNNI is there for vectors of 512 bits, and for narrower ones by two names."""

    def has(name: str) -> bool:
        return features.get(name, False)

    if (has("avx512vnni") and has("avx512vl")) or (has("avxvnni") and not has("avx512f")):
        return "vnni"
    return "pmaddwd" if has("avx2") else "sdot" if has("dotprod") else ""


def _bf16_products(features: Mapping[str, bool]) -> str:
    """What multiplies bf16 here: the names of the features are x86-64's and Arm's."""
    if features.get("avx512bf16", False) and features.get("avx512vl", False):
        return "avx512bf16"
    return "bfdot" if features.get("bf16", False) else ""


def _caches(folder: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> tuple[int, ...]:
    """The sizes of the data caches of the first core, from the one next to it on; empty where the system does not say."""
    sizes: dict[int, int] = {}
    for index in folder.glob("index*"):
        try:
            if (index / "type").read_text().strip() != "Instruction":
                kib = int((index / "size").read_text().strip().removesuffix("K"))
                sizes[int((index / "level").read_text())] = kib * KIB
        except (OSError, ValueError):  # a container may hide them
            continue
    return tuple(sizes[level] for level in sorted(sizes))


def gpu_of_this_machine() -> str | None:
    """The name of this machine's first GPU, sm90 or gfx942 say; None where there is none."""
    from .runtime.cuda import compute_capability

    capability = compute_capability()
    return _amd_gpu() if capability is None else f"sm{capability[0]}{capability[1]}"


def _amd_gpu(nodes: Path = Path("/sys/class/kfd/kfd/topology/nodes")) -> str | None:
    """The first GPU that the kernel's amdgpu driver lists: its version 90402 is gfx942, 90010 is gfx90a."""
    for file in sorted(nodes.glob("*/properties")):
        found = re.search(r"^gfx_target_version (\d+)$", file.read_text(), re.MULTILINE)
        if found and int(found[1]):  # 0 for CPUs
            version = int(found[1])
            return f"gfx{version // 10000}{version // 100 % 100:x}{version % 100:x}"
    return None
