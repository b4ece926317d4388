"""`kernel.compile(…)`: a compiled kernel that only launches, on a GPU that is not there and on this machine's CPU."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

import mosaic_compile as mc
from mosaic_compile.errors import ArgumentError
from mosaic_compile.language.dtypes import i4
from mosaic_compile.runtime import call, cuda, forms, streams
from mosaic_compile.runtime.cuda_launch import Resources

from .fake_cuda import ADDRESS, FakeDriver
from .fake_tensors import Tensor


@mc.kernel(grid=lambda N, B: (mc.cdiv(N, B),), tune=[dict(B=64, num_warps=2)])
def scale(
    x: mc.f32["N"],
    out: mc.Out[mc.f32["N"]],
    factor: mc.f32 = 2.0,
    bias: mc.f32["N"] | None = None,
    *,
    B: mc.Const,
):
    i = mc.program_id(0)
    tile = mc.load(x, i, B) * factor
    if bias is not None:
        tile = tile + mc.load(bias, i, B)
    mc.store(out, i, tile)


@mc.kernel(grid=(1,))
def widen(x: mc.i4["N"], out: mc.Out[mc.i8["N"]]):
    mc.store(out, 0, mc.load(x, 0, 64).to(mc.i8))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def driver(monkeypatch, cache) -> FakeDriver:
    monkeypatch.setenv("MOSAIC_CACHE_DIR", str(cache))
    monkeypatch.setattr(streams, "_torch_stream", lambda device: 5)
    monkeypatch.setattr(call, "_compiled", {})
    call._target.cache_clear()
    yield FakeDriver().install(monkeypatch.setattr)
    call._target.cache_clear()


def arrays(size=256, offset=0, **options) -> tuple[Tensor, Tensor]:
    return Tensor(size, offset=0x1000 + offset, **options), Tensor(size, offset=0x100000, **options)


def test_it_is_compiled_but_not_run(driver):
    run = scale.compile(*arrays())
    assert len(driver.of("cuModuleLoadData")) == 1 and driver.launches == []
    assert run.constants == {"B": 64, "num_warps": 2}
    assert run.resources == Resources(42, 8, run.manifest["shared_memory"] + 16, 1024)
    assert run.manifest["target"] == "sm90" and run.artifact.binary.startswith(b"\x7fELF")
    assert repr(run) == "<scale compiled for sm90>"


def test_it_only_launches(driver):
    run = scale.compile(*arrays(), B=128)
    before = len(driver.calls)
    with cuda.using_device(0):
        run(*arrays(offset=64))
    assert [name for name, _ in driver.calls[before + 2 : -1]] == ["cuCtxGetCurrent", "cuLaunchKernelEx"]
    assert int.from_bytes(driver.launches[0].values[0], "little") == ADDRESS + 0x1000 + 64
    assert driver.launches[0].grid == [2, 1, 1]


def test_calls_that_are_written_otherwise(driver):
    x, out = arrays()
    run = scale.compile(x, out)
    run(out=out, x=x)
    run(x, out, 3.0)
    run(x, out=out, factor=4.0)
    factors = [np.frombuffer(done.values[2], np.float32)[0] for done in driver.launches]
    assert factors == [2.0, 3.0, 4.0]


def message(call) -> str:
    with pytest.raises(ArgumentError) as error:
        call()
    return f"{error.value.message} / {error.value.help}"


OTHERWISE = "call scale itself, or compile it for these arrays too"
WAS = "f32 of shape (256,) with strides (1,) on cuda:0"
REFUSED = {
    "shape": (lambda run: run(*arrays(128)), f"'x' is f32 of shape (128,) with strides (1,) on cuda:0, but this was compiled for {WAS} / {OTHERWISE}"),
    "strides": (lambda run: run(*arrays(strides=(2,))), f"'x' is f32 of shape (256,) with strides (2,) on cuda:0, but this was compiled for {WAS} / {OTHERWISE}"),
    "device": (lambda run: run(*arrays(device=1)), f"'x' is f32 of shape (256,) with strides (1,) on cuda:1, but this was compiled for {WAS} / {OTHERWISE}"),
    "alignment": (lambda run: run(*arrays(offset=4)), f"'x' is {WAS}, 4 bytes past a multiple of 16, but this was compiled for {WAS} / {OTHERWISE}"),
    "element type": (lambda run: run(*arrays(dtype="float16")), "'x' is f32[N], but the array holds f16 / convert it to f32"),
    "an array more": (lambda run: run(*arrays(), 2.0, Tensor(256, offset=0x200000)), f"'bias' is {WAS}, but this was compiled for left out / {OTHERWISE}"),
    "an array less": (lambda run: run(Tensor(256)), "scale: the array 'out' is missing / its form is scale(x, out, factor, bias, *, B)"),
    "overlap": (lambda run: run(Tensor(256), Tensor(256, offset=64)), "'out' is written by the kernel and shares memory with 'x' / pass an array of its own for the output"),
    "constant": (lambda run: run(*arrays(), B=128), "'B' was decided when 'scale' was compiled / leave it out, or call the kernel itself"),
    "option": (lambda run: run(*arrays(), num_warps=8), "'num_warps' was decided when 'scale' was compiled / leave it out, or call the kernel itself"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_it_was_not_compiled_for(driver, case):
    call, expected = REFUSED[case]
    assert message(lambda: call(scale.compile(*arrays()))) == expected
    assert driver.launches == []


def test_on_the_cpu():
    x, out = np.arange(100, dtype=np.float32), np.zeros(100, np.float32)
    run = scale.compile(x, out, 3.0)
    assert not out.any() and run.resources is None and run.manifest["target"] == "cpu"
    run(x, out, 3.0)
    np.testing.assert_array_equal(out, 3 * x)
    run(x + 1, out, factor=2.0)
    np.testing.assert_array_equal(out, 2 * x + 2)
    expected = "'x' is f32 of shape (50,) with strides (1,) on cpu, but this was compiled for f32 of shape (100,) with strides (1,) on cpu"
    assert message(lambda: run(x[:50].copy(), out[:50].copy())).startswith(expected)


def test_read_only_arrays():
    x, out = np.arange(100, dtype=np.float32), np.zeros(100, np.float32)
    run = scale.compile(x, out)
    x.flags.writeable = False
    run(x, out)
    np.testing.assert_array_equal(out, 2 * x)
    out.flags.writeable = False
    assert message(lambda: run(x, out)).startswith(
        "'out' is written by the kernel, but this array cannot be written"
    )


def test_it_keeps_no_arrays():
    x, out = np.arange(100, dtype=np.float32), np.zeros(100, np.float32)
    run, gone = scale.compile(x, out), weakref.ref(x)
    run(x, out)
    del x
    gc.collect()
    assert gone() is None


def test_packed_elements_on_the_cpu():
    x, out = np.arange(-8, 8).astype(i4.numpy), np.zeros(16, np.int8)
    run = widen.compile(x, out)
    run(x[::-1].copy(), out)
    np.testing.assert_array_equal(out, np.arange(7, -9, -1))


def test_forms_are_not_mixed_up_with_the_kernels_own(driver):
    """A call of the kernel after its compile takes the entry of `tune` that a call takes."""
    scale.compile(*arrays(), B=128)
    forms.forget()
    scale(*arrays())
    assert driver.launches[-1].grid == [4, 1, 1]
