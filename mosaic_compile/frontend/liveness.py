"""Which variables are read later: decides what a loop carries and what an `if` gives back.

The textbook backward analysis (Aho, Sethi, Ullman: "Compilers", live variables) on Python's structured
statements.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence

Names = frozenset[str]


def reads(node: ast.AST | None) -> Names:
    """The names that an expression (or a nested function) reads."""
    if node is None:
        return frozenset()
    return frozenset(n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load))


def _targets(node: ast.AST) -> Names:
    return frozenset(n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))


def assigned(statements: Iterable[ast.stmt]) -> Names:
    """The names that statements assign anywhere inside, nested functions' own ones excepted."""
    names: set[str] = set()
    for statement in statements:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            names.add(statement.name)
            continue
        pending: list[ast.AST] = [statement]
        while pending:
            node = pending.pop()
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
                continue
            else:
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    names.add(node.id)
                pending.extend(ast.iter_child_nodes(node))
    return frozenset(names)


def live_before(statements: Sequence[ast.stmt], after: Names) -> Names:
    """The names whose values at the start of `statements` may still be read."""
    live = after
    for statement in reversed(statements):
        live = _before(statement, live)
    return live


def live_after_each(statements: Sequence[ast.stmt], after: Names) -> list[Names]:
    """For each statement, the names that may be read after it."""
    result: list[Names] = []
    live = after
    for statement in reversed(statements):
        result.append(live)
        live = _before(statement, live)
    return result[::-1]


def loop_live(loop: ast.For | ast.While, after: Names) -> Names:
    """The names that may be read when an iteration begins, or after the loop."""
    live = after | (reads(loop.test) if isinstance(loop, ast.While) else frozenset())
    while True:
        inside = live_before(loop.body, live)
        if isinstance(loop, ast.For):
            inside -= _targets(loop.target)
        grown = live | inside
        if grown == live:
            return live
        live = grown


def _before(statement: ast.stmt, after: Names) -> Names:
    match statement:
        case ast.Assign(targets=targets, value=value):
            written = frozenset().union(*map(_targets, targets))
            return (after - written) | reads(value) | frozenset().union(*map(reads, targets))
        case ast.AnnAssign(target=target, value=value):
            return (after - (_targets(target) if value else frozenset())) | reads(value)
        case ast.AugAssign(target=target, value=value):
            return after | _targets(target) | reads(target) | reads(value)
        case ast.If(test=test, body=body, orelse=orelse):
            return reads(test) | live_before(body, after) | live_before(orelse, after)
        case ast.For(iter=iterable):
            return reads(iterable) | loop_live(statement, after)
        case ast.While():
            return loop_live(statement, after)
        case ast.Return(value=value):
            return reads(value)
        case ast.FunctionDef(name=name):
            return (after - {name}) | reads(statement)
        case _:
            return after | reads(statement)


def captured_names(body: Sequence[ast.stmt]) -> Names:
    """Names that nested functions read: their values matter wherever such a function may be called."""
    nested = [n for s in body for n in ast.walk(s) if isinstance(n, ast.FunctionDef | ast.Lambda)]
    return frozenset().union(*map(_free_names, nested))


def _free_names(function: ast.FunctionDef | ast.Lambda) -> Names:
    """The names that a nested function reads of the function around it (default values are read there)."""
    a = function.args
    parameters = [*a.posonlyargs, *a.args, *a.kwonlyargs, *(p for p in (a.vararg, a.kwarg) if p)]
    own = frozenset(p.arg for p in parameters)
    if isinstance(function, ast.Lambda):
        return reads(function.body) - own
    return frozenset().union(*map(reads, function.body)) - own - assigned(function.body)
