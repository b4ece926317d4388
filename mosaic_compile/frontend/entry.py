"""Tracing: a kernel's syntax tree is executed once, at compile time, and what depends on runtime values
becomes IR.

Python values (numbers, types, tuples, functions, modules) are computed right here; tiles and scalars are
`Tile`s whose operators emit IR. So only control flow, names and calls are the frontend's business: the
operations themselves are in language/ops. `if`, `for` and `while` on runtime values become `scf.if`,
`scf.for` and `scf.while`, with the variables that liveness.py finds as their results; functions of the user
are inlined.
"""

from __future__ import annotations

from mosaic_compile.language.kernel import Kernel
from mosaic_compile.language.specialization import Specialization
from mosaic_compile.mlir import func, ir, new_context

from .arguments import argument_attributes, argument_type, dimension_names, parameter_values, runtime_params
from .liveness import assigned, captured_names
from .scope import Frame, Scope, closure
from .source import FunctionNode, body_of, display_path, function_node
from .statements import block


def trace(kernel: Kernel, spec: Specialization, context: ir.Context | None = None) -> ir.Module:
    """The kernel as a module of the `tile` dialect, in a context of its own unless one is given (see mlir.new_context).

    Raises a MosaicError with the user's line for every mistake in the kernel's text.
    """
    node = function_node(kernel.function)
    frame = Frame(display_path(kernel.function.__code__.co_filename))
    with context or new_context(), frame.at(node):
        module = ir.Module.create()
        with ir.InsertionPoint(module.body):
            entry = _function(kernel, spec)
        with ir.InsertionPoint(entry):
            _body(kernel, spec, node, frame, entry)
            func.return_([])
    return module


def _function(kernel: Kernel, spec: Specialization) -> ir.Block:
    """The kernel's `func.func` with the attributes that dialects/tile.py lists; returns its empty body."""
    params = runtime_params(kernel, spec)
    function = func.FuncOp(kernel.name, ([argument_type(p, spec) for p in params], []))
    attributes = function.operation.attributes
    attributes["tile.kernel"] = ir.UnitAttr.get()
    attributes["tile.grid"] = ir.ArrayAttr.get([ir.StringAttr.get(g) for g in kernel.grid_text(spec)])
    i64 = ir.IntegerType.get_signless(64)
    options = {
        name: ir.IntegerAttr.get(i64, value) for name, value in spec.options.items() if value is not None
    }
    attributes["tile.options"] = ir.DictAttr.get(options)
    function.arg_attrs = [argument_attributes(p, spec) for p in params]
    return function.add_entry_block()


def _body(kernel: Kernel, spec: Specialization, node: FunctionNode, frame: Frame, entry: ir.Block) -> None:
    variables = parameter_values(kernel, spec, entry.arguments)
    module_globals = kernel.function.__globals__
    enclosing = Scope(frame, closure(kernel.function), module_globals)
    body = body_of(node)
    dimensions = dimension_names(kernel, spec)
    scope = Scope(
        frame,
        variables,
        module_globals,
        enclosing,
        captured_names(body),
        assigned(body),
        is_kernel=True,
        dimensions=dimensions,
    )
    block(body, scope, frozenset())
