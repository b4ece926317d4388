"""Rounding by the definition of the floating-point formats, and comparison with results that may be off by some of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import mosaic_compile as mc
from mosaic_compile.language.dtypes import DType


@dataclass(frozen=True)
class Format:
    """Bits of significand with the hidden one, the exponent of the smallest normal number, the largest number."""

    precision: int
    smallest: int
    largest: float
    has_infinity: bool = True

    @property
    def unit(self) -> float:
        """The largest relative error of one rounding."""
        return 2.0**-self.precision


# IEEE 754-2019 table 3.5; bfloat16; OCP 8-bit floating point specification, table 1.
FORMATS = {
    mc.f64: Format(53, -1022, (2 - 2.0**-52) * 2.0**1023),
    mc.f32: Format(24, -126, (2 - 2.0**-23) * 2.0**127),
    mc.f16: Format(11, -14, 65504.0),
    mc.bf16: Format(8, -126, (2 - 2.0**-7) * 2.0**127),
    mc.f8e4m3: Format(4, -6, 448.0, has_infinity=False),
    mc.f8e5m2: Format(3, -14, 57344.0),
}
TF32 = Format(11, -126, (2 - 2.0**-10) * 2.0**127)


def _last_place(x: np.ndarray, format: Format) -> np.ndarray:
    """The exponent of the last place of numbers of x's size."""
    exponent = np.frexp(x)[1]
    return np.maximum(exponent, format.smallest + 1) - format.precision


def ulp(x: Any, dtype: DType) -> np.ndarray:
    """The unit in the last place at x, in extended precision."""
    return np.ldexp(np.longdouble(1), _last_place(np.asarray(x, np.longdouble), FORMATS[dtype]))


def nearest(x: Any, format: Format) -> np.ndarray:
    """x rounded to nearest, ties to even; too large gives infinity, or NaN without one. Of x's own wide type."""
    x = np.asarray(x)
    finite = np.where(np.isfinite(x), x, 0)
    place = _last_place(finite, format)
    result = np.where(np.isfinite(x), np.ldexp(np.rint(np.ldexp(finite, -place)), place), x)
    beyond = np.copysign(np.inf, x) if format.has_infinity else np.nan
    return np.where(np.abs(result) > format.largest, beyond, result)


def rounded(x: Any, dtype: DType) -> np.ndarray:
    """Wide numbers in `dtype`, rounded once."""
    with np.errstate(all="ignore"):
        x = np.asarray(x)
        if x.dtype != np.longdouble:
            x = x.astype(np.float64)
        return nearest(x, FORMATS[dtype]).astype(np.float64).astype(dtype.numpy)


def same(actual: Any, wanted: Any) -> None:
    """Equal types, shapes and values: NaN where NaN is wanted, zeros with their signs."""
    actual, wanted = np.asarray(actual), np.asarray(wanted)
    assert (actual.dtype, actual.shape) == (wanted.dtype, wanted.shape), (actual.dtype, wanted.dtype)
    if not _is_float(actual):
        np.testing.assert_array_equal(actual, wanted)
        return
    with np.errstate(invalid="ignore"):  # signalling NaN
        a, w = actual.astype(np.float64), wanted.astype(np.float64)
    good = np.where(np.isnan(w), np.isnan(a), (a == w) & (np.signbit(a) == np.signbit(w)))
    assert good.all(), f"{a[~good][:5]} instead of {w[~good][:5]}, {np.count_nonzero(~good)} in all"


def within(actual: Any, exact: Any, dtype: DType, ulps: float = 0.0, absolute: float = 0.0) -> None:
    """Whether `actual` is what some number within `ulps` and `absolute` of `exact` rounds to.

    exact: extended precision; NaN where NaN is wanted, zeros with their signs.
    """
    with np.errstate(all="ignore"):
        actual, exact = np.asarray(actual), np.asarray(exact, np.longdouble)
        assert actual.dtype == dtype.numpy and actual.shape == exact.shape, (actual.dtype, actual.shape)
        slack = np.where(np.isfinite(exact), ulps * ulp(exact, dtype) + absolute, 0)
        low, high = (nearest(exact + sign * slack, FORMATS[dtype]) for sign in (-1, 1))
        a = actual.astype(np.longdouble) if dtype.bits > 16 else actual.astype(np.float64)
        good = np.where(np.isnan(exact), np.isnan(a), (low <= a) & (a <= high))
        good &= (exact != 0) | (slack > 0) | (np.signbit(a) == np.signbit(exact))
    assert good.all(), f"{a[~good][:5]} instead of {exact[~good][:5]}, {np.count_nonzero(~good)} in all"


def _is_float(x: np.ndarray) -> bool:
    return x.dtype.kind == "f" or (x.dtype.kind == "V" and "int" not in x.dtype.name)
