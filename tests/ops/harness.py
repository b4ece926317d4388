"""Runs operations of the language on NumPy arrays: traced without a kernel around them, then interpreted."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mosaic_compile.interpreter import REGISTRY, Env, prepare_module
from mosaic_compile.interpreter.values import NUMPY_DTYPES
from mosaic_compile.language.dtypes import DTYPES, DType
from mosaic_compile.language.op import ir_type
from mosaic_compile.language.tile import Tile
from mosaic_compile.mlir import func, ir, new_context

DSL_TYPES = {dtype.numpy: dtype for dtype in DTYPES.values()}


def apply(function: Callable[..., Any], *inputs: Any, **options: Any) -> Any:
    """`function(*tiles, **options)` for tiles of the arrays' types and shapes (scalars: no dimensions).

    Gives an array for a tile, a tuple of arrays for a tuple, of the element types that the operation gives.
    """
    arrays = [np.asarray(x) for x in inputs]
    types = tuple((DSL_TYPES[x.dtype], x.shape) for x in arrays)
    prepared, results, several = _traced(function, types, options)
    values = [x.view(NUMPY_DTYPES[dtype.mlir])[()] for x, (dtype, _) in zip(arrays, types)]
    with np.errstate(all="ignore"):
        outcome = prepared(Env(), *values)
    outputs = [np.asarray(value) for value in outcome]
    for output, (dtype, shape) in zip(outputs, results):
        assert output.shape == shape and output.dtype == NUMPY_DTYPES[dtype.mlir], (
            output.dtype,
            output.shape,
        )
    outputs = [output.view(dtype.numpy) for output, (dtype, _) in zip(outputs, results)]
    return tuple(outputs) if several else outputs[0]


@functools.cache
def _context() -> ir.Context:
    return new_context()  # one for all: making one takes longer than a test


def _traced(
    function: Callable[..., Any], types: Sequence[tuple[DType, tuple[int, ...]]], options: dict[str, Any]
) -> tuple[Any, list[tuple[DType, tuple[int, ...]]], bool]:
    """The prepared function, the types and shapes of its results, and whether these are a tuple."""
    with _context(), ir.Location.unknown():
        module = ir.Module.create()
        with ir.InsertionPoint(module.body):
            signature = [ir_type(dtype, shape) for dtype, shape in types]
            traced = func.FuncOp("f", (signature, []))
            block = traced.add_entry_block()
            with ir.InsertionPoint(block):
                tiles = [Tile(value, *type_) for value, type_ in zip(block.arguments, types)]
                outcome = function(*tiles, **options)
                results = list(outcome) if isinstance(outcome, tuple | list) else [outcome]
                func.ReturnOp([tile.value for tile in results])
            given = ir.FunctionType.get(signature, [tile.value.type for tile in results])
            traced.attributes["function_type"] = ir.TypeAttr.get(given)
        assert module.operation.verify()
        prepared = prepare_module(module, REGISTRY)["f"]
    return prepared, [(tile.dtype, tile.shape) for tile in results], isinstance(outcome, tuple | list)
