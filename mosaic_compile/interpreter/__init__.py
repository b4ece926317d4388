"""The oracle: runs kernels in the `tile` dialect on NumPy arrays, program by program, op by op.

    run(module, [a, b, c], grid=(4, 4))

values.py says how IR types and attributes look in Python, evaluator.py runs functions by a registry of
short entries, and elementwise.py (arith, math), control.py (scf, func), tile.py and debugger.py hold the
entries; those of exact.py round nothing. parallel.py spreads programs over the cores. Other dialects plug in
by entries of their own, as Triton's does in tt.py: `prepare_module(module, REGISTRY | {...})`, then `run_grid`.
"""

from .evaluator import Block, Entry, Env, Function, InterpreterError, Op, prepare, prepare_module, run_grid
from .launch import ARITHMETIC, REGISTRY, bind_arguments, prepare_kernel, run
from .values import ValueType

__all__ = [
    "ARITHMETIC",
    "REGISTRY",
    "Block",
    "Entry",
    "Env",
    "Function",
    "InterpreterError",
    "Op",
    "ValueType",
    "bind_arguments",
    "prepare",
    "prepare_kernel",
    "prepare_module",
    "run",
    "run_grid",
]
