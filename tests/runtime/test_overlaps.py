"""Arrays that a kernel writes share no memory with others: found exactly where arrays are rows of one distance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import mosaic_compile as mc
from mosaic_compile.errors import ArgumentError
from mosaic_compile.runtime.arguments import check_written
from mosaic_compile.runtime.arrays import describe

BUFFER = np.zeros(64, np.int16)


@st.composite
def views(draw) -> np.ndarray:
    """Arrays of two dimensions within the buffer, some in reverse."""
    size, stride = draw(st.integers(1, 64)), draw(st.integers(1, 20))
    rows, columns = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    steps = (draw(st.sampled_from([-stride, stride])), draw(st.sampled_from([-2, -1, 1, 2])))
    offset = size - 1
    reached = [offset + r * steps[0] + c * steps[1] for r in (0, rows - 1) for c in (0, columns - 1)]
    assume(min(reached) >= 0 and max(reached) < 64)
    return np.lib.stride_tricks.as_strided(BUFFER[offset:], (rows, columns), [s * 2 for s in steps])


def cells(view: np.ndarray) -> set[int]:
    start = view.__array_interface__["data"][0]
    return {start + r * view.strides[0] + c * view.strides[1] for r, c in np.ndindex(view.shape)}


def overlap(first: np.ndarray, other: np.ndarray) -> bool:
    arrays = {"out": describe(first, "out"), "x": describe(other, "x")}
    try:
        check_written(arrays, frozenset({"out"}))
    except ArgumentError as error:
        assert error.message == "'out' is written by the kernel and shares memory with 'x'"
        return True
    return False


@given(views(), views())
def test_no_overlap_is_overlooked(first, other):
    if cells(first) & cells(other):
        assert overlap(first, other)


@given(
    st.integers(1, 6),
    st.integers(0, 9),
    st.integers(0, 9),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 6),
)
def test_columns_of_one_matrix_overlap_where_they_share_columns(
    rows, start, other_start, width, other_width, other_rows
):
    matrix = np.zeros((6, 18), np.float32)
    first, other = (
        matrix[:rows, start : start + width],
        matrix[:other_rows, other_start : other_start + other_width],
    )
    assume(rows > 1 and other_rows > 1 and max(width, other_width) > 1)
    assert overlap(first, other) == bool(cells(first) & cells(other))


@mc.kernel(grid=lambda M: (mc.cdiv(M, 8),))
def twice(x: mc.f32["M", "N"], out: mc.Out[mc.f32["M", "N"]]):
    i = mc.program_id(0)
    mc.store(out, (i, 0), mc.load(x, (i, 0), (8, 64)) * 2)


@pytest.mark.parametrize("width", [1, 3, 16, 17, 33, 64])
def test_columns_of_one_matrix(width):
    """What is written keeps to its columns."""
    matrix = np.random.default_rng(0).standard_normal((19, 3 * width)).astype(np.float32)
    expected = matrix.copy()
    expected[:, width : 2 * width] = 2 * matrix[:, 2 * width :]
    twice(matrix[:, 2 * width :], matrix[:, width : 2 * width])
    np.testing.assert_array_equal(matrix, expected)
