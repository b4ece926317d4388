"""What a DSL operation is, and the checks that operations share.

An operation lives in one place, a function under language/ops: its signature and docstring are what users
read, its body is the type rule and the IR, and `reference` is its meaning in NumPy (what tests, and later the
interpreter, compare with).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeVar

import numpy as np

from mosaic_compile.errors import (
    ElementTypeError,
    MixedTypesError,
    NotConstantError,
    OperandError,
    OutsideKernelError,
    ShapeError,
    user_span,
)
from mosaic_compile.mlir import arith, bool_attribute, ir

from .arrays import ArraySpec
from .dtypes import DType, bool_, f32, i32, i64
from .tile import Array, Tile

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Op:
    """An entry of the registry: the public name, the function, its NumPy meaning."""

    name: str
    function: Callable[..., Any]
    reference: Callable[..., Any] | None


OPS: dict[str, Op] = {}


def op(
    reference: Callable[..., Any] | None = None, outside: Callable[..., Any] | None = None
) -> Callable[[F], F]:
    """Registers a DSL operation; `reference` takes NumPy arrays where the operation takes tiles.

    outside: what the name does in plain Python, where it does anything there.
    """

    def register(function: F) -> F:
        name = function.__name__.rstrip("_")

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            if not is_tracing():
                if outside is not None:
                    return outside(*args, **kwargs)
                raise outside_kernel(f"mc.{name}")
            return function(*args, **kwargs)

        call.__mosaic_op__ = True  # type: ignore[attr-defined]
        OPS[name] = Op(name, call, reference)
        return call  # type: ignore[return-value]

    return register


def outside_kernel(what: str) -> OutsideKernelError:
    return OutsideKernelError(
        f"{what} works only inside a kernel", "put the call into a function marked @mc.kernel", user_span()
    )


def is_tracing() -> bool:
    """Whether a kernel is being traced in this thread."""
    try:
        return ir.InsertionPoint.current is not None
    except ValueError:
        return False


# Types of the IR.


def ir_type(dtype: DType, shape: tuple[int, ...] = ()) -> ir.Type:
    element = ir.Type.parse(dtype.mlir)
    return ir.RankedTensorType.get(list(shape), element) if shape else element


def constant(value: bool | int | float, dtype: DType, shape: tuple[int, ...] = ()) -> Tile:
    """A tile filled with one number; raises MixedTypesError where the type cannot hold it."""
    type_ = ir_type(dtype, shape)
    return Tile(arith.constant(type_, _splat(number_attribute(value, dtype), type_)), dtype, shape)


def number_attribute(value: bool | int | float, dtype: DType) -> ir.Attribute:
    element = ir.Type.parse(dtype.mlir)
    if dtype.is_float:
        # Rounded to the type first: MLIR takes the double as it is and would refuse or truncate it.
        return ir.FloatAttr.get(element, _rounded(value, dtype))
    if dtype is bool_:
        return bool_attribute(value)
    if isinstance(value, float) and not value.is_integer():
        raise MixedTypesError(
            f"{value} is not a whole number, but {dtype} holds whole numbers",
            "use a floating-point type, or a whole number",
        )
    value = int(value)
    if not dtype.min <= value <= dtype.max:
        raise MixedTypesError(
            f"{value} does not fit into {dtype} ({dtype.min} to {dtype.max})",
            "use a wider element type, such as i32 or i64",
        )
    # Attributes hold the bit pattern as a signed number.
    if dtype.kind == "uint" and value > dtype.max >> 1:
        value -= dtype.max + 1
    return ir.IntegerAttr.get(element, value)


def _rounded(value: bool | int | float, dtype: DType) -> float:
    """A number as the type holds it: what is finite stays finite, infinity stays infinity."""
    if isinstance(value, int) and abs(value) > 2**1023:
        exact, rounded = 0.0, math.inf
    else:
        exact = float(value)
        with np.errstate(over="ignore", invalid="ignore"):
            rounded = float(np.asarray(exact, np.float64).astype(dtype.numpy))
    if math.isfinite(exact) != math.isfinite(rounded) or math.isnan(exact) != math.isnan(rounded):
        raise MixedTypesError(
            f"{value} does not fit into {dtype}",
            "use a wider element type, or float('inf') where it is meant"
            if math.isfinite(exact)
            else "this type has no infinity: use f8e5m2 or a wider type",
        )
    return rounded


def _splat(attribute: ir.Attribute, type_: ir.Type) -> ir.Attribute:
    return (
        ir.DenseElementsAttr.get_splat(type_, attribute)
        if isinstance(type_, ir.RankedTensorType)
        else attribute
    )


# Checks on arguments.


def is_number(value: Any) -> bool:
    return isinstance(value, bool | int | float | np.integer | np.floating | np.bool_)


def kind_of(value: Any) -> str:
    """What to call an argument in a message."""
    if isinstance(value, Tile):
        return f"a tile of type {value!r}" if value.shape else f"a scalar of type {value!r}"
    if isinstance(value, Array):
        return repr(value)
    if isinstance(value, ArraySpec | DType):
        return f"the type {value!r}"
    if value is None or isinstance(value, bool):
        return repr(value)
    if is_number(value):
        return f"the number {value}"
    if isinstance(value, str):
        return f"the string {value!r}"
    if isinstance(value, tuple | list) and len(value) <= 8:
        return f"the {type(value).__name__} {value!r}"
    if isinstance(value, np.ndarray):
        return f"a NumPy array of shape {value.shape}"
    if what := getattr(type(value), "kind", None):
        return str(what)
    name = getattr(value, "__name__", None) or getattr(value, "name", None)
    if isinstance(value, ModuleType | type):
        return f"the {'module' if isinstance(value, ModuleType) else 'class'} '{name}'"
    if callable(value):
        return "a lambda" if name == "<lambda>" else f"the function '{name}'"
    return f"a value of the Python type {type(value).__name__}"


def require_tile(value: Any, what: str) -> Tile:
    """A tile or scalar; numbers are not tiles yet (they have no element type)."""
    if isinstance(value, Tile):
        return value
    if isinstance(value, Array):
        raise OperandError(
            f"{what} takes a tile, but {value!r} is an array in memory",
            f"load a block: mc.load({value.name}, index, shape)",
        )
    if is_number(value):
        raise OperandError(
            f"{what} takes a tile, not {kind_of(value)}",
            f"give it an element type: mc.{default_dtype(value)}({value})",
        )
    if isinstance(value, np.ndarray):
        raise OperandError(
            f"{what} takes a tile, not {kind_of(value)}",
            "pass the array to the kernel as an argument and load a block of it",
        )
    raise OperandError(f"{what} takes a tile, not {kind_of(value)}", "pass a tile or a scalar")


def require_array(value: Any, what: str) -> Array:
    if isinstance(value, Array):
        return value
    raise OperandError(
        f"{what} takes one of the kernel's arrays, not {kind_of(value)}",
        "pass an array parameter, or a view of one such as a[i]",
    )


def require_float(x: Tile, what: str) -> Tile:
    if not x.dtype.is_float:
        raise ElementTypeError(f"{what} takes a floating-point tile, not {x!r}", "convert it: x.to(mc.f32)")
    return require_arithmetic(x, what)


def require_arithmetic(x: Tile, what: str) -> Tile:
    """A type that can be computed with: fp8 and i4 only store, load, convert (and multiply, in mc.dot)."""
    if x.dtype.is_fp8 or x.dtype.bits == 4:
        wider = "f32" if x.dtype.is_fp8 else "i8"
        raise ElementTypeError(
            f"{x.dtype} is a storage type: {what} cannot compute in it", f"convert it first: x.to(mc.{wider})"
        )
    return x


def require_integer(x: Tile, what: str) -> Tile:
    if not x.dtype.is_integer:
        raise ElementTypeError(f"{what} takes an integer tile, not {x!r}", "convert it: x.to(mc.i32)")
    return require_arithmetic(x, what)


def require_bool(x: Any, what: str) -> Tile:
    if isinstance(x, bool | np.bool_):
        return constant(bool(x), bool_)
    x = require_tile(x, what)
    if x.dtype is not bool_:
        raise ElementTypeError(f"{what} takes a tile of truth values (bool), not {x!r}", "compare it: x != 0")
    return x


def require_shape(shape: Any, what: str) -> tuple[int, ...]:
    """A shape: positive compile-time numbers."""
    items = tuple(shape) if isinstance(shape, tuple | list) else (shape,)
    for item in items:
        if isinstance(item, Tile):
            raise NotConstantError(
                f"{what} takes sizes that are known at compile time, not a value of type {item!r}",
                "make it a constant parameter (BM: mc.Const = 128); "
                "loads and stores are clipped at the array's edges",
            )
        if isinstance(item, bool) or not isinstance(item, int | np.integer):
            raise ShapeError(
                f"{what} takes whole numbers, not {kind_of(item)}", "write a shape such as (128, 64)"
            )
        if item <= 0:
            raise ShapeError(
                f"{what} takes positive sizes, not {item}",
                "a tile has at least one element in each dimension",
            )
    if math.prod(map(int, items)) >= 2**31:
        raise ShapeError(
            f"{what} makes a tile of {math.prod(map(int, items))} elements",
            "tiles are blocks: choose smaller sizes",
        )
    return tuple(int(item) for item in items)


def require_constant(value: Any, types: type | tuple[type, ...], what: str) -> Any:
    """A compile-time value of the given Python type."""
    if isinstance(value, Tile):
        raise NotConstantError(
            f"{what} must be known at compile time, not a value of type {value!r}",
            "make it a mc.Const parameter",
        )
    if not isinstance(value, types):
        expected: dict[Any, str] = {
            DType: "an element type such as mc.f32",
            int: "a whole number",
            str: "a string",
            bool: "True or False",
        }
        raise OperandError(f"{what} cannot be {kind_of(value)}", f"pass {expected.get(types, 'a tuple')}")
    return value


def require_axis(axis: Any, ndim: int, what: str) -> int:
    """An axis as a number from 0, negative ones counted from the end."""
    if not ndim:
        raise ShapeError(f"{what} takes a tile with dimensions, not a scalar", "make one: x.reshape(1)")
    if isinstance(axis, tuple | list):
        raise OperandError(
            f"the axis of {what} is one number, not {kind_of(axis)}", "take one axis after the other"
        )
    axis = require_constant(axis, int, f"the axis of {what}")
    if not -ndim <= axis < ndim:
        raise ShapeError(
            f"the axis {axis} of {what} is outside a tile of {ndim} dimension{'s' * (ndim != 1)}",
            f"use 0 to {ndim - 1}, or {-ndim} to -1 from the end" if ndim > 1 else "use 0",
        )
    return axis % ndim


def require_index(value: Any, what: str) -> Tile | int:
    """A scalar i32, or a number."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer | Tile):
        raise OperandError(
            f"{what} is an i32 scalar or a whole number, not {kind_of(value)}",
            "a program index, a loop variable, a dimension, a number, or arithmetic on them",
        )
    if isinstance(value, Tile) and value.shape:
        raise OperandError(
            f"{what} is a scalar, not a tile of type {value!r}",
            "use one number for the whole tile; mc.gather takes an index for each element",
        )
    if isinstance(value, Tile) and value.dtype is not i32:
        raise MixedTypesError(f"{what} is of type i32, not {value!r}", "convert it: .to(mc.i32)")
    return value if isinstance(value, Tile) else int(value)


def i32_value(value: Tile | int) -> ir.Value:
    return value.value if isinstance(value, Tile) else constant(value, i32).value


def default_dtype(value: bool | int | float) -> DType:
    """The element type of a bare number where nothing else decides: bool, i32 (or i64), f32."""
    if isinstance(value, bool | np.bool_):
        return bool_
    if isinstance(value, int | np.integer):
        return i32 if i32.min <= value <= i32.max else i64
    return f32


# Broadcasting and the meeting of two operands.


def broadcast_shapes(what: str, *shapes: tuple[int, ...]) -> tuple[int, ...]:
    try:
        return tuple(int(d) for d in np.broadcast_shapes(*shapes))
    except ValueError:
        listed = " and ".join(str(s) for s in shapes)
        raise ShapeError(
            f"shapes {listed} do not broadcast in {what}",
            "dimensions are matched from the right and must be equal or 1; x[:, None] adds one",
        ) from None


def broadcast(x: Tile, shape: tuple[int, ...]) -> Tile:
    """x repeated to `shape`; the shapes are known to broadcast."""
    if x.shape == shape:
        return x
    from mosaic_compile.dialects.tile import BroadcastOp

    return Tile(BroadcastOp(x.value, ir_type(x.dtype, shape)).result, x.dtype, shape)


def meet(what: str, a: Any, b: Any) -> tuple[Tile, Tile]:
    """Two operands with one element type and one shape; a bare number takes the other operand's type."""
    if not isinstance(a, Tile) and not isinstance(b, Tile):
        for value in (a, b):
            if not is_number(value):
                require_tile(value, what)  # raises
        dtype = max((default_dtype(a), default_dtype(b)), key=(bool_, i32, i64, f32).index)
        return constant(a, dtype), constant(b, dtype)
    if not isinstance(a, Tile):
        a = _number_like(what, a, b)
    if not isinstance(b, Tile):
        b = _number_like(what, b, a)
    if a.dtype is not b.dtype:
        raise MixedTypesError(
            f"{what} has mixed element types: {a!r} and {b!r}",
            conversion_help(a, b),
        )
    shape = broadcast_shapes(what, a.shape, b.shape)
    return broadcast(a, shape), broadcast(b, shape)


def conversion_help(a: Tile, b: Tile) -> str:
    """Which of two operands to convert: the one of the type that holds less."""
    first_holds_more = (a.dtype.is_float, a.dtype.bits) > (b.dtype.is_float, b.dtype.bits)
    which, dtype = ("second", a.dtype) if first_holds_more else ("first", b.dtype)
    return f"convert the {which} one: .to(mc.{dtype})"


def _number_like(what: str, number: Any, tile: Tile) -> Tile:
    if not is_number(number):
        require_tile(number, what)
    number = number.item() if isinstance(number, np.generic) else number
    if isinstance(number, bool) and tile.dtype is not bool_:
        number = int(number)
    if not isinstance(number, bool) and tile.dtype is bool_:
        raise MixedTypesError(
            f"{what} has mixed element types: bool and the number {number!r}",
            "convert the truth values: x.to(mc.i32)",
        )
    if isinstance(number, float) and tile.dtype.is_integer:
        raise MixedTypesError(
            f"{what} has mixed element types: {tile!r} and the number {number!r}",
            "convert the tile: .to(mc.f32)",
        )
    return constant(number, tile.dtype)
