"""Calls: operations of the DSL, functions of the user (inlined), Python's own (run at compile time)."""

from __future__ import annotations

import ast
import builtins
import functools
import inspect
from collections.abc import Callable, Mapping
from types import FunctionType, MethodType
from typing import Any

from mosaic_compile.errors import OperandError, UnsupportedSyntaxError
from mosaic_compile.language import habits, ops
from mosaic_compile.language.dtypes import DType
from mosaic_compile.language.kernel import Kernel
from mosaic_compile.language.loops import range_
from mosaic_compile.language.op import kind_of
from mosaic_compile.language.tile import Array, Tile

from . import expressions, statements
from .liveness import assigned, captured_names
from .python import is_library, ordinary_python, takes_tiles
from .scope import LocalFunction, Scope, closure
from .source import FunctionNode, body_of, display_path, function_node

MAX_INLINE_DEPTH = 32


def _fold(function: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    def folded(first: Any, second: Any, *others: Any) -> Any:
        return functools.reduce(function, (first, second, *others))

    folded.__mosaic_op__ = True  # type: ignore[attr-defined]
    folded.__name__ = function.__name__
    return folded


# Python's functions that mean an operation when a tile is among their arguments.
_BUILTINS: tuple[tuple[Any, Any], ...] = (
    (max, _fold(ops.maximum)),
    (min, _fold(ops.minimum)),
    (abs, ops.abs),
)


def call(node: ast.Call, scope: Scope) -> Any:
    function = expressions.evaluate(node.func, scope)
    args = list(expressions.starred(node.args, scope))
    kwargs: dict[str, Any] = {}
    for keyword in node.keywords:
        value = expressions.evaluate(keyword.value, scope)
        if keyword.arg is None and not isinstance(value, Mapping):
            raise OperandError(f"'**' takes a dict, not {kind_of(value)}", "name the arguments").at(
                scope.frame.spans(keyword.value)
            )
        kwargs |= {keyword.arg: value} if keyword.arg is not None else value
    return apply(function, args, kwargs, scope, node)


def apply(function: Any, args: list[Any], kwargs: dict[str, Any], scope: Scope, node: ast.AST) -> Any:
    """Calls `function` at `node`."""
    if function is range:
        function = range_
    if function is builtins.breakpoint:
        return ops.program.stop(scope.variables())
    if any(isinstance(a, Tile) for a in args):
        function = next((of_tiles for plain, of_tiles in _BUILTINS if function is plain), function)
    if isinstance(function, functools.partial):
        return apply(function.func, [*function.args, *args], {**function.keywords, **kwargs}, scope, node)
    if isinstance(function, LocalFunction):
        file = function.scope.frame.file
        return _inline(function.node, function.signature, function.scope, file, args, kwargs, scope, node)
    if _is_operation(function):
        return _operation(function, args, kwargs, scope, node)
    if isinstance(function, DType):
        if len(args) != 1 or kwargs:
            raise OperandError(f"mc.{function}(…) takes one value", f"mc.{function}(1), for example")
        return function(*args)
    if isinstance(function, Kernel):
        raise OperandError(
            f"'{function.name}' is a kernel, and a kernel cannot call another one",
            "move the shared part into a plain function and call that",
        )
    if isinstance(function, FunctionType) and not is_library(function, scope.globals):
        enclosing = Scope(scope.frame, closure(function), function.__globals__)
        file = display_path(function.__code__.co_filename)
        definition = function_node(function)
        return _inline(definition, inspect.signature(function), enclosing, file, args, kwargs, scope, node)
    if not callable(function):
        raise OperandError(f"{kind_of(function)} cannot be called", "call functions and mc operations")
    _refuse_mutation(function)
    _refuse_tiles(function, [*args, *kwargs.values()], node)
    with ordinary_python():
        return function(*args, **kwargs)


_MUTATORS: dict[Any, tuple[str, ...]] = {
    list: ("append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"),
    dict: ("clear", "pop", "popitem", "setdefault", "update"),
    set: ("add", "clear", "discard", "pop", "remove", "update"),
}


def _refuse_mutation(function: Callable[..., Any]) -> None:
    """A change in a loop would happen once, while the kernel is traced, and not as often as it runs."""
    owner, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
    if name in _MUTATORS.get(type(owner), ()):
        kind = type(owner).__name__
        raise UnsupportedSyntaxError(
            f"a {kind} cannot be changed in a kernel, so '.{name}' cannot be used",
            "make a new one: values = [*values, x]" if kind == "list" else "make a new one before the kernel",
        )


def _refuse_tiles(function: Callable[..., Any], values: list[Any], node: ast.AST) -> None:
    """Ordinary Python runs at compile time, when tiles have no value yet."""
    runtime = next((v for v in values if isinstance(v, Tile | Array)), None)
    if runtime is None or takes_tiles(function):
        return
    called = node.func if isinstance(node, ast.Call) else node
    name = getattr(function, "__name__", str(function))
    suggestion = "use the operations of mc; Python's own work on compile-time values"
    if hasattr(ops, name):
        suggestion = f"use mc.{name}"
    if function is print:
        suggestion = "print runtime values with mc.device_print"
    raise OperandError(f"'{ast.unparse(called)}' cannot be applied to {kind_of(runtime)}", suggestion)


def _is_operation(function: Any) -> bool:
    if getattr(function, "__mosaic_op__", False):
        return True
    return isinstance(function, MethodType) and isinstance(function.__self__, Tile | Array)


def _operation(function: Any, args: list[Any], kwargs: dict[str, Any], scope: Scope, node: ast.AST) -> Any:
    """Calls one of the DSL's operations, or a method of a tile or array."""
    try:
        inspect.signature(function).bind(*args, **kwargs)
    except TypeError as error:
        name = function.__name__
        prefix = "." if isinstance(function, MethodType) else "mc."
        form = f"its form is {prefix}{name}{_form(inspect.signature(function))}"
        known = [habits.of_keyword(name, keyword) for keyword in kwargs]
        raise OperandError(f"{prefix}{name}: {error}", next(filter(None, known), form)) from None

    def callback(value: Any) -> Any:
        """Functions given to mc.reduce and mc.scan are the user's: traced when the operation calls them."""
        if callable(value) and not isinstance(value, type | DType):
            return lambda *scalars: apply(value, list(scalars), {}, scope, node)
        return value

    return function(*map(callback, args), **{k: callback(v) for k, v in kwargs.items()})


def _inline(
    definition: FunctionNode,
    signature: inspect.Signature,
    enclosing: Scope,
    file: str,
    args: list[Any],
    kwargs: dict[str, Any],
    scope: Scope,
    node: ast.AST,
) -> Any:
    """Traces a function's body in place of the call at `node`."""
    name = getattr(definition, "name", "<lambda>")
    if len(scope.frame.calls) >= MAX_INLINE_DEPTH:
        raise UnsupportedSyntaxError(
            f"'{name}' calls itself, or calls are nested more than {MAX_INLINE_DEPTH} deep",
            "functions are inlined: use a loop",
        )
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        form = _form(signature)
        what, form = ("a lambda", f"lambda {form[1:-1]}") if name == "<lambda>" else (name, f"{name}{form}")
        raise OperandError(f"{what}: {error}", f"its form is {form}") from None
    bound.apply_defaults()
    body = body_of(definition)
    frame = scope.frame.inlined(node, file)
    inner = Scope(
        frame, dict(bound.arguments), enclosing.globals, enclosing, captured_names(body), assigned(body)
    )
    outcome = statements.block(body, inner, frozenset())
    return None if outcome is statements.NO_RETURN else outcome


def _form(signature: inspect.Signature) -> str:
    """A signature without its annotations, as a user would write it."""
    plain = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    return str(signature.replace(parameters=plain, return_annotation=signature.empty))


def local_function(node: ast.FunctionDef | ast.Lambda, scope: Scope) -> LocalFunction:
    """A `def` or lambda inside a kernel, its default values computed now."""
    arguments, kinds = node.args, inspect.Parameter
    positional = [*arguments.posonlyargs, *arguments.args]
    given = [expressions.evaluate(d, scope) for d in arguments.defaults]
    defaults = [kinds.empty] * (len(positional) - len(given)) + given
    params = [kinds(p.arg, kinds.POSITIONAL_OR_KEYWORD, default=d) for p, d in zip(positional, defaults)]
    if arguments.vararg:
        params.append(kinds(arguments.vararg.arg, kinds.VAR_POSITIONAL))
    for p, d in zip(arguments.kwonlyargs, arguments.kw_defaults):
        default = kinds.empty if d is None else expressions.evaluate(d, scope)
        params.append(kinds(p.arg, kinds.KEYWORD_ONLY, default=default))
    if arguments.kwarg:
        params.append(kinds(arguments.kwarg.arg, kinds.VAR_KEYWORD))
    return LocalFunction(node, scope, inspect.Signature(params))
