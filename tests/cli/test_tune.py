"""`mosaic-compile --tune`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import mosaic_compile as mc
from mosaic_compile.kernel_file import load_kernels
from mosaic_compile.tuning import lookup
from tests.tuning.conftest import one_thread  # noqa: F401  (a fixture for every test here)

from .conftest import Command

TUNED = """\
import mosaic_compile as mc


@mc.kernel(grid=lambda M, N, B: (M, mc.cdiv(N, B)), tune=[dict(B=1), dict(B=2048, num_warps=1)])
def scale(x: mc.f32["M", "N"], out: mc.Out[mc.f32["M", "N"]], factor: mc.f32 = 3.0, *, B: mc.Const):
    i = mc.program_id(0), mc.program_id(1)
    mc.store(out, i, mc.load(x, i, (1, B)) * factor)
"""


@pytest.fixture
def file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(lookup, "_found", {})
    (folder / "tuned.py").write_text(TUNED)
    return folder / "tuned.py"


def test_the_fastest_entry_is_found_and_kept(command: Command, file: Path):
    result = command("tuned.py", "--tune", "--target", "cpu", "--shape", "M=8", "N=20000")
    assert (result.code, result.err) == (0, "")
    title, head, slow, fast, best = result.out.splitlines()
    assert title.startswith("scale with M=8 N=20000 on ")
    assert head.split() == ["candidate", "compile", "s", "time", "quartiles", "ratio"]
    assert slow.startswith("B=1 ") and fast.startswith("B=2048 num_warps=1 ")
    assert best.startswith("best: B=2048 num_warps=1, ") and " as fast as B=1; " in best
    kernel = load_kernels(file)["scale"]
    x, out = np.ones((8, 17600), np.float32), np.zeros((8, 17600), np.float32)
    assert kernel.compile(x, out).constants["B"] == 2048


def test_the_artifact_is_frozen_with_it(command: Command, file: Path):
    result = command("tuned.py", "--tune", "--target", "cpu", "--shape", "M=8", "N=20000", "-o", "out")
    assert result.code == 0
    assert result.out.splitlines()[5:] == [
        "scale for cpu: M=8 N=20000 B=2048 num_warps=1",
        result.out.splitlines()[6],
        "  written to out",
    ]
    manifest = json.loads(Path("out/manifest.json").read_text())
    assert manifest["constants"] == {"B": 2048} and manifest["options"]["num_warps"] == 1
    tuned = manifest["tuned"]
    assert tuned["sizes"] == {"M": 8, "N": 20000} and tuned["microseconds"] > 0
    assert {*tuned} == {"device", "threads", "sizes", "microseconds"}
    x, out = np.ones((8, 20000), np.float32), np.zeros((8, 20000), np.float32)
    mc.load("out")(x, out, 2.0)
    np.testing.assert_array_equal(out, 2 * x)


def test_an_artifact_that_is_not_tuned_says_nothing_of_it(command: Command, file: Path):
    assert command("tuned.py", "--target", "cpu", "-o", "out").code == 0
    assert "tuned" not in json.loads(Path("out/manifest.json").read_text())


def test_several_kernels(command: Command, folder: Path):
    result = command("two.py", "--tune", "--target", "cpu", "--shape", "N=5000", "-o", "out")
    assert result.code == 0
    lines = result.out.splitlines()
    assert [line.partition(" with ")[0] for line in lines if " with " in line] == ["scale", "shift"]
    assert {path.name for path in Path("out").iterdir()} == {"scale", "shift"}


MISTAKES = {
    "--tune --target cpu --shape N=64": "--tune needs the size of every dimension, and M of 'scale' has none\n"
    "help: --shape M=4096\n",
    "--tune --target cpu": "--tune needs the size of every dimension, and M, N of 'scale' have none\n"
    "help: --shape M=4096 N=4096\n",
    "--tune --target sm90": "--tune runs kernels, and this machine, which has no GPU, does not run those for sm90\n"
    "help: tune on the machine that they are for, or for this one: --target cpu\n",
    "--tune --target arm64-linux": "--tune runs kernels, and this machine, which has no GPU, does not run those for arm64-linux\n"
    "help: tune on the machine that they are for, or for this one: --target cpu\n",
    "--tune --check": "--check does not go with --tune\nhelp: leave one of the two out\n",
    "--tune --emit ptx": "--emit does not go with --tune\nhelp: leave one of the two out\n",
    "--tune --timing": "--timing does not go with --tune\nhelp: leave one of the two out\n",
    "--tune --pass-option a.b=c": "--pass-option does not go with --tune\nhelp: leave one of the two out\n",
    "--tune --clipped": "--clipped needs --sanitize\nhelp: mosaic-compile FILE --sanitize --clipped …\n",
}


@pytest.mark.parametrize("options", MISTAKES)
def test_mistakes(command: Command, file: Path, monkeypatch: pytest.MonkeyPatch, options: str):
    monkeypatch.setattr("mosaic_compile.targets.gpu_of_this_machine", lambda: None)
    result = command("tuned.py", *options.split())
    assert (result.code, result.out, result.err) == (2, "", f"error: {MISTAKES[options]}")


def test_no_entry_is_left(command: Command, file: Path):
    file.write_text(TUNED.replace("    i = ", '    assert B == 7, "not seven"\n    i = '))
    result = command("tuned.py", "--tune", "--target", "cpu", "--shape", "M=8", "N=200")
    assert result.code == 1
    assert result.err.splitlines()[0] == (
        "error: no candidate of 'scale' can be used: B=1: assertion failed: not seven; "
        "B=2048 num_warps=1: assertion failed: not seven"
    )
    assert result.err.splitlines()[-2:] == [
        "help: choose constants or shapes that satisfy it",
        "to repeat: mosaic-compile tuned.py --tune --target cpu --shape M=8 N=200",
    ]
