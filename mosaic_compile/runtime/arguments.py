"""From a call's arguments to what is compiled and launched: names, sizes, layouts, constants."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mosaic_compile.errors import ArgumentError, MosaicError
from mosaic_compile.language.arrays import ArrayParam, ConstParam, ScalarParam
from mosaic_compile.language.dtypes import DType, DTypeVar, i4
from mosaic_compile.language.specialization import (
    ALIGNMENT,
    OPTIONS,
    Layout,
    Specialization,
    resolve_constants,
    resolve_dtypes,
)

from .arrays import HOST, ArrayInfo, describe, row_major_strides

if TYPE_CHECKING:
    from mosaic_compile.language.kernel import Kernel

    from .load import Loaded


@dataclass(frozen=True)
class Bound:
    """A call's arguments by name; `sizes` gives every dimension name its number."""

    arrays: Mapping[str, ArrayInfo]
    scalars: Mapping[str, int | float | bool]
    given: Mapping[str, Any]  # constants and compiler options
    sizes: Mapping[str, int]


def place_of(bound: Bound) -> tuple[str, int]:
    """Where a call's arrays are, which is one device: its kind and its number."""
    return next(((a.device, a.device_index) for a in bound.arrays.values()), (HOST, 0))


def bind(kernel: Kernel | Loaded, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Bound:
    """Matches a call with the kernel's signature; raises ArgumentError, placed at the kernel's definition."""
    try:
        return _bind(kernel, args, kwargs)
    except MosaicError as error:
        raise error.at((kernel.span,)) from None


def _bind(kernel: Kernel | Loaded, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Bound:
    constants = {c.name for c in kernel.signature.constants}
    own = {k: v for k, v in kwargs.items() if k not in OPTIONS}
    try:
        values = _signature(kernel.function).bind_partial(*args, **own).arguments
    except TypeError as error:
        raise ArgumentError(
            f"{kernel.name}: {error}", f"its form is {kernel.name}{_call_form(kernel)}"
        ) from None
    arrays: dict[str, ArrayInfo] = {}
    scalars: dict[str, Any] = {}
    for param in kernel.signature.params:
        if isinstance(param, ConstParam):
            continue
        value = values.get(param.name)
        if isinstance(param, ArrayParam):
            if value is None and param.spec.optional:
                continue
            if param.name not in values:
                raise ArgumentError(
                    f"{kernel.name}: the array '{param.name}' is missing",
                    f"its form is {kernel.name}{_call_form(kernel)}",
                )
            arrays[param.name] = _canonical(describe(value, param.name), param)
        else:
            if param.name not in values and param.default is None:
                raise ArgumentError(
                    f"{kernel.name}: the scalar '{param.name}' is missing",
                    f"its form is {kernel.name}{_call_form(kernel)}",
                )
            scalars[param.name] = check_scalar(param, values.get(param.name, param.default))
    given = {k: v for k, v in values.items() if k in constants} | {
        k: v for k, v in kwargs.items() if k in OPTIONS
    }
    sizes = _sizes(kernel, arrays)
    _check_arrays(kernel, arrays)
    return Bound(arrays, scalars, given, sizes)


_signature = functools.cache(inspect.signature)


def _call_form(kernel: Kernel | Loaded) -> str:
    """The parameters as a user would write them, the `*` before those that are passed by name included."""
    params = inspect.signature(kernel.function).parameters.values()
    plain = [p.replace(annotation=p.empty, default=p.empty) for p in params]
    return str(inspect.Signature(plain))


def check_scalar(param: ScalarParam, value: Any) -> Any:
    """A scalar argument as a Python number; raises ArgumentError where its type does not hold it."""
    if isinstance(value, np.generic) or type(value).__module__.partition(".")[0] == "torch":
        value = value.item()
    is_bool = isinstance(value, bool)
    dtype = param.dtype
    if not isinstance(value, bool | int | float):
        raise ArgumentError(
            f"'{param.name}' takes a number, not {type(value).__name__} {value!r}", "pass a Python number"
        )
    if isinstance(dtype, DType):
        if dtype.kind in ("int", "uint") and (
            is_bool or not float(value).is_integer() or not dtype.min <= value <= dtype.max
        ):
            raise ArgumentError(
                f"'{param.name}' is of type {dtype}, which does not hold {value!r}",
                f"pass a whole number from {dtype.min} to {dtype.max}",
            )
        if dtype.kind == "bool" and not is_bool:
            raise ArgumentError(f"'{param.name}' is True or False, not {value!r}", "pass a bool")
        return int(value) if dtype.is_integer else value
    return value


def _canonical(info: ArrayInfo, param: ArrayParam) -> ArrayInfo:
    """Sizes in elements of the parameter's type, and row-major strides where sizes of 0 or 1 leave them without meaning."""
    shape, strides = info.shape, info.strides
    if param.spec.dtype is i4 and info.dtype.name in ("i8", "u8") and shape:
        shape = (*shape[:-1], shape[-1] * 2)  # two elements a byte
        strides = (*(s * 2 for s in strides[:-1]), strides[-1])
        info = replace(info, shape=shape, strides=strides, dtype=i4)
    if len(shape) != len(param.spec.dims):
        count = len(param.spec.dims)
        raise ArgumentError(
            f"'{param.name}' is {param.spec!r} with {count} dimension{'s' * (count != 1)}, but the array has the shape {shape}",
            "reshape or index the array",
        )
    if any(n >= 2**31 for n in shape):
        raise ArgumentError(
            f"'{param.name}' has the shape {shape}: a dimension is at most 2147483647", "reshape the array"
        )
    default = row_major_strides(shape)
    strides = default if 0 in shape else tuple(d if n == 1 else s for n, s, d in zip(shape, strides, default))
    return replace(info, shape=shape, strides=strides)


def _sizes(kernel: Kernel | Loaded, arrays: Mapping[str, ArrayInfo]) -> dict[str, int]:
    sizes: dict[str, tuple[int, str]] = {}
    for param in kernel.signature.arrays:
        if param.name not in arrays:
            continue
        for dim, size in zip(param.spec.dims, arrays[param.name].shape):
            if isinstance(dim, int):
                if dim != size:
                    raise ArgumentError(
                        f"'{param.name}' is {param.spec!r}, but the array has the shape {arrays[param.name].shape}",
                        f"this dimension must be {dim}",
                    )
                continue
            known, by = sizes.setdefault(dim, (size, param.name))
            if known != size:
                raise ArgumentError(
                    f"the dimension {dim} is {known} in '{by}', but {size} in '{param.name}'",
                    "pass arrays whose shapes fit together",
                )
    return {name: size for name, (size, _) in sizes.items()}


def _check_arrays(kernel: Kernel | Loaded, arrays: Mapping[str, ArrayInfo]) -> None:
    places = {(a.device, a.device_index) for a in arrays.values()}
    if len(places) > 1:
        listed = ", ".join(
            f"'{n}' on {a.device}{f':{a.device_index}' if a.device != 'cpu' else ''}"
            for n, a in arrays.items()
        )
        raise ArgumentError(f"the arrays are on different devices: {listed}", "move them to one device")
    for param in kernel.signature.arrays:
        info = arrays.get(param.name)
        if info is None:
            continue
        wanted = param.spec.dtype
        if isinstance(wanted, DType) and info.dtype is not wanted:
            raise ArgumentError(
                f"'{param.name}' is {param.spec!r}, but the array holds {info.dtype}",
                f"convert it to {wanted}",
            )
        if param.spec.access in ("out", "inout") and not info.writable:
            raise ArgumentError(
                f"'{param.name}' is written by the kernel, but this array cannot be written",
                "pass a writable array (JAX arrays are immutable)",
            )


def check_written(arrays: Mapping[str, ArrayInfo], written: frozenset[str]) -> None:
    """Arrays that the kernel writes must be writable and overlap no other: passes may reorder accesses to different arrays."""
    for name in written & arrays.keys():
        if not arrays[name].writable:
            raise ArgumentError(
                f"'{name}' is written by the kernel, but this array cannot be written",
                "pass a writable array (JAX arrays are immutable)",
            )
    check_apart(apart(arrays, written), {name: info.address for name, info in arrays.items()})


class Pair(NamedTuple):
    """Two arrays that may share no memory, `first` being written, and where the other may lie: all distances in bytes.

    They overlap where the other's address less the first's is between `below` and `above` (both excluded) and, if both
    consist of rows `period` apart, where adding some multiple of it leads between `row_below` and `row_above` too.
    """

    first: str
    other: str
    below: int
    above: int
    row_below: int
    row_above: int
    period: int


def apart(arrays: Mapping[str, ArrayInfo], written: frozenset[str]) -> list[Pair]:
    """Pairs of arrays of which one is written."""
    pairs = []
    for first, other in itertools.permutations(arrays, 2):
        if first not in written or (other in written and other < first):
            continue  # each pair once
        one, two = arrays[first], arrays[other]
        below, above = _distances(one, two)
        if 0 in one.shape or 0 in two.shape:
            continue
        period, row = _rows(one)
        other_period, other_row = _rows(two)
        if period == other_period:
            pairs.append(Pair(first, other, below, above, *_distances(row, other_row), period))
        else:
            pairs.append(Pair(first, other, below, above, 0, 0, 0))
    return pairs


def _distances(first: ArrayInfo, other: ArrayInfo) -> tuple[int, int]:
    """Between which distances of two arrays' addresses they overlap."""
    (low, high), (other_low, other_high) = (
        (info.extent[0] - info.address, info.extent[1] - info.address) for info in (first, other)
    )
    return low - other_high, high - other_low


def _rows(info: ArrayInfo) -> tuple[int, ArrayInfo]:
    """The bytes from one row to the next along the dimension with the largest stride, and a row; 0 where rows are none."""
    axis = max(range(len(info.shape)), key=lambda a: (info.shape[a] > 1) * abs(info.strides[a]), default=None)
    if axis is None:
        return 0, info
    row = replace(
        info,
        shape=(*info.shape[:axis], 1, *info.shape[axis + 1 :]),
        strides=(*info.strides[:axis], 0, *info.strides[axis + 1 :]),
    )
    return int(abs(info.strides[axis]) * info.dtype.bytes), row


def check_apart(pairs: Sequence[Pair], addresses: Mapping[str, int]) -> None:
    """Refuses arrays at addresses where one that is written overlaps another."""
    for first, other, below, above, row_below, row_above, period in pairs:
        distance = addresses[other] - addresses[first]
        if below < distance < above and (
            not period or row_below + 1 + (distance - row_below - 1) % period < row_above
        ):
            raise ArgumentError(
                f"'{first}' is written by the kernel and shares memory with '{other}'",
                "pass an array of its own for the output",
            )


def specialize_call(kernel: Kernel, bound: Bound, tuned: Mapping[str, Any] | None = None) -> Specialization:
    """The choices for these arguments: element types, layouts, whether sizes, rows and addresses are multiples of 16."""
    try:
        found: dict[str, DType] = {}
        for param in kernel.signature.arrays:
            if isinstance(param.spec.dtype, DTypeVar) and param.name in bound.arrays:
                name, dtype = param.spec.dtype.name, bound.arrays[param.name].dtype
                if found.setdefault(name, dtype) is not dtype:
                    raise ArgumentError(
                        f"the element type {name} is {found[name]} in one array and {dtype} in '{param.name}'",
                        "pass arrays of one element type",
                    )
        dtypes = resolve_dtypes(kernel.signature, found)
        dims = {name: bound.sizes[name] for name in kernel.signature.constant_dims}
        constants, options = resolve_constants(
            kernel.signature, kernel.defaults if tuned is None else tuned, bound.given, dims
        )
    except MosaicError as error:
        raise error.at((kernel.span,)) from None
    layouts = {name: layout_of(info) for name, info in bound.arrays.items()}
    return Specialization(dtypes, dims, _multiples(kernel, bound, layouts), layouts, constants, options)


def _multiples(kernel: Kernel, bound: Bound, layouts: Mapping[str, Layout]) -> dict[str, int]:
    """Which dimensions are multiples of 16, and which at least of the elements in 16 bytes, where rows of whole words need it."""
    found = {name: ALIGNMENT for name, size in bound.sizes.items() if size % ALIGNMENT == 0 and size > 0}
    for param in kernel.signature.arrays:
        layout = layouts.get(param.name)
        if layout is None or 1 not in layout.strides or layout.align < ALIGNMENT:
            continue
        info, axis = bound.arrays[param.name], layout.strides.index(1)
        name, size, word = param.spec.dims[axis], info.shape[axis], _elements_of_word(info)
        others = (m for a, m in enumerate(layout.stride_multiples) if a != axis)
        if isinstance(name, str) and size and size % word == 0 and all(m % word == 0 for m in others):
            found[name] = max(word, found.get(name, 1))
    return {name: multiple for name, multiple in found.items() if multiple > 1}


def _elements_of_word(info: ArrayInfo) -> int:
    """How many elements are in 16 bytes."""
    return max(1, int(ALIGNMENT / info.dtype.bytes))


def layout_of(info: ArrayInfo) -> Layout:
    """The part of an array's layout that code is specialised on: which stride is 1, and what is a multiple of 16 bytes."""
    row = _elements_of_word(info)
    # The last axis with stride 1 is the one whose elements are neighbours.
    unit = max((axis for axis, stride in enumerate(info.strides) if stride == 1), default=None)
    strides = tuple(1 if axis == unit else None for axis in range(len(info.strides)))
    multiples = tuple(1 if axis == unit or s % row else row for axis, s in enumerate(info.strides))
    align = ALIGNMENT if info.address % ALIGNMENT == 0 else int(max(1, info.dtype.bytes))
    return Layout(strides, multiples, align)
