"""Loads, stores, atomics, gathers and scatters: every element type, clipping, views, strides, padding."""

from typing import Any

import numpy as np

import mosaic_compile as mc
from mosaic_compile.language.dtypes import DTYPES, DType
from mosaic_compile.language.ops.memory import load_reference
from mosaic_compile.language.specialization import Layout

from .case import Case

T = mc.DTypeVar("T", *DTYPES.values())
A = mc.DTypeVar("A", mc.f32, mc.f64, mc.f16, mc.bf16, mc.i32, mc.i64, mc.u32)
ONE = {"multiples": {"M": 1, "N": 1}}
EVEN = {"multiples": {"N": 2}}  # what two elements a byte need


def sample(dtype: DType, shape: Any, seed: int = 0) -> np.ndarray:
    """Random values that every element type can hold."""
    low, high = {"bool": (0, 2), "uint": (0, 250 if dtype.bits == 8 else 8)}.get(dtype.kind, (-8, 8))
    return np.random.default_rng(seed).integers(low, high, shape).astype(dtype.numpy)


def aligned(dtype: DType, shape: tuple[int, ...]) -> np.ndarray:
    """Zeros, in rows of whole 16-byte words with a gap between them."""
    unit = int(16 / dtype.bytes)
    return np.zeros((*shape[:-1], -(-shape[-1] // unit + 1) * unit), dtype.numpy)[..., : shape[-1]]


# Copies: what the masks let through.


@mc.kernel(grid=lambda M, N, BM, BN: (mc.cdiv(M, BM), mc.cdiv(N, BN)))
def copy(x: T["M", "N"], y: T["M", "N"], *, BM: mc.Const = 16, BN: mc.Const = 32):
    index = (mc.program_id(0), mc.program_id(1))
    mc.store(y, index, mc.load(x, index, (BM, BN)))


@mc.kernel(grid=lambda M, N: (M, N))
def copy_by_element(x: T["M", "N"], y: T["M", "N"]):
    index = (mc.program_id(0), mc.program_id(1))
    mc.store(y, index, mc.load(x, index, (1, 1)))


@mc.kernel(grid=lambda M, N: (mc.cdiv(N, 8), M))
def copy_rows(x: T["M", "N"], y: T["M", "N"]):
    row = mc.program_id(1)
    mc.store(y[row], mc.program_id(0), mc.load(x[row], mc.program_id(0), 8))


@mc.kernel(grid=lambda M, N: (mc.cdiv(M, 16), mc.cdiv(N, 16)))
def copy_transposed(x: T["M", "N"], y: T["N", "M"]):
    m, n = mc.program_id(0), mc.program_id(1)
    mc.store(y, (n, m), mc.load(x.T, (n, m), (16, 16)))


def copying(
    name: str, kernel: Any, dtype: DType, shape: tuple[int, int], transposed: bool = False, **choices: Any
) -> Case:
    return Case(
        f"{name}-{dtype}",
        kernel,
        lambda: {"x": sample(dtype, shape), "y": np.zeros(shape[::-1] if transposed else shape, dtype.numpy)},
        lambda x, y: {"y": x.T if transposed else x},
        {"T": dtype, **choices},
    )


COPIES = [
    *(copying("copy", copy, t, (19, 96)) for t in DTYPES.values()),
    *(
        copying("copy-odd", copy, t, (19, 38 if t is mc.i4 else 41), **(EVEN if t is mc.i4 else ONE))
        for t in DTYPES.values()
    ),
    *(copying("copy-fixed", copy, t, (32, 64), dims={"M": 32, "N": 64}) for t in DTYPES.values()),
    *(copying("copy-fixed-odd", copy, t, (5, 6), dims={"M": 5, "N": 6}) for t in DTYPES.values()),
    *(
        copying("copy-by-element", copy_by_element, t, (3, 5), **ONE)
        for t in DTYPES.values()
        if t is not mc.i4
    ),
    *(copying("copy-rows", copy_rows, t, (3, 64)) for t in DTYPES.values()),
    *(
        copying("copy-rows-odd", copy_rows, t, (3, 10), **(EVEN if t is mc.i4 else ONE))
        for t in DTYPES.values()
    ),
    *(
        copying(
            "copy-transposed",
            copy_transposed,
            t,
            (22, 32),
            True,
            multiples={"M": 2, "N": 2} if t is mc.i4 else {"M": 1, "N": 1},
        )
        for t in DTYPES.values()
    ),
    copying("copy-empty", copy, mc.f32, (0, 4), **ONE),
    copying("copy-column", copy, mc.f32, (19, 1), **ONE),
]


# Layouts.


@mc.kernel(grid=lambda M, N: (mc.cdiv(M, 16), mc.cdiv(N, 16)))
def double(x: T["M", "N"], y: T["M", "N"]):
    index = (mc.program_id(0), mc.program_id(1))
    mc.store(y, index, mc.load(x, index, (16, 16)) + mc.load(x, index, (16, 16)))


def in_layout(
    name: str, x_strides: tuple[Any, Any], make: Any, multiples: tuple[int, int] = (1, 1), align: int = 16
) -> Case:
    """y = 2 x for an x that lies in memory as `make` says."""

    def arguments() -> dict[str, Any]:
        x = make()
        x[...] = sample(mc.f32, x.shape)
        return {"x": x, "y": np.zeros(x.shape, np.float32)}

    return Case(
        f"layout-{name}",
        double,
        arguments,
        lambda x, y: {"y": 2 * x},
        {"T": mc.f32, **ONE},
        {"x": Layout(x_strides, multiples, align)},
    )


LAYOUTS = [
    in_layout("column-major", (1, None), lambda: np.zeros((21, 20), np.float32).T, (1, 1)),
    in_layout("column-major-aligned", (1, None), lambda: np.zeros((20, 24), np.float32).T, (1, 4)),
    in_layout("gaps", (None, 1), lambda: np.zeros((20, 32), np.float32)[:, :21], (4, 1)),
    in_layout("both-strided", (None, None), lambda: np.zeros((20, 50), np.float32)[::2, ::2]),
    in_layout("reversed", (None, None), lambda: np.zeros((20, 21), np.float32)[::-1, ::-1], align=4),
    in_layout("unaligned", (None, 1), lambda: np.zeros((20, 21), np.float32), align=4),
    in_layout(
        "broadcast-rows",
        (0, 1),
        lambda: np.lib.stride_tricks.as_strided(np.zeros(21, np.float32), (20, 21), (0, 4)),
        (4, 1),
    ),
]


# Places: negative, across every edge, outside, near and far.


@mc.kernel(grid=(1,))
def load_at(x: T["M", "N"], i: mc.i32, j: mc.i32, y: T[4, 8], *, PAD: mc.Const = 0):
    mc.store(y, (0, 0), mc.load(x, offset=(i, j), shape=(4, 8), pad=PAD))


@mc.kernel(grid=(1,))
def store_at(x: T["M", "N"], i: mc.i32, j: mc.i32, y: T[4, 8]):
    mc.store(x, mc.load(y, (0, 0), (4, 8)), offset=(i, j))


@mc.kernel(grid=(1,))
def add_at(x: A["M", "N"], i: mc.i32, j: mc.i32, y: A[4, 8]):
    mc.atomic_add(x, mc.load(y, (0, 0), (4, 8)), offset=(i, j))


def stored(x: np.ndarray, i: int, j: int, y: np.ndarray, add: bool = False) -> np.ndarray:
    result = x.copy()
    for a, b in np.ndindex(y.shape):
        if 0 <= i + a < x.shape[0] and 0 <= j + b < x.shape[1]:
            result[i + a, j + b] = y[a, b] + (x[i + a, j + b] if add else 0)
    return result


def at(kernel: Any, i: int, j: int, dtype: DType, shape: tuple[int, int] = (6, 10), **choices: Any) -> Case:
    def wanted(x: Any, i: int, j: int, y: Any) -> dict[str, Any]:
        if kernel is load_at:
            return {"y": load_reference(x, None, (4, 8), offset=(i, j), pad=choices.get("PAD", 0))}
        return {"x": stored(x, i, j, y, kernel is add_at)}

    label = "-".join(map(str, choices.values()))
    return Case(
        f"{kernel.name}-{i},{j}-of-{shape[0]}x{shape[1]}-{dtype}{label}",
        kernel,
        lambda: {"x": sample(dtype, shape), "i": i, "j": j, "y": sample(dtype, (4, 8), 1)},
        wanted,
        {("A" if kernel is add_at else "T"): dtype, **ONE, **choices},
    )


ROW_PLACES, COLUMN_PLACES = (-100, -3, 0, 1, 5, 2**31 - 1), (-(2**31), -7, 0, 3, 10)
PLACES = [
    *(at(k, i, j, mc.f32) for k in (load_at, store_at, add_at) for i in ROW_PLACES for j in COLUMN_PLACES),
    at(load_at, 1, -6, mc.i4),
    at(load_at, 3, 3, mc.i4),
    *(
        at(load_at, 4, 6, t, PAD=p)
        for t, p in (
            (mc.f32, float("-inf")),
            (mc.f32, -1),
            (mc.bf16, 3),
            (mc.i8, 3),
            (mc.u8, 200),
            (mc.i64, -(2**40)),
        )
    ),
    *(
        at(load_at, 4, 6, t, PAD=p)
        for t, p in (
            (mc.bool_, True),
            (mc.i4, 3),
            (mc.i4, -2),
            (mc.f8e4m3, 3),
            (mc.f8e5m2, float("-inf")),
            (mc.f16, float("nan")),
        )
    ),
    *(at(k, 4, 6, mc.f32, shape) for k in (load_at, store_at, add_at) for shape in ((0, 5), (5, 0), (1, 1))),
    *(at(add_at, 4, 6, t) for t in A.choices),
]


# Views: a dimension fixed, dimensions in another order.


@mc.kernel(grid=(1,))
def point(x: T["M", "N"], i: mc.i32, y: T[8]):
    mc.store(y, 0, mc.load(x[i], 0, 8, pad=1))


@mc.kernel(grid=(1,))
def point_store(x: T["M", "N"], i: mc.i32, y: T[8]):
    mc.store(x[i], 0, mc.load(y, 0, 8))


@mc.kernel(grid=(1,))
def column(x: T["M", "N"], i: mc.i32, y: T[8]):
    mc.store(y, 0, mc.load(x.T[i], 0, 8, pad=1))


def fixed(kernel: Any, i: int, dtype: DType) -> Case:
    def wanted(x: Any, i: int, y: Any) -> dict[str, Any]:
        if kernel is point_store:
            x = x.copy()
            if 0 <= i < x.shape[0]:
                x[i] = y[: x.shape[1]]
            return {"x": x}
        line = np.full(8, 1, dtype.numpy)
        x = x.T if kernel is column else x
        if 0 <= i < x.shape[0]:
            line[: x.shape[1]] = x[i]
        return {"y": line}

    return Case(
        f"{kernel.name}-{i}-{dtype}",
        kernel,
        lambda: {"x": sample(dtype, (2, 6)), "i": i, "y": sample(dtype, 8, 1)},
        wanted,
        {"T": dtype, **ONE},
    )


@mc.kernel(grid=lambda B, H: (B, H))
def permuted(x: mc.f32["B", "S", "H", "D"], y: mc.f32["B", "H", "D", "S"]):
    b, h = mc.program_id(0), mc.program_id(1)
    head = x.permute(0, 2, 1, 3)[b, h]
    mc.store(y[b, h], (0, 0), mc.load(head.T, (0, 0), (4, 8)))


@mc.kernel(grid=lambda B, S: (B, mc.cdiv(S, 4)))
def four(x: T["B", "S", "H", "D"], y: T["B", "S", "H", "D"]):
    index = (mc.program_id(0), mc.program_id(1), 0, 0)
    mc.store(y, index, mc.load(x, index, (1, 4, 4, 16)))


@mc.kernel(grid=(1,))
def scalars(a: mc.u8, b: mc.u32, c: mc.bf16, d: mc.i64, e: mc.bool_, f: mc.f32, out: mc.f64[8]):
    mc.store(out, 0, a.to(mc.f64))
    mc.store(out, 1, b.to(mc.f64))
    mc.store(out, 2, c.to(mc.f64))
    mc.store(out, 3, d.to(mc.f64))
    mc.store(out, 4, e.to(mc.f64))
    mc.store(out, 5, f.to(mc.f64))


GIVEN = {"a": 200, "b": 2**32 - 1, "c": 1.5, "d": -(2**40), "e": True, "f": 0.25}

VIEWS = [
    *(
        fixed(k, i, t)
        for k in (point, point_store, column)
        for i in (-1, 1, 2, 100)
        for t in (mc.f32, mc.bool_)
    ),
    *(fixed(point, i, mc.i4) for i in (-1, 1, 2)),
    Case(
        "permuted",
        permuted,
        lambda: {"x": sample(mc.f32, (2, 5, 3, 4)), "y": np.zeros((2, 3, 4, 5), np.float32)},
        lambda x, y: {"y": x.transpose(0, 2, 3, 1)},
        {"multiples": {"D": 1, "S": 1}},
    ),
    *(
        Case(
            f"four-{t}",
            four,
            lambda t=t: {"x": sample(t, (2, 6, 3, 16)), "y": np.zeros((2, 6, 3, 16), t.numpy)},
            lambda x, y: {"y": x},
            {"T": t},
        )
        for t in DTYPES.values()
        if t is not mc.i4
    ),
    Case(
        "scalars",
        scalars,
        lambda: {**GIVEN, "out": np.zeros(8)},
        lambda out, **_: {"out": np.array([*map(float, GIVEN.values()), 0, 0])},
    ),
]


# Gather and scatter.

ROWS = np.array([0, 2, 1, -1, 3, 0, 0, -(2**31)], np.int32)
COLUMNS = np.array([0, 4, 2, 0, 0, -1, 6, 2**31 - 1], np.int32)
MASK = np.array([True, False] * 4)


@mc.kernel(grid=(1,))
def gathered(x: T["M", "N"], i: mc.i32[8], j: mc.i32[8], m: mc.bool_[8], y: T[8], z: T[8]):
    rows, columns = mc.load(i, 0, 8), mc.load(j, 0, 8)
    mc.store(y, 0, mc.gather(x, (rows, columns), pad=1))
    mc.store(z, 0, mc.gather(x, (rows, columns), mask=mc.load(m, 0, 8)))


def gathering(dtype: DType) -> Case:
    def wanted(x: Any, i: Any, j: Any, m: Any, y: Any, z: Any) -> dict[str, Any]:
        inside = (i >= 0) & (i < 3) & (j >= 0) & (j < 6)
        values = x[np.where(inside, i, 0), np.where(inside, j, 0)]
        one, zero = np.ones(8, dtype.numpy), np.zeros(8, dtype.numpy)
        return {"y": np.where(inside, values, one), "z": np.where(inside & m, values, zero)}

    return Case(
        f"gather-{dtype}",
        gathered,
        lambda: {
            "x": sample(dtype, (3, 6)),
            "i": ROWS,
            "j": COLUMNS,
            "m": MASK,
            "y": np.zeros(8, dtype.numpy),
            "z": np.zeros(8, dtype.numpy),
        },
        wanted,
        {"T": dtype, **ONE},
    )


@mc.kernel(grid=(1,))
def scattered(x: T["N"], i: mc.i32[8], v: T[8], m: mc.bool_[8]):
    mc.scatter(x, mc.load(i, 0, 8), mc.load(v, 0, 8), mask=mc.load(m, 0, 8))


SLOTS = np.array([5, -1, 0, 6, 2, 3, 1, 4], np.int32)
ON = np.array([1, 1, 1, 1, 0, 1, 0, 1], bool)


def scattering(dtype: DType) -> Case:
    def wanted(x: Any, i: Any, v: Any, m: Any) -> dict[str, Any]:
        x = x.copy()
        keep = m & (i >= 0) & (i < 6)
        x[i[keep]] = v[keep]
        return {"x": x}

    return Case(
        f"scatter-{dtype}",
        scattered,
        lambda: {"x": sample(dtype, 6), "i": SLOTS, "v": sample(dtype, 8, 3), "m": ON},
        wanted,
        {"T": dtype},
    )


@mc.kernel(grid=lambda N: (mc.cdiv(N, 16),))
def histogram(x: mc.i32["N"], counts: A["K"]):
    values = mc.load(x, mc.program_id(0), 16, pad=-1)
    mc.scatter_add(counts, values, mc.ones(16, counts.dtype))


@mc.kernel(grid=lambda N: (mc.cdiv(N, 16),))
def total(x: mc.i32["N"], sums: A["K"]):
    values = mc.load(x, mc.program_id(0), 16)
    mc.atomic_add(sums, 0, mc.sum(values).to(sums.dtype))


def counted() -> np.ndarray:
    return np.random.default_rng(4).integers(0, 5, 50).astype(np.int32)


@mc.kernel(grid=(1,))
def gathered_scalar(x: mc.f32["N"], i: mc.i32, y: mc.f32[1]):
    mc.store(y, 0, mc.gather(x, i, pad=5))


@mc.kernel(grid=(1,))
def scattered_scalar(x: mc.f32["N"], i: mc.i32, y: mc.f32):
    mc.scatter(x, i, y)
    mc.scatter_add(x, i, y)


def replaced(x: np.ndarray, i: int, value: float) -> np.ndarray:
    x = x.copy()
    if 0 <= i < len(x):
        x[i] = value
    return x


ELEMENTS = [
    *map(gathering, DTYPES.values()),
    *(scattering(t) for t in DTYPES.values() if t is not mc.i4),
    *(
        Case(
            f"histogram-{t}",
            histogram,
            lambda t=t: {"x": counted(), "counts": np.zeros(5, t.numpy)},
            lambda x, counts: {"counts": np.bincount(x, minlength=5)},
            {"A": t},
        )
        for t in A.choices
    ),
    *(
        Case(
            f"total-{t}",
            total,
            lambda t=t: {"x": counted(), "sums": np.zeros(1, t.numpy)},
            lambda x, sums: {"sums": x.sum(keepdims=True)},
            {"A": t},
        )
        for t in A.choices
    ),
    *(
        Case(
            f"gather-one-{i}",
            gathered_scalar,
            lambda i=i: {"x": np.arange(4, dtype=np.float32), "i": i, "y": np.zeros(1, np.float32)},
            lambda x, i, y, w=w: {"y": np.array([w])},
        )
        for i, w in ((2, 2), (-1, 5), (4, 5))
    ),
    *(
        Case(
            f"scatter-one-{i}",
            scattered_scalar,
            lambda i=i: {"x": np.arange(4, dtype=np.float32), "i": i, "y": 2.5},
            lambda x, i, y: {"x": replaced(x, i, 2 * y)},
        )
        for i in (2, -1, 4)
    ),
]

CASES = [*COPIES, *LAYOUTS, *PLACES, *VIEWS, *ELEMENTS]
