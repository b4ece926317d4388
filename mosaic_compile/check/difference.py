"""Two arrays compared: how far one is from the other, and where it is farthest."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import ml_dtypes
import numpy as np

from mosaic_compile.interpreter.exact import is_float, wide

from .rounding import distance, ulp

Index = tuple[int, ...]


@dataclass(frozen=True)
class Element:
    """An element of an output; ulp: the error in units of the last place of what is expected (integers: its size)."""

    index: Index
    got: float | int | bool
    expected: float | int | bool
    error: float
    ulps: float
    relative: float


@dataclass(frozen=True, eq=False)
class Difference:
    """`got` beside `expected`, of one shape and type; `tolerance` in float64, by element.

    NaN is equal to NaN; where just one of two is finite the error is infinite.
    """

    got: np.ndarray
    expected: np.ndarray
    tolerance: np.ndarray

    @cached_property
    def error(self) -> np.ndarray:
        return distance(self.got, self.expected)

    @cached_property
    def ratio(self) -> np.ndarray:
        """error / tolerance, 0 where there is no error; above 1 is a mistake."""
        with np.errstate(all="ignore"):
            ratio = np.where(self.error == 0, 0.0, self.error / self.tolerance)
        return np.where(np.isinf(self.tolerance), 0.0, ratio)

    @property
    def ok(self) -> bool:
        return self.worst_ratio <= 1

    @property
    def worst_ratio(self) -> float:
        return float(self.ratio.max(initial=0.0))

    @property
    def max_error(self) -> float:
        """The largest error of an element about which the tolerance says something."""
        return float(self.error.max(initial=0.0, where=np.isfinite(self.tolerance)))

    @property
    def relative(self) -> float:
        """||got - expected|| / ||expected||, Euclidean, of the elements about which the tolerance says something."""
        return relative_norm(self.error, self.expected, np.isfinite(self.tolerance))

    @property
    def wrong(self) -> int:
        """How many elements are outside of the tolerance."""
        return int((self.ratio > 1).sum())

    def worst(self, count: int) -> tuple[Element, ...]:
        """The elements farthest outside of the tolerance; where none is, the ones nearest to it."""
        order = np.argsort(-self.ratio, axis=None, kind="stable")[:count]
        indices = [tuple(map(int, np.unravel_index(i, self.ratio.shape))) for i in order]
        least = 0 if self.ok else 1
        return tuple(self.element(i) for i in indices if self.ratio[i] > least)

    def element(self, index: Index) -> Element:
        error, expected = float(self.error[index]), self.expected[index]
        size = abs(float(expected))
        unit = float(ulp(self.expected[index])) if is_float(self.expected.dtype) else 1.0
        return Element(
            index,
            _python(self.got[index]),
            _python(expected),
            error,
            error / unit if unit else np.inf,
            error / size if size and np.isfinite(error) else np.inf,
        )


def relative_norm(error: np.ndarray, expected: np.ndarray, chosen: np.ndarray) -> float:
    """The norm of the chosen errors relative to that of the values there which are finite."""
    values = wide(expected.astype(np.int8) if expected.dtype == ml_dtypes.int4 else expected)
    part = np.linalg.norm(error[chosen])
    whole = np.linalg.norm(values[chosen & np.isfinite(values)].astype(np.float64))
    return float(part / whole) if whole else float(np.inf if part else 0.0)


def _python(x: np.generic) -> float | int | bool:
    return float(x) if is_float(x.dtype) else bool(x) if x.dtype == bool else int(x)
