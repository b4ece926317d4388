"""Arrays of i4: kernels keep two elements in a byte, the first in its low half; NumPy's int4 has a byte for each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from mosaic_compile.errors import ArgumentError
from mosaic_compile.language.dtypes import i4

from .arguments import Bound
from .arrays import ArrayInfo


def unpack_i4(array: np.ndarray) -> np.ndarray:
    """Bytes of two 4-bit numbers, the low one first, as an array of i4 with twice as many columns."""
    signed = array.view(np.int8)
    low, high = (signed << 4).astype(np.int8) >> 4, signed >> 4
    return np.stack([low, high], -1).reshape(*array.shape[:-1], -1).astype(i4.numpy)


def pack_i4(elements: np.ndarray) -> np.ndarray:
    """The inverse of unpack_i4, as int8."""
    wide = elements.astype(np.int8)
    return ((wide[..., 0::2] & 15) | (wide[..., 1::2] << 4)).astype(np.int8)


def is_unpacked(info: ArrayInfo) -> bool:
    """Whether an array has a byte for each i4 element."""
    return info.dtype is i4 and isinstance(info.owner, np.ndarray) and info.owner.dtype == i4.numpy


@contextmanager
def packed(bound: Bound) -> Iterator[Bound]:
    """A call on packed copies of its unpacked arrays, which are brought up to date afterwards."""
    unpacked = {name: info for name, info in bound.arrays.items() if is_unpacked(info)}
    if not unpacked:
        yield bound
        return
    copies = {name: _packed_copy(info, name) for name, info in unpacked.items()}
    infos = {name: _info_of(copies[name], info) for name, info in unpacked.items()}
    yield replace(bound, arrays={**bound.arrays, **infos})
    for name, info in unpacked.items():
        if info.writable:
            info.owner[...] = unpack_i4(copies[name])


def _packed_copy(info: ArrayInfo, name: str) -> np.ndarray:
    if info.shape[-1] % 2:
        raise ArgumentError(
            f"'{name}' has rows of {info.shape[-1]} elements of i4, but two share a byte",
            "make the last dimension even",
        )
    return np.ascontiguousarray(pack_i4(info.owner))


def _info_of(copy: np.ndarray, info: ArrayInfo) -> ArrayInfo:
    strides = [s * 2 for s in copy.strides[:-1]]  # in elements
    return replace(info, address=copy.ctypes.data, strides=(*strides, 1), owner=copy)
