"""The values that a kernel computes with while it is traced: tiles (scalars are tiles without dimensions) and
array views."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from mosaic_compile.errors import NotConstantError, OperandError, ShapeError
from mosaic_compile.mlir import ir

from .arrays import Access
from .dtypes import DType


def _dimensions(number: int) -> str:
    return f"{number} dimension{'s' * (number != 1)}"


def _ops() -> Any:
    from . import ops  # ops needs Tile: imported when first used

    return ops


class Tile:
    """A value of element type `dtype` and fixed `shape`; a scalar has shape ()."""

    __slots__ = ("dtype", "shape", "value")
    __hash__ = object.__hash__
    # NumPy scalars and arrays on the left must defer to Tile's reflected operators.
    __array_ufunc__ = None

    def __init__(self, value: ir.Value, dtype: DType, shape: tuple[int, ...]):
        self.value = value
        self.dtype = dtype
        self.shape = shape

    def __repr__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]" if self.shape else str(self.dtype)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def T(self) -> Tile:
        """The last two dimensions exchanged."""
        return _ops().transpose(self)

    def to(self, dtype: DType) -> Tile:
        """This tile converted to another element type; see mc.convert."""
        return _ops().convert(self, dtype)

    def bitcast(self, dtype: DType) -> Tile:
        """The same bits under another element type of the same width."""
        return _ops().bitcast(self, dtype)

    def reshape(self, *shape: Any) -> Tile:
        return _ops().reshape(
            self, shape[0] if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape
        )

    def permute(self, *order: Any) -> Tile:
        return _ops().permute(
            self, order[0] if len(order) == 1 and isinstance(order[0], tuple | list) else order
        )

    def broadcast_to(self, *shape: Any) -> Tile:
        return _ops().broadcast_to(
            self, shape[0] if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape
        )

    def sum(self, axis: int | None = None, *, keepdims: bool = False) -> Tile:
        return _ops().sum(self, axis, keepdims=keepdims)

    def max(self, axis: int | None = None, *, keepdims: bool = False) -> Tile:
        return _ops().max(self, axis, keepdims=keepdims)

    def min(self, axis: int | None = None, *, keepdims: bool = False) -> Tile:
        return _ops().min(self, axis, keepdims=keepdims)

    def mean(self, axis: int | None = None, *, keepdims: bool = False) -> Tile:
        return _ops().mean(self, axis, keepdims=keepdims)

    def __getitem__(self, index: Any) -> Tile:
        """`x[:, None]` adds dimensions; picking elements is what mc.gather, mc.split and reductions are
        for."""
        items = index if isinstance(index, tuple) else (index,)
        if not all(item is None or (isinstance(item, slice) and item == slice(None)) for item in items):
            raise OperandError(
                "a tile cannot be indexed by position: its elements live in different threads",
                "x[:, None] adds a dimension; to pick elements use mc.split, or mc.where and a reduction",
            )
        given = sum(item is not None for item in items)
        if given > self.ndim:
            raise ShapeError(f"{self!r} has {_dimensions(self.ndim)}, but {given} are indexed", "drop a ':'")
        items = (*items, *([slice(None)] * (self.ndim - given)))
        shape = iter(self.shape)
        return _ops().reshape(self, tuple(1 if item is None else next(shape) for item in items))

    def __bool__(self) -> bool:
        raise NotConstantError(
            f"a value of type {self!r} is not known at compile time, so Python cannot branch on it",
            "use `if` and `while` on scalars in the kernel itself, mc.where on tiles",
        )

    def __int__(self) -> int:
        raise NotConstantError(
            f"a value of type {self!r} is not known at compile time", "convert it in the kernel: x.to(mc.i32)"
        )

    def __float__(self) -> float:
        raise NotConstantError(
            f"a value of type {self!r} is not known at compile time", "convert it in the kernel: x.to(mc.f32)"
        )

    __index__ = __int__

    def __len__(self) -> int:
        raise OperandError(
            f"a tile of type {self!r} has no length", "its sizes are x.shape, the first is x.shape[0]"
        )

    def __iter__(self) -> Any:
        raise OperandError(
            "a tile cannot be iterated over", "work on the whole tile, or reduce it along an axis"
        )

    def __add__(self, other: Any) -> Tile:
        return _ops().add(self, other)

    def __radd__(self, other: Any) -> Tile:
        return _ops().add(other, self)

    def __sub__(self, other: Any) -> Tile:
        return _ops().subtract(self, other)

    def __rsub__(self, other: Any) -> Tile:
        return _ops().subtract(other, self)

    def __mul__(self, other: Any) -> Tile:
        return _ops().multiply(self, other)

    def __rmul__(self, other: Any) -> Tile:
        return _ops().multiply(other, self)

    def __truediv__(self, other: Any) -> Tile:
        return _ops().divide(self, other)

    def __rtruediv__(self, other: Any) -> Tile:
        return _ops().divide(other, self)

    def __floordiv__(self, other: Any) -> Tile:
        return _ops().floor_divide(self, other)

    def __rfloordiv__(self, other: Any) -> Tile:
        return _ops().floor_divide(other, self)

    def __mod__(self, other: Any) -> Tile:
        return _ops().remainder(self, other)

    def __rmod__(self, other: Any) -> Tile:
        return _ops().remainder(other, self)

    def __pow__(self, other: Any) -> Tile:
        return _ops().power(self, other)

    def __rpow__(self, other: Any) -> Tile:
        return _ops().power(other, self)

    def __matmul__(self, other: Any) -> Tile:
        return _ops().dot(self, other)

    def __and__(self, other: Any) -> Tile:
        return _ops().bitwise_and(self, other)

    def __rand__(self, other: Any) -> Tile:
        return _ops().bitwise_and(other, self)

    def __or__(self, other: Any) -> Tile:
        return _ops().bitwise_or(self, other)

    def __ror__(self, other: Any) -> Tile:
        return _ops().bitwise_or(other, self)

    def __xor__(self, other: Any) -> Tile:
        return _ops().bitwise_xor(self, other)

    def __rxor__(self, other: Any) -> Tile:
        return _ops().bitwise_xor(other, self)

    def __lshift__(self, other: Any) -> Tile:
        return _ops().shift_left(self, other)

    def __rlshift__(self, other: Any) -> Tile:
        return _ops().shift_left(other, self)

    def __rshift__(self, other: Any) -> Tile:
        return _ops().shift_right(self, other)

    def __rrshift__(self, other: Any) -> Tile:
        return _ops().shift_right(other, self)

    def __neg__(self) -> Tile:
        return _ops().negate(self)

    def __pos__(self) -> Tile:
        return self

    def __invert__(self) -> Tile:
        return _ops().bitwise_not(self)

    def __abs__(self) -> Tile:
        return _ops().abs(self)

    def __eq__(self, other: Any) -> Tile:  # type: ignore[override]
        return _ops().equal(self, other)

    def __ne__(self, other: Any) -> Tile:  # type: ignore[override]
        return _ops().not_equal(self, other)

    def __lt__(self, other: Any) -> Tile:
        return _ops().less(self, other)

    def __le__(self, other: Any) -> Tile:
        return _ops().less_equal(self, other)

    def __gt__(self, other: Any) -> Tile:
        return _ops().greater(self, other)

    def __ge__(self, other: Any) -> Tile:
        return _ops().greater_equal(self, other)


@dataclass(frozen=True, eq=False)
class Array:
    """A view of a kernel's array argument.

    `axes` are the argument's dimensions that the view still has, in the view's order; the others are fixed at
    `point`.
    """

    value: ir.Value
    name: str
    dtype: DType
    sizes: tuple[Tile | int, ...]  # of the whole argument
    access: Access | None
    axes: tuple[int, ...]
    point: tuple[tuple[int, Tile | int], ...] = ()

    @property
    def shape(self) -> tuple[Tile | int, ...]:
        """The view's dimensions: a number where it is fixed at compile time, otherwise an i32 scalar."""
        return tuple(self.sizes[a] for a in self.axes)

    @property
    def ndim(self) -> int:
        return len(self.axes)

    @property
    def T(self) -> Array:
        """The view with its last two dimensions exchanged; no data moves."""
        if self.ndim < 2:
            raise ShapeError(f"{self!r} has {_dimensions(self.ndim)}, .T needs two", "use it as it is")
        return replace(self, axes=(*self.axes[:-2], self.axes[-1], self.axes[-2]))

    def permute(self, *order: int) -> Array:
        """The view with its dimensions in another order; no data moves."""
        if sorted(order) != list(range(self.ndim)):
            raise ShapeError(
                f"{order} is not an order of the {self.ndim} dimensions of {self!r}",
                "name each dimension once",
            )
        return replace(self, axes=tuple(self.axes[d] for d in order))

    def __getitem__(self, index: Any) -> Array:
        """`q[b, h]`: the view with its first dimensions fixed at these indices (i32 scalars or numbers)."""
        items = index if isinstance(index, tuple) else (index,)
        for item in items:
            if isinstance(item, slice) or item is None or item is Ellipsis:
                raise OperandError(
                    "an array is not sliced",
                    f"load the block: mc.load({self.name}, {self._block()})",
                )
            _ops().require_index(item, "an array index")
        if len(items) >= self.ndim:
            raise ShapeError(
                f"{self!r} has {_dimensions(self.ndim)}: fixing {len(items)} leaves no block to load",
                "leave at least one dimension: mc.load(a[i], j, BLOCK), or use mc.gather for single elements",
            )
        point = (*self.point, *zip(self.axes, items))
        return replace(self, axes=self.axes[len(items) :], point=point)

    def _block(self) -> str:
        """A block of as many dimensions, as it may be given to mc.load."""
        offsets = [f"i{axis}" for axis in range(self.ndim)] if self.ndim > 3 else list("ijk"[: self.ndim])
        sizes = {1: ["BLOCK"], 2: ["BM", "BN"]}.get(self.ndim, [f"B{axis}" for axis in range(self.ndim)])
        written = [", ".join(items) + "," * (len(items) == 1) for items in (offsets, sizes)]
        return f"offset=({written[0]}), shape=({written[1]})"

    def __repr__(self) -> str:
        return f"array '{self.name}'"

    def __bool__(self) -> bool:
        raise NotConstantError(
            f"{self!r} cannot be tested for truth",
            f"to ask whether an optional array was given, write `{self.name} is not None`",
        )

    def _no_arithmetic(self, *_: Any) -> Any:
        raise OperandError(
            f"{self!r} is an array in memory, not a tile",
            f"load a block first: mc.load({self.name}, index, shape)",
        )

    def _no_pointer(self, other: Any) -> Any:
        """`x + offsets`: a pointer elsewhere."""
        if isinstance(other, int) or (isinstance(other, Tile) and other.dtype.is_integer):
            raise OperandError(
                f"{self!r} is an array in memory, not a tile",
                f"there are no pointers: mc.load({self.name}, offset=…, shape=…) reads a block, "
                f"mc.gather({self.name}, indices) elements",
            )
        return self._no_arithmetic()

    # Every operator, so that none falls back to Python's own meaning of it.
    __add__ = __radd__ = _no_pointer
    __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _no_arithmetic
    __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __pow__ = __rpow__ = __matmul__ = _no_arithmetic
    __rmatmul__ = __and__ = __rand__ = __or__ = __ror__ = __xor__ = __rxor__ = __lshift__ = _no_arithmetic
    __rlshift__ = __rshift__ = __rrshift__ = __neg__ = __pos__ = __invert__ = __abs__ = _no_arithmetic
    __lt__ = __le__ = __gt__ = __ge__ = _no_arithmetic

    def _not_equal_to(self, other: Any) -> Any:
        if other is None:
            return self.__bool__()
        return self._no_arithmetic()

    __eq__ = __ne__ = _not_equal_to
    __hash__ = object.__hash__
    __array_ufunc__ = None

    def __len__(self) -> int:
        raise OperandError(
            f"{self!r} has no length", f"its sizes are {self.name}.shape, the first is {self.name}.shape[0]"
        )

    def __iter__(self) -> Any:
        raise OperandError(
            f"{self!r} cannot be iterated over", f"load blocks of it: mc.load({self.name}, index, shape)"
        )
