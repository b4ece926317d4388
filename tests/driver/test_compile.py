"""Compiling from Python, the cache's key, and what the manifest says."""

from __future__ import annotations

import re

import pytest

import mosaic_compile as mc
from mosaic_compile import driver, targets
from mosaic_compile.errors import ArgumentError, TargetLimitError, UnknownTargetError
from mosaic_compile.mlir import new_context


@pytest.fixture(autouse=True)
def _cold_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MOSAIC_CACHE_DIR", str(tmp_path / "cache"))


@mc.kernel(
    grid=lambda M, N, BM: (mc.cdiv(M, BM), mc.minimum(N, num_sms_of())), tune=[dict(BM=16, num_warps=2)]
)
def rows(
    a: mc.bf16["M", "N"],
    s: mc.f16["M"] | None,
    out: mc.InOut[mc.f32["M", 64]],
    n: mc.i64,
    f: mc.f32 = 0.5,
    *,
    BM: mc.Const,
):
    """Adds rows.

    Twice.
    """
    m = mc.program_id(0)
    tile = mc.load(a, (m, 0), (BM, 64)).to(mc.f32) * f + n.to(mc.f32)
    if s is not None:
        tile = tile + mc.expand_dims(mc.load(s, m, BM), 1).to(mc.f32)
    mc.store(out, (m, 0), mc.load(out, (m, 0), (BM, 64)) + tile)


def num_sms_of():
    return 4


def test_manifest():
    manifest = mc.compile(rows, "sm90", dims={"N": 128}, arrays=["s"], multiples={"M": 8}).manifest
    assert manifest["doc"] == "Adds rows.\n\nTwice."
    assert manifest["grid"] == ["cdiv(M, 16)", "4"]
    assert (manifest["threads"], manifest["cluster"], manifest["entry"]) == (64, 1, "rows")
    assert manifest["constants"] == {"BM": 16} and manifest["dims"] == {"N": 128}
    assert manifest["arrays"] == [
        {
            "name": "a", "dtype": "bf16", "dims": ["M", "N"], "sizes": [None, 128], "strides": [128, 1],
            "stride_multiples": [128, 1], "dim_multiples": [8, 1], "align": 16, "access": "in",
        },
        {
            "name": "s", "dtype": "f16", "dims": ["M"], "sizes": [None], "strides": [1],
            "stride_multiples": [1], "dim_multiples": [8], "align": 16, "access": "in",
        },
        {
            "name": "out", "dtype": "f32", "dims": ["M", 64], "sizes": [None, 64], "strides": [64, 1],
            "stride_multiples": [64, 1], "dim_multiples": [8, 1], "align": 16, "access": "inout",
        },
    ]  # fmt: skip
    assert manifest["files"] == {"binary": "rows.cubin", "assembly": "rows.ptx"}
    assert manifest["arguments"] == ["a", "s", "out", "n", "f"] and manifest["overrides"] == {}
    assert [p for p in manifest["parameters"] if p["kind"] == "scalar"] == [
        {"kind": "scalar", "name": "n", "dtype": "i64", "default": None},
        {"kind": "scalar", "name": "f", "dtype": "f32", "default": 0.5},
    ]


def test_an_optional_array_that_is_left_out_is_absent():
    manifest = mc.compile(rows, "sm90").manifest
    assert manifest["arguments"] == ["a", "out", "n", "f"]
    assert [a["name"] for a in manifest["arrays"]] == ["a", "out"]


PTX_TYPES = {"pointer": "u64", "dim": "u32", "stride": "u64", "scratch": "u64"}


@pytest.mark.parametrize("target", ["sm80", "sm90"])
def test_the_parameters_are_those_of_the_code(target):
    from mosaic_compile.kernels import matmul

    for kernel, arrays in ((rows, ("s",)), (matmul, ("bias", "residual"))):
        artifact = mc.compile(kernel, target, arrays=arrays)
        entry = re.search(
            r"\.entry \w+\((.*?)\)",
            artifact.files[artifact.manifest["files"]["assembly"]].decode(),
            re.DOTALL,
        )
        found = [line.split()[1:] for line in entry[1].strip().splitlines()]
        expected = artifact.manifest["parameters"]
        assert len(found) == len(expected)
        for words, parameter in zip(found, expected):
            if parameter["kind"] == "descriptor":
                assert words[:3] == [".align", "64", ".b8"] and "[128]" in words[3]
                assert parameter["element_type"] == 9 and parameter["swizzle"] in (0, 1, 2, 3)
                assert all(1 <= b <= 256 for b in parameter["box"])
            elif parameter["kind"] == "scalar":
                assert words[0] == {"f32": ".f32", "i64": ".u64"}[parameter["dtype"]]
            else:
                assert words[0] == f".{PTX_TYPES[parameter['kind']]}"
    kinds = {p["kind"] for p in expected}
    assert ("descriptor" in kinds) == (target == "sm90")


def test_a_compiled_kernel_comes_from_the_cache(monkeypatch):
    first = mc.compile(rows, "sm80")
    monkeypatch.setattr(driver, "compile_kernel", None)
    assert mc.compile(rows, "sm80") == first
    with pytest.raises(TypeError):
        mc.compile(rows, "sm89")


def test_kernels_that_are_found_share_a_context(monkeypatch):
    mc.compile(rows, "sm80")
    made = []
    monkeypatch.setattr(driver, "new_context", lambda: made.append(new_context()) or made[-1])
    driver._local.context = None
    mc.compile(rows, "sm80")
    mc.compile(rows, "sm80")
    assert len(made) == 1
    mc.compile(make(7.0), "cpu")  # not found: what it is compiled in is not used again
    mc.compile(rows, "sm80")
    assert len(made) == 2


def make(factor, line=0):
    text = (
        "import mosaic_compile as mc\n" + "\n" * line + "@mc.kernel(grid=(1,))\n"
        'def k(x: mc.f32["N"], out: mc.Out[mc.f32["N"]], *, B: mc.Const = 16):\n'
        "    mc.store(out, 0, mc.load(x, 0, B) * factor)\n"
    )
    import linecache

    file = f"made{factor}{line}.py"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    names = {"factor": factor, "__name__": "made"}
    exec(compile(text, file, "exec"), names)
    return names["k"]


def test_the_key_holds_all_that_decides_the_result(monkeypatch):
    keys = []
    monkeypatch.setattr(driver.cache, "get_or_make", lambda name, make: keys.append(name))
    sm90 = driver.Compilation(targets.find("sm90"))

    def ask(kernel, compilation=sm90, **choices):
        driver.cached_artifact(kernel, kernel.specialize(**choices), compilation)
        return keys[-1]

    kernel = make(2.0)
    base = ask(kernel)
    assert ask(kernel) == base
    different = {
        ask(make(3.0)),  # a captured value
        ask(make(2.0, line=1)),  # its place in the file, which is in the code's line table
        ask(kernel, B=32),
        ask(kernel, num_warps=8),
        ask(kernel, num_stages=2),
        ask(kernel, dims={"N": 64}),
        ask(kernel, multiples={"N": 4}),
        ask(kernel, driver.Compilation(targets.find("sm89"))),
        ask(kernel, driver.Compilation(sm90.target, pass_options={"choose-memory-path": {"tma": "false"}})),
    }
    monkeypatch.setenv("TRITON_DISABLE_LINE_INFO", "1")
    different.add(ask(kernel))
    monkeypatch.delenv("TRITON_DISABLE_LINE_INFO")
    monkeypatch.setattr(driver, "_compiler_text", lambda: "an edited compiler")
    different.add(ask(kernel))
    monkeypatch.undo()
    monkeypatch.setattr(driver.cache, "get_or_make", lambda name, make: keys.append(name))
    monkeypatch.setattr(driver, "versions", lambda target: {"triton": "9.9"})
    different.add(ask(kernel))
    assert len(different) == 12 and base not in different


def test_the_first_entry_of_tune_that_fits_is_taken():
    def fits(spec):
        if spec.constants["BM"] > 32:
            raise TargetLimitError("too large")
        return spec.constants["BM"]

    @mc.kernel(grid=(1,), tune=[dict(BM=128), dict(BM=64), dict(BM=32), dict(BM=16)])
    def tuned(a: mc.f32["M"], out: mc.Out[mc.f32["M"]], *, BM: mc.Const):
        mc.store(out, 0, mc.load(a, 0, BM))

    assert driver.first_that_fits(driver.choices(tuned, "gpu"), fits)[1] == 32
    assert [s.constants["BM"] for s in driver.choices(tuned, "gpu", BM=256)] == [256]
    assert len(driver.choices(tuned, "cpu", num_warps=2)) == 4
    with pytest.raises(TargetLimitError):
        driver.first_that_fits(driver.choices(tuned, "gpu", BM=64), fits)


def test_machines_have_lists_of_their_own():
    @mc.kernel(grid=(1,), tune=dict(gpu=[dict(BM=128, num_warps=8)], cpu=[dict(BM=16), dict(BM=8)]))
    def tuned(a: mc.f32["M"], out: mc.Out[mc.f32["M"]], *, BM: mc.Const):
        mc.store(out, 0, mc.load(a, 0, BM))

    assert [s.constants["BM"] for s in driver.choices(tuned, "gpu")] == [128]
    assert [s.constants["BM"] for s in driver.choices(tuned, "cpu")] == [16, 8]
    assert tuned.defaults == dict(BM=128, num_warps=8)
    assert mc.compile(tuned, "x86-64-v3").manifest["constants"]["BM"] == 16
    assert mc.compile(tuned, "sm90").manifest["constants"]["BM"] == 128


def test_mistakes():
    with pytest.raises(UnknownTargetError, match="there is no target 'sm91'"):
        mc.compile(rows, "sm91")
    with pytest.raises(ArgumentError, match="the kernel has no constant 'BN'"):
        mc.compile(rows, "sm90", BN=3)


def test_amd_gpus_by_what_the_kernel_driver_lists(tmp_path):
    for node, version in enumerate((0, 90402, 90500)):
        (tmp_path / str(node)).mkdir()
        (tmp_path / str(node) / "properties").write_text(f"simd_count 4\ngfx_target_version {version}\n")
    assert targets._amd_gpu(tmp_path) == "gfx942"
    (tmp_path / "1" / "properties").write_text("gfx_target_version 90010\n")
    assert targets._amd_gpu(tmp_path) == "gfx90a"
    assert targets._amd_gpu(tmp_path / "none") is None
