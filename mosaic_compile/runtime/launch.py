"""Launching a compiled kernel on an NVIDIA GPU, from its manifest."""

from __future__ import annotations

import ctypes
import functools
import sys
from typing import Any

from mosaic_compile.artifact import Artifact
from mosaic_compile.errors import ArgumentError, LaunchError
from mosaic_compile.language.dtypes import DTYPES
from mosaic_compile.language.symbolic import evaluate

from . import cuda
from .arguments import Bound, check_written
from .arrays import ArrayInfo

_SCALARS = {
    "f64": ctypes.c_double, "f32": ctypes.c_float, "i64": ctypes.c_int64, "i32": ctypes.c_int32, "u32": ctypes.c_uint32,
    "i16": ctypes.c_int16, "i8": ctypes.c_int8, "u8": ctypes.c_uint8, "bool": ctypes.c_int8,
}  # fmt: skip


class Launcher:
    """A kernel loaded on one device."""

    def __init__(self, artifact: Artifact, device: int):
        self.manifest = artifact.manifest
        self.device = device
        self.arrays = {a["name"]: a for a in self.manifest["arrays"]}
        self.blocks = {p["array"]: p["block"] for p in self.manifest["parameters"] if p["kind"] == "pointer"}
        self.written = frozenset(a["name"] for a in self.manifest["arrays"] if a["access"] != "in")
        manifest = self.manifest
        with cuda.using_device(device):
            self.function = cuda.load_function(
                artifact.binary, manifest["entry"], manifest["shared_memory"], manifest["cluster"]
            )

    def __call__(self, bound: Bound) -> None:
        """Starts the kernel on the current stream; returns at once."""
        manifest = self.manifest
        check_written(bound.arrays, self.written)
        for name, expected in self.arrays.items():
            check_layout(bound.arrays[name], expected)
        for name, block in self.blocks.items():
            check_spans(bound.arrays[name], name, block)
        sizes = {**bound.sizes, "num_sms": cuda.device_attribute(cuda.MULTIPROCESSOR_COUNT, self.device)}
        grid = [evaluate(text, sizes) for text in manifest["grid"]]
        grid += [1] * (3 - len(grid))
        if 0 in grid:
            return
        if grid[0] * manifest["cluster"] >= 2**31 or grid[1] > 65535 or grid[2] > 65535:
            raise LaunchError(
                f"the grid {tuple(grid)} is larger than a GPU takes (2147483647, 65535, 65535)",
                "put the largest dimension first",
            )
        programs = grid[0] * grid[1] * grid[2]
        with cuda.using_device(self.device):
            stream = current_stream(self.device)
            cuda.launch(
                self.function,
                grid,
                manifest["threads"],
                manifest["cluster"],
                manifest["shared_memory"],
                stream,
                [self._parameter(p, bound, programs, stream) for p in manifest["parameters"]],
            )

    def _parameter(self, parameter: dict[str, Any], bound: Bound, programs: int, stream: int) -> Any:
        match parameter["kind"]:
            case "pointer":
                return ctypes.c_uint64(bound.arrays[parameter["array"]].address)
            case "dim":
                return ctypes.c_int32(bound.sizes[parameter["name"]])
            case "stride":
                return ctypes.c_int64(bound.arrays[parameter["array"]].strides[parameter["axis"]])
            case "scalar":
                return scalar(parameter["dtype"], bound.scalars[parameter["name"]])
            case "descriptor":
                return tensor_map(parameter, bound.arrays[parameter["array"]])
            case "scratch":
                size = self.manifest["scratch"][parameter["name"]]["bytes_per_program"]
                size *= programs * self.manifest["cluster"]
                return ctypes.c_uint64(scratch(size, self.device, stream) if size else 0)
        raise LaunchError(
            f"the manifest has a parameter of unknown kind '{parameter['kind']}'", "compile the kernel again"
        )


def check_layout(info: ArrayInfo, expected: dict[str, Any]) -> None:
    """Refuses an array that is not laid out as the code relies on."""
    name = expected["name"]
    if info.dtype.name != expected["dtype"]:
        raise ArgumentError(
            f"'{name}' holds {info.dtype}, but the kernel was compiled for {expected['dtype']}",
            "convert it, or compile again",
        )
    if info.address % expected["align"]:
        raise ArgumentError(
            f"'{name}' does not start at a multiple of {expected['align']} bytes",
            "pass an aligned copy, or compile for this array",
        )
    for axis, (stride, fixed, multiple) in enumerate(
        zip(info.strides, expected["strides"], expected["stride_multiples"])
    ):
        size = info.shape[axis]
        # Of an empty array no element is reached, and NumPy sets its strides to 0.
        if (
            size > 1
            and 0 not in info.shape
            and (stride % multiple or (fixed is not None and stride != fixed))
        ):
            wanted = f"{fixed}" if fixed is not None else f"a multiple of {multiple}"
            raise ArgumentError(
                f"dimension {axis} of '{name}' has stride {stride}, but the kernel was compiled for {wanted}",
                "pass a contiguous copy, or compile for this layout",
            )
    for axis, (size, fixed, multiple) in enumerate(
        zip(info.shape, expected["sizes"], expected["dim_multiples"])
    ):
        if size % multiple or (fixed is not None and size != fixed):
            wanted = f"{fixed}" if fixed is not None else f"a multiple of {multiple}"
            raise ArgumentError(
                f"dimension {axis} of '{name}' is {size}, but the kernel was compiled for {wanted}",
                "pad the array, or compile for this shape",
            )


def check_spans(info: ArrayInfo, name: str, block: list[int]) -> None:
    """Refuses strides with which a block spans 2^31 elements: within a block, the code counts in 32 bits."""
    span = sum(
        (min(extent, size) - 1) * abs(stride)
        for extent, size, stride in zip(block, info.shape, info.strides)
        if size
    )
    if span >= 2**31:
        raise ArgumentError(
            f"a block of '{name}' spans {span} elements with the strides {info.strides}; it may span 2147483647",
            "pass a contiguous copy, or use smaller tiles",
        )


def scalar(dtype: str, value: Any) -> Any:
    if dtype in _SCALARS:
        return _SCALARS[dtype](value)
    import numpy as np

    bits = np.asarray(value, DTYPES[dtype].numpy).view(np.uint16 if DTYPES[dtype].bits == 16 else np.uint8)
    return (ctypes.c_uint16 if DTYPES[dtype].bits == 16 else ctypes.c_uint8)(int(bits))


def tensor_map(parameter: dict[str, Any], info: ArrayInfo) -> Any:
    """A TMA descriptor (CUtensorMap) for the box that the manifest gives."""
    axes = parameter["axes"]
    size = int(info.dtype.bytes)
    address, sizes = info.address, [info.shape[a] for a in axes]
    # The stride of a dimension of one element is never used, but the driver wants a multiple of 16 bytes.
    strides = [info.strides[a] * size if info.shape[a] > 1 else 16 for a in axes]
    if 0 in sizes:
        # A tensor map has no empty dimension: one element of zeros, at which blocks of an empty array may look.
        address, sizes, strides = empty_array(info), [1] * len(axes), [16] * len(axes)
    return cuda.encode_tensor_map(
        address, parameter["element_type"], sizes, strides, parameter["box"], parameter["swizzle"]
    )


@functools.cache
def _zeros(device: int) -> int:
    return cuda.allocate_zeros(16)


def empty_array(info: ArrayInfo) -> int:
    """The address of an element to stand for an array that has none."""
    return _zeros(info.device_index)


_scratch: dict[tuple[int, int], tuple[int, int]] = {}


def scratch(size: int, device: int, stream: int) -> int:
    """Device memory of at least `size` bytes for the scratch of a stream's kernels, which run one after the other.

    It grows, and lives as long as the process: kernels that still run may use what was given before.
    """
    address, have = _scratch.get((device, stream), (0, 0))
    if have < size:
        address = cuda.allocate(size)
        _scratch[device, stream] = (address, size)
    return address


def current_stream(device: int) -> int:
    """PyTorch's current stream where PyTorch is in use, else the default stream."""
    torch = sys.modules.get("torch")
    return (
        torch.cuda.current_stream(device).cuda_stream
        if torch is not None and torch.cuda.is_available()
        else 0
    )
