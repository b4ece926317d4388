"""What objects for other machines consist of: vector instructions, and nothing from a library."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

import mosaic_compile as mc
from mosaic_compile import targets
from mosaic_compile.kernels import flash_attention, matmul, quantized_matmul, rms_norm, softmax, vector_add
from tests.kernels import test_narrow_products

from . import tools

# Of f32 and of i32. Hexagon has no vectors of f32 before v68, and later ones round in a way of their own: f32 is scalar.
VECTORS = {
    "arm64-linux": (r"\bfadd\tv\d+\.4s", r"\badd\tv\d+\.4s"),
    "wasm32": (r"\bf32x4\.add\b", r"\bi32x4\.add\b"),
    "hexagon-v67": (None, r"\bvadd\(v\d+\.w,v\d+\.w\)"),
    "hexagon-v68": (None, r"\bvadd\(v\d+\.w,v\d+\.w\)"),
    "hexagon-v73": (None, r"\bvadd\(v\d+\.w,v\d+\.w\)"),
}


@pytest.mark.parametrize("target", VECTORS)
def test_vector_instructions_are_used(target):
    for dtype, pattern in zip(("f32", "i32"), VECTORS[target]):
        if pattern is not None:
            artifact = mc.compile(vector_add, target, T=dtype)
            assembly = artifact.files["vector_add.s"].decode()
            assert re.search(pattern, assembly)


# What multiplies bytes: of 8 bits by 8, and of 4 by 8.
BYTES = {
    "arm64-linux": (r"\bsdot\tv\d+\.4s", r"\bsdot\tv\d+\.4s"),
    "arm64-android": (r"\bsdot\tv\d+\.4s", r"\bsdot\tv\d+\.4s"),
    "arm64-apple": (r"\bsdot[.\t]", r"\bsdot[.\t]"),
    "wasm32": (r"\bi32x4\.dot_i16x8_s\b", r"\bi32x4\.dot_i16x8_s\b"),
    "x86-64-v3": (r"\bvpmaddwd\b.*%ymm", r"\bvpmaddubsw\b.*%ymm"),
    "x86-64-v4": (r"\bvpmaddwd\b.*%zmm", r"\bvpmaddubsw\b.*%zmm"),
}


@pytest.mark.parametrize("target", BYTES)
def test_bytes_are_multiplied_by_the_instruction_for_it(target):
    for given, pattern in zip((dict(BITS=8, L=128), {}), BYTES[target]):
        assembly = mc.compile(quantized_matmul, target, **given).files["quantized_matmul.s"].decode()
        assert re.search(pattern, assembly)
        assert not re.search(r"\b(vpmulld|mla|i32x4\.mul)\b", assembly)


@mc.kernel
def sums_of_bytes(a: mc.i32["N"], b: mc.i32["N"], c: mc.Out[mc.i32["N"]]):
    mc.store(c, 0, mc.dot4(mc.load(a, 0, 64), mc.load(b, 0, 64)))


def test_hexagon_multiplies_bytes_by_vrmpy():
    assembly = mc.compile(sums_of_bytes, "hexagon-v68").files["sums_of_bytes.s"].decode()
    assert re.search(r"\bvrmpy\(v\d+\.b,v\d+\.b\)", assembly)


# What multiplies bf16 and i8 in mc.dot.
PRODUCTS = {
    "arm64-linux": (None, r"\bsdot\tv\d+\.4s"),
    "arm64-linux-v8.6": (r"\bbfmmla\tv\d+\.4s", r"\bsmmla\tv\d+\.4s"),
    "arm64-android-v8.6": (r"\bbfmmla\tv\d+\.4s", r"\bsmmla\tv\d+\.4s"),
    "arm64-apple": (None, r"\bsdot[.\t]"),
}


def test_dot_of_few_rows_of_bf16():
    assembly = mc.compile(test_narrow_products.multiply, "arm64-linux-v8.6", T="bf16", U="f32", BM=2)
    assert re.search(r"\bbfdot\tv\d+\.4s", assembly.files["multiply.s"].decode())


@pytest.mark.parametrize("target", PRODUCTS)
def test_dot_is_the_instruction_for_narrow_numbers(target):
    for given, wide, pattern in zip(
        ({"T": "bf16", "U": "f32"}, {"T": "i8", "U": "i32"}), ("fmla", "mla"), PRODUCTS[target]
    ):
        assembly = mc.compile(test_narrow_products.multiply, target, **given).files["multiply.s"].decode()
        found = [bool(re.search(each, assembly)) for each in (pattern or wide, rf"\b{wide}\b")]
        assert found == [True, pattern is None]


@tools.needs(tools.WASM_LD, tools.NODE)
@pytest.mark.parametrize(
    "kernel,given",
    [
        (softmax, {"T": "bf16"}),
        (rms_norm, {}),
        (matmul, {"activation": "gelu"}),
        (flash_attention, {"BM": 16, "BN": 16}),
    ],
    ids=lambda x: getattr(x, "name", ""),
)
def test_webassembly_imports_nothing(tmp_path, kernel, given):
    artifact = mc.compile(kernel, "wasm32", **given)
    whole = targets.backend(targets.find("wasm32")).complete(artifact)
    (tmp_path / "module.wasm").write_bytes(whole.files[f"{kernel.name}.wasm"])
    script = "console.log(WebAssembly.Module.imports(new WebAssembly.Module(fs.readFileSync('module.wasm'))).length)"
    done = subprocess.run(["node", "-e", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "0\n", done.stderr


C_LIBRARY = {"memcpy", "memmove", "memset"}


@pytest.mark.skipif(shutil.which("readelf") is None, reason="needs readelf, of binutils")
@pytest.mark.parametrize("target", ["arm64-linux", "hexagon-v68", "hexagon-v73"])
@pytest.mark.parametrize(
    "kernel,given", [(softmax, {"BM": 4, "BN": 16}), (matmul, {"BM": 16, "BN": 16, "BK": 16})]
)
def test_elf_objects_call_the_machine_s_compiler_rt_at_most(tmp_path, kernel, given, target):
    artifact = mc.compile(kernel, target, **given)
    (tmp_path / "kernel.o").write_bytes(artifact.binary)
    listed = subprocess.run(
        ["readelf", "-sW", tmp_path / "kernel.o"], capture_output=True, text=True, check=True
    )
    called = set(re.findall(r" UND (\S+)$", listed.stdout, re.MULTILINE))
    assert {name for name in called if not name.startswith("__hexagon_")} <= C_LIBRARY
