"""What is decided about a kernel before it is compiled: element types, fixed dimensions, memory layouts,
constants."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
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

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells it from others, to look it up by."""
        parts = (self.dtypes, self.dims, self.dim_multiples, self.layouts, self.constants, self.options)
        return tuple(tuple(sorted(part.items(), key=lambda item: item[0])) for part in parts)

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


def row_major(sizes: Sequence[int | None], multiples: Sequence[int]) -> Layout:
    """Row-major without gaps: fixed sizes give fixed strides, others come at launch.

    multiples: what each size is a multiple of, where it is not fixed.
    """
    strides: list[int | None] = []
    stride_multiples: list[int] = []
    for axis in range(len(sizes)):
        inner = sizes[axis + 1 :]
        fixed = [size for size in inner if size is not None]
        strides.append(math.prod(fixed) if len(fixed) == len(inner) else None)
        stride_multiples.append(
            math.prod(m if size is None else size for size, m in zip(inner, multiples[axis + 1 :]))
        )
    return Layout(tuple(strides), tuple(stride_multiples))


def default_multiples(params: Sequence[ArrayParam], dtypes: Mapping[str, DType]) -> dict[str, int]:
    """What dimensions are taken to be multiples of where nothing is said: rows are whole 16-byte words.

    That is what vector loads and TMA need. Only the innermost dimension of arrays with rows counts.
    """
    result: dict[str, int] = {}
    for param in params:
        inner = param.spec.dims[-1]
        if len(param.spec.dims) > 1 and isinstance(inner, str):
            dtype = param.spec.dtype if isinstance(param.spec.dtype, DType) else dtypes[param.spec.dtype.name]
            result[inner] = max(result.get(inner, 1), int(ALIGNMENT / dtype.bytes))
    return result


def resolve_constants(
    signature: Signature,
    defaults: Mapping[str, Any],
    given: Mapping[str, Any],
    fixed: Mapping[str, int] | None = None,
) -> tuple[dict[str, Any], dict[str, int | None]]:
    """The kernel's constants and the compiler's options: what is given over the defaults.

    fixed: the sizes of dimensions that are constants too; what is given must agree.
    """
    names = {c.name for c in signature.constants}
    for name in given:
        if name not in names and name not in OPTIONS:
            listed = ", ".join([*sorted(names), *OPTIONS])
            raise ArgumentError(f"the kernel has no constant '{name}'", f"there are: {listed}")
    for name, size in (fixed or {}).items():
        if given.get(name, size) != size:
            raise ArgumentError(
                f"{name} is set to {given[name]}, but the dimension {name} is {size}", "leave it out"
            )
    merged = {**{c.name: c.default for c in signature.constants}, **defaults, **given, **(fixed or {})}
    for constant in signature.constants:
        name = constant.name
        if merged[name] is inspect.Parameter.empty:
            raise ArgumentError(
                f"the constant '{name}' has no value",
                f"give it one: --set {name}=64, {name}=64 in the call, or a default in the signature",
                () if constant.span is None else (constant.span,),
            )
    options: dict[str, int | None] = {}
    for name in OPTIONS:
        value = merged.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ArgumentError(f"{name} is a positive number, not {value!r}", OPTIONS[name])
        if name in ("num_warps", "num_ctas") and value is not None and value & (value - 1):
            raise ArgumentError(f"{name} is a power of two, not {value}", OPTIONS[name])
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
    multiples: Mapping[str, int] | None = None,
    arrays: frozenset[str] = frozenset(),
) -> Specialization:
    """The choices when no arguments are at hand: row-major arrays, dimensions known at launch unless `dims`
    fixes them.

    given: constants, compiler options and element types (by type variable). multiples: what dimensions are
    multiples of, over `default_multiples`. arrays: the optional arrays to compile with.
    """
    given, dims = dict(given or {}), dict(dims or {})
    variables = {v.name for v in signature.dtype_vars}
    dtypes = resolve_dtypes(signature, {k: v for k, v in given.items() if k in variables})
    fixed = {name: dims[name] for name in signature.constant_dims if name in dims}
    constants, options = resolve_constants(
        signature, defaults, {k: v for k, v in given.items() if k not in variables}, fixed
    )
    dims |= {name: constants[name] for name in signature.constant_dims}
    for name in (*dims, *(multiples or {})):
        if name not in signature.dims:
            raise ArgumentError(
                f"the kernel has no dimension '{name}'", f"its dimensions are: {', '.join(signature.dims)}"
            )
    for name, size in dims.items():
        if not isinstance(size, int) or not 0 <= size < 2**31:
            raise ArgumentError(
                f"the dimension {name} cannot be {size!r}",
                "a dimension is a whole number from 0 to 2147483647",
            )
    optional = {p.name for p in signature.arrays if p.spec.optional}
    for name in arrays - optional:
        raise ArgumentError(
            f"the kernel has no optional array '{name}'",
            f"there are: {', '.join(sorted(optional)) or 'none'}",
        )
    params = [p for p in signature.arrays if not p.spec.optional or p.name in arrays]
    open_dims = {name: n for name, n in default_multiples(params, dtypes).items() if name not in dims}
    promised = open_dims | dict(multiples or {})
    for name, multiple in promised.items():
        if multiple < 1:
            raise ArgumentError(f"{name} cannot be a multiple of {multiple}", "a multiple is at least 1")
    layouts = {}
    for param in params:
        sizes = [d if isinstance(d, int) else dims.get(d) for d in param.spec.dims]
        layouts[param.name] = row_major(
            sizes, [promised.get(d, 1) if isinstance(d, str) else d for d in param.spec.dims]
        )
    return Specialization(dtypes, dims, promised, layouts, constants, options)
