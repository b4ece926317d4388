"""`breakpoint()` in a kernel: Python's debugger, at the kernel's line, with the kernel's variables."""

from __future__ import annotations

from typing import Any

from mosaic_compile.passes.places import frames_of

from .evaluator import Entry, Env, Op
from .values import declared, decode


def _variable(op: Op, env: Env, value: Any) -> None:
    env.variables[op.attributes["text"]] = declared(value, op.attributes["dtype"])


def _breakpoint(op: Op, env: Env) -> None:
    """Calls `breakpoint()` where the kernel does: in code that stands at the kernel's line of its file."""
    constants = {item.name: decode(item.attr) for item in op.attributes["tile.constants"]}
    variables = {**constants, **env.variables, "program_id": env.program_id, "num_programs": env.grid}
    env.variables.clear()
    frames = frames_of(op.location)
    file, line = (frames[-1].file, frames[-1].line) if frames else ("<kernel>", 1)
    code = compile(
        "\n" * (line - 1) + "breakpoint()\npass", file, "exec"
    )  # the debugger stops at the next line
    exec(code.replace(co_name="kernel"), variables)


REGISTRY: dict[str, Entry] = {"tile.variable": _variable, "tile.breakpoint": _breakpoint}
