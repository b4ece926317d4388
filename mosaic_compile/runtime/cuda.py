"""The CUDA driver, through ctypes: its errors in words, devices, contexts, memory, streams.

What a launch needs beside these is in cuda_launch.py. Functions are those of the CUDA driver API (CUDA 12 and newer).
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from mosaic_compile.errors import LaunchError


@functools.cache
def driver() -> Any:
    """The CUDA driver library, initialised; None where there is no NVIDIA GPU."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    if library.cuInit(0) != 0:
        return None
    count = ctypes.c_int()
    if library.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return None
    # Called at every launch, with addresses as Python numbers.
    library.cuLaunchKernelEx.argtypes = [ctypes.c_void_p] * 4
    library.cuCtxGetCurrent.argtypes = [ctypes.c_void_p]
    return library


def require_driver() -> Any:
    """The driver library; raises LaunchError where there is none."""
    library = driver()
    if library is None:
        raise LaunchError(
            "this machine has no NVIDIA GPU", "move the arrays to the host: kernels run on CPUs too"
        )
    return library


def address_of(function: str) -> int:
    """Where a function of the driver lies, for machine code that calls it."""
    return ctypes.cast(getattr(driver(), function), ctypes.c_void_p).value or 0


# Errors.

OUT_OF_MEMORY, NOT_INITIALIZED, INVALID_IMAGE, NO_BINARY_FOR_GPU, LAUNCH_OUT_OF_RESOURCES = (
    2,
    3,
    200,
    209,
    701,
)
CAPTURE = range(900, 908)  # of a stream that is being captured into a graph
# After these, says cuda.h, the process must end before the GPU can be used again.
FATAL = frozenset({214, 220, 700, 702, 710, 714, 715, 716, 717, 718, 719, 721})

_ADVICE = {
    OUT_OF_MEMORY: "free some: torch.cuda.empty_cache() gives back what PyTorch keeps for itself",
    NOT_INITIALIZED: "CUDA does not work in a forked process: start it with multiprocessing's 'spawn'",
    INVALID_IMAGE: "compile the kernel for this GPU",
    NO_BINARY_FOR_GPU: "compile the kernel for this GPU",
    LAUNCH_OUT_OF_RESOURCES: "use fewer warps or smaller tiles, or limit registers: num_warps=4, maxnreg=128",
    **dict.fromkeys(CAPTURE, "call the kernel once on arrays like these before the graph is captured"),
}


def words(code: int) -> str:
    """What the driver says of an error, and the error's name."""
    library = driver()
    name, text = ctypes.c_char_p(), ctypes.c_char_p()
    library.cuGetErrorName(code, ctypes.byref(name))
    library.cuGetErrorString(code, ctypes.byref(text))
    if not name.value or not text.value:
        return f"error {code}"
    return f"{text.value.decode()} ({name.value.decode()})"


def check(result: int, what: str) -> None:
    """Raises LaunchError where a function of the driver has failed. `what` could not be done."""
    if result in FATAL:
        raise broken("an earlier kernel", result, "run with MOSAIC_SYNC=1 to see which kernel it is")
    if result:
        raise LaunchError(f"{what}: {words(result)}", _ADVICE.get(result, "check the arguments' sizes"))


def broken(kernel: str, code: int, help: str) -> LaunchError:
    """The error for a kernel that failed while it ran."""
    return LaunchError(f"{kernel} has failed: {words(code)}; this process can no longer use the GPU", help)


# Devices and contexts.

COMPUTE_CAPABILITY_MAJOR, COMPUTE_CAPABILITY_MINOR, MULTIPROCESSOR_COUNT = 75, 76, 16


def device_count() -> int:
    """How many NVIDIA GPUs this process sees."""
    library = driver()
    if library is None:
        return 0
    count = ctypes.c_int()
    check(library.cuDeviceGetCount(ctypes.byref(count)), "the GPUs cannot be counted")
    return count.value


def device_attribute(attribute: int, device: int = 0) -> int:
    value = ctypes.c_int()
    result = driver().cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
    check(result, f"GPU {device} cannot be used")
    return value.value


def compute_capability(device: int = 0) -> tuple[int, int] | None:
    """The GPU's compute capability, such as (9, 0); None where there is no NVIDIA GPU."""
    if driver() is None:
        return None
    major = device_attribute(COMPUTE_CAPABILITY_MAJOR, device)
    return major, device_attribute(COMPUTE_CAPABILITY_MINOR, device)


_contexts: dict[int, int] = {}


def context(device: int) -> int:
    """The device's primary context, which PyTorch and JAX use too; raises LaunchError."""
    library = require_driver()
    if device not in _contexts:
        handle, found = ctypes.c_int(), ctypes.c_void_p()
        what = f"GPU {device} cannot be used"
        check(library.cuDeviceGet(ctypes.byref(handle), device), what)
        check(library.cuDevicePrimaryCtxRetain(ctypes.byref(found), handle), what)
        _contexts[device] = found.value or 0
    return _contexts[device]


@contextmanager
def using_device(device: int) -> Iterator[None]:
    """Makes the device's context current in this thread, and restores the old one."""
    with using_context(context(device)):
        yield


@contextmanager
def using_context(wanted: int) -> Iterator[None]:
    """Makes a context current in this thread, and restores the old one.

    PyTorch takes the current context's device for its own current device.
    """
    library, before = driver(), ctypes.c_void_p()
    what = "the GPU cannot be used"
    check(library.cuCtxGetCurrent(ctypes.addressof(before)), what)
    if before.value == wanted:
        yield
        return
    check(library.cuCtxSetCurrent(ctypes.c_void_p(wanted)), what)
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


# Memory.


def allocate(size: int) -> int:
    address = ctypes.c_uint64()
    result = driver().cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(size))
    check(result, f"{size} bytes of GPU memory cannot be had")
    return address.value


def free(address: int) -> None:
    """Gives memory of `allocate` back, once the work that uses it is done."""
    check(driver().cuMemFree_v2(ctypes.c_uint64(address)), "GPU memory cannot be freed")


NON_BLOCKING = 1  # a stream that does not wait for the default stream


def allocate_zeros(size: int) -> int:
    """Memory of zeros, in any thread at any time: no other stream is waited for."""
    address, stream, library = allocate(size), ctypes.c_void_p(), driver()
    what = "GPU memory cannot be cleared"
    check(library.cuStreamCreate(ctypes.byref(stream), NON_BLOCKING), what)
    place, zero, count = ctypes.c_uint64(address), ctypes.c_ubyte(0), ctypes.c_size_t(size)
    check(library.cuMemsetD8Async(place, zero, count, stream), what)
    check(library.cuStreamSynchronize(stream), what)
    check(library.cuStreamDestroy_v2(stream), what)
    return address


def download(device: int, low: int, high: int) -> np.ndarray:
    """The bytes at these addresses of a GPU, once all its work is done."""
    memory = np.empty(high - low, np.uint8)
    with using_device(device):
        library = driver()
        check(library.cuCtxSynchronize(), "the GPU's work cannot be waited for")
        source, size = ctypes.c_uint64(low), ctypes.c_size_t(memory.size)
        if memory.size:
            result = library.cuMemcpyDtoH_v2(ctypes.c_void_p(memory.ctypes.data), source, size)
            check(result, "an array cannot be copied from the GPU")
    return memory


def upload(device: int, address: int, memory: np.ndarray) -> None:
    """Writes bytes to an address of a GPU."""
    if not memory.size:
        return
    with using_device(device):
        source, size = ctypes.c_void_p(memory.ctypes.data), ctypes.c_size_t(memory.size)
        result = driver().cuMemcpyHtoD_v2(ctypes.c_uint64(address), source, size)
        check(result, "an array cannot be copied to the GPU")


# Streams, by their handles; 0 is the default stream.

_RELAXED = 2  # CUstreamCaptureMode


@contextmanager
def outside_capture() -> Iterator[None]:
    """Allows this thread to load code and to allocate while a stream is captured into a graph."""
    library, mode = driver(), ctypes.c_int(_RELAXED)
    what = "the mode of graph capture cannot be set"
    check(library.cuThreadExchangeStreamCaptureMode(ctypes.byref(mode)), what)
    try:
        yield
    finally:
        library.cuThreadExchangeStreamCaptureMode(ctypes.byref(mode))


def capture_of(stream: int) -> int:
    """A number for the capture into a graph that the stream is in; 0 where it is in none."""
    status, number = ctypes.c_int(), ctypes.c_uint64()
    result = driver().cuStreamGetCaptureInfo_v2(
        ctypes.c_void_p(stream), ctypes.byref(status), ctypes.byref(number), None, None, None
    )
    check(result, "the stream cannot be asked whether it is captured")
    return number.value if status.value else 0


def stream_number(stream: int) -> int:
    """A number that no other stream of this process has or will have, unlike its handle."""
    number = ctypes.c_uint64()
    check(driver().cuStreamGetId(ctypes.c_void_p(stream), ctypes.byref(number)), "the stream is not valid")
    return number.value


def synchronize(stream: int) -> int:
    """Waits until a stream's work is done; gives the driver's error code of what failed in it, 0 where nothing did."""
    return int(driver().cuStreamSynchronize(ctypes.c_void_p(stream)))


_NO_TIMING = 2  # CUevent_flags


def order(first: int, second: int) -> None:
    """Makes what the second stream is given from now on wait for what the first has been given."""
    library, event = driver(), ctypes.c_void_p()
    what = "two streams cannot be brought into an order"
    check(library.cuEventCreate(ctypes.byref(event), _NO_TIMING), what)
    try:
        check(library.cuEventRecord(event, ctypes.c_void_p(first)), what)
        check(library.cuStreamWaitEvent(ctypes.c_void_p(second), event, 0), what)
    finally:
        library.cuEventDestroy_v2(event)
