"""Running a kernel's module on NumPy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mosaic_compile.dialects.tile import array_type_of
from mosaic_compile.language.dtypes import DTYPES
from mosaic_compile.mlir import ir

from . import control, elementwise, tile
from .evaluator import Entry, InterpreterError, prepare_module, run_grid
from .values import NUMPY_DTYPES, signed

REGISTRY: dict[str, Entry] = {**elementwise.REGISTRY, **control.REGISTRY, **tile.REGISTRY}


def run(module: ir.Module, arrays_and_scalars: Sequence[Any], grid: tuple[int, ...]) -> None:
    """Runs the kernel of a `tile` module, program by program, on NumPy arrays, which are written in place.

    arrays_and_scalars: one for each argument of the function, in order. Arrays may be strided; their
    element types are the DSL's, the narrow ones from ml_dtypes. Raises InterpreterError for arguments that
    do not fit, and for ops without an entry.
    """
    kernel = _kernel(module)
    arguments = _bind(kernel, arrays_and_scalars)
    run_grid(prepare_module(module, REGISTRY), kernel.attributes["sym_name"].value, arguments, grid)


def _kernel(module: ir.Module) -> ir.Operation:
    functions = [op.operation for op in module.body.operations if "tile.kernel" in op.operation.attributes]
    if len(functions) != 1:
        raise InterpreterError(
            f"a module has one function with the attribute tile.kernel, this one has {len(functions)}"
        )
    return functions[0]


def _bind(kernel: ir.Operation, given: Sequence[Any]) -> list[Any]:
    """The arguments as the interpreter's values, checked."""
    parameters = kernel.regions[0].blocks[0].arguments
    if len(parameters) != len(given):
        raise InterpreterError(f"the kernel takes {len(parameters)} arguments, not {len(given)}")
    attributes = (
        list(kernel.attributes["arg_attrs"]) if "arg_attrs" in kernel.attributes else [{}] * len(parameters)
    )
    return [_argument(p, ir.DictAttr(a) if a else {}, v) for p, a, v in zip(parameters, attributes, given)]


def _argument(parameter: ir.Value, attributes: Any, value: Any) -> Any:
    """`value` checked, and read as signed integers where it is unsigned."""
    named = {key: attributes[key].value for key in ("tile.name", "tile.dtype") if key in attributes}
    what = f"argument '{named.get('tile.name', parameter.arg_number)}'"
    if str(parameter.type).startswith("!tile.array"):
        tensor, _ = array_type_of(parameter)
        dtype = NUMPY_DTYPES[str(tensor.element_type)]
        wanted = DTYPES[named["tile.dtype"]].numpy if "tile.dtype" in named else dtype
        dynamic = ir.ShapedType.get_dynamic_size()
        if not isinstance(value, np.ndarray) or value.dtype not in (wanted, dtype):
            kind = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
            raise InterpreterError(f"{what} is an array of {wanted}, not {kind}")
        if len(value.shape) != tensor.rank or any(
            t not in (n, dynamic) for t, n in zip(tensor.shape, value.shape)
        ):
            raise InterpreterError(f"{what} is {parameter.type}, which the shape {value.shape} does not fit")
        return value.view(dtype)
    dtype = NUMPY_DTYPES[str(parameter.type)]
    wanted = DTYPES[named["tile.dtype"]].numpy if "tile.dtype" in named else dtype
    if np.ndim(value):
        raise InterpreterError(f"{what} is a scalar, not an array of shape {np.shape(value)}")
    return signed(np.asarray(value).astype(wanted), dtype)
