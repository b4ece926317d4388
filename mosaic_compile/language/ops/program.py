"""Where a program stands in the grid, and talking to the person who debugs it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mosaic_compile.dialects.tile import BreakpointOp, NumProgramsOp, PrintOp, ProgramIdOp, VariableOp
from mosaic_compile.errors import OperandError
from mosaic_compile.mlir import bool_attribute, ir

from ..dtypes import i32
from ..op import constant, default_dtype, ir_type, is_number, op, require_constant, require_tile
from ..tile import Tile
from .shape import integer


def _grid_axis(axis: Any, what: str) -> ir.Attribute:
    axis = require_constant(axis, int, f"{what}'s axis")
    if axis not in (0, 1, 2):
        raise OperandError(f"a grid has the axes 0, 1 and 2, not {axis}", f"{what}(0)")
    return integer(axis)


@op()
def program_id(axis: int) -> Tile:
    """This program's index on a grid axis (0, 1 or 2), as an i32 scalar."""
    return Tile(ProgramIdOp(_grid_axis(axis, "mc.program_id"), ir_type(i32)).result, i32, ())


@op()
def num_programs(axis: int) -> Tile:
    """The number of programs on a grid axis (0, 1 or 2), as an i32 scalar."""
    return Tile(NumProgramsOp(_grid_axis(axis, "mc.num_programs"), ir_type(i32)).result, i32, ())


@op()
def device_print(text: str, *values: Any) -> None:
    """Prints `text` and the values of every program while the kernel runs; for debugging."""
    if isinstance(text, Tile):
        raise OperandError("mc.device_print takes a text first", "mc.device_print('x', x)")
    text = require_constant(text, str, "mc.device_print's text")
    tiles = [
        constant(v, default_dtype(v)) if is_number(v) else require_tile(v, "mc.device_print") for v in values
    ]
    if not tiles:
        raise OperandError("mc.device_print prints values, but none is given", "mc.device_print('x', x)")
    for tile in tiles:
        PrintOp(tile.value, ir.StringAttr.get(text), ir.StringAttr.get(tile.dtype.name))


def stop(variables: Mapping[str, Any]) -> None:
    """Python's `breakpoint()` in a kernel: the interpreter opens the debugger on the kernel's variables."""
    for name, value in variables.items():
        if isinstance(value, Tile):
            VariableOp(value.value, ir.StringAttr.get(name), ir.StringAttr.get(value.dtype.name))
    constants = {name: _constant_attribute(v) for name, v in variables.items() if isinstance(v, int | float)}
    BreakpointOp().attributes["tile.constants"] = ir.DictAttr.get(constants)


def _constant_attribute(value: bool | int | float) -> ir.Attribute:
    if isinstance(value, bool):
        return bool_attribute(value)
    if isinstance(value, float):
        return ir.FloatAttr.get_f64(value)
    return ir.StringAttr.get(str(value)) if abs(value) >= 2**63 else integer(value)


__all__ = ["device_print", "num_programs", "program_id"]
