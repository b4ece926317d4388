"""The machines that kernels are compiled for: a name, what it can do, and the stages that lead there."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import UnknownTargetError, UsageError


@dataclass(frozen=True)
class Target:
    """A machine. `arch` is the back end's own name for it; sizes are in bytes."""

    name: str
    description: str
    backend: str
    vendor: str
    arch: int | str
    warp_size: int
    shared_memory: int  # that one program may use
    tma: bool = False  # a tensor memory accelerator: block copies by descriptor
    clusters: bool = False  # programs spread over several thread blocks
    fp8: bool = True  # conversions to and from f8e4m3 and f8e5m2


def _nvidia(name: str, description: str, arch: int, shared_kib: int, **features: Any) -> Target:
    return Target(name, description, "triton", "cuda", arch, 32, shared_kib * 1024, **features)


def _amd(name: str, description: str, shared_kib: int) -> Target:
    return Target(name, description, "triton", "hip", name, 64, shared_kib * 1024)


# Shared memory: CUDA C++ Programming Guide, technical specifications per compute capability (maximum per thread block);
# AMD: local data share per compute unit in the CDNA3 and CDNA4 instruction set references.
TARGETS: Mapping[str, Target] = {
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
    for target in TARGETS.values():
        vendor, family, machines = re.fullmatch(r"(\w+) (\w+): (.*)", target.description.lower()).groups()  # type: ignore[union-attr]
        asked = wanted.removeprefix(vendor).removeprefix("geforce")
        words = [family, *(re.sub(r"\W", "", machine) for machine in machines.split(","))]
        if any(asked.startswith(word) or (len(asked) > 3 and word.startswith(asked)) for word in words):
            found.append(target.name)
    return found


def stages(target: Target) -> tuple[Any, ...]:
    """The stages from a traced kernel to the target's binary, in order."""
    from .backends import triton

    return {"triton": triton.stages}[target.backend](target)


def choose(name: str | None) -> Target:
    """The target of that name, or the best one for this machine; raises UsageError."""
    if name is not None:
        return find(name)
    here = gpu_of_this_machine()
    if here is not None and here in TARGETS:
        return TARGETS[here]
    gpu = "no GPU" if here is None else f"a GPU ({here}) that is not among the targets"
    raise UsageError(f"this machine has {gpu}", f"name a target to compile for: {', '.join(TARGETS)}")


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
