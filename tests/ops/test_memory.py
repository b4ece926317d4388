"""Loads, stores, atomics, gathers and scatters: blocks inside, across and outside arrays, against NumPy's padding and indexing."""

import functools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mosaic_compile as mc
from mosaic_compile.frontend import trace
from mosaic_compile.interpreter import run
from mosaic_compile.language.dtypes import DTYPES, DType

from .registry import checks
from .rounding import FORMATS, rounded, same
from .test_arithmetic import integers, wrapped
from .values import ALL, examples, tiles

NAMES = ("A", "B", "C")
MARGIN = 40  # of padding: further than any block of these tests reaches
ADDABLE = tuple(DTYPES[name] for name in ("f64", "f32", "f16", "bf16", "i64", "i32", "u32"))
FAR = (-(2**31), -(2**31) + 1, -1000, 1000, 2**31 - 16)


@functools.cache
def traced(kernel: Any) -> Any:
    return trace(kernel, kernel.specialize())


def launch(kernel: Any, *arguments: Any, grid: tuple[int, ...] = (1,)) -> None:
    run(traced(kernel), arguments, grid)


def arrays(data: Any, dtype: DType, rank: int, ordinary: bool = False) -> np.ndarray:
    """An array of any sizes, also none, and any strides."""
    shape = tuple(data.draw(st.integers(0, 9)) for _ in range(rank))
    x = data.draw(tiles(dtype, shape, ordinary))
    axis = data.draw(st.integers(0, rank - 1))
    layout = data.draw(st.sampled_from(["rows", "columns", "backward", "spread"]))
    if layout == "columns":
        return np.asfortranarray(x)
    if layout == "backward":
        return np.flip(np.flip(x, axis).copy(), axis)
    if layout == "spread":
        return np.repeat(x, 2, -1)[..., ::2]
    return x


def offsets(data: Any, rank: int) -> tuple[int, ...]:
    near = st.integers(-12, 12)
    return tuple(data.draw(st.one_of(near, near, near, st.sampled_from(FAR))) for _ in range(rank))


# Few, so that a kernel is traced once for many examples.
BLOCKS = {1: [(1,), (4,), (8,)], 2: [(1, 4), (4, 1), (5, 8)], 3: [(2, 4, 3), (1, 1, 8)]}


def blocks(data: Any, rank: int) -> tuple[int, ...]:
    return data.draw(st.sampled_from(BLOCKS[rank]))


def within_reach(start: int, size: int) -> int:
    """A start that is far outside, as one just outside the array."""
    return min(max(start, -MARGIN // 2), size + 1)


def window(x: np.ndarray, starts: tuple[int, ...], block: tuple[int, ...]) -> tuple[slice, ...]:
    """Where a block lies in x with a margin around it."""
    starts = tuple(within_reach(s, n) for s, n in zip(starts, x.shape))
    return tuple(slice(MARGIN + s, MARGIN + s + b) for s, b in zip(starts, block))


def padded(x: np.ndarray, value: Any = 0) -> np.ndarray:
    return np.pad(x, MARGIN, constant_values=np.asarray(value).astype(x.dtype))


def cropped(x: np.ndarray) -> np.ndarray:
    return x[(slice(MARGIN, -MARGIN),) * x.ndim]


# Blocks.


@functools.cache
def block_kernels(dtype: DType, block: tuple[int, ...], pad: Any) -> dict[str, Any]:
    """Kernels that move one block, at an element (`offset`) or a tile (`index`)."""
    rank = len(block)
    names, origin = NAMES[:rank], (0,) * rank

    @mc.kernel
    def load_at(x: dtype[names], out: dtype[block], i: mc.i32, j: mc.i32, k: mc.i32):
        mc.store(out, origin, mc.load(x, offset=(i, j, k)[:rank], shape=block, pad=pad))

    @mc.kernel
    def load_tile(x: dtype[names], out: dtype[block], i: mc.i32, j: mc.i32, k: mc.i32):
        mc.store(out, mc.load(x, (i, j, k)[:rank], block, pad=pad), offset=origin)

    @mc.kernel
    def store_at(x: dtype[names], tile: dtype[block], i: mc.i32, j: mc.i32, k: mc.i32):
        mc.store(x, mc.load(tile, origin, block), offset=(i, j, k)[:rank])

    @mc.kernel
    def store_tile(x: dtype[names], tile: dtype[block], i: mc.i32, j: mc.i32, k: mc.i32):
        mc.store(x, (i, j, k)[:rank], mc.load(tile, origin, block))

    @mc.kernel
    def add_at(x: dtype[names], tile: dtype[block], i: mc.i32, j: mc.i32, k: mc.i32):
        mc.atomic_add(x, mc.load(tile, origin, block), offset=(i, j, k)[:rank])

    @mc.kernel
    def add_tile(x: dtype[names], tile: dtype[block], i: mc.i32, j: mc.i32, k: mc.i32):
        mc.atomic_add(x, (i, j, k)[:rank], mc.load(tile, origin, block))

    kernels = (load_at, load_tile, store_at, store_tile, add_at, add_tile)
    return {kernel.name: kernel for kernel in kernels}


def pads(dtype: DType) -> list[Any]:
    if dtype is mc.bool_:
        return [0, True]
    return [0, 3, float("-inf")] if dtype.is_float and FORMATS[dtype].has_infinity else [0, 3]


def places(data: Any, x: np.ndarray, block: tuple[int, ...]) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
    """How a block is named, by which numbers, and the element it starts at."""
    if data.draw(st.booleans()):
        starts = offsets(data, x.ndim)
        return "at", starts, starts
    index = tuple(data.draw(st.integers(-3, 5)) for _ in block)
    return "tile", index, tuple(i * b for i, b in zip(index, block))


def three(numbers: tuple[int, ...]) -> tuple[int, ...]:
    return (*numbers, 0, 0)[:3]


@checks("load")
@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_load(dtype):
    @examples(25)
    @given(data=st.data())
    def check(data):
        x = arrays(data, dtype, data.draw(st.integers(1, 3)))
        block, pad = blocks(data, x.ndim), data.draw(st.sampled_from(pads(dtype)))
        kind, numbers, starts = places(data, x, block)
        out = np.ones(block).astype(dtype.numpy)
        launch(block_kernels(dtype, block, pad)[f"load_{kind}"], x, out, *three(numbers))
        same(out, padded(x, pad)[window(x, starts, block)])

    check()


@checks("store")
@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_store(dtype):
    @examples(25)
    @given(data=st.data())
    def check(data):
        x = arrays(data, dtype, data.draw(st.integers(1, 3)))
        block = blocks(data, x.ndim)
        tile = data.draw(tiles(dtype, block))
        kind, numbers, starts = places(data, x, block)
        wanted = padded(x)
        wanted[window(x, starts, block)] = tile
        launch(block_kernels(dtype, block, 0)[f"store_{kind}"], x, tile, *three(numbers))
        same(x, cropped(wanted))

    check()


def added(x: np.ndarray, y: np.ndarray, dtype: DType) -> np.ndarray:
    """One addition, rounded once or wrapped."""
    if not dtype.is_float:
        return wrapped(integers(x) + integers(y), dtype)
    # Exact before the rounding: these are 16-bit fractions.
    return rounded(x.astype(np.float64) + y.astype(np.float64), dtype)


@checks("atomic_add")
@pytest.mark.parametrize("dtype", ADDABLE, ids=str)
def test_atomic_add(dtype):
    @examples(25)
    @given(data=st.data())
    def check(data):
        x = arrays(data, dtype, data.draw(st.integers(1, 3)), ordinary=dtype.is_float)
        block = blocks(data, x.ndim)
        tile = data.draw(tiles(dtype, block, ordinary=dtype.is_float))
        kind, numbers, starts = places(data, x, block)
        wanted = padded(x)
        at = window(x, starts, block)
        wanted[at] = added(wanted[at], tile, dtype)
        launch(block_kernels(dtype, block, 0)[f"add_{kind}"], x, tile, *three(numbers))
        same(x, cropped(wanted))

    check()


@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_atomic_add_of_other_types(dtype):
    if dtype in ADDABLE:
        assert f"{dtype}" in mc.atomic_add.__doc__
        return

    @mc.kernel
    def add(x: dtype["N"]):
        mc.atomic_add(x, 0, mc.ones(4, dtype))

    with pytest.raises(mc.MosaicError, match="cannot add to elements"):
        traced(add)


@pytest.mark.parametrize("dtype", ADDABLE, ids=str)
def test_atomic_add_from_many_programs(dtype):
    """Small whole numbers, whose sums are exact in every order."""

    @mc.kernel(grid=lambda N: (mc.cdiv(N, 8),))
    def add(x: dtype["N"], sums: dtype["M"]):
        tile = mc.load(x, mc.program_id(0), 8)
        mc.atomic_add(sums, 0, tile)
        mc.atomic_add(sums, mc.sum(tile).to(dtype), offset=8)

    x = (np.arange(30) % 5).astype(dtype.numpy)
    sums = np.zeros(9, dtype.numpy)
    launch(add, x, sums, grid=(4,))
    columns = np.pad(np.arange(30) % 5, (0, 2)).reshape(4, 8)
    same(sums, np.array([*columns.sum(0), columns.sum()]).astype(dtype.numpy))


# Views: a transposed, permuted or partly fixed array reads and writes as NumPy's does.

VIEWS = {
    "x.T": (2, lambda x, i, j: x.T, lambda x, i, j: x.T),
    "x.permute(2, 0, 1)": (3, lambda x, i, j: x.permute(2, 0, 1), lambda x, i, j: x.transpose(2, 0, 1)),
    "x[i]": (3, lambda x, i, j: x[i], lambda x, i, j: x[i]),
    "x[i, j]": (3, lambda x, i, j: x[i, j], lambda x, i, j: x[i, j]),
    "x[i][j]": (3, lambda x, i, j: x[i][j], lambda x, i, j: x[i][j]),
    "x[i].T": (3, lambda x, i, j: x[i].T, lambda x, i, j: x[i].T),
    "x.T[i]": (3, lambda x, i, j: x.T[i], lambda x, i, j: np.swapaxes(x, 1, 2)[i]),
    "x.permute(1, 2, 0)[j].T": (
        3,
        lambda x, i, j: x.permute(1, 2, 0)[j].T,
        lambda x, i, j: x.transpose(1, 2, 0)[j].T,
    ),
}


@functools.cache
def view_kernels(name: str, dtype: DType, block: tuple[int, ...]) -> tuple[Any, Any, Any]:
    rank, view, _ = VIEWS[name]
    names, origin, count = NAMES[:rank], (0,) * len(block), len(block)

    @mc.kernel
    def read(x: dtype[names], tile: dtype[block], i: mc.i32, j: mc.i32, a: mc.i32, b: mc.i32, c: mc.i32):
        mc.store(tile, origin, mc.load(view(x, i, j), offset=(a, b, c)[:count], shape=block, pad=1))

    @mc.kernel
    def write(x: dtype[names], tile: dtype[block], i: mc.i32, j: mc.i32, a: mc.i32, b: mc.i32, c: mc.i32):
        mc.store(view(x, i, j), mc.load(tile, origin, block), offset=(a, b, c)[:count])

    @mc.kernel
    def sizes(x: dtype[names], out: mc.i32[count], i: mc.i32, j: mc.i32):
        for axis in mc.static_range(count):
            mc.store(out, axis, view(x, i, j).shape[axis])

    return read, write, sizes


@checks("Array.T", "Array.permute", "Array.__getitem__", "Array.shape")
@pytest.mark.parametrize("name", VIEWS)
def test_views(name):
    rank, _, meaning = VIEWS[name]
    dtype = mc.f32

    @examples(60)
    @given(data=st.data())
    def check(data):
        shape = tuple(data.draw(st.integers(1, 7)) for _ in range(rank))
        x = data.draw(tiles(dtype, shape))
        i, j = data.draw(st.integers(-2, 8)), data.draw(st.integers(-2, 8))
        ndim = meaning(np.zeros((9,) * rank), 0, 0).ndim
        block, starts = blocks(data, ndim), offsets(data, ndim)
        read, write, sizes = view_kernels(name, dtype, block)
        # Outside the fixed dimensions there is only padding: a margin holds it, indices count from inside.
        wide = meaning(padded(x, 1), i + MARGIN, j + MARGIN)
        inside = meaning(np.empty_like(x), 0, 0)
        at = window(inside, starts, block)
        tile = np.zeros(block, np.float32)
        launch(read, x, tile, i, j, *three(starts))
        same(tile, wide[at])
        tile = data.draw(tiles(dtype, block))
        whole = padded(x)
        meaning(whole, i + MARGIN, j + MARGIN)[at] = tile
        launch(write, x, tile, i, j, *three(starts))
        same(x, cropped(whole))
        out = np.zeros(ndim, np.int32)
        launch(sizes, x, out, i, j)
        assert tuple(out) == inside.shape

    check()


# Single elements.

INDICES = st.one_of(st.integers(-2, 9), st.integers(0, 4), st.sampled_from([-(2**31), 2**31 - 1]))


def element_arguments(data: Any, rank: int) -> tuple[list[np.ndarray], np.ndarray, tuple[int, ...]]:
    """Index tiles and a mask that broadcast together, and the shape they broadcast to."""
    shape = data.draw(st.sampled_from([(1, 4), (5, 2)]))
    whole = data.draw(st.integers(0, rank))  # the others broadcast
    shapes = [shape if at == whole else (shape[0], 1) for at in range(rank + 1)]
    indices = [
        np.array(data.draw(st.lists(INDICES, min_size=s[0] * s[1], max_size=s[0] * s[1])), np.int32).reshape(
            s
        )
        for s in shapes[:rank]
    ]
    mask = data.draw(tiles(mc.bool_, shapes[rank]))
    return indices, mask, np.broadcast_shapes(*shapes)


@functools.cache
def element_kernels(
    dtype: DType, rank: int, shapes: tuple[tuple[int, ...], ...], masked: bool, pad: Any
) -> Any:
    """Kernels that read, write or add elements: index tiles of these shapes, the mask's shape, the result's."""
    names = NAMES[:rank]
    first, second, third = (*shapes[:rank], *[(1, 1)] * 3)[:3]
    mask_shape, shape = shapes[-2:]

    def arguments(i, j, k, mask):
        index = (mc.load(i, (0, 0), first), mc.load(j, (0, 0), second), mc.load(k, (0, 0), third))[:rank]
        return index if rank > 1 else index[0], mc.load(mask, (0, 0), mask_shape) if masked else None

    @mc.kernel
    def gather(
        x: dtype[names],
        tile: dtype[shape],
        i: mc.i32[first],
        j: mc.i32[second],
        k: mc.i32[third],
        m: mc.bool_[mask_shape],
    ):
        index, mask = arguments(i, j, k, m)
        mc.store(tile, (0, 0), mc.broadcast_to(mc.gather(x, index, mask=mask, pad=pad), shape))

    @mc.kernel
    def scatter(
        x: dtype[names],
        tile: dtype[shape],
        i: mc.i32[first],
        j: mc.i32[second],
        k: mc.i32[third],
        m: mc.bool_[mask_shape],
    ):
        index, mask = arguments(i, j, k, m)
        mc.scatter(x, index, mc.load(tile, (0, 0), shape), mask=mask)

    @mc.kernel
    def scatter_add(
        x: dtype[names],
        tile: dtype[shape],
        i: mc.i32[first],
        j: mc.i32[second],
        k: mc.i32[third],
        m: mc.bool_[mask_shape],
    ):
        index, mask = arguments(i, j, k, m)
        mc.scatter_add(x, index, mc.load(tile, (0, 0), shape), mask=mask)

    return {"gather": gather, "scatter": scatter, "scatter_add": scatter_add}


def elements(data: Any, dtype: DType, name: str, pad: Any = 0, ordinary: bool = False) -> Any:
    """Runs a kernel on drawn arguments: the array before and after, the tile, which elements count, and where they lie."""
    x = arrays(data, dtype, data.draw(st.integers(1, 3)), ordinary)
    indices, mask, shape = element_arguments(data, x.ndim)
    masked = data.draw(st.booleans())
    tile = data.draw(tiles(dtype, shape, ordinary))
    before = x.copy()
    shapes = (*(i.shape for i in indices), mask.shape, shape)
    kernel = element_kernels(dtype, x.ndim, shapes, masked, pad)[name]
    spare = [np.zeros((1, 1), np.int32)] * (3 - x.ndim)
    launch(kernel, x, tile, *indices, *spare, mask)
    wide = [np.broadcast_to(i, shape).astype(np.int64) for i in indices]
    chosen = np.broadcast_to(mask, shape) if masked else np.ones(shape, bool)
    inside = chosen & np.all([(i >= 0) & (i < n) for i, n in zip(wide, x.shape)], axis=0)
    return before, x, tile, inside, tuple(i[inside] for i in wide)


@checks("gather")
@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_gather(dtype):
    @examples(15)
    @given(data=st.data())
    def check(data):
        pad = data.draw(st.sampled_from(pads(dtype)))
        before, after, tile, inside, at = elements(data, dtype, "gather", pad)
        wanted = np.full(tile.shape, np.asarray(pad).astype(dtype.numpy))
        wanted[inside] = before[at]
        same(tile, wanted)
        same(after, before)

    check()


@checks("scatter")
@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_scatter(dtype):
    """Of several elements with one index, any may win; nothing else is touched."""

    @examples(15)
    @given(data=st.data())
    def check(data):
        before, after, tile, inside, at = elements(data, dtype, "scatter")
        candidates: dict[tuple[int, ...], list[bytes]] = {}
        for value, *place in zip(tile[inside], *at):
            candidates.setdefault(tuple(map(int, place)), []).append(value.tobytes())
        for place in np.ndindex(before.shape):
            assert after[place].tobytes() in candidates.get(place, [before[place].tobytes()])

    check()


@checks("scatter_add")
@pytest.mark.parametrize("dtype", ADDABLE, ids=str)
def test_scatter_add(dtype):
    @examples(15)
    @given(data=st.data())
    def check(data):
        before, after, tile, inside, at = elements(data, dtype, "scatter_add", ordinary=dtype.is_float)
        if not dtype.is_float:
            wanted = integers(before)
            np.add.at(wanted, at, integers(tile)[inside])
            return same(after, wrapped(wanted, dtype))
        # As many roundings as additions, each of a partial sum no larger than the sum of the sizes.
        exact, sizes, count = (
            before.astype(np.float64),
            np.abs(before.astype(np.float64)),
            np.zeros(before.shape),
        )
        np.add.at(exact, at, tile[inside].astype(np.float64))
        np.add.at(sizes, at, np.abs(tile[inside].astype(np.float64)))
        np.add.at(count, at, 1)
        assert (np.abs(after.astype(np.float64) - exact) <= 1.1 * count * FORMATS[dtype].unit * sizes).all()

    check()


def test_elements_of_views():
    """A gather from, and a scatter to, a row and a transposed array; indices that are numbers."""

    @mc.kernel
    def kernel(x: mc.f32["A", "B"], row: mc.f32[4], column: mc.f32[4], one: mc.f32[1], out: mc.f32["A", "B"]):
        index = mc.iota(4) * 2
        mc.store(row, 0, mc.gather(x[1], index, pad=-1))
        mc.store(column, 0, mc.gather(x.T, (2, index), pad=-1))
        mc.store(one, 0, mc.gather(x, (1, 2)))
        mc.scatter(out.T, (index, 1), mc.gather(x[1], index))

    x = np.random.default_rng(0).standard_normal((5, 6)).astype(np.float32)
    row, column, one, out = (np.zeros(n, np.float32) for n in (4, 4, 1, (5, 6)))
    launch(kernel, x, row, column, one, out)
    same(row, np.array([x[1, 0], x[1, 2], x[1, 4], -1], np.float32))
    same(column, np.array([x[0, 2], x[2, 2], x[4, 2], -1], np.float32))
    same(one, x[1, 2:3])
    wanted = np.zeros((5, 6), np.float32)
    wanted[1, ::2] = x[1, ::2]
    same(out, wanted)
