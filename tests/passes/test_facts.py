"""The arithmetic of facts: whatever values two facts allow, the result's fact allows what the machine computes."""

import random
from math import gcd

import pytest

from mosaic_compile.passes import facts
from mosaic_compile.passes.facts import ANY, INT_MAX, INT_MIN, Dim, Fact


def wrapped(value: int) -> int:
    return (value + 2**31) % 2**32 - 2**31


def truncated(a: int, b: int) -> int:
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


OPERATIONS = {
    facts.add: lambda a, b: a + b,
    facts.subtract: lambda a, b: a - b,
    facts.multiply: lambda a, b: a * b,
    facts.floor_divide: lambda a, b: a // b,
    facts.ceil_divide: lambda a, b: -(-a // b),
    facts.divide: truncated,
    facts.floor_remainder: lambda a, b: a % b,
    facts.remainder: lambda a, b: a - truncated(a, b) * b,
    facts.minimum: min,
    facts.maximum: max,
    facts.bitwise_and: lambda a, b: a & b,
    facts.shift_left: lambda a, b: a << b,
    facts.shift_right: lambda a, b: a >> b,
    facts.join: lambda a, b: random.choice((a, b)),
    facts.widen: lambda a, b: random.choice((a, b)),
}
DIVISIONS = (facts.floor_divide, facts.ceil_divide, facts.divide, facts.floor_remainder, facts.remainder)
SHIFTS = (facts.shift_left, facts.shift_right)


def allows(fact: Fact, value: int, sizes: dict[Dim, int]) -> bool:
    return (
        fact.low <= value <= fact.high
        and (value % fact.multiple == 0 if fact.multiple else value == 0)
        and all(scale * value + slack <= sizes[dim] for (dim, scale), slack in fact.bounds.items())
    )


def some_fact(rng: random.Random, value: int, sizes: dict[Dim, int]) -> Fact:
    """A fact that holds for the value: each of its parts is true, and as loose as it happens."""

    def slack() -> int:
        return rng.choice((0, 0, 1, 5, 2**20, 2**32))

    multiple = gcd(value, rng.choice((0, 1, 2, 12, 64, 2**20)))
    bounds = {
        (dim, s): size - s * value - slack()
        for dim, size in sizes.items()
        for s in (1, 3, 8)
        if rng.random() < 0.3
    }
    low, high = max(value - slack(), INT_MIN), min(value + slack(), INT_MAX)
    return facts.fact(low, high, multiple, bounds)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda f: f.__name__)
def test_operations(operation):
    rng = random.Random(operation.__name__)
    random.seed(operation.__name__)
    for _ in range(3000):
        sizes = {
            Dim("M", 16): rng.choice((0, 16, 48, 2**31 - 16)),
            Dim("N", 3): rng.choice((0, 3, 9, 300, 3 * 2**29)),
        }
        a, b = (
            rng.choice((0, 1, 3, 8, 47, 48, -1, -16, 2**20, rng.randrange(INT_MIN, INT_MAX + 1)))
            for _ in "ab"
        )
        a = rng.choice((a, INT_MAX, INT_MIN, 2**30))
        if (operation in DIVISIONS and b == 0) or (operation in DIVISIONS and a == INT_MIN and b == -1):
            continue
        if operation in SHIFTS:
            b = rng.randrange(5)
        fact_a, fact_b = some_fact(rng, a, sizes), some_fact(rng, b, sizes)
        assert allows(fact_a, a, sizes), (a, fact_a)
        result = wrapped(OPERATIONS[operation](a, b))
        known = operation(fact_a, fact_b)
        assert allows(known, result, sizes), (a, b, result, fact_a, fact_b, known)


def test_what_fits_a_dimension():
    n = Dim("N", 48)
    blocks = facts.ceil_divide(facts.dimension(n), facts.exactly(16))
    start = facts.multiply(facts.counter(facts.exactly(0), blocks, facts.exactly(1)), facts.exactly(16))
    assert (start.low, start.multiple, start.room(n)) == (0, 16, 16)
    ragged = facts.ceil_divide(facts.dimension(n), facts.exactly(32))
    start = facts.multiply(facts.counter(facts.exactly(0), ragged, facts.exactly(1)), facts.exactly(32))
    assert (start.low, start.multiple, start.room(n)) == (0, 32, 16)
    assert ANY.room(n) < 0


def test_code_that_never_runs():
    assert facts.counter(facts.exactly(3), facts.exactly(3), facts.exactly(1)) == ANY
