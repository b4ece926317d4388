"""1,000 random kernels mean the same before and after every step of the compiler; and the generator is worth its name.

A failure prints the kernel, made small by Hypothesis, as a file that can be run. `python -m tests.fuzz` tries more.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from mosaic_compile.mlir import ir
from mosaic_compile.passes import (
    HoistLoads,
    PropagateDivisibility,
    TileCanonicalize,
    Upstream,
    hoist_loads,
    propagate_divisibility,
    tile_canonicalize,
)
from mosaic_compile.passes.walk import operations

from . import program as nodes
from .check import Mismatch, check, check_native
from .evaluate import COMBINATIONS, ELEMENTWISE
from .program import DTYPES, Program
from .search import search

CHUNKS, EACH = 10, 100
TARGETS = ("sm90", "gfx942", "sm100", "sm80")


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_random_programs(chunk):
    search(lambda program: check(program, TARGETS[chunk % len(TARGETS)]), count=EACH, seed=chunk)


@pytest.mark.parametrize("chunk", range(2))
def test_random_programs_on_this_cpu(chunk):
    search(check_native, count=50, seed=chunk)


# The generator finds what it is there for.


@dataclass(frozen=True)
class SwapSubtraction:
    """A wrong pass: b - a for a - b."""

    name: ClassVar[str] = "swap-subtraction"

    def run(self, module: ir.Module) -> None:
        for op in operations(module.operation):
            if op.name == "arith.subi":
                op.operands[0], op.operands[1] = list(op.operands)[::-1]


def found(*passes: Any, shrink: bool = False) -> str:
    """What the search says of wrong passes."""
    passes = (Upstream("cse"), Upstream("loop-invariant-code-motion"), *passes)
    with pytest.raises(Mismatch) as caught:
        search(lambda program: check(program, "sm90", passes), count=1000, seed=0, shrink=shrink)
    return str(caught.value)


def test_a_wrong_pass_is_found_with_a_small_kernel(tmp_path):
    message = found(SwapSubtraction(), shrink=True)
    assert message.startswith("after swap-subtraction (sm90): ")
    assert re.search(r"\w+\[[\d, ]+\] is \S+ instead of \S+", message)
    text = message.partition("\n\n")[2]
    body = re.search(r"\n\):\n(.*?)\n\n", text, re.DOTALL)[1]
    assert len(body.splitlines()) <= 12, body
    file = tmp_path / "kernel.py"
    file.write_text(text)
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root}
    printed = subprocess.run(
        [sys.executable, file], env=environment, cwd=root, capture_output=True, text=True, check=True
    )
    assert "[" in printed.stdout


def test_loads_hoisted_over_stores_are_found(monkeypatch):
    monkeypatch.setattr(hoist_loads, "written_arrays", lambda kernel: set())
    assert found(HoistLoads()).startswith("after hoist-loads")


def test_loads_shared_over_stores_are_found(monkeypatch):
    monkeypatch.setattr(tile_canonicalize, "written_arrays", lambda kernel: set())
    assert found(TileCanonicalize()).startswith("after tile-canonicalize")


def test_wrong_bounds_are_found(monkeypatch):
    monkeypatch.setattr(propagate_divisibility, "_fits", lambda offset, extent, size: offset.low >= 0)
    assert "is marked as in bounds" in found(PropagateDivisibility())


def test_transposes_that_move_nothing_are_found(monkeypatch):
    def as_reshape(source: ir.Value, order: list[int]) -> ir.Value:
        shape = tile_canonicalize.shape_of(source.type)
        return tile_canonicalize._reshape(source, [shape[axis] for axis in order])

    monkeypatch.setattr(tile_canonicalize, "_simpler_permute", as_reshape)
    assert found(TileCanonicalize()).startswith("after tile-canonicalize")


# What the 1,000 programs contain.


def features(program: Program) -> set[str]:
    """The constructs of a program, by name."""
    result = {f"grid of {len(program.programs)}", f"{min(2, max(program.programs))} programs or more"}
    result |= {f"size {size}" for _, size in program.sizes if size <= 1}
    result |= {"promised"} if any(multiple > 1 for _, multiple in program.multiples) else set()
    for node in program.walk():
        result.add(type(node).__name__)
        match node:
            case nodes.Elementwise(op=op) | nodes.Reduce(op=op) | nodes.Scan(op=op):
                result |= {op, f"{op} of {node.operands[-1].type.dtype}"}
            case nodes.Convert(value=value, dtype=dtype):
                result |= {f"to {dtype}", f"from {value.type.dtype}"}
            case nodes.Place(in_elements=in_elements, starts=starts):
                result.add("offset" if in_elements else "index")
                if any(isinstance(start, int) and start < 0 for start in starts):
                    result.add("negative offset")
            case nodes.View(point=point, order=order):
                result |= {"point"} if point else set()
                result |= {"transposed view"} if order != tuple(sorted(order)) else set()
            case nodes.Load(pad=pad) if pad:
                result.add("pad")
            case nodes.Dot(acc=acc, precision=precision):
                result |= {precision, "accumulator" if acc is not None else "no accumulator"}
            case nodes.Scatter(adds=adds, mask=mask):
                result |= {"scatter_add" if adds else "scatter", "mask" if mask is not None else "no mask"}
            case nodes.For(start=start, stop=stop, body=body):
                bounds = all(isinstance(bound, int) for bound in (start, stop))
                result.add("fixed bounds" if bounds else "bounds at run time")
                inner = [n for statement in body for n in statement.walk()]
                result |= {"loop in a loop"} if any(isinstance(n, nodes.For) for n in inner) else set()
                result |= {"store in a loop"} if any(isinstance(n, nodes.Store) for n in inner) else set()
            case nodes.Array(dtype=dtype):
                result.add(f"array of {dtype}")
    return result


def test_every_construct_is_generated():
    counts: Counter[str] = Counter()
    for chunk in range(CHUNKS):
        search(lambda program: counts.update(features(program)), count=EACH, seed=chunk, shrink=False)
    classes = {
        name
        for name, class_ in vars(nodes).items()
        if isinstance(class_, type) and issubclass(class_, nodes.Node)
    }
    wanted = classes - {"Node", "Expr", "Statement"}
    wanted |= set(ELEMENTWISE) | set(COMBINATIONS) | {"argmax", "argmin"}
    wanted |= {f"{kind} {dtype}" for dtype in DTYPES for kind in ("to", "from", "array of")}
    wanted |= {f"+ of {dtype}" for dtype in nodes.FLOATS + nodes.INTEGERS}
    wanted |= {"grid of 1", "grid of 2", "grid of 3", "0 programs or more", "2 programs or more"}
    wanted |= {
        "size 0",
        "size 1",
        "promised",
        "index",
        "offset",
        "negative offset",
        "point",
        "transposed view",
    }
    wanted |= {"pad", "ieee", "tf32", "tf32x3", "accumulator", "no accumulator", "scatter", "scatter_add"}
    wanted |= {"mask", "no mask", "fixed bounds", "bounds at run time", "loop in a loop", "store in a loop"}
    missing = sorted(name for name in wanted if not counts[name])
    assert not missing
