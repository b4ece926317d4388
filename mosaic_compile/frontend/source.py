"""Finding the syntax tree of a function, with its true place in the file."""

from __future__ import annotations

import ast
import functools
import linecache
import os
import re
from types import CodeType, FunctionType

from mosaic_compile.errors import MosaicError, SourceUnavailableError, Span, UnsupportedSyntaxError

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


@functools.lru_cache(maxsize=64)
def _functions(text: str, file: str) -> tuple[FunctionNode, ...]:
    """The functions that a text defines, wherever they stand in it."""
    return tuple(node for node in ast.walk(ast.parse(text, file)) if isinstance(node, FunctionNode))


def display_path(file: str) -> str:
    """The file as it is shown: relative to the current folder where it lies below it."""
    if file.startswith("<"):
        return file
    relative = os.path.relpath(file)
    return file if relative.startswith("..") else relative


def span_of(node: ast.AST, file: str) -> Span:
    line, column = node.lineno, node.col_offset  # type: ignore[attr-defined]
    return Span(
        file, line, column, getattr(node, "end_lineno", line), getattr(node, "end_col_offset", column + 1)
    )


def definition_span(fn: FunctionType) -> Span:
    """A function's name in its `def` (for a lambda, its line), found without parsing."""
    code = fn.__code__
    line = code.co_firstlineno
    lines = linecache.getlines(code.co_filename)
    while (
        0 < line <= len(lines)
        and not lines[line - 1].lstrip().startswith(("def ", "async def "))
        and fn.__name__ != "<lambda>"
    ):
        line += 1
    if not 0 < line <= len(lines):
        return Span(display_path(code.co_filename), code.co_firstlineno, 0, code.co_firstlineno, 1)
    text = lines[line - 1].rstrip("\r\n")
    name = re.search(rf"\bdef\s+({re.escape(fn.__name__)})\b", text)
    start, end = name.span(1) if name else (len(text) - len(text.lstrip()), len(text))
    # Columns are counted as ast does, in bytes.
    start, end = len(text[:start].encode()), len(text[:end].encode())
    return Span(display_path(code.co_filename), line, start, line, end)


def function_node(fn: FunctionType) -> FunctionNode:
    """The syntax tree of a Python function; raises SourceUnavailableError where the text is gone."""
    code = fn.__code__
    linecache.checkcache(code.co_filename)
    lines = linecache.getlines(code.co_filename)
    if not lines:
        raise SourceUnavailableError(
            f"the source of '{fn.__name__}' cannot be read (it was defined in {code.co_filename})",
            "define kernels and their helpers in a file or a notebook cell: the compiler reads their text",
        )
    functions = _functions("".join(lines), code.co_filename)
    candidates = [node for node in functions if _is_definition_of(node, code)]
    if not candidates:
        raise SourceUnavailableError(
            f"'{fn.__name__}' is not at line {code.co_firstlineno} of {code.co_filename} any more",
            "reload the file: it changed after it was imported",
        )
    node = candidates[0] if len(candidates) == 1 else _closest(candidates, code)
    if isinstance(node, ast.AsyncFunctionDef):
        raise UnsupportedSyntaxError(
            "a kernel cannot be an async function",
            "write def",
            (span_of(node, display_path(code.co_filename)),),
        )
    return node


def _is_definition_of(node: FunctionNode, code: CodeType) -> bool:
    if isinstance(node, ast.Lambda):
        return code.co_name == "<lambda>" and node.lineno == code.co_firstlineno
    first = min([d.lineno for d in node.decorator_list], default=node.lineno)
    return node.name == code.co_name and code.co_firstlineno in (first, node.lineno)


def _closest(candidates: list[FunctionNode], code: CodeType) -> FunctionNode:
    """Several lambdas in one line: the one whose body holds the code's columns."""
    positions = [(p[0], p[2]) for p in code.co_positions() if p[0] is not None and p[2] is not None]
    for node in candidates:
        if isinstance(node, ast.Lambda) and (node.body.lineno, node.body.col_offset) in positions:
            return node
    return candidates[0]


def parameter_span(fn: FunctionType, name: str) -> Span | None:
    """Where a function's parameter stands; None where that cannot be found."""
    try:
        node = function_node(fn)
    except MosaicError:
        return None
    parameters = (n for n in ast.walk(node.args) if isinstance(n, ast.arg) and n.arg == name)
    found = next(parameters, None)
    return None if found is None else span_of(found, display_path(fn.__code__.co_filename))


def body_of(node: FunctionNode) -> list[ast.stmt]:
    """A function's statements; a lambda's expression as its `return`."""
    return node.body if isinstance(node.body, list) else [ast.copy_location(ast.Return(node.body), node.body)]
