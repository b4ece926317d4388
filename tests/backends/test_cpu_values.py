"""What kernels compute on this machine's CPU, and that they write nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from lowering.case import Case, assert_wanted
from lowering.test_values import CASES

import mosaic_compile as mc
from mosaic_compile import driver, targets
from mosaic_compile.runtime import threads
from mosaic_compile.runtime.arguments import bind, specialize_call
from mosaic_compile.runtime.cpu import Program
from mosaic_compile.runtime.packing import packed

from .guarded import Guarded

PRINTS = "printing"  # the case that prints, which check-cpu-limits refuses


_compiled: dict[tuple[Any, str], Program] = {}


def compiled(kernel: Any, spec: Any) -> Program:
    """The kernel for this machine; compiled once for a specialization."""
    key = (kernel, str(spec))
    if key not in _compiled:
        artifact = driver.compile_kernel(kernel, spec, driver.Compilation(targets.host_cpu())).artifact
        assert artifact is not None
        _compiled[key] = Program(artifact)
    return _compiled[key]


def run(kernel: Any, arguments: dict[str, Any], spec: Any = None) -> dict[str, Any]:
    """The arguments after a call; raises AssertionError where something beside their elements was written."""
    guarded = Guarded(arguments)
    with packed(bind(kernel, (), guarded.arrays)) as bound:
        compiled(kernel, spec or specialize_call(kernel, bound))(bound)
    guarded.check()
    return guarded.arrays


@pytest.mark.parametrize("case", [c for c in CASES if c.name != PRINTS], ids=str)
def test_cases(case: Case):
    assert_wanted(case, run(case.kernel, case.arguments(), case.specialization))


def test_writes_outside_of_an_array_are_seen():
    guarded = Guarded({"x": np.zeros((4, 6), np.float32)[:, 1:5]})
    guarded.check()
    x = guarded.arrays["x"]
    np.lib.stride_tricks.as_strided(x, (4, 5))[3, 4] = 1  # one behind the last
    with pytest.raises(AssertionError, match="4 bytes outside the elements of 'x'"):
        guarded.check()


# Sizes around a tile, and every way to lie in memory.


@mc.kernel(grid=lambda M, N: (mc.cdiv(M, 8), mc.cdiv(N, 16)))
def shifted(x: mc.f32["M", "N"], y: mc.f32["M", "N"], z: mc.f32["N", "M"]):
    """y = 2 x; z[n, m] = x[m - 1, n - 3], 0 outside."""
    m, n = mc.program_id(0), mc.program_id(1)
    mc.store(y, (m, n), mc.load(x, (m, n), (8, 16)) * 2.0)
    mc.store(z.T, (m, n), mc.load(x, offset=(8 * m - 1, 16 * n - 3), shape=(8, 16)))


def wanted_shifted(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    moved = np.pad(x, ((1, 0), (3, 0)))[: x.shape[0], : x.shape[1]]
    return x * 2, moved.T


LAYOUTS = {
    "rows": lambda m, n: np.zeros((m, n), np.float32),
    "columns": lambda m, n: np.zeros((n, m), np.float32).T,
    "every second column": lambda m, n: np.zeros((m, 2 * n), np.float32)[:, ::2],
    "every third row": lambda m, n: np.zeros((3 * m, n), np.float32)[::3],
    "backward": lambda m, n: np.zeros((m, n), np.float32)[::-1, ::-1],
    "off by one element": lambda m, n: np.zeros(m * n + 1, np.float32)[1:].reshape(m, n),
    "padded rows": lambda m, n: np.zeros((m, n + 5), np.float32)[:, 2 : n + 2],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("out_layout", LAYOUTS)
def test_layouts_and_sizes(layout, out_layout):
    for m, n in [(0, 5), (5, 0), (1, 1), (7, 15), (8, 16), (9, 17), (24, 48), (17, 3), (1, 33)]:
        x, y, z = LAYOUTS[layout](m, n), LAYOUTS[out_layout](m, n), LAYOUTS[out_layout](n, m)
        x[...] = np.random.default_rng(m + n).standard_normal((m, n))
        got = run(shifted, {"x": x, "y": y, "z": z})
        for actual, expected in zip((got["y"], got["z"]), wanted_shifted(x)):
            np.testing.assert_array_equal(actual, expected)


# Tiles that loops and branches carry. The interpreter, which has no memory for tiles, says what is right.


def check(kernel: Any, **arguments: Any) -> None:
    """Arithmetic here is on small whole numbers, and exact."""
    wanted = {n: v.copy() if isinstance(v, np.ndarray) else v for n, v in arguments.items()}
    kernel.interpret(**wanted)
    for name, array in run(kernel, arguments).items():
        np.testing.assert_array_equal(array, wanted[name], name)


def small(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-3, 4, shape).astype(np.float32)


@mc.kernel
def swaps(x: mc.f32["N"], y: mc.f32["M"], n: mc.i32):
    a, b = mc.load(x, 0, 16), mc.load(x, 1, 16)
    for i in range(n):
        a, b = b, a
        if i == 1:
            a = a + 1.0
    mc.store(y, 0, a)
    mc.store(y, 1, b)


@mc.kernel
def rotations(x: mc.f32["N"], y: mc.f32["M"], n: mc.i32):
    a, b = mc.load(x, 0, 16), mc.load(x, 1, 16)
    c = a * b
    for _ in range(n):
        for _ in range(n):
            a, b, c = b, c, a
        if n > 2:
            a, c = c, a
            b = a - b
    mc.store(y, 0, a)
    mc.store(y, 1, b)
    mc.store(y, 2, c)


@mc.kernel
def delays(x: mc.f32["N"], y: mc.f32["M"], n: mc.i32):
    a, b, old = mc.load(x, 0, 16), mc.load(x, 1, 16), mc.zeros((16,), mc.f32)
    for i in range(n):
        a, b, old = mc.load(x, i, 16), a, b
    mc.store(y, 0, a)
    mc.store(y, 1, b)
    mc.store(y, 2, old)


@mc.kernel
def whiles(x: mc.f32["N"], y: mc.f32["M"], n: mc.i32):
    a, b, k = mc.load(x, 0, 16), mc.load(x, 1, 16), mc.i32(0)
    while (mc.max(b) < 40.0) & (k < n):
        j = mc.i32(0)
        while j < k:
            a, b = b, a + b
            j = j + 1
        for i in range(k):
            if i % 2 == 0:
                a, b = b, a
            else:
                b = b + 1.0
        k = k + 1
    mc.store(y, 0, a)
    mc.store(y, 1, b)


@mc.kernel
def halves(x: mc.f32["N"], y: mc.f32["M"], n: mc.i32):
    a, b = mc.load(x, 0, 16), mc.load(x, 1, 16)
    for _ in range(n):
        (low, high), (other_low, other_high) = mc.split(a), mc.split(b)
        a, b = mc.cat((other_high, low)), mc.cat((high, other_low))
    for _ in range(n):
        a, b = mc.reshape(mc.reshape(b, (4, 4)).T, (16,)), a
    mc.store(y, 0, a)
    mc.store(y, 1, b)


@mc.kernel
def masks(x: mc.f32["N"], y: mc.f32["M"], n: mc.i32):
    """Truth values in memory."""
    tile = mc.load(x, 0, 24)
    mask, other = tile > 0.0, tile < 1.0
    for k in range(n):
        mask, other = other, mask ^ (tile > mc.f32(k))
        if mc.any(mask & other):
            mask = ~mask
    mc.store(y, 0, mc.where(mask, tile, -tile))
    mc.store(y, 1, mc.where(mc.reshape(mc.reshape(other, (4, 6)).T, (24,)), 1.0, 0.0))


@mc.kernel
def early(x: mc.f32["N"], y: mc.f32["M"], n: mc.i32):
    tile = mc.load(x, 0, 16)
    if n == 0:
        return
    mc.store(y, 0, tile + 1.0)
    if n == 1:
        mc.store(y, 1, tile * 2.0)
        return
    mc.store(y, 2, tile * 3.0)


@pytest.mark.parametrize(
    "kernel", [swaps, rotations, delays, whiles, halves, masks, early], ids=lambda k: k.name
)
def test_carried_tiles(kernel):
    for n in range(6):
        check(kernel, x=small(100), y=small(60, seed=1), n=n)


# Arrays that are read and written.


@mc.kernel
def overlapping(x: mc.InOut[mc.f32["N"]], n: mc.i32):
    for i in range(n):
        mc.store(x, mc.load(x, offset=8 * i, shape=16) + 1.0, offset=8 * i + 4)
    tile = mc.load(x, 0, 16)
    mc.store(x, tile * 2.0, offset=4)
    mc.store(x, tile, offset=9)


@mc.kernel
def scattered(x: mc.InOut[mc.i32["N"]], i: mc.i32["N"], j: mc.i32["N"]):
    here, there = mc.load(i, 0, 16), mc.load(j, 0, 16)
    first = mc.gather(x, here)
    mc.scatter(x, there, first)
    second = mc.gather(x, here)
    mc.scatter(x, here, second + first, mask=first > 0)
    mc.scatter_add(x, here, first)


def test_stores_over_what_was_loaded():
    for n in range(4):
        check(overlapping, x=small(60), n=n)


def test_scatters_over_what_was_gathered():
    i, j = (np.random.default_rng(seed).permutation(20).astype(np.int32) for seed in (1, 2))
    check(scattered, x=np.arange(-10, 10, dtype=np.int32), i=i, j=j)


# Tiles of any shape.


@mc.kernel
def boxes(
    x: mc.i32["A", "B", "C", "D"], y: mc.i32["A", "B", "C", "D"], s: mc.i32["A", "C"], *, SHAPE: mc.Const
):
    tile = mc.load(x, (0, 0, 0, 0), SHAPE)
    mc.store(y, (0, 0, 0, 0), mc.cumsum(tile, 2) * tile)
    mc.store(s, (0, 0), mc.sum(mc.max(mc.permute(tile, (0, 2, 3, 1)), 2), 2))


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 1, 5, 1), (2, 3, 4, 5), (1, 17, 1, 3), (5, 2, 1, 16)])
def test_four_dimensions(shape):
    a, b, c, d = (n + 1 for n in shape)
    x = np.random.default_rng(0).integers(-(2**31), 2**31, (a, b, c, d)).astype(np.int32)  # they wrap around
    check(boxes, x=x, y=np.zeros_like(x), s=np.zeros((a, c), np.int32), SHAPE=shape)


T = mc.DTypeVar("T", mc.f32, mc.f64, mc.f16, mc.bf16, mc.i64, mc.i32, mc.i16, mc.i8, mc.u8, mc.u32)


@mc.kernel
def reductions(
    x: T["M", "N"],
    ends: T[2, "K"],
    where: mc.i32[2, "K"],
    both: T[2],
    *,
    BM: mc.Const,
    BN: mc.Const,
    AXIS: mc.Const,
):
    tile = mc.load(x, (0, 0), (BM, BN))
    mc.store(ends[0], 0, mc.max(tile, AXIS))
    mc.store(ends[1], 0, mc.min(tile, AXIS))
    mc.store(where[0], 0, mc.argmax(tile, AXIS))
    mc.store(where[1], 0, mc.argmin(tile, AXIS))
    mc.store(both, 0, mc.reshape(mc.max(tile), (1,)))
    mc.store(both, 1, mc.reshape(mc.min(tile), (1,)))


@pytest.mark.parametrize("dtype", [d.name for d in T.choices])
@pytest.mark.parametrize("shape,axis", [((3, 5), 0), ((17, 1), 1), ((1, 17), 0), ((5, 70), 1), ((33, 16), 0)])
def test_largest_and_smallest(dtype, shape, axis):
    """NaN is the largest and the smallest; of equals the first counts."""
    type_ = getattr(mc, dtype).numpy
    for with_nan in (False, True) if type_.kind not in "iu" else (False,):
        values = np.random.default_rng(0).integers(0, 9, shape)
        x = values.astype(np.float32).astype(type_)
        if with_nan:
            x[::2, ::3] = np.nan
        if type_.kind in "iu":
            x.flat[::5], x.flat[1::7] = np.iinfo(type_).max, np.iinfo(type_).min
        kept = shape[1 - axis]
        ends, where = np.zeros((2, kept), type_), np.zeros((2, kept), np.int32)
        got = run(
            reductions,
            {
                "x": x,
                "ends": ends,
                "where": where,
                "both": np.zeros(2, type_),
                "BM": shape[0],
                "BN": shape[1],
                "AXIS": axis,
            },
        )
        wide = x.astype(np.float64) if type_.kind not in "iu" else x
        np.testing.assert_array_equal(got["ends"].astype(wide.dtype), [wide.max(axis), wide.min(axis)])
        np.testing.assert_array_equal(got["where"], [wide.argmax(axis), wide.argmin(axis)])
        np.testing.assert_array_equal(got["both"].astype(wide.dtype), [wide.max(), wide.min()])


# Programs at once.


@mc.kernel(grid=lambda num_sms: (num_sms,))
def persistent(y: mc.i32["N"]):
    for i in range(mc.program_id(0), y.shape[0], mc.num_programs(0)):
        mc.store(y, i, mc.full((1,), 1, mc.i32) * i)


def test_a_grid_of_as_many_programs_as_threads():
    """A size that only the grid needs."""
    np.testing.assert_array_equal(run(persistent, {"y": np.zeros(100, np.int32)})["y"], np.arange(100))


@mc.kernel(grid=(2048,))
def one_place(x: mc.f32[64], y: mc.f32[1024]):
    i = mc.program_id(0)
    tile = mc.load(x, 0, 64)
    for _ in range(16):
        tile = tile * 2.0 - mc.load(x, 0, 64)
    for part in range(8):
        mc.store(y, 2 * part + i % 2, tile)


def test_programs_that_write_the_same():
    """Half-made results of one program are seen by no other."""
    before = threads.get_num_threads()
    threads.set_num_threads(4)
    try:
        x = small(64)
        np.testing.assert_array_equal(
            run(one_place, {"x": x, "y": np.zeros(1024, np.float32)})["y"], np.tile(x, 16)
        )
    finally:
        threads.set_num_threads(before)


@mc.kernel(grid=lambda M: (M,))
def extrema(x: mc.f32["M", "N"], high: mc.Out[mc.f32["M"]], low: mc.Out[mc.f32["M"]], *, BN: mc.Const = 256):
    m = mc.program_id(0)
    row = mc.load(x, (m, 0), (1, BN))
    mc.store(high, m, row.max(1))
    mc.store(low, m, row.min(1))


def test_extrema_keep_nan_and_order_zeros():
    """At every place of a row, as IEEE 754-2019 has it for maximum and minimum: by whole vectors and across their lanes."""
    n = 256
    x = np.full((4 * n, n), -1.0, np.float32)
    place = np.arange(n)
    x[place, place] = np.nan
    x[n + place, place] = np.copysign(np.float32(np.nan), np.float32(-1))
    x[2 * n : 3 * n] = -0.0
    x[2 * n + place, place] = 0.0
    x[3 * n :] = 0.0
    x[3 * n + place, place] = -0.0
    found = run(extrema, {"x": x, "high": np.empty(4 * n, np.float32), "low": np.empty(4 * n, np.float32)})
    for name in ("high", "low"):
        assert np.isnan(found[name][: 2 * n]).all()
        assert (found[name][2 * n :] == 0).all()
    assert not np.signbit(found["high"][2 * n :]).any()
    assert np.signbit(found["low"][2 * n :]).all()


@mc.kernel(grid=lambda N: (mc.cdiv(N, 64),))
def exponentials(x: mc.f32["N"], e: mc.Out[mc.f32["N"]], two: mc.Out[mc.f32["N"]]):
    n = mc.program_id(0)
    block = mc.load(x, n, 64)
    mc.store(e, n, mc.exp(block))
    mc.store(two, n, mc.exp2(block))


@pytest.mark.filterwarnings("ignore:(invalid value|overflow) encountered")
def test_exponentials_by_instructions_of_this_machine():
    """Every 40009th number of f32 and the edges: within 0.89 units in the last place (see expand_math.py), also of subnormal
    results; infinity and zero exactly where they are nearest."""
    edges = [
        0,
        -0.0,
        np.inf,
        -np.inf,
        np.nan,
        88.72283,
        88.72284,
        -103.97,
        -104,
        128,
        127.99999,
        -149,
        -149.5,
        -150,
        -151,
    ]
    sampled = np.arange(0, 1 << 32, 40009, dtype=np.uint64).astype(np.uint32).view(np.float32)
    x = np.concatenate([np.array(edges, np.float32), sampled])
    found = run(exponentials, {"x": x, "e": np.empty_like(x), "two": np.empty_like(x)})
    for name, function in (("e", np.exp), ("two", np.exp2)):
        wanted = function(x.astype(np.float64))
        nearest = wanted.astype(np.float32)
        np.testing.assert_array_equal(np.isnan(found[name]), np.isnan(nearest))
        np.testing.assert_array_equal(np.isinf(found[name]), np.isinf(nearest))
        finite = np.isfinite(nearest)
        unit = np.ldexp(1.0, np.maximum(np.frexp(wanted[finite])[1] - 24, -149))
        assert (np.abs(found[name][finite] - wanted[finite]) / unit).max() <= 0.89
