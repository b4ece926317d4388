"""What a kernel's signature says: arrays, scalars, constants."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field, replace
from types import FunctionType
from typing import Any, Literal

from mosaic_compile.errors import SignatureError, Span, user_span

from .dtypes import DType, DTypeVar

Access = Literal["in", "out", "inout"]


class Const:
    """Annotates a parameter whose value is fixed when the kernel is compiled: `BM: mc.Const = 128`."""


@dataclass(frozen=True)
class ArraySpec:
    """An array parameter's annotation: element type, one name or number for each dimension, how it is used.

    A dimension's name stands for the same number wherever it appears in the signature.
    """

    dtype: DType | DTypeVar
    dims: tuple[str | int, ...]
    access: Access | None = None
    optional: bool = False

    def __or__(self, other: None) -> ArraySpec:
        if other is not None:
            raise SignatureError(
                f"an array can be combined with None only, not with {other!r}",
                f"write {self!r} | None for an array that may be left out",
                user_span(),
            )
        return replace(self, optional=True)

    __ror__ = __or__

    def __repr__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.dims))}]"


def array_spec(dtype: DType | DTypeVar, dims: Any) -> ArraySpec:
    dims = dims if isinstance(dims, tuple) else (dims,)
    if not dims:
        raise SignatureError(
            "an array has at least one dimension", f'write {dtype}["N"], or {dtype} for a scalar', user_span()
        )
    for dim in dims:
        is_name = isinstance(dim, str) and dim.isidentifier()
        is_size = isinstance(dim, int) and not isinstance(dim, bool) and dim > 0
        if not (is_name or is_size):
            raise SignatureError(
                f"a dimension is a name or a positive number, not {dim!r}",
                f'write {dtype}["M", 64], for example',
                user_span(),
            )
    return ArraySpec(dtype, dims)


@dataclass(frozen=True)
class _AccessMarker:
    """`mc.In[...]`, `mc.Out[...]`, `mc.InOut[...]`."""

    access: Access

    def __repr__(self) -> str:
        return {"in": "mc.In", "out": "mc.Out", "inout": "mc.InOut"}[self.access]

    def __getitem__(self, spec: Any) -> ArraySpec:
        if not isinstance(spec, ArraySpec):
            raise SignatureError(
                f"{self!r}[…] takes an array such as mc.f32['N'], not {spec!r}",
                "scalars are inputs: annotate them with the element type alone",
                user_span(),
            )
        if spec.access is not None:
            raise SignatureError(
                f"{self!r}[…] of an array that has its use already",
                "write one of mc.In, mc.Out, mc.InOut",
                user_span(),
            )
        return replace(spec, access=self.access)


In = _AccessMarker("in")
Out = _AccessMarker("out")
InOut = _AccessMarker("inout")


@dataclass(frozen=True)
class ArrayParam:
    name: str
    spec: ArraySpec


@dataclass(frozen=True)
class ScalarParam:
    name: str
    dtype: DType | DTypeVar
    default: int | float | bool | None = None  # what a call that leaves it out passes


@dataclass(frozen=True)
class ConstParam:
    name: str
    default: Any  # inspect.Parameter.empty where there is none
    span: Span | None = field(
        default=None, compare=False, repr=False
    )  # where it stands, if it has no default


Param = ArrayParam | ScalarParam | ConstParam


@dataclass(frozen=True)
class Signature:
    """A kernel's parameters, in order."""

    params: tuple[Param, ...]

    @property
    def arrays(self) -> tuple[ArrayParam, ...]:
        return tuple(p for p in self.params if isinstance(p, ArrayParam))

    @property
    def constants(self) -> tuple[ConstParam, ...]:
        return tuple(p for p in self.params if isinstance(p, ConstParam))

    @property
    def dims(self) -> tuple[str, ...]:
        """The dimension names in order of first appearance."""
        return tuple(dict.fromkeys(d for a in self.arrays for d in a.spec.dims if isinstance(d, str)))

    @property
    def constant_dims(self) -> tuple[str, ...]:
        """The dimensions that are constants too: fixed when the kernel is compiled, by its arguments in a call."""
        constants = {c.name for c in self.constants}
        return tuple(dim for dim in self.dims if dim in constants)

    @property
    def dtype_vars(self) -> tuple[DTypeVar, ...]:
        used = [p.spec.dtype if isinstance(p, ArrayParam) else getattr(p, "dtype", None) for p in self.params]
        return tuple(dict.fromkeys(d for d in used if isinstance(d, DTypeVar)))


def read_signature(fn: FunctionType, span: Span) -> Signature:
    """The signature of a kernel function, defined at `span`; raises SignatureError."""

    def place(parameter: str) -> Span | None:
        from mosaic_compile.frontend.source import parameter_span

        return parameter_span(fn, parameter)

    def fail(message: str, help: str, parameter: str | None = None) -> SignatureError:
        return SignatureError(message, help, ((place(parameter) if parameter else None) or span,))

    try:
        annotations = inspect.get_annotations(fn, eval_str=True)
    except SignatureError as error:
        raise error.at((span,)) from None
    except Exception as error:
        raise fail(
            f"a parameter's annotation cannot be evaluated: {error}", "check the names in the signature"
        ) from None
    params: list[Param] = []
    for name, parameter in inspect.signature(fn).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise fail(
                f"kernel parameter '{name}' cannot be * or **", "name each array, scalar and constant", name
            )
        if name not in annotations:
            raise fail(
                f"kernel parameter '{name}' has no type",
                f'annotate it: {name}: mc.f32["N"] for an array, {name}: mc.f32 for a scalar, '
                f"{name}: mc.Const for a constant",
                name,
            )
        annotation = annotations[name]
        default = parameter.default
        if annotation is Const:
            params.append(ConstParam(name, default, place(name) if default is parameter.empty else None))
        elif isinstance(annotation, ArraySpec):
            if default is not parameter.empty and not (default is None and annotation.optional):
                raise fail(
                    f"array parameter '{name}' has a default value",
                    f"only `{name}: … | None = None` may be left out of a call; "
                    "put optional arrays last, or after `*`",
                    name,
                )
            params.append(ArrayParam(name, annotation))
        elif isinstance(annotation, DType | DTypeVar):
            given = None if default is parameter.empty else default
            if default is not parameter.empty and not isinstance(default, bool | int | float):
                raise fail(
                    f"the default of scalar parameter '{name}' is {default!r}",
                    f"give it a number, or make it a compile-time constant: {name}: mc.Const = {default!r}",
                    name,
                )
            params.append(ScalarParam(name, annotation, given))
        else:
            raise fail(
                f"kernel parameter '{name}' is annotated with {_described(annotation)}",
                "an array is mc.f32['M', 'N'], a scalar mc.f32, a compile-time constant mc.Const",
                name,
            )
    seen = {p.name for p in params if not isinstance(p, ConstParam)}
    for dim in Signature(tuple(params)).dims:
        if dim in seen:
            raise fail(
                f"'{dim}' is both a dimension and a parameter",
                f"rename one of them, or fix the dimension at compile time: {dim}: mc.Const",
                dim,
            )
    variables: dict[str, DTypeVar] = {}
    for variable in Signature(tuple(params)).dtype_vars:
        if variables.setdefault(variable.name, variable) != variable:
            raise fail(f"two type variables are called '{variable.name}'", "rename one of them")
    return Signature(tuple(params))


def _described(annotation: Any) -> str:
    return f"the Python type {annotation.__name__}" if isinstance(annotation, type) else repr(annotation)
