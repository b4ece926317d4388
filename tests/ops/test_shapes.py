"""Changing shapes moves elements as NumPy does, bit by bit, for every element type."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mosaic_compile as mc

from .harness import apply
from .registry import checks
from .values import ALL, broadcasting, examples, shapes, tiles


def identical(actual, wanted):
    assert (actual.dtype, actual.shape) == (wanted.dtype, wanted.shape), (actual.shape, wanted.shape)
    assert np.ascontiguousarray(actual).tobytes() == np.ascontiguousarray(wanted).tobytes()


@st.composite
def factorings(draw, count):
    """A shape of so many elements."""
    sizes = []
    while count > 1 and len(sizes) < 3:
        sizes.append(draw(st.sampled_from([d for d in range(1, count + 1) if count % d == 0])))
        count //= sizes[-1]
    return draw(st.permutations([*sizes, count]))


@checks("reshape", "Tile.reshape")
@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_reshape(dtype):
    @examples(15)
    @given(data=st.data())
    def check(data):
        x = data.draw(tiles(dtype, data.draw(shapes())))
        wanted = tuple(data.draw(factorings(x.size)))
        if not x.shape:
            wanted = (1,) * len(wanted)
        given_ = list(wanted)
        if data.draw(st.booleans()):
            given_[data.draw(st.integers(0, len(given_) - 1))] = -1
        identical(apply(lambda x: mc.reshape(x, tuple(given_)), x), x.reshape(wanted))
        identical(apply(lambda x: x.reshape(*given_), x), x.reshape(wanted))
        identical(apply(lambda x: x.reshape(given_), x), x.reshape(wanted))

    check()


@checks("expand_dims", "Tile.__getitem__")
@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_new_dimensions(dtype):
    @examples(15)
    @given(data=st.data())
    def check(data):
        x = data.draw(tiles(dtype, data.draw(shapes())))
        axis = data.draw(st.integers(-x.ndim - 1, x.ndim))
        identical(apply(mc.expand_dims, x, axis=axis), np.expand_dims(x, axis))
        kept = [slice(None)] * data.draw(st.integers(0, x.ndim))
        index = tuple(data.draw(st.permutations([*kept, *[None] * data.draw(st.integers(0, 2))])))
        identical(apply(lambda x: x[index], x), x[index])

    check()


@checks("permute", "transpose", "Tile.permute", "Tile.T")
@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_permute(dtype):
    """Every order of up to three dimensions, counted from either end."""

    @examples(15)
    @given(data=st.data())
    def check(data):
        ndim = data.draw(st.integers(1, 3))
        x = data.draw(tiles(dtype, data.draw(shapes(min_dims=ndim, max_dims=ndim))))
        for order in itertools.permutations(range(ndim)):
            wanted = x.transpose(order)
            identical(apply(mc.permute, x, order=order), wanted)
            identical(apply(mc.permute, x, order=[axis - ndim for axis in order]), wanted)
            identical(apply(lambda x: x.permute(*order), x), wanted)  # noqa: B023 - called here
            identical(apply(lambda x: x.permute(order), x), wanted)  # noqa: B023
        if ndim > 1:
            identical(apply(mc.transpose, x), np.swapaxes(x, -1, -2))
            identical(apply(lambda x: x.T, x), np.swapaxes(x, -1, -2))

    check()


@checks("broadcast_to", "Tile.broadcast_to")
@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_broadcast_to(dtype):
    @examples(15)
    @given(data=st.data())
    def check(data):
        first, second = data.draw(broadcasting(2))
        shape = np.broadcast_shapes(first, second)
        x = data.draw(tiles(dtype, first))
        if shape:
            identical(apply(mc.broadcast_to, x, shape=shape), np.broadcast_to(x, shape))
            identical(apply(lambda x: x.broadcast_to(*shape), x), np.broadcast_to(x, shape))

    check()


@checks("cat")
@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_cat(dtype):
    @examples(15)
    @given(data=st.data())
    def check(data):
        shape = data.draw(shapes(min_dims=1))
        parts = [data.draw(tiles(dtype, shape)) for _ in range(data.draw(st.sampled_from([1, 2, 4, 8])))]
        axis = data.draw(st.integers(-len(shape), len(shape) - 1))
        identical(apply(lambda *parts: mc.cat(parts, axis), *parts), np.concatenate(parts, axis))
        if axis == 0:
            identical(apply(lambda *parts: mc.cat(list(parts)), *parts), np.concatenate(parts))

    check()


@checks("split")
@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_split(dtype):
    @examples(15)
    @given(data=st.data())
    def check(data):
        shape = data.draw(shapes(min_dims=1))
        axis = data.draw(st.integers(-len(shape), len(shape) - 1))
        parts = data.draw(st.sampled_from([1, 2, 4, 8]))
        shape = tuple(size * parts if at == axis % len(shape) else size for at, size in enumerate(shape))
        if math.prod(shape) > 1024:
            return
        x = data.draw(tiles(dtype, shape))
        actual = apply(lambda x: mc.split(x, parts, axis), x)
        wanted = np.split(x, parts, axis)
        assert len(actual) == parts
        for one, other in zip(actual, wanted):
            identical(one, other)

    check()
    x = np.arange(8).astype(dtype.numpy)
    for one, other in zip(apply(mc.split, x), np.split(x, 2)):
        identical(one, other)
