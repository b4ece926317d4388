"""Launching on a GPU: streams, graphs, threads, devices, arrays of other libraries, artifacts, faults."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import mosaic_compile as mc
from mosaic_compile.errors import ArgumentError, LaunchError
from mosaic_compile.kernels import matmul

torch = pytest.importorskip("torch")

CYCLES = 200_000_000  # of torch.cuda._sleep: about a tenth of a second


@mc.kernel(grid=lambda N, B: (mc.cdiv(N, B),))
def scale(x: mc.f32["N"], out: mc.Out[mc.f32["N"]], factor: mc.f32 = 2.0, *, B: mc.Const = 256):
    i = mc.program_id(0)
    mc.store(out, i, mc.load(x, i, B) * factor)


@mc.kernel(grid=lambda M, N: (M, mc.cdiv(N, 1024)))
def copy_rows(x: mc.i8["M", "N"], out: mc.Out[mc.i8["M", "N"]]):
    index = (mc.program_id(0), mc.program_id(1))
    mc.store(out, index, mc.load(x, index, (1, 1024)))


@mc.kernel(grid=lambda N: (1, N))
def tall(x: mc.f32["N"], out: mc.Out[mc.f32["N"]]):
    i = mc.program_id(1)
    mc.store(out, i, mc.load(x, i, 1))


# On Hopper it makes its descriptors itself, in scratch memory.
@mc.kernel(grid=lambda M, BM: (mc.cdiv(M, BM),), tune=[dict(num_warps=4)])
def with_scratch(
    a: mc.bf16["M", "K"], b: mc.bf16["K", "N"], c: mc.Out[mc.bf16["M", "N"]], *, BM: mc.Const = 128
):
    m = mc.program_id(0)
    acc = mc.zeros((BM, 128), mc.f32)
    for k in mc.range(mc.cdiv(a.shape[1], 64), warp_specialize=True, num_stages=2):
        acc = mc.dot(mc.load(a, (m, k), (BM, 64)), mc.load(b, (k, 0), (64, 128)), acc)
    mc.store(c, (m, 0), acc.to(mc.bf16))


def pair(n=10_000, device="cuda"):
    return torch.randn(n, device=device), torch.full((n,), float("nan"), device=device)


def product(m=512, k=256, n=128):
    a, b = torch.randn(m, k, device="cuda").bfloat16(), torch.randn(k, n, device="cuda").bfloat16()
    return a, b, torch.full((m, n), float("nan"), device="cuda", dtype=torch.bfloat16)


def assert_product(a, b, c):
    expected = a.double() @ b.double()
    assert torch.linalg.norm(c.double() - expected) < 2**-7 * torch.linalg.norm(expected)


# Streams, graphs, threads, devices.


def test_the_current_stream_is_taken_and_nothing_waits():
    x, out = pair()
    scale(x, out)
    out.zero_()
    assert not out.any()  # its kernel is loaded, too
    side, done = torch.cuda.Stream(), torch.cuda.Event()
    with torch.cuda.stream(side):
        torch.cuda._sleep(CYCLES)
        start = time.perf_counter()
        scale(x, out, 3.0)
        assert time.perf_counter() - start < 0.01
        done.record()
    assert not done.query(), "the kernel did not go behind the work on its stream"
    assert not out.any(), "the kernel ran on another stream"
    side.synchronize()
    assert torch.equal(out, x * 3.0)


@pytest.mark.parametrize("first_call", ["before", "in the capture"])
@pytest.mark.parametrize("kernel", [matmul, with_scratch], ids=["descriptors", "scratch"])
def test_graphs(kernel, first_call):
    a, b, c = product(m=640 if first_call == "before" else 768)
    if first_call == "before":
        kernel(a, b, c)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kernel(a, b, c)
    for _ in range(3):
        a.normal_()
        c.zero_()
        graph.replay()
        assert_product(a, b, c)


def test_code_compiled_and_loaded_in_a_capture():
    x, out = pair(3000)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        scale(x, out, B=32)  # no other test has this constant
    x.normal_()
    graph.replay()
    assert torch.equal(out, x * 2)


def test_graphs_that_run_beside_each_other_have_scratch_memory_of_their_own():
    cases, graphs = [product(m=1024) for _ in range(2)], []
    with_scratch(*cases[0])
    for case in cases:
        graphs.append(torch.cuda.CUDAGraph())
        with torch.cuda.graph(graphs[-1]):
            for _ in range(20):
                with_scratch(*case)
    streams = [torch.cuda.Stream() for _ in graphs]
    torch.cuda.synchronize()
    for graph, stream in zip(graphs, streams):
        with torch.cuda.stream(stream):
            graph.replay()
    torch.cuda.synchronize()
    for case in cases:
        assert_product(*case)


def test_threads_with_streams_of_their_own():
    run = scale.compile(*pair(), 1.0)
    failures = []

    def work(number: int) -> None:
        try:
            with torch.cuda.stream(torch.cuda.Stream()):
                for step in range(50):
                    x, out = pair()
                    (scale if step % 2 else run)(x, out, float(number * 50 + step))
                    if not torch.equal(out, x * float(number * 50 + step)):
                        failures.append((number, step))
        except BaseException as error:
            failures.append(error)

    workers = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures


two_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")


@two_gpus
@pytest.mark.parametrize("current", [0, 1])
def test_two_devices(current):
    """The arrays say which, whichever is current; from the third call of a form on without Python."""
    with torch.cuda.device(current):
        for device in (1, 0, 1, 1, 1, 0, 0, 0):
            x, out = pair(device=f"cuda:{device}")
            scale(x, out)
            assert torch.cuda.current_device() == current
            assert torch.equal(out, x * 2)
            a, b, c = (t.to(f"cuda:{device}") for t in product())
            for kernel in (matmul, with_scratch):
                c.fill_(float("nan"))
                kernel(a, b, c)
                assert_product(a, b, c)


@two_gpus
def test_streams_graphs_and_threads_of_another_device():
    with torch.cuda.device(1):
        x, out = pair(device="cuda:1")
        with torch.cuda.stream(torch.cuda.Stream()):
            for factor in (1.0, 2.0, 3.0):
                torch.cuda._sleep(CYCLES)
                scale(x, out, factor)
                assert not torch.cuda.current_stream().query()
        torch.cuda.synchronize()
        assert torch.equal(out, x * 3)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            scale(x, out, 5.0)
        x.normal_()
        graph.replay()
        assert torch.equal(out, x * 5)
    workers = [threading.Thread(target=scale, args=(x, out, 7.0)) for _ in range(3)]
    for worker in workers:
        worker.start()
        worker.join()
    torch.cuda.synchronize(1)
    assert torch.equal(out, x * 7)


@two_gpus
def test_arrays_of_two_devices():
    x, out = pair(device="cuda:1")
    with pytest.raises(
        ArgumentError, match=r"the arrays are on different devices: 'x' on cuda:1, 'out' on cuda:0"
    ):
        scale(x, pair()[1])
    for _ in range(3):
        scale(x, out)
        with pytest.raises(ArgumentError, match="the arrays are on different devices"):
            scale(pair()[0], out)
    run = scale.compile(*pair())
    with pytest.raises(ArgumentError, match=r"on cuda:1, but this was compiled for .* on cuda:0"):
        run(x, out)


# Arrays.


class OverDLPack:
    """A tensor that shows DLPack alone."""

    def __init__(self, tensor):
        self.tensor = tensor

    def __dlpack__(self, **options):
        return self.tensor.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.tensor.__dlpack_device__()


class OldDLPack(OverDLPack):
    """From before DLPack 1.0."""

    def __dlpack__(self, *, stream=None):
        return self.tensor.__dlpack__(stream=stream)


class OverInterface:
    """A tensor that shows the CUDA array interface alone, perhaps with the stream that computes it."""

    def __init__(self, tensor, read_only=False, stream=None):
        interface = tensor.__cuda_array_interface__
        self.tensor = tensor
        self.__cuda_array_interface__ = interface | {
            "data": (interface["data"][0], read_only), "stream": stream, "version": 3
        }  # fmt: skip


@pytest.mark.parametrize("wrap", [OverDLPack, OldDLPack, OverInterface])
def test_arrays_of_other_libraries(wrap):
    for _ in range(2):
        x, out = pair()
        scale(wrap(x), wrap(out))
        assert torch.equal(out, x * 2)


def test_an_array_that_another_stream_computes_is_waited_for():
    x, out = pair()
    scale(x, out)
    side = torch.cuda.Stream()
    for _ in range(2):
        with torch.cuda.stream(side):
            torch.cuda._sleep(CYCLES)
            x.normal_()
        scale(OverInterface(x, stream=side.cuda_stream), OverInterface(out))
        assert torch.equal(out, x * 2)


def test_read_only_arrays():
    x, out = pair()
    scale(OverInterface(x, read_only=True), out)
    assert torch.equal(out, x * 2)
    with pytest.raises(
        ArgumentError, match="'out' is written by the kernel, but this array cannot be written"
    ):
        scale(x, OverInterface(out, read_only=True))


def test_views_that_are_not_aligned_or_have_gaps():
    base, target = torch.randn(20_001, device="cuda"), torch.zeros(20_001, device="cuda")
    for x, out in (
        (base[1:10_001], target[:10_000]),
        (base[:10_000], target[3:10_003]),
        (base[::2], target[10_000:20_001]),
        (base[1::2], target[::2][:10_000]),
    ):
        target.zero_()
        scale(x, out)
        assert torch.equal(out, x * 2)
        assert target.count_nonzero() <= out.numel()
    a, b, c = product(256, 256, 256)
    for x, y in ((a.T, b.T), (a[:, 8:], b[8:]), (a[:, 1:-1], b[1:-1])):
        matmul(x, y, c[: x.shape[0], : y.shape[1]])
        assert_product(x, y, c[: x.shape[0], : y.shape[1]])


def test_nothing():
    scale(torch.empty(0, device="cuda"), torch.empty(0, device="cuda"))
    a, b, c = product(k=256)
    matmul(a[:, :0], b[:0], c)
    assert not c.any()
    matmul(a[:0], b, c[:0])


def test_tensors_that_want_gradients_and_parameters():
    x, out = pair()
    scale(torch.nn.Parameter(x), out)
    assert torch.equal(out, x * 2)
    scale(x.clone().requires_grad_(), out, 3.0)
    assert torch.equal(out, x * 3)


def test_more_elements_than_32_bits_count():
    shape = (2**21 + 3, 1024)
    x = torch.randint(-128, 128, shape, dtype=torch.int8, device="cuda")
    out = torch.zeros_like(x)
    assert x.numel() > 2**31
    copy_rows(x, out)
    assert torch.equal(x[-5:], out[-5:]) and torch.equal(x, out)


# Compiled kernels and artifacts.


def test_a_compiled_kernel():
    x, out = pair()
    run = scale.compile(x, out)
    assert out.isnan().all()
    run(x, out)
    assert torch.equal(out, x * 2)
    assert 0 < run.resources.registers < 256 and run.resources.local_memory == 0
    assert run.resources.max_threads >= run.manifest["threads"]
    with pytest.raises(ArgumentError, match="but this was compiled for"):
        run(x[:100], out[:100])


def here() -> str:
    major, minor = torch.cuda.get_device_capability()
    return f"sm{major}{minor}"


def test_artifacts_in_a_process_without_pytorch(tmp_path):
    mc.compile(matmul, here(), T="f16", U="f16").save(tmp_path)
    shapes = [[96, 64], [64, 128], [96, 128]]
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("run_artifact.py"), tmp_path, *map(json.dumps, shapes)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    heavy, result = json.loads(done.stdout)
    a, b = ((np.arange(np.prod(s)) % 7).astype(np.float64).reshape(s) for s in shapes[:2])
    np.testing.assert_allclose(np.reshape(result, shapes[2]), a @ b, rtol=2**-10)
    assert heavy == []


def test_an_artifact_for_another_gpu(tmp_path):
    other = next(t for t in ("sm80", "sm90", "sm100") if t[:3] != here()[:3] and t != here())
    mc.compile(scale, other).save(tmp_path)
    with pytest.raises(LaunchError) as error:
        mc.load(tmp_path)
    assert (
        error.value.message == f"the artifact in '{tmp_path}' is for {other}, and this machine has {here()}"
    )


# Faults.


def test_a_grid_that_is_too_large():
    with pytest.raises(LaunchError, match=r"the grid \(1, 100000, 1\) is larger than a GPU takes"):
        tall(*pair(100_000))


def test_what_is_written_overlaps():
    x, out = pair()
    scale(x, out)
    with pytest.raises(ArgumentError, match="'out' is written by the kernel and shares memory with 'x'"):
        scale(x[:5000], x[4000:9000])
    scale(x[:5000], x[5000:])
    assert torch.equal(x[5000:], x[:5000] * 2)


def test_no_memory_for_scratch():
    from mosaic_compile.runtime.launch import scratch

    with pytest.raises(LaunchError) as error:
        scratch("global", 2**50, 0, torch.cuda.current_stream().cuda_stream)
    assert error.value.message.endswith(
        "bytes of GPU memory cannot be had: out of memory (CUDA_ERROR_OUT_OF_MEMORY)"
    )
    assert torch.ones(1, device="cuda").item() == 1


TRAP = """
import torch
import mosaic_compile as mc
from mosaic_compile.errors import LaunchError
from gpu.test_runtime import scale

class Nowhere:
    __cuda_array_interface__ = {"typestr": "<f4", "shape": (64,), "data": (4096, False), "version": 3}

out = torch.zeros(64, device="cuda")
try:
    scale(Nowhere(), out)
    print("launched")
    try:
        torch.cuda.synchronize()
    except Exception:
        pass
    scale(Nowhere(), out)
except LaunchError as error:
    print(error.message, "/", error.help)
"""


PATHS = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]


@pytest.mark.parametrize("waits", [False, True])
def test_a_kernel_that_fails(waits):
    done = subprocess.run(
        [sys.executable, "-c", TRAP],
        capture_output=True,
        text=True,
        env=os.environ | {"MOSAIC_SYNC": str(int(waits)), "PYTHONPATH": os.pathsep.join(PATHS)},
    )
    reason = "an illegal memory access was encountered (CUDA_ERROR_ILLEGAL_ADDRESS); this process can no longer use the GPU"
    expected = (
        f"the kernel 'scale' has failed: {reason} / scale.sanitize(…) runs it on the host and looks for mistakes\n"
        if waits
        else f"launched\nan earlier kernel has failed: {reason} / run with MOSAIC_SYNC=1 to see which kernel it is\n"
    )
    assert done.stdout == expected, done.stderr


# Speed.


def test_launch_overhead(capsys):
    """Printed, not limited: benchmarks/launch_overhead.py compares with Triton."""
    x, out = pair(4096)
    run = scale.compile(x, out)
    with capsys.disabled():
        for name, call in (("called", lambda: scale(x, out)), ("compiled", lambda: run(x, out))):
            times = []
            for _ in range(100):
                torch.cuda.synchronize()
                start = time.perf_counter()
                for _ in range(100):
                    call()
                times.append((time.perf_counter() - start) / 100)
            print(f"\nlaunch overhead, {name}: {np.median(times) * 1e6:.2f} us", end="")
