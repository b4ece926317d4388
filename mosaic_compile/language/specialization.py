"""What is decided about a kernel before it is compiled: element types, fixed dimensions, memory layouts,
constants."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mosaic_compile.errors import ArgumentError

from .arrays import ArrayParam, ScalarParam, Signature
from .dtypes import DTYPES, DType, DTypeVar

# Options of the compiler that stand beside a kernel's own constants in `tune` and `--set`.
OPTIONS: dict[str, str] = {
    "num_warps": "warps in a program (GPUs): 1, 2, 4, 8, 16",
    "num_stages": "iterations of a loop whose loads are in flight (GPUs)",
    "num_ctas": "thread blocks in a cluster that share a program (sm90 and newer)",
    "maxnreg": "registers a thread may use (NVIDIA GPUs)",
}
ALIGNMENT = 16  # bytes: what vector loads and TMA need of pointers and rows


@dataclass(frozen=True)
class Layout:
    """How an array argument lies in memory: strides in elements (None: known at launch), what they and the
    pointer are multiples of."""

    strides: tuple[int | None, ...]
    stride_multiples: tuple[int, ...]
    align: int = ALIGNMENT


@dataclass(frozen=True)
class Specialization:
    """A kernel's choices. Dimensions and strides that are not fixed are arguments of the compiled kernel."""

    dtypes: Mapping[str, DType]
    dims: Mapping[str, int]
    dim_multiples: Mapping[str, int]
    layouts: Mapping[str, Layout]
    constants: Mapping[str, Any]
    options: Mapping[str, int | None]

    def has(self, param: ArrayParam) -> bool:
        """Whether an optional array is given."""
        return param.name in self.layouts

    def dtype_of(self, param: ArrayParam | ScalarParam) -> DType:
        dtype = param.spec.dtype if isinstance(param, ArrayParam) else param.dtype
        return self.dtypes[dtype.name] if isinstance(dtype, DTypeVar) else dtype

    def layout_of(self, param: ArrayParam) -> Layout:
        return self.layouts[param.name]

    def sizes_of(self, param: ArrayParam) -> tuple[int | None, ...]:
        """Each dimension's size, None where it is known at launch only."""
        return tuple(d if isinstance(d, int) else self.dims.get(d) for d in param.spec.dims)


def row_major(sizes: tuple[int | None, ...], dtype: DType) -> Layout:
    """Row-major: elements of a row are neighbours, rows start at multiples of 16 bytes.

    Where the inner dimensions are fixed the strides are their products (no gaps), elsewhere they come at
    launch.
    """
    strides: list[int | None] = []
    for axis in range(len(sizes)):
        inner = sizes[axis + 1 :]
        product: int | None = 1
        for size in inner:
            product = None if product is None or size is None else product * size
        strides.append(product)
    row = max(1, int(ALIGNMENT / dtype.bytes))
    return Layout(tuple(strides), tuple(row if s is None else s for s in strides))


def resolve_constants(
    signature: Signature, defaults: Mapping[str, Any], given: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, int | None]]:
    """The kernel's constants and the compiler's options: what is given over the defaults."""
    names = {c.name for c in signature.constants}
    for name in given:
        if name not in names and name not in OPTIONS:
            listed = ", ".join([*sorted(names), *OPTIONS])
            raise ArgumentError(f"the kernel has no constant '{name}'", f"there are: {listed}")
    merged = {**{c.name: c.default for c in signature.constants}, **defaults, **given}
    for name in names:
        if merged[name] is inspect.Parameter.empty:
            raise ArgumentError(
                f"the constant '{name}' has no value",
                f"give it one: --set {name}=64, {name}=64 in the call, or a default in the signature",
            )
    options: dict[str, int | None] = {}
    for name in OPTIONS:
        value = merged.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ArgumentError(f"{name} is a positive number, not {value!r}", OPTIONS[name])
        options[name] = value
    return {name: merged[name] for name in sorted(names)}, options


def resolve_dtypes(signature: Signature, given: Mapping[str, Any]) -> dict[str, DType]:
    """The element type of each type variable: what is given, or its first choice."""
    result: dict[str, DType] = {}
    for variable in signature.dtype_vars:
        dtype = given.get(variable.name, variable.choices[0])
        dtype = DTYPES.get(dtype, dtype) if isinstance(dtype, str) else dtype
        if dtype not in variable.choices:
            listed = ", ".join(map(str, variable.choices))
            raise ArgumentError(
                f"the element type {variable.name} cannot be {dtype}", f"the kernel takes {listed}"
            )
        result[variable.name] = dtype
    return result


def ahead_of_time(
    signature: Signature,
    defaults: Mapping[str, Any],
    *,
    given: Mapping[str, Any] | None = None,
    dims: Mapping[str, int] | None = None,
    arrays: frozenset[str] = frozenset(),
) -> Specialization:
    """The choices when no arguments are at hand: row-major arrays, dimensions known at launch unless `dims`
    fixes them.

    given: constants, compiler options and element types (by type variable). arrays: the optional arrays to
    compile with.
    """
    given, dims = dict(given or {}), dict(dims or {})
    variables = {v.name for v in signature.dtype_vars}
    dtypes = resolve_dtypes(signature, {k: v for k, v in given.items() if k in variables})
    constants, options = resolve_constants(
        signature, defaults, {k: v for k, v in given.items() if k not in variables}
    )
    for name, size in dims.items():
        if name not in signature.dims:
            raise ArgumentError(
                f"the kernel has no dimension '{name}'", f"its dimensions are: {', '.join(signature.dims)}"
            )
        if size < 0 or size >= 2**31:
            raise ArgumentError(
                f"the dimension {name} cannot be {size}", "a dimension is between 0 and 2147483647"
            )
    optional = {p.name for p in signature.arrays if p.spec.optional}
    for name in arrays - optional:
        raise ArgumentError(
            f"the kernel has no optional array '{name}'",
            f"there are: {', '.join(sorted(optional)) or 'none'}",
        )
    spec = Specialization(dtypes, dims, {}, {}, constants, options)
    layouts = {
        p.name: row_major(spec.sizes_of(p), spec.dtype_of(p))
        for p in signature.arrays
        if not p.spec.optional or p.name in arrays
    }
    return Specialization(dtypes, dims, {}, layouts, constants, options)
