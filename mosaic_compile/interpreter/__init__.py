"""The oracle: runs kernels in the `tile` dialect on NumPy arrays, program by program, op by op.

    run(module, [a, b, c], grid=(4, 4))

values.py says how IR types and attributes look in Python, evaluator.py runs functions by a registry of
short entries, and elementwise.py (arith, math), control.py (scf, func) and tile.py hold the entries. Other
dialects plug in by entries of their own: `prepare_module(module, REGISTRY | {"tt.load": load, ...})`, then
`run_grid`.
"""

from .evaluator import Block, Entry, Env, Function, InterpreterError, Op, prepare, prepare_module, run_grid
from .launch import REGISTRY, run
from .values import ValueType

__all__ = [
    "REGISTRY",
    "Block",
    "Entry",
    "Env",
    "Function",
    "InterpreterError",
    "Op",
    "ValueType",
    "prepare",
    "prepare_module",
    "run",
    "run_grid",
]
