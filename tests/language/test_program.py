"""The grid, printing, random numbers, ranges."""

from __future__ import annotations

import pytest

import mosaic_compile as mc
from mosaic_compile.language.tile import Tile

from .values import ALL, outcome, tile, tracing


@pytest.mark.parametrize("function", [mc.program_id, mc.num_programs], ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    ("axis", "result"),
    [(0, "i32"), (1, "i32"), (2, "i32"), (3, "OperandError"), (-1, "OperandError"), ("x", "OperandError")],
)
def test_grid(function, axis, result):
    with tracing():
        assert outcome(function, axis) == result


def test_grid_axis_known_at_run_time():
    with tracing():
        assert outcome(mc.program_id, tile("i32")) == "NotConstantError"


@pytest.mark.parametrize("dtype", ALL)
def test_print(dtype):
    with tracing():
        assert outcome(mc.device_print, "x", tile(f"{dtype}[4]"), tile(dtype), 1, 0.5, True) == "None"
        assert outcome(mc.device_print, tile(dtype)) == "OperandError"
        assert outcome(mc.device_print, "x", "y") == "OperandError"


RANDOM = {mc.random_bits: "u32", mc.random_uniform: "f32", mc.random_normal: "f32"}


@pytest.mark.parametrize("function", RANDOM, ids=lambda f: f.__name__)
@pytest.mark.parametrize("seed", [0, 2**63 - 1, "i32", "i64", "u32"])
@pytest.mark.parametrize("offset", ["i32[4, 8]", "u32[8]", "i32"])
def test_random(function, seed, offset):
    with tracing():
        given = tile(seed) if isinstance(seed, str) else seed
        shape = offset[3:]
        assert outcome(function, given, tile(offset)) == RANDOM[function] + shape


@pytest.mark.parametrize("function", RANDOM, ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    ("seed", "offset", "result"),
    [
        ("f32", "i32[8]", "ElementTypeError"),
        (0, "i64[8]", "ElementTypeError"),
        (0, "f32[8]", "ElementTypeError"),
        (None, "i32[8]", "OperandError"),
        (0.5, "i32[8]", "OperandError"),
    ],
)
def test_random_mistakes(function, seed, offset, result):
    with tracing():
        assert outcome(function, tile(seed) if isinstance(seed, str) else seed, tile(offset)) == result


@pytest.mark.parametrize(
    ("counter", "key", "rounds", "result"),
    [
        (("i32[8]", 0, 0, 0), (1, 2), 10, "(u32[8], u32[8], u32[8], u32[8])"),
        (("i32[4, 1]", "u32[8]", 0, 0), ("i32", 2), 7, "(u32[4, 8], u32[4, 8], u32[4, 8], u32[4, 8])"),
        (("i32[8]", 0, 0), (1, 2), 10, "OperandError"),
        (("i32[8]", 0, 0, 0), (1,), 10, "OperandError"),
        (("i32[8]", 0, 0, "f32"), (1, 2), 10, "ElementTypeError"),
        (("i32[8]", "i32[4]", 0, 0), (1, 2), 10, "ShapeError"),
        (("i32[8]", 0, 0, 0), (1, 2), 1.5, "OperandError"),
        (3, (1, 2), 10, "OperandError"),
    ],
)
def test_philox(counter, key, rounds, result):
    def values(words):
        return (
            tuple(tile(w) if isinstance(w, str) else w for w in words) if isinstance(words, tuple) else words
        )

    with tracing():
        assert outcome(mc.philox, values(counter), values(key), rounds=rounds) == result


@pytest.mark.parametrize(
    ("arguments", "options", "result"),
    [
        ((4,), {}, (0, 4, 1)),
        ((1, 4), {}, (1, 4, 1)),
        ((1, 9, 2), {}, (1, 9, 2)),
        (("i32",), {}, (0, "i32", 1)),
        (("i32", "i32", "i32"), {}, ("i32", "i32", "i32")),
        ((4,), dict(num_stages=3, unroll=2, flatten=True, warp_specialize=True), (0, 4, 1)),
        ((4, 0, -1), {}, "ShapeError"),
        ((0, 4, 0), {}, "ShapeError"),
        ((0.5,), {}, "OperandError"),
        ((True,), {}, "OperandError"),
        (("f32",), {}, "MixedTypesError"),
        (("i64",), {}, "MixedTypesError"),
        (("i32[4]",), {}, "OperandError"),
        ((4,), dict(num_stages=0), "OperandError"),
        ((4,), dict(unroll="x"), "OperandError"),
        ((4,), dict(num_stages="i32"), "NotConstantError"),
    ],
)
def test_range(arguments, options, result):
    def value(x):
        return tile(x) if isinstance(x, str) and x != "x" else x

    with tracing():
        got = outcome(mc.range, *map(value, arguments), **{k: value(v) for k, v in options.items()})
        if isinstance(result, str):
            assert got == result
            return
        made = mc.range(*map(value, arguments), **options)
        bounds = tuple(repr(b) if isinstance(b, Tile) else b for b in (made.start, made.stop, made.step))
        assert bounds == result
        names = {name.removeprefix("tile.") for name in made.attributes()}
        assert names == set(options)


def test_a_known_range_is_pythons():
    with tracing():
        assert list(mc.range(1, 8, 3)) == [1, 4, 7]
        assert (len(mc.range(5)), mc.range(5)[-1], 3 in mc.range(5)) == (5, 4, True)
        assert list(reversed(mc.range(3))) == [2, 1, 0]
        assert outcome(lambda: list(mc.range(tile("i32")))) == "NotConstantError"


@pytest.mark.parametrize(
    ("arguments", "result"),
    [
        ((3,), "range(0, 3)"),
        ((1, 3), "range(1, 3)"),
        ((3, 0, -1), "range(3, 0, -1)"),
        ((1.5,), "OperandError"),
        ((0, 3, 0), "ShapeError"),
        (("i32",), "NotConstantError"),
    ],
)
def test_static_range(arguments, result):
    with tracing():
        values = [tile(a) if isinstance(a, str) else a for a in arguments]
        assert outcome(mc.static_range, *values) == result
