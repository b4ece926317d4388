"""The tolerance: errors of rounding are within it, whatever the order of sums; errors of a few ulp are not."""

from __future__ import annotations

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mosaic_compile.check import Difference
from mosaic_compile.check.rounding import AGAIN, NUDGE, SAMPLES, Rounding, distance, noise, ulp

BF16 = np.dtype(ml_dtypes.bfloat16)
F8 = np.dtype(ml_dtypes.float8_e4m3fn)


def in_blocks(terms: np.ndarray, size: int) -> np.ndarray:
    """Sums in f32 along the last axis, of blocks of a size, one after the other."""
    total = np.zeros(terms.shape[:-1], np.float32)
    for start in range(0, terms.shape[-1], size):
        part = np.zeros_like(total)
        for i in range(start, min(start + size, terms.shape[-1])):
            part = part + terms[..., i]
        total = total + part
    return total


def summed(terms: np.ndarray, dtype: np.dtype) -> Rounding:
    """Sums as the interpreter would do them."""
    return Rounding(terms.astype(np.float64).sum(-1).astype(dtype), in_blocks(terms, 16).astype(dtype), None)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32),
    count=st.sampled_from([1, 2, 7, 64, 300]),
    rows=st.sampled_from([1, 3, 50, 400]),
    spread=st.sampled_from([0, 3]),
    dtype=st.sampled_from([np.dtype(np.float32), BF16, np.dtype(np.float16)]),
)
def test_another_order_of_a_sum_is_within_the_tolerance(seed, count, rows, spread, dtype):
    """Sums that cancel and sums that do not, of rows of one size or of many."""
    generator = np.random.default_rng(seed)
    scales = 2.0 ** generator.integers(-spread, spread + 1, (rows, 1))
    terms = (generator.standard_normal((rows, count)) * scales).astype(np.float32)
    nudges = [1 + NUDGE * generator.uniform(-1, 1, terms.shape).astype(np.float32) for _ in range(AGAIN)]
    again = tuple(summed(terms * nudge, dtype) for nudge in (nudges if rows < SAMPLES else ()))
    rounding = replace(summed(terms, dtype), again=again)
    exact = rounding.exact
    for other in (in_blocks(terms, 1), in_blocks(terms[:, ::-1], 5), in_blocks(terms, 300)):
        assert Difference(other.astype(dtype), exact, rounding.tolerance()).ok


@pytest.mark.parametrize("size", [2.0**-12, 1.0, 2.0**12])
def test_a_few_ulp_of_bf16_are_found(size):
    """Also where other rows of the output are larger by far."""
    generator = np.random.default_rng(1)
    terms = generator.standard_normal((64, 64, 32)).astype(np.float32)
    terms[10:20] *= np.float32(size)
    exact = terms.astype(np.float64).sum(-1).astype(BF16)
    rounding = Rounding(exact, in_blocks(terms, 8).astype(BF16), None)
    wrong = in_blocks(terms, 8).astype(BF16)
    large = np.abs(wrong) == np.abs(wrong[10:20]).max()
    wrong[large] = (exact.astype(np.float64) + 4 * ulp(exact)).astype(BF16)[large]
    found = Difference(wrong, exact, rounding.tolerance())
    assert not found.ok and found.wrong == large.sum()
    assert found.worst(1)[0].ulps == pytest.approx(4, abs=0.1)


def test_truncation_instead_of_rounding_to_nearest_is_within_two_ulp_and_twice_is_not():
    x = np.random.default_rng(2).standard_normal(10_000).astype(np.float32)
    exact = x.astype(BF16)
    rounding = Rounding(exact, exact, None)
    cut = (x.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    assert Difference(cut.astype(BF16), exact, rounding.tolerance()).ok
    fewer_bits = (x.view(np.uint32) & np.uint32(0xFFF80000)).view(np.float32)
    assert not Difference(fewer_bits.astype(BF16), exact, rounding.tolerance()).ok


def test_functions_of_gpus_are_within_the_tolerance():
    """exp is off by 2 + 1.2 |x| ulp there; the interpreter rounds once."""
    x = np.linspace(-10, 10, 1001, dtype=np.float32)
    exact = np.exp(x.astype(np.float64)).astype(np.float32)
    off = ((2 + 1.173 * np.abs(x)) * ulp(exact) + exact).astype(np.float32)
    assert Difference(off, exact, Rounding(exact, exact, None).tolerance()).ok
    wrong = (exact * np.float32(1 + 2**-17)).astype(np.float32)
    assert not Difference(wrong, exact, Rounding(exact, exact, None).tolerance()).ok


def test_f64_has_nothing_wider_to_compare_with():
    terms = np.random.default_rng(3).standard_normal((100, 300))
    exact, other = terms.sum(-1), terms[:, ::-1].cumsum(-1)[:, -1]
    tolerance = Rounding(exact, exact, None).tolerance()
    assert Difference(other, exact, tolerance).ok
    assert not Difference(exact + 1e-9, exact, tolerance).ok


def test_integers_are_equal_unless_rounding_changes_them():
    exact = np.array([2**53, 5, -3], np.int64)
    equal = Rounding(exact, exact, None).tolerance()
    assert Difference(exact, exact, equal).ok
    assert not Difference(exact + np.array([1, 0, 0]), exact, equal).ok  # which float64 cannot tell apart
    rounded = Rounding(exact, exact + np.array([0, 1, 0]), None).tolerance()
    assert Difference(exact - np.array([0, 0, 1]), exact, rounded).ok
    assert not Difference(exact - np.array([0, 0, 2]), exact, rounded).ok
    truth = np.array([True, False])
    assert not Difference(~truth, truth, Rounding(truth, truth, None).tolerance()).ok
    four = np.array([-8, 7], ml_dtypes.int4)
    assert distance(four, four[::-1]).tolist() == [15, 15]


def test_nan_and_infinity():
    nan, inf = np.nan, np.inf
    expected = np.array([nan, inf, -inf, 1, nan, inf, 1, 1], np.float32)
    got = np.array([nan, inf, -inf, 1, 1, 1, nan, inf], np.float32)
    found = Difference(got, expected, Rounding(expected, expected, None).tolerance())
    assert found.error.tolist() == [0, 0, 0, 0, inf, inf, inf, inf]
    assert found.wrong == 4 and found.max_error == inf and found.worst_ratio == inf
    assert Difference(got, got, found.tolerance).ok


def test_where_rounding_overflows_nothing_is_compared():
    exact, hardware = np.array([65000, 1], np.float16), np.array([np.inf, 1], np.float16)
    tolerance = Rounding(exact, hardware, None).tolerance()
    assert tolerance[0] == np.inf and np.isfinite(tolerance[1])
    found = Difference(hardware, exact, tolerance)
    assert found.ok and found.max_error == 0 and found.relative == 0


def test_noise_is_that_of_elements_of_about_that_size_or_smaller():
    size = np.repeat([1e-4, 1.0, 1e4], SAMPLES)
    excess = np.repeat([1e-9, 1e-6, 1e-8], SAMPLES)
    np.testing.assert_array_equal(noise(excess, size, size), np.repeat([1e-9, 1e-6, 1e-6], SAMPLES))
    few, sizes = np.array([0.0, 5.0, 1.0]), np.array([1e-9, 1.0, 1e9])  # fewer than SAMPLES: all of them
    np.testing.assert_array_equal(noise(few, sizes, np.array([[1e-9], [1e9]])), [[5.0], [5.0]])
    assert noise(np.zeros(0), np.zeros(0), np.zeros((0, 3))).shape == (0, 3)


def test_ulp_of_the_largest_number_is_the_distance_to_the_next_smaller():
    assert ulp(np.array([448, -448, 1, 0], F8)).tolist() == [32, 32, 0.125, 2**-9]
    assert ulp(np.array([np.inf, np.nan, 1.5], np.float32)).tolist() == [0, 0, 2**-23]
