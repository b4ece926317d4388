"""What is handed to the CUDA driver, seen by a driver that is not there."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest

import mosaic_compile as mc
from mosaic_compile.artifact import Artifact
from mosaic_compile.errors import ArgumentError, LaunchError
from mosaic_compile.language.dtypes import DTYPES
from mosaic_compile.runtime import cuda, launch
from mosaic_compile.runtime.arguments import Bound
from mosaic_compile.runtime.arrays import ArrayInfo

ADDRESS = 0x7F12_3456_7800  # more than 32 bits


class FakeDriver:
    """libcuda.so.1 as far as launching goes: every function notes its arguments and succeeds."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.current = 111
        self.fails: dict[str, int] = {}

    def __getattr__(self, name: str):
        def function(*arguments):
            self.calls.append((name, arguments))
            handler = getattr(type(self), f"_{name}", None)
            if handler is not None:
                handler(self, *arguments)
            return self.fails.get(name, 0)

        return function

    def of(self, name: str) -> list[tuple[Any, ...]]:
        return [arguments for called, arguments in self.calls if called == name]

    def _cuDevicePrimaryCtxRetain(self, context, handle):
        context._obj.value = 222

    def _cuCtxGetCurrent(self, context):
        context._obj.value = self.current

    def _cuCtxSetCurrent(self, context):
        self.current = context.value

    def _cuMemAlloc_v2(self, address, size):
        address._obj.value = ADDRESS + 0x1000

    def _cuDeviceGetAttribute(self, value, attribute, device):
        value._obj.value = 132

    def _cuGetErrorString(self, code, text):
        text._obj.value = b"invalid argument"

    def _cuModuleGetFunction(self, function, module, name):
        function._obj.value = 333

    def _cuLaunchKernelEx(self, config, function, pointers, extra):
        assert extra is None and self.current == 222
        self.config = config._obj
        if self.config.attribute_count:
            attribute = self.config.attributes[0]
            self.attribute = (attribute.id, list(attribute.value[:3]))
        self.values = [ctypes.string_at(p, 8) for p in pointers]
        self.first_pointer = pointers[0]


@pytest.fixture
def driver(monkeypatch) -> FakeDriver:
    fake = FakeDriver()
    monkeypatch.setattr(cuda, "driver", lambda: fake)
    monkeypatch.setattr(cuda, "_contexts", {})
    monkeypatch.setattr(launch, "_scratch", {})
    monkeypatch.setattr(launch, "current_stream", lambda device: 0x1234_5678_9ABC)
    launch._zeros.cache_clear()
    yield fake
    launch._zeros.cache_clear()


def array(shape, strides, dtype="f32", address=ADDRESS) -> ArrayInfo:
    return ArrayInfo(address, tuple(shape), tuple(strides), DTYPES[dtype], "cuda", 0, True, None)


def test_structures_are_laid_out_as_cuda_h_says():
    config, attribute = cuda._LaunchConfig, cuda._LaunchAttribute
    assert ctypes.sizeof(config) == 56 and ctypes.sizeof(attribute) == 72
    offsets = [getattr(config, name).offset for name, _ in config._fields_]
    assert offsets == [0, 12, 24, 32, 40, 48]
    assert (attribute.id.offset, attribute.value.offset) == (0, 8)


def tensor_map(driver: FakeDriver, info: ArrayInfo, box, axes=(0, 1), swizzle=3, element_type=9):
    parameter = {"axes": list(axes), "box": list(box), "swizzle": swizzle, "element_type": element_type}
    result = launch.tensor_map(parameter, info)
    assert ctypes.sizeof(result) == 128 and ctypes.addressof(result) % 64 == 0
    _, kind, rank, address, sizes, strides, boxes, steps, interleave, swizzled, promotion, fill = driver.of(
        "cuTensorMapEncodeTiled"
    )[-1]
    assert (interleave.value, promotion.value, fill.value) == (0, 2, 0)
    assert rank.value == len(sizes) == len(boxes) == len(steps) and set(steps) == {1}
    assert ctypes.sizeof(sizes) == 8 * len(sizes) and ctypes.sizeof(boxes) == 4 * len(boxes)
    return kind.value, address.value, [*sizes], [*strides], [*boxes], swizzled.value


def test_tensor_maps_count_dimensions_from_the_innermost(driver):
    info = array((1000, 512), (520, 1), "bf16")
    assert tensor_map(driver, info, (128, 64)) == (9, ADDRESS, [512, 1000], [1040], [64, 128], 3)
    info = array((4, 1000, 512), (512, 2048, 1), "f32")
    assert tensor_map(driver, info, (1, 128, 32), (0, 1, 2), 2, 7) == (
        7,
        ADDRESS,
        [512, 1000, 4],
        [8192, 2048],
        [32, 128, 1],
        2,
    )
    column_major = array((512, 1000), (1, 520), "bf16")
    assert tensor_map(driver, column_major, (128, 64), (1, 0))[2:4] == ([512, 1000], [1040])


def test_tensor_maps_of_single_rows_and_of_nothing(driver):
    assert tensor_map(driver, array((1, 30), (30, 1), "bf16"), (16, 16))[2:4] == ([30, 1], [16])
    empty = tensor_map(driver, array((0, 64), (64, 1), "bf16", address=0), (16, 16))
    assert empty[1:4] == (ADDRESS + 0x1000, [1, 1], [16])
    assert driver.of("cuMemsetD8_v2")[0][0].value == ADDRESS + 0x1000


def test_a_tensor_map_that_cuda_refuses(driver):
    driver.fails["cuTensorMapEncodeTiled"] = 1
    with pytest.raises(LaunchError) as error:
        tensor_map(driver, array((100, 30), (30, 1), "bf16"), (16, 16))
    assert error.value.message == (
        "no TMA descriptor fits an array of sizes (100, 30) and byte strides (60, 2): invalid argument"
    )


MANIFEST = {
    "format": 1, "kernel": "k", "entry": "k", "grid": ["cdiv(M, 64)", "num_sms"], "threads": 128, "cluster": 1,
    "shared_memory": 1024, "scratch": {"global": {"bytes_per_program": 0}, "profile": {"bytes_per_program": 0}},
    "parameters": [
        {"kind": "pointer", "array": "a", "block": [1, 64]}, {"kind": "stride", "array": "a", "axis": 0}, {"kind": "dim", "name": "M"},
        {"kind": "scalar", "name": "f", "dtype": "bf16"}, {"kind": "scratch", "name": "global"},
        {"kind": "scratch", "name": "profile"},
    ],
    "arrays": [
        {
            "name": "a", "dtype": "f32", "dims": ["M", "N"], "sizes": [None, 64], "strides": [None, 1],
            "stride_multiples": [4, 1], "dim_multiples": [1, 1], "align": 16, "access": "inout",
        }
    ],
    "files": {"binary": "k.cubin", "assembly": "k.ptx"},
}  # fmt: skip


def run(driver: FakeDriver, info: ArrayInfo | None = None, **changes: Any) -> launch.Launcher:
    info = info or array((1000, 64), (2**33, 1))
    launcher = launch.Launcher(Artifact({**MANIFEST, **changes}, {"k.cubin": b"\x7fELF", "k.ptx": b""}), 0)
    launcher(Bound({"a": info}, {"f": 1.5}, {}, {"M": info.shape[0], "N": info.shape[1]}))
    return launcher


def test_a_launch(driver):
    run(driver)
    config = driver.config
    assert ([*config.grid], [*config.block]) == ([16, 132, 1], [128, 1, 1])
    assert (config.shared, config.stream, config.attribute_count) == (1024, 0x1234_5678_9ABC, 0)
    pointer, stride, dim, scalar, *scratch = driver.values
    assert int.from_bytes(pointer, "little") == ADDRESS
    assert int.from_bytes(stride, "little") == 2**33
    assert int.from_bytes(dim[:4], "little") == 1000
    assert scalar[:2] == b"\xc0\x3f"  # 1.5 in bf16
    assert [int.from_bytes(s, "little") for s in scratch] == [0, 0]
    assert driver.of("cuModuleLoadData")[0][1] == b"\x7fELF"
    assert driver.of("cuFuncSetAttribute") == []


def test_the_current_context_is_restored(driver):
    run(driver)
    assert driver.current == 111
    driver.fails["cuLaunchKernelEx"] = 1
    with pytest.raises(LaunchError, match="the kernel cannot be launched: invalid argument"):
        run(driver)
    assert driver.current == 111


def test_clusters_and_much_shared_memory(driver):
    run(driver, cluster=2, shared_memory=200 * 1024)
    assert [*driver.config.grid] == [32, 132, 1]
    assert driver.attribute == (4, [2, 1, 1])
    assert [a[1:] for a in driver.of("cuFuncSetAttribute")] == [(8, 200 * 1024)]
    run(driver, cluster=16)
    assert driver.of("cuFuncSetAttribute")[-1][1:] == (14, 1)


def test_scratch_memory_grows(driver):
    scratch = {"global": {"bytes_per_program": 128}, "profile": {"bytes_per_program": 0}}
    for _ in range(2):
        run(driver, scratch=scratch)
    assert [size.value for _, size in driver.of("cuMemAlloc_v2")] == [128 * 16 * 132]
    assert int.from_bytes(driver.values[-2], "little") == ADDRESS + 0x1000
    run(driver, scratch=scratch, cluster=2)
    assert [size.value for _, size in driver.of("cuMemAlloc_v2")][1:] == [2 * 128 * 16 * 132]


def test_nothing_is_launched_for_an_empty_grid(driver):
    run(driver, array((0, 64), (64, 1)))
    assert driver.of("cuLaunchKernelEx") == []


def test_grids_that_are_too_large(driver):
    with pytest.raises(
        LaunchError, match=r"the grid \(1, 70000, 1\) is larger than a GPU takes \(2147483647, 65535, 65535\)"
    ):
        run(driver, grid=["1", "70000"])
    with pytest.raises(LaunchError):
        run(driver, grid=["1500000000"], cluster=2)


LAYOUTS = {
    "'a' holds i32, but the kernel was compiled for f32 / convert it, or compile again": array((64, 64), (64, 1), "i32"),
    "'a' does not start at a multiple of 16 bytes / pass an aligned copy, or compile for this array": array((64, 64), (64, 1), address=ADDRESS + 4),
    "dimension 0 of 'a' has stride 63, but the kernel was compiled for a multiple of 4 / pass a contiguous copy, or compile for this layout": array((64, 64), (63, 1)),
    "dimension 1 of 'a' has stride 2, but the kernel was compiled for 1 / pass a contiguous copy, or compile for this layout": array((64, 64), (128, 2)),
    "dimension 1 of 'a' is 32, but the kernel was compiled for 64 / pad the array, or compile for this shape": array((64, 32), (64, 1)),
}  # fmt: skip


@pytest.mark.parametrize("expected", LAYOUTS)
def test_layouts_that_the_code_cannot_take(expected):
    with pytest.raises(ArgumentError) as error:
        launch.check_layout(LAYOUTS[expected], MANIFEST["arrays"][0])
    assert f"{error.value.message} / {error.value.help}" == expected


def test_the_stride_of_a_single_row_does_not_count():
    launch.check_layout(array((1, 64), (7, 1)), MANIFEST["arrays"][0])


def test_blocks_that_span_more_than_32_bits():
    wide = array((64, 64), (2**28, 1))
    with pytest.raises(ArgumentError) as error:
        launch.check_spans(wide, "a", [16, 64])
    assert error.value.message == (
        f"a block of 'a' spans {15 * 2**28 + 63} elements with the strides (268435456, 1); it may span 2147483647"
    )
    launch.check_spans(wide, "a", [8, 64])
    launch.check_spans(array((1, 64), (2**40, 1)), "a", [16, 64])  # no row behind the first


SCALARS = [("f64", 0.1), ("f32", 0.1), ("f16", 0.1), ("bf16", 0.1), ("f8e4m3", 0.1), ("i64", -(2**40)), ("i32", -5), ("u32", 2**32 - 1), ("i16", -5), ("i8", -5), ("u8", 200), ("bool", True)]  # fmt: skip


@pytest.mark.parametrize(("dtype", "value"), SCALARS)
def test_scalars_are_the_bytes_of_their_type(dtype, value):
    assert bytes(launch.scalar(dtype, value)) == np.asarray(value, DTYPES[dtype].numpy).tobytes()


def test_without_a_gpu(monkeypatch):
    monkeypatch.setattr(cuda, "driver", lambda: None)
    assert cuda.compute_capability() is None
    with pytest.raises(LaunchError, match="this machine has no NVIDIA GPU"), cuda.using_device(0):
        pass


def test_a_call_compiles_once_for_each_layout(driver, tmp_path, monkeypatch):
    from mosaic_compile.runtime import call

    monkeypatch.setenv("MOSAIC_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(cuda, "compute_capability", lambda device=0: (9, 0))
    monkeypatch.setattr(cuda, "device_of", lambda address: 0)
    call._target.cache_clear()

    @mc.kernel(grid=lambda N: (mc.cdiv(N, 64),))
    def copy(x: mc.f32["N"], out: mc.Out[mc.f32["N"]]):
        i = mc.program_id(0)
        mc.store(out, i, mc.load(x, i, 64))

    class OnGpu:
        def __init__(self, size, offset):
            self.__cuda_array_interface__ = {
                "typestr": "<f4",
                "shape": (size,),
                "data": (ADDRESS + offset, False),
            }

    for size, offset in ((64, 0), (128, 0), (65, 0), (64, 0), (64, 0x8004)):
        copy(OnGpu(size, 0x100000 + offset), OnGpu(size, 0x200000))
    call._target.cache_clear()
    assert len(driver.of("cuModuleLoadData")) == 3  # sizes of 16, other sizes, an address of 4
    assert len(driver.of("cuLaunchKernelEx")) == 5
