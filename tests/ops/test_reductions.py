"""Reductions and scans, in any order of combination: sums within the bound of their roundings, the rest exactly."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st

import mosaic_compile as mc
from mosaic_compile.language.dtypes import DType

from .harness import apply
from .registry import checks
from .rounding import FORMATS, same, within
from .test_arithmetic import extremum, integers, wrapped
from .values import ALL, FLOATS, FP8, NUMBERS, every, examples, shapes, specials, tiles

SUMMED = ALL  # every type adds up, in a wider one if it is narrow
NOTHING = np.longdouble("1e-4900")  # an absolute error that says: zeros of either sign


def accumulator(dtype: DType) -> DType:
    """The type that sums are computed in."""
    if dtype.is_float:
        return mc.f64 if dtype is mc.f64 else mc.f32
    return dtype if dtype.bits >= 32 else mc.i32


def reductions(data: Any, ndim: int) -> tuple[int | None, bool]:
    """An axis, from either end or none, and keepdims."""
    return data.draw(st.sampled_from([None, *range(-ndim, ndim)])), data.draw(st.booleans())


def along(x: np.ndarray, axis: int | None) -> np.ndarray:
    """The elements that are combined, as the last axis."""
    return x.reshape(-1) if axis is None else np.moveaxis(x, axis, -1)


def placed(result: Any, x: np.ndarray, axis: int | None, keepdims: bool) -> np.ndarray:
    """What is left, in the shape that NumPy gives it."""
    return np.asarray(result).reshape(np.sum(np.zeros(x.shape), axis, keepdims=keepdims).shape)


def fold(function: Any, x: np.ndarray) -> np.ndarray:
    """The last axis combined one after the other."""
    return functools.reduce(function, np.moveaxis(x, -1, 0))


def over_rows(function: Any, x: np.ndarray) -> np.ndarray:
    """A function of a list of floats for each row; f64, which holds all of x's."""
    rows = x.astype(np.float64).reshape(-1, x.shape[-1])
    return np.array([function(row) for row in rows], np.float64).reshape(x.shape[:-1])


def sum_error(x: np.ndarray, dtype: DType) -> np.ndarray:
    """The error of n - 1 additions in any order (Higham, "Accuracy and Stability of Numerical Algorithms", 4.2)."""
    roundings = (x.shape[-1] - 1) * FORMATS[accumulator(dtype)].unit
    return roundings / (1 - roundings) * over_rows(lambda row: math.fsum(np.abs(row)), x) + NOTHING


# Sums, means, products.


@checks("sum", "mean", "Tile.sum", "Tile.mean")
@pytest.mark.parametrize("dtype", [*FLOATS, *FP8], ids=str)
def test_sum_and_mean_of_floats(dtype):
    @examples(25)
    @given(data=st.data())
    def check(data):
        x = data.draw(tiles(dtype, data.draw(shapes(min_dims=1)), ordinary=True))
        axis, keepdims = reductions(data, x.ndim)
        rows = along(x, axis)
        exact, error = over_rows(math.fsum, rows).astype(np.longdouble), sum_error(rows, dtype)
        wanted, allowed = (placed(v, x, axis, keepdims) for v in (exact, error))
        for actual in (
            apply(mc.sum, x, axis=axis, keepdims=keepdims),
            apply(lambda x: x.sum(axis, keepdims=keepdims), x),
        ):
            within(actual, wanted, dtype, absolute=allowed)
        count = rows.shape[-1]
        allowed = (allowed + np.abs(wanted) * FORMATS[accumulator(dtype)].unit * 1.001) / count
        for actual in (
            apply(mc.mean, x, axis=axis, keepdims=keepdims),
            apply(lambda x: x.mean(axis, keepdims=keepdims), x),
        ):
            within(actual, wanted / count, dtype, absolute=allowed + NOTHING)

    check()


@pytest.mark.parametrize("name", ["sum", "prod", "mean", "cumsum", "cumprod"])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_infinities_and_nan_in_sums(name, dtype):
    """Where they end up does not depend on the order."""
    values = np.array([1, -2, 0.5, np.inf, -np.inf, np.nan, 3], np.float64)

    @examples(20)
    @given(index=st.lists(st.integers(0, 6), min_size=1, max_size=8))
    def check(index):
        x = values[index]
        with np.errstate(all="ignore"):
            wanted = np.asarray(getattr(np, name)(x, axis=0))
        actual = apply(getattr(mc, name), x.astype(dtype.numpy), axis=0).astype(np.float64)
        np.testing.assert_array_equal(np.isnan(actual), np.isnan(wanted))
        np.testing.assert_array_equal(actual[np.isinf(wanted)], wanted[np.isinf(wanted)])

    check()


@checks("prod")
@pytest.mark.parametrize("dtype", [*FLOATS, *FP8], ids=str)
def test_product_of_floats(dtype):
    @examples(25)
    @given(data=st.data())
    def check(data):
        x = data.draw(tiles(dtype, data.draw(shapes(min_dims=1)), ordinary=True))
        x = (1 + x.astype(np.float64) / 64).astype(dtype.numpy)  # products of hundreds stay in f32's range
        axis, keepdims = reductions(data, x.ndim)
        rows = along(x, axis)
        exact = fold(np.multiply, rows.astype(np.longdouble))
        roundings = rows.shape[-1] * FORMATS[accumulator(dtype)].unit * 1.001
        within(
            apply(mc.prod, x, axis=axis, keepdims=keepdims),
            placed(exact, x, axis, keepdims),
            dtype,
            absolute=placed(roundings * np.abs(exact), x, axis, keepdims),
        )

    check()


WHOLE_SUMS = [dtype for dtype in SUMMED if not dtype.is_float]


@pytest.mark.parametrize("dtype", WHOLE_SUMS, ids=str)
def test_sums_and_products_of_integers(dtype):
    """Narrow types and truth values add up in i32; all wrap."""

    @examples(25)
    @given(data=st.data())
    def check(data):
        x = data.draw(tiles(dtype, data.draw(shapes(min_dims=1))))
        axis, keepdims = reductions(data, x.ndim)
        numbers, result = along(integers(x) * 1, axis), accumulator(dtype)
        for function, combine in ((mc.sum, np.add), (mc.prod, np.multiply)):
            wanted = wrapped(np.asarray(fold(combine, numbers), object), result)
            same(apply(function, x, axis=axis, keepdims=keepdims), placed(wanted, x, axis, keepdims))

    check()


# Extrema.


@checks("max", "min", "Tile.max", "Tile.min")
@pytest.mark.parametrize("dtype", NUMBERS, ids=str)
@pytest.mark.parametrize("name", ["max", "min"])
def test_extrema(name, dtype):
    def wanted(rows):
        long = {"max": "maximum", "min": "minimum"}[name]
        if dtype.is_float:
            return fold(functools.partial(extremum, long), rows)
        return getattr(np, name)(rows, -1)

    @examples(25)
    @given(data=st.data())
    def check(data):
        x = data.draw(tiles(dtype, data.draw(shapes(min_dims=1))))
        axis, keepdims = reductions(data, x.ndim)
        expected = placed(wanted(along(x, axis)), x, axis, keepdims)
        same(apply(getattr(mc, name), x, axis=axis, keepdims=keepdims), expected)
        same(apply(lambda x: getattr(x, name)(axis, keepdims=keepdims), x), expected)

    check()
    values = every(dtype) if dtype.bits <= 8 else specials(dtype)
    rows = np.stack(np.broadcast_arrays(values[:, None], values[None, :]), -1).reshape(-1, 2)
    same(apply(getattr(mc, name), rows, axis=1), wanted(rows))


@checks("argmax", "argmin")
@pytest.mark.parametrize("dtype", NUMBERS, ids=str)
@pytest.mark.parametrize("name", ["argmax", "argmin"])
def test_indices_of_extrema(name, dtype):
    """The first of equals; the first NaN if there is one, as in NumPy; the zeros are equal."""

    @examples(25)
    @given(data=st.data())
    def check(data):
        x = data.draw(tiles(dtype, data.draw(shapes(min_dims=1)), ordinary=data.draw(st.booleans())))
        if data.draw(st.booleans()):
            x = x[..., :1] * dtype.numpy.type(1) + np.zeros(x.shape, dtype.numpy)  # equals
            x = x.astype(dtype.numpy)
        axis, keepdims = reductions(data, x.ndim)
        rows = along(x, axis)
        rows = rows.astype(np.float64) if dtype.is_float else rows
        wanted = np.asarray(getattr(np, name)(rows, -1)).astype(np.int32)
        same(
            apply(getattr(mc, name), x, axis=axis, keepdims=keepdims),
            placed(wanted, x, axis, keepdims),
        )

    check()


@checks("any", "all")
@pytest.mark.parametrize("name", ["any", "all"])
def test_truth_values(name):
    @examples(40)
    @given(data=st.data())
    def check(data):
        x = data.draw(tiles(mc.bool_, data.draw(shapes(min_dims=1))))
        axis, keepdims = reductions(data, x.ndim)
        wanted = getattr(np, name)(x, axis, keepdims=keepdims)
        same(apply(getattr(mc, name), x, axis=axis, keepdims=keepdims), wanted)

    check()


# Functions of the user.

EXACT = {
    "xor": (lambda a, b: a ^ b, np.bitwise_xor),
    "largest": (lambda a, b: mc.where(a > b, a, b), np.maximum),
    "product": (lambda a, b: a * b, np.multiply),
}


@checks("reduce")
@pytest.mark.parametrize("dtype", [mc.i64, mc.i32, mc.i16, mc.i8, mc.u8, mc.u32], ids=str)
@pytest.mark.parametrize("name", EXACT)
def test_reduce(name, dtype):
    combine, meaning = EXACT[name]

    @examples(20)
    @given(data=st.data())
    def check(data):
        x = data.draw(tiles(dtype, data.draw(shapes(min_dims=1))))
        axis, keepdims = reductions(data, x.ndim)
        wanted = wrapped(np.asarray(fold(meaning, along(integers(x), axis)), object), dtype)
        same(
            apply(lambda x: mc.reduce(x, axis, combine, keepdims=keepdims), x),
            placed(wanted, x, axis, keepdims),
        )

    check()


def welford(mean_a, m2_a, n_a, mean_b, m2_b, n_b):
    """Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979."""
    n = n_a + n_b
    delta = mean_b - mean_a
    return mean_a + delta * n_b / n, m2_a + m2_b + delta * delta * n_a * n_b / n, n


@pytest.mark.parametrize("dtype", [mc.f64, mc.f32], ids=str)
def test_reduce_of_three(dtype):
    """Means and variances at once."""

    def variance(x, axis):
        return mc.reduce((x, mc.zeros(x.shape, dtype), mc.ones(x.shape, dtype)), axis, welford)

    @examples(25)
    @given(data=st.data())
    def check(data):
        x = data.draw(tiles(dtype, data.draw(shapes(min_dims=1)), ordinary=True))
        axis, _ = reductions(data, x.ndim)
        mean, m2, count = apply(variance, x, axis=axis)
        wide = x.astype(np.longdouble)
        n = along(x, axis).shape[-1]
        same(count, np.full(count.shape, n).astype(dtype.numpy))
        # Each combination rounds a handful of times; the values are below 8.
        bound = 16 * n * FORMATS[dtype].unit
        assert (np.abs(mean - wide.mean(axis)) <= 8 * bound).all()
        assert (np.abs(m2 - n * wide.var(axis)) <= 64 * n * bound).all()

    check()


def test_reduce_of_two():
    """The index of the smallest, the first of equals, by a tuple; and log-sum-exp as flash attention carries it."""

    def smallest(x, axis):
        positions = mc.broadcast_to(
            mc.iota(x.shape[axis]).reshape([s if d == axis else 1 for d, s in enumerate(x.shape)]), x.shape
        )

        def combine(a, i, b, j):
            first = (a < b) | ((a == b) & (i < j))
            return mc.where(first, a, b), mc.where(first, i, j)

        return mc.reduce((x, positions), axis, combine, keepdims=True)

    def logsumexp(x, axis):
        def combine(m, s, n, t):
            top = mc.maximum(m, n)
            return top, s * mc.exp(m - top) + t * mc.exp(n - top)

        top, total = mc.reduce([x, mc.ones(x.shape, mc.f32)], axis, combine)
        return top + mc.log(total)

    @examples(40)
    @given(data=st.data())
    def check(data):
        x = data.draw(tiles(mc.f32, data.draw(shapes(min_dims=1)), ordinary=True))
        axis = data.draw(st.integers(0, x.ndim - 1))
        value, index = apply(smallest, x, axis=axis)
        same(value, x.min(axis, keepdims=True) + np.float32(0))
        same(index, x.argmin(axis, keepdims=True).astype(np.int32))
        wanted = scipy.special.logsumexp(x.astype(np.float64), axis)
        np.testing.assert_allclose(apply(logsumexp, x, axis=axis), wanted, rtol=2.0**-20, atol=2.0**-20)

    check()


# Scans.


def running(function: Any, x: np.ndarray, axis: int, reverse: bool) -> np.ndarray:
    """The combinations of all that came before, from the end if `reverse`."""
    rows = np.moveaxis(x, axis, 0)
    rows = rows[::-1] if reverse else rows
    steps = [rows[0]]
    for row in rows[1:]:
        steps.append(function(steps[-1], row))
    result = np.stack(steps)
    return np.moveaxis(result[::-1] if reverse else result, 0, axis)


def scans(data: Any, ndim: int) -> tuple[int, bool]:
    return data.draw(st.integers(-ndim, ndim - 1)), data.draw(st.booleans())


@checks("cumsum", "cumprod")
@pytest.mark.parametrize("dtype", WHOLE_SUMS, ids=str)
def test_running_sums_of_integers(dtype):
    @examples(20)
    @given(data=st.data())
    def check(data):
        x = data.draw(tiles(dtype, data.draw(shapes(min_dims=1))))
        axis, reverse = scans(data, x.ndim)
        for function, meaning in ((mc.cumsum, np.add), (mc.cumprod, np.multiply)):
            wanted = wrapped(running(meaning, integers(x) * 1, axis, reverse), accumulator(dtype))
            same(apply(function, x, axis=axis, reverse=reverse), wanted)

    check()


@pytest.mark.parametrize("dtype", [*FLOATS, *FP8], ids=str)
def test_running_sums_of_floats(dtype):
    unit = FORMATS[accumulator(dtype)].unit

    @examples(20)
    @given(data=st.data())
    def check(data):
        x = data.draw(tiles(dtype, data.draw(shapes(min_dims=1)), ordinary=True))
        axis, reverse = scans(data, x.ndim)
        wide = x.astype(np.longdouble)
        roundings = 1.001 * unit * running(np.add, np.ones(x.shape), axis, reverse)
        sizes = running(np.add, np.abs(wide), axis, reverse)
        exact = running(np.add, wide, axis, reverse)  # of 16-bit fractions: nothing is lost
        within(
            apply(mc.cumsum, x, axis=axis, reverse=reverse),
            exact,
            dtype,
            absolute=roundings * sizes + NOTHING,
        )
        x = (1 + x.astype(np.float64) / 64).astype(dtype.numpy)
        exact = running(np.multiply, x.astype(np.longdouble), axis, reverse)
        actual = apply(mc.cumprod, x, axis=axis, reverse=reverse)
        within(actual, exact, dtype, absolute=roundings * np.abs(exact))

    check()


def affine(a, b, c, d):
    """x -> a x + b, then x -> c x + d: associative, not commutative."""
    return a * c, b * c + d


@checks("scan")
@pytest.mark.parametrize("dtype", [mc.i64, mc.i32, mc.i8, mc.u8, mc.u32], ids=str)
def test_scan(dtype):
    @examples(25)
    @given(data=st.data())
    def check(data):
        shape = data.draw(shapes(min_dims=1))
        gate, x = data.draw(tiles(dtype, shape)), data.draw(tiles(dtype, shape))
        axis, reverse = scans(data, x.ndim)
        states = affine_states(integers(gate), integers(x), axis, reverse)
        actual = apply(lambda g, x: mc.scan((g, x), axis, affine, reverse=reverse), gate, x)
        for one, other in zip(actual, states):
            same(one, wrapped(other, dtype))

    check()


def affine_states(gate: np.ndarray, x: np.ndarray, axis: int, reverse: bool) -> tuple[np.ndarray, np.ndarray]:
    """The running compositions, one after the other."""
    gates, values = (np.moveaxis(v, axis, 0)[:: -1 if reverse else 1] for v in (gate, x))
    composed = [(gates[0], values[0])]
    for g, v in zip(gates[1:], values[1:]):
        composed.append(affine(*composed[-1], g, v))
    first, second = (np.stack(column)[:: -1 if reverse else 1] for column in zip(*composed))
    return np.moveaxis(first, 0, axis), np.moveaxis(second, 0, axis)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_running_maximum(dtype):
    """One function, one tile, special values."""

    @examples(20)
    @given(data=st.data())
    def check(data):
        x = data.draw(tiles(dtype, data.draw(shapes(min_dims=1))))
        axis, reverse = scans(data, x.ndim)
        wanted = running(functools.partial(extremum, "maximum"), x, axis, reverse)
        same(apply(lambda x: mc.scan(x, axis, mc.maximum, reverse=reverse), x), wanted)

    check()
