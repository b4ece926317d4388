"""Random well-typed programs, drawn by Hypothesis, which also makes a failing one small.

Expressions are generated for a type that is asked for, so every program is well-typed. The first choice of each kind
is the simplest: Hypothesis shrinks towards it. What docs/language.md leaves undefined, and what would depend on the
order of a floating-point sum, is avoided by construction (see evaluate.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, TypeVar

import numpy as np
from hypothesis import strategies as st

from .program import (
    COMPARISONS,
    DTYPES,
    FLOATS,
    INTEGERS,
    SIGNED,
    STORED,
    SUMMED_IN_I32,
    Array,
    Assign,
    AtomicAdd,
    Bitcast,
    Block,
    Broadcast,
    Cat,
    Conditional,
    Convert,
    Dim,
    Dot,
    Elementwise,
    ExpandDims,
    Expr,
    For,
    Full,
    Gather,
    If,
    Iota,
    Literal,
    Load,
    Node,
    NumPrograms,
    Permute,
    Place,
    Power,
    Program,
    ProgramId,
    Reduce,
    Reshape,
    Return,
    Scalar,
    Scan,
    Scatter,
    Split,
    Statement,
    StaticFor,
    StaticIf,
    StaticIndex,
    Store,
    Type,
    Var,
    View,
    While,
    programs_of,
)

T = TypeVar("T")
COMPUTED = (*SIGNED[:1], *FLOATS[:1], "bool", *INTEGERS[1:], *FLOATS[1:])
ATOMIC = ("i32", "f32", "i64", "u32", "f64")
SAME_WIDTH = {name: [o for o in DTYPES if o != name and DTYPES[o].itemsize == DTYPES[name].itemsize
                     and o not in ("bool", *STORED)] for name in COMPUTED if name != "bool"}  # fmt: skip
MAX_TILE = 512  # elements
MAX_DEPTH = 3
MAX_STATEMENTS = 14
I32 = Type("i32")
BOOL = Type("bool")


def is_float(dtype: str) -> bool:
    return dtype in FLOATS or dtype in STORED


@cache
def below(count: int) -> st.SearchStrategy[int]:
    return st.integers(0, count - 1)


def op(name: str, *operands: Expr) -> Elementwise:
    return Elementwise(name, operands)


def lit(value: bool | int | float, dtype: str = "i32") -> Literal:
    return Literal(value, dtype)


@dataclass(frozen=True)
class Variable:
    """What is known of a variable in scope.

    counts: the dimension, and the extent of the blocks that it counts, if it does; in elements if `in_elements`.
    small: whether a scalar i32 stays far from wrapping around. fixed: it is not assigned again.
    """

    var: Expr
    counts: tuple[str, int] | None = None
    in_elements: bool = False
    small: bool = False
    fixed: bool = False


@dataclass(frozen=True)
class Owned:
    """A dimension of which each program owns a block: that of number `coordinate`."""

    dim: str
    coordinate: Expr
    extent: int


@dataclass
class Generator:
    """Draws one program. `scope` holds the variables that may be read at this point."""

    draw: Callable[[st.SearchStrategy[Any]], Any]
    scope: dict[str, Variable] = field(default_factory=dict)
    arrays: list[Array] = field(default_factory=list)
    scalars: list[Scalar] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)
    multiples: dict[str, int] = field(default_factory=dict)
    owned: tuple[Owned, ...] = ()
    home: dict[str, tuple[Owned, ...]] = field(
        default_factory=dict
    )  # arrays that programs write, and whose part
    places: list[tuple[Place, Type]] = field(default_factory=list)  # of blocks in them
    earlier: list[Expr] = field(default_factory=list)  # that may be computed again
    grid_axes: int = 1
    names: int = 0
    loops: int = 0
    statements: int = 0

    # Choices.

    def number(self, count: int) -> int:
        return self.draw(below(count))

    def pick(self, items: Sequence[T]) -> T:
        return items[self.number(len(items))] if len(items) > 1 else items[0]

    def chance(self, percent: int) -> bool:
        """Rarely true choices shrink to false."""
        return self.number(100) >= 100 - percent

    def name(self, prefix: str) -> str:
        self.names += 1
        return f"{prefix}{self.names}"

    @contextmanager
    def nested(self) -> Iterator[None]:
        """What is assigned inside is not seen outside."""
        outer = dict(self.scope)
        yield
        self.scope = outer

    # Types.

    def dtype(self) -> str:
        return COMPUTED[self.number(4)] if self.chance(60) else self.pick(COMPUTED)

    def shape(self) -> tuple[int, ...]:
        """That of a variable or a block in use, or any."""
        known = list(dict.fromkeys(v.var.type.shape for v in self.scope.values() if v.var.type.shape))
        if known and self.chance(60):
            return self.pick(known)
        extents = [owned.extent for owned in self.owned] + [4, 1, 2, 8, 16]
        shape = tuple(self.pick(extents) for _ in range(1 + self.number(100) // 45))
        while np.prod(shape) > MAX_TILE:
            shape = shape[1:]
        return shape

    def type(self) -> Type:
        if self.chance(20):
            return Type(self.dtype())
        return Type(self.dtype(), self.shape())

    # Expressions.

    def group(self, function: Callable[..., T], *arguments: Any) -> T:
        """What a function draws, as choices that belong together: Hypothesis leaves them out as a whole."""
        return self.draw(_drawn_by(self, function, *arguments))

    def tile(self, type_: Type, depth: int) -> Expr:
        """An expression of a type."""
        return self.group(self.expression, type_, depth)

    def expression(self, type_: Type, depth: int) -> Expr:
        if depth <= 0:
            return self.leaf(type_)
        if self.chance(12) and (again := self.again(type_)) is not None:
            return again
        rules = [rule for rule in self.rules(type_) for _ in range(rule[0])]
        result = self.pick(rules)[1](type_, depth - 1)
        assert result.type == type_, (result, type_)
        self.earlier.append(result)
        return result

    def again(self, type_: Type) -> Expr | None:
        """What was computed before, whose variables may have changed since."""
        fitting = [e for e in self.earlier if e.type == type_ and self.in_scope(e)]
        return self.pick(fitting[-8:]) if fitting else None

    def in_scope(self, node: Node) -> bool:
        known = {v.var for v in self.scope.values()}
        return all(n in known for n in node.walk() if isinstance(n, (Var, StaticIndex)))

    def variables(self, type_: Type) -> list[Expr]:
        return [v.var for v in self.scope.values() if v.var.type == type_]

    def leaf(self, type_: Type) -> Expr:
        if (known := self.variables(type_)) and self.chance(70):
            return self.pick(known[::-1])
        if type_.shape and self.chance(50):
            return self.load(type_, 0)
        return self.constant(type_)

    def constant(self, type_: Type) -> Expr:
        dtype, shape = type_.dtype, type_.shape
        if not shape:
            if dtype == "i32" and self.chance(50):
                return self.small_scalar()
            if self.chance(15):
                return self.parameter(dtype)
            return self.literal(dtype)
        if dtype == "i32" and len(shape) == 1 and self.chance(50):
            return Iota(shape[0])
        return Full(shape, self.literal(dtype))

    def literal(self, dtype: str) -> Literal:
        if dtype == "bool":
            return lit(bool(self.number(2)), dtype)
        if dtype in FLOATS:
            return lit(self.pick((0.0, 1.0, 2.0, -1.0, 0.5, -2.5, 3.0, 64.0)), dtype)
        limits = np.iinfo(DTYPES[dtype])
        values = [0, 1, 2, 3, 5, 7, int(limits.max), 100, int(limits.max) - 1, int(limits.min)]
        return lit(self.pick(values + ([-1, -2, -3, int(limits.min) + 1] if limits.min else [])), dtype)

    def parameter(self, dtype: str) -> Expr:
        known = [s for s in self.scalars if s.dtype == dtype]
        if not known:
            known = [Scalar(self.name("s"), dtype, self.literal(dtype).value)]
            self.scalars += known
        return Var(known[0].name, Type(dtype))

    def rules(self, type_: Type) -> list[tuple[int, Callable[[Type, int], Expr]]]:
        """The ways to make an expression of a type, with weights."""
        dtype, shape = type_.dtype, type_.shape
        rank, is_int = len(shape), dtype in INTEGERS
        rules: list[tuple[int, Callable[[Type, int], Expr]]] = [
            (2, lambda t, d: self.leaf(t)),
            (6, self.logic if dtype == "bool" else self.arithmetic),
            (2, self.choice),
            (2, self.conversion),
        ]
        if dtype == "bool":
            rules.append((5, self.comparison))
        if is_int:
            rules += [(2, self.division), (2, self.bits)]
        if dtype in FLOATS:
            rules.append((3, self.function))
        if dtype != "bool":
            rules.append((1, self.reinterpreted))
        if not shape:
            rules += [(3, self.total), (1, self.element), (1, self.conditional)]
        else:
            rules += [
                (5, self.load),
                (2, self.reshaped),
                (2, self.broadcast),
                (1, self.gathered),
                (2, self.scanned),
            ]
            rules.append((1, self.conditional))
            if rank < 3 and 2 * type_.size <= MAX_TILE:
                rules.append((4, self.reduced))
            if any(n > 1 for n in shape):
                rules.append((2, self.joined))
            if 1 in shape and rank > 1:
                rules.append((1, self.kept))
        if rank >= 2:
            rules.append((2, self.permuted))
            if dtype in ("f32", "i32", "f16", "f64") and rank == 2 and min(shape) >= 16:
                rules.append((12, self.product))
        return rules

    def operand(self, type_: Type, depth: int) -> Expr:
        """A tile that broadcasts to a type's shape: a number, a scalar, some dimensions of it."""
        dtype, shape = type_.dtype, type_.shape
        match self.number(8):
            case 0 | 1 | 2:
                return self.tile(type_, depth)
            case 3:
                return self.literal(dtype)
            case 4:
                return self.tile(Type(dtype), min(depth, 1))
            case 5 if len(shape) > 1:
                return self.tile(Type(dtype, shape[1:]), depth)
            case 6 if len(shape) > 1:
                axis = self.number(len(shape))
                without = shape[:axis] + shape[axis + 1 :]
                return ExpandDims(self.tile(Type(dtype, without), depth), axis)
        return self.tile(type_, depth)

    def pair(self, type_: Type, depth: int) -> tuple[Expr, Expr]:
        """Two operands whose broadcast shape is the type's."""
        a, b = self.tile(type_, depth), self.operand(type_, depth)
        return (b, a) if self.chance(25) else (a, b)

    def arithmetic(self, type_: Type, depth: int) -> Expr:
        if self.chance(15):
            return self.unary(type_, depth)
        names = ("+", "-", "*", "minimum", "maximum", "clamp") + (("/",) if type_.dtype in FLOATS else ())
        name = self.pick(names)
        if name == "clamp":
            low, high = sorted((self.literal(type_.dtype) for _ in range(2)), key=lambda v: v.value)
            return op("clamp", self.tile(type_, depth), low, high)
        a, b = self.pair(type_, depth)
        return op("/", a, self.nonzero(b)) if name == "/" else op(name, a, b)

    def nonzero(self, x: Expr) -> Expr:
        """x, where it is not zero."""
        if isinstance(x, Literal):
            return x if x.value else lit(1.0, x.dtype)
        return op("where", op("==", x, lit(0.0, x.type.dtype)), lit(1.0, x.type.dtype), x)

    def unary(self, type_: Type, depth: int) -> Expr:
        x = self.tile(type_, depth)
        match self.number(3):
            case 0:
                return op("neg", x)
            case 1:
                return op("abs", x)
        return Power(x, self.number(4))

    def division(self, type_: Type, depth: int) -> Expr:
        name = self.pick(("//", "%", "cdiv"))
        a, dtype = self.tile(type_, depth), type_.dtype
        if self.chance(40):
            positive = op("+", op("&", self.operand(type_, depth), lit(15, dtype)), lit(1, dtype))
            return op(name, a, positive)
        numbers = (2, 1, 3, 4, 8, 16, 100) + ((-2, -3, -8) if dtype in SIGNED else ())
        return op(name, a, lit(self.pick(numbers), dtype))

    def bits(self, type_: Type, depth: int) -> Expr:
        name = self.pick(("&", "|", "^", "<<", ">>", "invert"))
        if name == "invert":
            return op("invert", self.tile(type_, depth))
        a, b = self.tile(type_, depth), self.operand(type_, depth)
        if name in ("<<", ">>"):
            width = DTYPES[type_.dtype].itemsize * 8
            b = lit(self.pick((1, 2, 3, width - 1)), type_.dtype) if self.chance(50) else op(
                "&", b, lit(width - 1, type_.dtype)
            )  # fmt: skip
        return op(name, a, b)

    def function(self, type_: Type, depth: int) -> Expr:
        exact, rounded = (
            ("floor", "ceil", "sqrt"),
            ("exp", "exp2", "log", "log2", "sin", "cos", "tanh", "sigmoid"),
        )
        # In f64 the last bit of NumPy's functions depends on where in memory a number lies.
        name = self.pick(exact if type_.dtype == "f64" else (*exact, *rounded, "rsqrt"))
        x = self.tile(type_, depth)
        return op(name, self.nonzero(op("abs", x)) if name in ("rsqrt", "log", "log2") else x)

    def choice(self, type_: Type, depth: int) -> Expr:
        condition = self.operand(Type("bool", type_.shape), depth)
        if isinstance(condition, Literal):
            condition = self.comparison(Type("bool"), 0)
        a, b = self.pair(type_, depth)
        return op("where", condition, a, b)

    def logic(self, type_: Type, depth: int) -> Expr:
        names = ("&", "|", "^", "invert") + (("and", "or", "not") if not type_.shape else ())
        name = self.pick(names)
        if name in ("invert", "not"):
            return op(name, self.tile(type_, depth))
        a, b = self.tile(type_, depth), self.tile(type_, depth)
        if name in ("and", "or") and (isinstance(a, Literal) or isinstance(b, Literal)):
            return op("&", a, b)
        return op(name, a, b)

    def comparison(self, type_: Type, depth: int) -> Expr:
        dtype = self.pick([d for d in COMPUTED if d != "bool"])
        return op(self.pick(COMPARISONS), *self.pair(Type(dtype, type_.shape), depth))

    def conditional(self, type_: Type, depth: int) -> Expr:
        return Conditional(self.condition(depth), self.tile(type_, depth), self.tile(type_, depth))

    def condition(self, depth: int) -> Expr:
        """A truth value that is known when the kernel runs."""
        if self.chance(40):
            return self.tile(BOOL, depth)
        return op(self.pick(COMPARISONS), self.small_scalar(), lit(self.number(4)))

    def conversion(self, type_: Type, depth: int) -> Expr:
        source = self.pick([d for d in (*COMPUTED, *STORED) if d != type_.dtype])
        if source in STORED:
            if not type_.shape:
                source = "f32"
            else:
                return converted(self.load(Type(source, type_.shape), depth), type_.dtype)
        return converted(self.tile(Type(source, type_.shape), depth), type_.dtype)

    def reinterpreted(self, type_: Type, depth: int) -> Expr:
        source = self.pick(SAME_WIDTH[type_.dtype])
        x = self.tile(Type(source, type_.shape), depth)
        if source in FLOATS:  # neither a NaN, which has many bit patterns, nor a zero, which has a sign
            one = lit(1.0, source)
            x = op("where", op("&", op("==", x, x), op("!=", x, lit(0.0, source))), x, one)
        return Bitcast(x, type_.dtype)

    # Shapes.

    def reshaped(self, type_: Type, depth: int) -> Expr:
        size, shapes = type_.size, [(type_.size,)]
        shapes += [(n, size // n) for n in (1, 2, 4, 8, 16) if size % n == 0]
        shapes += [(2, n, size // n // 2) for n in (1, 2, 4) if size % (2 * n) == 0]
        return Reshape(self.tile(Type(type_.dtype, self.pick(shapes)), depth), type_.shape)

    def broadcast(self, type_: Type, depth: int) -> Expr:
        shape = type_.shape[self.number(len(type_.shape) + 1) :]
        shape = tuple(1 if self.chance(30) else n for n in shape)
        return Broadcast(self.tile(Type(type_.dtype, shape), depth), type_.shape)

    def kept(self, type_: Type, depth: int) -> Expr:
        """x[:, None], or a reduction that keeps its dimension."""
        axis = type_.shape.index(1)
        shape = type_.shape[:axis] + type_.shape[axis + 1 :]
        if self.chance(50) and type_.dtype != "bool":
            wide = (*type_.shape[:axis], self.pick((4, 2, 8)), *type_.shape[axis + 1 :])
            return Reduce("max", (self.tile(Type(type_.dtype, wide), depth),), axis, True)
        return ExpandDims(self.tile(Type(type_.dtype, shape), depth), axis)

    def permuted(self, type_: Type, depth: int) -> Expr:
        order = self.order(len(type_.shape), identity=False)
        shape = [0] * len(order)
        for axis, extent in zip(order, type_.shape):
            shape[axis] = extent
        return Permute(self.tile(Type(type_.dtype, tuple(shape)), depth), order)

    def order(self, rank: int, identity: bool = True) -> tuple[int, ...]:
        orders = {1: [(0,)], 2: [(0, 1), (1, 0)], 3: [(0, 1, 2), (0, 2, 1), (1, 0, 2), (2, 0, 1), (2, 1, 0)]}[
            rank
        ]
        return self.pick(orders if identity else orders[1:])

    def joined(self, type_: Type, depth: int) -> Expr:
        axis = self.pick([axis for axis, n in enumerate(type_.shape) if n > 1])
        shape = list(type_.shape)
        shape[axis] //= 2
        half = Type(type_.dtype, tuple(shape))
        known = [v for v in self.variables(half)]
        if len(known) > 1 and self.chance(50):  # two parts of a split, perhaps
            number = self.number(len(known) - 1)
            return Cat(known[number], known[number + 1], axis)
        return Cat(self.tile(half, depth), self.tile(half, depth), axis)

    # Reductions, scans, products.

    def exact(self, type_: Type, depth: int, op_: str) -> Expr:
        """A tile whose sums (or products) do not depend on their order: small whole numbers (powers of two)."""
        dtype = type_.dtype
        if dtype not in FLOATS:
            return self.tile(type_, depth)
        if op_ in ("prod", "cumprod"):
            return op(
                "where", op(">", self.tile(type_, depth), lit(0.0, dtype)), lit(2.0, dtype), lit(1.0, dtype)
            )
        if type_.shape and self.chance(60):
            return self.load_small(type_)
        if self.chance(60):
            return small_float(self.tile(type_, depth))
        return Convert(op("&", self.tile(Type("i32", type_.shape), depth), lit(7)), dtype)

    def reduced(self, type_: Type, depth: int) -> Expr:
        """Of a tile with one dimension more."""
        room = MAX_TILE // max(type_.size, 1)
        extent = self.pick([n for n in (4, 2, 1, 8, 16) if n <= room] or [1])
        axis = self.number(len(type_.shape) + 1)
        shape = (*type_.shape[:axis], extent, *type_.shape[axis:])
        return self.reduction(type_.dtype, shape, axis, depth)

    def total(self, type_: Type, depth: int) -> Expr:
        shape = self.shape()
        return self.reduction(type_.dtype, shape, None if len(shape) > 1 else 0, depth)

    def reduction(self, dtype: str, shape: tuple[int, ...], axis: int | None, depth: int) -> Expr:
        if dtype == "bool":
            return Reduce(self.pick(("any", "all")), (self.tile(Type("bool", shape), depth),), axis, False)
        names = ["max", "min"]
        names += [] if dtype in SUMMED_IN_I32 else ["sum", "prod"]
        names += ["argmax", "argmin"] * (dtype == "i32") + ["mean"] * (dtype in FLOATS)
        names += ["xor", "sum and least"] * (dtype in INTEGERS) + ["larger"]
        name = self.pick(names)
        match name:
            case "sum" | "prod":
                source = self.pick(("i32", *SUMMED_IN_I32)) if dtype == "i32" else dtype
                return Reduce(name, (self.exact(Type(source, shape), depth, name),), axis, False)
            case "mean":
                return Reduce(name, (self.exact(Type(dtype, shape), depth, name),), axis, False)
            case "argmax" | "argmin":
                source = self.pick([d for d in COMPUTED if d != "bool"])
                return Reduce(name, (self.tile(Type(source, shape), depth),), axis, False)
            case "sum and least":
                pick = self.number(2)
                other = self.pick(INTEGERS)
                types = (dtype, other) if pick == 0 else (other, dtype)
                return Reduce(name, tuple(self.tile(Type(t, shape), depth) for t in types), axis, False, pick)
        return Reduce(name, (self.tile(Type(dtype, shape), depth),), axis, False)

    def scanned(self, type_: Type, depth: int) -> Expr:
        dtype, shape = type_.dtype, type_.shape
        axis, reverse = self.number(len(shape)), self.chance(30)
        if dtype in ("bool", *SUMMED_IN_I32):
            names = ["last nonzero"] if dtype != "bool" else ["xor"]
        else:
            names = ["cumsum", "cumprod", "last nonzero"]
        name = self.pick(names + ["affine", "wrapping"] * (dtype in INTEGERS))
        if name == "affine":
            tiles = tuple(self.tile(type_, depth) for _ in range(2))
            return Scan(name, tiles, axis, reverse, self.number(2))
        source = self.pick(("i32", *SUMMED_IN_I32)) if dtype == "i32" and name.startswith("cum") else dtype
        return Scan(name, (self.exact(Type(source, shape), depth, name),), axis, reverse)

    def product(self, type_: Type, depth: int, acc: Expr | None = None) -> Expr:
        """A matrix product, with something added to it: acc, if it is given."""
        (m, n), dtype = type_.shape, type_.dtype
        source = self.pick(
            {"f32": ("bf16", "f16", "f32"), "f16": ("f16",), "f64": ("f64",), "i32": ("i8",)}[dtype]
        )
        k = 32 if source == "i8" else 16
        a, b = (self.exact(Type(source, shape), depth, "sum") for shape in ((m, k), (k, n)))
        precision = self.pick(("ieee", "tf32", "tf32x3")) if source == "f32" else "ieee"
        if acc is None:
            if self.chance(30):
                return Dot(a, b, None, dtype, precision)
            acc = self.tile(type_, depth)
        if self.chance(40):
            return op("+", Dot(a, b, None, dtype, precision), acc)
        return Dot(a, b, acc, dtype, precision)

    # Indices.

    def small_scalar(self) -> Expr:
        """An i32 scalar far from wrapping around."""
        known = [v.var for v in self.scope.values() if v.small]
        match self.number(6):
            case 0 | 1 | 2 if known:
                return self.pick(known[::-1])
            case 3 if self.arrays:
                return self.dimension()
            case 4:
                return NumPrograms(self.number(self.grid_axes))
            case 5:
                return lit(self.number(5))
        return ProgramId(self.number(self.grid_axes))

    def dimension(self, name: str | None = None) -> Expr:
        found = [
            Dim(array.name, axis)
            for array in self.arrays
            for axis, dim in enumerate(array.dims)
            if isinstance(dim, str) and dim in (name, *self.sizes) and (name is None or dim == name)
        ]
        return self.pick(found) if found else lit(self.sizes.get(name or "", 3))

    def index(self, dim: str | int, extent: int, in_elements: bool) -> Expr | int:
        """Where to start in a dimension: a tile's number, or an element's."""
        counting = [
            v for v in self.scope.values() if v.counts == (dim, extent) and v.in_elements == in_elements
        ]
        if counting and self.chance(70):
            return self.pick(counting).var
        match self.number(7):
            case 0 | 1:
                return self.literal_index(dim, extent, in_elements)
            case 2:
                return op("+", self.small_scalar(), lit(self.number(9) - 4))
            case 3:
                a, b = self.small_scalar(), self.pick((2, 3, extent, 1, 8))
                return op(self.pick(("//", "%")), op("+", a, lit(self.number(20))), lit(b))
            case 4:
                scaled = op("*", self.small_scalar(), lit(self.pick((extent, 2, 3))))
                return op(self.pick(("+", "-")), scaled, self.pick((lit(1), lit(0), self.small_scalar())))
            case 5:
                return op(self.pick(("minimum", "maximum")), self.small_scalar(), lit(self.number(6) - 1))
        wild = self.tile(I32, 1)
        if in_elements and self.chance(20):
            return wild
        return op("clamp", wild, lit(-3), lit(9))

    def literal_index(self, dim: str | int, extent: int, in_elements: bool) -> int:
        """In a dimension that is fixed, one that meets it: others are refused."""
        last = dim - 1 if isinstance(dim, int) else 5
        if in_elements:
            return self.number(min(last, 5) + 1) if not self.chance(30) else -self.number(extent)
        return self.number(last // extent + 1)

    # Memory.

    def load(self, type_: Type, depth: int) -> Expr:
        accessed = [p for p, t in self.places if t == type_ and self.in_scope(p)]
        if accessed and self.chance(50):
            return Load(self.pick(accessed[::-1]), type_, self.pad(type_.dtype))
        owned = [a for a in self.arrays if a.name in self.home and a.dtype == type_.dtype]
        if owned and self.chance(50):
            place = self.owned_place(self.pick(owned), type_.shape)
            if place is not None:
                return Load(place, type_, self.pad(type_.dtype))
        return self.block_of(self.read_array(type_.dtype, len(type_.shape)), type_, self.pad(type_.dtype))

    def block_of(self, array: Array, type_: Type, pad: bool | int | float) -> Load:
        """A block of a view of an array."""
        view = self.view(array, len(type_.shape))
        dims = array.dims[len(view.point) :]
        in_elements = self.chance(40)
        starts = tuple(self.index(dims[a], e, in_elements) for a, e in zip(view.order, type_.shape))
        return Load(Place(view, starts, in_elements), type_, pad)

    def load_small(self, type_: Type) -> Expr:
        """A block of an array of small whole numbers, perhaps transposed."""
        order = self.order(len(type_.shape))
        shape = [0] * len(order)
        for axis, extent in zip(order, type_.shape):
            shape[axis] = extent
        array = self.read_array(type_.dtype, len(shape), small=True)
        block = self.block_of(array, Type(type_.dtype, tuple(shape)), 0.0)
        return block if block.type == type_ and order == tuple(range(len(order))) else Permute(block, order)

    def pad(self, dtype: str) -> bool | int | float:
        if dtype == "bool":
            return self.chance(30)
        if is_float(dtype):
            return self.pick((0.0, 0.0, 0.0, -1.5, float("-inf"))) if dtype in FLOATS else 0.0
        return self.pick((0, 0, 0, 1, 7))

    def read_array(self, dtype: str, rank: int, small: bool = False) -> Array:
        """An array that the kernel does not write, with at least as many dimensions."""
        prefix = "c" if small else "a"
        known = [a for a in self.arrays if a.dtype == dtype and len(a.dims) >= rank and a.name[0] == prefix]
        if known and (len(self.arrays) > 5 or not self.chance(30)):
            return self.pick(known)
        rank = min(3, rank + (1 if self.chance(20) else 0))
        dims = tuple(self.pick((*self.sizes, 24, 5)) for _ in range(rank))
        array = Array(self.name(prefix), dtype, dims, self.pick(("", "In")), small)
        self.arrays.append(array)
        return array

    def view(self, array: Array, rank: int) -> View:
        point = tuple(self.index(dim, 1, False) for dim in array.dims[: len(array.dims) - rank])
        return View(array.name, point, self.order(rank) if rank else ())

    def element(self, type_: Type, depth: int) -> Expr:
        """A scalar from memory."""
        array = self.read_array(type_.dtype, 1)
        indices = tuple(op("+", self.small_scalar(), lit(self.number(4))) for _ in array.dims)
        view = View(array.name, (), tuple(range(len(array.dims))))
        return Gather(view, type_.dtype, indices, None, self.pad(type_.dtype))

    def gathered(self, type_: Type, depth: int) -> Expr:
        shape = type_.shape
        array = self.read_array(type_.dtype, 1)
        view = self.view(array, 1 + self.number(len(array.dims)))
        first = self.tile(Type("i32", shape), depth)
        rest = tuple(self.tile(Type("i32", shape[1:]), min(depth, 1)) for _ in view.order[1:])
        mask = self.tile(Type("bool", shape), depth) if self.chance(40) else None
        return Gather(view, type_.dtype, (first, *rest), mask, self.pad(type_.dtype))

    # What each program owns, and may write.

    def home_array(self) -> Array:
        """An array with the dimensions of which programs own parts, in some order, and perhaps others."""
        known = [a for a in self.arrays if a.name in self.home and self.home[a.name] == self.owned]
        if known and not self.chance(25):
            return self.pick(known)
        dims: list[str | int] = [owned.dim for owned in self.owned]
        if len(dims) < 3 and self.chance(40):
            dims.insert(self.number(len(dims) + 1), self.pick((8, "K", 5)))
        if len(dims) == 2 and self.chance(30):
            dims.reverse()
        dtype = self.pick((*COMPUTED, "f8e5m2", "f8e4m3"))
        array = Array(self.name("h"), dtype, tuple(dims), self.pick(("", "InOut")))
        self.arrays.append(array)
        self.home[array.name] = self.owned
        return array

    def owned_shape(self, array: Array) -> tuple[int, ...]:
        extents = {owned.dim: owned.extent for owned in self.home[array.name]}
        shape = []
        for dim in array.dims:
            extent = extents.get(dim, 0) or self.pick((4, 1, 2))
            shape.append(extent // 2 if extent > 1 and dim in extents and self.chance(25) else extent)
        return tuple(shape)

    def owned_place(self, array: Array, shape: tuple[int, ...]) -> Place | None:
        """A block of a shape in the part of an array that this program owns; None if there is none."""
        owners = {owned.dim: owned for owned in self.home[array.name]}
        rank = len(array.dims)
        if self.home[array.name] != self.owned or len(shape) != rank:
            return None
        orders = [(0,), (0, 1), (1, 0), (0, 1, 2), (1, 0, 2), (0, 2, 1)]
        fitting = [
            order
            for order in orders
            if len(order) == rank
            and all(
                array.dims[axis] not in owners or owners[array.dims[axis]].extent % extent == 0
                for axis, extent in zip(order, shape)
            )
        ]
        if not fitting:
            return None
        order, in_elements = self.pick(fitting), self.chance(40)
        starts = tuple(
            self.owned_start(owners[array.dims[axis]], extent, in_elements)
            if array.dims[axis] in owners
            else self.index(array.dims[axis], extent, in_elements)
            for axis, extent in zip(order, shape)
        )
        return Place(View(array.name, (), order), starts, in_elements)

    def owned_start(self, owner: Owned, extent: int, in_elements: bool) -> Expr | int:
        parts, spare = owner.extent // extent, owner.extent - extent
        if in_elements:
            start = op("*", owner.coordinate, lit(owner.extent))
            if not spare or self.chance(40):
                return start
            within = op("clamp", self.tile(I32, 1), lit(0), lit(spare)) if self.chance(40) else lit(spare)
            return op("+", start, within)
        if parts == 1:
            return owner.coordinate
        part = op("&", self.small_scalar(), lit(parts - 1)) if self.chance(50) else lit(self.number(parts))
        return op("+", op("*", owner.coordinate, lit(parts)), part)

    # Statements.

    def block(self, depth: int, most: int = 4) -> Block:
        result: list[Statement] = []
        for _ in range(most):
            # A choice before each statement, so that any can be left out.
            if self.statements >= MAX_STATEMENTS or not self.number(6):
                break
            self.statements += 1
            result += self.group(self.statement, depth)
        return tuple(result)

    def statement(self, depth: int) -> Block:
        rules: list[tuple[int, Callable[[int], Block]]] = [
            (5, self.assignment),
            (4, self.reassignment),
            (1, self.split),
            (1, self.induction),
            (1, self.atomic_add),
            (1, self.scatter_add),
        ]
        if self.owned:
            rules += [(4, self.store), (3, self.update), (1, self.scatter)]
        if depth:
            rules += [
                (1, self.accumulation),
                (6, self.for_),
                (4, self.if_),
                (2, self.while_),
                (2, self.static_if),
                (1, self.static_for),
            ]
        return self.pick([rule for weight, rule in rules for _ in range(weight)])(depth)

    def assign(self, name: str, value: Expr) -> Assign:
        self.scope[name] = Variable(Var(name, value.type))
        return Assign(name, value)

    def assignment(self, depth: int) -> Block:
        return (self.assign(self.name("x"), self.tile(self.type(), MAX_DEPTH)),)

    def changeable(self) -> list[Var]:
        return [v.var for v in self.scope.values() if isinstance(v.var, Var) and not v.fixed and not v.small]

    def reassignment(self, depth: int) -> Block:
        known = self.changeable()
        if not known:
            return self.assignment(depth)
        var = self.pick(known[::-1])
        if self.chance(50) and var.type.dtype != "bool":
            name = self.pick(("+", "-", "maximum", "*"))
            return (self.assign(var.name, op(name, var, self.tile(var.type, MAX_DEPTH - 1))),)
        return (self.assign(var.name, self.tile(var.type, MAX_DEPTH)),)

    def split(self, depth: int) -> Block:
        type_ = self.type()
        axes = [axis for axis, n in enumerate(type_.shape) if n > 1]
        if not axes:
            return self.assignment(depth)
        axis = self.pick(axes)
        parts = 4 if type_.shape[axis] >= 4 and self.chance(20) else 2
        statement = Split(tuple(self.name("x") for _ in range(parts)), self.tile(type_, MAX_DEPTH - 1), axis)
        for name in statement.names:
            self.scope[name] = Variable(Var(name, statement.type))
        return (statement,)

    def induction(self, depth: int) -> Block:
        """A scalar that advances by the same number each time: an offset that a loop carries."""
        known = [v for v in self.scope.values() if isinstance(v.var, Var) and v.small and not v.fixed]
        if not known:
            return (self.start_of_induction(),)
        variable = self.pick(known)
        assert isinstance(variable.var, Var)
        return (Assign(variable.var.name, op("+", variable.var, lit(self.pick((1, 4, 8, 5, -1))))),)

    def start_of_induction(self) -> Assign:
        name = self.name("at")
        start = op("*", op("%", self.small_scalar(), lit(9)), lit(self.pick((8, 4, 16, 3))))
        self.scope[name] = Variable(Var(name, I32), small=True)
        return Assign(name, start)

    def own_block(self) -> tuple[Place, Type]:
        """A block that this program owns; often one that was accessed before."""
        known = [(p, t) for p, t in self.places if self.in_scope(p)]
        if known and self.chance(60):
            return self.pick(known[::-1])
        array = self.home_array()
        type_ = Type(array.dtype, self.owned_shape(array))
        place = self.owned_place(array, type_.shape)
        assert place is not None
        self.places.append((place, type_))
        return place, type_

    def store(self, depth: int) -> Block:
        place, type_ = self.own_block()
        return (Store(place, self.stored(type_, MAX_DEPTH - 1)),)

    def update(self, depth: int) -> Block:
        """A block of its own is read, changed and written back."""
        place, type_ = self.own_block()
        dtype, shape = type_.dtype, type_.shape
        source = Load(place, type_, False if dtype == "bool" else 0.0 if is_float(dtype) else 0)
        if dtype == "bool":
            return (Store(place, op("^", source, self.tile(type_, 1))),)
        if dtype in STORED:
            changed = op("+", Convert(source, "f32"), self.tile(Type("f32", shape), 1))
            return (Store(place, Convert(changed, dtype)),)
        name = self.name("x")
        self.scope[name] = Variable(Var(name, source.type))
        changed = op(self.pick(("+", "-", "maximum")), Var(name, source.type), self.operand(source.type, 1))
        self.earlier.append(source)
        return (Assign(name, source), Store(place, changed))

    def stored(self, type_: Type, depth: int) -> Expr:
        if type_.dtype in STORED:
            return converted(self.tile(Type("f32", type_.shape), depth), type_.dtype)
        return self.tile(type_, depth)

    def atomic_array(self, rank: int) -> Array:
        known = [a for a in self.arrays if a.name[0] == "t" and len(a.dims) == rank]
        if known and not self.chance(30):
            return self.pick(known)
        dims = tuple(self.pick((8, "K", 5)) for _ in range(rank))
        array = Array(self.name("t"), self.pick(ATOMIC), dims, "InOut")
        self.arrays.append(array)
        return array

    def added(self, dtype: str, shape: tuple[int, ...]) -> Expr:
        """What can be added in any order: integers, which wrap, and small whole numbers."""
        if dtype not in FLOATS:
            return self.tile(Type(dtype, shape), MAX_DEPTH - 1)
        return Convert(op("&", self.tile(Type("i32", shape), MAX_DEPTH - 1), lit(7)), dtype)

    def atomic_add(self, depth: int) -> Block:
        shape = self.shape()[-2:]
        array = self.atomic_array(len(shape))
        in_elements = self.chance(40)
        starts = tuple(self.index(dim, extent, in_elements) for dim, extent in zip(array.dims, shape))
        view = View(array.name, (), tuple(range(len(shape))))
        return (AtomicAdd(Place(view, starts, in_elements), self.added(array.dtype, shape)),)

    def scatter_add(self, depth: int) -> Block:
        shape = self.shape()[-2:]
        array = self.atomic_array(1)
        index = self.tile(Type("i32", shape), MAX_DEPTH - 1)
        index = index if self.chance(30) else op("%", index, lit(7))
        mask = self.tile(Type("bool", shape), 1) if self.chance(40) else None
        return (Scatter(View(array.name, (), (0,)), (index,), self.added(array.dtype, shape), mask, True),)

    def scatter(self, depth: int) -> Block:
        """A block of its own, its elements in another order."""
        array = self.home_array()
        owners = {owned.dim: owned for owned in self.owned}
        rank = len(array.dims)
        indices, shape = [], []
        for axis, dim in enumerate(array.dims):
            extent = owners[dim].extent if dim in owners else self.pick((4, 2, 1))
            within: Expr = op("^", Iota(extent), lit(self.number(extent)))
            if dim in owners:
                within = op("+", op("*", owners[dim].coordinate, lit(extent)), within)
            for other in range(rank):
                if other != axis:
                    within = ExpandDims(within, other if other < axis else len(within.type.shape))
            indices.append(within)
            shape.append(extent)
        type_ = Type(array.dtype, tuple(shape))
        mask = self.tile(Type("bool", type_.shape), 1) if self.chance(50) else None
        view = View(array.name, (), tuple(range(rank)))
        return (Scatter(view, tuple(indices), self.stored(type_, MAX_DEPTH - 1), mask, False),)

    def bounds(self, var: Var) -> tuple[Expr | int, Expr | int, Expr | int, Variable]:
        """A loop's bounds, and what is known of its variable."""
        dim = self.pick(tuple(self.sizes))
        extent = self.pick((4, 8, 16))
        plain = Variable(var, small=True, fixed=True)
        match self.number(7):
            case 0 | 1:
                return 0, self.number(4), 1, plain
            case 2:
                blocks = op("cdiv", self.dimension(dim), lit(extent))
                return 0, op("minimum", blocks, lit(4)), 1, replace(plain, counts=(dim, extent))
            case 3:
                stop = op("minimum", self.dimension(dim), lit(3 * extent + 1))
                return 0, stop, extent, replace(plain, counts=(dim, extent), in_elements=True)
            case 4:
                return self.number(3) - 1, op("clamp", self.tile(I32, 1), lit(-1), lit(3)), 1, plain
            case 5:
                start = op("minimum", self.small_scalar(), lit(7))
                return start, op("+", start, lit(self.number(4))), self.pick((1, 2)), plain
        step = op("+", op("%", self.small_scalar(), lit(3)), lit(1))
        return 0, self.pick((3, 5)), step, plain

    def for_(self, depth: int) -> Block:
        before: list[Statement] = []
        if self.chance(40):
            before.append(self.start_of_induction())
        if not self.changeable() or self.chance(40):
            before.append(self.assign(self.name("x"), self.tile(self.type(), 1)))
        name = self.name("i")
        start, stop, step, variable = self.bounds(Var(name, I32))
        with self.nested():
            self.scope[name] = variable
            body = (*self.block(depth - 1), *self.reassignment(0))
        return (*before, For(name, start, stop, step, body))

    def accumulation(self, depth: int) -> Block:
        """The loop of a matrix product, over the blocks of a dimension or some of them."""
        acc = Var(self.name("x"), Type(self.pick(("f32", "f32", "i32", "f16", "f64")), (16, 16)))
        before = self.assign(acc.name, self.constant(acc.type))
        name = self.name("i")
        extent = 32 if acc.type.dtype == "i32" else 16
        blocks = op("minimum", op("cdiv", self.dimension("K"), lit(extent)), lit(3))
        with self.nested():
            self.scope[name] = Variable(Var(name, I32), ("K", extent), small=True, fixed=True)
            body = (*self.block(depth - 1, 1), Assign(acc.name, self.product(acc.type, 1, acc)))
        return (before, For(name, 0, blocks, 1, body))

    def static_for(self, depth: int) -> Block:
        name = self.name("j")
        count = 1 + self.number(3)
        outer = self.changeable()
        with self.nested():
            self.scope[name] = Variable(StaticIndex(name), small=True, fixed=True)
            body = (*self.block(depth - 1, 3), *(self.reassignment(0) if outer else ()))
        return (StaticFor(name, count, body),)

    def while_(self, depth: int) -> Block:
        counter = Var(self.name("k"), I32)
        before = Assign(counter.name, lit(self.number(2)))
        self.scope[counter.name] = Variable(counter, small=True, fixed=True)
        condition: Expr = op("<", counter, op("minimum", self.small_scalar(), lit(3)))
        if self.chance(40):
            condition = op(
                self.pick(("and", "&")), condition, op("<", self.tile(I32, 1), lit(self.number(9)))
            )
        with self.nested():
            body = (*self.block(depth - 1, 3), *self.reassignment(0))
        return (before, While(condition, (*body, Assign(counter.name, op("+", counter, lit(1))))))

    def branches(self, depth: int) -> tuple[Block, Block]:
        """Two blocks, which may both assign a variable that is new, or one that is not."""
        shared = self.name("x")
        type_ = self.type() if self.chance(60) else None
        results = []
        for number in range(2):
            with self.nested():
                body = self.block(depth - 1, 3) if number == 0 or self.chance(60) else ()
                if type_ is not None:
                    body = (*body, Assign(shared, self.tile(type_, MAX_DEPTH - 1)))
            results.append(body)
        if type_ is not None:
            self.scope[shared] = Variable(Var(shared, type_))
        return results[0], results[1]

    def if_(self, depth: int) -> Block:
        condition = self.condition(1)
        return (If(condition, *self.branches(depth)),)

    def static_if(self, depth: int) -> Block:
        return (StaticIf("FLAG", *self.branches(depth)),)

    # The kernel.

    def size(self, name: str, extent: int) -> None:
        """A dimension around a multiple of the blocks in it."""
        sizes = [2 * extent, extent, extent + 1, max(extent - 1, 0), 2 * extent + 1, 3 * extent, 1, 0]
        self.sizes[name] = self.pick(sizes)
        divisors = [n for n in (1, extent, 2 * extent, 16) if self.sizes[name] % n == 0]
        self.multiples[name] = self.pick(divisors[::-1])

    def grid(self) -> tuple[tuple[str, ...], Block, Callable[[], Block]]:
        """The grid, the statements that say where in it a program stands, and the rest."""
        bm = self.pick((8, 4, 1, 2, 16))
        bn = self.pick((4, 8, 2)) if bm != 16 else self.pick((4, 16))
        self.size("M", bm)
        self.size("N", bn)
        self.size("K", self.pick((4, 8, 16)))
        rows, columns = f"mc.cdiv(M, {bm})", f"mc.cdiv(N, {bn})"
        m, n = Var("m", I32), Var("n", I32)

        def own(*axes: tuple[str, Var, int]) -> None:
            self.owned = tuple(Owned(dim, var, extent) for dim, var, extent in axes)
            for dim, var, extent in axes:
                self.scope[var.name] = Variable(var, (dim, extent), small=True, fixed=True)

        def rest() -> Block:
            return self.block(2, 7)

        kind = self.number(6)
        dims = ("Z", "M", "N") if kind == 3 else ("M", "N")
        self.arrays.append(Array("a0", self.dtype(), dims, ""))
        match kind:
            case 0:
                own(("M", m, bm))
                return (rows,), (Assign("m", ProgramId(0)),), rest
            case 1:
                self.grid_axes = 2
                own(("M", m, bm), ("N", n, bn))
                return (rows, columns), (Assign("m", ProgramId(0)), Assign("n", ProgramId(1))), rest
            case 2:  # programs in one row
                own(("M", m, bm), ("N", n, bn))
                count = op("cdiv", Dim("a0", 1), lit(bn))
                found = (
                    Assign("m", op("//", ProgramId(0), count)),
                    Assign("n", op("%", ProgramId(0), count)),
                )
                return (f"{rows} * {columns}",), found, rest
            case 3:
                self.grid_axes = 3
                self.sizes["Z"] = 1 + self.number(2)
                self.multiples["Z"] = 1
                z = Var("z", I32)
                own(("Z", z, 1), ("M", m, bm), ("N", n, bn))
                found = tuple(Assign(name, ProgramId(axis)) for axis, name in ((2, "z"), (0, "m"), (1, "n")))
                return (rows, columns, "Z"), found, rest
            case 4:  # persistent programs, each with some blocks

                def loop() -> Block:
                    with self.nested():
                        own(("M", m, bm))
                        body = self.block(1, 4)
                        self.owned = ()
                    count = op("cdiv", Dim("a0", 0), lit(bm))
                    return (
                        *self.block(0, 3),
                        For("m", ProgramId(0), count, NumPrograms(0), body),
                        *self.block(1, 3),
                    )

                return (str(1 + self.number(3)),), (), loop
        self.grid_axes = 2
        return ("2", str(1 + self.number(2))), (), rest

    def dumps(self) -> Block:
        """Statements that write what variables hold to arrays of their own, a part for each program."""
        values = [v.var for v in self.scope.values() if isinstance(v.var, Var)] or [lit(1)]
        statements: list[Statement] = []
        dims = ("G0", "G1", "G2")[: self.grid_axes]
        point = tuple(ProgramId(axis) for axis in range(self.grid_axes))
        for value in values[-4:]:
            shape = value.type.shape or (1,)
            array = Array(self.name("o"), value.type.dtype, (*dims, *shape), "Out")
            self.arrays.append(array)
            view = View(array.name, point, tuple(range(len(shape))))
            statements.append(Store(Place(view, (0,) * len(shape), False), value))
        return tuple(statements)

    def program(self) -> Program:
        grid, found, rest = self.grid()
        flag = not self.chance(50)
        leave: Block = ()
        if self.chance(10):
            leave = (If(op(">", ProgramId(0), lit(self.number(2))), (Return(),), ()),)
        body = (*found, *leave, *rest())
        body = (*body, *self.dumps())
        programs = programs_of(grid, self.sizes)
        self.sizes |= {f"G{axis}": count for axis, count in enumerate(programs)}
        used = {dim for array in self.arrays for dim in array.dims}
        return Program(
            tuple(self.arrays),
            tuple(self.scalars),
            flag,
            grid,
            tuple((name, size) for name, size in self.sizes.items() if name in used),
            tuple((name, self.multiples.get(name, 1)) for name in self.sizes if name in used),
            self.number(1000),
            body,
        )


def small_float(x: Expr) -> Expr:
    """A whole number from -8 to 8."""
    dtype = x.type.dtype
    number_ = op("where", op("==", x, x), x, lit(0.0, dtype))
    return op("clamp", op("floor", number_), lit(-8.0, dtype), lit(8.0, dtype))


# Floating-point numbers that convert to an integer type are kept within.
LIMITS = {"i8": (-100, 100), "u8": (0, 200), "u32": (0, 1000)}


def converted(x: Expr, dtype: str) -> Expr:
    """x as another element type, in its range."""
    source = x.type.dtype
    if source in STORED:
        return x if source == dtype else converted(Convert(x, "f32"), dtype)
    if source in FLOATS and dtype in INTEGERS:
        low, high = LIMITS.get(dtype, (-1000, 1000))
        number_ = op("where", op("==", x, x), x, lit(0.0, source))
        x = op("clamp", number_, lit(float(low), source), lit(float(high), source))
    return x if source == dtype else Convert(x, dtype)


@st.composite
def _drawn_by(draw: Any, generator: Generator, function: Callable[..., T], *arguments: Any) -> T:
    outer, generator.draw = generator.draw, draw
    try:
        return function(*arguments)
    finally:
        generator.draw = outer


@st.composite
def programs(draw: Callable[[st.SearchStrategy[Any]], Any]) -> Program:
    """Programs with arrays' sizes, scalars and the seed of the arrays' contents."""
    return Generator(draw).program()
