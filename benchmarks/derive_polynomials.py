"""The coefficients in passes/polynomials.py: minimax polynomials whose coefficients are numbers of the format.

Remez's exchange on a fine grid (J.-M. Muller, "Elementary Functions", 3rd edition, 3.3), then rounding of the coefficients.

Usage: python benchmarks/derive_polynomials.py [NAME ...] > passes/polynomials.py
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from mpmath import mp, mpf

mp.dps = 60
Function = Callable[[mpf], mpf]
Interval = tuple[mpf, mpf]
ROOT = mp.sqrt(2)


@dataclass(frozen=True)
class Problem:
    """function: what the polynomial is fitted to on the interval; weight: what its error counts, there.

    intervals, degrees: for f32 and for f64.
    """

    about: str
    function: Function
    weight: Function
    intervals: tuple[Interval, Interval]
    degrees: tuple[int, int]


def _log_quotient(f: mpf) -> mpf:
    return (mp.log(1 + f) - f) / f**2


def _tanh_quotient(u: mpf) -> mpf:
    return (mp.tanh(mp.sqrt(u)) / mp.sqrt(u) - 1) / u


ERF_SWITCH = mpf("0.875")
LN2_HALF = mp.log(2) / 2
QUARTER = mp.pi / 4

PROBLEMS = {
    "EXP": Problem(
        "(e^r - 1 - r) / r^2 for |r| <= ln(2) / 2",
        lambda r: (mp.expm1(r) - r) / r**2,
        lambda r: r**2 / mp.exp(r),
        ((-LN2_HALF * mpf("1.0001"), LN2_HALF * mpf("1.0001")),) * 2,
        (4, 10),
    ),
    "LOG": Problem(
        "(ln(1 + f) - f) / f^2 for sqrt(1/2) <= 1 + f <= sqrt(2)",
        _log_quotient,
        lambda f: f**2 / mp.log(1 + f),
        ((1 / ROOT - 1, ROOT - 1),) * 2,
        (8, 20),
    ),
    "TANH": Problem(
        "(tanh(x) / x - 1) / x^2 in x^2, for |x| <= 1",
        _tanh_quotient,
        lambda u: mp.sqrt(u) * u / mp.tanh(mp.sqrt(u)),
        ((mpf(0), mpf(1)),) * 2,
        (6, 15),
    ),
    "ERF_SMALL": Problem(
        "erf(x) / x - 1 in x^2, for |x| <= 0.875",
        lambda u: mp.erf(mp.sqrt(u)) / mp.sqrt(u) - 1,
        lambda u: mp.sqrt(u) / mp.erf(mp.sqrt(u)),
        ((mpf(0), ERF_SWITCH**2),) * 2,
        (6, 13),
    ),
    "ERF_LARGE": Problem(
        "ln(1 - erf(x)) / x for x >= 0.875, up to where erf(x) rounds to 1",
        lambda x: mp.log(mp.erfc(x)) / x,
        lambda x: x * mp.erfc(x),
        ((ERF_SWITCH, mpf(4)), (ERF_SWITCH, mpf(6))),
        (8, 22),
    ),
    "SIN": Problem(
        "(sin(r) / r - 1) / r^2 in r^2, for |r| <= pi/4",
        lambda u: (mp.sin(mp.sqrt(u)) / mp.sqrt(u) - 1) / u,
        lambda u: mp.sqrt(u) * u / mp.sin(mp.sqrt(u)),
        ((mpf(0), QUARTER**2 * mpf("1.0001")),) * 2,
        (3, 6),
    ),
    "COS": Problem(
        "(cos(r) - 1 + r^2 / 2) / r^4 in r^2, for |r| <= pi/4",
        lambda u: (mp.cos(mp.sqrt(u)) - 1 + u / 2) / u**2,
        lambda u: u**2 / mp.cos(mp.sqrt(u)),
        ((mpf(0), QUARTER**2 * mpf("1.0001")),) * 2,
        (2, 6),
    ),
}


def grid(interval: Interval, count: int) -> list[mpf]:
    """Points as close at the ends as the errors' extrema are; without the ends and the middle, where quotients are 0 / 0."""
    low, high = interval
    return [
        (low + high) / 2 - (high - low) / 2 * mp.cos(mp.pi * (i + mpf("0.5")) / count) for i in range(count)
    ]


def minimax(
    points: Sequence[mpf], values: Sequence[mpf], weights: Sequence[mpf], degree: int
) -> tuple[list[mpf], mpf]:
    """The polynomial whose largest weighted error is smallest, from the constant on, and that error."""
    chosen = [(len(points) - 1) * i // (degree + 1) for i in range(degree + 2)]
    for _ in range(50):
        rows = [
            [*(points[i] ** k for k in range(degree + 1)), (-1) ** sign / weights[i]]
            for sign, i in enumerate(chosen)
        ]
        *coefficients, level = mp.lu_solve(mp.matrix(rows), mp.matrix([values[i] for i in chosen]))
        errors = [w * (mp.polyval(coefficients[::-1], x) - v) for x, v, w in zip(points, values, weights)]
        largest = max(abs(e) for e in errors)
        if largest <= abs(level) * mpf("1.001"):
            break
        chosen = _extrema(errors, degree + 2)
    return coefficients, largest


def _extrema(errors: Sequence[mpf], count: int) -> list[int]:
    """Where the error is largest in each stretch of one sign; `count` neighbouring ones with the largest errors."""
    found: list[int] = []
    for i, error in enumerate(errors):
        if found and (errors[found[-1]] > 0) == (error > 0):
            if abs(error) > abs(errors[found[-1]]):
                found[-1] = i
        else:
            found.append(i)
    while len(found) > count:
        found.pop(0 if abs(errors[found[0]]) < abs(errors[found[-1]]) else -1)
    return found


def rounded(x: mpf, bits: int) -> float:
    """To the nearest number with so many bits: f32's 24 or f64's 53."""
    mantissa, exponent = mp.frexp(x)
    return float(mp.ldexp(mp.nint(mp.ldexp(mantissa, bits)), int(exponent) - bits))


def fit(problem: Problem, interval: Interval, degree: int, bits: int) -> tuple[list[float], float]:
    """Coefficients from the constant on, and the largest weighted error with them."""
    points = grid(interval, 24 * (degree + 4))
    weights = [abs(problem.weight(x)) for x in points]
    values = [problem.function(x) for x in points]
    exact, _ = minimax(points, values, weights, degree)
    kept = [rounded(c, bits) for c in exact]
    errors = [
        w * (mp.polyval([mpf(c) for c in kept[::-1]], x) - v) for x, v, w in zip(points, values, weights)
    ]
    return kept, float(max(map(abs, errors)))


def main(names: Sequence[str]) -> None:
    print(
        '"""Minimax polynomials, coefficients from the constant on: written by benchmarks/derive_polynomials.py."""\n'
    )
    for name in names or PROBLEMS:
        problem = PROBLEMS[name]
        print(f"# {problem.about}")
        print(f"{name} = {{")
        for kind, interval, degree, bits in zip((32, 64), problem.intervals, problem.degrees, (24, 53)):
            coefficients, error = fit(problem, interval, degree, bits)
            print(f"    {kind}: (  # relative error 2^{np.log2(error):.1f}")
            for c in coefficients:
                print(f"        {c!r},")
            print("    ),")
        print("}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
