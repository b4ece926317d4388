"""Objects to shared libraries and WebAssembly modules, by a linker that the machine has."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mosaic_compile.targets import HOST, CpuTarget

_WASM_STACK = 1 << 18  # bytes


def file_name(target: CpuTarget, kernel: str) -> str:
    """What the linked file is called: libNAME.so, libNAME.dylib, NAME.wasm."""
    return f"{'' if target.shared_library == '.wasm' else 'lib'}{kernel}{target.shared_library}"


def _commands(target: CpuTarget) -> list[list[str]]:
    """What links for a target, best first, each without its input and output."""
    lld = [f"-{version}" for version in range(22, 13, -1)]
    if target.triple.startswith("wasm32"):
        # The stack lies first: where it ends, the module traps instead of writing over data.
        stack = ["--stack-first", "-z", f"stack-size={_WASM_STACK}"]
        flags = ["--no-entry", "--export-dynamic", "--allow-undefined", "--export=__heap_base", *stack]
        return [[f"wasm-ld{suffix}", *flags] for suffix in ["", *lld]]
    if "apple" in target.triple:
        if sys.platform == "darwin":
            return [["cc", "-shared"]]
        return [
            [f"ld64.lld{s}", "-dylib", "-arch", "arm64", "-undefined", "dynamic_lookup"] for s in ["", *lld]
        ]
    plain = [[f"ld.lld{suffix}", "-shared"] for suffix in ["", *lld]]
    if target.triple.startswith("x86_64") or target.name == HOST:
        return [["cc", "-shared"], ["gcc", "-shared"], ["clang", "-shared"], *plain]
    if target.triple.startswith("aarch64") and "android" not in target.triple:
        return [["aarch64-linux-gnu-gcc", "-shared"], *plain]
    return plain


def link(code: bytes, target: CpuTarget, name: str) -> tuple[bytes | None, str]:
    """The shared library and the linker that made it; None and the reason where there is none.

    libm's functions stay open in it: the program that loads it has them.
    """
    commands = _commands(target)
    tried: Sequence[str] = [command[0] for command in commands]
    found = next((command for command in commands if shutil.which(command[0])), None)
    if found is None:
        return None, f"no linker for {target.name} on this machine; it would be one of {', '.join(tried)}"
    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder, f"{name}.o"), Path(folder, file_name(target, name))
        source.write_bytes(code)
        done = subprocess.run([*found, "-o", result, source], capture_output=True, text=True)
        if done.returncode or not result.exists():
            lines = done.stderr.strip().splitlines()
            return None, f"{found[0]} failed: {lines[-1] if lines else 'it said nothing'}"
        return result.read_bytes(), found[0]
