"""Mathematical functions, against extended precision: the nearest number, but for the error of the f64 function."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st

import mosaic_compile as mc

from .harness import apply
from .registry import checks
from .rounding import FORMATS, rounded, within
from .values import FLOATS, every, examples, shapes, specials, tiles


def _elementwise(function: Callable[[float], float]) -> Callable[[Any], Any]:
    return np.vectorize(function, otypes=[np.longdouble])


@dataclass(frozen=True)
class Case:
    """A function of extended precision, and the units in the last place by which an f64 result may miss it.

    The interpreter evaluates in f64, whatever the type: narrower results miss by that many units of f64.
    """

    exact: Callable[[Any], Any]
    ulps: float


# C libraries and NumPy's own loops stay within a unit or two of f64. IEEE 754 asks for correctly rounded square roots; the
# extended one that they are compared with is rounded itself, to 11 bits more.
CASES = {
    "exp": Case(np.exp, 2),
    "exp2": Case(np.exp2, 2),
    "log": Case(np.log, 2),
    "log2": Case(np.log2, 2),
    "sin": Case(np.sin, 2),
    "cos": Case(np.cos, 2),
    "tanh": Case(np.tanh, 2),
    "erf": Case(_elementwise(math.erf), 2),
    "sqrt": Case(np.sqrt, 2.0**-11),
    "rsqrt": Case(lambda x: 1 / np.sqrt(x), 2),
    "floor": Case(np.floor, 0),
    "ceil": Case(np.ceil, 0),
}


def tolerance(ulps: float, dtype: Any) -> float:
    """Units of f64 in units of `dtype`; types narrower than f32 are rounded by way of it, half a unit more."""
    slack = ulps * 2.0 ** (FORMATS[dtype].precision - 53)
    return slack + 2.0 ** (FORMATS[dtype].precision - 25) * (dtype.bits < 32 and ulps >= 1)


def check_function(name: str, x: np.ndarray, dtype: Any) -> None:
    case = CASES[name]
    with np.errstate(all="ignore"):
        exact = case.exact(x.astype(np.longdouble if dtype is mc.f64 else np.float64).astype(np.longdouble))
    within(apply(getattr(mc, name), x), exact, dtype, tolerance(case.ulps, dtype))


@checks(*CASES)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_function(name, dtype):
    @examples(30)
    @given(data=st.data())
    def check(data):
        check_function(name, data.draw(tiles(dtype, data.draw(shapes()))), dtype)

    check()
    check_function(name, every(dtype) if dtype.bits == 16 else specials(dtype), dtype)


# IEEE 754-2019, 9.2.1, and C's Annex F: what special operands give.
LIMITS = {
    "exp": [(-math.inf, 0.0), (math.inf, math.inf), (0.0, 1.0), (-0.0, 1.0)],
    "exp2": [(-math.inf, 0.0), (math.inf, math.inf), (0.0, 1.0), (5.0, 32.0)],
    "log": [(0.0, -math.inf), (-0.0, -math.inf), (1.0, 0.0), (-1.0, math.nan), (math.inf, math.inf)],
    "log2": [(0.0, -math.inf), (-0.0, -math.inf), (8.0, 3.0), (-1.0, math.nan), (-math.inf, math.nan)],
    "sin": [(0.0, 0.0), (-0.0, -0.0), (math.inf, math.nan)],
    "cos": [(0.0, 1.0), (math.inf, math.nan)],
    "tanh": [(-0.0, -0.0), (math.inf, 1.0), (-math.inf, -1.0)],
    "erf": [(-0.0, -0.0), (math.inf, 1.0), (-math.inf, -1.0)],
    "sqrt": [(-0.0, -0.0), (-1.0, math.nan), (math.inf, math.inf)],
    "rsqrt": [(0.0, math.inf), (-0.0, -math.inf), (math.inf, 0.0), (-1.0, math.nan), (4.0, 0.5)],
    "floor": [(-0.0, -0.0), (-0.5, -1.0), (0.5, 0.0), (math.inf, math.inf), (-math.inf, -math.inf)],
    "ceil": [(-0.0, -0.0), (-0.5, -0.0), (0.5, 1.0), (math.inf, math.inf), (-math.inf, -math.inf)],
    "sigmoid": [(-math.inf, 0.0), (math.inf, 1.0), (0.0, 0.5)],
}


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", LIMITS)
def test_limits(name, dtype):
    x, wanted = (np.array(column) for column in zip(*LIMITS[name], (math.nan, math.nan)))
    within(apply(getattr(mc, name), x.astype(dtype.numpy)), wanted, dtype)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_powers_of_one_half(dtype):
    """x ** 0.5 and x ** -0.5 are sqrt and rsqrt."""
    x = specials(dtype)
    exact = x.astype(np.longdouble if dtype is mc.f64 else np.float64).astype(np.longdouble)
    with np.errstate(all="ignore"):
        within(apply(lambda x: x**0.5, x), np.sqrt(exact), dtype, tolerance(CASES["sqrt"].ulps, dtype))
        within(apply(lambda x: x**-0.5, x), 1 / np.sqrt(exact), dtype, tolerance(2, dtype))


@checks("sigmoid")
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_sigmoid(dtype):
    """1 / (1 + e ** -x) in three roundings of f32 (f64), each at most a unit of the result; e ** -x may overflow to 0."""
    computed = dtype if dtype is mc.f64 else mc.f32

    def compare(x):
        with np.errstate(all="ignore"):
            exact = scipy.special.expit(x.astype(np.float64).astype(np.longdouble))
        # Three units, and for f64 twice that for its exponential.
        ulps = 5 if dtype is mc.f64 else 3 * 2.0 ** (FORMATS[dtype].precision - 24)
        smallest_normal = 2.0 ** FORMATS[computed].smallest
        within(apply(mc.sigmoid, x), exact, dtype, ulps, absolute=smallest_normal)

    @examples(30)
    @given(data=st.data())
    def check(data):
        compare(data.draw(tiles(dtype, data.draw(shapes()))))

    check()
    compare(every(dtype) if dtype.bits == 16 else specials(dtype))
    line = np.linspace(-100, 100, 4001)
    compare(rounded(line, dtype))
