"""Comparison and choice, against Python's integers and NumPy's float64."""

from __future__ import annotations

import operator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mosaic_compile as mc

from .harness import apply
from .registry import checks
from .rounding import same
from .values import ALL, FLOATS, INTEGERS, broadcasting, every, examples, pairs, shapes, specials, tiles

COMPARISONS = {
    "equal": operator.eq,
    "not_equal": operator.ne,
    "less": operator.lt,
    "less_equal": operator.le,
    "greater": operator.gt,
    "greater_equal": operator.ge,
}
OPERATORS = [f"Tile.__{function.__name__}__" for function in COMPARISONS.values()]


def compared(function, a, b):
    """In types that hold both exactly: NaN is unequal to everything, the zeros are equal."""
    wide = np.float64 if a.dtype.kind in "fV" else object
    result = function(a.astype(wide), b.astype(wide))
    return np.asarray(result, bool).reshape(np.broadcast_shapes(a.shape, b.shape))


@checks(*COMPARISONS, *OPERATORS)
@pytest.mark.parametrize("dtype", (*FLOATS, *INTEGERS, mc.bool_), ids=str)
@pytest.mark.parametrize("name", COMPARISONS)
def test_comparison(name, dtype):
    function = COMPARISONS[name]

    @examples(20)
    @given(data=st.data())
    def check(data):
        first, second = data.draw(broadcasting(2))
        a, b = data.draw(tiles(dtype, first)), data.draw(tiles(dtype, second))
        same(apply(function, a, b), compared(function, a, b))

    check()
    a, b = pairs(every(dtype) if dtype.bits <= 8 else specials(dtype))
    same(apply(function, a, b), compared(function, a, b))


@pytest.mark.parametrize("name", COMPARISONS)
def test_number_on_either_side(name):
    function = COMPARISONS[name]
    for dtype in (*FLOATS, *INTEGERS):
        x = np.array([1, 2, 3, 4]).astype(dtype.numpy)
        two = np.full(4, 2).astype(dtype.numpy)
        same(apply(lambda x: function(x, 2), x), compared(function, x, two))
        same(apply(lambda x: function(2, x), x), compared(function, two, x))


@checks("where")
@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_where(dtype):
    """Bit by bit: also a NaN keeps its own."""

    @examples(25)
    @given(data=st.data())
    def check(data):
        condition_shape, a_shape, b_shape = data.draw(broadcasting(3))
        condition = data.draw(tiles(mc.bool_, condition_shape))
        a, b = data.draw(tiles(dtype, a_shape)), data.draw(tiles(dtype, b_shape))
        shape = np.broadcast_shapes(condition_shape, a_shape, b_shape)
        a_bits, b_bits = bits(a), bits(b)
        wanted = np.empty(shape, a_bits.dtype)
        for at in np.ndindex(shape):
            c, x, y = (np.broadcast_to(v, shape)[at] for v in (condition, a_bits, b_bits))
            wanted[at] = x if c else y
        result = apply(mc.where, condition, a, b)
        assert result.dtype == dtype.numpy
        np.testing.assert_array_equal(bits(result), wanted)

    check()


@pytest.mark.parametrize("chosen", [True, False])
def test_where_of_constants(chosen):
    """A condition or a choice that is a Python value."""

    @examples(10)
    @given(data=st.data())
    def check(data):
        shape = data.draw(shapes())
        x, condition = data.draw(tiles(mc.f32, shape)), data.draw(tiles(mc.bool_, shape))
        same(apply(lambda x: mc.where(chosen, x, 1), x), x if chosen else np.ones(shape, np.float32))
        same(apply(lambda c, x: mc.where(c, x, -2.5), condition, x), np.where(condition, x, np.float32(-2.5)))

    check()


def bits(x):
    """The elements' bit patterns; small integers are their own."""
    return x.astype(np.int8) if x.dtype.name in ("int4", "bool") else x.view(f"u{x.dtype.itemsize}")
