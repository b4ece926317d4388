"""Objects for every target: they build, export what docs/c-abi.md says, and C programs use them."""

import re
import shutil
import subprocess

import numpy as np
import pytest
from llvmlite import binding

from mosaic_compile import targets
from mosaic_compile.backends import codegen, llvm
from mosaic_compile.backends.link import link

from .programs import ADD, COPY, PLACES, compile_program
from .test_narrow_floats import NARROW, elementwise

MAGIC = {"arm64-apple": b"\xcf\xfa\xed\xfe", "wasm32": b"\0asm"}
compiler = shutil.which("cc")


@pytest.mark.parametrize("name", ["cpu", *targets.CPUS])
def test_an_object_for_every_target(name):
    target = targets.find(name)
    artifact, results = compile_program(ADD, target)
    assert artifact.binary.startswith(MAGIC.get(name, b"\x7fELF"))
    for function in ("run", "grid", "scratch_bytes", "share"):
        assert re.search(rf"^_?add_{function}:", results["asm"], re.MULTILINE)
    assert "add_program" not in re.findall(r"^(\w+):", results["asm"], re.MULTILINE)
    assert target.triple in results["llvm"] and "!dbg" in results["llvm-opt"]


@pytest.mark.parametrize("source", NARROW)
@pytest.mark.parametrize("name", ["x86-64-v3", "arm64-linux", "wasm32", "hexagon-v67"])
def test_narrow_floats_need_no_library(name, source):
    """Arithmetic and conversions; LLVM ends the process, or calls a library, where a machine lacks them."""
    from mosaic_compile.language.dtypes import DTYPES

    mlir = DTYPES[source].mlir
    body = f"""%t = arith.constant 1.5 : {mlir}
    %a = arith.mulf %v, %t : {mlir}
    %b = arith.extf %a : {mlir} to f64
    %w = arith.truncf %b : f64 to {mlir}"""
    _, results = compile_program(elementwise(source, source, body), targets.find(name))
    called = set(re.findall(r"\b__\w*(?:hf|bf|sf|df)\w*", results["asm"]))
    assert not called


@pytest.mark.parametrize("text, wide", [(ADD, "zmm"), (ADD, "ymm")], ids=["v4", "v3"])
def test_vectors_have_the_target_s_width(text, wide):
    _, results = compile_program(text, targets.find("x86-64-v4" if wide == "zmm" else "x86-64-v3"))
    assert f"%{wide}" in results["asm"]


MAIN = r"""
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include "places.h"
#include "add.h"
#include "copy.h"

int main(void) {
    int64_t grid[3];
    add_grid(1000, grid);
    if (grid[0] != 16 || grid[1] != 1 || grid[2] != 1) return 1;
    if (add_scratch_bytes() != 0 || copy_scratch_bytes() != 48) return 2;
    float *x = aligned_alloc(64, 4096), *y = aligned_alloc(64, 4096);
    for (int i = 0; i < 1000; ++i) x[i] = i, y[i] = -1;
    add_run(x, y, 0.5f, 1000, 0, 8, 0);
    for (int i = 0; i < 1000; ++i) if (y[i] != (i < 512 ? i + 0.5f : -1)) return 3;
    int64_t next = 8;
    int64_t block[4] = {(int64_t)x, (int64_t)y, 0, 1000};
    *(float *)&block[2] = 2.0f;
    add_share(block, &next, 16, 3, 0);
    for (int i = 512; i < 1000; ++i) if (y[i] != i + 2.0f) return 4;
    int16_t from[5 * 24], to[5 * 24];
    for (int i = 0; i < 5 * 24; ++i) from[i] = i;
    copy_run(from, 1, 5, to, 24, 1, 5, 0, 5, aligned_alloc(64, 64));
    for (int i = 0; i < 5; ++i) for (int j = 0; j < 24; ++j) if (to[i * 24 + j] != j * 5 + i) return 5;
    int32_t places[2 * 3 * 4 * 2];
    places_grid(2, 3, 4, grid);
    if (grid[0] != 2 || grid[1] != 3 || grid[2] != 4) return 6;
    places_run(places, 24, 8, 2, 2, 3, 4, 0, 24, 0);
    for (int i = 0; i < 24; ++i) if (places[2 * i] != (i / 12) + 1000 * (i / 4 % 3) + 1000000 * (i % 4)) return 7;
    puts("right");
    return 0;
}
"""


@pytest.mark.skipif(compiler is None, reason="needs a C compiler")
@pytest.mark.parametrize("name", ["cpu", "x86-64-v3"])
def test_a_c_program_uses_the_objects(tmp_path, name):
    for text in (ADD, COPY, PLACES):
        artifact, _ = compile_program(text, targets.find(name))
        artifact.save(tmp_path / artifact.manifest["kernel"])
        for file in artifact.files:
            shutil.copy(tmp_path / artifact.manifest["kernel"] / file, tmp_path)
    (tmp_path / "main.c").write_text(MAIN)
    flags = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-O1"]
    files = ["main.c", "add.o", "copy.o", "places.o", "-lm", "-o", "main"]
    subprocess.run([compiler, *flags, *files], cwd=tmp_path, check=True)
    done = subprocess.run(["./main"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "right\n")


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_the_header_is_c_plus_plus_too(tmp_path):
    artifact, _ = compile_program(ADD)
    (tmp_path / "add.h").write_bytes(artifact.files["add.h"])
    (tmp_path / "use.cpp").write_text('#include "add.h"\nint main() { return add_scratch_bytes(); }\n')
    subprocess.run(["g++", "-Wall", "-Werror", "-c", "use.cpp"], cwd=tmp_path, check=True)


def test_the_header_says_what_the_kernel_does():
    artifact, _ = compile_program(ADD)
    text = artifact.files["add.h"].decode()
    assert " * Does what add does.\n" in text
    assert " * y: f32[N], out, aligned to 1 bytes; dimension 0 has stride 1\n" in text
    assert "const float *x,\n    float *y,\n    float s,\n    int64_t N,\n" in text


@pytest.mark.skipif(compiler is None, reason="needs a linker")
def test_a_shared_library(tmp_path):
    import ctypes

    target = targets.host_cpu()
    artifact, _ = compile_program(ADD, target)
    library, linker = link(artifact.binary, target, "add")
    assert library is not None and linker == "cc"
    file = tmp_path / "libadd.so"
    file.write_bytes(library)
    loaded = ctypes.CDLL(str(file))
    x, y = np.arange(100, dtype=np.float32), np.zeros(100, np.float32)
    loaded.add_run.argtypes = (
        [ctypes.c_void_p] * 2 + [ctypes.c_float] + [ctypes.c_int64] * 3 + [ctypes.c_void_p]
    )
    loaded.add_run(x.ctypes.data, y.ctypes.data, 2.0, 100, 0, 2, None)
    np.testing.assert_array_equal(y, x + 2)


def test_a_machine_without_a_linker(monkeypatch):
    monkeypatch.setenv("PATH", "")
    library, reason = link(b"", targets.find("hexagon-v67"), "add")
    assert (
        library is None and "no linker for hexagon-v67 on this machine; it would be one of ld.lld" in reason
    )


def test_every_stage_is_listed():
    stages = llvm.machine_stages(targets.host_cpu())
    assert [s.name for s in stages] == ["llvm-dialect", "llvm", "llvm-opt", "asm", "object"]
    assert all(s.summary for s in stages)


@pytest.mark.parametrize("target", ["x86-64-v3", "x86-64-v4"])
def test_assembling_gives_what_generating_again_does(target):
    """Code, constants and unwinding tables, byte by byte; also where the kernel's path has quotes and backslashes."""
    found = targets.find(target)
    machine = codegen.Machine.of(found)
    if not codegen.can_assemble(machine):
        pytest.skip("another architecture")
    text = compile_program(ADD, found)[1]["llvm-opt"].replace('filename: "', r'filename: "a\22b\5C')
    sections = [
        {s.name(): s.data() for s in binding.ObjectFileRef.from_data(code).sections()}
        for code in (
            codegen.object(text, machine),
            codegen.assembled(codegen.assembly(text, machine), machine),
        )
    ]
    for name in (b".text", b".rodata", b".eh_frame"):
        assert sections[0].get(name) == sections[1].get(name)
    assert sections[0][b".text"]
