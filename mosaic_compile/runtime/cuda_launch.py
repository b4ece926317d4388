"""What a launch hands to the CUDA driver: a function, its configuration, its parameters, TMA descriptors."""

from __future__ import annotations

import ctypes
import functools
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from . import cuda

# CUfunction_attribute
_MAX_THREADS, _STATIC_SHARED_BYTES, _LOCAL_BYTES, _REGISTERS = 0, 1, 3, 4
_MAX_DYNAMIC_SHARED_BYTES, _NON_PORTABLE_CLUSTER_SIZE_ALLOWED = 8, 14
SHARED_WITHOUT_OPT_IN, PORTABLE_CLUSTER_SIZE = 48 * 1024, 8


def load_function(binary: bytes, entry: str, shared_memory: int, cluster: int) -> ctypes.c_void_p:
    """The kernel's function in the current context, also while a graph is captured; raises LaunchError."""
    library = cuda.driver()
    module, function = ctypes.c_void_p(), ctypes.c_void_p()
    with cuda.outside_capture():
        result = library.cuModuleLoadData(ctypes.byref(module), binary)
        cuda.check(result, "the kernel's code cannot be loaded on this GPU")
        result = library.cuModuleGetFunction(ctypes.byref(function), module, entry.encode())
        cuda.check(result, f"the code has no function '{entry}'")
        if hasattr(library, "cuFuncLoad"):  # CUDA 12.4: what is loaded lazily would come at the first launch
            cuda.check(library.cuFuncLoad(function), "the kernel's code cannot be loaded on this GPU")
        if shared_memory > SHARED_WITHOUT_OPT_IN:
            result = library.cuFuncSetAttribute(function, _MAX_DYNAMIC_SHARED_BYTES, shared_memory)
            cuda.check(result, f"this GPU cannot give a program {shared_memory} bytes of shared memory")
        if cluster > PORTABLE_CLUSTER_SIZE:
            result = library.cuFuncSetAttribute(function, _NON_PORTABLE_CLUSTER_SIZE_ALLOWED, 1)
            cuda.check(result, f"this GPU has no clusters of {cluster} thread blocks")
    return function


@dataclass(frozen=True)
class Resources:
    """What a loaded kernel takes of a GPU.

    registers: of a thread. local_memory: bytes of a thread, for what registers do not hold. shared_memory: bytes of a
    thread block. max_threads: in a thread block, with these registers.
    """

    registers: int
    local_memory: int
    shared_memory: int
    max_threads: int


def resources(function: ctypes.c_void_p, dynamic_shared_memory: int) -> Resources:
    def attribute(number: int) -> int:
        value = ctypes.c_int()
        result = cuda.driver().cuFuncGetAttribute(ctypes.byref(value), number, function)
        cuda.check(result, "the kernel's resources cannot be read")
        return value.value

    shared = attribute(_STATIC_SHARED_BYTES) + dynamic_shared_memory
    return Resources(attribute(_REGISTERS), attribute(_LOCAL_BYTES), shared, attribute(_MAX_THREADS))


class LaunchAttribute(ctypes.Structure):
    """CUlaunchAttribute: its value, a union of 64 bytes, starts at byte 8."""

    _fields_ = (("id", ctypes.c_int), ("pad", ctypes.c_char * 4), ("value", ctypes.c_uint32 * 16))


class LaunchConfig(ctypes.Structure):
    """CUlaunchConfig."""

    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared", ctypes.c_uint),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.POINTER(LaunchAttribute)),
        ("attribute_count", ctypes.c_uint),
    )


_CLUSTER_DIMENSION = 4  # CUlaunchAttributeID
MAP_BYTES, MAP_ALIGN = 128, 64  # of a CUtensorMap


def parameter_block(codes: Sequence[str]) -> tuple[struct.Struct, list[int]]:
    """Where parameters lie that `struct` packs by these codes, each aligned: all as one struct, and their offsets.

    A code of bytes ("128s") is a CUtensorMap.
    """
    text, offset, offsets = "<", 0, []
    for code in codes:
        size = struct.calcsize(f"<{code}")
        padding = -offset % (MAP_ALIGN if code.endswith("s") else size)
        text += f"{padding}x{code}"
        offsets.append(offset + padding)
        offset += padding + size
    return struct.Struct(text), offsets


class Launch:
    """The memory that the driver reads at a launch: configuration and parameters. For one launch at a time.

    grid: programs; a program of several thread blocks is a cluster.
    """

    def __init__(
        self,
        parameters: struct.Struct,
        offsets: Sequence[int],
        grid: Sequence[int],
        threads: int,
        cluster: int,
        shared: int,
    ):
        self._memory = (ctypes.c_uint8 * (parameters.size + MAP_ALIGN))()
        self._start = -ctypes.addressof(self._memory) % MAP_ALIGN
        start = ctypes.addressof(self._memory) + self._start
        self._pointers = (ctypes.c_void_p * max(len(offsets), 1))(*(start + offset for offset in offsets))
        self.config = LaunchConfig((grid[0] * cluster, *grid[1:]), (threads, 1, 1), shared)
        if cluster > 1:
            attribute = LaunchAttribute(_CLUSTER_DIMENSION)
            attribute.value[0], attribute.value[1], attribute.value[2] = cluster, 1, 1
            self.config.attributes, self.config.attribute_count = ctypes.pointer(attribute), 1
        self._current = ctypes.c_void_p()
        self._pack = parameters.pack_into
        self._addresses = tuple(map(ctypes.addressof, (self.config, self._pointers, self._current)))

    def start(self, library: Any, function: int, context: int, stream: int, values: Sequence[Any]) -> int:
        """Starts the function in a context and gives the driver's error code, 0 where there is none."""
        self._pack(self._memory, self._start, *values)
        self.config.stream = stream
        config, pointers, current = self._addresses
        if library.cuCtxGetCurrent(current) or self._current.value != context:
            with cuda.using_context(context):
                return int(library.cuLaunchKernelEx(config, function, pointers, None))
        return library.cuLaunchKernelEx(config, function, pointers, None)  # type: ignore[no-any-return]


class Encoding(NamedTuple):
    """What all tensor maps have in common: CUtensorMapInterleave, …L2promotion (of 128 bytes), …FloatOOBfill (zeros)."""

    interleave: int
    l2_promotion: int
    fill: int


ENCODING = Encoding(0, 2, 0)


@dataclass(frozen=True, eq=False)
class TensorMap:
    """A TMA descriptor but for its address; dimensions come outermost first, as everywhere here."""

    element_type: int
    sizes: tuple[int, ...]
    byte_strides: tuple[int, ...]
    box: tuple[int, ...]
    swizzle: int

    @property
    def lists(self) -> tuple[Any, Any, Any, Any]:
        """Sizes, strides, box and steps between elements for the driver.

        It counts dimensions from the innermost, whose stride it takes for granted.
        """
        rank = len(self.sizes)
        sizes = (ctypes.c_uint64 * rank)(*reversed(self.sizes))
        strides = (ctypes.c_uint64 * max(rank - 1, 1))(*list(reversed(self.byte_strides))[1:])
        box = (ctypes.c_uint32 * rank)(*reversed(self.box))
        return sizes, strides, box, (ctypes.c_uint32 * rank)(*[1] * rank)


@functools.lru_cache(maxsize=4096)
def encode(tensor_map: TensorMap, address: int, context: int) -> bytes:
    """A CUtensorMap for a tiled copy: no interleaving, zeros outside the array; raises LaunchError."""
    storage = (ctypes.c_uint8 * (MAP_BYTES + MAP_ALIGN))()
    offset = -ctypes.addressof(storage) % MAP_ALIGN
    rank = len(tensor_map.sizes)
    with cuda.using_context(context):
        result = cuda.driver().cuTensorMapEncodeTiled(
            ctypes.c_void_p(ctypes.addressof(storage) + offset),
            ctypes.c_int(tensor_map.element_type),
            ctypes.c_uint32(rank),
            ctypes.c_void_p(address),
            *tensor_map.lists,
            ctypes.c_int(ENCODING.interleave),
            ctypes.c_int(tensor_map.swizzle),
            ctypes.c_int(ENCODING.l2_promotion),
            ctypes.c_int(ENCODING.fill),
        )
    cuda.check(
        result,
        f"no TMA descriptor fits an array of sizes {tensor_map.sizes} and byte strides {tensor_map.byte_strides}",
    )
    return bytes(storage[offset : offset + MAP_BYTES])
