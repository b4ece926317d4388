"""Arguments for a kernel of which only the file is at hand: sizes with ragged edges, numbers from a seed."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mosaic_compile.errors import ArgumentError, GridError, UsageError
from mosaic_compile.language.arrays import ArrayParam, ScalarParam
from mosaic_compile.language.dtypes import DType
from mosaic_compile.language.kernel import Kernel
from mosaic_compile.language.specialization import Specialization
from mosaic_compile.language.symbolic import evaluate

# Sizes of dimensions by their distance from the last: different ones, so that mixing two up is seen, and
# multiples of 8 but not of 16: rows of 16-bit elements are whole 16-byte words, as TMA needs, tiles are cut.
LAST, LAST_BUT_ONE, OUTER = (72, 120, 40), (104, 88, 56), 2
LARGEST_TILE = 8192  # that sizes are made to exceed
UNSIZED_CONSTANT = 64  # a dimension that is a constant without a value
SMALL_INTEGERS = 8  # integers that are no indices are of -8 … 7


@dataclass(frozen=True)
class Wanted:
    """What the command line says.

    given: scalars, constants, compiler options and element types. dims: sizes; multiples: what sizes are made
    multiples of. arrays: optional arrays to pass. files: arrays from .npy files.
    """

    given: Mapping[str, Any] = field(default_factory=dict)
    dims: Mapping[str, int] = field(default_factory=dict)
    multiples: Mapping[str, int] = field(default_factory=dict)
    arrays: frozenset[str] = frozenset()
    files: Mapping[str, Path] = field(default_factory=dict)
    seed: int = 0


@dataclass(frozen=True)
class Inputs:
    """A call's arguments by name, and the sizes of its dimensions."""

    arguments: Mapping[str, Any]
    sizes: Mapping[str, int]


def make_inputs(kernel: Kernel, wanted: Wanted) -> Inputs:
    """Arrays and scalars for a call.

    Floats are normally distributed; i32 and i64 that are not written only are indices into the smallest
    dimension of the other arrays, other integers are small; what is mc.Out starts as NaN, or 77. Scalars have
    their default, else 1. Raises ArgumentError and UsageError.
    """
    scalars = {p.name: p for p in kernel.signature.params if isinstance(p, ScalarParam)}
    settings = {name: value for name, value in wanted.given.items() if name not in scalars}
    files = {name: _read(kernel, name, file) for name, file in wanted.files.items()}
    optional = {p.name for p in kernel.signature.arrays if p.spec.optional}
    arrays = wanted.arrays | (files.keys() & optional)
    dims = {**_sizes_of_files(kernel, files), **wanted.dims}
    spec = kernel.specialize(dims=_constant_dims(kernel, dims, settings), arrays=arrays, **settings)
    sizes = _sizes(kernel, spec, {**dims, **spec.dims}, wanted.multiples)
    generator = np.random.default_rng(wanted.seed)
    arguments: dict[str, Any] = {}
    for param in kernel.signature.params:
        if isinstance(param, ArrayParam) and spec.has(param):
            made = _array(kernel, param, spec, sizes, generator)
            found = files.get(param.name)
            arguments[param.name] = made if found is None else _typed(found, made.dtype)
        elif isinstance(param, ScalarParam):
            default = 1 if param.default is None else param.default
            value = wanted.given.get(param.name, default)
            is_bool = isinstance(param.dtype, DType) and param.dtype.kind == "bool"
            arguments[param.name] = bool(value) if is_bool else value
    types = {variable.name for variable in kernel.signature.dtype_vars}  # the arrays say them
    return Inputs({**arguments, **{k: v for k, v in settings.items() if k not in types}}, sizes)


# Sizes.


def _constant_dims(kernel: Kernel, dims: Mapping[str, int], settings: Mapping[str, Any]) -> dict[str, int]:
    """`dims`, and a size for each dimension that is a constant without any value."""
    known = {**kernel.defaults, **settings, **dims}
    empty = {c.name for c in kernel.signature.constants if c.default is inspect.Parameter.empty}
    missing = [dim for dim in kernel.signature.constant_dims if dim in empty and dim not in known]
    return {**dims, **dict.fromkeys(missing, UNSIZED_CONSTANT)}


def _sizes(
    kernel: Kernel, spec: Specialization, known: Mapping[str, int], multiples: Mapping[str, int]
) -> dict[str, int]:
    """Each dimension's size. What nobody gave is such that the grid has more than one program along it."""
    distance: dict[str, int] = {}
    for param in kernel.signature.arrays:
        if spec.has(param):
            for place, dim in enumerate(reversed(param.spec.dims)):
                if isinstance(dim, str):
                    distance[dim] = max(place, distance.get(dim, 0))
    pools: dict[int, Iterator[int]] = {0: _cycle(LAST), 1: _cycle(LAST_BUT_ONE)}
    dims = [dim for dim in kernel.signature.dims if dim in distance]
    sizes = {
        dim: known[dim] if dim in known else next(pools.get(distance[dim], _cycle((OUTER,)))) for dim in dims
    }
    grid = kernel.grid_text(spec)
    for dim in [dim for dim in dims if dim not in known]:
        if (tile := _tile(grid, sizes, dim)) is not None and sizes[dim] <= tile:
            sizes[dim] = tile + (8 if tile > 8 else 1)
        multiple = multiples.get(dim, 1)
        sizes[dim] = -(-sizes[dim] // multiple) * multiple
    return sizes


def _cycle(pool: tuple[int, ...]) -> Iterator[int]:
    while True:
        yield from pool


def _tile(grid: tuple[str, ...], sizes: Mapping[str, int], dim: str) -> int | None:
    """The largest size of a dimension with which the grid is as if it were 1; None where the grid is not cut along it."""

    def programs(size: int) -> list[int]:
        return [evaluate(text, {**sizes, "num_sms": 1 << 30, dim: size}) for text in grid]

    try:
        one = programs(1)
        if programs(2) != one or programs(LARGEST_TILE + 1) == one:
            return None
        low, high = 1, LARGEST_TILE + 1  # the grid of `low` is that of 1, that of `high` is not
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if programs(middle) == one else (low, middle)
        return low
    except (ArithmeticError, GridError):  # a grid that divides by what is 0 for such sizes
        return None


# Values.


def _array(
    kernel: Kernel,
    param: ArrayParam,
    spec: Specialization,
    sizes: Mapping[str, int],
    generator: np.random.Generator,
) -> np.ndarray:
    dtype = spec.dtype_of(param)
    shape = tuple(d if isinstance(d, int) else sizes[d] for d in param.spec.dims)
    if param.spec.access == "out":
        return np.full(shape, np.nan if dtype.is_float else min(77, dtype.max), dtype.numpy)
    if dtype.is_float:
        return generator.standard_normal(shape).astype(dtype.numpy)
    if dtype.kind == "bool":
        return generator.integers(0, 2, shape).astype(bool)
    if dtype.name in ("i32", "i64"):
        most = _smallest_other_dimension(kernel, param, spec, sizes)
        if most is not None:
            return generator.integers(0, most, shape).astype(dtype.numpy)
    low = max(dtype.min, -SMALL_INTEGERS)
    return generator.integers(low, low + 2 * SMALL_INTEGERS, shape).astype(dtype.numpy)


def _smallest_other_dimension(
    kernel: Kernel, param: ArrayParam, spec: Specialization, sizes: Mapping[str, int]
) -> int | None:
    """Below it, an integer is an index of whichever other array it is used with; None where there is no other dimension."""
    others = {d for p in kernel.signature.arrays if p is not param and spec.has(p) for d in p.spec.dims}
    found = [d if isinstance(d, int) else sizes[d] for d in others - {*param.spec.dims}]
    return max(1, min(found)) if found else None


# Files.


def _read(kernel: Kernel, name: str, file: Path) -> np.ndarray:
    if name not in {p.name for p in kernel.signature.arrays}:
        listed = ", ".join(p.name for p in kernel.signature.arrays)
        raise UsageError(f"--input {name}: '{kernel.name}' has no such array", f"its arrays are: {listed}")
    try:
        return np.load(file)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"--input {name}: '{file}' cannot be read: {getattr(error, 'strerror', None) or error}",
            "give a file that numpy.save wrote",
        ) from None


def _typed(array: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """The array in the kernel's element type. NumPy saves the types that it does not know as bare bytes."""
    if array.dtype == dtype:
        return array
    if array.dtype.kind == "V" and array.dtype.itemsize == dtype.itemsize:
        return array.view(dtype)
    return array.astype(dtype)


def _sizes_of_files(kernel: Kernel, files: Mapping[str, np.ndarray]) -> dict[str, int]:
    """The dimensions that arrays from files have; a call says whether they fit together."""
    sizes: dict[str, int] = {}
    for param in kernel.signature.arrays:
        if param.name not in files:
            continue
        shape = files[param.name].shape
        if len(shape) != len(param.spec.dims):
            raise ArgumentError(
                f"'{param.name}' is {param.spec!r}, but its file has the shape {shape}", "reshape the array"
            )
        sizes |= {dim: size for dim, size in zip(param.spec.dims, shape) if isinstance(dim, str)}
    return sizes
