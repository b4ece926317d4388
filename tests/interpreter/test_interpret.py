"""`kernel.interpret(…)`: what it runs, with which arithmetic, on how many cores, and how a person looks inside."""

import linecache
import sys

import ml_dtypes
import numpy as np
import pytest

import mosaic_compile as mc
from mosaic_compile.frontend import trace
from mosaic_compile.interpreter import parallel
from mosaic_compile.kernels import flash_attention, matmul, softmax
from mosaic_compile.language.specialization import Specialization
from mosaic_compile.passes import PropagateDivisibility, TileCanonicalize

BF16 = np.dtype(ml_dtypes.bfloat16)


def random(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@mc.kernel(grid=lambda N, B: (mc.cdiv(N, B),))
def double(x: mc.f32["N"], out: mc.Out[mc.f32["N"]], *, B: mc.Const = 4):
    i = mc.program_id(0)
    mc.store(out, i, 2.0 * mc.load(x, i, B))


# What is run.


def test_the_kernel_as_it_is_traced_runs_no_pass(monkeypatch):
    monkeypatch.setattr(TileCanonicalize, "run", lambda self, module: pytest.fail("a pass has run"))
    x, out = random(1, 10), np.zeros(10, np.float32)
    double.interpret(x, out)
    np.testing.assert_array_equal(out, 2 * x)


PASSES = ["check-kernel", "canonicalize", "hoist-loads", "propagate-divisibility", "choose-memory-path"]


@pytest.mark.parametrize("after", PASSES)
def test_after_a_pass(after):
    x, out = random(1, 10), np.zeros(10, np.float32)
    double.interpret(x, out, after=after)
    np.testing.assert_array_equal(out, 2 * x)


def test_a_pass_that_changes_the_meaning_is_seen_from_there_on(monkeypatch):
    from mosaic_compile.passes import walk

    def halve(self, module):
        for op in walk.operations(module.operation):
            if op.name == "arith.mulf":
                op.operands[0] = op.operands[1]

    monkeypatch.setattr(PropagateDivisibility, "run", halve)
    x, before, behind = random(1, 10), np.zeros(10, np.float32), np.zeros(10, np.float32)
    double.interpret(x, before, after="hoist-loads")
    double.interpret(x, behind, after="propagate-divisibility")
    np.testing.assert_array_equal(before, 2 * x)
    np.testing.assert_array_equal(behind, x * x)


def test_options_that_are_not_there():
    x, out = random(1, 10), np.zeros(10, np.float32)
    with pytest.raises(mc.MosaicError) as raised:
        double.interpret(x, out, after="tile-to-tt")
    assert str(raised.value) == (
        "error: no pass 'tile-to-tt' runs on the tile dialect\n"
        "help: there are: check-kernel, canonicalize, tile-canonicalize, cse, loop-invariant-code-motion, "
        "hoist-loads, propagate-divisibility, check-triton-limits, choose-memory-path"
    )
    with pytest.raises(mc.MosaicError) as raised:
        double.interpret(x, out, arithmetic="float64")
    assert str(raised.value) == ("error: there is no arithmetic 'float64'\nhelp: there are: hardware, exact")
    with pytest.raises(mc.MosaicError) as raised:
        double.interpret(x, out, workers=0)
    assert str(raised.value) == (
        "error: workers=0 is no number of processes\nhelp: give 1 or more, or leave it out"
    )


# Arithmetic.


@mc.kernel
def total(x: mc.bf16["N"], out: mc.Out[mc.f32[1]], narrow: mc.Out[mc.bf16[1]], *, B: mc.Const = 8):
    acc = mc.zeros(B, mc.f32)
    for i in range(mc.cdiv(x.shape[0], B)):
        acc += mc.load(x, i, B).to(mc.f32)
    mc.store(out, 0, acc.sum(keepdims=True))
    mc.store(narrow, 0, acc.sum(keepdims=True).to(mc.bf16))


def test_sums_are_exact_on_request():
    x = (np.arange(4096) % 97 + 1 / 3).astype(BF16)
    x[0] = 2.0**30  # hides what comes after in f32
    expected = x.astype(np.float64).sum()
    results = {}
    for arithmetic in ("hardware", "exact"):
        out, narrow = np.zeros(1, np.float32), np.zeros(1, BF16)
        total.interpret(x, out, narrow, arithmetic=arithmetic)
        results[arithmetic] = out[0]
        assert narrow[0] == np.float64(out[0]).astype(BF16)
    assert results["exact"] == np.float32(expected) != results["hardware"]


@mc.kernel
def rounding(x: mc.f32[8], out: mc.Out[mc.f32[8]], bits: mc.Out[mc.i32[8]], *, STEPS: mc.Const = 1):
    t = mc.load(x, 0, 8)
    for _ in mc.static_range(STEPS):
        t = (t * 3.0 + 0.1) / 7.0
    mc.store(bits, 0, mc.bitcast(t, mc.i32))
    mc.store(out, 0, t.to(mc.bf16).to(mc.f32) + mc.floor(t).to(mc.i32).to(mc.f32))


def test_exact_rounds_in_conversions_and_in_memory_only():
    x = random(2, 8) * 5
    t = x.astype(np.float64)
    for _ in range(3):
        t = (t * 3.0 + np.float64(np.float32(0.1))) / 7.0
    out, bits = np.zeros(8, np.float32), np.zeros(8, np.int32)
    rounding.interpret(x, out, bits, STEPS=3, arithmetic="exact")
    np.testing.assert_array_equal(bits.view(np.float32), t.astype(np.float32))
    np.testing.assert_array_equal(out, (t.astype(BF16).astype(np.float64) + np.floor(t)).astype(np.float32))


def test_matmul_exact_is_the_float64_product_rounded_once():
    a, b, c = random(3, 50, 300), random(4, 300, 40), np.zeros((50, 40), np.float32)
    matmul.interpret(a, b, c, arithmetic="exact", BM=16, BN=16, BK=16)
    exact = a.astype(np.float64) @ b.astype(np.float64)
    np.testing.assert_allclose(c, exact, rtol=2.0**-24, atol=1e-12)
    ordinary = np.zeros_like(c)
    matmul.interpret(a, b, ordinary, BM=16, BN=16, BK=16)
    assert abs(ordinary - exact).max() > abs(c - exact).max()


def test_tf32_operands_are_rounded_in_hardware_arithmetic_only():
    a = np.full((16, 16), 1 + 2.0**-13, np.float32)
    for arithmetic, expected in (("hardware", 16), ("exact", 16 * (1 + 2.0**-13) ** 2)):
        c = np.zeros((16, 16), np.float32)
        matmul.interpret(a, a.copy(), c, precision="tf32", BM=16, BN=16, BK=16, arithmetic=arithmetic)
        np.testing.assert_array_equal(c, np.float32(expected))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_exact_atomics_scatters_and_gathers(dtype):
    type_ = np.dtype(dtype if dtype == "float16" else getattr(ml_dtypes, dtype))
    element = {d.numpy: d for d in (mc.f16, mc.bf16, mc.f8e4m3, mc.f8e5m2)}[type_]

    @mc.kernel
    def kernel(x: element[4], out: mc.Out[element[4]]):
        reversed_ = mc.gather(x, 3 - mc.iota(4), pad=1.0)
        mc.scatter(out, mc.iota(4), (reversed_.to(mc.f32) / 3.0).to(element))

    x, out = np.array([1, 2, 3, 4], type_), np.zeros(4, type_)
    kernel.interpret(x, out, arithmetic="exact")
    np.testing.assert_array_equal(out, (x[::-1].astype(np.float64) / 3).astype(type_))


# Several cores.


@pytest.mark.parametrize("arithmetic", ["hardware", "exact"])
def test_workers_give_the_same_bits(arithmetic):
    q, k, v = random(5, 1, 2, 70, 32), random(6, 1, 2, 90, 32), random(7, 1, 2, 90, 32)
    results = []
    for workers in (1, 2):
        out, lse = np.zeros_like(q), np.zeros((1, 2, 70), np.float32)
        flash_attention.interpret(
            q, k, v, out, 0.2, lse, BM=16, BN=16, arithmetic=arithmetic, workers=workers
        )
        results.append((out, lse))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    np.testing.assert_array_equal(results[0][1], results[1][1])


def test_workers_write_to_strided_arrays_and_narrow_types():
    memory = np.zeros((40, 30), BF16)
    x = random(8, 20, 30).astype(BF16)
    softmax.interpret(x, memory[::2], BM=4, BN=32, workers=2)
    expected = np.zeros_like(x)
    softmax.interpret(x, expected, BM=4, BN=32, workers=1)
    np.testing.assert_array_equal(memory[::2], expected)
    np.testing.assert_array_equal(memory[1::2], 0)


def test_long_runs_spread_by_themselves(monkeypatch):
    monkeypatch.setattr(parallel, "PATIENCE", 0.0)
    monkeypatch.setattr(parallel, "GAIN", -1.0)
    monkeypatch.setattr(parallel.os, "cpu_count", lambda: 2)
    shares = []
    spread = parallel._run_in_workers
    monkeypatch.setattr(parallel, "_run_in_workers", lambda *a: (shares.append(a[4]), spread(*a)))
    x, out = random(9, 100), np.zeros(100, np.float32)
    double.interpret(x, out)
    np.testing.assert_array_equal(out, 2 * x)
    assert shares == [[(i, 0, 0) for i in range(25)]]


@mc.kernel(grid=(4,))
def fails_late(x: mc.f32[8], out: mc.Out[mc.f32[8]]):
    i = mc.program_id(0)
    mc.store(out, mc.load(x, offset=i * 2, shape=4), offset=i * 2)


def test_a_worker_that_fails_says_so():
    from mosaic_compile.mlir import ir
    from mosaic_compile.passes import walk

    module = trace(fails_late, fails_late.specialize())
    with module.context:
        for op in walk.operations(module.operation):
            if op.name == "tile.load":
                op.attributes["in_bounds"] = ir.DenseBoolArrayAttr.get([True])
    from mosaic_compile.interpreter import run

    with pytest.raises(mc.MosaicError) as raised:
        run(module, [np.zeros(8, np.float32), np.zeros(8, np.float32)], (4,), workers=2)
    lines = str(raised.value).splitlines()
    assert lines[0] == (
        "error: array axis 0 is marked as in bounds, but elements 6 to 10 of 8 are accessed, in program (3, 0, 0)"
    )
    assert lines[3].endswith("mc.store(out, mc.load(x, offset=i * 2, shape=4), offset=i * 2)")


DEPENDENT = {
    "sums by atomics": "mc.atomic_add(out, 0, mc.load(x, 0, 8))",
    "sums by scatter": "mc.scatter_add(out, mc.iota(8), mc.load(x, 0, 8))",
    "read and written": "mc.store(out, 0, mc.load(out, 0, 8) + mc.load(x, 0, 8))",
    "printing": "mc.device_print('x', mc.load(x, 0, 8))",
    "stopping": "breakpoint()",
}


@pytest.mark.parametrize("what", DEPENDENT)
def test_kernels_whose_programs_run_one_after_the_other(what, tmp_path):
    file = tmp_path / "kernel.py"
    text = f"import mosaic_compile as mc\n@mc.kernel\ndef f(x: mc.f32[8], out: mc.f32[8]):\n    {DEPENDENT[what]}\n"
    file.write_text(text)
    scope: dict[str, object] = {}
    exec(compile(text, str(file), "exec"), scope)
    kernel = scope["f"]
    assert isinstance(kernel, mc.Kernel)
    assert not parallel.independent(trace(kernel, kernel.specialize()))
    spec: Specialization = double.specialize(dims={"N": 8})
    assert parallel.independent(trace(double, spec))


# Looking inside.


@mc.kernel(grid=(2,))
def stops(x: mc.f32[8], out: mc.Out[mc.f32[8]], seed: mc.u32, *, B: mc.Const = 4, NAME: mc.Const = "text"):
    i = mc.program_id(0)
    for k in range(2):
        tile = mc.load(x, i, B) * mc.f32(k)
        if i == 1:
            breakpoint()
        mc.store(out, i, tile)


def test_breakpoint_shows_the_kernels_variables(monkeypatch):
    seen = []

    def hook():
        frame = sys._getframe(1)
        seen.append((frame.f_code.co_filename, frame.f_lineno, dict(frame.f_locals)))

    monkeypatch.setattr(sys, "breakpointhook", hook)
    x, out = random(3, 8), np.zeros(8, np.float32)
    stops.interpret(x, out, 2**32 - 5)
    assert len(seen) == 2
    for k, (file, line, variables) in enumerate(seen):
        assert linecache.getline(file, line).strip() == "breakpoint()"
        assert (variables["k"], variables["i"], variables["B"]) == (k, 1, 4)
        assert variables["seed"] == 2**32 - 5
        assert variables["program_id"] == (1, 0, 0) and variables["num_programs"] == (2, 1, 1)
        np.testing.assert_array_equal(variables["tile"], x[4:] * k)


def test_leaving_the_debugger_leaves_the_kernel(monkeypatch):
    from bdb import BdbQuit

    def quit_():
        raise BdbQuit

    monkeypatch.setattr(sys, "breakpointhook", quit_)
    with pytest.raises(BdbQuit):
        stops.interpret(random(3, 8), np.zeros(8, np.float32), 1)


def test_breakpoint_is_not_for_gpus():
    with pytest.raises(mc.MosaicError) as raised:
        mc.compile(stops, "sm90")
    lines = str(raised.value).splitlines()
    assert lines[0] == "error: breakpoint() works in the interpreter, not on sm90"
    assert lines[-1] == (
        "help: call kernel.interpret(…), or set MOSAIC_INTERPRET=1; on a GPU, mc.device_print shows values"
    )


@pytest.mark.parametrize("value", [200, 2**32 - 1])
def test_prints_unsigned_numbers_as_such(value, capsys):
    @mc.kernel
    def kernel(x: mc.u32):
        mc.device_print("x", x, mc.full(2, 200, mc.u8))

    kernel.interpret(value)
    assert capsys.readouterr().out == f"(0, 0, 0) x {value}\n(0, 0, 0) x [200 200]\n"


def test_a_failure_in_an_operation_shows_the_kernels_line(monkeypatch):
    from mosaic_compile.interpreter import launch

    def broken(op, env, x):
        raise MemoryError("no room")

    monkeypatch.setitem(launch.REGISTRY, "math.exp", broken)

    @mc.kernel(grid=(3,))
    def kernel(x: mc.f32[8], out: mc.Out[mc.f32[8]]):
        mc.store(out, 0, mc.exp(mc.load(x, 0, 8)))

    with pytest.raises(mc.MosaicError) as raised:
        kernel.interpret(random(1, 8), np.zeros(8, np.float32))
    lines = str(raised.value).splitlines()
    assert lines[0] == "error: 'math.exp' failed in program (0, 0, 0): MemoryError: no room"
    assert lines[3].endswith("mc.store(out, 0, mc.exp(mc.load(x, 0, 8)))")
    assert lines[4].endswith(" ^^^^^^^^^^^^^^^^^^^^^^^^")
    assert lines[5] == "help: breakpoint() before this line shows the values"
