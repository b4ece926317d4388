"""Programs and their grid, printing, loops, and what works on numbers, tiles and grids alike."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mosaic_compile as mc
from mosaic_compile.frontend import trace
from mosaic_compile.interpreter import run

from .harness import apply
from .registry import checks
from .rounding import same
from .values import ALL, examples, tiles


@mc.kernel(grid=lambda A, B, C: (A, B, C))
def places(out: mc.i32["A", "B", "C", 6]):
    i, j, k = mc.program_id(0), mc.program_id(1), mc.program_id(2)
    for axis in mc.static_range(3):
        mc.store(out[i, j, k], mc.program_id(axis), offset=axis)
        mc.store(out[i, j, k], mc.num_programs(axis), offset=3 + axis)


@checks("program_id", "num_programs")
def test_grid():
    module = trace(places, places.specialize())

    @examples(30)
    @given(grid=st.tuples(*[st.integers(1, 5)] * 3))
    def check(grid):
        out = np.full((*grid, 6), -1, np.int32)
        run(module, [out], grid)
        wanted = np.empty((*grid, 6), np.int32)
        for place in np.ndindex(grid):
            wanted[place] = (*place, *grid)
        same(out, wanted)
        again = np.full((*grid, 6), -1, np.int32)
        places.interpret(again)
        same(again, wanted)

    check()


@checks("device_print")
@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_print(dtype, capsys):
    """A line for each program and value: where, the text, the values as NumPy writes them."""

    @mc.kernel(grid=(2, 2))
    def talk(x: dtype["N"]):
        tile = mc.load(x, 0, 4)
        mc.device_print("x =", tile, 3, 0.5, True)

    x = (
        np.array([True, False, True, True])
        if dtype is mc.bool_
        else np.array([1, 0, 2, 3]).astype(dtype.numpy)
    )
    if dtype.kind == "uint":
        x[0] = dtype.max
    run(trace(talk, talk.specialize()), [x], (2, 2))
    lines = capsys.readouterr().out.splitlines()
    programs = [(i, j, 0) for j in range(2) for i in range(2)]
    assert lines == [f"{p} x = {value}" for p in programs for value in (x, 3, 0.5, True)]


# Loops.


@mc.kernel
def counted(start: mc.i32, stop: mc.i32, step: mc.i32, out: mc.i64[3]):
    steps, total, last = mc.i64(0), mc.i64(0), mc.i64(-1)
    for i in mc.range(start, stop, step, num_stages=2, unroll=2, flatten=True):
        steps, total, last = steps + 1, total + i.to(mc.i64), i.to(mc.i64)
    mc.store(out, 0, steps)
    mc.store(out, 1, total)
    mc.store(out, 2, last)


@checks("mc.range")
def test_range():
    module = trace(counted, counted.specialize())

    @examples(60)
    @given(bounds=st.tuples(st.integers(-50, 50), st.integers(-50, 50), st.integers(1, 60)))
    def check(bounds):
        out = np.zeros(3, np.int64)
        run(module, [*bounds, out], (1,))
        steps = range(*bounds)
        assert list(out) == [len(steps), sum(steps), steps[-1] if steps else -1]

    check()


@checks("mc.static_range")
@pytest.mark.parametrize("bounds", [(4,), (1, 5), (0, 7, 3), (6, -1, -2), (3, 3), (5, 1)])
def test_static_range(bounds):
    """Python's range, negative steps included: the variable is a number, which may index a tuple."""

    @mc.kernel
    def kernel(out: mc.i32[8]):
        numbers = (10, 11, 12, 13, 14, 15, 16)
        for i in mc.static_range(*bounds):
            mc.store(out, i, mc.i32(numbers[i]))

    out = np.zeros(8, np.int32)
    run(trace(kernel, kernel.specialize()), [out], (1,))
    wanted = np.zeros(8, np.int32)
    wanted[list(range(*bounds))] = [10 + i for i in range(*bounds)]
    same(out, wanted)


# Numbers, tiles, grids.


@checks("mc.cdiv", "mc.minimum", "mc.maximum")
def test_on_numbers_and_grids():
    """Exactly as on Python's integers, of any size; on dimensions when the grid is evaluated."""

    @mc.kernel(grid=lambda N, M, B: (mc.cdiv(N, B), mc.minimum(N, M) + 1, mc.maximum(N // 3, M % 7) + 1))
    def count(x: mc.f32["N", "M"], out: mc.i32[3], *, B: mc.Const = 4):
        for axis in mc.static_range(3):
            mc.store(out, axis, mc.num_programs(axis))

    @examples(60)
    @given(a=st.integers(0, 2**40), b=st.integers(1, 2**20), n=st.integers(1, 20), m=st.integers(1, 20))
    def check(a, b, n, m):
        assert mc.cdiv(a, b) == -(-a // b) and mc.cdiv(-a, b) == -(a // b)
        assert mc.minimum(a, b) == min(a, b) and mc.maximum(a, b) == max(a, b)
        out = np.zeros(3, np.int32)
        count.interpret(np.zeros((n, m), np.float32), out)
        assert list(out) == [math.ceil(n / 4), min(n, m) + 1, max(n // 3, m % 7) + 1]

    check()


@mc.kernel
def with_builtins(x: mc.f32[8], y: mc.f32[8], out: mc.f32[3, 8]):
    a, b = mc.load(x, 0, 8), mc.load(y, 0, 8)
    mc.store(out[0], 0, max(a, b, 0.5))
    mc.store(out[1], 0, min(a, b))
    mc.store(out[2], 0, abs(a))


def test_builtins_on_tiles():
    """Python's max, min and abs are the operations, on tiles."""

    @examples(30)
    @given(data=st.data())
    def check(data):
        x, y = (data.draw(tiles(mc.f32, (8,), ordinary=True)) for _ in range(2))
        out = np.zeros((3, 8), np.float32)
        with_builtins.interpret(x, y, out)
        wanted = [np.maximum(np.maximum(x, y), 0.5), np.minimum(x, y), np.abs(x)]
        np.testing.assert_array_equal(out, np.array(wanted, np.float32))

    check()


@checks("Tile.ndim", "Tile.shape", "Tile.dtype", "Array.ndim", "Array.dtype")
@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_what_a_tile_knows(dtype):
    known = []

    def look(x):
        known.append((x.ndim, x.shape, x.dtype))
        return x

    @mc.kernel
    def kernel(x: dtype["N", 4], out: mc.i32[1]):
        assert x.ndim == 2 and x[0].ndim == 1 and x.dtype == dtype and x.shape[1] == 4
        mc.store(out, 0, x.shape[0])

    apply(look, np.zeros((2, 3), dtype.numpy))
    apply(look, np.zeros((), dtype.numpy))
    assert known == [(2, (2, 3), dtype), (0, (), dtype)]
    out = np.zeros(1, np.int32)
    run(trace(kernel, kernel.specialize()), [np.zeros((7, 4), dtype.numpy), out], (1,))
    assert out[0] == 7
