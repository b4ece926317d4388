"""Reductions and scans with functions of the user that branch, loop and ignore their arguments."""

import numpy as np
import pytest

import mosaic_compile as mc

from .helpers import assert_same, launch


def logaddexp(a, b):
    high, low = mc.maximum(a, b), mc.minimum(a, b)
    return high + mc.log(1.0 + mc.exp(low - high))


@mc.kernel(grid=(1,))
def reduced(x: mc.f32[5, 16], y: mc.f32[5], z: mc.f32[16]):
    tile = mc.load(x, (0, 0), (5, 16))
    mc.store(y, 0, mc.reduce(tile, 1, logaddexp))
    mc.store(z, 0, mc.reduce(tile, 0, lambda a, b: a if a * a > b * b else b))


def test_own_functions():
    """The second function branches, on every pair at once."""
    x = np.random.default_rng(0).standard_normal((5, 16)).astype(np.float32)
    y, z = np.zeros(5, np.float32), np.zeros(16, np.float32)
    launch(reduced, x, y, z)
    np.testing.assert_allclose(y, np.logaddexp.reduce(x.astype(np.float64), 1), rtol=1e-6)
    assert_same(z, np.take_along_axis(x, np.abs(x).argmax(0)[None], 0)[0])


def welford(mean_a, m2_a, n_a, mean_b, m2_b, n_b):
    n = n_a + n_b
    delta = mean_b - mean_a
    return mean_a + delta * n_b / n, m2_a + m2_b + delta * delta * n_a * n_b / n, n


@mc.kernel(grid=(1,))
def variance(x: mc.f32["N"], y: mc.f32[3], *, SIZE: mc.Const = 16):
    tile = mc.load(x, 0, SIZE)
    mean, m2, n = mc.reduce((tile, mc.zeros(SIZE, mc.f32), mc.ones(SIZE, mc.f32)), 0, welford)
    mc.store(y, 0, mean)
    mc.store(y, 1, m2 / n)
    mc.store(y, 2, n)


@pytest.mark.parametrize("size", [1, 2, 7, 16])
def test_several_operands(size):
    x = np.random.default_rng(size).standard_normal(size).astype(np.float32)
    y = np.zeros(3, np.float32)
    launch(variance, x, y, SIZE=size)
    np.testing.assert_allclose(y, [x.mean(), x.var(), size], rtol=1e-5, atol=1e-6)


def euclid(a, b):
    while b != 0:
        a, b = b, a % b
    return a


@mc.kernel(grid=(1,))
def common_divisors(x: mc.i32[3, 8], y: mc.i32[3]):
    mc.store(y, 0, mc.reduce(mc.load(x, (0, 0), (3, 8)), 1, euclid))


def test_loop_in_the_function():
    x = (np.random.default_rng(1).integers(1, 50, (3, 8)) * [[6], [35], [1]]).astype(np.int32)
    y = np.zeros(3, np.int32)
    launch(common_divisors, x, y)
    assert_same(y, np.gcd.reduce(x, 1))


@mc.kernel(grid=(1,))
def scanned(x: mc.f32[4, 8], g: mc.f32[4, 8], y: mc.f32[4, 8], z: mc.f32[4, 8], *, AXIS: mc.Const = 1):
    def linear(gate_a, a, gate_b, b):
        return gate_a * gate_b, gate_b * a + b

    tiles = mc.load(g, (0, 0), (4, 8)), mc.load(x, (0, 0), (4, 8))
    mc.store(y, (0, 0), mc.scan(tiles, AXIS, linear)[1])
    mc.store(z, (0, 0), mc.scan(tiles, AXIS, linear, reverse=True)[1])


@pytest.mark.parametrize("axis", [0, 1])
def test_scan(axis):
    """A linear recurrence, which is not commutative, forward and backward."""
    rng = np.random.default_rng(axis)
    x, g = (rng.standard_normal((4, 8)).astype(np.float32) for _ in range(2))
    y, z = np.zeros_like(x), np.zeros_like(x)
    launch(scanned, x, g, y, z, AXIS=axis)

    def recurrence(x, g):
        state, states = 0.0, []
        for row, gate in zip(np.moveaxis(x, axis, 0), np.moveaxis(g, axis, 0)):
            state = gate * state + row
            states.append(state)
        return np.moveaxis(np.array(states), 0, axis)

    np.testing.assert_allclose(y, recurrence(x, g), rtol=1e-5, atol=1e-6)
    backward = np.flip(recurrence(np.flip(x, axis), np.flip(g, axis)), axis)
    np.testing.assert_allclose(z, backward, rtol=1e-5, atol=1e-6)


@mc.kernel(grid=(1,))
def constants(x: mc.i32[8], y: mc.i32[8], z: mc.i32[1]):
    mc.store(y, 0, mc.scan(mc.load(x, 0, 8), 0, lambda a, b: mc.i32(7)))
    mc.store(z, 0, mc.reduce(mc.load(x, 0, 8), 0, lambda a, b: mc.i32(7)))


def test_function_that_ignores_its_arguments():
    x, y, z = np.zeros(8, np.int32), np.ones(8, np.int32), np.ones(1, np.int32)
    launch(constants, x, y, z)
    assert list(y) == [0] + [7] * 7 and z == 7
