"""Runs the arithmetic that passes write on NumPy arrays, by the interpreter: what the passes compute, without a compiler."""

from __future__ import annotations

from typing import Any

import numpy as np

from mosaic_compile.interpreter import Env, prepare_module
from mosaic_compile.interpreter.elementwise import REGISTRY
from mosaic_compile.mlir import ir, new_context
from mosaic_compile.passes import Pass

from .helpers import run_passes


def function(text: str, *passes: Pass) -> Any:
    """The one function of a module, after passes: on scalars, and so on arrays, which the interpreter broadcasts."""
    with new_context(), ir.Location.unknown():
        module = run_passes(ir.Module.parse(text), *passes)
        (prepared,) = prepare_module(module, REGISTRY | {"func.return": lambda op, env, *xs: xs}).values()

    def call(*arrays: Any) -> Any:
        with np.errstate(all="ignore"):
            return prepared(Env(), *arrays)[0]

    return call
