"""The CUDA driver, through ctypes: what is needed to find the GPU and launch a kernel."""

from __future__ import annotations

import ctypes
import functools


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
    return device_attribute(COMPUTE_CAPABILITY_MAJOR, device), device_attribute(COMPUTE_CAPABILITY_MINOR, device)
