"""What is known of a 32-bit integer before the kernel runs: its range, a divisor, how far below dimensions.

The functions here compute with mathematical integers; `fact` notices where the machine's 32 bits could wrap
around, and then keeps only what survives that. A dimension is at least 0 and at most INT_MAX.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import gcd

INT_MIN, INT_MAX = -(2**31), 2**31 - 1


@dataclass(frozen=True)
class Dim:
    """A dimension whose size is known at launch: its name, and what it is a multiple of."""

    name: str
    multiple: int = 1


# (dimension, scale) -> slack stands for: scale * value + slack <= dimension, with scale >= 1.
Bounds = Mapping[tuple[Dim, int], int]


@dataclass(frozen=True)
class Fact:
    """low <= value <= high; value is a multiple of `multiple` (0 only if it is 0); and the bounds hold."""

    low: int = INT_MIN
    high: int = INT_MAX
    multiple: int = 1
    bounds: Bounds = field(default_factory=dict)

    @property
    def constant(self) -> int | None:
        return self.low if self.low == self.high else None

    def room(self, dim: Dim) -> int:
        """The largest r known with value + r <= dim."""
        # A bound on 4 * value is one on value only if that is not negative.
        slacks = [r for (d, scale), r in self.bounds.items() if d == dim and (scale == 1 or self.low >= 0)]
        return max([-self.high, *slacks])  # a dimension is at least 0

    def slack(self, key: tuple[Dim, int]) -> int:
        """The best slack known for a bound, also where only the range gives one."""
        implied = -key[1] * self.high
        return max(self.bounds.get(key, implied), implied)


ANY = Fact()


def fact(low: int, high: int, multiple: int = 1, bounds: Bounds | None = None, wraps: bool = True) -> Fact:
    """A fact in its tightest form.

    wraps: whether a value outside 32 bits wraps around; otherwise no value is outside.
    """
    tight: dict[tuple[Dim, int], int] = {}
    for (dim, scale), slack in (bounds or {}).items():
        # Both sides of scale * value + slack <= dim step by this, so that the slack can be rounded up to it.
        step = gcd(dim.multiple, scale * multiple)
        slack = -(-slack // step) * step
        limit = (INT_MAX - slack) // scale
        if -slack < scale * INT_MAX:  # says something even if the dimension is 0
            tight[dim, scale] = slack
        high = min(high, limit)
    if wraps and (low < INT_MIN or high > INT_MAX):
        return Fact(multiple=gcd(multiple, 2**31))  # wrapping adds multiples of 2**32
    low, high = max(low, INT_MIN), min(high, INT_MAX)
    if multiple > 1:
        low, high = low + -low % multiple, high - high % multiple
    if low > high:
        return ANY  # this code never runs
    return Fact(low, high, abs(low), tight) if low == high else Fact(low, high, multiple, tight)


def exactly(value: int) -> Fact:
    return Fact(value, value, abs(value))


def dimension(dim: Dim) -> Fact:
    return fact(0, INT_MAX, dim.multiple, {(dim, 1): 0})


# Helpers on bounds.


def _shifted(bounds: Bounds, by: int) -> Bounds:
    """The bounds of a value that is smaller by `by` than one with these bounds."""
    return {(dim, scale): slack + scale * by for (dim, scale), slack in bounds.items()}


def _all(*several: Bounds) -> Bounds:
    """The bounds of a value for which all of these hold."""
    result: dict[tuple[Dim, int], int] = {}
    for bounds in several:
        for key, slack in bounds.items():
            result[key] = max(slack, result.get(key, slack))
    return result


def _either(a: Fact, b: Fact) -> Bounds:
    """The bounds of a value that is one of two."""
    return {key: min(a.slack(key), b.slack(key)) for key in {**a.bounds, **b.bounds}}


def below(limit: Fact) -> Bounds:
    """The bounds of a value that is less than another one."""
    return _shifted(limit.bounds, 1)


def _corners(values: Iterable[int]) -> tuple[int, int]:
    values = list(values)
    return min(values), max(values)


# Arithmetic. Where an operation is undefined (division by zero), a fact may say anything.


def add(a: Fact, b: Fact, wraps: bool = True) -> Fact:
    bounds = _all(_shifted(a.bounds, -b.high), _shifted(b.bounds, -a.high))
    return fact(a.low + b.low, a.high + b.high, gcd(a.multiple, b.multiple), bounds, wraps)


def subtract(a: Fact, b: Fact, wraps: bool = True) -> Fact:
    return fact(a.low - b.high, a.high - b.low, gcd(a.multiple, b.multiple), _shifted(a.bounds, b.low), wraps)


def multiply(a: Fact, b: Fact, wraps: bool = True) -> Fact:
    low, high = _corners(x * y for x in (a.low, a.high) for y in (b.low, b.high))
    if a.constant is not None:
        a, b = b, a
    bounds = {}
    if (factor := b.constant) is not None and factor > 0:
        for (dim, scale), slack in a.bounds.items():
            # scale * a + slack <= dim, and a * factor * (scale // factor) is no more than scale * a.
            if scale % factor == 0 or (a.low >= 0 and scale > factor):
                bounds[dim, scale // factor] = slack
    return fact(low, high, a.multiple * b.multiple, bounds, wraps)


def _divisors(b: Fact) -> tuple[int, int]:
    """The least and the largest value of something to divide by that is not negative, and so not 0 either."""
    least = max(b.low, b.multiple, 1)
    return least, max(b.high, least)


def floor_divide(a: Fact, b: Fact) -> Fact:
    """a / b rounded down."""
    if b.low < 0:
        return ANY
    divisors = _divisors(b)
    low, high = _corners(x // y for x in (a.low, a.high) for y in divisors)
    divisor = b.constant
    if not divisor:
        return fact(low, high, 1, a.bounds if a.low >= 0 else {})
    bounds = {(dim, scale * divisor): slack for (dim, scale), slack in a.bounds.items()}
    return fact(low, high, a.multiple // divisor if a.multiple % divisor == 0 else 1, bounds)


def ceil_divide(a: Fact, b: Fact) -> Fact:
    """a / b rounded up."""
    if b.low < 0:
        return ANY
    divisors = _divisors(b)
    low, high = _corners(-(-x // y) for x in (a.low, a.high) for y in divisors)
    divisor = b.constant
    if not divisor:
        return fact(low, high, 1, a.bounds if a.low >= 0 else {})
    if a.multiple % divisor == 0:
        return floor_divide(a, b)
    # divisor * result <= a + divisor - 1
    above = _shifted(a.bounds, 1 - divisor)
    bounds = {(dim, scale * divisor): slack for (dim, scale), slack in above.items()}
    return fact(low, high, 1, bounds)


def divide(a: Fact, b: Fact) -> Fact:
    """a / b rounded toward zero."""
    if a.low >= 0 or (b.constant and b.low > 0 and a.multiple % b.low == 0):
        return floor_divide(a, b)
    return fact(min(a.low, 0), max(a.high, 0)) if b.low >= 0 else ANY


def floor_remainder(a: Fact, b: Fact) -> Fact:
    """a - floor(a / b) * b, for b > 0."""
    if b.low < 0:
        return ANY
    if a.low >= 0 and a.high < b.low:
        return a
    bounds, high = below(b), b.high - 1
    if a.low >= 0:  # then the remainder is no more than a
        bounds, high = _all(a.bounds, bounds), min(a.high, high)
    return fact(0, high, gcd(a.multiple, b.multiple), bounds)


def remainder(a: Fact, b: Fact) -> Fact:
    """The remainder that goes with `divide`: it has the sign of a."""
    if a.low >= 0:
        return floor_remainder(a, b)
    return fact(min(1 - b.high, 0), max(b.high - 1, 0), gcd(a.multiple, b.multiple)) if b.low >= 0 else ANY


def unsigned(operation):  # type: ignore[no-untyped-def]
    """An unsigned division: the same as a signed one where both operands are not negative."""
    return lambda a, b: operation(a, b) if a.low >= 0 and b.low >= 0 else ANY


def minimum(a: Fact, b: Fact) -> Fact:
    bounds = _all(a.bounds, b.bounds)
    return fact(min(a.low, b.low), min(a.high, b.high), gcd(a.multiple, b.multiple), bounds)


def maximum(a: Fact, b: Fact) -> Fact:
    return fact(max(a.low, b.low), max(a.high, b.high), gcd(a.multiple, b.multiple), _either(a, b))


def join(a: Fact, b: Fact) -> Fact:
    """What holds for a value that is one of two."""
    return fact(min(a.low, b.low), max(a.high, b.high), gcd(a.multiple, b.multiple), _either(a, b))


def widen(old: Fact, new: Fact) -> Fact:
    """What holds for both, giving up at once on what still moves: fixed points must come in a few steps."""
    both = join(old, new)
    low = both.low if both.low >= old.low else INT_MIN
    high = both.high if both.high <= old.high else INT_MAX
    bounds = {key: slack for key, slack in old.bounds.items() if both.slack(key) >= slack}
    return fact(low, high, both.multiple, bounds)


def shift_left(a: Fact, b: Fact, wraps: bool = True) -> Fact:
    bits = b.constant
    return multiply(a, exactly(1 << bits), wraps) if bits is not None and 0 <= bits < 31 else ANY


def shift_right(a: Fact, b: Fact) -> Fact:
    bits = b.constant
    return floor_divide(a, exactly(1 << bits)) if bits is not None and 0 <= bits < 31 else ANY


def bitwise_and(a: Fact, b: Fact) -> Fact:
    mask = b.constant if a.constant is None else a.constant
    value = a if a.constant is None else b
    if mask is None or mask == 0:
        return ANY if mask is None else exactly(0)
    multiple = mask & -mask
    if value.low >= 0:
        return fact(0, min(value.high, mask if mask > 0 else INT_MAX), multiple, value.bounds)
    return fact(0 if mask > 0 else INT_MIN, mask if mask > 0 else INT_MAX, multiple)


def counter(first: Fact, limit: Fact, step: Fact) -> Fact:
    """A loop's counter: first, first + step … below limit; a loop's step is positive."""
    return fact(first.low, limit.high - 1, gcd(first.multiple, step.multiple), below(limit), wraps=False)
