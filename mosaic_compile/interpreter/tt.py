"""The meaning of the `tt` dialect on NumPy arrays, and a launcher for lowered kernels.

    launch(module, {"a": a, "b": b, "s": 3}, dims={"M": 19}, grid=(4,))

So all of our own lowering can be checked where there is no GPU. Memory is stricter than a GPU's: each array
lies alone in an address range of its own, and only the bytes of its elements may be touched. An access
outside them, or between them (strided arrays), that no mask covers is an OutsideError, and so is a parameter
that breaks the promise of its tt.divisibility.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from mosaic_compile.errors import InterpreterError
from mosaic_compile.language.dtypes import DTYPES
from mosaic_compile.language.symbolic import evaluate
from mosaic_compile.mlir import ir

from .evaluator import Entry, Env, Op, prepare_module, run_grid
from .launch import REGISTRY as TILE_REGISTRY
from .tile import multiply
from .values import NUMPY_DTYPES, signed

SPACE = 40  # bits of an address that one array has for itself
ALIGNMENT = 16
JUNK = 0x2A  # what conversions give where machines differ


class OutsideError(InterpreterError):
    """An access that a GPU would do outside the array."""


# Memory.


@dataclass(eq=False)
class Buffer:
    """An array in memory: storage units one after the other, and which of them belong to the array."""

    name: str
    cells: np.ndarray
    owned: np.ndarray
    places: np.ndarray  # for each element of the array, its place among the cells (packed: half cells)
    packed: bool
    first: int  # the cell of element (0, 0, …)
    address: int  # of that cell

    def at(self, addresses: np.ndarray) -> np.ndarray:
        """The cells' numbers; OutsideError unless each is the array's own."""
        distance, rest = np.divmod(addresses - self.address, self.cells.itemsize)
        cells = distance + self.first
        inside = (cells >= 0) & (cells < len(self.cells)) & (rest == 0)
        if not inside.all() or not self.owned[cells].all():
            bad = cells[~inside] if not inside.all() else cells[~self.owned[cells]]
            raise OutsideError(
                f"'{self.name}' is accessed {bad.flat[0] - self.first} elements from its first"
            )
        return cells

    def read_back(self, array: np.ndarray) -> None:
        """Writes what memory holds to the array that it was made from."""
        if self.packed:
            byte = self.cells.view(np.uint8)[self.places >> 1]
            nibble = np.where(self.places & 1, byte >> 4, byte & 15).astype(np.int8)
            array[...] = np.where(nibble > 7, nibble - 16, nibble).astype(ml_dtypes.int4)
        else:
            array[...] = self.cells[self.places].view(array.dtype)


def element_strides(array: np.ndarray) -> tuple[int, ...]:
    return tuple(s // array.itemsize for s in array.strides)


def place(array: np.ndarray, name: str, address: int) -> Buffer:
    """An array as memory holds it: truth values as bytes, two i4 a byte, every gap filled with rubbish."""
    packed = array.dtype == ml_dtypes.int4
    places = _places(array)
    if packed and places.size and places.flat[0] % 2:
        places = places + 1
    owned_places = places >> 1 if packed else places
    kinds = {"bool": np.int8, "uint8": np.int8, "uint32": np.int32, "int4": np.int8}
    dtype = np.dtype(kinds.get(array.dtype.name, array.dtype))
    count = int(owned_places.max(initial=-1)) + 1
    cells = np.full(count * dtype.itemsize, JUNK, np.uint8).view(dtype)
    owned = np.zeros(count, bool)
    owned[owned_places] = True
    first = int(owned_places.flat[0]) if places.size else 0
    buffer = Buffer(name, cells, owned, places, packed, first, address)
    if not packed:
        cells[places] = array.view(dtype)
    else:
        for low in (True, False):
            half = places % 2 == (0 if low else 1)
            nibble = array.astype(np.int8)[half] & 15
            at = places[half] >> 1
            cells[at] = (cells[at] & ~15 | nibble) if low else (cells[at] & 15 | nibble << 4)
    return buffer


def _places(array: np.ndarray) -> np.ndarray:
    """Each element's distance from the one that is lowest in memory, in elements."""
    result = np.zeros(array.shape, np.int64)
    for axis, stride in enumerate(element_strides(array)):
        steps = np.arange(array.shape[axis]) * stride
        result += steps.reshape([-1 if d == axis else 1 for d in range(array.ndim)])
    return result - result.min(initial=0 if not result.size else result.max())


@dataclass(eq=False)
class Descriptor:
    """A tensor map: the array with its axes in the order of the box."""

    array: np.ndarray  # a view of the buffer's cells
    box: tuple[int, ...]

    def window(self, starts: Sequence[Any]) -> tuple[tuple[slice, ...], np.ndarray]:
        """Where the box meets the array: the part of the box, and the array's view."""
        part, view = [], []
        for start, extent, size in zip(map(int, starts), self.box, self.array.shape):
            low, high = max(0, start), max(0, start, min(size, start + extent))
            part.append(slice(low - start, high - start))
            view.append(slice(low, high))
        return tuple(part), self.array[tuple(view)]


@dataclass(eq=False)
class Machine:
    """The memory of one launch; its methods are the entries for the operations that use it."""

    buffers: list[Buffer]

    def cells(self, pointers: Any, mask: Any) -> tuple[np.ndarray, Buffer | None, np.ndarray]:
        """Which elements are accessed, in which buffer, and at which cells."""
        pointers = np.asarray(pointers)
        chosen = np.ones(pointers.shape, bool) if mask is None else np.asarray(mask)
        addresses = pointers[chosen]
        if not addresses.size:
            return chosen, None, addresses
        number = (int(addresses.flat[0]) + (1 << (SPACE - 1)) >> SPACE) - 1
        if not 0 <= number < len(self.buffers):
            raise OutsideError("an access outside all arrays")
        return chosen, self.buffers[number], self.buffers[number].at(addresses)

    def load(self, op: Op, env: Env, pointers: Any, mask: Any = None, other: Any = None) -> Any:
        dtype = op.results[0].dtype
        chosen, buffer, cells = self.cells(pointers, mask)
        result = np.full(chosen.size * dtype.itemsize, JUNK, np.uint8).view(dtype).reshape(chosen.shape)
        if other is not None:
            result[...] = other
        if buffer is not None:
            result[chosen] = buffer.cells[cells]
        return result[()]

    def store(self, op: Op, env: Env, pointers: Any, value: Any, mask: Any = None) -> None:
        chosen, buffer, cells = self.cells(pointers, mask)
        if buffer is not None:
            buffer.cells[cells] = np.asarray(value)[chosen]

    def atomic(self, op: Op, env: Env, pointers: Any, value: Any, mask: Any = None) -> Any:
        assert op.attributes["atomic_rmw_op"] == (4 if np.asarray(value).dtype.kind == "i" else 5)
        chosen, buffer, cells = self.cells(pointers, mask)
        if buffer is not None:
            np.add.at(buffer.cells, cells, np.asarray(value)[chosen])
        return np.zeros_like(value)

    def descriptor(self, op: Op, env: Env, base: Any, *sizes_and_strides: Any) -> Descriptor:
        """A descriptor that the kernel makes itself."""
        rank = len(sizes_and_strides) // 2
        sizes, strides = (
            tuple(map(int, part)) for part in (sizes_and_strides[:rank], sizes_and_strides[rank:])
        )
        (buffer,) = (b for b in self.buffers if b.address == base)
        box = re.search(r"tensor<([\dx]*)x", op.results[0].text)
        return tensor_map(buffer, sizes, strides, tuple(map(int, box[1].split("x"))))  # type: ignore[index]

    def registry(self) -> dict[str, Entry]:
        return {
            "tt.load": self.load,
            "tt.store": self.store,
            "tt.atomic_rmw": self.atomic,
            "tt.make_tensor_descriptor": self.descriptor,
        }


def tensor_map(
    buffer: Buffer, sizes: Sequence[int], strides: Sequence[int], box: tuple[int, ...]
) -> Descriptor:
    """What cuTensorMapEncodeTiled makes, and demands."""
    if 0 in sizes:  # NumPy gives an empty array no strides; the launcher's map of one shows nothing either
        return Descriptor(np.empty(sizes, buffer.cells.dtype), box)
    size = buffer.cells.itemsize
    assert strides[-1] == 1 and all(s * size % ALIGNMENT == 0 for s in strides[:-1]), strides
    assert len(box) <= 5 and box[-1] * size >= ALIGNMENT, box
    data = buffer.cells.view(np.uint8)
    steps = [s * size for s in strides]
    view = np.ndarray(sizes, buffer.cells.dtype, data, buffer.first * size, steps)  # type: ignore[call-overload]
    return Descriptor(view, box)


def _descriptor_load(op: Op, env: Env, descriptor: Descriptor, *starts: Any) -> np.ndarray:
    part, view = descriptor.window(starts)
    result = np.zeros(descriptor.box, op.results[0].dtype)
    result[part] = view
    return result.reshape(op.results[0].shape)


def _descriptor_store(op: Op, env: Env, descriptor: Descriptor, value: Any, *starts: Any) -> None:
    part, view = descriptor.window(starts)
    view[...] = value.reshape(descriptor.box)[part]


def _addptr(op: Op, env: Env, pointers: Any, offset: Any) -> Any:
    pointee = re.search(r"tt\.ptr<(\w+)>", op.operands[0].text)
    return pointers + np.asarray(offset).astype(np.int64) * NUMPY_DTYPES[pointee[1]].itemsize  # type: ignore[index]


# Values.


def _conversion(op: Op, env: Env, x: Any) -> Any:
    """To and from fp8; out of range and NaN are converted differently on each machine."""
    x, dtype = np.asarray(x), op.results[0].dtype
    if dtype.itemsize > 1:
        return x.astype(dtype)[()]
    assert op.attributes["rounding"] == 1
    limit = 464 if dtype == ml_dtypes.float8_e4m3fn else np.nextafter(np.float32(61440), np.float32(0))
    junk = np.uint8(JUNK).view(dtype)
    return np.where(np.abs(x) <= limit, x.astype(dtype), junk)[()]


def _dot(op: Op, env: Env, a: Any, b: Any, acc: Any) -> Any:
    precision = {0: "tf32", 1: "tf32x3", 2: "ieee"}[op.attributes["inputPrecision"]]
    product = multiply(a, b, acc.dtype, precision)
    return (product + acc.astype(product.dtype)).astype(acc.dtype)


def _high_product(op: Op, env: Env, a: Any, b: Any) -> Any:
    wide = a.view(np.uint32).astype(np.uint64) * b.view(np.uint32).astype(np.uint64)
    return signed((wide >> np.uint64(32)).astype(np.uint32), a.dtype)


def _library(op: Op, env: Env, *xs: Any) -> Any:
    """__nv_tanhf, __ocml_tanh_f32 …: the functions of the `math` dialect."""
    name = re.fullmatch(r"__(?:nv|ocml)_([a-z]+?)(?:f|_f32|_f64)?", op.attributes["symbol"])[1]  # type: ignore[index]
    return TILE_REGISTRY[f"math.{name}"](op, env, *xs)


def _program_id(op: Op, env: Env) -> Any:
    return np.int32(env.program_id[op.attributes["axis"]])


def _num_programs(op: Op, env: Env) -> Any:
    return np.int32(env.grid[op.attributes["axis"]])


REGISTRY: dict[str, Entry] = {
    **{name: entry for name, entry in TILE_REGISTRY.items() if not name.startswith("tile.")},
    "tt.get_program_id": _program_id,
    "tt.get_num_programs": _num_programs,
    "tt.addptr": _addptr,
    "tt.descriptor_load": _descriptor_load,
    "tt.descriptor_store": _descriptor_store,
    "tt.make_range": lambda op, env: np.arange(op.attributes["start"], op.attributes["end"], dtype=np.int32),
    "tt.splat": lambda op, env, x: np.broadcast_to(x, op.results[0].shape),
    "tt.expand_dims": lambda op, env, x: np.expand_dims(x, op.attributes["axis"]),
    "tt.broadcast": lambda op, env, x: np.broadcast_to(x, op.results[0].shape),
    "tt.reshape": lambda op, env, x: x.reshape(op.results[0].shape),
    "tt.trans": lambda op, env, x: x.transpose(op.attributes["order"]),
    "tt.join": lambda op, env, a, b: np.stack((a, b), -1),
    "tt.split": lambda op, env, x: (x[..., 0], x[..., 1]),
    "tt.fp_to_fp": _conversion,
    "tt.bitcast": TILE_REGISTRY["arith.bitcast"],
    "tt.mulhiui": _high_product,
    "tt.extern_elementwise": _library,
    "tt.dot": _dot,
    "tt.reduce": TILE_REGISTRY["tile.reduce"],
    "tt.scan": TILE_REGISTRY["tile.scan"],
    "tt.print": lambda op, env, *values: print(env.program_id, op.attributes["prefix"], *values),
}


# Launching.


def launch(
    module: ir.Module, given: Mapping[str, Any], dims: Mapping[str, int], grid: Sequence[int] | None = None
) -> None:
    """Runs the one function of a `tt` module; arrays are written in place.

    given: arrays and scalars by name; dims: the sizes by dimension name. grid: the kernel's own if not given.
    """
    (function,) = (op.operation for op in module.body.operations)
    arrays = {name: value for name, value in given.items() if isinstance(value, np.ndarray)}
    buffers = {name: place(a, name, (n + 1) << SPACE) for n, (name, a) in enumerate(arrays.items())}
    described = json.loads(function.attributes["mosaic.arguments"].value)
    arguments = [_argument(d, given, buffers, dims) for d in described]
    _check_promises(function, described, arguments)
    if grid is None:
        grid = [evaluate(text.value, {**dims, "num_sms": 3}) for text in function.attributes["mosaic.grid"]]
    registry = REGISTRY | Machine(list(buffers.values())).registry()
    run_grid(prepare_module(module, registry), function.attributes["sym_name"].value, arguments, grid)
    for name, buffer in buffers.items():
        buffer.read_back(arrays[name])


def _argument(
    described: Mapping[str, Any],
    given: Mapping[str, Any],
    buffers: Mapping[str, Buffer],
    dims: Mapping[str, int],
) -> Any:
    match described:
        case {"kind": "pointer", "array": name}:
            return np.int64(buffers[name].address)
        case {"kind": "descriptor", "array": name, "axes": axes, "box": box}:
            strides = element_strides(given[name])
            sizes = given[name].shape
            return tensor_map(buffers[name], [sizes[a] for a in axes], [strides[a] for a in axes], tuple(box))
        case {"kind": "scalar", "name": name, "dtype": dtype}:
            value = np.asarray(given[name]).astype(DTYPES[dtype].numpy)
            return signed(value, NUMPY_DTYPES[DTYPES[dtype].mlir])
        case {"kind": "dim", "name": name}:
            return np.int32(dims[name])
        case {"kind": "stride", "array": name, "axis": axis}:
            return np.int64(element_strides(given[name])[axis])
    raise ValueError(f"no launcher knows the parameter {described}")


def _check_promises(function: ir.Operation, described: Sequence[Any], arguments: Sequence[Any]) -> None:
    for what, attributes, argument in zip(described, function.attributes["arg_attrs"], arguments):
        promised = {a.name: a.attr.value for a in ir.DictAttr(attributes)}.get("tt.divisibility", 1)
        if isinstance(argument, np.integer) and int(argument) % promised:
            raise OutsideError(f"{what} is {argument}, no multiple of {promised}")
