"""The programs that the tests for other machines need: `make cross-tools` installs them where Debian's packages can be."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from typing import Any

import pytest

CLANG = tuple(["clang", *(f"clang-{version}" for version in range(22, 13, -1))])
LLD = tuple(["ld.lld", *(f"ld.lld-{version}" for version in range(22, 13, -1))])
WASM_LD = tuple(["wasm-ld", *(f"wasm-ld-{version}" for version in range(22, 13, -1))])
BROWSER = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
GCC_ARM64, QEMU_ARM64 = ("aarch64-linux-gnu-gcc",), ("qemu-aarch64", "qemu-aarch64-static")
QEMU_HEXAGON, NODE = ("qemu-hexagon", "qemu-hexagon-static"), ("node",)
REQUIRED = (
    "MOSAIC_CROSS_TOOLS"  # set where `make cross-tools` installed them: what is missing is a failure then
)


def find(names: Sequence[str]) -> str | None:
    """The first of these programs that is on this machine."""
    return next((path for name in names if (path := shutil.which(name))), None)


def program(names: Sequence[str]) -> str:
    """The path of a program that `needs` has found."""
    path = find(names)
    assert path is not None
    return path


def needs(*tools: Sequence[str]) -> Any:
    """Skips a test where one of these is missing."""
    missing = [names[0] for names in tools if find(names) is None]
    reason = f"needs {', '.join(missing)}: make cross-tools installs what is missing, as root on Debian"
    return pytest.mark.skipif(bool(missing) and REQUIRED not in os.environ, reason=reason)
