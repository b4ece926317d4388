"""`if`: decided at compile time where the condition is known, an `scf.if` where it is not."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from typing import Any

from mosaic_compile.errors import BranchTypeError, OperandError, UnsupportedSyntaxError
from mosaic_compile.language import ops
from mosaic_compile.language.dtypes import DType, bool_
from mosaic_compile.language.op import constant, default_dtype, is_number, kind_of
from mosaic_compile.language.tile import Tile
from mosaic_compile.mlir import ir, scf

from . import expressions, statements
from .liveness import Names, assigned
from .python import ordinary_python
from .scope import Scope, Undefined
from .values import HOLE, fill, like, same_constant

MISSING = object()  # a variable that a branch does not assign


def condition(test: ast.expr, scope: Scope, statement: str) -> bool | Tile:
    """A branch condition: a Python bool known now, or a bool scalar."""
    value = expressions.evaluate(test, scope)
    if not isinstance(value, Tile):
        with scope.frame.at(test), ordinary_python():
            return bool(value)
    if value.shape:
        raise OperandError(
            f"`{statement}` needs one truth value, not a tile of type {value!r}",
            "use mc.where to choose element by element, or reduce first: mc.any(x), mc.all(x)",
        ).at(scope.frame.spans(test))
    with scope.frame.at(test):
        return value if value.dtype is bool_ else ops.not_equal(value, 0)


def if_statement(node: ast.If, scope: Scope, after: Names) -> None:
    """An `if` without `return` in it."""
    test = condition(node.test, scope, "if")
    if isinstance(test, bool):
        statements.block(node.body if test else node.orelse, scope, after)
    else:
        _merge_variables(test, node, scope, after)


def if_with_return(node: ast.If, rest: Sequence[ast.stmt], scope: Scope, live: Names) -> Any:
    """An `if` with `return` in a branch: all that follows it, `rest`, belongs to the branch that goes on.

    Returns what the function returns, or NO_RETURN.
    """
    test = condition(node.test, scope, "if")
    if isinstance(test, bool):
        return statements.block([*(node.body if test else node.orelse), *rest], scope, live)
    if scope.loops:
        raise UnsupportedSyntaxError(
            "'return' cannot leave a loop that runs on the device",
            "set a variable in the loop and test it after the loop",
        ).at(scope.frame.spans(first_return(node) or node))

    def side(body: Sequence[ast.stmt]) -> Any:
        with scope.isolated():
            outcome = statements.block([*body, *rest], scope, live)
        return None if outcome is statements.NO_RETURN else outcome

    return select(test, lambda: side(node.body), lambda: side(node.orelse), "the returned value", scope, node)


def _merge_variables(test: Tile, node: ast.If, scope: Scope, after: Names) -> None:
    """An scf.if whose results are the variables that a branch assigns and that are read later."""
    names = sorted((assigned(node.body) | assigned(node.orelse)) & (after | scope.captured))

    def side(body: Sequence[ast.stmt]) -> list[Any]:
        with scope.isolated():
            statements.block(body, scope, after)
            return [scope.locals.get(name, MISSING) for name in names]

    quoted = [f"'{name}'" for name in names]
    results = select(test, lambda: side(node.body), lambda: side(node.orelse), quoted, scope, node)
    for name, value in zip(names, results):
        if value is MISSING:
            value = Undefined(
                f"'{name}' has no value if this condition does not hold (line {node.lineno})",
                f"give '{name}' a value before the `if`, or in both branches",
            )
        scope.locals[name] = value


def select(
    test: Tile, then: Callable[[], Any], orelse: Callable[[], Any], what: Any, scope: Scope, node: ast.AST
) -> Any:
    """Traces both sides into an scf.if; returns their merged outcome: a value, or a list of them."""
    # An operation's results are fixed when it is made, and the types of ours are known after tracing its
    # regions: a draft holds the blocks until then.
    draft = ir.Operation.create("scf.if", results=[], operands=[test.value], regions=2)
    blocks = [ir.Block.create_at_start(region, []) for region in draft.regions]
    outcomes = []
    for block, side in zip(blocks, (then, orelse)):
        with ir.InsertionPoint(block):
            outcomes.append(side())
    pairs: list[tuple[Tile, Tile]] = []
    merged = _merge(outcomes[0], outcomes[1], what, blocks, pairs, scope, node)
    types = [a.value.type for a, _ in pairs]
    final = ir.Operation.create("scf.if", results=types, operands=[test.value], regions=2)
    for block, values, region in zip(blocks, zip(*pairs) if pairs else ((), ()), final.regions):
        with ir.InsertionPoint(block):
            scf.yield_([v.value for v in values])
        block.append_to(region)
    draft.erase()
    return fill(merged, (Tile(result, a.dtype, a.shape) for result, (a, _) in zip(final.results, pairs)))


def _merge(
    a: Any,
    b: Any,
    what: Any,
    blocks: list[ir.Block],
    pairs: list[tuple[Tile, Tile]],
    scope: Scope,
    node: ast.AST,
) -> Any:
    """The common form of two outcomes; tiles are collected in `pairs` and leave a HOLE to be filled."""
    if isinstance(what, list):
        return [_merge(x, y, name, blocks, pairs, scope, node) for x, y, name in zip(a, b, what)]
    if a is MISSING or b is MISSING:
        return MISSING
    if isinstance(a, Undefined) or isinstance(b, Undefined):
        return a if isinstance(a, Undefined) else b
    if isinstance(a, tuple | list) and isinstance(b, tuple | list) and len(a) == len(b):
        form = a if type(a) is type(b) else ()
        return like(form, (_merge(x, y, what, blocks, pairs, scope, node) for x, y in zip(a, b)))
    if not isinstance(a, Tile) and not isinstance(b, Tile) and same_constant(a, b):
        return a
    described = f"{kind_of(a)} if the condition holds, but {kind_of(b)} if not"
    help = "give it the same element type and shape on both paths, with .to() or mc.broadcast_to"
    if not isinstance(a, Tile) and not isinstance(b, Tile):
        help = "a compile-time value cannot depend on a condition that is known only when the kernel runs"
    elif what == "the returned value" and (a is None or b is None):
        help = "return a value on every path"
    if is_number(a) or is_number(b):
        dtype = next((v.dtype for v in (a, b) if isinstance(v, Tile)), None) or default_dtype(a)
        if is_number(a):
            a = _number_in(blocks[0], a, dtype)
        if is_number(b):
            b = _number_in(blocks[1], b, dtype)
    if isinstance(a, Tile) and isinstance(b, Tile) and (a.dtype, a.shape) == (b.dtype, b.shape):
        pairs.append((a, b))
        return HOLE
    raise BranchTypeError(f"{what} is {described}", help).at(scope.frame.spans(node))


def _number_in(block: ir.Block, number: Any, dtype: DType) -> Tile:
    with ir.InsertionPoint(block):
        return constant(number, dtype)


def returns(node: ast.stmt) -> bool:
    """Whether a `return` stands in a statement (nested functions' own ones do not count)."""
    return first_return(node) is not None


def first_return(node: ast.AST) -> ast.AST | None:
    if isinstance(node, ast.Return):
        return node
    if isinstance(node, ast.FunctionDef | ast.Lambda):
        return None
    return next((found for child in ast.iter_child_nodes(node) if (found := first_return(child))), None)
