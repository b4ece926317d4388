"""The JavaScript loader: what it takes, what it refuses, and with which words."""

from __future__ import annotations

import json
import subprocess

import numpy as np
import pytest

import mosaic_compile as mc
from mosaic_compile import targets
from mosaic_compile.backends import llvm
from mosaic_compile.kernels import matmul, vector_add
from mosaic_compile.language.dtypes import DTYPES
from tests.backends import programs

from . import tools

pytestmark = tools.needs(tools.WASM_LD, tools.NODE)


def saved(folder, artifact):
    llvm.complete(artifact).save(folder)


def javascript(folder, script, **data):
    """What a script prints as JSON. It has the kernel of a folder as `kernel`, and `data`; `attempt` gives a call's error."""
    text = f"""
import {{ load, instantiate, KernelError }} from "./loader.mjs";
const data = {json.dumps(data)};
const attempt = (...given) => {{
  try {{
    kernel.run(...given);
  }} catch (error) {{
    return `${{error.name}}: ${{error.message}}`;
  }}
  return "no error";
}};
const kernel = await load(".");
{script}
"""
    (folder / "script.mjs").write_text(text)
    done = subprocess.run(["node", "script.mjs"], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def add(tmp_path_factory):
    folder = tmp_path_factory.mktemp("add")
    saved(folder, mc.compile(vector_add, "wasm32", BLOCK=64))
    return folder


@pytest.fixture(scope="module")
def product(tmp_path_factory):
    folder = tmp_path_factory.mktemp("product")
    saved(folder, mc.compile(matmul, "wasm32", T="f32", U="f32", BM=16, BN=16, BK=16, dims={"K": 32}))
    return folder


def test_arrays_larger_than_the_first_memory(add):
    """The memory grows, more than once, and inputs stay as they are; a view of a larger buffer is an array too."""
    script = """
const results = [10, 1000000, 3000000, 10].map((n) => {
  const x = Float32Array.from({ length: n }, (_, i) => i % 1000), y = x.map((v) => 2 * v);
  const large = new Float32Array(n + 8).fill(-1), out = large.subarray(4, n + 4);
  kernel.run({ x, y, out });
  return out.every((v, i) => v === 3 * (i % 1000)) && large[3] === -1 && large[n + 4] === -1 && x[9] === 9;
});
console.log(JSON.stringify(results));
"""
    assert javascript(add, script) == [True] * 4


@pytest.mark.parametrize(
    "call,message",
    [
        ("{ x, y }", "the array 'out' is missing: pass a Float32Array"),
        ("{ x, y, out: [1, 2] }", "'out' is Array, but the kernel takes f32: pass a Float32Array"),
        ("{ x, y, out: new Float64Array(8) }", "'out' is Float64Array, but the kernel takes f32"),
        ("{ x, y, out, z: x }", "the kernel has no argument 'z'; its arguments are: x, y, out"),
        ("{ x, y, out }, { M: 8 }", "the kernel has no dimension 'M'; its dimensions are: N"),
        ("{ x, y, out }, { N: 9 }", "the dimension N is 8 by the length of 'x', but 9 before"),
        ("{ x, y, out }, { N: -1 }", "the dimension N cannot be -1: it is a whole number below 2147483648"),
        ("{ x, y, out: new Float32Array(7) }", "the dimension N is 7 by the length of 'out', but 8 before"),
        ("{ x, y, out: y }", "'out' is written by the kernel and shares memory with 'y'"),
        (
            "{ x, y: big.subarray(0, 8), out: big.subarray(7, 15) }",
            "'out' is written by the kernel and shares memory",
        ),
        ("{ x, y: big.subarray(0, 8), out: big.subarray(8, 16) }", "no error"),
    ],
)
def test_mistakes_in_a_call(add, call, message):
    setting = "const [x, y, out, big] = [8, 8, 8, 16].map((n) => new Float32Array(n));"
    assert message in javascript(add, f"{setting} console.log(JSON.stringify(attempt({call})));")


@pytest.mark.parametrize(
    "call,message",
    [
        ("values, { M: 3 }", "the size of dimension N is missing: run({…}, { N: 16 })"),
        ("values, { M: 3, N: 8, K: 31 }", "the dimension K is 31 as given, but 32 before"),
        ("values, { M: 4, N: 8 }", "'a' has 96 elements, but f32[4, 32] is a Float32Array of 128"),
        (
            "{ ...values, b: f(192) }, { M: 3, N: 6 }",
            "dimension 1 of 'b' is 6, but the kernel was compiled for multiples of 4",
        ),
        (
            "{ ...values, scale: true }, { M: 3, N: 8 }",
            "the scalar 'scale' of type f32 cannot be true: pass a number",
        ),
        ("values, { M: 3, N: 8 }", "no error"),
    ],
)
def test_mistakes_in_shapes(product, call, message):
    setting = "const f = (n) => new Float32Array(n), values = { a: f(96), b: f(256), c: f(24), scale: 1 };"
    assert message in javascript(product, f"{setting} console.log(JSON.stringify(attempt({call})));")


def test_a_scalar_s_default(product):
    """scale is 1 where a call leaves it out."""
    script = """
const a = new Float32Array(96).fill(2), b = new Float32Array(256).fill(3), c = new Float32Array(24);
kernel.run({ a, b, c }, { M: 3, N: 8 });
console.log(JSON.stringify([...c]));
"""
    assert javascript(product, script) == [192] * 24


NUMBERS = [
    0.0,
    -0.0,
    1.5,
    -2.75,
    0.1,
    1e-3,
    65519.9,
    65520.0,
    3.4e38,
    1e-45,
    6e-8,
    1e-5,
    448.0,
    463.9,
    464.0,
    464.1,
    61440.0,
    1e300,
]


@pytest.mark.parametrize("name", ["f16", "bf16", "f8e4m3", "f8e5m2", "f32", "f64"])
def test_scalars_are_rounded_to_their_type(tmp_path, name):
    artifact, _ = programs.compile_program(
        programs.store_scalar(name, DTYPES[name].mlir), targets.find("wasm32")
    )
    saved(tmp_path, artifact)
    numbers = [*NUMBERS, *np.random.default_rng(0).standard_normal(200), *2.0 ** np.arange(-30.0, 20, 0.37)]
    script = """
const kinds = { f64: Float64Array, f32: Float32Array, f16: Uint16Array, bf16: Uint16Array };
const out = new (kinds[data.name] ?? Uint8Array)(1);
const run = (value) => (kernel.run({ out, value }), [...new Uint8Array(out.buffer)]);
console.log(JSON.stringify([...data.numbers, Infinity, -Infinity].map(run)));
"""
    result = javascript(tmp_path, script, name=name, numbers=numbers)
    dtype = DTYPES[name].numpy
    with np.errstate(over="ignore"):
        expected = np.array([*numbers, np.inf, -np.inf]).astype(dtype)
    got = np.array(result, np.uint8).reshape(-1).view(dtype)
    np.testing.assert_array_equal(got.view(f"u{dtype.itemsize}"), expected.view(f"u{dtype.itemsize}"))


@pytest.mark.parametrize("name", ["i64", "i32", "i16", "i8", "u32", "u8", "bool"])
def test_scalars_that_are_whole_numbers(tmp_path, name):
    dtype = DTYPES[name]
    artifact, _ = programs.compile_program(programs.store_scalar(name, dtype.mlir), targets.find("wasm32"))
    saved(tmp_path, artifact)
    low, high = (0, 1) if name == "bool" else (dtype.min, dtype.max)
    script = """
const kinds = { i64: BigInt64Array, i32: Int32Array, i16: Int16Array, i8: Int8Array, u32: Uint32Array };
const out = new (kinds[data.name] ?? Uint8Array)(1);
const value = (text) => (data.name === "bool" ? text === "1" : BigInt(text));
const run = (text) => (kernel.run({ out, value: value(text) }), String(out[0]));
console.log(JSON.stringify({
  values: data.values.map(run),
  errors: [data.above, 0.5, "1", undefined].map((wrong) => attempt({ out, value: wrong })),
}));
"""
    values = [str(v) for v in {low, high, 1, 0}]
    above = 2**53 * 2**11 if name == "i64" else 2 if name == "bool" else high + 1
    shown = "18446744073709552000" if name == "i64" else above  # as JavaScript writes 2 ** 64
    result = javascript(tmp_path, script, name=name, values=values, above=above)
    assert result["values"] == values
    wanted = "true or false" if name == "bool" else f"a whole number from {low} to {high}"
    *wrong, missing = result["errors"]
    assert all(
        error.endswith(f"of type {name} cannot be {v}: pass {wanted}")
        for error, v in zip(wrong, (shown, "0.5", "1"))
    )
    assert missing == f"KernelError: the scalar 'value' is missing: pass {wanted}"


def test_grids_that_are_empty_or_too_large(tmp_path):
    artifact, _ = programs.compile_program(programs.PLACES, targets.find("wasm32"))
    saved(tmp_path, artifact)
    script = """
const places = new Int32Array(2 * 3 * 4 * 2);
kernel.run({ places }, { A: 2, B: 3, C: 4 });
const empty = attempt({ places: new Int32Array(0) }, { A: 0, B: 2147483647, C: 2147483647 });
console.log(JSON.stringify([...places, empty]));
"""
    *places, empty = javascript(tmp_path, script)
    x, y, z = np.indices((2, 3, 4))
    np.testing.assert_array_equal(np.reshape(places, (2, 3, 4, 2))[..., 0], x + 1000 * y + 1_000_000 * z)
    assert empty == "no error"


def test_a_folder_without_a_module(tmp_path, add, monkeypatch):
    monkeypatch.setenv("PATH", "")
    artifact = llvm.complete(mc.compile(vector_add, "wasm32", BLOCK=64))
    assert "loader.mjs" not in artifact.files
    monkeypatch.undo()
    artifact.save(tmp_path)
    script = f"""
const errors = await Promise.all(["{tmp_path}", "nowhere"].map((folder) => load(folder).catch((error) => error.message)));
console.log(JSON.stringify(errors));
"""
    without, nowhere = javascript(add, script)
    assert without.startswith("the folder holds no WebAssembly module: no linker for wasm32 on this machine")
    assert "nowhere" in nowhere


def test_a_module_that_is_brought_along(add):
    script = """
import { readFileSync } from "node:fs";
const own = await instantiate(JSON.parse(readFileSync("manifest.json")), readFileSync("vector_add.wasm"));
const x = Float32Array.of(1, 2), out = new Float32Array(2);
own.run({ x, y: x.slice(), out });
console.log(JSON.stringify([...out]));
"""
    assert javascript(add, script) == [2, 4]
