"""The CUDA driver, through ctypes: what is needed to find the GPU and launch a kernel."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from mosaic_compile.errors import LaunchError


@functools.cache
def driver() -> ctypes.CDLL | None:
    """The CUDA driver library, initialised; None where there is no NVIDIA GPU."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    if library.cuInit(0) != 0:
        return None
    count = ctypes.c_int()
    return library if library.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0 else None


COMPUTE_CAPABILITY_MAJOR, COMPUTE_CAPABILITY_MINOR, MULTIPROCESSOR_COUNT = 75, 76, 16


def device_attribute(attribute: int, device: int = 0) -> int:
    library = driver()
    assert library is not None
    value = ctypes.c_int()
    library.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
    return value.value


def compute_capability(device: int = 0) -> tuple[int, int] | None:
    """The GPU's compute capability, such as (9, 0); None where there is no NVIDIA GPU."""
    if driver() is None:
        return None
    return device_attribute(COMPUTE_CAPABILITY_MAJOR, device), device_attribute(
        COMPUTE_CAPABILITY_MINOR, device
    )


def _check(result: int, what: str) -> None:
    if result:
        library = driver()
        assert library is not None
        text = ctypes.c_char_p()
        library.cuGetErrorString(result, ctypes.byref(text))
        reason = text.value.decode() if text.value else f"error {result}"
        raise LaunchError(
            f"{what}: {reason}",
            "check the sizes, and that the GPU is free; an earlier kernel may have failed",
        )


_contexts: dict[int, ctypes.c_void_p] = {}


@contextmanager
def using_device(device: int) -> Iterator[None]:
    """Makes the device's primary context, which PyTorch and JAX use too, current in this thread, and restores the old.

    PyTorch takes the current context's device for its own current device.
    """
    library = driver()
    if library is None:
        raise LaunchError(
            "this machine has no NVIDIA GPU", "pass NumPy arrays: they run through the interpreter"
        )
    if device not in _contexts:
        handle, context = ctypes.c_int(), ctypes.c_void_p()
        _check(library.cuDeviceGet(ctypes.byref(handle), device), f"GPU {device} cannot be used")
        _check(
            library.cuDevicePrimaryCtxRetain(ctypes.byref(context), handle), f"GPU {device} cannot be used"
        )
        _contexts[device] = context
    before = ctypes.c_void_p()
    _check(library.cuCtxGetCurrent(ctypes.byref(before)), f"GPU {device} cannot be used")
    if before.value == _contexts[device].value:
        yield
        return
    _check(library.cuCtxSetCurrent(_contexts[device]), f"GPU {device} cannot be used")
    try:
        yield
    finally:
        library.cuCtxSetCurrent(before)


DEVICE_ORDINAL = 9  # CUpointer_attribute


def device_of(address: int) -> int:
    """The device that an address belongs to; 0 where the driver does not know it."""
    library = driver()
    device = ctypes.c_int()
    if library is None or library.cuPointerGetAttribute(
        ctypes.byref(device), DEVICE_ORDINAL, ctypes.c_uint64(address)
    ):
        return 0
    return device.value


MAX_DYNAMIC_SHARED_SIZE_BYTES, NON_PORTABLE_CLUSTER_SIZE_ALLOWED = 8, 14  # CUfunction_attribute
SHARED_WITHOUT_OPT_IN, PORTABLE_CLUSTER_SIZE = 48 * 1024, 8


def load_function(binary: bytes, entry: str, shared_memory: int, cluster: int) -> ctypes.c_void_p:
    """The kernel's function in the current context."""
    library = driver()
    assert library is not None
    module, function = ctypes.c_void_p(), ctypes.c_void_p()
    _check(
        library.cuModuleLoadData(ctypes.byref(module), binary),
        "the kernel's code cannot be loaded on this GPU",
    )
    _check(
        library.cuModuleGetFunction(ctypes.byref(function), module, entry.encode()),
        f"the code has no function '{entry}'",
    )
    if shared_memory > SHARED_WITHOUT_OPT_IN:
        _check(
            library.cuFuncSetAttribute(function, MAX_DYNAMIC_SHARED_SIZE_BYTES, shared_memory),
            f"this GPU cannot give a program {shared_memory} bytes of shared memory",
        )
    if cluster > PORTABLE_CLUSTER_SIZE:
        _check(
            library.cuFuncSetAttribute(function, NON_PORTABLE_CLUSTER_SIZE_ALLOWED, 1),
            f"this GPU has no clusters of {cluster} thread blocks",
        )
    return function


class _LaunchAttribute(ctypes.Structure):
    """CUlaunchAttribute: its value, a union of 64 bytes, starts at byte 8."""

    _fields_ = (("id", ctypes.c_int), ("pad", ctypes.c_char * 4), ("value", ctypes.c_uint32 * 16))


class _LaunchConfig(ctypes.Structure):
    """CUlaunchConfig."""

    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared", ctypes.c_uint),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.POINTER(_LaunchAttribute)),
        ("attribute_count", ctypes.c_uint),
    )


CLUSTER_DIMENSION = 4  # CUlaunchAttributeID


def launch(
    function: ctypes.c_void_p,
    grid: Sequence[int],
    threads: int,
    cluster: int,
    shared: int,
    stream: int,
    parameters: Sequence[Any],
) -> None:
    """cuLaunchKernelEx: `grid` counts programs; a program of several thread blocks is a cluster."""
    library = driver()
    assert library is not None
    pointers = (ctypes.c_void_p * len(parameters))(*(ctypes.addressof(p) for p in parameters))
    config = _LaunchConfig((grid[0] * cluster, *grid[1:]), (threads, 1, 1), shared, stream)
    if cluster > 1:
        attribute = _LaunchAttribute(CLUSTER_DIMENSION)
        attribute.value[0], attribute.value[1], attribute.value[2] = cluster, 1, 1
        config.attributes, config.attribute_count = ctypes.pointer(attribute), 1
    _check(
        library.cuLaunchKernelEx(ctypes.byref(config), function, pointers, None),
        "the kernel cannot be launched",
    )


def allocate(size: int) -> int:
    library = driver()
    assert library is not None
    address = ctypes.c_uint64()
    _check(
        library.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(size)),
        f"{size} bytes of GPU memory cannot be had",
    )
    return address.value


def free(address: int) -> None:
    """Gives memory of `allocate` back, once the work that uses it is done."""
    library = driver()
    assert library is not None
    _check(library.cuMemFree_v2(ctypes.c_uint64(address)), "GPU memory cannot be freed")


def allocate_zeros(size: int) -> int:
    library = driver()
    assert library is not None
    address = allocate(size)
    _check(
        library.cuMemsetD8_v2(ctypes.c_uint64(address), ctypes.c_ubyte(0), ctypes.c_size_t(size)),
        "GPU memory cannot be cleared",
    )
    return address


def download(device: int, low: int, high: int) -> np.ndarray:
    """The bytes at these addresses of a GPU, once all its work is done."""
    memory = np.empty(high - low, np.uint8)
    with using_device(device):
        library = driver()
        assert library is not None
        _check(library.cuCtxSynchronize(), "an earlier kernel has failed")
        source, size = ctypes.c_uint64(low), ctypes.c_size_t(memory.size)
        if memory.size:
            _check(
                library.cuMemcpyDtoH_v2(ctypes.c_void_p(memory.ctypes.data), source, size),
                "an array cannot be copied from the GPU",
            )
    return memory


def upload(device: int, address: int, memory: np.ndarray) -> None:
    """Writes bytes to an address of a GPU."""
    if not memory.size:
        return
    with using_device(device):
        library = driver()
        assert library is not None
        source, size = ctypes.c_void_p(memory.ctypes.data), ctypes.c_size_t(memory.size)
        _check(
            library.cuMemcpyHtoD_v2(ctypes.c_uint64(address), source, size),
            "an array cannot be copied to the GPU",
        )


TENSOR_MAP_BYTES, TENSOR_MAP_ALIGN = 128, 64
L2_PROMOTION_128B = 2


def encode_tensor_map(
    address: int,
    element_type: int,
    sizes: Sequence[int],
    byte_strides: Sequence[int],
    box: Sequence[int],
    swizzle: int,
) -> Any:
    """A CUtensorMap for a tiled copy: no interleaving, zeros outside the array.

    Dimensions come outermost first, as everywhere here; the driver counts from the innermost.
    """
    library = driver()
    assert library is not None
    rank = len(sizes)
    storage = (ctypes.c_uint8 * (TENSOR_MAP_BYTES + TENSOR_MAP_ALIGN))()
    offset = -ctypes.addressof(storage) % TENSOR_MAP_ALIGN
    tensor_map = (ctypes.c_uint8 * TENSOR_MAP_BYTES).from_buffer(storage, offset)
    result = library.cuTensorMapEncodeTiled(
        ctypes.byref(tensor_map),
        ctypes.c_int(element_type),
        ctypes.c_uint32(rank),
        ctypes.c_void_p(address),
        (ctypes.c_uint64 * rank)(*reversed(sizes)),
        (ctypes.c_uint64 * max(rank - 1, 1))(*list(reversed(byte_strides))[1:]),
        (ctypes.c_uint32 * rank)(*reversed(box)),
        (ctypes.c_uint32 * rank)(*[1] * rank),
        ctypes.c_int(0),
        ctypes.c_int(swizzle),
        ctypes.c_int(L2_PROMOTION_128B),
        ctypes.c_int(0),
    )
    _check(
        result,
        f"no TMA descriptor fits an array of sizes {tuple(sizes)} and byte strides {tuple(byte_strides)}",
    )
    return tensor_map
