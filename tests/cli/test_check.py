"""--check and --sanitize: what is printed, and exit codes."""

from __future__ import annotations

import sys

import numpy as np
import pytest

WITH_REFERENCE = """\
import mosaic_compile as mc


@mc.kernel(grid=lambda N, B: (mc.cdiv(N, B),), reference=lambda x, factor: (x * factor).astype("f8"))
def scale(x: mc.f32["N"], out: mc.Out[mc.f32["N"]], factor: mc.f32 = 2.0, *, B: mc.Const = 16):
    i = mc.program_id(0)
    mc.store(out, i, mc.load(x, i, B) * factor)
"""

CHECKED = """\
inputs: --shape N=40 --seed 0
scale for sm80: B=16
  x f32[40], out f32[40], factor=0.5
  3 programs, grid (3)

               output  max error  relative  error/tolerance
  rounding     out     0          0
  reference    out     0          0         0                ok
  tile passes  out     0          0         0                ok
  tt           out     0          0         0                ok
  sm80         not on this machine, which has no GPU
  tolerance of out: 8 x what rounding does to elements of that size + 16 ulp

ok: reference, tile passes and tt agree with the interpreter
"""


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.setattr("mosaic_compile.targets.gpu_of_this_machine", lambda: None)
    monkeypatch.setattr("mosaic_compile.runtime.cuda.compute_capability", lambda device=0: None)


@pytest.fixture
def kernel_file(folder):
    (folder / "kernel.py").write_text(WITH_REFERENCE)
    return folder / "kernel.py"


def test_a_right_kernel(command, kernel_file):
    options = ["kernel.py", "--check", "--target", "sm80", "--shape", "N=40", "--set", "factor=0.5"]
    result = command(*options)
    assert (result.code, result.out, result.err) == (0, CHECKED, "")
    assert command(*options, "--seed", "3").out == CHECKED.replace("--seed 0", "--seed 3")


def test_a_wrong_reference(command, kernel_file):
    kernel_file.write_text(WITH_REFERENCE.replace("(x * factor)", "(x * factor + (abs(x) > 2))"))
    result = command("kernel.py", "--check")
    assert (result.code, result.err) == (1, "")
    lines = result.out.splitlines()
    assert lines[0] == "inputs: --shape N=72 --seed 0" and lines[1] == "scale for cpu: B=16"
    assert lines[12] == "error: 'scale' and its reference do not agree: one of the two is wrong"
    x = np.random.default_rng(0).standard_normal(72).astype(np.float32)
    count = int((np.abs(x) > 2).sum())
    assert count > 1 and lines[14] == f"reference: {count} of 72 elements are outside of the tolerance of out"
    listed = {int(line.split("]")[0].strip(" [")) for line in lines if line.startswith("  [")}
    assert listed == {*np.flatnonzero(np.abs(x) > 2).tolist()}
    assert all(f"tile ({i // 16}) of 16, kernel.py:7" in result.out for i in listed)


def test_every_kernel_of_a_file_is_checked(command):
    result = command("two.py", "--check", "--set", "B=16", "--shape", "N=20")
    assert result.code == 0
    assert [line for line in result.out.splitlines() if line.startswith(("inputs", "s", "ok"))] == [
        "inputs: --shape N=20 --seed 0",
        "scale for cpu: B=16 num_warps=1",
        "ok: tile passes and cpu agree with the interpreter",
        "inputs: --shape N=20 --seed 0",
        "shift for cpu: B=16 num_warps=1",
        "ok: tile passes and cpu agree with the interpreter",
    ]


def test_arrays_from_files(command, kernel_file, folder):
    np.save(folder / "x.npy", np.ones(24, np.float32))
    result = command("--check", "--input", "x=x.npy", "kernel.py")  # FILE is not one of the arrays
    assert result.code == 0 and result.out.startswith("inputs: --shape N=24 --seed 0\n")


def test_what_the_kernel_prints_is_no_result(command, kernel_file):
    kernel_file.write_text(WITH_REFERENCE + '    mc.device_print("program", i)\n')
    result = command("kernel.py", "--check", "--target", "sm90", "--shape", "N=16", "--set", "B=16")
    assert "program" in result.err and "program 0" not in result.out


def test_image(command, kernel_file, folder, monkeypatch):
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "matplotlib.colors", None)
        result = command("kernel.py", "--check", "--check-image", "a.png")
    assert result.code == 2 and result.out.splitlines()[-1].startswith("ok:")
    assert result.err == (
        "error: Matplotlib, which draws the image, is not installed\nhelp: pip install 'mosaic-compile[image]'\n"
    )
    pytest.importorskip("matplotlib")
    result = command("kernel.py", "--check", "--check-image", "a.png", "--target", "sm90")
    assert result.code == 0 and result.out.endswith("\n\nthe picture is in a.png\n")
    assert (folder / "a.png").read_bytes().startswith(b"\x89PNG")


RACE = """\
import mosaic_compile as mc


@mc.kernel(grid=(2,))
def race(x: mc.f32["N"], out: mc.InOut[mc.f32["N"]]):
    mc.store(out, 0, mc.load(x, 0, 16) + mc.program_id(0).to(mc.f32))
"""


def test_sanitize(command, kernel_file):
    result = command("kernel.py", "--sanitize", "--shape", "N=40")
    assert (result.code, result.err) == (0, "")
    assert result.out == "inputs: --shape N=40 --seed 0\nnothing found in 3 programs of scale\n"
    result = command("kernel.py", "--sanitize", "--clipped", "--shape", "N=40")
    assert "kernel.py:7:22: 8 of 48 elements of this access lie outside x\n" in result.out
    kernel_file.write_text(RACE)
    result = command("kernel.py", "--sanitize")
    assert result.code == 1 and "\nrace: program (1, 0, 0) writes out[0]" in result.out


def test_both(command, kernel_file):
    result = command("kernel.py", "--check", "--sanitize")
    assert result.code == 0
    assert "agree with the interpreter\n\ninputs:" in result.out and "nothing found" in result.out


MISTAKES = {
    "kernel.py --check --emit tile": "--emit does not go with --check\nhelp: leave one of the two out\n",
    "kernel.py --sanitize -o out": "-o does not go with --sanitize\nhelp: leave one of the two out\n",
    "kernel.py --check --pass-option a.b=1": "--pass-option does not go with --check\nhelp: leave one of the two out\n",
    "kernel.py --seed 1": "--seed needs --check, --sanitize or --tune\nhelp: mosaic-compile FILE --check --seed …\n",
    "kernel.py --sanitize --check-image a.png": "--check-image needs --check\nhelp: mosaic-compile FILE --check --check-image …\n",
    "kernel.py --check --clipped": "--clipped needs --sanitize\nhelp: mosaic-compile FILE --sanitize --clipped …\n",
    "kernel.py --input x=x.npy": "--input needs --check, --sanitize or --tune\nhelp: mosaic-compile FILE --check --input …\n",
    "kernel.py --check --seed -1": "--seed is at least 0, not -1\nhelp: --seed 0\n",
    "kernel.py --check --seed x": "--seed: invalid int value: 'x'\nhelp: mosaic-compile --help shows the options\n",
    "kernel.py --check --input x": "--input takes NAME=VALUE, not 'x'\nhelp: --input x=…\n",
    "kernel.py --check --input y=y.npy": "--input y: 'scale' has no such array\nhelp: its arrays are: x, out\n",
    "kernel.py --check --target sm_90": "there is no target 'sm_90'\n",
    "two.py --check --check-image a.png": "--check-image takes one kernel, but the file has several\nhelp: name one: --kernel scale\n",
    "two.py --check --set factor=2": "no kernel in 'two.py' has a 'factor'\nhelp: there are: B, N, maxnreg, num_ctas, num_stages, num_warps\n",
    "--check": "no kernel file is given\n",
}


@pytest.mark.parametrize("arguments", MISTAKES)
def test_mistakes(command, kernel_file, arguments):
    result = command(*arguments.split())
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"error: {MISTAKES[arguments]}")
