"""Matrix products: which element types multiply, accumulate and fit."""

from __future__ import annotations

import operator

import pytest

import mosaic_compile as mc
from mosaic_compile.language.dtypes import DTYPES

from .values import ALL, FP8, outcome, tile, tracing

# Operands' type: the default accumulator, then the others.
ACCUMULATORS = {
    "f64": ("f64",),
    "f32": ("f32",),
    "bf16": ("f32",),
    "f16": ("f32", "f16"),
    "f8e4m3": ("f32", "f16"),
    "f8e5m2": ("f32", "f16"),
    "i8": ("i32",),
}


@pytest.mark.parametrize("a", ALL)
def test_operands(a):
    with tracing():
        for b in ALL:
            if a not in ACCUMULATORS:
                expected = "ElementTypeError"
            elif a == b or (a in FP8 and b in FP8):
                expected = f"{ACCUMULATORS[a][0]}[16, 32]"
            else:
                expected = "MixedTypesError"
            assert outcome(mc.dot, tile(f"{a}[16, 8]"), tile(f"{b}[8, 32]")) == expected, b
            assert outcome(operator.matmul, tile(f"{a}[16, 8]"), tile(f"{b}[8, 32]")) == expected, b


@pytest.mark.parametrize("a", ACCUMULATORS)
def test_accumulators(a):
    with tracing():
        for acc in ALL:
            fits = acc in ACCUMULATORS[a]
            expected = f"{acc}[16, 32]" if fits else "ElementTypeError"
            operands = (tile(f"{a}[16, 8]"), tile(f"{a}[8, 32]"))
            assert outcome(mc.dot, *operands, tile(f"{acc}[16, 32]")) == expected, acc
            # Without one, the accumulator starts at zero; bool has no number zero, but is refused all the same.
            assert outcome(mc.dot, *operands, dtype=DTYPES[acc]) == expected, acc


@pytest.mark.parametrize(
    ("a", "b", "acc", "result"),
    [
        ("f32[16, 8]", "f32[8, 32]", "f32[16, 32]", "f32[16, 32]"),
        ("f32[2, 16, 8]", "f32[2, 8, 32]", None, "f32[2, 16, 32]"),
        ("f32[2, 16, 8]", "f32[2, 8, 32]", "f32[2, 16, 32]", "f32[2, 16, 32]"),
        ("f32[16, 8]", "f32[16, 8]", None, "ShapeError"),
        ("f32[16, 8]", "f32[8]", None, "ShapeError"),
        ("f32[8]", "f32[8]", None, "ShapeError"),
        ("f32", "f32[8, 8]", None, "ShapeError"),
        ("f32[2, 16, 8]", "f32[3, 8, 32]", None, "ShapeError"),
        ("f32[2, 16, 8]", "f32[8, 32]", None, "ShapeError"),
        ("f32[2, 2, 16, 8]", "f32[2, 2, 8, 32]", None, "ShapeError"),
        ("f32[16, 8]", "f32[8, 32]", "f32[32, 16]", "ShapeError"),
        ("f32[16, 8]", "f32[8, 32]", "f32", "ShapeError"),
    ],
)
def test_shapes(a, b, acc, result):
    with tracing():
        assert outcome(mc.dot, tile(a), tile(b), acc and tile(acc)) == result


@pytest.mark.parametrize(
    ("dtype", "precision", "result"),
    [
        ("f32", "ieee", "f32[8, 8]"),
        ("f32", "tf32", "f32[8, 8]"),
        ("f32", "tf32x3", "f32[8, 8]"),
        ("bf16", "ieee", "f32[8, 8]"),
        ("bf16", "tf32", "ElementTypeError"),
        ("f64", "tf32x3", "ElementTypeError"),
        ("f32", "highest", "ElementTypeError"),
        ("f32", None, "OperandError"),
    ],
)
def test_precision(dtype, precision, result):
    with tracing():
        x = tile(f"{dtype}[8, 8]")
        assert outcome(mc.dot, x, x, precision=precision) == result


@pytest.mark.parametrize("other", [2.0, None, "x", (1, 2)])
def test_what_is_no_tile(other):
    with tracing():
        assert outcome(mc.dot, tile("f32[8, 8]"), other) == "OperandError"
        assert outcome(mc.dot, other, tile("f32[8, 8]")) == "OperandError"


def test_a_transposed_operand():
    with tracing():
        assert outcome(mc.dot, tile("bf16[16, 8]"), tile("bf16[32, 8]").T) == "f32[16, 32]"
