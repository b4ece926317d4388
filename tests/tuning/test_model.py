"""The roofline against numbers worked out by hand."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from mosaic_compile import kernels
from mosaic_compile.frontend import trace
from mosaic_compile.runtime.arguments import bind, specialize_call
from mosaic_compile.tuning.model import FLOPS_PER_CLOCK, L2_BYTES_PER_CLOCK, LEAST, Rates, predicted
from mosaic_compile.tuning.prune import by_model, by_resources

from .machines import RATES
from .samples import counted, triangle

H200 = Rates(132, 1980.0, 4.8e6, FLOPS_PER_CLOCK["sm90"])


def prediction(kernel, arrays, rates=RATES, **given):
    bound = bind(kernel, arrays, given)
    spec = specialize_call(kernel, bound, {})
    return predicted(kernel, spec, trace(kernel, spec), bound, rates)


def product(size, dtype=ml_dtypes.bfloat16, kernel=kernels.matmul, **given):
    a, b, c = (np.zeros((size, size), dtype) for _ in range(3))
    return prediction(kernel, (a, b, c), **given)


def test_a_product_that_moves_more_than_it_multiplies():
    # A program: 16 steps that load 64 x 64 and 64 x 64 elements of 2 bytes, and 64 x 64 that it stores. On 4
    # multiprocessors 256 programs run in 64 waves, of 1000 clocks to a microsecond.
    moved = 16 * 2 * (64 * 64 + 64 * 64) + 2 * 64 * 64
    assert moved / L2_BYTES_PER_CLOCK > 2 * 64 * 64 * 1024 / 4096
    expected = 64 * moved / L2_BYTES_PER_CLOCK / 1000
    assert product(1024, BM=64, BN=64, BK=64) == pytest.approx(expected)


def test_a_product_that_multiplies_more_than_it_moves():
    # 64 programs of 128 x 128 in 16 waves. f32 in FMA units: 256 operations in a clock.
    expected = 16 * (2 * 128 * 128 * 1024 / 256) / 1000
    assert product(1024, np.float32, BM=128, BN=128, BK=32) == pytest.approx(expected)


def test_tensor_cores_are_faster():
    slow = product(1024, np.float32, BM=128, BN=128, BK=32)
    fast = product(1024, np.float32, BM=128, BN=128, BK=32, precision="tf32")
    assert fast < slow / 2


def test_a_loop_over_the_tiles_of_a_persistent_kernel():
    own = product(1024, kernel=kernels.persistent_matmul, BM=128, BN=128, BK=64)
    assert own == pytest.approx(product(1024, BM=128, BN=128, BK=64), rel=0.02)


def test_what_lies_outside_of_arrays_is_not_moved():
    x, out = np.zeros((4096, 100), np.float32), np.zeros((4096, 100), np.float32)
    expected = 1024 * (2 * 4 * 100) / L2_BYTES_PER_CLOCK / 1000
    assert prediction(kernels.softmax, (x, out), BM=1, BN=4096) == pytest.approx(expected)


def test_programs_of_different_length():
    x, out = np.zeros(65536, np.float32), np.zeros(4, np.float32)
    bound = bind(triangle, (x, out), {})
    spec = specialize_call(triangle, bound, {})
    slow = Rates(1, 0.01, float("inf"), RATES.flops_per_clock)  # 4 waves of the mean of programs 0, 2 and 3
    expected = 4 * (5 / 3 * 64 * 4 + 4) / L2_BYTES_PER_CLOCK / 0.01
    assert predicted(triangle, spec, trace(triangle, spec), bound, slow) == pytest.approx(expected)


def test_loops_whose_bounds_come_from_memory_are_not_predicted():
    counts, x, out = np.ones(4, np.int32), np.zeros((4, 256), np.float32), np.zeros(4, np.float32)
    assert prediction(counted, (counts, x, out)) is None


def test_nothing_is_faster_than_its_arrays_come_from_memory():
    x, out = np.zeros((65536, 256), np.float32), np.zeros((65536, 256), np.float32)
    slow = Rates(4, 1000.0, 1000.0, RATES.flops_per_clock)
    assert prediction(kernels.softmax, (x, out), slow, BM=1, BN=256) == pytest.approx(2 * x.nbytes / 1000)


def test_a_launch_takes_a_while():
    x, out = np.zeros((4, 16), np.float32), np.zeros((4, 16), np.float32)
    assert prediction(kernels.softmax, (x, out), BM=1, BN=128) == LEAST


def test_an_empty_grid_is_not_predicted():
    x, out = np.zeros((0, 16), np.float32), np.zeros((0, 16), np.float32)
    assert prediction(kernels.softmax, (x, out), BM=1, BN=128) is None


def test_small_products_want_small_tiles_and_large_ones_large():
    def products(m):
        arrays = [np.zeros(s, ml_dtypes.bfloat16) for s in ((m, 4096), (4096, 4096), (m, 4096))]
        tiles = (dict(BM=128, BN=256, BK=64), dict(BM=64, BN=64, BK=64))
        return [prediction(kernels.matmul, arrays, H200, **tile) for tile in tiles]

    large, small = products(4096)
    assert large < small
    large, small = products(16)
    assert small < large


@pytest.mark.parametrize(
    "name", ["flash_attention", "layer_norm", "rms_norm", "cross_entropy", "rope", "histogram"]
)
def test_kernels_of_the_library_are_predicted(name):
    from mosaic_compile.check.inputs import Wanted, make_inputs

    kernel = getattr(kernels, name)
    inputs = make_inputs(kernel, Wanted()).arguments
    bound = bind(kernel, (), inputs)
    spec = specialize_call(kernel, bound, kernel.candidates("gpu", bound.given)[0])
    found = predicted(kernel, spec, trace(kernel, spec), bound, H200)
    assert found is not None and LEAST <= found < 1000


def test_who_is_left_out():
    assert by_model([10.0, 20.0, 20.1, None, 55.0]) == {
        2: "left out: the model says 2.0x the best",
        4: "left out: the model says 5.5x the best",
    }
    assert by_model([None, None]) == {} == by_model([])
    assert by_resources({0: {"local_memory": 300}, 3: {"local_memory": 600}, 5: {}}) == {
        0: "left out: 300 bytes a thread do not fit into registers",
        3: "left out: 600 bytes a thread do not fit into registers",
    }
    assert by_resources({1: {"local_memory": 4000}}) == {} == by_resources({})
