"""Making, reshaping, joining and cutting tiles."""

from __future__ import annotations

import pytest

import mosaic_compile as mc
from mosaic_compile.language.dtypes import DTYPES

from .values import ALL, outcome, tile, tracing


@pytest.mark.parametrize("dtype", ALL)
def test_every_type_is_made_and_moved(dtype):
    x = f"{dtype}[4, 8]"
    made = DTYPES[dtype]
    with tracing():
        assert outcome(mc.zeros, (4, 8), made) == x
        assert outcome(mc.ones, (4, 8), made) == x
        assert outcome(mc.full, (4, 8), True if dtype == "bool" else 1, made) == x
        assert outcome(mc.full, (4, 8), tile(dtype), made) == x
        assert outcome(mc.reshape, tile(x), (2, -1)) == f"{dtype}[2, 16]"
        assert outcome(mc.transpose, tile(x)) == f"{dtype}[8, 4]"
        assert outcome(mc.permute, tile(x), (1, 0)) == f"{dtype}[8, 4]"
        assert outcome(mc.expand_dims, tile(x), 1) == f"{dtype}[4, 1, 8]"
        assert outcome(mc.broadcast_to, tile(x), (2, 4, 8)) == f"{dtype}[2, 4, 8]"
        assert outcome(mc.cat, (tile(x), tile(x)), 1) == f"{dtype}[4, 16]"
        assert outcome(mc.split, tile(x), 2, 1) == f"({dtype}[4, 4], {dtype}[4, 4])"


@pytest.mark.parametrize(
    ("size", "result"),
    [
        (4, "i32[4]"),
        ((4,), "i32[4]"),
        ((2, 2), "OperandError"),
        (0, "ShapeError"),
        (-1, "ShapeError"),
        (2.5, "ShapeError"),
        (True, "ShapeError"),
        (None, "ShapeError"),
    ],
)
def test_iota(size, result):
    with tracing():
        assert outcome(mc.iota, size) == result


@pytest.mark.parametrize(
    ("shape", "result"),
    [
        (4, "f32[4]"),
        ([4, 2], "f32[4, 2]"),
        ((), "f32"),
        ((4, 0), "ShapeError"),
        ((4, "8"), "ShapeError"),
        ("44", "ShapeError"),
    ],
)
def test_shapes(shape, result):
    with tracing():
        assert outcome(mc.zeros, shape, mc.f32) == result
        assert outcome(mc.full, shape, 1.0, mc.f32) == result


def test_sizes_known_at_run_time():
    with tracing():
        for function in (mc.zeros, mc.ones, mc.iota):
            arguments = () if function is mc.iota else (mc.f32,)
            assert outcome(function, tile("i32"), *arguments) == "NotConstantError"
        assert outcome(tile("f32[4]").reshape, tile("i32"), 2) == "NotConstantError"
        assert outcome(tile("f32[4]").broadcast_to, tile("i32"), 4) == "NotConstantError"


@pytest.mark.parametrize(
    ("x", "shape", "result"),
    [
        ("f32[4, 8]", (32,), "f32[32]"),
        ("f32[4, 8]", 32, "f32[32]"),
        ("f32[4, 8]", [8, 4], "f32[8, 4]"),
        ("f32[4, 8]", (-1,), "f32[32]"),
        ("f32[4, 8]", (2, -1, 2), "f32[2, 8, 2]"),
        ("f32[4, 8]", (4, 8), "f32[4, 8]"),
        ("f32", (1, 1), "f32[1, 1]"),
        ("f32[1]", (), "ShapeError"),
        ("f32", (2,), "ShapeError"),
        ("f32[4, 8]", (5, -1), "ShapeError"),
        ("f32[4, 8]", (-1, -1), "ShapeError"),
        ("f32[4, 8]", (31,), "ShapeError"),
        ("f32[4, 8]", (-1, 0), "ShapeError"),
        ("f32[4, 8]", "32", "ShapeError"),
    ],
)
def test_reshape(x, shape, result):
    with tracing():
        assert outcome(mc.reshape, tile(x), shape) == result
        assert outcome(tile(x).reshape, shape) == result
        if isinstance(shape, tuple) and shape:
            assert outcome(tile(x).reshape, *shape) == result


@pytest.mark.parametrize(
    ("x", "index", "result"),
    [
        ("f32[4]", (slice(None), None), "f32[4, 1]"),
        ("f32[4]", (None, slice(None)), "f32[1, 4]"),
        ("f32[4]", None, "f32[1, 4]"),
        ("f32[4]", slice(None), "f32[4]"),
        ("f32[4, 8]", (slice(None), None), "f32[4, 1, 8]"),
        ("f32[4, 8]", (None, slice(None), None, slice(None), None), "f32[1, 4, 1, 8, 1]"),
        ("f32", (None, None), "f32[1, 1]"),
        ("f32", slice(None), "ShapeError"),
        ("f32[4]", (slice(None), slice(None)), "ShapeError"),
        ("f32[4]", 0, "OperandError"),
        ("f32[4]", slice(0, 2), "OperandError"),
        ("f32[4]", Ellipsis, "OperandError"),
    ],
)
def test_indexing_adds_dimensions(x, index, result):
    with tracing():
        assert outcome(tile(x).__getitem__, index) == result


@pytest.mark.parametrize(
    ("x", "order", "result"),
    [
        ("f32[2, 4, 8]", (2, 0, 1), "f32[8, 2, 4]"),
        ("f32[2, 4, 8]", (-1, 0, 1), "f32[8, 2, 4]"),
        ("f32[2, 4, 8]", (0, 1, 2), "f32[2, 4, 8]"),
        ("f32[2, 4, 8]", (0, 1), "ShapeError"),
        ("f32[2, 4, 8]", (0, 0, 1), "ShapeError"),
        ("f32[2, 4, 8]", (0, 1, 3), "ShapeError"),
        ("f32[2, 4, 8]", (0, 1, 1.5), "OperandError"),
    ],
)
def test_permute(x, order, result):
    with tracing():
        assert outcome(mc.permute, tile(x), order) == result
        assert outcome(tile(x).permute, *order) == result
        assert outcome(tile(x).permute, order) == result


@pytest.mark.parametrize(
    ("x", "result"),
    [
        ("f32[4, 8]", "f32[8, 4]"),
        ("f32[2, 4, 8]", "f32[2, 8, 4]"),
        ("f32[4]", "ShapeError"),
        ("f32", "ShapeError"),
    ],
)
def test_transpose(x, result):
    with tracing():
        assert outcome(mc.transpose, tile(x)) == result
        assert outcome(lambda: tile(x).T) == result


@pytest.mark.parametrize(
    ("x", "axis", "result"),
    [
        ("f32[4, 8]", 0, "f32[1, 4, 8]"),
        ("f32[4, 8]", 2, "f32[4, 8, 1]"),
        ("f32[4, 8]", -1, "f32[4, 8, 1]"),
        ("f32[4, 8]", -3, "f32[1, 4, 8]"),
        ("f32", 0, "f32[1]"),
        ("f32[4, 8]", 3, "ShapeError"),
        ("f32[4, 8]", "0", "OperandError"),
        ("f32[4, 8]", None, "OperandError"),
    ],
)
def test_expand_dims(x, axis, result):
    with tracing():
        assert outcome(mc.expand_dims, tile(x), axis) == result


@pytest.mark.parametrize(
    ("x", "shape", "result"),
    [
        ("f32", (4, 8), "f32[4, 8]"),
        ("f32[8]", (4, 8), "f32[4, 8]"),
        ("f32[4, 1]", (4, 8), "f32[4, 8]"),
        ("f32[4, 8]", (4, 8), "f32[4, 8]"),
        ("f32[4]", (4, 8), "ShapeError"),
        ("f32[4, 8]", (8,), "ShapeError"),
        ("f32[2]", (1,), "ShapeError"),
    ],
)
def test_broadcast_to(x, shape, result):
    with tracing():
        assert outcome(mc.broadcast_to, tile(x), shape) == result
        assert outcome(tile(x).broadcast_to, *shape) == result


@pytest.mark.parametrize(
    ("tiles", "axis", "result"),
    [
        (["f32[4]"], 0, "f32[4]"),
        (["f32[4]"] * 2, 0, "f32[8]"),
        (["f32[4, 8]"] * 4, -1, "f32[4, 32]"),
        (["f32[4, 8]"] * 8, 0, "f32[32, 8]"),
        (["f32[4]"] * 3, 0, "ShapeError"),
        ([], 0, "ShapeError"),
        (["f32[4]", "f32[8]"], 0, "ShapeError"),
        (["f32[4]", "bf16[4]"], 0, "MixedTypesError"),
        (["f32[4]"] * 2, 1, "ShapeError"),
        (["f32"] * 2, 0, "ShapeError"),
    ],
)
def test_cat(tiles, axis, result):
    with tracing():
        assert outcome(mc.cat, [tile(t) for t in tiles], axis) == result


@pytest.mark.parametrize(
    ("x", "parts", "axis", "result"),
    [
        ("f32[8]", 2, 0, "(f32[4], f32[4])"),
        ("f32[8, 4]", 4, 1, "(f32[8, 1], f32[8, 1], f32[8, 1], f32[8, 1])"),
        ("f32[8]", 1, 0, "(f32[8],)"),
        ("f32[8]", 3, 0, "ShapeError"),
        ("f32[8]", 0, 0, "ShapeError"),
        ("f32[8]", 16, 0, "ShapeError"),
        ("f32[8]", 2, 1, "ShapeError"),
        ("f32", 2, 0, "ShapeError"),
        ("f32[8]", 2.0, 0, "OperandError"),
    ],
)
def test_split(x, parts, axis, result):
    with tracing():
        assert outcome(mc.split, tile(x), parts, axis) == result


@pytest.mark.parametrize(
    "function", [mc.reshape, mc.permute, mc.broadcast_to, mc.expand_dims, mc.split], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("other", [3, 1.5, "x", None, (1, 2)])
def test_what_is_no_tile(function, other):
    with tracing():
        assert outcome(function, other, 2) == "OperandError"


def test_properties():
    with tracing():
        x = tile("f32[4, 8]")
        assert (x.shape, x.ndim, x.dtype) == ((4, 8), 2, mc.f32)
        assert (tile("i32").shape, tile("i32").ndim) == ((), 0)
