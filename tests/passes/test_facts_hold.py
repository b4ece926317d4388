"""propagate-divisibility on random kernels: what it claims of an access holds in every program that runs.

Each kernel computes offsets from program ids, dimensions, loop counters and carried values, with numbers large
enough to wrap around, and loads blocks there. The interpreter runs it before and after the pass: the offsets must be
the same, and each must keep what the pass wrote on its load.
A failure shows its seed: `check_seed(seed)` repeats it.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from mosaic_compile.interpreter import REGISTRY, prepare_module, run_grid
from mosaic_compile.mlir import ir, new_context
from mosaic_compile.passes.propagate_divisibility import PropagateDivisibility

LARGE = (2**31 - 1, 2**30, 2**20, -(2**31), 100_000, -7)
FACTORS = (1, 2, 3, 4, 8, 16)


class Writer:
    """The text of one random kernel, on an array of M x N and one of a fixed size."""

    def __init__(self, rng: random.Random):
        self.rng = rng
        self.lines: list[str] = []
        self.count = 0
        self.grid_factors = [rng.choice(FACTORS) for _ in range(2)]
        self.multiples = [rng.choice(FACTORS) for _ in range(2)]
        self.fixed = rng.choice((5, 16, 24))
        self.usual: list[list[str]] = [["%m"], ["%n"]]  # offsets by the dimension that they are meant for

    def emit(self, text: str) -> str:
        self.count += 1
        self.lines.append(f"%v{self.count} = {text}")
        return f"%v{self.count}"

    def constant(self, value: int) -> str:
        return self.emit(f"arith.constant {value} : i32")

    def binary(self, op: str, a: str, b: str) -> str:
        return self.emit(f"arith.{op} {a}, {b} : i32")

    def positive(self, values: list[str]) -> str:
        """Something to divide by."""
        if self.rng.random() < 0.7:
            return self.constant(self.rng.choice(FACTORS))
        return self.binary("maxsi", self.rng.choice(values), self.constant(1))

    def expression(self, values: list[str]) -> str:
        a, b = self.rng.choice(values), self.rng.choice(values)
        match self.rng.randrange(12):
            case 0 | 1:
                return self.binary("muli", a, self.constant(self.rng.choice(FACTORS)))
            case 2 | 3:
                return self.binary(self.rng.choice(("addi", "subi", "muli")), a, b)
            case 4:
                return self.binary("addi", a, self.constant(self.rng.choice((-1, 1, 8, *LARGE))))
            case 5 | 6:
                op = self.rng.choice(("floordivsi", "ceildivsi", "divsi", "remsi"))
                return self.binary(op, a, self.positive(values))
            case 7:  # what `%` makes
                n = self.positive(values)
                quotient = self.binary("floordivsi", a, n)
                return self.binary("subi", a, self.binary("muli", quotient, n))
            case 8:
                return self.binary(self.rng.choice(("minsi", "maxsi")), a, b)
            case 9:
                op = self.rng.choice(("shli", "shrsi", "shrui"))
                return self.binary(op, a, self.constant(self.rng.randrange(4)))
            case 10:
                return self.binary("andi", a, self.constant(self.rng.choice((7, 12, -4, 0))))
            case _:
                test = self.emit(f"arith.cmpi slt, {a}, {b} : i32")
                return self.emit(f"arith.select {test}, {a}, {b} : i32")

    def load(self, values: list[str]) -> None:
        rows, columns = self.rng.choice(FACTORS), self.rng.choice(FACTORS)
        axes = self.rng.choice(("0, 1", "1, 0", "1"))
        extents = {"0, 1": f"{rows}x{columns}x", "1, 0": f"{columns}x{rows}x", "1": f"{columns}x"}[axes]
        array, type_ = self.rng.choice((("%a", "!a"), ("%b", "!b")))
        m, n = (self.rng.choice(values if self.rng.random() < 0.5 else usual) for usual in self.usual)
        self.emit(
            f'"tile.load"({array}, {m}, {n}) {{axes = array<i64: {axes}>, pad = 0.0 : f32, '
            f"operandSegmentSizes = array<i32: 1, 2>}} : ({type_}, i32, i32) -> tensor<{extents}f32>"
        )

    def statements(self, values: list[str], depth: int) -> list[str]:
        values = list(values)
        for _ in range(self.rng.randrange(2, 6)):
            if depth and self.rng.random() < 0.4:
                values.append(self.loop(values, depth - 1))
            else:
                values.append(self.expression(values))
        self.load(values[-5:])
        self.load(values)
        return values

    def loop(self, values: list[str], depth: int) -> str:
        axis, step = self.rng.randrange(2), self.rng.choice(FACTORS)
        dim = ("%m", "%n")[axis]
        lower = self.constant(self.rng.choice((0, 0, 1, -3)))
        kind = self.rng.randrange(3)
        match kind:
            case 0:  # a block at a time
                upper = self.binary(self.rng.choice(("ceildivsi", "floordivsi")), dim, self.constant(step))
                by = self.constant(1)
            case 1:
                upper, by = dim, self.constant(step)
            case _:
                upper, by = self.binary("minsi", self.rng.choice(values), self.constant(6)), self.constant(1)
        upper = self.binary("minsi", upper, self.constant(8))
        first = self.rng.choice(values)
        self.count += 1
        number = self.count
        self.lines.append(
            f"%v{number} = scf.for %i{number} = {lower} to {upper} step {by} iter_args(%c{number} = {first}) -> (i32) : i32 {{"
        )
        scale = self.constant(step if kind == 0 else 1)
        usual = self.binary("muli", f"%i{number}", scale)
        self.usual[axis].append(usual)
        inner = self.statements([*values[-3:], f"%i{number}", f"%c{number}"], depth)
        self.usual[axis].remove(usual)
        self.lines += [f"scf.yield {self.rng.choice(inner)} : i32", "}"]
        return f"%v{number}"

    def kernel(self) -> str:
        m, n = (f"cdiv({d}, {f})" for d, f in zip("MN", self.grid_factors))
        grid = self.rng.choice(([m, n], [m, f"({n} + 1)"], ["M", "min(N, 3)"], [f"((M // 2) + {n})", "2"]))
        self.grid = grid
        values = [
            self.emit('"tile.program_id"() {axis = 0 : i64} : () -> i32'),
            self.emit('"tile.program_id"() {axis = 1 : i64} : () -> i32'),
            self.emit('"tile.num_programs"() {axis = 0 : i64} : () -> i32'),
            self.constant(self.rng.choice(LARGE)),
            self.binary("maxsi", "%s", self.constant(0)),
        ]
        self.lines += [
            '%m = "tile.dim"(%a) {axis = 0 : i64} : (!a) -> i32',
            '%n = "tile.dim"(%a) {axis = 1 : i64} : (!a) -> i32',
        ]
        for usual, program, factor in zip(self.usual, values, self.grid_factors):
            usual.append(self.binary("muli", program, self.constant(factor)))
        self.statements([*values, "%m", "%n", "%s"], depth=2)
        body = "\n".join(self.lines)
        multiples = ", ".join(map(str, self.multiples))
        return f"""
            !a = !tile.array<tensor<?x?xf32>, strided<[?, 1]>>
            !b = !tile.array<tensor<?x{self.fixed}xf32>, strided<[{self.fixed}, 1]>>
            func.func @k(
              %a: !a {{tile.dims = ["M", "N"], tile.dim_multiples = array<i64: {multiples}>}},
              %b: !b {{tile.dims = ["M", {self.fixed}]}}, %s: i32
            ) attributes {{tile.kernel, tile.grid = ["{grid[0]}", "{grid[1]}"]}} {{
              {body}
              return
            }}
        """


def offsets_loaded(module: ir.Module, arguments: list, grid: tuple[int, int, int]) -> list[tuple]:
    """Where the kernel loads, in order; each load is checked against its attributes, if it has them."""
    seen: list[tuple] = []

    def load(op: Any, env: Any, array: np.ndarray, *offsets: Any) -> Any:
        offsets = tuple(map(int, offsets))
        seen.append(offsets)
        if "in_bounds" in op.attributes:
            extents = [1, 1]
            for axis, extent in zip(op.attributes["axes"], op.results[0].shape):
                extents[axis] = extent
            for axis, (offset, extent, size) in enumerate(zip(offsets, extents, array.shape)):
                assert offset % op.attributes["multiples"][axis] == 0
                assert offset >= 0 or not op.attributes["starts_inside"][axis]
                is_inside = offset >= 0 and offset + extent <= size
                assert is_inside or not op.attributes["in_bounds"][axis], (axis, offset, extent, size)
        return np.zeros(op.results[0].shape, np.float32)

    with np.errstate(all="ignore"):
        run_grid(prepare_module(module, {**REGISTRY, "tile.load": load}), "k", arguments, grid)
    return seen


def check_seed(seed: int) -> int:
    """Returns how many accesses are known to be in bounds, with the first dimension at least."""
    from mosaic_compile.language.symbolic import evaluate

    rng = random.Random(seed)
    writer = Writer(rng)
    text = writer.kernel()
    with new_context(), ir.Location.unknown():
        before, after = ir.Module.parse(text), ir.Module.parse(text)
        PropagateDivisibility().run(after)
        assert after.operation.verify()
        for _ in range(2):
            m, n = (multiple * rng.randrange(1, 4) for multiple in writer.multiples)
            grid = tuple(evaluate(size, {"M": m, "N": n}) for size in writer.grid)
            arguments = [np.zeros((m, n), np.float32), np.zeros((m, writer.fixed), np.float32)]
            arguments.append(np.int32(rng.choice((0, 1, 48, *LARGE, rng.randrange(-(2**31), 2**31)))))
            if 0 not in grid:
                try:
                    assert offsets_loaded(before, arguments, (*grid, 1)) == offsets_loaded(
                        after, arguments, (*grid, 1)
                    )
                except AssertionError as error:
                    error.add_note(f"seed {seed}, M={m}, N={n}:\n{text}\n{after}")
                    raise
        return str(after).count("in_bounds = array<i1: true")


@pytest.mark.parametrize("start", range(0, 40, 20))
def test_random_kernels(start):
    assert sum(map(check_seed, range(start, start + 20))) > 0  # the pass finds out something
