"""A folder of its own for every test, with a small kernel file in it, and a cold cache."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from mosaic_compile import cli

SCALE = """\
import mosaic_compile as mc


@mc.kernel(grid=lambda N, B: (mc.cdiv(N, B),), tune=[dict(B=128, num_warps=1)])
def scale(x: mc.f32["N"], out: mc.Out[mc.f32["N"]], *, B: mc.Const):
    i = mc.program_id(0)
    mc.store(out, i, mc.load(x, i, B) * 3.0)
"""
SHIFT = SCALE.replace("scale", "shift").replace("* 3.0", "+ 3.0").partition("\n\n\n")[2]


@dataclass
class Result:
    """What a run of the command gave."""

    code: int
    out: str
    err: str


Command = Callable[..., Result]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, which holds scale.py and two.py (the kernels scale and shift)."""
    monkeypatch.setenv("MOSAIC_CACHE_DIR", str(tmp_path / "cache"))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    (work / "scale.py").write_text(SCALE)
    (work / "two.py").write_text(f"{SCALE}\n\n{SHIFT}")
    return work


@pytest.fixture
def command(folder: Path, capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs the command in this process."""

    def run(*arguments: object) -> Result:
        capfd.readouterr()
        try:
            code = cli.main([str(a) for a in arguments])
        except SystemExit as stop:  # --help, --version
            code = int(stop.code or 0)
        for name in [m for m in sys.modules if m.startswith("mosaic_kernel_file_")]:
            del sys.modules[name]
        out, err = capfd.readouterr()
        return Result(code, out, err)

    return run
