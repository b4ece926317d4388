"""What arrays hold: numbers at which programs go wrong.

Integers are small or at the ends of their type, where they wrap around. Floating-point numbers are whole, halves and
quarters, with a few that are large, infinite or NaN.
"""

from __future__ import annotations

import numpy as np

from .program import DTYPES, Program


def make(dtype: str, shape: tuple[int, ...], seed: int, small: bool = False) -> np.ndarray:
    """An array of an element type (by name) and a shape; the same for the same seed.

    small: only whole numbers from -3 to 3, whose sums of products are exact.
    """
    rng, type_ = np.random.default_rng(seed), DTYPES[dtype]
    if small:
        return rng.integers(-3, 4, shape).astype(type_)
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    rare = rng.random(shape) < 0.1
    if type_.kind in "iu":
        limits = np.iinfo(type_)
        small = rng.integers(0 if type_.kind == "u" else -9, 10, shape).astype(type_)
        ends = rng.choice(np.array([limits.min, limits.min + 1, limits.max - 1, limits.max], type_), shape)
        return np.where(rare, ends, small)
    usual = rng.integers(-32, 33, shape) / 4
    special = rng.choice(np.array([np.nan, np.inf, -np.inf, 1000.0, -0.0, 2.0**-12]), shape)
    return np.where(rare, special, usual).astype(np.float32).astype(type_)


def arguments(program: Program) -> dict[str, np.ndarray]:
    """The arrays that a program is run on, by name."""
    described = enumerate(zip(program.arrays, program.shapes))
    return {
        array.name: make(array.dtype, shape, program.seed + n, array.small) for n, (array, shape) in described
    }
