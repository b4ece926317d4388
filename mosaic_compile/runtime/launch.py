"""Launching a compiled kernel on an NVIDIA GPU, from its manifest.

What a call's sizes and layouts decide is worked out once and kept (`Prepared`): a call like it then only fills in addresses and
scalars, a few microseconds of Python.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from struct import Struct
from typing import Any

from mosaic_compile.artifact import Artifact
from mosaic_compile.errors import ArgumentError, LaunchError
from mosaic_compile.language.symbolic import evaluate

from . import cuda, cuda_launch, streams
from .arguments import Bound, Pair, apart, check_apart, check_written
from .arrays import ArrayInfo
from .scalars import code_of


class Launcher:
    """A kernel loaded on one GPU. resources: what it takes of it."""

    def __init__(self, artifact: Artifact, device: int):
        self.artifact = artifact
        self.manifest = manifest = artifact.manifest
        self.device = device
        self.arrays = {a["name"]: a for a in manifest["arrays"]}
        self.blocks = {p["array"]: p["block"] for p in manifest["parameters"] if p["kind"] == "pointer"}
        self.written = frozenset(a["name"] for a in manifest["arrays"] if a["access"] != "in")
        self.library, self.context = cuda.driver(), cuda.context(device)
        check_gpu(manifest, device)
        with cuda.using_device(device):
            function = cuda_launch.load_function(
                artifact.binary, manifest["entry"], manifest["shared_memory"], manifest["cluster"]
            )
            self.resources = cuda_launch.resources(function, manifest["shared_memory"])
        self.function = function.value or 0
        self.multiprocessors = cuda.device_attribute(cuda.MULTIPROCESSOR_COUNT, device)
        self.waits = _waits()

    def __call__(self, bound: Bound) -> None:
        """Starts the kernel on the current stream; returns at once. Raises ArgumentError and LaunchError."""
        prepared = self.prepare(bound)
        prepared.run({name: info.address for name, info in bound.arrays.items()}, bound.scalars)

    def prepare(self, bound: Bound) -> Prepared:
        """What a call comes down to whose arrays have these sizes and layouts; checks them."""
        check_written(bound.arrays, self.written)
        for name, expected in self.arrays.items():
            check_layout(bound.arrays[name], expected)
        for name, block in self.blocks.items():
            check_spans(bound.arrays[name], name, block)
        manifest = self.manifest
        grid = grid_of(manifest, {**bound.sizes, "num_sms": self.multiprocessors})
        codes: list[str] = []
        values: list[Any] = []
        pointers: list[tuple[str, int]] = []
        descriptors: list[tuple[str, int, cuda_launch.TensorMap]] = []
        scalars: list[tuple[str, int, Callable[[Any], Any]]] = []
        memories: list[tuple[str, int, int]] = []
        for slot, parameter in enumerate(manifest["parameters"]):
            code, value = "Q", 0
            match parameter:
                case {"kind": "pointer", "array": name}:
                    pointers.append((name, slot))
                case {"kind": "dim", "name": name}:
                    code, value = "i", bound.sizes[name]
                case {"kind": "stride", "array": name, "axis": axis}:
                    code, value = "q", bound.arrays[name].strides[axis]
                case {"kind": "scalar", "name": name, "dtype": dtype}:
                    code, encode = code_of(dtype)
                    value = encode(bound.scalars[name])
                    scalars.append((name, slot, encode))
                case {"kind": "descriptor", "array": name}:
                    code, map_ = "128s", tensor_map(parameter, bound.arrays[name])
                    if 0 in bound.arrays[name].shape:
                        place = stand_in(self.device, name in self.written)
                        value = cuda_launch.encode(map_, place, self.context)  # type: ignore[assignment]
                    else:
                        descriptors.append((name, slot, map_))
                case {"kind": "scratch", "name": name}:
                    programs = grid[0] * grid[1] * grid[2] * manifest["cluster"]
                    size = manifest["scratch"][name]["bytes_per_program"] * programs
                    if size:
                        memories.append((name, slot, size))
                case {"kind": kind}:
                    raise LaunchError(
                        f"the manifest has a parameter of unknown kind '{kind}'", "compile the kernel again"
                    )
            codes.append(code)
            values.append(value)
        block, offsets = cuda_launch.parameter_block(codes)
        return Prepared(
            self,
            grid,
            block,
            offsets,
            values,
            pointers,
            descriptors,
            scalars,
            memories,
            apart(bound.arrays, self.written),
        )


@dataclass(frozen=True)
class Prepared:
    """A call up to its arrays' addresses and its scalars' values. Threads may run it at once.

    values: the parameters, with room in the slots that arrays, descriptors, scalars and scratch name.
    apart: see `arguments.apart`. idle: memory for launches, as many as there were at a time.
    """

    launcher: Launcher
    grid: tuple[int, int, int]
    block: Struct
    offsets: Sequence[int]
    values: list[Any]
    arrays: Sequence[tuple[str, int]]
    descriptors: Sequence[tuple[str, int, cuda_launch.TensorMap]]
    scalars: Sequence[tuple[str, int, Callable[[Any], Any]]]
    scratch: Sequence[tuple[str, int, int]]
    apart: Sequence[Pair]
    idle: list[cuda_launch.Launch] = field(default_factory=list)

    def run(
        self, addresses: Mapping[str, int], scalars: Mapping[str, Any], stream: int | None = None
    ) -> None:
        """Starts the kernel on arrays at these addresses and returns; a scalar that is left out keeps its value.

        stream: a CUDA stream; without one, the current stream. The arrays must live until the kernel is done.
        Raises ArgumentError where an array that is written overlaps another, and LaunchError.
        """
        if self.apart:
            check_apart(self.apart, addresses)
        if 0 in self.grid:
            return
        values = self.values.copy()
        for name, slot in self.arrays:
            values[slot] = addresses[name]
        for name, slot, map_ in self.descriptors:
            values[slot] = cuda_launch.encode(map_, addresses[name], self.launcher.context)
        for name, slot, encode in self.scalars:
            if name in scalars:
                values[slot] = encode(scalars[name])
        launcher = self.launcher
        if stream is None:
            stream = streams.current_stream(launcher.device)
        for kind, slot, size in self.scratch:
            values[slot] = scratch(kind, size, launcher.device, stream)
        try:
            launch = self.idle.pop()
        except IndexError:
            launch = self.new_launch()
        result = launch.start(launcher.library, launcher.function, launcher.context, stream, values)
        self.idle.append(launch)
        if result:
            cuda.check(result, f"the kernel '{launcher.manifest['kernel']}' cannot be launched")
        if launcher.waits:
            self._wait(stream)

    def new_launch(self) -> cuda_launch.Launch:
        manifest = self.launcher.manifest
        return cuda_launch.Launch(
            self.block,
            self.offsets,
            self.grid,
            manifest["threads"],
            manifest["cluster"],
            manifest["shared_memory"],
        )

    def _wait(self, stream: int) -> None:
        """Waits for the kernel, and says if it failed; not while a graph is captured, when it does not run."""
        launcher = self.launcher
        with cuda.using_device(launcher.device):
            result = 0 if cuda.capture_of(stream) else cuda.synchronize(stream)
        if result:
            name = launcher.manifest["kernel"]
            raise cuda.broken(
                f"the kernel '{name}'",
                result,
                f"{name}.sanitize(…) runs it on the host and looks for mistakes",
            )


@functools.cache
def _waits() -> bool:
    """Whether each launch is waited for, so that a kernel that fails is named."""
    return os.environ.get("MOSAIC_SYNC", "0") not in ("", "0")


def check_gpu(manifest: Mapping[str, Any], device: int) -> None:
    """Refuses code for another kind of GPU; raises LaunchError."""
    found = cuda.compute_capability(device)
    if not runs_on(manifest["target"], found):
        here = "a machine without NVIDIA GPU" if found is None else f"an sm{found[0]}{found[1]}"
        raise LaunchError(
            f"the kernel '{manifest['kernel']}' is compiled for {manifest['target']}, and GPU {device} is {here}",
            f"compile it for this GPU: --target sm{found[0]}{found[1]}" if found else "use its own machine",
        )


def runs_on(target: str, capability: tuple[int, int] | None) -> bool:
    """Whether a GPU runs code for a target.

    From sm90 on, code uses features of its own architecture (sm_90a) that no other one has; before, it runs on later GPUs of
    the same generation (CUDA C++ Programming Guide, binary compatibility).
    """
    if capability is None or not target.startswith("sm"):
        return False
    major, minor = divmod(int(target.removeprefix("sm")), 10)
    return capability == (major, minor) if major >= 9 else capability[0] == major and capability[1] >= minor


def grid_of(manifest: Mapping[str, Any], sizes: Mapping[str, int]) -> tuple[int, int, int]:
    """The number of programs in x, y and z; raises LaunchError."""
    try:
        grid = [max(0, evaluate(text, sizes)) for text in manifest["grid"]]
    except ZeroDivisionError:
        raise LaunchError(
            f"the grid ({', '.join(manifest['grid'])}) divides by zero for these sizes",
            "guard it with mc.maximum(…, 1)",
        ) from None
    x, y, z = itertools.islice(itertools.chain(grid, (1, 1)), 3)
    if x * manifest["cluster"] >= 2**31 or y > 65535 or z > 65535:
        raise LaunchError(
            f"the grid {(x, y, z)} is larger than a GPU takes (2147483647, 65535, 65535)",
            "put the largest dimension first",
        )
    return x, y, z


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


def tensor_map(parameter: Mapping[str, Any], info: ArrayInfo) -> cuda_launch.TensorMap:
    """The TMA descriptor that the manifest wants of an array.

    A tensor map has no empty dimension: for an empty array it is that of one element.
    """
    axes, size = parameter["axes"], int(info.dtype.bytes)
    sizes, strides = [1] * len(axes), [16] * len(axes)
    if 0 not in info.shape:
        sizes = [info.shape[a] for a in axes]
        # The stride of a dimension of one element is never used, but the driver wants a multiple of 16 bytes.
        strides = [info.strides[a] * size if info.shape[a] > 1 else 16 for a in axes]
    return cuda_launch.TensorMap(
        parameter["element_type"],
        tuple(sizes),
        tuple(strides),
        tuple(parameter["box"]),
        parameter["swizzle"],
    )


@functools.cache
def stand_in(device: int, written: bool) -> int:
    """The address of an element for an array that has none: zeros to read, or what may be written."""
    with cuda.using_device(device), cuda.outside_capture():
        return cuda.allocate_zeros(16)


_scratch: dict[tuple[str, int, int, int], tuple[int, int]] = {}


def scratch(kind: str, size: int, device: int, stream: int) -> int:
    """Device memory of at least `size` bytes for the scratch of a stream's kernels, which run one after the other.

    It grows, and lives as long as the process: kernels that still run may use what was given before. Kernels that are captured
    into a graph have their own, since a graph may run beside the stream.
    """
    with cuda.using_device(device):
        capture = cuda.capture_of(stream)  # then the stream has no number to ask for
        key = (kind, device, capture, 0 if capture else cuda.stream_number(stream))
        address, have = _scratch.get(key, (0, 0))
        if have < size:
            with cuda.outside_capture():
                address = cuda.allocate(size)
            _scratch[key] = (address, size)
    return address
