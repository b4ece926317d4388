"""Calls on arrays of a GPU, seen by a driver that is not there: what is prepared anew, and what reaches the driver."""

from __future__ import annotations

import threading
import time

import pytest

import mosaic_compile as mc
from mosaic_compile.errors import ArgumentError, LaunchError
from mosaic_compile.kernels import matmul
from mosaic_compile.runtime import call, cuda, forms, launch, streams

from .fake_cuda import ADDRESS, FIRST_CONTEXT, OUTER_CONTEXT, FakeDriver
from .fake_tensors import CudaArray, Sparse, Tensor

STREAM = 0x1234_5678_9ABC


@mc.kernel(grid=lambda N: (mc.cdiv(N, 64),))
def scale(x: mc.f32["N"], out: mc.Out[mc.f32["N"]], factor: mc.f32 = 2.0, *, B: mc.Const = 64):
    i = mc.program_id(0)
    mc.store(out, i, mc.load(x, i, B) * factor)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def driver(monkeypatch, cache) -> FakeDriver:
    monkeypatch.setenv("MOSAIC_CACHE_DIR", str(cache))
    monkeypatch.setattr(streams, "_torch_stream", lambda device: STREAM + device)
    monkeypatch.setattr(call, "_compiled", {})
    monkeypatch.setattr(forms, "_prepared", {})
    call._target.cache_clear()
    yield FakeDriver().install(monkeypatch.setattr)
    call._target.cache_clear()


def numbers(driver: FakeDriver, which: int = -1) -> list[int]:
    return [int.from_bytes(value, "little") for value in driver.launches[which].values]


X, OUT = 0x100000, 0x200000


def arrays(size=4096, offset=0, **options) -> tuple[Tensor, Tensor]:
    return Tensor(size, offset=X + offset, **options), Tensor(size, offset=OUT, **options)


def test_a_call_like_one_before_only_launches(driver):
    scale(*arrays())
    before = len(driver.calls)
    with cuda.using_device(0):
        scale(*arrays(offset=1024), 3.0)
        scale(*arrays())
    assert [name for name, _ in driver.calls[before:]] == [
        "cuCtxGetCurrent", "cuCtxSetCurrent",  # of the test itself
        "cuCtxGetCurrent", "cuLaunchKernelEx", "cuCtxGetCurrent", "cuLaunchKernelEx",
        "cuCtxSetCurrent",
    ]  # fmt: skip
    assert [numbers(driver, i)[:2] for i in (1, 2)] == [
        [ADDRESS + X + 1024, ADDRESS + OUT],
        [ADDRESS + X, ADDRESS + OUT],
    ]
    assert driver.launches[1].values[2][:4] == b"\x00\x00\x40\x40"  # 3.0, where there was 2.0
    assert driver.launches[2].values[2][:4] == b"\x00\x00\x00\x40"


def test_code_is_compiled_once_for_each_layout(driver):
    for size, offset in ((64, 0), (128, 0), (65, 0), (64, 0), (64, 0x8004)):
        scale(*arrays(size, offset))
        scale(CudaArray(size, X + offset), CudaArray(size, OUT))
    assert len(driver.of("cuModuleLoadData")) == 3  # sizes of 16, other sizes, an address of 4
    assert len(driver.launches) == 10


@pytest.mark.parametrize(
    "other",
    [
        dict(size=4000),
        dict(offset=4),
        dict(strides=(2,)),
        dict(device=1),
    ],
    ids=str,
)
def test_another_form_is_prepared_anew(driver, other):
    scale(*arrays())
    scale(*arrays(**other))
    assert len(forms._prepared) == 2
    second = driver.launches[1]
    assert second.context == FIRST_CONTEXT + other.get("device", 0)
    assert second.stream == STREAM + other.get("device", 0)
    assert driver.current == OUTER_CONTEXT


def test_constants_belong_to_the_form(driver):
    for block in (64, 128, 64):
        scale(*arrays(), B=block)
    assert len(forms._prepared) == 2


def test_arrays_of_other_libraries_are_prepared_once_too(driver, monkeypatch):
    scale(CudaArray(4096, X), CudaArray(4096, OUT))
    monkeypatch.setattr(call, "bind", None)  # what a call needs that is not like one before
    scale(CudaArray(4096, X + 64), CudaArray(4096, OUT))
    assert numbers(driver)[:2] == [ADDRESS + X + 64, ADDRESS + OUT]


def test_threads_do_not_share_what_they_launch_with(driver):
    """Each launch carries its own thread's addresses, though one waits in the driver while others come."""
    scale(*arrays())
    launched, real = [], driver.__class__._cuLaunchKernelEx

    def slow(self, config, function, pointers, extra):
        time.sleep(0.0005)
        real(self, config, function, pointers, extra)

    driver.__class__ = type("Slow", (FakeDriver,), {"_cuLaunchKernelEx": slow})
    driver.__dict__.pop("cuLaunchKernelEx", None)
    driver.launches.clear()

    def work(number: int) -> None:
        for step in range(20):
            launched.append(offset := (number * 100 + step) * 0x100)
            scale(*arrays(offset=offset % 0x80000))

    workers = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    seen = sorted(numbers(driver, i)[0] for i in range(len(driver.launches)))
    assert seen == sorted(ADDRESS + X + offset % 0x80000 for offset in launched)
    assert {done.context for done in driver.launches} == {FIRST_CONTEXT}
    (prepared,) = forms._prepared.values()
    assert 1 <= len(prepared.idle) <= 8


def product(m=512, n=64, k=128, offset=0, **options) -> tuple[Tensor, Tensor, Tensor]:
    """Operands and result of a product: each has a TMA descriptor."""
    shapes = ((m, k), (k, n), (m, n))
    places = (X + offset, 0x400000, 0x800000)
    return tuple(Tensor(*shape, offset=o, dtype="bfloat16", **options) for shape, o in zip(shapes, places))


def test_descriptors_are_made_once_for_an_address(driver):
    driver.parameters = 3
    made = []
    for offset in (0, 128, 0, 128, 256):
        matmul(*product(offset=offset))
        made.append(len(driver.of("cuTensorMapEncodeTiled")))
        assert numbers(driver) == [ADDRESS + X + offset, ADDRESS + 0x400000, ADDRESS + 0x800000]
    assert made == [3, 4, 4, 4, 5]
    assert all(pointer % 64 == 0 for pointer in driver.launches[-1].pointers)


def test_the_default_stream_where_pytorch_uses_no_gpu(driver, monkeypatch):
    monkeypatch.setattr(streams, "_torch_stream", None)
    scale(CudaArray(4096, X), CudaArray(4096, OUT))
    assert driver.launches[-1].stream == 0


def streams_ordered(driver: FakeDriver) -> list[tuple[str, int]]:
    """Records of events and waits for them, in order, with the stream of each."""
    names = {"cuEventRecord": 1, "cuStreamWaitEvent": 0, "cuLaunchKernelEx": None}
    return [
        (name, driver.launches[-1].stream if names[name] is None else arguments[names[name]].value or 0)
        for name, arguments in driver.calls
        if name in names
    ]


def test_arrays_that_name_their_stream_are_waited_for_and_wait(driver):
    for _ in range(2):  # prepared, and like before
        driver.calls.clear()
        scale(CudaArray(4096, X, stream=77), CudaArray(4096, OUT, stream=STREAM))
        assert streams_ordered(driver) == [
            ("cuEventRecord", 77), ("cuStreamWaitEvent", STREAM), ("cuLaunchKernelEx", STREAM),
            ("cuEventRecord", STREAM), ("cuStreamWaitEvent", 77),
        ]  # fmt: skip
    assert len(driver.of("cuEventCreate")) == len(driver.of("cuEventDestroy_v2")) == 2


@pytest.mark.parametrize(("named", "expected"), [(77, 77), (1, 0)])
def test_without_pytorch_the_kernel_runs_on_the_arrays_stream(driver, monkeypatch, named, expected):
    monkeypatch.setattr(streams, "_torch_stream", None)
    scale(CudaArray(4096, X, stream=named), CudaArray(4096, OUT, stream=named))
    assert streams_ordered(driver) == [("cuLaunchKernelEx", expected)]


def test_a_first_call_while_a_graph_is_captured(driver):
    """Code is loaded, and memory for empty arrays had, in a mode that capture allows."""
    driver.capturing = {STREAM: 9}
    driver.parameters = 3
    matmul(*product(k=0))
    unsafe = ("cuModuleLoadData", "cuFuncLoad", "cuMemAlloc_v2")
    mode, seen = 0, []
    for name, _ in driver.calls:
        mode ^= 2 * (name == "cuThreadExchangeStreamCaptureMode")
        if name in unsafe:
            seen.append(name)
            assert mode == 2, name
    assert {*seen} == {*unsafe}


def test_nothing_is_launched_where_there_are_no_programs(driver):
    for _ in range(2):
        scale(Tensor(0, base=0), Tensor(0, base=0))
    assert driver.launches == []


# Faults.


def message(call) -> str:
    with pytest.raises((ArgumentError, LaunchError)) as error:
        call()
    return f"{error.value.message} / {error.value.help}"


def test_what_is_written_overlaps(driver):
    expected = (
        "'out' is written by the kernel and shares memory with 'x' / pass an array of its own for the output"
    )
    assert message(lambda: scale(Tensor(4096), Tensor(4096, offset=64))) == expected
    scale(*arrays())
    assert message(lambda: scale(Tensor(4096), Tensor(4096, offset=64))) == expected
    scale(Tensor(4096), Tensor(4096, offset=4096 * 4))


FAULTS = {
    "no memory": (
        "cuModuleLoadData", 2,
        "the kernel's code cannot be loaded on this GPU: out of memory (CUDA_ERROR_OUT_OF_MEMORY) / "
        "free some: torch.cuda.empty_cache() gives back what PyTorch keeps for itself",
    ),
    "code for another GPU": (
        "cuModuleLoadData", 209,
        "the kernel's code cannot be loaded on this GPU: no kernel image is available for execution on the device "
        "(CUDA_ERROR_NO_BINARY_FOR_GPU) / compile the kernel for this GPU",
    ),
    "too many registers": (
        "cuLaunchKernelEx", 701,
        "the kernel 'scale' cannot be launched: too many resources requested for launch (CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES) / "
        "use fewer warps or smaller tiles, or limit registers: num_warps=4, maxnreg=128",
    ),
    "an earlier kernel": (
        "cuLaunchKernelEx", 700,
        "an earlier kernel has failed: an illegal memory access was encountered (CUDA_ERROR_ILLEGAL_ADDRESS); "
        "this process can no longer use the GPU / run with MOSAIC_SYNC=1 to see which kernel it is",
    ),
    "a forked process": (
        "cuDevicePrimaryCtxRetain", 3,
        "GPU 0 cannot be used: initialization error (CUDA_ERROR_NOT_INITIALIZED) / "
        "CUDA does not work in a forked process: start it with multiprocessing's 'spawn'",
    ),
    "capture": (
        "cuModuleLoadData", 900,
        "the kernel's code cannot be loaded on this GPU: operation not permitted when stream is capturing "
        "(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED) / call the kernel once on arrays like these before the graph is captured",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_fault(driver, case):
    function, code, expected = FAULTS[case]
    driver.fails[function] = code
    assert message(lambda: scale(*arrays())) == expected
    driver.fails.clear()
    scale(*arrays())  # what failed is not remembered
    assert driver.launches


def test_no_memory_for_scratch(driver):
    driver.fails["cuMemAlloc_v2"] = 2
    assert message(lambda: launch.scratch("global", 4096, 0, STREAM)) == (
        "4096 bytes of GPU memory cannot be had: out of memory (CUDA_ERROR_OUT_OF_MEMORY) / "
        "free some: torch.cuda.empty_cache() gives back what PyTorch keeps for itself"
    )
    assert driver.modes == [2, 0]
    driver.fails.clear()
    launch.scratch("global", 4096, 0, STREAM)


def test_launches_that_are_waited_for_name_the_kernel(driver, monkeypatch):
    monkeypatch.setenv("MOSAIC_SYNC", "1")
    launch._waits.cache_clear()
    try:
        scale(*arrays())
        assert [stream.value for (stream,) in driver.of("cuStreamSynchronize")] == [STREAM]
        driver.fails["cuStreamSynchronize"] = 700
        assert message(lambda: scale(*arrays())) == (
            "the kernel 'scale' has failed: an illegal memory access was encountered (CUDA_ERROR_ILLEGAL_ADDRESS); "
            "this process can no longer use the GPU / scale.sanitize(…) runs it on the host and looks for mistakes"
        )
        driver.capturing = {STREAM: 3}
        scale(*arrays())  # in a graph nothing runs yet
    finally:
        launch._waits.cache_clear()


def test_arrays_of_a_gpu_that_is_not_nvidias(driver, monkeypatch):
    monkeypatch.setattr(cuda, "driver", lambda: None)
    expected = "this machine has no NVIDIA GPU / move the arrays to the host: kernels run on CPUs too"
    assert message(lambda: scale(*arrays())) == expected


TENSORS = {
    "two devices": (
        lambda: scale(Tensor(64, device=1), Tensor(64, offset=OUT)),
        "the arrays are on different devices: 'x' on cuda:1, 'out' on cuda:0 / move them to one device",
    ),
    "negative view": (
        lambda: scale(Tensor(64, negative=True), Tensor(64, offset=OUT)),
        "'x' is a view whose elements are still to be negated / pass x.resolve_neg()",
    ),
    "no memory": (
        lambda: scale(Sparse(64), Tensor(64, offset=OUT)),
        "'x' is a Sparse of layout torch.strided, without memory of its own / "
        "pass a plain tensor; torch.compile takes kernels that are torch.library ops",
    ),
    "read-only": (
        lambda: scale(CudaArray(64), CudaArray(64, OUT, read_only=True)),
        "'out' is written by the kernel, but this array cannot be written / pass a writable array (JAX arrays are immutable)",
    ),
    "mask": (
        lambda: scale(CudaArray(64, mask=CudaArray(64)), CudaArray(64, OUT)),
        "'x' has a mask, which kernels do not look at / pass an array without one",
    ),
    "bytes between elements": (
        lambda: scale(CudaArray(64, strides=(5,)), CudaArray(64, OUT)),
        "'x' has strides of (5,) bytes, not whole elements / pass a copy",
    ),
    "a dimension too large": (
        lambda: scale(Tensor(2**31), Tensor(2**31, offset=2**40)),
        "'x' has the shape (2147483648,): a dimension is at most 2147483647 / reshape the array",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TENSORS)
def test_arrays_that_cannot_be_taken(driver, case):
    call, expected = TENSORS[case]
    scale(*arrays(64))
    scale(CudaArray(64), CudaArray(64, OUT))
    for _ in range(2):
        assert message(call) == expected


def test_more_elements_than_32_bits_count(driver):
    """Rows are counted in 64 bits; only a block may not span more."""
    driver.parameters = 3
    a, b, c = product(m=2**20)
    matmul(Tensor(*a.shape, strides=(2**20, 1), offset=2**45, dtype="bfloat16"), b, c)
    sizes, byte_strides = driver.of("cuTensorMapEncodeTiled")[0][4:6]
    assert ([*sizes], [*byte_strides]) == ([128, 2**20], [2**21])
