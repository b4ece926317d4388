"""What the command prints and writes."""

from __future__ import annotations

import json
import os
import re
import sys

import pytest

from mosaic_compile.artifact import Artifact

SUMMARY = "scale for sm90: B=128 num_warps=1\n  grid (cdiv(N, 128)), 32 threads, 0 bytes of shared memory, cubin of {} bytes\n"


def test_summary(command):
    result = command("scale.py", "--target", "sm90")
    size = re.search(r"cubin of (\d+) bytes", result.out)[1]
    assert (result.code, result.out, result.err) == (0, SUMMARY.format(size), "")
    assert command("scale.py", "--target", "sm90").out == result.out  # from the cache


CHATTY = """\
import mosaic_compile as mc

print("imported")


@mc.kernel(
    grid=lambda M, N: (mc.cdiv(M, 64), mc.cdiv(N, 64)),
    tune=[dict(num_warps=4, num_stages=9), dict(num_warps=4, num_stages=2)],
)
def product(a: mc.f16["M", "K"], b: mc.f16["K", "N"], c: mc.f32["M", "N"]):
    m, n = mc.program_id(0), mc.program_id(1)
    print("traced", 64)
    sums = mc.zeros((64, 64), mc.f32)
    for k in range(mc.cdiv(a.shape[1], 64)):
        sums = mc.dot(mc.load(a, (m, k), (64, 64)), mc.load(b, (k, n), (64, 64)), sums)
    mc.store(c, (m, n), sums)
"""


@pytest.mark.parametrize(
    "shape, line",
    [
        ([], "  assumes K % 8 == 0, N % 8 == 0 (--shape K=%1 N=%1 takes it back)"),
        (["K=%32"], "  assumes K % 32 == 0, N % 8 == 0 (--shape N=%1 takes it back)"),
        (["K=%32", "N=64"], "  assumes K % 32 == 0"),
        (["K=64", "N=64"], None),
    ],
)
def test_the_summary_says_what_is_assumed(command, folder, shape, line):
    (folder / "product.py").write_text(CHATTY)
    options = ["--shape", *shape] if shape else []
    result = command("product.py", "--target", "sm90", "--set", "num_stages=2", *options, "-o", "out")
    lines = result.out.splitlines()
    assert lines[2:] == [*([line] if line else []), "  written to out"]


def test_the_summary_says_which_tune_entry_was_taken(command, folder):
    (folder / "product.py").write_text(CHATTY)
    for options in ([], ["--timing"]):
        lines = command("product.py", "--target", "gfx942", *options).out.splitlines()
        assert lines[0].endswith("num_stages=2")
        assert lines[3:] == ["  tune entry 2: entry 1 needs 131072 bytes of shared memory, gfx942 has 65536"]


def test_what_the_file_prints_is_no_result(command, folder):
    (folder / "product.py").write_text(CHATTY)
    options = ["product.py", "--target", "sm90", "--set", "num_stages=2"]
    result = command(*options, "--emit", "tile")
    assert result.out.startswith("module {") and result.err == "imported\ntraced 64\n"
    result = command(*options)
    assert result.out.startswith("product for sm90") and result.err == "imported\ntraced 64\n"


def test_several_kernels(command, folder):
    result = command("two.py", "--target", "sm90", "-o", "out", "--dump-ir", "ir")
    assert [line for line in result.out.splitlines() if not line.startswith("  grid")] == [
        "scale for sm90: B=128 num_warps=1",
        "  written to out/scale",
        "shift for sm90: B=128 num_warps=1",
        "  written to out/shift",
    ]
    assert result.err == "  the IR after each pass is in ir/scale\n  the IR after each pass is in ir/shift\n"
    for name in ("scale", "shift"):
        assert Artifact.load(folder / "out" / name).manifest["kernel"] == name
        assert json.loads((folder / "ir" / name / "index.json").read_text())["kernel"] == name


@pytest.mark.parametrize("stage", ["tile", "tt", "ttir", "ttgir", "llvm", "ptx", "sass"])
def test_emit_text(command, stage):
    result = command("scale.py", "--target", "sm90", "--emit", stage)
    marks = {
        "tile": "tile.load",
        "tt": "tt.func",
        "ttir": "tt.func",
        "ttgir": "#ttg.blocked",
        "llvm": "define ptx_kernel",
    }
    assert marks.get(stage, {"ptx": ".visible .entry scale(", "sass": "EXIT"}.get(stage)) in result.out
    assert (result.code, result.err) == (0, "")
    assert " loc(" not in result.out and result.out.endswith("\n") and not result.out.endswith("\n\n\n")


def test_emit_stops_there(command, monkeypatch):
    from mosaic_compile.backends.triton import TritonStage

    monkeypatch.setattr(TritonStage, "run", None)
    assert command("scale.py", "--target", "sm90", "--emit", "tt").code == 0


def test_emit_of_several_kernels_says_which_is_which(command):
    for stage, mark in (("tile", "//"), ("llvm", ";")):
        lines = command("two.py", "--target", "sm90", "--emit", stage).out.splitlines()
        assert [x for x in lines if x.startswith(f"{mark} s")] == [
            f"{mark} scale for sm90",
            f"{mark} shift for sm90",
        ]


def test_emit_a_binary(folder):
    import subprocess

    done = subprocess.run(
        [sys.executable, "-m", "mosaic_compile.cli", "scale.py", "--target", "sm90", "--emit", "cubin"],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": os.environ.get("PYTHONPATH", "")},
    )
    assert done.returncode == 0 and done.stdout.startswith(b"\x7fELF") and done.stderr == b""


def test_emit_a_binary_to_a_terminal(command, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    result = command("scale.py", "--target", "sm90", "--emit", "cubin")
    assert result.err == "error: 'cubin' is binary\nhelp: --emit cubin > kernel.cubin, or -o DIR\n"
    assert result.code == 2


def test_emit_and_write_at_once(command, folder):
    result = command("scale.py", "--target", "sm90", "--emit", "tile", "-o", "out")
    assert result.out.startswith("module") and (folder / "out" / "manifest.json").exists()


def test_timing(command):
    result = command("scale.py", "--target", "sm90", "--timing")
    rows = [line.split() for line in result.err.splitlines()]
    assert rows[0] == ["stage", "step", "ms"] and rows[-1][0] == "total"
    assert [r[0] for r in rows[1:-1]] == sorted(
        (r[0] for r in rows[1:-1]), key=["tile", "tt", "ttir", "ttgir", "llvm", "ptx", "cubin"].index
    )
    assert float(rows[-1][-1]) == pytest.approx(sum(float(r[-1]) for r in rows[1:-1]), abs=2)


def test_lists(command):
    targets = command("--list-targets").out.splitlines()
    assert targets[0].split() == ["target", "machine", "back", "end", "resources"]
    rows = [" ".join(line.split()) for line in targets]
    assert "sm90 NVIDIA Hopper: H100, H200 triton 227 KiB of shared memory" in rows
    assert "hexagon-v67 Qualcomm Hexagon v67 with HVX llvm vectors of 128 bytes" in rows
    passes = command("--list-passes").out
    assert "\ntile-to-tt (" in passes and "\nchoose-memory-path (tma=False)\n    " in passes
    assert all(line == line.rstrip() and len(line) <= 110 for line in (*targets, *passes.splitlines()))


def test_pipeline_shows_the_options_that_are_set(command):
    lines = command("--target", "sm90", "--print-pipeline").out.splitlines()
    assert [x for x in lines if not x.startswith(" ")] == [
        "tile",
        "tt",
        "ttir",
        "ttgir",
        "llvm",
        "ptx",
        "cubin",
    ]
    assert "  choose-memory-path (tma=True)" in lines and "  ptxas" in lines
    changed = command(
        "--target", "sm90", "--print-pipeline", "--pass-option", "choose-memory-path.tma=false"
    ).out
    assert "  choose-memory-path (tma=False)" in changed


PRODUCT = """\
import mosaic_compile as mc


@mc.kernel(grid=(1,))
def product(a: mc.bf16["M", "K"], b: mc.bf16["K", "N"], c: mc.Out[mc.f32["M", "N"]]):
    acc = mc.zeros((64, 64), mc.f32)
    for k in range(mc.cdiv(a.shape[1], 64)):
        acc = mc.dot(mc.load(a, (0, k), (64, 64)), mc.load(b, (k, 0), (64, 64)), acc)
    mc.store(c, (0, 0), acc)
"""


def test_pass_option_changes_the_code(command, folder):
    (folder / "product.py").write_text(PRODUCT)
    emit = ("product.py", "--target", "sm90", "--emit", "tile")
    assert 'path = "descriptor"' in command(*emit).out
    assert 'path = "descriptor"' not in command(*emit, "--pass-option", "choose-memory-path.tma=false").out


# Folders that cannot be written.


def cannot_be_written(path: str, reason: str) -> str:
    return (
        f"error: the folder '{path}' cannot be written: {reason}\nhelp: choose a folder that can be written\n"
    )


@pytest.mark.parametrize("option", ["-o", "--dump-ir"])
def test_a_file_in_the_place_of_a_folder(command, folder, option):
    (folder / "out").write_text("mine")
    result = command("scale.py", "--target", "sm90", option, "out")
    assert result.err == cannot_be_written("out", "File exists")
    assert result.code == 2 and (folder / "out").read_text() == "mine"
    assert command("scale.py", "--target", "sm90", option, "out/x").err == cannot_be_written(
        "out/x", "Not a directory"
    )


@pytest.mark.parametrize("option", ["-o", "--dump-ir"])
def test_a_folder_that_cannot_be_made(command, option):
    result = command("scale.py", "--target", "sm90", option, "/proc/none")
    assert result.err == cannot_be_written("/proc/none", "No such file or directory")
    assert result.code == 2


def test_a_cache_that_cannot_be_written(command, folder, monkeypatch):
    (folder / "cache").write_text("")
    monkeypatch.setenv("MOSAIC_CACHE_DIR", "cache")
    result = command("scale.py", "--target", "sm90", "-o", "out")
    assert result.err == (
        "error: the cache folder 'cache' cannot be used: File exists\n"
        "help: set MOSAIC_CACHE_DIR to a folder that can be written\n"
    )
    assert result.code == 2 and not (folder / "out").exists()


def test_foreign_files_are_left_alone(command, folder):
    out = folder / "out"
    out.mkdir()
    (out / "manifest.json").write_text('{"name": "my web site"}')
    result = command("scale.py", "--target", "sm90", "-o", "out")
    assert result.err == "error: 'out/manifest.json' is not an artifact's\nhelp: choose another folder\n"
    assert os.listdir(out) == ["manifest.json"]
    (out / "index.json").write_text("[]")
    result = command("scale.py", "--target", "sm90", "--dump-ir", "out")
    assert (
        result.err
        == "error: 'out/index.json' is not a dump's index\nhelp: choose another folder for --dump-ir\n"
    )
    assert result.code == 2


def test_output_to_a_full_disk():
    import subprocess

    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "mosaic_compile.cli", "--list-targets"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.stderr == "error: a file cannot be read or written: No space left on device\n"
    assert done.returncode == 2
