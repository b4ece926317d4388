"""Scalar arguments as bytes: for each element type the code of Python's `struct`, and what turns a number into its value."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mosaic_compile.language.dtypes import DTYPES

_LARGEST = float(np.finfo(np.float32).max)


def single(value: float) -> float:
    """A number that fits f32; struct refuses those beyond its largest, which round to infinity."""
    if abs(value) <= _LARGEST or value != value:
        return value
    with np.errstate(over="ignore"):
        return float(np.float32(value))


def bits_of(dtype: str) -> Callable[[Any], int]:
    """What turns a number into the bits of an element type, rounded to nearest even."""
    type_ = DTYPES[dtype].numpy
    word = np.dtype(f"u{type_.itemsize}")

    def encode(value: Any) -> int:
        with np.errstate(over="ignore"):
            return int(np.asarray(value).astype(type_).view(word))

    return encode


_CODES: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "f64": ("d", float), "f32": ("f", single), "bool": ("?", bool),
    "i64": ("q", int), "i32": ("i", int), "i16": ("h", int), "i8": ("b", int), "u32": ("I", int), "u8": ("B", int),
}  # fmt: skip


@functools.cache
def code_of(dtype: str) -> tuple[str, Callable[[Any], Any]]:
    """How `struct` packs a scalar of this type, and what makes the value for it."""
    return _CODES.get(dtype) or ("H" if DTYPES[dtype].bits == 16 else "B", bits_of(dtype))
