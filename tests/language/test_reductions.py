"""Reductions and scans: element types, axes, keepdims, functions of the user."""

from __future__ import annotations

import pytest

import mosaic_compile as mc

from .values import ALL, FLOATS, FP8, INTEGERS, outcome, tile, tracing

SUMS = {
    **{d: d for d in (*FLOATS, *FP8)},  # wider inside, rounded once at the end
    **{d: "i32" for d in ("i16", "i8", "i4", "u8", "bool", "i32")},
    "i64": "i64",
    "u32": "u32",
}
NUMBERS = (*FLOATS, *INTEGERS)
REDUCTIONS = {
    mc.sum: SUMS,
    mc.prod: SUMS,
    mc.mean: {d: d for d in (*FLOATS, *FP8)},
    mc.max: {d: d for d in NUMBERS},
    mc.min: {d: d for d in NUMBERS},
    mc.argmax: {d: "i32" for d in NUMBERS},
    mc.argmin: {d: "i32" for d in NUMBERS},
    mc.any: {"bool": "bool"},
    mc.all: {"bool": "bool"},
}
SCANS = {mc.cumsum: SUMS, mc.cumprod: SUMS}


def _first_type(function):
    return next(iter(REDUCTIONS[function])) if function not in (mc.any, mc.all) else "bool"


@pytest.mark.parametrize("function", REDUCTIONS, ids=lambda f: f.__name__)
def test_types(function):
    with tracing():
        for dtype in ALL:
            given = REDUCTIONS[function].get(dtype)
            expected = f"{given}[4]" if given else "ElementTypeError"
            assert outcome(function, tile(f"{dtype}[4, 8]"), 1) == expected, dtype


@pytest.mark.parametrize("function", SCANS, ids=lambda f: f.__name__)
def test_scan_types(function):
    with tracing():
        for dtype in ALL:
            assert outcome(function, tile(f"{dtype}[4, 8]"), 1) == f"{SCANS[function][dtype]}[4, 8]", dtype


@pytest.mark.parametrize("function", REDUCTIONS, ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    ("shape", "axis", "plain", "kept"),
    [
        ("[4, 8]", 0, "[8]", "[1, 8]"),
        ("[4, 8]", 1, "[4]", "[4, 1]"),
        ("[4, 8]", -1, "[4]", "[4, 1]"),
        ("[4, 8]", None, "", "[1, 1]"),
        ("[8]", 0, "", "[1]"),
        ("[2, 4, 8]", 1, "[2, 8]", "[2, 1, 8]"),
        ("[2, 4, 8]", None, "", "[1, 1, 1]"),
    ],
)
def test_axes(function, shape, axis, plain, kept):
    dtype = _first_type(function)
    result = REDUCTIONS[function][dtype]
    with tracing():
        assert outcome(function, tile(dtype + shape), axis) == result + plain
        assert outcome(function, tile(dtype + shape), axis, keepdims=True) == result + kept
        if function in (mc.sum, mc.max, mc.min, mc.mean):
            method = getattr(tile(dtype + shape), function.__name__)
            assert outcome(method, axis) == result + plain
            assert outcome(method, axis, keepdims=True) == result + kept


@pytest.mark.parametrize("function", REDUCTIONS, ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    ("x", "arguments", "error"),
    [
        ("[4, 8]", dict(axis=2), "ShapeError"),
        ("[4, 8]", dict(axis=-3), "ShapeError"),
        ("[4, 8]", dict(axis=1.0), "OperandError"),
        ("[4, 8]", dict(axis="0"), "OperandError"),
        ("[4, 8]", dict(axis=(0, 1)), "OperandError"),
        ("[4, 8]", dict(axis=0, keepdims=1), "OperandError"),
        ("", dict(), "ShapeError"),
    ],
)
def test_mistakes(function, x, arguments, error):
    with tracing():
        assert outcome(function, tile(_first_type(function) + x), **arguments) == error


@pytest.mark.parametrize("function", REDUCTIONS, ids=lambda f: f.__name__)
def test_axis_known_at_run_time(function):
    with tracing():
        assert outcome(function, tile(f"{_first_type(function)}[4, 8]"), tile("i32")) == "NotConstantError"


@pytest.mark.parametrize("function", [mc.cumsum, mc.cumprod], ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    ("axis", "reverse", "result"),
    [
        (0, False, "f32[4, 8]"),
        (-1, True, "f32[4, 8]"),
        (2, False, "ShapeError"),
        (None, False, "OperandError"),
        (0, 1, "OperandError"),
    ],
)
def test_scan_axes(function, axis, reverse, result):
    with tracing():
        assert outcome(function, tile("f32[4, 8]"), axis, reverse=reverse) == result


@pytest.mark.parametrize(
    ("tiles", "combine", "result"),
    [
        ("f32[4, 8]", lambda a, b: a * b, "f32[4]"),
        (("f32[4, 8]",), lambda a, b: a * b, "(f32[4],)"),
        (("f32[4, 8]", "i32[4, 8]"), lambda a, i, b, j: (mc.maximum(a, b), i + j), "(f32[4], i32[4])"),
        (("f32[4, 8]", "i32[4, 8]"), lambda a, i, b, j: [a + b, i + j], "(f32[4], i32[4])"),
        (("f32[4, 8]", "i32[4, 8]"), lambda a, i, b, j: (i, a), "CarriedTypeError"),
        (("f32[4, 8]", "i32[4, 8]"), lambda a, i, b, j: a, "CarriedTypeError"),
        (("f32[4, 8]", "f32[8]"), lambda a, i, b, j: (a, i), "ShapeError"),
        ((), lambda: 0, "OperandError"),
        ("f32[4, 8]", lambda a, b: None, "CarriedTypeError"),
        ("f32[4, 8]", lambda a, b: 1.0, "CarriedTypeError"),
        ("f32[4, 8]", "add", "OperandError"),
        ("f32[4, 8]", None, "OperandError"),
    ],
)
def test_reduce(tiles, combine, result):
    x = tile if isinstance(tiles, str) else lambda names: tuple(tile(t) for t in names)
    with tracing(verify="Error" not in result):
        assert outcome(mc.reduce, x(tiles), 1, combine) == result
        scanned = result if "Error" in result else result.replace("[4]", "[4, 8]")
        assert outcome(mc.scan, x(tiles), 1, combine) == scanned


def test_reduce_keeps_dimensions():
    with tracing():
        add = lambda a, b: a + b
        assert outcome(mc.reduce, tile("f32[4, 8]"), 0, add, keepdims=True) == "f32[1, 8]"
        assert outcome(mc.reduce, tile("f32[4, 8]"), None, add) == "f32"
        assert outcome(mc.reduce, tile("f32[4, 8]"), None, add, keepdims=True) == "f32[1, 1]"
