"""Mistakes on the command line: the whole message, and exit code 2."""

from __future__ import annotations

import pytest

HELP = "help: mosaic-compile --help shows the options\n"
TARGETS = (
    "sm80, sm89, sm90, sm100, sm120, gfx942, gfx950, cpu, x86-64-v3, x86-64-v4, arm64-linux, arm64-android, "
    "arm64-linux-v8.6, arm64-android-v8.6, arm64-apple, wasm32, "
    "hexagon-v67, hexagon-v68, hexagon-v73"
)
KNOWN = "B, N, maxnreg, num_ctas, num_stages, num_warps"
STAGES = "tile, tt, ttir, ttgir, llvm, ptx, cubin"
PASSES = (
    "canonicalize, check-kernel, check-triton-limits, choose-memory-path, cse, hoist-loads, "
    "loop-invariant-code-motion, propagate-divisibility, tile-canonicalize, tile-to-tt"
)

MISTAKES = {
    "--target sm90": "no kernel file is given\nhelp: mosaic-compile kernel.py --target sm90\n",
    "none.py --target sm90": "there is no file 'none.py'\nhelp: give the path of a Python file with kernels\n",
    ". --target sm90": "'.' is a folder\nhelp: give the path of a Python file with kernels\n",
    "scale.py two.py": "'two.py' is one file too many\nhelp: give one kernel file at a time\n",
    "scale.py --target": f"--target: expected one argument\n{HELP}",
    "scale.py --targte sm90": "there is no option '--targte'\nhelp: did you mean --target? mosaic-compile --help shows the options\n",
    "scale.py --targ sm90": "there is no option '--targ'\nhelp: did you mean --target? mosaic-compile --help shows the options\n",
    "scale.py --frobnicate": f"there is no option '--frobnicate'\n{HELP}",
    "scale.py --target sm_90": f"there is no target 'sm_90'\nhelp: did you mean sm90? the targets are: {TARGETS}\n",
    "scale.py --target h100": f"there is no target 'h100'\nhelp: did you mean sm90? the targets are: {TARGETS}\n",
    "scale.py --target Blackwell": f"there is no target 'Blackwell'\nhelp: did you mean sm100 or sm120? the targets are: {TARGETS}\n",
    "": "no kernel file is given\nhelp: mosaic-compile kernel.py --target sm90\n",
    "none.py": "there is no file 'none.py'\nhelp: give the path of a Python file with kernels\n",
    "scale.py --target pdp11": f"there is no target 'pdp11'\nhelp: the targets are: {TARGETS}\n",
    "scale.py --target sm90 --kernel scael": "'scale.py' has no kernel 'scael'\nhelp: did you mean scale? its kernels are: scale\n",
    "scale.py --target sm90 --set B": "--set takes NAME=VALUE, not 'B'\nhelp: --set B=…\n",
    "scale.py --target sm90 --set =3": "--set takes NAME=VALUE, not '=3'\nhelp: --set NAME=…\n",
    "scale.py --target sm90 --shape N=x": "--shape N takes a size or %MULTIPLE, not 'x'\nhelp: --shape N=4096 or --shape N=%16\n",
    "scale.py --target sm90 --shape N=-1": "--shape N takes a size or %MULTIPLE, not '-1'\nhelp: --shape N=4096 or --shape N=%16\n",
    "two.py --target sm90 --set BLOCK=4": f"no kernel in 'two.py' has a 'BLOCK'\nhelp: there are: {KNOWN}\n",
    "two.py --target sm90 --shape M=4": f"no kernel in 'two.py' has a 'M'\nhelp: there are: {KNOWN}\n",
    "two.py --target sm90 --with bias": f"no kernel in 'two.py' has a 'bias'\nhelp: there are: {KNOWN}\n",
    "scale.py --target sm90 --emit ast": f"sm90 has no stage 'ast'\nhelp: its stages are: {STAGES}, sass\n",
    "scale.py --target gfx942 --emit sass": "gfx942 has no stage 'sass'\nhelp: its stages are: tile, tt, ttir, ttgir, llvm, amdgcn, hsaco\n",
    "two.py --target sm90 --emit cubin": "--emit cubin takes one kernel, but the file has several\nhelp: name one: --kernel scale\n",
    "two.py --target sm90 --override tt=x": "--override takes one kernel, but the file has several\nhelp: name one: --kernel scale\n",
    "scale.py --target sm90 --override wasm=x": f"sm90 has no stage 'wasm'\nhelp: its stages are: {STAGES}\n",
    "scale.py --target sm90 --override tt=none.mlir": "the file 'none.mlir' for --override tt cannot be read: No such file or directory\nhelp: give the path of an edited IR file\n",
    "scale.py --target sm90 --override tt=.": "the file '.' for --override tt cannot be read: Is a directory\nhelp: give the path of an edited IR file\n",
    "scale.py --target sm90 --pass-option tma=1": "--pass-option takes PASS.OPTION=VALUE, not 'tma=1'\nhelp: --pass-option choose-memory-path.tma=false\n",
    "scale.py --target sm90 --pass-option inline.x=1": f"no pass 'inline' runs for sm90\nhelp: the passes are: {PASSES}\n",
    "scale.py --target sm90 --pass-option choose-memory-path.tm=1": "the pass 'choose-memory-path' has no option 'tm'\nhelp: its options are: tma\n",
    "scale.py --target sm90 --pass-option check-kernel.x=1": "the pass 'check-kernel' has no option 'x'\nhelp: its options are: none\n",
    "scale.py --target sm90 --pass-option choose-memory-path.tma=maybe": "choose-memory-path.tma is true or false, not 'maybe'\nhelp: --pass-option choose-memory-path.tma=true\n",
    "scale.py --target sm90 --backend tvm": "--backend: invalid choice: 'tvm' (choose from triton, llvm)\n"
    + HELP,
    "scale.py --target sm90 --backend llvm": "sm90 is compiled for by triton, not by llvm\nhelp: leave --backend out\n",
    "scale.py --target sm90 -o out --dump-ir out/ir": "--dump-ir is inside the artifact's folder\nhelp: give --dump-ir a folder of its own\n",
}


@pytest.mark.parametrize("arguments", MISTAKES)
def test_message(command, arguments, monkeypatch):
    monkeypatch.setattr("mosaic_compile.targets.gpu_of_this_machine", lambda: None)
    result = command(*arguments.split())
    assert result.out == ""
    assert (
        result.err.replace("(choose from 'triton', 'llvm')", "(choose from triton, llvm)")
        == f"error: {MISTAKES[arguments]}"
    )
    assert result.code == 2


AT_KERNEL = """\
error: {}
 --> scale.py:5:5
  |
5 | def scale(x: mc.f32["N"], out: mc.Out[mc.f32["N"]], *, B: mc.Const):
  |     ^^^^^
help: {}
"""
AT_KERNEL_MISTAKES = {
    "--set BLOCK=4": (
        "the kernel has no constant 'BLOCK'",
        "there are: B, num_warps, num_stages, num_ctas, maxnreg",
    ),
    "--set num_warps=0": (
        "num_warps is a positive number, not 0",
        "warps in a program (GPUs): 1, 2, 4, 8, 16",
    ),
    "--shape M=4": ("the kernel has no dimension 'M'", "its dimensions are: N"),
    "--shape N=3000000000": (
        "the dimension N cannot be 3000000000",
        "a dimension is a whole number from 0 to 2147483647",
    ),
    "--shape N=%0": ("N cannot be a multiple of 0", "a multiple is at least 1"),
    "--with bias": ("the kernel has no optional array 'bias'", "there are: none"),
}


@pytest.mark.parametrize("arguments", AT_KERNEL_MISTAKES)
def test_settings_that_the_kernel_does_not_have(command, arguments):
    result = command("scale.py", "--target", "sm90", *arguments.split())
    assert result.err == AT_KERNEL.format(*AT_KERNEL_MISTAKES[arguments])
    assert (result.code, result.out) == (2, "")


@pytest.mark.parametrize(
    "name, target",
    [
        ("A100", "sm80"), ("a100-80gb", "sm80"), ("l40s", "sm89"), ("RTX 4090", "sm89"), ("NVIDIA H100", "sm90"),
        ("H200", "sm90"), ("hopper", "sm90"), ("B200", "sm100"), ("NVIDIA GeForce RTX 5090", "sm120"),
        ("MI300X", "gfx942"), ("mi300", "gfx942"), ("CDNA4", "gfx950"), ("sm91", "sm90"),
    ],
)  # fmt: skip
def test_a_machine_for_a_target(command, name, target):
    result = command("scale.py", "--target", name)
    assert result.err == (
        f"error: there is no target '{name}'\nhelp: did you mean {target}? the targets are: {TARGETS}\n"
    )


def test_without_a_target_and_without_a_gpu(command, monkeypatch):
    monkeypatch.setattr("mosaic_compile.targets.gpu_of_this_machine", lambda: None)
    assert command("scale.py").out.startswith("scale for cpu: B=128")


def test_a_gpu_that_is_no_target(command, monkeypatch):
    monkeypatch.setattr("mosaic_compile.targets.gpu_of_this_machine", lambda: "sm75")
    result = command("scale.py")
    assert result.err.startswith("error: this machine has a GPU (sm75) that is not among the targets\n")


def test_without_a_target_this_machine_is_compiled_for(command, monkeypatch):
    monkeypatch.setattr("mosaic_compile.targets.gpu_of_this_machine", lambda: "sm89")
    assert command("scale.py").out.startswith("scale for sm89: B=128")


def test_the_file_may_follow_an_option_of_several_values(command):
    result = command("--target", "sm90", "--set", "B=64", "num_warps=1", "scale.py")
    assert result.out.startswith("scale for sm90: B=64 num_warps=1\n")


def test_without_arguments_the_target_is_asked_for_first(command):
    assert command().code == 2


def test_version_and_help(command):
    assert command("--version").out == "mosaic-compile 0.1.0\n"
    text = command("--help").out
    assert text.startswith("usage: mosaic-compile FILE [--target T]")
    assert max(map(len, text.splitlines())) <= 100
