"""Tuning on a GPU: what is measured there, and that calls take it."""

from __future__ import annotations

import json

import pytest
from tuning.processes import kill, says, stops_when, until_now

import mosaic_compile as mc
from mosaic_compile.artifact import Artifact
from mosaic_compile.kernels import matmul, softmax
from mosaic_compile.runtime import call, cuda, direct, forms
from mosaic_compile.tuning import lookup
from mosaic_compile.tuning.gpu import Gpu

torch = pytest.importorskip("torch")

TILES = [
    dict(BM=128, BN=128, BK=64, num_warps=8, num_stages=3),
    dict(BM=64, BN=64, BK=64, num_warps=4, num_stages=3),
    dict(BM=16, BN=16, BK=16, num_warps=1, num_stages=1),
]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MOSAIC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(lookup, "_found", {})
    monkeypatch.setattr(call, "_compiled", {})
    monkeypatch.setattr(forms, "_prepared", {})
    direct.forget()
    return tmp_path / "cache"


@mc.kernel(grid=lambda N, B: (mc.cdiv(N, B),), tune=[dict(B=1, num_warps=1), dict(B=4096, num_warps=8)])
def double(x: mc.InOut[mc.f32["N"]], *, B: mc.Const):
    i = mc.program_id(0)
    mc.store(x, i, mc.load(x, i, B) * 2.0)


def factors(size):
    generator = torch.Generator("cuda").manual_seed(0)
    a, b = (
        torch.randn(size, size, device="cuda", dtype=torch.bfloat16, generator=generator) for _ in range(2)
    )
    return a, b, torch.zeros(size, size, device="cuda", dtype=torch.bfloat16)


def test_a_product_is_tuned_and_calls_take_it():
    a, b, c = factors(2048)
    before = a.clone(), b.clone()
    report = matmul.autotune(a, b, c)
    assert torch.equal(a, before[0]) and torch.equal(b, before[1]) and not c.any()
    timed = [row for row in report.rows if row.state == "timed"]
    assert len(timed) > 1 and report.best in timed
    assert all(0 < row.resources["registers"] <= 255 and row.timing.low <= row.timing.high for row in timed)
    # 17.2 GFLOP: at most 2 PFLOPS, at least 50 TFLOPS for the best.
    assert 2 * 2048**3 / 2e15 * 1e6 < report.best.microseconds < 2 * 2048**3 / 50e12 * 1e6
    run = matmul.compile(a, b, c)
    assert {k: run.constants[k] for k in ("BM", "BN", "BK")} == {
        k: report.best.entry[k] for k in ("BM", "BN", "BK")
    }
    matmul(a, b, c)
    torch.testing.assert_close(c, a @ b, rtol=2e-2, atol=0.5)


def test_a_planted_slow_candidate_loses():
    a, b, c = factors(2048)
    report = matmul.autotune(a, b, c, candidates=TILES)
    (slow,) = (row for row in report.rows if row.entry == TILES[2])
    assert slow.state == "pruned" or slow.microseconds > 2 * report.best.microseconds


def test_what_is_read_and_written_stays_as_it_is():
    x = torch.arange(100_000, device="cuda", dtype=torch.float32)
    report = double.autotune(x)
    assert torch.equal(x, torch.arange(100_000, device="cuda", dtype=torch.float32))
    assert report.best.entry == dict(B=4096, num_warps=8)


def test_memory_is_cold_and_times_are_those_of_the_memory():
    x = torch.randn(16384, 8192, device="cuda")
    out = torch.empty_like(x)
    report = softmax.autotune(x, out)
    rate = 2 * x.nbytes / report.best.microseconds / 1e6  # TB/s
    fastest = Gpu(0).rates.memory_bytes / 1e6
    assert 0.3 * fastest < rate < 1.02 * fastest


def test_times_agree_with_pytorchs_clock():
    x = torch.randn(8192, 8192, device="cuda")
    out = torch.empty_like(x)
    report = softmax.autotune(x, out)
    flush = torch.empty(2**28, dtype=torch.uint8, device="cuda")
    times = []
    for _ in range(30):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        flush.zero_()
        begin.record()
        softmax(x, out)
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1000)
    assert sorted(times)[15] == pytest.approx(report.best.microseconds, rel=0.15)


def test_the_model_is_no_more_than_twice_too_slow():
    a, b, c = factors(4096)
    report = matmul.autotune(a, b, c)
    for row in report.rows:
        if row.state == "timed":
            assert row.predicted is not None and row.predicted < 2 * row.microseconds


def test_what_does_not_fit_is_said():
    a, b, c = factors(512)
    large = dict(BM=256, BN=256, BK=128, num_warps=8, num_stages=4)
    report = matmul.autotune(a, b, c, candidates=[large])
    (row,) = (row for row in report.rows if row.entry == large)
    assert row.state == "pruned" or "bytes of shared memory" in row.why


def test_a_side_stream():
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        x = torch.arange(1_000_000, device="cuda", dtype=torch.float32)
        report = double.autotune(x)
        double(x)
    stream.synchronize()
    assert report.best.entry == dict(B=4096, num_warps=8)
    assert torch.equal(x, 2 * torch.arange(1_000_000, device="cuda", dtype=torch.float32))


def test_the_environment_tunes(monkeypatch):
    monkeypatch.setenv("MOSAIC_AUTOTUNE", "1")
    x = torch.ones(1_000_000, device="cuda")
    double(x)
    assert x.unique().tolist() == [2.0]
    monkeypatch.delenv("MOSAIC_AUTOTUNE")
    assert double.compile(x).constants["B"] == 4096


def test_memory_is_given_back(monkeypatch):
    """Counted as it is taken: other processes use the GPU too."""
    taken, allocate, free = set(), cuda.allocate, cuda.free
    monkeypatch.setattr(cuda, "allocate", lambda size: taken.add(address := allocate(size)) or address)
    monkeypatch.setattr(cuda, "free", lambda address: taken.remove(address) or free(address))
    x = torch.zeros(2**24, device="cuda")
    for size in (2**24, 2**24 - 16, 2**23):
        double.autotune(x[:size])
    assert not taken


# Processes.

PROGRAM = """
import json
from gpu.test_tuning import factors, matmul

arrays = factors(2048)
"""


@pytest.mark.parametrize(
    "when",
    [
        "'compiling' in doing.values() and any(row.compile_seconds for row in rows)",
        "any(row.timing for row in rows)",
    ],
    ids=["compiling", "timing"],
)
def test_a_process_that_is_killed_leaves_the_cache_usable(when, cache):
    """Once one candidate is compiled, while others are; and once one is timed."""
    kill(until_now(PROGRAM + stops_when(when) + "matmul.autotune(*arrays)"))
    assert {file.suffix for file in (cache / "tuned").iterdir()} == {".lock"}
    for manifest in cache.glob("*/manifest.json"):
        Artifact.load(manifest.parent)  # is whole
    # Another process gets the lock and a result, which calls here take.
    found = says(PROGRAM + "print(json.dumps(matmul.autotune(*arrays).best.entry))")
    (result,) = (cache / "tuned").glob("*.json")
    entry = json.loads(found)
    assert json.loads(result.read_text())["settings"] == entry
    assert entry.items() <= matmul.compile(*factors(2048)).constants.items()
