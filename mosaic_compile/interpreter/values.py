"""What the interpreter computes with: NumPy types for IR types, Python values for attributes.

Integers of the IR have no sign: a value of type i8 is kept as int8, whatever the DSL calls it, and
operations that read it as unsigned reinterpret it. i1 is bool.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from mosaic_compile.language.dtypes import DTYPES, i4
from mosaic_compile.mlir import ir

NUMPY_DTYPES: dict[str, np.dtype[Any]] = {d.mlir: d.numpy for d in DTYPES.values() if d.kind != "uint"}
NUMPY_DTYPES["index"] = np.dtype(np.int64)


@dataclass(frozen=True)
class ValueType:
    """A type of the IR; `dtype` is that of the elements, None for types that are not numbers or tiles."""

    text: str
    dtype: Any  # an np.dtype
    shape: tuple[int, ...]


def value_type(type_: ir.Type) -> ValueType:
    if isinstance(type_, ir.RankedTensorType):
        element, shape = type_.element_type, tuple(type_.shape)
    else:
        element, shape = type_, ()
    return ValueType(str(type_), NUMPY_DTYPES.get(str(element)), shape)


def decode(attribute: ir.Attribute) -> Any:
    """An attribute as a Python value, a dense constant as an array; others stay attributes."""
    match attribute:
        case ir.DenseElementsAttr():
            return _dense(attribute)
        case ir.BoolAttr() | ir.IntegerAttr() | ir.FloatAttr() | ir.StringAttr() | ir.FlatSymbolRefAttr():
            return attribute.value
        case ir.UnitAttr():
            return True
        case ir.ArrayAttr():
            return tuple(decode(item) for item in attribute)
        case ir.DenseI64ArrayAttr() | ir.DenseI32ArrayAttr() | ir.DenseBoolArrayAttr():
            return tuple(attribute)
    return attribute


def _dense(attribute: ir.DenseElementsAttr) -> np.ndarray:
    type_ = value_type(attribute.type)
    if attribute.is_splat:
        return np.full(type_.shape, attribute.get_splat_value().value, type_.dtype)
    try:
        return np.array(attribute)
    except TypeError:  # bf16, fp8 and i4, of which MLIR hands out splats only
        return _printed(attribute, type_)


def _printed(attribute: ir.DenseElementsAttr, type_: ValueType) -> np.ndarray:
    """The elements from the attribute's text: one string of bytes where there are many, otherwise numbers and bits."""
    text = str(attribute).removeprefix("dense<").rpartition("> : ")[0]
    is_i4 = type_.dtype == i4.numpy
    if text.startswith('"0x'):
        raw = np.frombuffer(bytes.fromhex(text[3:-1]), np.int8)
        elements = (raw << 4 >> 4).astype(type_.dtype) if is_i4 else raw.view(type_.dtype)
    else:
        elements = np.array([_element(item, type_.dtype) for item in re.findall(r"[^\s,\[\]]+", text)])
    return elements.reshape(type_.shape)


def _element(text: str, dtype: np.dtype[Any]) -> Any:
    if text.startswith("0x"):
        return np.array(int(text, 16), f"u{dtype.itemsize}").view(dtype)[()]
    return dtype.type(float(text))


def unsigned(x: Any) -> Any:
    """The bits of a signed integer array or scalar read as unsigned; bool stays bool."""
    if x.dtype == bool:
        return x
    name = "uint4" if x.dtype.name == "int4" else f"u{x.dtype.name}"
    return np.asarray(x).view(name)[()]


def signed(x: Any, dtype: np.dtype[Any]) -> Any:
    """The bits of `x` read as `dtype`, of the same width."""
    return np.asarray(x).view(dtype)[()]


def declared(x: Any, dtype: str) -> Any:
    """A value as the kernel's text has it: integers of the DSL's unsigned types read as such."""
    return unsigned(x) if DTYPES[dtype].kind == "uint" else x
