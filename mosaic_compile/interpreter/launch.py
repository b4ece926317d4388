"""Running a kernel's module on NumPy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mosaic_compile.dialects.tile import array_type_of
from mosaic_compile.language.dtypes import DTYPES
from mosaic_compile.mlir import ir

from . import control, debugger, elementwise, exact, tile
from .evaluator import Entry, Function, InterpreterError, prepare_module
from .parallel import run_programs
from .values import NUMPY_DTYPES, signed

REGISTRY: dict[str, Entry] = {
    **elementwise.REGISTRY,
    **control.REGISTRY,
    **tile.REGISTRY,
    **debugger.REGISTRY,
}

# What each kind of arithmetic does with floating-point numbers.
ARITHMETIC: dict[str, dict[str, Entry]] = {
    "hardware": REGISTRY,  # every operation rounds to its element type, sums run in the order of the tiles
    "exact": REGISTRY | exact.REGISTRY,  # float64 throughout, rounded in conversions and in memory
}


def run(
    module: ir.Module,
    arrays_and_scalars: Sequence[Any],
    grid: tuple[int, ...],
    *,
    arithmetic: str = "hardware",
    workers: int | None = None,
) -> None:
    """Runs the kernel of a `tile` module, program by program, on NumPy arrays, which are written in place.

    arrays_and_scalars: one for each argument of the function, in order. Arrays may be strided; their
    element types are the DSL's, the narrow ones from ml_dtypes. arithmetic: a key of ARITHMETIC.
    workers: processes for programs that are independent; None: as many as save time. Raises
    InterpreterError for arguments that do not fit, for ops without an entry, and for a program that fails.
    """
    functions, name = prepare_kernel(module, arithmetic)
    arguments = bind_arguments(module, arrays_and_scalars)
    if arithmetic == "exact":
        arguments = [a if isinstance(a, np.ndarray) else exact.wide(a) for a in arguments]
    run_programs(module, functions, name, arguments, grid, arithmetic, workers)


def prepare_kernel(module: ir.Module, arithmetic: str = "hardware") -> tuple[dict[str, Function], str]:
    """A module's functions made ready to run, and the kernel's name."""
    return prepare_module(module, ARITHMETIC[arithmetic]), _kernel(module).attributes["sym_name"].value


def _kernel(module: ir.Module) -> ir.Operation:
    functions = [op.operation for op in module.body.operations if "tile.kernel" in op.operation.attributes]
    if len(functions) != 1:
        raise InterpreterError(
            f"a module has one function with the attribute tile.kernel, this one has {len(functions)}"
        )
    return functions[0]


def bind_arguments(module: ir.Module, given: Sequence[Any]) -> list[Any]:
    """The arguments of a module's kernel as the interpreter's values, checked."""
    kernel = _kernel(module)
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
