"""Reductions, scans and matrix products with functions, types and layouts of many kinds."""

import numpy as np
import pytest

import mosaic_compile as mc
from mosaic_compile.interpreter.tile import to_tf32

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


@mc.kernel(grid=(1,))
def extrema(x: mc.f32[8, 8], low: mc.i32[8], high: mc.i32[8]):
    tile = mc.load(x, (0, 0), (8, 8))
    mc.store(low, 0, mc.argmin(tile, 1))
    mc.store(high, 0, mc.argmax(tile, 1))


def test_arg_extrema():
    """The first of equals; NaN is both the smallest and the largest; infinities and both zeros."""
    n, i = np.nan, np.inf
    rows = [
        [1, 3, 3, 0, 0, 3, 1, 0],
        [n, 1, 2, 3, n, 5, 6, 7],
        [1, 2, n, i, -i, n, 0, 0],
        [n] * 8,
        [-i] * 8,
        [i, i, -i, -i, 0, 0, 0, 0],
        [0.0, -0.0, 0.0, -0.0, 0.0, 0.0, 0.0, 0.0],
        [-3, -2, -1, -1, -3, -2, -4, -4],
    ]

    x = np.array(rows, np.float32)
    low, high = np.zeros(8, np.int32), np.zeros(8, np.int32)
    launch(extrema, x, low, high)
    assert_same(low, x.argmin(1).astype(np.int32))
    assert_same(high, x.argmax(1).astype(np.int32))


# Matrix products.

OPERANDS = mc.DTypeVar("T", mc.bf16, mc.f16, mc.f32, mc.f64, mc.f8e4m3, mc.f8e5m2, mc.i8, mc.u8)
SUMS = mc.DTypeVar("S", mc.f32, mc.f64, mc.f16, mc.i32)


@mc.kernel(grid=(1,))
def product(
    a: OPERANDS["B", 8, 16],
    b: OPERANDS["B", 4, 16],
    c: SUMS["B", 8, 4],
    *,
    BATCH: mc.Const = 3,
    PRECISION: mc.Const = "ieee",
):
    x, y = mc.load(a, (0, 0, 0), (BATCH, 8, 16)), mc.load(b, (0, 0, 0), (BATCH, 4, 16))
    acc = mc.load(c, (0, 0, 0), (BATCH, 8, 4))
    mc.store(c, (0, 0, 0), mc.dot(x, y.T, acc, precision=PRECISION))


PRODUCTS = [
    ("bf16", "f32", 1e-6),
    ("f16", "f32", 1e-6),
    ("f16", "f16", 2e-3),
    ("f32", "f32", 1e-6),
    ("f64", "f64", 1e-15),
    ("f8e4m3", "f32", 1e-6),
    ("f8e5m2", "f16", 2e-3),
    ("i8", "i32", 0),
]


@pytest.mark.parametrize("operand, total, tolerance", PRODUCTS)
def test_dot(operand, total, tolerance):
    rng = np.random.default_rng(3)
    operand, total = mc.language.dtypes.DTYPES[operand], mc.language.dtypes.DTYPES[total]
    if operand.is_integer:
        a, b = (rng.integers(operand.min, operand.max, s, endpoint=True) for s in ((3, 8, 16), (3, 4, 16)))
    else:
        a, b = rng.standard_normal((3, 8, 16)), rng.standard_normal((3, 4, 16))
    a, b = a.astype(operand.numpy), b.astype(operand.numpy)
    c = (10 * rng.standard_normal((3, 8, 4))).astype(total.numpy)
    wide = np.int64 if operand.is_integer else np.longdouble
    wanted = c.astype(wide) + a.astype(wide) @ b.astype(wide).swapaxes(1, 2)
    size = np.abs(c.astype(wide)) + np.abs(a.astype(wide)) @ np.abs(b.astype(wide)).swapaxes(1, 2)
    launch(product, a, b, c, T=operand, S=total)
    assert (np.abs(c.astype(wide) - wanted) <= tolerance * size).all()


def test_dot_wraps():
    a, b = np.full((3, 8, 16), -128, np.int8), np.full((3, 4, 16), -128, np.int8)
    c = np.full((3, 8, 4), 2**31 - 1, np.int32)
    launch(product, a, b, c, T=mc.i8, S=mc.i32)
    assert (c == -(2**31) + 2**18 - 1).all()


def test_dot_precision():
    rng = np.random.default_rng(5)
    a, b = (rng.standard_normal(s).astype(np.float32) for s in ((3, 8, 16), (3, 4, 16)))
    wanted = a.astype(np.float64) @ b.astype(np.float64).swapaxes(1, 2)
    size = np.abs(a) @ np.abs(b).swapaxes(1, 2)
    errors = {}
    for precision in ("ieee", "tf32", "tf32x3"):
        c = np.zeros((3, 8, 4), np.float32)
        launch(product, a, b, c, T=mc.f32, S=mc.f32, PRECISION=precision)
        errors[precision] = (np.abs(c - wanted) / size).max()
    assert errors["ieee"] < 1e-6 and errors["tf32x3"] < 1e-6 and 1e-5 < errors["tf32"] < 1e-3


def test_tf32():
    x = np.array(
        [1 + 2**-11, 1 + 3 * 2**-11, 1 + 2**-11 + 2**-20, -1 - 2**-11, np.inf, -np.inf, np.nan, 3.4e38],
        np.float32,
    )
    wanted = np.array([1, 1 + 2**-9, 1 + 2**-10, -1, np.inf, -np.inf, np.nan, 3.4e38], np.float32)
    wanted[-1] = (
        x[-1].astype(np.float64) // 2.0**117 * 2.0**117
    )  # the largest exponent has 10 bits of mantissa, too
    actual = to_tf32(x)
    assert_same(actual[:-1], wanted[:-1])
    assert abs(float(actual[-1]) - float(wanted[-1])) <= 2.0**117


# Shapes.


@mc.kernel(grid=(1,))
def shaped(
    x: mc.f32[8, 4], a: mc.f32[4, 8], b: mc.f32[2, 16], c: mc.f32[8, 8], d: mc.f32[4, 4], e: mc.f32[8, 4]
):
    tile = mc.load(x, (0, 0), (8, 4))
    mc.store(a, (0, 0), tile.T)
    mc.store(b, (0, 0), tile.reshape(2, 4, 4).permute(0, 2, 1).reshape(2, 16))
    mc.store(c, (0, 0), mc.cat((tile, 2 * tile), 1))
    top, bottom = mc.split(tile, 2, 0)
    mc.store(d, (0, 0), bottom - top)
    rows = mc.iota(8)[:, None]
    mc.store(e, (0, 0), mc.where(rows < 3, tile, mc.sum(tile, 0)[None, :]))


def test_shapes():
    x = np.random.default_rng(6).standard_normal((8, 4)).astype(np.float32)
    outputs = [np.zeros(s, np.float32) for s in ((4, 8), (2, 16), (8, 8), (4, 4), (8, 4))]
    launch(shaped, x, *outputs)
    wanted = [
        x.T,
        x.reshape(2, 4, 4).transpose(0, 2, 1).reshape(2, 16),
        np.concatenate((x, 2 * x), 1),
        x[4:] - x[:4],
    ]
    for actual, reference in zip(outputs, wanted):
        assert_same(actual, reference)
    np.testing.assert_allclose(outputs[4][3:], np.tile(x.sum(0), (5, 1)), rtol=1e-5)
    assert_same(outputs[4][:3], x[:3])
