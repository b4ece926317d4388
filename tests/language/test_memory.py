"""Loads, stores, gathers, scatters, atomics: arrays, views, indices and offsets."""

from __future__ import annotations

import pytest

import mosaic_compile as mc
from mosaic_compile.language.dtypes import DTYPES

from .values import ALL, array, outcome, tile, tracing

ATOMIC = ("f64", "f32", "f16", "bf16", "i64", "i32", "u32")


def value(text):
    """A tile for a type in a table, other things as they are."""
    if isinstance(text, tuple):
        return tuple(map(value, text))
    return tile(text) if isinstance(text, str) else text


@pytest.mark.parametrize("dtype", ALL)
def test_every_type_is_loaded_and_stored(dtype):
    with tracing():
        a, x = array(f"{dtype}[N]"), tile(f"{dtype}[8]")
        assert outcome(mc.load, a, 0, 8) == f"{dtype}[8]"
        assert outcome(mc.gather, a, tile("i32[8]")) == f"{dtype}[8]"
        assert outcome(mc.store, a, 0, x) == "None"
        assert outcome(mc.scatter, a, tile("i32[8]"), x) == "None"
        atomic = "None" if dtype in ATOMIC else "ElementTypeError"
        assert outcome(mc.atomic_add, a, 0, x) == atomic
        assert outcome(mc.scatter_add, a, tile("i32[8]"), x) == atomic


@pytest.mark.parametrize("dtype", ALL)
def test_only_the_arrays_own_type_is_stored(dtype):
    with tracing():
        for other in ALL:
            if other != dtype:
                a, x = array(f"{dtype}[N]"), tile(f"{other}[8]")
                assert outcome(mc.store, a, 0, x) == "MixedTypesError"
                assert outcome(mc.scatter, a, tile("i32[8]"), x) == "MixedTypesError"
                assert outcome(mc.atomic_add, a, 0, x) == "MixedTypesError"


# The array, an index or offset, the tile's shape, the result.
BLOCKS = [
    ("f32[N]", 0, 8, "f32[8]"),
    ("f32[N]", (0,), (8,), "f32[8]"),
    ("f32[N]", [0], [8], "f32[8]"),
    ("f32[N]", "i32", 8, "f32[8]"),
    ("f32[N]", -1, 8, "f32[8]"),
    ("f32[64]", 1, 1, "f32[1]"),
    ("f32[M, N]", (0, "i32"), (8, 16), "f32[8, 16]"),
    ("f32[M, 64]", ("i32", "i32"), (1, 64), "f32[1, 64]"),
    ("f32[A, B, C]", (0, 1, 2), (2, 4, 8), "f32[2, 4, 8]"),
    ("f32[M, N]", 0, (8, 16), "ShapeError"),
    ("f32[M, N]", (0, 0, 0), (8, 16), "ShapeError"),
    ("f32[M, N]", (0, 0), 8, "ShapeError"),
    ("f32[M, N]", (0, 0), (8, 16, 4), "ShapeError"),
    ("f32[N]", 0, 0, "ShapeError"),
    ("f32[N]", 0, -8, "ShapeError"),
    ("f32[N]", 0, 8.0, "ShapeError"),
    ("f32[N]", 0.5, 8, "OperandError"),
    ("f32[N]", True, 8, "OperandError"),
    ("f32[N]", "i32[8]", 8, "OperandError"),
    ("f32[N]", "i64", 8, "MixedTypesError"),
    ("f32[N]", "f32", 8, "MixedTypesError"),
    ("f32[N]", None, 8, "OperandError"),
]


@pytest.mark.parametrize(("a", "index", "shape", "result"), BLOCKS)
def test_load_by_index_and_by_offset(a, index, shape, result):
    with tracing():
        assert outcome(mc.load, array(a), value(index), shape) == result
        assert outcome(mc.load, array(a), shape=shape, offset=value(index)) == result


@pytest.mark.parametrize("function", [mc.store, mc.atomic_add], ids=lambda f: f.__name__)
@pytest.mark.parametrize(("a", "index", "shape", "result"), [b for b in BLOCKS if b[1] is not None])
def test_store_by_index_and_by_offset(function, a, index, shape, result):
    sizes = shape if isinstance(shape, tuple) else (shape,)
    if result == "ShapeError" and not all(isinstance(s, int) and s > 0 for s in sizes):
        pytest.skip("there is no such tile")
    dims = ", ".join(map(str, [shape] if isinstance(shape, int) else shape))
    expected = result if "Error" in result else "None"
    with tracing():
        x = tile(f"f32[{dims}]")
        assert outcome(function, array(a), value(index), x) == expected
        assert outcome(function, array(a), x, offset=value(index)) == expected


@pytest.mark.parametrize(
    ("arguments", "result"),
    [
        (dict(index=0, shape=8, offset=0), "OperandError"),
        (dict(index=0), "OperandError"),
        (dict(shape=8), "OperandError"),
        (dict(index=0, shape="i32"), "NotConstantError"),
        (dict(index=0, shape=8, pad=1), "f32[8]"),
        (dict(index=0, shape=8, pad=float("-inf")), "f32[8]"),
        (dict(index=0, shape=8, pad=True), "f32[8]"),
        (dict(index=0, shape=8, pad="x"), "OperandError"),
        (dict(index=0, shape=8, pad=None), "OperandError"),
        (dict(index=0, shape=8, pad=1e39), "MixedTypesError"),
    ],
)
def test_arguments_of_load(arguments, result):
    with tracing():
        given = {name: tile(v) if v == "i32" else v for name, v in arguments.items()}
        assert outcome(mc.load, array("f32[N]"), **given) == result


@pytest.mark.parametrize(
    ("dtype", "pad", "fits"),
    [("i32", 3, True), ("i32", 0.5, False), ("u8", -1, False), ("bool", True, True), ("f8e4m3", 500, False)],
)
def test_pad_takes_the_arrays_type(dtype, pad, fits):
    with tracing():
        expected = f"{dtype}[4]" if fits else "MixedTypesError"
        assert outcome(mc.load, array(f"{dtype}[N]"), 0, 4, pad=pad) == expected
        assert outcome(mc.gather, array(f"{dtype}[N]"), tile("i32[4]"), pad=pad) == expected


def test_a_scalar_is_stored_as_one_element():
    with tracing():
        assert outcome(mc.store, array("f32[M, N]"), (0, 0), tile("f32")) == "None"
        assert outcome(mc.atomic_add, array("f32[N]"), tile("f32"), offset=3) == "None"


@pytest.mark.parametrize(
    ("access", "reads", "writes"),
    [(None, True, True), ("in", True, False), ("out", False, True), ("inout", True, True)],
)
def test_declared_use(access, reads, writes):
    with tracing():
        a, x, i = array("f32[N]", access), tile("f32[8]"), tile("i32[8]")
        assert outcome(mc.load, a, 0, 8) == ("f32[8]" if reads else "LoadFromOutputError")
        assert outcome(mc.gather, a, i) == ("f32[8]" if reads else "LoadFromOutputError")
        for function, index in ((mc.store, 0), (mc.atomic_add, 0), (mc.scatter, i), (mc.scatter_add, i)):
            assert outcome(function, a, index, x) == ("None" if writes else "StoreToInputError")


# The array, its view, then the view's load: index, shape, result.
VIEWS = [
    ("f32[M, N]", lambda a: a[3], 0, 8, "f32[8]"),
    ("f32[M, N]", lambda a: a[tile("i32")], 0, 8, "f32[8]"),
    ("f32[A, B, C]", lambda a: a[1], (0, 0), (4, 8), "f32[4, 8]"),
    ("f32[A, B, C]", lambda a: a[1, 2], 0, 8, "f32[8]"),
    ("f32[A, B, C]", lambda a: a[1][2], 0, 8, "f32[8]"),
    ("f32[M, N]", lambda a: a.T, (0, 0), (8, 4), "f32[8, 4]"),
    ("f32[A, B, C]", lambda a: a.T, (0, 0, 0), (1, 8, 4), "f32[1, 8, 4]"),
    ("f32[A, B, C]", lambda a: a.permute(2, 0, 1), (0, 0, 0), (8, 2, 4), "f32[8, 2, 4]"),
    ("f32[A, B, C]", lambda a: a[0].T, (0, 0), (8, 4), "f32[8, 4]"),
    ("f32[A, B, C]", lambda a: a.permute(2, 0, 1)[0], (0, 0), (2, 4), "f32[2, 4]"),
    ("f32[M, N]", lambda a: a[3], (0, 0), (4, 8), "ShapeError"),
]


@pytest.mark.parametrize(("a", "view", "index", "shape", "result"), VIEWS)
def test_views(a, view, index, shape, result):
    with tracing():
        assert outcome(mc.load, view(array(a)), index, shape) == result


@pytest.mark.parametrize(
    ("a", "view", "axes"),
    [
        ("f32[A, B, C]", lambda a: a[1], [1, 2]),
        ("f32[A, B, C]", lambda a: a[1].T, [2, 1]),
        ("f32[A, B, C]", lambda a: a.permute(2, 0, 1), [2, 0, 1]),
        ("f32[A, B, C]", lambda a: a.permute(2, 0, 1)[0], [0, 1]),
    ],
)
def test_a_view_moves_no_data(a, view, axes):
    with tracing() as module:
        seen = view(array(a))
        mc.load(seen, (0,) * seen.ndim, (2,) * seen.ndim)
        load = next(op for op in module.body.operations if op.operation.name == "tile.load")
        assert list(load.operation.attributes["axes"]) == axes


@pytest.mark.parametrize(
    ("view", "result"),
    [
        (lambda a: a[0, 1], "ShapeError"),
        (lambda a: a[0, 1, 2], "ShapeError"),
        (lambda a: a[0:1], "OperandError"),
        (lambda a: a[None], "OperandError"),
        (lambda a: a[...], "OperandError"),
        (lambda a: a[0.5], "OperandError"),
        (lambda a: a["x"], "OperandError"),
        (lambda a: a[tile("i32[4]")], "OperandError"),
        (lambda a: a[tile("i64")], "MixedTypesError"),
        (lambda a: a.permute(0), "ShapeError"),
        (lambda a: a.permute(0, 0), "ShapeError"),
        (lambda a: a.permute(0, 2), "ShapeError"),
        (lambda a: a[0].T, "ShapeError"),
        (lambda a: a + 1, "OperandError"),
        (lambda a: 1 - a, "OperandError"),
        (lambda a: -a, "OperandError"),
        (lambda a: a == 3, "OperandError"),
        (lambda a: a == None, "NotConstantError"),  # noqa: E711
        (lambda a: a & 1, "OperandError"),
        (lambda a: bool(a), "NotConstantError"),
        (lambda a: len(a), "OperandError"),
        (lambda a: list(a), "OperandError"),
    ],
)
def test_what_an_array_is_not(view, result):
    with tracing():
        assert outcome(view, array("f32[M, N]")) == result


def test_properties():
    with tracing():
        a = array("f32[M, 64]")
        assert (a.ndim, a.dtype, a.shape[1], repr(a.shape[0])) == (2, mc.f32, 64, "i32")
        assert a.T.shape[0] == 64
        assert a[0].shape == (64,)
        assert repr(a) == "array 'a'"


# The array, indices, mask: the gathered tile.
ELEMENTS = [
    ("f32[N]", "i32[8]", None, "f32[8]"),
    ("f32[N]", ("i32[8]",), None, "f32[8]"),
    ("f32[N]", "i32[4, 8]", None, "f32[4, 8]"),
    ("f32[N]", "i32", None, "f32"),
    ("f32[N]", 3, None, "f32"),
    ("f32[N]", "i32[8]", "bool[8]", "f32[8]"),
    ("f32[N]", "i32[8]", "bool", "f32[8]"),
    ("f32[N]", "i32[8]", True, "f32[8]"),
    ("f32[N]", "i32[8]", "bool[4, 1]", "f32[4, 8]"),
    ("f32[M, N]", ("i32[4, 1]", "i32[8]"), None, "f32[4, 8]"),
    ("f32[M, N]", (0, "i32[8]"), None, "f32[8]"),
    ("f32[M, N]", "i32[8]", None, "ShapeError"),
    ("f32[N]", ("i32[8]", "i32[8]"), None, "ShapeError"),
    ("f32[M, N]", ("i32[4]", "i32[8]"), None, "ShapeError"),
    ("f32[N]", "i32[8]", "bool[4]", "ShapeError"),
    ("f32[N]", "i32[8]", "i32[8]", "ElementTypeError"),
    ("f32[N]", "i64[8]", None, "MixedTypesError"),
    ("f32[N]", "f32[8]", None, "MixedTypesError"),
    ("f32[N]", 0.5, None, "OperandError"),
    ("f32[N]", None, None, "OperandError"),
]


@pytest.mark.parametrize(("a", "indices", "mask", "result"), ELEMENTS)
def test_gather(a, indices, mask, result):
    with tracing():
        assert outcome(mc.gather, array(a), value(indices), mask=value(mask)) == result


@pytest.mark.parametrize("function", [mc.scatter, mc.scatter_add], ids=lambda f: f.__name__)
@pytest.mark.parametrize(("a", "indices", "mask", "result"), ELEMENTS)
def test_scatter(function, a, indices, mask, result):
    with tracing():
        expected = result if "Error" in result else "None"
        assert outcome(function, array(a), value(indices), tile("f32"), mask=value(mask)) == expected
        if "Error" not in result:
            assert outcome(function, array(a), value(indices), tile(result), mask=value(mask)) == "None"


def test_gather_and_scatter_through_a_view():
    with tracing():
        a = array("f32[A, B, C]")
        assert outcome(mc.gather, a[1], (tile("i32[4, 1]"), tile("i32[8]"))) == "f32[4, 8]"
        assert outcome(mc.gather, a[1, tile("i32")], tile("i32[8]")) == "f32[8]"
        assert outcome(mc.scatter, a[1], (0, tile("i32[8]")), tile("f32[8]")) == "None"


@pytest.mark.parametrize(
    "function",
    [mc.load, mc.store, mc.gather, mc.scatter, mc.atomic_add, mc.scatter_add],
    ids=lambda f: f.__name__,
)
@pytest.mark.parametrize("other", [3, "a", None, "tile"])
def test_what_is_no_array(function, other):
    with tracing():
        target = tile("f32[8]") if other == "tile" else other
        arguments = {mc.load: (0, 8), mc.gather: (tile("i32[8]"),)}.get(function, (0, tile("f32[8]")))
        assert outcome(function, target, *arguments) == "OperandError"


@pytest.mark.parametrize(
    "function", [mc.store, mc.scatter, mc.atomic_add, mc.scatter_add], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("other", [1.0, "x", None, "array"])
def test_what_is_no_value(function, other):
    with tracing():
        stored = array("f32[N]") if other == "array" else other
        assert outcome(function, array("f32[N]"), 0, stored) == "OperandError"


def test_array_types_in_the_ir():
    with tracing():
        assert str(array("bf16[M, 64]").value.type) == "!tile.array<tensor<?x64xbf16>, strided<[?, 1]>>"
        assert {d.mlir for d in DTYPES.values()} >= {"bf16", "i1", "f8E4M3FN"}
