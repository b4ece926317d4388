"""What is handed to the CUDA driver, seen by a driver that is not there."""

from __future__ import annotations

import ctypes
import struct
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mosaic_compile.artifact import Artifact
from mosaic_compile.errors import ArgumentError, LaunchError
from mosaic_compile.language.dtypes import DTYPES
from mosaic_compile.runtime import cuda, cuda_launch, launch, streams
from mosaic_compile.runtime.arguments import Bound
from mosaic_compile.runtime.arrays import ArrayInfo
from mosaic_compile.runtime.scalars import code_of

from .fake_cuda import ADDRESS, ALLOCATED, FIRST_CONTEXT, OUTER_CONTEXT, FakeDriver

STREAM = 0x1234_5678_9ABC


@pytest.fixture
def driver(monkeypatch) -> FakeDriver:
    monkeypatch.setattr(streams, "_torch_stream", lambda device: STREAM + device)
    return FakeDriver().install(monkeypatch.setattr)


def array(shape, strides, dtype="f32", address=ADDRESS) -> ArrayInfo:
    return ArrayInfo(address, tuple(shape), tuple(strides), DTYPES[dtype], "cuda", 0, True, None)


def test_structures_are_laid_out_as_cuda_h_says():
    config, attribute = cuda_launch.LaunchConfig, cuda_launch.LaunchAttribute
    assert ctypes.sizeof(config) == 56 and ctypes.sizeof(attribute) == 72
    offsets = [getattr(config, name).offset for name, _ in config._fields_]
    assert offsets == [0, 12, 24, 32, 40, 48]
    assert (attribute.id.offset, attribute.value.offset) == (0, 8)


def tensor_map(driver: FakeDriver, info: ArrayInfo, box, axes=(0, 1), swizzle=3, element_type=9):
    parameter = {"axes": list(axes), "box": list(box), "swizzle": swizzle, "element_type": element_type}
    result = cuda_launch.encode(launch.tensor_map(parameter, info), info.address, 0)
    assert len(result) == 128
    to, kind, rank, address, sizes, strides, boxes, steps, interleave, swizzled, promotion, fill = driver.of(
        "cuTensorMapEncodeTiled"
    )[-1]
    assert (interleave.value, promotion.value, fill.value) == (0, 2, 0) and to.value % 64 == 0
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
    assert tensor_map(driver, array((0, 64), (64, 1), "bf16"), (16, 16))[2:4] == ([1, 1], [16])


@pytest.mark.parametrize("access", ["in", "out"])
def test_a_descriptor_of_an_empty_array_is_that_of_one_element(driver, access):
    """What is written goes elsewhere than what is read as zeros."""
    descriptor = {
        "kind": "descriptor",
        "array": "a",
        "axes": [0, 1],
        "box": [16, 16],
        "swizzle": 3,
        "element_type": 7,
    }
    driver.parameters = 1
    arrays = [MANIFEST["arrays"][0] | {"access": access}]
    run(driver, array((0, 64), (64, 1)), parameters=[descriptor], grid=["1"], arrays=arrays)
    assert int.from_bytes(driver.launches[-1].values[0], "little") == ALLOCATED
    address, zero, size, _ = driver.of("cuMemsetD8Async")[0]
    assert (address.value, zero.value, size.value) == (ALLOCATED, 0, 16)
    assert launch.stand_in(0, access != "in") == ALLOCATED != launch.stand_in(0, access == "in")


def test_a_tensor_map_that_cuda_refuses(driver):
    driver.fails["cuTensorMapEncodeTiled"] = 1
    with pytest.raises(LaunchError) as error:
        tensor_map(driver, array((100, 30), (30, 1), "bf16"), (16, 16))
    assert error.value.message == (
        "no TMA descriptor fits an array of sizes (100, 30) and byte strides (60, 2): invalid argument (CUDA_ERROR_INVALID_VALUE)"
    )


MANIFEST = {
    "format": 1, "kernel": "k", "target": "sm90", "backend": "triton", "entry": "k", "grid": ["cdiv(M, 64)", "num_sms"], "threads": 128, "cluster": 1,
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


def artifact(**changes: Any) -> Artifact:
    return Artifact({**MANIFEST, **changes}, {"k.cubin": b"\x7fELF", "k.ptx": b""})


def bound(info: ArrayInfo) -> Bound:
    return Bound({"a": info}, {"f": 1.5}, {}, {"M": info.shape[0], "N": info.shape[1]})


BOUND = bound(array((1000, 64), (2**33, 1)))


def run(driver: FakeDriver, info: ArrayInfo | None = None, **changes: Any) -> launch.Launcher:
    launcher = launch.Launcher(artifact(**changes), 0)
    launcher(bound(info) if info else BOUND)
    return launcher


def test_a_launch(driver):
    run(driver)
    (done,) = driver.launches
    assert (done.grid, done.block) == ([16, 132, 1], [128, 1, 1])
    assert (done.shared, done.stream, done.attributes) == (1024, STREAM, [])
    pointer, stride, dim, scalar, *scratch = done.values
    assert int.from_bytes(pointer, "little") == ADDRESS
    assert int.from_bytes(stride, "little") == 2**33
    assert int.from_bytes(dim[:4], "little") == 1000
    assert scalar[:2] == b"\xc0\x3f"  # 1.5 in bf16
    assert [int.from_bytes(s, "little") for s in scratch] == [0, 0]
    assert driver.of("cuModuleLoadData")[0][1] == b"\x7fELF"
    assert driver.of("cuFuncSetAttribute") == []
    assert driver.modes == [2, 0]  # code is loaded outside of any capture


def test_the_context_is_the_devices_and_the_old_one_is_restored(driver):
    run(driver)
    assert driver.launches[0].context == FIRST_CONTEXT and driver.current == OUTER_CONTEXT
    driver.fails["cuLaunchKernelEx"] = 1
    with pytest.raises(
        LaunchError, match=r"the kernel 'k' cannot be launched: invalid argument \(CUDA_ERROR_INVALID_VALUE\)"
    ):
        run(driver)
    assert driver.current == OUTER_CONTEXT


def test_where_the_context_is_current_it_is_left_alone(driver):
    launcher = run(driver)
    with cuda.using_device(0):
        before = len(driver.calls)
        launcher(BOUND)
        names = [name for name, _ in driver.calls[before:]]
    assert names == ["cuCtxGetCurrent", "cuLaunchKernelEx"]


def test_clusters_and_much_shared_memory(driver):
    run(driver, cluster=2, shared_memory=200 * 1024)
    assert driver.launches[-1].grid == [32, 132, 1]
    assert driver.launches[-1].attributes == [(4, [2, 1, 1])]
    assert [a[1:] for a in driver.of("cuFuncSetAttribute")] == [(8, 200 * 1024)]
    run(driver, cluster=16)
    assert driver.of("cuFuncSetAttribute")[-1][1:] == (14, 1)


def test_resources(driver):
    assert run(driver).resources == cuda_launch.Resources(42, 8, 1024 + 16, 1024)


SCRATCH = {"global": {"bytes_per_program": 128}, "profile": {"bytes_per_program": 0}}


def test_scratch_memory_grows(driver):
    for _ in range(2):
        run(driver, scratch=SCRATCH)
    assert [size.value for _, size in driver.of("cuMemAlloc_v2")] == [128 * 16 * 132]
    assert int.from_bytes(driver.launches[-1].values[-2], "little") == ALLOCATED
    run(driver, scratch=SCRATCH, cluster=2)
    assert [size.value for _, size in driver.of("cuMemAlloc_v2")][1:] == [2 * 128 * 16 * 132]


def test_scratch_memory_of_two_kinds(driver):
    kinds = {"global": {"bytes_per_program": 8}, "profile": {"bytes_per_program": 16}}
    run(driver, scratch=kinds)
    first, second = (int.from_bytes(v, "little") for v in driver.launches[-1].values[-2:])
    assert second - first == 8 * 16 * 132


def test_a_captured_launch_has_scratch_memory_of_its_own(driver):
    """A graph may run beside the stream that it was captured from."""
    places = []
    for number in (0, 5, 5, 6, 0):
        driver.capturing = {STREAM: number}
        driver.modes.clear()
        run(driver, scratch=SCRATCH)
        assert driver.modes in ([2, 0], [2, 0, 2, 0])  # whatever is allocated is outside of the capture
        places.append(int.from_bytes(driver.launches[-1].values[-2], "little"))
    first, second, again, third, outside = places
    assert first == outside and second == again and len({first, second, third}) == 3


def test_nothing_is_launched_for_an_empty_grid(driver):
    run(driver, array((0, 64), (64, 1)))
    assert driver.launches == []


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
    code, encode = code_of(dtype)
    assert struct.pack(f"<{code}", encode(value)) == np.asarray(value, DTYPES[dtype].numpy).tobytes()


def test_without_a_gpu(monkeypatch):
    monkeypatch.setattr(cuda, "driver", lambda: None)
    assert cuda.compute_capability() is None
    with pytest.raises(LaunchError, match="this machine has no NVIDIA GPU"), cuda.using_device(0):
        pass


REFUSALS = {
    "shared memory": (
        "cuFuncSetAttribute",
        dict(shared_memory=200 * 1024),
        "this GPU cannot give a program 204800 bytes of shared memory: invalid argument (CUDA_ERROR_INVALID_VALUE)",
    ),
    "cluster": (
        "cuFuncSetAttribute",
        dict(cluster=16),
        "this GPU has no clusters of 16 thread blocks: invalid argument (CUDA_ERROR_INVALID_VALUE)",
    ),
    "entry": (
        "cuModuleGetFunction",
        {},
        "the code has no function 'k': invalid argument (CUDA_ERROR_INVALID_VALUE)",
    ),
    "grid": (
        "",
        dict(grid=["cdiv(M, N - 64)"]),
        "the grid (cdiv(M, N - 64)) divides by zero for these sizes",
    ),
    "parameter": (
        "",
        dict(parameters=[{"kind": "texture"}]),
        "the manifest has a parameter of unknown kind 'texture'",
    ),
    "target": ("", dict(target="sm100"), "the kernel 'k' is compiled for sm100, and GPU 0 is an sm90"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_code_that_cannot_be_used(driver, case):
    function, changes, expected = REFUSALS[case]
    driver.fails[function] = 1
    with pytest.raises(LaunchError) as error:
        run(driver, **changes)
    assert error.value.message == expected
    assert driver.current == OUTER_CONTEXT and driver.launches == []


def test_pytorchs_stream_is_taken_once_pytorch_uses_a_gpu(monkeypatch):
    uses = []
    torch = SimpleNamespace(
        cuda=SimpleNamespace(is_initialized=lambda: bool(uses)),
        _C=SimpleNamespace(_cuda_getCurrentRawStream=lambda device: 70 + device),
    )
    monkeypatch.setattr(streams, "_torch_stream", None)
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert streams.current_stream(1) == streams.DEFAULT
    uses.append("a GPU")
    assert streams.current_stream(1) == 71
    monkeypatch.delitem(sys.modules, "torch")
    assert streams.current_stream(2) == 72
    monkeypatch.setattr(streams, "_torch_stream", None)
    assert streams.current_stream(2) == streams.DEFAULT
