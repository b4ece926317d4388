"""A kernel as data: expressions and statements with their typing rules, and their text in the DSL.

A node is a frozen dataclass. Expressions have a `type`, computed from their operands by the rules of
docs/language.md, and a `text`; statements have `lines`. `Program.text` is a file that can be run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import ml_dtypes
import numpy as np

DTYPES: dict[str, np.dtype[Any]] = {
    name: np.dtype(type_)
    for name, type_ in {
        "i32": np.int32,
        "f32": np.float32,
        "i8": np.int8,
        "bool": np.bool_,
        "f16": np.float16,
        "bf16": ml_dtypes.bfloat16,
        "i64": np.int64,
        "f64": np.float64,
        "i16": np.int16,
        "u8": np.uint8,
        "u32": np.uint32,
        "f8e4m3": ml_dtypes.float8_e4m3fn,
        "f8e5m2": ml_dtypes.float8_e5m2,
    }.items()
}
FLOATS = ("f32", "f16", "bf16", "f64")
SIGNED = ("i32", "i8", "i64", "i16")
UNSIGNED = ("u8", "u32")
INTEGERS = (*SIGNED, *UNSIGNED)
STORED = ("f8e4m3", "f8e5m2")  # load, store and convert only
SUMMED_IN_I32 = ("bool", "i8", "i16", "u8")

COMPARISONS = ("==", "!=", "<", "<=", ">", ">=")
INFIX = ("+", "-", "*", "/", "//", "%", "&", "|", "^", "<<", ">>", *COMPARISONS)
WORDS = ("and", "or")
PREFIX = {"neg": "-", "invert": "~", "not": "not "}

# Functions of accumulated and next elements: what mc.reduce and mc.scan are given.
COMBINE = {
    "xor": "lambda a, b: a ^ b",
    "larger": "lambda a, b: mc.maximum(a, b)",
    "wrapping": "lambda a, b: a + b",
    "last nonzero": "lambda a, b: mc.where(b != 0, b, a)",  # associative, not commutative
    "sum and least": "lambda a, i, b, j: (a + b, mc.minimum(i, j))",
    "affine": "lambda a, i, b, j: (a * b, i * b + j)",  # x -> a x + i, then x -> b x + j
}


@dataclass(frozen=True)
class Type:
    """An element type by name and a shape; () is a scalar's."""

    dtype: str
    shape: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def mc_dtype(name: str) -> str:
    return "mc.bool_" if name == "bool" else f"mc.{name}"


def broadcast(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(n) for n in np.broadcast_shapes(*shapes))


def tuple_text(items: Any) -> str:
    texts = [part(item) for item in items]
    return f"({', '.join(texts)}{',' * (len(texts) == 1)})"


def part(item: Expr | int) -> str:
    """An index or a bound: numbers are written bare."""
    return str(item) if isinstance(item, int) else item.text


class Node:
    """What programs are made of."""

    def children(self) -> Iterator[Node]:
        """The nodes that this one holds, in order of its fields."""
        for field in fields(self):  # type: ignore[arg-type]
            yield from _nodes_in(getattr(self, field.name))

    def walk(self) -> Iterator[Node]:
        yield self
        for child in self.children():
            yield from child.walk()


def _nodes_in(value: Any) -> Iterator[Node]:
    if isinstance(value, Node):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _nodes_in(item)


class Expr(Node):
    type: Type
    text: str


# Leaves.


@dataclass(frozen=True)
class Literal(Expr):
    """A number of an element type; what it is must be exact in that type."""

    value: bool | int | float
    dtype: str

    @property
    def type(self) -> Type:
        return Type(self.dtype)

    @property
    def bare(self) -> str:
        if isinstance(self.value, float) and not math.isfinite(self.value):
            return f'float("{self.value}")'
        return f"({self.value})" if self.value < 0 else str(self.value)

    @property
    def text(self) -> str:
        return f"{mc_dtype(self.dtype)}({str(self.value) if self.value == self.value else self.bare})"


@dataclass(frozen=True)
class Var(Expr):
    name: str
    type: Type

    @property
    def text(self) -> str:
        return self.name


@dataclass(frozen=True)
class StaticIndex(Expr):
    """The variable of a loop that the compiler unrolls, as an i32."""

    name: str

    @property
    def type(self) -> Type:
        return Type("i32")

    @property
    def text(self) -> str:
        return f"mc.i32({self.name})"


@dataclass(frozen=True)
class ProgramId(Expr):
    axis: int

    @property
    def type(self) -> Type:
        return Type("i32")

    @property
    def text(self) -> str:
        return f"mc.program_id({self.axis})"


@dataclass(frozen=True)
class NumPrograms(Expr):
    axis: int

    @property
    def type(self) -> Type:
        return Type("i32")

    @property
    def text(self) -> str:
        return f"mc.num_programs({self.axis})"


@dataclass(frozen=True)
class Dim(Expr):
    """A dimension of an array that is not fixed."""

    array: str
    axis: int

    @property
    def type(self) -> Type:
        return Type("i32")

    @property
    def text(self) -> str:
        return f"{self.array}.shape[{self.axis}]"


@dataclass(frozen=True)
class Iota(Expr):
    size: int

    @property
    def type(self) -> Type:
        return Type("i32", (self.size,))

    @property
    def text(self) -> str:
        return f"mc.iota({self.size})"


@dataclass(frozen=True)
class Full(Expr):
    """A tile of one value, a scalar."""

    shape: tuple[int, ...]
    value: Expr

    @property
    def type(self) -> Type:
        return Type(self.value.type.dtype, self.shape)

    @property
    def text(self) -> str:
        value = self.value.bare if isinstance(self.value, Literal) else self.value.text
        return f"mc.full({tuple_text(self.shape)}, {value}, {mc_dtype(self.type.dtype)})"


# Elementwise.


@dataclass(frozen=True)
class Elementwise(Expr):
    """An operator or function of tiles that broadcast; `where` takes truth values first."""

    op: str
    operands: tuple[Expr, ...]

    @cached_property
    def type(self) -> Type:
        values = self.operands[1:] if self.op == "where" else self.operands
        dtypes = {operand.type.dtype for operand in values}
        assert len(dtypes) == 1, f"{self.op} of {dtypes}"
        if self.op == "where":
            assert self.operands[0].type.dtype == "bool"
        dtype = "bool" if self.op in COMPARISONS else values[0].type.dtype
        return Type(dtype, broadcast(*(operand.type.shape for operand in self.operands)))

    @cached_property
    def text(self) -> str:
        # A bare number takes the type of the tile that it meets; two of them would be Python's.
        values = self.operands[1:] if self.op == "where" else self.operands
        bare = self.op not in WORDS and not all(isinstance(v, Literal) for v in values)
        texts = [v.bare if bare and isinstance(v, Literal) else v.text for v in values]
        if self.op == "where":
            texts.insert(0, self.operands[0].text)
        if self.op in INFIX or self.op in WORDS:
            return f"({texts[0]} {self.op} {texts[1]})"
        if self.op in PREFIX:
            return f"({PREFIX[self.op]}{texts[0]})"
        return f"mc.{self.op}({', '.join(texts)})"


@dataclass(frozen=True)
class Power(Expr):
    """x ** exponent, a whole number."""

    value: Expr
    exponent: int

    @property
    def type(self) -> Type:
        return self.value.type

    @property
    def text(self) -> str:
        return f"({self.value.text} ** {self.exponent})"


@dataclass(frozen=True)
class Conditional(Expr):
    """`a if condition else b`: a branch at run time."""

    condition: Expr
    then: Expr
    orelse: Expr

    @property
    def type(self) -> Type:
        assert self.then.type == self.orelse.type
        return self.then.type

    @property
    def text(self) -> str:
        return f"({self.then.text} if {self.condition.text} else {self.orelse.text})"


@dataclass(frozen=True)
class Convert(Expr):
    value: Expr
    dtype: str

    @property
    def type(self) -> Type:
        return Type(self.dtype, self.value.type.shape)

    @cached_property
    def text(self) -> str:
        return f"{self.value.text}.to({mc_dtype(self.dtype)})"


@dataclass(frozen=True)
class Bitcast(Expr):
    value: Expr
    dtype: str

    @property
    def type(self) -> Type:
        assert DTYPES[self.dtype].itemsize == DTYPES[self.value.type.dtype].itemsize
        return Type(self.dtype, self.value.type.shape)

    @cached_property
    def text(self) -> str:
        return f"{self.value.text}.bitcast({mc_dtype(self.dtype)})"


# Shapes.


@dataclass(frozen=True)
class Reshape(Expr):
    value: Expr
    shape: tuple[int, ...]

    @property
    def type(self) -> Type:
        assert math.prod(self.shape) == self.value.type.size
        return Type(self.value.type.dtype, self.shape)

    @cached_property
    def text(self) -> str:
        return f"mc.reshape({self.value.text}, {tuple_text(self.shape)})"


@dataclass(frozen=True)
class ExpandDims(Expr):
    """x[:, None]"""

    value: Expr
    axis: int

    @property
    def type(self) -> Type:
        shape = self.value.type.shape
        return Type(self.value.type.dtype, (*shape[: self.axis], 1, *shape[self.axis :]))

    @cached_property
    def text(self) -> str:
        items = [":"] * len(self.value.type.shape)
        items.insert(self.axis, "None")
        return f"{self.value.text}[{', '.join(items)}]"


@dataclass(frozen=True)
class Permute(Expr):
    value: Expr
    order: tuple[int, ...]

    @property
    def type(self) -> Type:
        return Type(self.value.type.dtype, tuple(self.value.type.shape[axis] for axis in self.order))

    @cached_property
    def text(self) -> str:
        if self.order == (1, 0):
            return f"{self.value.text}.T"
        return f"mc.permute({self.value.text}, {tuple_text(self.order)})"


@dataclass(frozen=True)
class Broadcast(Expr):
    value: Expr
    shape: tuple[int, ...]

    @property
    def type(self) -> Type:
        assert broadcast(self.value.type.shape, self.shape) == self.shape
        return Type(self.value.type.dtype, self.shape)

    @cached_property
    def text(self) -> str:
        return f"mc.broadcast_to({self.value.text}, {tuple_text(self.shape)})"


@dataclass(frozen=True)
class Cat(Expr):
    """Two tiles of one type."""

    first: Expr
    second: Expr
    axis: int

    @property
    def type(self) -> Type:
        assert self.first.type == self.second.type
        shape = list(self.first.type.shape)
        shape[self.axis] *= 2
        return Type(self.first.type.dtype, tuple(shape))

    @cached_property
    def text(self) -> str:
        return f"mc.cat(({self.first.text}, {self.second.text}), {self.axis})"


# Reductions, scans, products.


@dataclass(frozen=True)
class Reduce(Expr):
    """sum, prod, max, min, argmax, argmin, any, all, mean, or a function of COMBINE, of which `pick` is one result."""

    op: str
    operands: tuple[Expr, ...]
    axis: int | None
    keepdims: bool
    pick: int = 0

    @cached_property
    def type(self) -> Type:
        dtype, shape = self.operands[self.pick].type.dtype, list(self.operands[0].type.shape)
        if (self.op in ("sum", "prod") and dtype in SUMMED_IN_I32) or self.op in ("argmax", "argmin"):
            dtype = "i32"
        if self.axis is None:
            shape = [1] * len(shape) if self.keepdims else []
        else:
            shape[self.axis : self.axis + 1] = [1] * self.keepdims
        return Type(dtype, tuple(shape))

    @cached_property
    def text(self) -> str:
        keepdims = ", keepdims=True" if self.keepdims else ""
        if self.op not in COMBINE:
            return f"mc.{self.op}({self.operands[0].text}, {self.axis}{keepdims})"
        return _combined("reduce", self.op, self.operands, f"{self.axis}", keepdims, self.pick)


@dataclass(frozen=True)
class Scan(Expr):
    """cumsum, cumprod, or a function of COMBINE."""

    op: str
    operands: tuple[Expr, ...]
    axis: int
    reverse: bool
    pick: int = 0

    @cached_property
    def type(self) -> Type:
        dtype, shape = self.operands[self.pick].type.dtype, self.operands[0].type.shape
        return Type("i32" if self.op not in COMBINE and dtype in SUMMED_IN_I32 else dtype, shape)

    @cached_property
    def text(self) -> str:
        reverse = ", reverse=True" if self.reverse else ""
        if self.op not in COMBINE:
            return f"mc.{self.op}({self.operands[0].text}, {self.axis}{reverse})"
        return _combined("scan", self.op, self.operands, f"{self.axis}", reverse, self.pick)


def _combined(name: str, op: str, operands: tuple[Expr, ...], axis: str, options: str, pick: int) -> str:
    tiles = operands[0].text if len(operands) == 1 else tuple_text(operands)
    call = f"mc.{name}({tiles}, {axis}, {COMBINE[op]}{options})"
    return call if len(operands) == 1 else f"{call}[{pick}]"


@dataclass(frozen=True)
class Dot(Expr):
    """a @ b, added to acc if there is one; `dtype` is the accumulator's."""

    a: Expr
    b: Expr
    acc: Expr | None
    dtype: str
    precision: str = "ieee"

    @cached_property
    def type(self) -> Type:
        (m, k), (k2, n) = self.a.type.shape, self.b.type.shape
        assert k == k2 and self.a.type.dtype == self.b.type.dtype
        assert self.acc is None or self.acc.type == Type(self.dtype, (m, n))
        return Type(self.dtype, (m, n))

    @cached_property
    def text(self) -> str:
        acc = f"dtype=mc.{self.dtype}" if self.acc is None else self.acc.text
        precision = "" if self.precision == "ieee" else f', precision="{self.precision}"'
        return f"mc.dot({self.a.text}, {self.b.text}, {acc}{precision})"


# Memory.


@dataclass(frozen=True)
class View(Node):
    """An array with its first dimensions fixed at `point`, the others in another order."""

    array: str
    point: tuple[Expr | int, ...]
    order: tuple[int, ...]

    @cached_property
    def text(self) -> str:
        text = f"{self.array}[{', '.join(map(part, self.point))}]" if self.point else self.array
        if self.order == tuple(range(len(self.order))):
            return text
        return f"{text}.T" if self.order == (1, 0) else f"{text}.permute({', '.join(map(str, self.order))})"


@dataclass(frozen=True)
class Place(Node):
    """Where a block starts: `starts` count tiles, or elements if `in_elements`."""

    view: View
    starts: tuple[Expr | int, ...]
    in_elements: bool


@dataclass(frozen=True)
class Load(Expr):
    place: Place
    type: Type
    pad: bool | int | float

    @cached_property
    def text(self) -> str:
        view, starts, shape = self.place.view.text, tuple_text(self.place.starts), tuple_text(self.type.shape)
        pad = (
            ""
            if self.pad == 0 and self.pad is not False
            else f", pad={Literal(self.pad, self.type.dtype).bare}"
        )
        if self.place.in_elements:
            return f"mc.load({view}, offset={starts}, shape={shape}{pad})"
        return f"mc.load({view}, {starts}, {shape}{pad})"


@dataclass(frozen=True)
class Gather(Expr):
    view: View
    dtype: str
    indices: tuple[Expr, ...]
    mask: Expr | None
    pad: bool | int | float

    @cached_property
    def type(self) -> Type:
        masks = () if self.mask is None else (self.mask,)
        return Type(self.dtype, broadcast(*(item.type.shape for item in (*self.indices, *masks))))

    @cached_property
    def text(self) -> str:
        mask = "" if self.mask is None else f", mask={self.mask.text}"
        pad = Literal(self.pad, self.dtype).bare
        return f"mc.gather({self.view.text}, {tuple_text(self.indices)}{mask}, pad={pad})"


# Statements.


class Statement(Node):
    def lines(self) -> list[str]:
        raise NotImplementedError


Block = tuple[Statement, ...]


def indented(block: Block) -> list[str]:
    lines = [f"    {line}" for statement in block for line in statement.lines()]
    return lines or ["    pass"]


@dataclass(frozen=True)
class Assign(Statement):
    name: str
    value: Expr

    def lines(self) -> list[str]:
        return [f"{self.name} = {self.value.text}"]


@dataclass(frozen=True)
class Split(Statement):
    """The parts of a tile along an axis, one for each name."""

    names: tuple[str, ...]
    value: Expr
    axis: int

    @property
    def type(self) -> Type:
        shape = list(self.value.type.shape)
        shape[self.axis] //= len(self.names)
        return Type(self.value.type.dtype, tuple(shape))

    def lines(self) -> list[str]:
        return [f"{', '.join(self.names)} = mc.split({self.value.text}, {len(self.names)}, axis={self.axis})"]


@dataclass(frozen=True)
class For(Statement):
    """A loop on the device."""

    name: str
    start: Expr | int
    stop: Expr | int
    step: Expr | int
    body: Block

    def lines(self) -> list[str]:
        bounds = ", ".join(map(part, (self.start, self.stop, self.step)))
        return [f"for {self.name} in range({bounds}):", *indented(self.body)]


@dataclass(frozen=True)
class StaticFor(Statement):
    """A loop that the compiler unrolls."""

    name: str
    count: int
    body: Block

    def lines(self) -> list[str]:
        return [f"for {self.name} in mc.static_range({self.count}):", *indented(self.body)]


@dataclass(frozen=True)
class While(Statement):
    condition: Expr
    body: Block

    def lines(self) -> list[str]:
        return [f"while {self.condition.text}:", *indented(self.body)]


@dataclass(frozen=True)
class If(Statement):
    """A branch on a scalar at run time."""

    condition: Expr
    then: Block
    orelse: Block

    def lines(self) -> list[str]:
        orelse = ["else:", *indented(self.orelse)] if self.orelse else []
        return [f"if {self.condition.text}:", *indented(self.then), *orelse]


@dataclass(frozen=True)
class StaticIf(Statement):
    """A branch on a truth value that is a constant of the kernel."""

    flag: str
    then: Block
    orelse: Block

    def lines(self) -> list[str]:
        orelse = ["else:", *indented(self.orelse)] if self.orelse else []
        return [f"if {self.flag}:", *indented(self.then), *orelse]


@dataclass(frozen=True)
class Return(Statement):
    """Ends the program."""

    def lines(self) -> list[str]:
        return ["return"]


@dataclass(frozen=True)
class Store(Statement):
    place: Place
    value: Expr

    def lines(self) -> list[str]:
        return [_write("store", self.place, self.value)]


@dataclass(frozen=True)
class AtomicAdd(Statement):
    place: Place
    value: Expr

    def lines(self) -> list[str]:
        return [_write("atomic_add", self.place, self.value)]


def _write(name: str, place: Place, value: Expr) -> str:
    starts = tuple_text(place.starts)
    if place.in_elements:
        return f"mc.{name}({place.view.text}, {value.text}, offset={starts})"
    return f"mc.{name}({place.view.text}, {starts}, {value.text})"


@dataclass(frozen=True)
class Scatter(Statement):
    """Single elements, written, or added if `adds`."""

    view: View
    indices: tuple[Expr, ...]
    value: Expr
    mask: Expr | None
    adds: bool

    def lines(self) -> list[str]:
        name = "scatter_add" if self.adds else "scatter"
        mask = "" if self.mask is None else f", mask={self.mask.text}"
        return [f"mc.{name}({self.view.text}, {tuple_text(self.indices)}, {self.value.text}{mask})"]


# The kernel.


@dataclass(frozen=True)
class Array(Node):
    """A parameter; `access` is "In", "Out", "InOut" or, where the kernel's own loads and stores say, "".

    small: whether it holds whole numbers from -3 to 3 only.
    """

    name: str
    dtype: str
    dims: tuple[str | int, ...]
    access: str
    small: bool = False

    @property
    def text(self) -> str:
        dims = ", ".join(f'"{dim}"' if isinstance(dim, str) else str(dim) for dim in self.dims)
        spec = f"{mc_dtype(self.dtype)}[{dims}]"
        return f"{self.name}: {f'mc.{self.access}[{spec}]' if self.access else spec}"


@dataclass(frozen=True)
class Scalar(Node):
    name: str
    dtype: str
    value: bool | int | float

    @property
    def text(self) -> str:
        return f"{self.name}: {mc_dtype(self.dtype)}"


@dataclass(frozen=True)
class Program(Node):
    """A kernel, and what it is run on.

    grid: texts over dimension names, with mc.cdiv. sizes: what they are, as (name, size); multiples: what they are
    promised to be multiples of. flag: the value of the constant FLAG. seed: of the arrays' contents.
    """

    arrays: tuple[Array, ...]
    scalars: tuple[Scalar, ...]
    flag: bool
    grid: tuple[str, ...]
    sizes: tuple[tuple[str, int], ...]
    multiples: tuple[tuple[str, int], ...]
    seed: int
    body: Block

    @property
    def programs(self) -> tuple[int, ...]:
        """The number of programs on each axis."""
        return programs_of(self.grid, dict(self.sizes))

    @cached_property
    def kernel_text(self) -> str:
        """The kernel's definition."""
        names = ", ".join(name for name, _ in self.sizes)
        params = [p.text for p in (*self.arrays, *self.scalars)]
        return "\n".join(
            [
                f"@mc.kernel(grid=lambda {names}: ({', '.join(self.grid)},))",
                "def kernel(",
                *(f"    {text}," for text in params),
                "    *,",
                f"    FLAG: mc.Const = {self.flag},",
                "):",
                *indented(self.body),
            ]
        )

    @cached_property
    def text(self) -> str:
        """A file that runs the kernel on the same arrays and prints what it wrote."""
        arrays = [
            f"    {array.name} = make({array.dtype!r}, {shape}, {self.seed + number}{', small=True' if array.small else ''})"
            for number, (array, shape) in enumerate(zip(self.arrays, self.shapes))
        ]
        scalars = [f"    {s.name} = {Literal(s.value, s.dtype).bare}" for s in self.scalars]
        names = [p.name for p in (*self.arrays, *self.scalars)]
        written = [array.name for array in self.arrays if array.access != "In"]
        promised = ", ".join(f"{name} by {multiple}" for name, multiple in self.multiples if multiple > 1)
        return "\n".join(
            [
                "# Run in the repository's folder: PYTHONPATH=. python FILE",
                f"# {self.programs} programs; promised to be divisible: {promised or 'nothing'}.",
                "import mosaic_compile as mc",
                "from tests.fuzz.data import make",
                "",
                "",
                self.kernel_text,
                "",
                "",
                'if __name__ == "__main__":',
                *arrays,
                *scalars,
                f"    kernel.interpret({', '.join(names)})",
                f"    print({', '.join(written)}, sep='\\n')",
                "",
            ]
        )

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Each array's shape."""
        sizes = dict(self.sizes)
        return [tuple(d if isinstance(d, int) else sizes[d] for d in array.dims) for array in self.arrays]

    def __repr__(self) -> str:
        return f"\n{self.text}"


def programs_of(grid: tuple[str, ...], sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The number of programs on each axis, from texts over the names of dimensions."""
    names = {**sizes, "cdiv": lambda a, b: -(-a // b)}
    return tuple(eval(text.replace("mc.", ""), {"__builtins__": {}}, names) for text in grid)
