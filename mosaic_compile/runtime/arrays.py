"""Arrays of other libraries: where they lie, what is in them. No data is copied.

NumPy arrays, PyTorch tensors, and whatever speaks DLPack (https://dmlc.github.io/dlpack/latest/c_api.html) or the CUDA
array interface (version 3), JAX and CuPy among them.
"""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from mosaic_compile.errors import ArgumentError
from mosaic_compile.language.dtypes import DTYPES, DType, i4

from . import cuda, streams

HOST, CUDA = "cpu", "cuda"


@dataclass(frozen=True)
class ArrayInfo:
    """An array's memory: address, sizes, strides in elements. `owner` keeps it alive.

    stream: the CUDA stream that computes it, where the array says so.
    """

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: DType
    device: str  # "cpu" or "cuda"
    device_index: int
    writable: bool
    owner: Any
    stream: int | None = None

    @property
    def extent(self) -> tuple[int, int]:
        """The addresses of the first byte and of the one behind the last."""
        if 0 in self.shape:
            return self.address, self.address
        below = sum((n - 1) * s for n, s in zip(self.shape, self.strides) if s < 0)
        above = sum((n - 1) * s for n, s in zip(self.shape, self.strides) if s > 0)
        return self.address + int(below * self.dtype.bytes), self.address + math.ceil(
            (above + 1) * self.dtype.bytes
        )


_BY_NUMPY = {d.numpy: d for d in DTYPES.values()}
_BY_TORCH = {
    "float64": "f64", "float32": "f32", "float16": "f16", "bfloat16": "bf16", "float8_e4m3fn": "f8e4m3", "float8_e5m2": "f8e5m2",
    "int64": "i64", "int32": "i32", "int16": "i16", "int8": "i8", "uint8": "u8", "uint32": "u32", "bool": "bool",
}  # fmt: skip

NUMPY, TORCH, OTHER = "numpy", "torch", "other"


def library_of(value: Any) -> str:
    """Whose array a value is: NumPy's, PyTorch's (subclasses count), or another's."""
    modules = {base.__module__.partition(".")[0] for base in type(value).__mro__}
    return NUMPY if isinstance(value, np.ndarray) else TORCH if "torch" in modules else OTHER


def is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) or any(
        hasattr(value, name) for name in ("__dlpack__", "__cuda_array_interface__")
    )


def describe(value: Any, name: str) -> ArrayInfo:
    """What is known of an array argument; raises ArgumentError where it is none or its element type is unknown."""
    library = library_of(value)
    if library is NUMPY:
        return _from_numpy(value, name)
    if library is TORCH:
        return _from_torch(value, name)
    if hasattr(value, "__cuda_array_interface__"):
        return _from_cuda_interface(value, name)
    if hasattr(value, "__dlpack__"):
        return _from_dlpack(value, name)
    raise ArgumentError(
        f"'{name}' takes an array, not {type(value).__name__} {value!r}",
        "pass a NumPy array, a PyTorch tensor or a JAX array",
    )


def _unknown_type(name: str, dtype: Any) -> ArgumentError:
    return ArgumentError(
        f"'{name}' has elements of type {dtype}, which kernels do not have",
        f"convert it to one of {', '.join(DTYPES)}",
    )


def _from_numpy(value: np.ndarray, name: str) -> ArrayInfo:
    dtype = _BY_NUMPY.get(value.dtype)
    if dtype is None:
        raise _unknown_type(name, value.dtype)
    if any(s % value.itemsize for s in value.strides):
        raise ArgumentError(
            f"'{name}' has strides of {value.strides} bytes, not whole elements",
            "pass a copy: np.ascontiguousarray(…)",
        )
    strides = tuple(s // value.itemsize for s in value.strides)
    return ArrayInfo(value.ctypes.data, value.shape, strides, dtype, HOST, 0, value.flags.writeable, value)


def _from_torch(value: Any, name: str) -> ArrayInfo:
    if not hasattr(value, "data_ptr"):  # torch.dtype, say
        raise ArgumentError(f"'{name}' takes an array, not {value!r}", "pass a tensor")
    found = _BY_TORCH.get(str(value.dtype).removeprefix("torch."))
    if found is None:
        raise _unknown_type(name, value.dtype)
    if value.device.type not in (HOST, CUDA):
        raise ArgumentError(
            f"'{name}' is on the device '{value.device}'",
            "kernels run on CUDA tensors and on CPU tensors",
        )
    if value.is_neg():
        raise ArgumentError(
            f"'{name}' is a view whose elements are still to be negated", f"pass {name}.resolve_neg()"
        )
    try:
        address, strides = value.data_ptr(), tuple(value.stride())
    except RuntimeError:
        address, strides = 0, ()
    if not address and value.numel():  # sparse, fake, distributed
        raise ArgumentError(
            f"'{name}' is a {type(value).__name__} of layout {value.layout}, without memory of its own",
            "pass a plain tensor; torch.compile takes kernels that are torch.library ops",
        )
    index = value.device.index or 0
    return ArrayInfo(
        address, tuple(value.shape), strides, DTYPES[found], value.device.type, index, True, value
    )


def _from_cuda_interface(value: Any, name: str) -> ArrayInfo:
    interface = value.__cuda_array_interface__
    numpy_type = np.dtype(interface["typestr"])
    dtype = _BY_NUMPY.get(numpy_type)
    if dtype is None:
        raise _unknown_type(name, numpy_type)
    if interface.get("mask") is not None:
        raise ArgumentError(f"'{name}' has a mask, which kernels do not look at", "pass an array without one")
    shape = tuple(interface["shape"])
    byte_strides = interface.get("strides") or row_major_strides(shape, numpy_type.itemsize)
    if any(s % numpy_type.itemsize for s in byte_strides):
        raise ArgumentError(
            f"'{name}' has strides of {tuple(byte_strides)} bytes, not whole elements", "pass a copy"
        )
    address, read_only = interface["data"]
    strides = tuple(s // numpy_type.itemsize for s in byte_strides)
    device, stream = cuda.device_of(address), interface.get("stream")
    if stream == _CUDA_LEGACY_STREAM:
        stream = streams.DEFAULT
    return ArrayInfo(address, shape, strides, dtype, CUDA, device, not read_only, value, stream)


_CUDA_LEGACY_STREAM = 1  # the default stream's number where 0 would mean nothing


def row_major_strides(shape: tuple[int, ...], unit: int = 1) -> tuple[int, ...]:
    strides = [unit]
    for size in reversed(shape[1:]):
        strides.insert(0, strides[0] * max(size, 1))
    return tuple(strides[: len(shape)])


# DLPack, read through ctypes: NumPy's own reader knows neither bf16 nor CUDA.


class DLDevice(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int32), ("index", ctypes.c_int32))


class DLDataType(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class DLTensor(ctypes.Structure):
    """With which a DLManagedTensor starts."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", DLDevice),
        ("ndim", ctypes.c_int32),
        ("dtype", DLDataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Versioned(ctypes.Structure):
    """DLManagedTensorVersioned, of DLPack 1.0."""

    _fields_ = (
        ("version", ctypes.c_uint32 * 2),
        ("manager", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", DLTensor),
    )


_READ_ONLY = 1  # of the flags

_INT, _UINT, _FLOAT, _BFLOAT, _BOOL, _F8E4M3FN, _F8E5M2 = 0, 1, 2, 4, 6, 10, 12
_BY_DLPACK = {
    (_INT, 8): "i8", (_INT, 16): "i16", (_INT, 32): "i32", (_INT, 64): "i64", (_UINT, 8): "u8", (_UINT, 32): "u32",
    (_FLOAT, 16): "f16", (_FLOAT, 32): "f32", (_FLOAT, 64): "f64", (_BFLOAT, 16): "bf16", (_BOOL, 8): "bool",
    (_F8E4M3FN, 8): "f8e4m3", (_F8E5M2, 8): "f8e5m2",
}  # fmt: skip
_DLPACK_CPU, _DLPACK_CUDA, _DLPACK_CUDA_HOST, _DLPACK_CUDA_MANAGED = 1, 2, 3, 13
_DLPACK_DEVICES = {
    _DLPACK_CPU: HOST, _DLPACK_CUDA_HOST: HOST, _DLPACK_CUDA: CUDA, _DLPACK_CUDA_MANAGED: CUDA,
}  # fmt: skip


def _from_dlpack(value: Any, name: str) -> ArrayInfo:
    capsule = _capsule(value, name)
    tensor, writable = _content(capsule)
    found = _BY_DLPACK.get((tensor.dtype.code, tensor.dtype.bits))
    if found is None or tensor.dtype.lanes != 1:
        raise _unknown_type(name, f"DLPack code {tensor.dtype.code}, {tensor.dtype.bits} bits")
    device = _DLPACK_DEVICES.get(tensor.device.type)
    if device is None:
        raise ArgumentError(
            f"'{name}' is on a device that kernels do not run on (DLPack device {tensor.device.type})",
            "move it to a CUDA device or the CPU",
        )
    shape = tuple(tensor.shape[i] for i in range(tensor.ndim))
    strides = (
        tuple(tensor.strides[i] for i in range(tensor.ndim)) if tensor.strides else row_major_strides(shape)
    )
    if type(value).__module__.partition(".")[0] in ("jax", "jaxlib"):  # immutable, whatever the capsule says
        writable = False
    address = (tensor.data or 0) + tensor.byte_offset
    return ArrayInfo(
        address, shape, strides, DTYPES[found], device, tensor.device.index, writable, (value, capsule)
    )


def _capsule(value: Any, name: str) -> Any:
    """The array's DLPack capsule, in the newest version that it speaks; on a GPU for use on the current stream."""
    options: dict[str, Any] = {}
    kind, index = value.__dlpack_device__() if hasattr(value, "__dlpack_device__") else (_DLPACK_CPU, 0)
    if _DLPACK_DEVICES.get(kind) == CUDA:
        options["stream"] = streams.current_stream(index) or _CUDA_LEGACY_STREAM
    elif hasattr(value, "block_until_ready"):  # JAX computes on threads of its own
        value.block_until_ready()
    try:
        try:
            return value.__dlpack__(**options, max_version=(1, 0))
        except TypeError:  # from before DLPack 1.0
            return value.__dlpack__(**options)
    except BufferError as error:
        raise ArgumentError(f"'{name}' gives no access to its memory: {error}", "pass a copy") from None


def capsule_pointer(capsule: Any, name: bytes) -> int:
    """The address that a Python capsule of this name holds."""
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    address: int = get(capsule, name)
    return address


def _content(capsule: Any) -> tuple[DLTensor, bool]:
    """The tensor in a DLPack capsule, and whether it may be written."""
    is_valid = ctypes.pythonapi.PyCapsule_IsValid
    is_valid.restype, is_valid.argtypes = ctypes.c_int, (ctypes.py_object, ctypes.c_char_p)
    if is_valid(capsule, b"dltensor_versioned"):
        managed = _Versioned.from_address(capsule_pointer(capsule, b"dltensor_versioned"))
        return managed.tensor, not managed.flags & _READ_ONLY
    return DLTensor.from_address(capsule_pointer(capsule, b"dltensor")), True


def as_numpy(info: ArrayInfo, memory: np.ndarray | None = None) -> np.ndarray:
    """A NumPy array over an array's bytes: its own on the host, or a copy of its extent.

    Where two elements share a byte (i4 in arrays of bytes), it is the bytes' array.
    """
    if isinstance(info.owner, np.ndarray):
        return info.owner
    shape, strides, dtype = info.shape, info.strides, info.dtype.numpy
    if info.dtype is i4:
        shape, strides = (*shape[:-1], shape[-1] // 2), (*(s // 2 for s in strides[:-1]), strides[-1])
    low, high = info.extent
    if low == high:
        return np.empty(shape, dtype)
    if memory is None:
        memory = np.ctypeslib.as_array((ctypes.c_uint8 * (high - low)).from_address(low))
    byte_strides = tuple(s * dtype.itemsize for s in strides)
    return np.ndarray(shape, dtype, memory.data, info.address - low, byte_strides)
