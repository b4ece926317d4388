"""Variables and places while a kernel is traced: what a name stands for, and where we are."""

from __future__ import annotations

import ast
import builtins
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any, ClassVar

from mosaic_compile.errors import InternalError, MosaicError, Span, UnsupportedSyntaxError
from mosaic_compile.mlir import ir

from .liveness import Names
from .source import FunctionNode, span_of


@dataclass(frozen=True)
class Frame:
    """The file that a function stands in and the calls that led to it: places for operations and errors."""

    file: str
    calls: tuple[Span, ...] = ()  # call sites of the functions being inlined, outermost first
    caller: ir.Location | None = None

    def spans(self, node: ast.AST) -> tuple[Span, ...]:
        return (*self.calls, span_of(node, self.file))

    def location(self, node: ast.AST) -> ir.Location:
        here = ir.Location.file(self.file, node.lineno, node.col_offset + 1)  # type: ignore[attr-defined]
        return here if self.caller is None else ir.Location.callsite(here, [self.caller])

    def inlined(self, call: ast.AST, file: str) -> Frame:
        """The frame of a function of `file` that is called at `call`."""
        return Frame(file, self.spans(call), self.location(call))

    @contextmanager
    def at(self, node: ast.AST) -> Iterator[None]:
        """Operations made inside carry the node's location; errors without a place get it."""
        try:
            with self.location(node):
                yield
        except MosaicError as error:
            error.at(self.spans(node))
            raise
        except RecursionError:
            raise UnsupportedSyntaxError(
                "calls or expressions are nested too deep here", "functions are inlined: use a loop"
            ).at(self.spans(node)) from None
        except Exception as error:
            raise InternalError(
                f"{type(error).__name__}: {error}",
                "this is a fault of Mosaic Compile, not of the kernel: please report it; --debug shows where",
            ).at(self.spans(node)) from error


@dataclass(frozen=True)
class Undefined:
    """A variable without a value on some path to here: an error only when it is read."""

    message: str
    help: str


@dataclass
class Scope:
    """The variables of one function call: its locals, then the enclosing functions', globals, builtins."""

    frame: Frame
    locals: dict[str, Any]
    globals: dict[str, Any]
    enclosing: Scope | None = None
    captured: Names = frozenset()  # names that nested functions read
    assigned: Names = (
        frozenset()
    )  # as in Python: a name that the function assigns is its own everywhere in it
    loops: int = 0  # runtime loops around the current statement
    is_kernel: bool = False
    is_comprehension: bool = False
    dimensions: Mapping[str, str] = field(default_factory=dict)  # a kernel's, as they are written in it
    walrus: str | None = None  # why `:=` cannot assign at the current place

    def find(self, name: str) -> Any:
        """The value of a name; KeyError where it is not defined anywhere."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.locals:
                return scope.locals[name]
            if name in scope.assigned:
                return Undefined(
                    f"'{name}' is read before it has a value",
                    f"assign '{name}' first; for a loop, before the loop",
                )
            scope = scope.enclosing
        if name in self.globals:
            return self.globals[name]
        return vars(builtins)[name]

    def dimension(self, name: str) -> str | None:
        """A help line, where a name is that of a dimension of the kernel."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.dimensions:
                return f"the dimension {name} is {scope.dimensions[name]}"
            scope = scope.enclosing
        return None

    def visible(self) -> set[str]:
        """The names that could be meant here."""
        scope: Scope | None = self
        names: set[str] = set()
        while scope is not None:
            names |= scope.locals.keys()
            scope = scope.enclosing
        return names | self.globals.keys() | {"range", "min", "max", "abs", "len"}

    def variables(self) -> dict[str, Any]:
        """The values of this function's variables and those of the functions around it."""
        outer = self.enclosing.variables() if self.enclosing is not None else {}
        return outer | {n: v for n, v in self.locals.items() if not isinstance(v, Undefined)}

    @contextmanager
    def without_walrus(self, reason: str) -> Iterator[None]:
        """`:=` is an error inside: the value would not reach the code that reads it."""
        saved, self.walrus = self.walrus, reason
        try:
            yield
        finally:
            self.walrus = saved

    @contextmanager
    def isolated(self, loops: int = 0) -> Iterator[None]:
        """Assignments made inside are undone after: a branch or loop body hands its results on by itself.

        The scope stays the same object, so that nested functions see the variables as they are where they are
        called.
        """
        saved = self.locals
        self.locals = dict(saved)
        self.loops += loops
        try:
            yield
        finally:
            self.locals = saved
            self.loops -= loops


@dataclass(frozen=True, eq=False, repr=False)
class LocalFunction:
    """A `def` or lambda inside a kernel; its defaults were computed where it stands."""

    kind: ClassVar[str] = "a function"  # in messages

    node: FunctionNode
    scope: Scope
    signature: inspect.Signature

    @property
    def name(self) -> str:
        return getattr(self.node, "name", "<lambda>")

    def __repr__(self) -> str:
        return "a lambda" if self.name == "<lambda>" else f"the function '{self.name}'"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise UnsupportedSyntaxError(
            f"{self!r} of this kernel is called by ordinary Python",
            "call it in the kernel itself, in a loop for example",
        )


def closure(function: FunctionType) -> dict[str, Any]:
    """The variables that a function sees of the functions around it."""
    values = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
        try:
            values[name] = cell.cell_contents
        except ValueError:
            continue  # not assigned yet: an undefined name, if it is read
    return values
