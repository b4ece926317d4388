"""gather_rows, histogram: exact."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mosaic_compile.kernels import gather_rows, histogram

from .helpers import (
    EDGES,
    SHAPES,
    TARGETS,
    examples,
    integers,
    launch,
    numpy_type,
    on_targets,
    random,
    unwritten,
)

ROWS = ["bf16", "f16", "f32", "f8e4m3", "f8e5m2", "i32", "i8", "u8"]


def check_gather_rows(v, d, indices, dtype="f32", target=None, **constants):
    is_float = numpy_type(dtype).kind not in "iu"
    table = random(1, (v, d), dtype) if is_float else integers(1, (v, d), dtype)
    out = unwritten((len(indices), d), dtype)
    launch(gather_rows, table=table, indices=indices, out=out, target=target, **constants)
    np.testing.assert_array_equal(out, gather_rows.reference(table, indices))


@on_targets
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("index", ["i32", "i64"])
def test_gather_rows(shape, index, target):
    check_gather_rows(7, shape[1], integers(2, shape[:1], index, -2, 9), target=target, BM=4, BN=16)


@given(
    sizes=st.tuples(st.integers(0, 30), st.integers(0, 70), st.integers(0, 9)),
    dtype=st.sampled_from(ROWS),
    index=st.sampled_from(["i32", "i64"]),
    blocks=st.sampled_from([(1, 64), (1, 16), (2, 32), (8, 8)]),
    target=st.sampled_from(TARGETS),
)
@examples(60)
def test_gather_rows_of_any_shape_and_type(sizes, dtype, index, blocks, target):
    v, d, n = sizes
    indices = integers(3, (n,), index, -v // 4, v + v // 4)
    check_gather_rows(v, d, indices, dtype, target, BM=blocks[0], BN=blocks[1])


@on_targets
def test_indices_far_outside_the_table_give_zeros(target):
    """Among them those whose low 32 bits are the number of a row."""
    indices = np.array([2**32 + 1, -(2**32) + 1, 2**63 - 1, -(2**63), 2**31, 1])
    check_gather_rows(3, 20, indices, target=target, BM=4, BN=16)


def check_histogram(values, bins, target=None, **constants):
    counts = integers(4, (bins,), "i32", 0, 9)
    expected = histogram.reference(values, counts)
    launch(histogram, values=values, counts=counts, target=target, **constants)
    np.testing.assert_array_equal(counts, expected)


@on_targets
@pytest.mark.parametrize("n", EDGES)
@pytest.mark.parametrize("dtype", ["i32", "i64", "u8"])
def test_histogram(n, dtype, target):
    """What lies beyond the end of the values is not counted as 0."""
    for bits in (0, 4):
        check_histogram(integers(5, (n,), dtype, 0, 5), 6, target, BLOCK=32, BITS=bits)


@given(
    n=st.integers(0, 100),
    bins=st.integers(1, 300),
    dtype=st.sampled_from(["i32", "i64", "u8"]),
    block=st.sampled_from([32, 128]),
    bits=st.sampled_from([0, 4, 5]),
    target=st.sampled_from(TARGETS),
)
@examples(40)
def test_histogram_of_any_size(n, bins, dtype, block, bits, target):
    """Values outside the bins are dropped. Of 4 bits there are fewer products than bins."""
    low = 0 if dtype == "u8" else -20
    check_histogram(integers(6, (n,), dtype, low, 255), bins, target, BLOCK=block, BITS=bits)


def test_histogram_of_extreme_values():
    for bits in (0, 4):
        check_histogram(np.array([-(2**31), 2**31 - 1, -1, 3, 4, 3], np.int32), 4, BLOCK=32, BITS=bits)
        extreme = np.array([-(2**63), 2**63 - 1, 2**32 + 1, 1 - 2**32, 3, 4, 3])
        check_histogram(extreme, 4, BLOCK=32, BITS=bits)
