"""What kernels compute, after each step on the way to Triton, compared with NumPy."""

import pytest

from . import control_cases, elementwise_cases, kernel_cases, memory_cases, shape_cases
from .case import Case, assert_wanted, interpreted, launched, lowered

FAMILIES = (memory_cases, shape_cases, control_cases, kernel_cases, elementwise_cases)
CASES = [case for family in FAMILIES for case in family.CASES]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_traced(case: Case):
    assert_wanted(case, interpreted(case, lowered(case, "sm90", 0)))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_after_tile_passes(case: Case):
    assert_wanted(case, interpreted(case, lowered(case, "sm90", 1)))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_lowered(case: Case):
    """For a GPU with TMA and fp8."""
    assert_wanted(case, launched(case, lowered(case, "sm90", 2)))


# What moves blocks with TMA there must do without it here.
WITH_TMA = [*shape_cases.PRODUCTS, *kernel_cases.CASES]


@pytest.mark.parametrize("case", WITH_TMA, ids=str)
def test_lowered_without_tma(case: Case):
    assert_wanted(case, launched(case, lowered(case, "sm80", 2)))


@pytest.mark.slow
@pytest.mark.parametrize("target", ["sm80", "gfx942"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_lowered_for_others(case: Case, target: str):
    """Without TMA and fp8, and with the other vendor's library."""
    assert_wanted(case, launched(case, lowered(case, target, 2)))
