"""Shapes, matrix products, reductions, scans."""

from typing import Any

import numpy as np

import mosaic_compile as mc
from mosaic_compile.language.dtypes import DTYPES, DType

from .case import Case
from .elementwise_cases import FLOATS, INTEGERS
from .memory_cases import sample

T = mc.DTypeVar("T", *DTYPES.values())
U = mc.DTypeVar("U", *DTYPES.values())


def of_tile(
    name: str,
    function: Any,
    reference: Any,
    dtype: DType = mc.f32,
    shape: tuple[int, ...] = (8, 16),
    to: DType | None = None,
    seed: int = 0,
    **more: Any,
) -> Case:
    """A case y = function(x) for a whole tile, whatever the result's shape."""
    values = sample(dtype, shape, seed)
    result = np.asarray(reference(values))
    m, n = shape[0], int(np.prod(shape[1:]))
    rows, columns = (*result.shape[:1], int(np.prod(result.shape[1:]))) if result.ndim else (1, 1)

    @mc.kernel(grid=(1,))
    def tile(x: T[m, n], y: U[rows, columns]):
        value = function(mc.load(x, (0, 0), (m, n)).reshape(shape))
        mc.store(y, (0, 0), value.reshape(rows, columns))

    to = to or dtype
    return Case(
        f"{name}-{dtype}-{'x'.join(map(str, shape))}",
        tile,
        lambda: {"x": values.reshape(m, -1).copy(), "y": np.zeros((rows, columns), to.numpy)},
        lambda x, y: {"y": result.reshape(rows, columns)},
        {"T": dtype, "U": to},
        **more,
    )


ONES = ((1, 16), (16, 1), (1, 1))
MOVED = [
    *(of_tile("transpose", lambda x: x.T, lambda x: x.T, t) for t in DTYPES.values() if t is not mc.i4),
    *(of_tile("transpose", lambda x: x.T, lambda x: x.T, mc.f32, s) for s in ONES),
    of_tile("permute", lambda x: x.permute(2, 0, 1), lambda x: x.transpose(2, 0, 1), mc.f32, (2, 4, 8)),
    of_tile(
        "permute", lambda x: x.permute(3, 1, 0, 2), lambda x: x.transpose(3, 1, 0, 2), mc.bf16, (2, 4, 1, 8)
    ),
    of_tile("reshape", lambda x: x.reshape(4, 32), lambda x: x.reshape(4, 32), mc.f16),
    of_tile("reshape-flat", lambda x: x.reshape(-1), lambda x: x.reshape(-1), mc.i8),
    of_tile(
        "row-plus-column",
        lambda x: x.sum(1)[:, None] + x.sum(0)[None, :],
        lambda x: x.sum(1)[:, None] + x.sum(0)[None, :],
    ),
    of_tile("broadcast", lambda x: mc.broadcast_to(x, (4, 8, 16)), lambda x: np.broadcast_to(x, (4, 8, 16))),
    of_tile(
        "broadcast",
        lambda x: mc.broadcast_to(x, (8, 16)),
        lambda x: np.broadcast_to(x, (8, 16)),
        mc.i32,
        (8, 1),
    ),
    of_tile(
        "full",
        lambda x: x + mc.full((8, 16), 3, mc.f32) + mc.ones((8, 16), mc.f32) + mc.zeros((8, 16), mc.f32),
        lambda x: x + 4,
    ),
    of_tile("scalar-full", lambda x: mc.full((8, 16), x.sum(), mc.f32), lambda x: np.full((8, 16), x.sum())),
    of_tile("iota", lambda x: x + mc.iota(16), lambda x: x + np.arange(16), mc.i32),
    *(
        of_tile(
            f"split-{a}",
            lambda x, a=a: mc.split(x, 2, a)[1],
            lambda x, a=a: np.split(x, 2, a)[1],
            mc.f32,
            (4, 8, 16),
        )
        for a in range(3)
    ),
    *(
        of_tile(f"split-4-{a}", lambda x, a=a: mc.split(x, 4, a)[2], lambda x, a=a: np.split(x, 4, a)[2], t)
        for a in range(2)
        for t in (mc.f16, mc.i8, mc.bool_, mc.f8e5m2)
    ),
    *(
        of_tile(
            f"cat-{a}",
            lambda x, a=a: mc.cat((x, x + x), a),
            lambda x, a=a: np.concatenate((x, x + x), a),
            mc.f32,
            (4, 8, 16),
        )
        for a in range(3)
    ),
    *(
        of_tile(
            f"cat-4-{a}",
            lambda x, a=a: mc.cat((x, x, ~x, x), a),
            lambda x, a=a: np.concatenate((x, x, ~x, x), a),
            t,
        )
        for a in range(2)
        for t in (mc.i64, mc.u8, mc.bool_)
    ),
    *(
        of_tile("cat", lambda x: mc.cat((x, x), 0), lambda x: np.concatenate((x, x), 0), mc.f32, s)
        for s in ONES
    ),
    *(
        of_tile("swap-halves", lambda x: mc.cat(mc.split(x, 2, 1)[::-1], 1), lambda x: np.roll(x, 8, 1), t)
        for t in (mc.f64, mc.bf16, mc.f8e4m3)
    ),
]


# Reductions and scans.


def joined(reference: Any, dtype: DType) -> Any:
    """A reference in f64 or i64."""
    return lambda x: reference(x.astype(np.float64 if dtype.is_float else np.int64))


def sum_type(dtype: DType) -> DType:
    return mc.i32 if not dtype.is_float and dtype.bits < 32 else dtype


REDUCTIONS = [
    *(
        of_tile(
            f"sum-{a}", lambda x, a=a: mc.sum(x, a), joined(lambda x, a=a: x.sum(a), t), t, to=sum_type(t)
        )
        for t in FLOATS + INTEGERS
        for a in (0, 1, None)
    ),
    *(
        of_tile(
            "prod", lambda x: mc.prod(x, 1), joined(lambda x: x.prod(1), t), t, (8, 4), to=sum_type(t), ulps=1
        )
        for t in FLOATS + INTEGERS
    ),
    *(of_tile("mean", lambda x: mc.mean(x, 1), joined(lambda x: x.mean(1), t), t, ulps=1) for t in FLOATS),
    *(of_tile("max", lambda x: mc.max(x, 0), lambda x: x.max(0), t) for t in FLOATS + INTEGERS),
    *(
        of_tile("min", lambda x: mc.min(x, 1, keepdims=True), lambda x: x.min(1, keepdims=True), t)
        for t in FLOATS + INTEGERS
    ),
    *(
        of_tile("argmax", lambda x: mc.argmax(x, 1), lambda x: x.argmax(1), t, to=mc.i32)
        for t in FLOATS + INTEGERS
    ),
    *(
        of_tile("argmin", lambda x: mc.argmin(x, None), lambda x: x.argmin(), t, to=mc.i32)
        for t in FLOATS + INTEGERS
    ),
    of_tile("any", lambda x: mc.any(x > 5, 1), lambda x: (x > 5).any(1), mc.f32, to=mc.bool_),
    of_tile("all", lambda x: mc.all(x > -8, 0), lambda x: (x > -8).all(0), mc.f32, to=mc.bool_),
    of_tile("sum-3d", lambda x: mc.sum(x, 1), lambda x: x.sum(1), mc.f32, (4, 8, 2)),
    *(of_tile("sum", lambda x: mc.sum(x, 0), lambda x: x.sum(0), mc.f32, s) for s in ONES),
    *(
        of_tile("argmax", lambda x: mc.argmax(x, 0), lambda x: x.argmax(0), mc.f32, s, to=mc.i32)
        for s in ONES
    ),
]


def with_nan(x: np.ndarray) -> np.ndarray:
    return np.where(x == 3, np.float32("nan"), x)


def pick(a: Any, i: Any, b: Any, j: Any) -> Any:
    """The larger value's index; associative, for values without equals."""
    return mc.where(a > b, a, b), mc.where(a > b, i, j)


def compose(a: Any, b: Any, c: Any, d: Any) -> Any:
    """x -> c (a x + b) + d: associative, not commutative."""
    return a * c, b * c + d


def recurrence(x: np.ndarray, reverse: bool = False) -> np.ndarray:
    """y[i] = x[i] / 8 * y[i-1] + x[i] from 0, the second part of the composed maps."""
    x = x[:, ::-1].astype(np.float64) if reverse else x.astype(np.float64)
    state, rows = np.zeros(x.shape[0]), []
    for column in x.T:
        state = column / 8 * state + column
        rows.append(state)
    result = np.stack(rows, 1)
    return result[:, ::-1] if reverse else result


SCANS = [
    *(
        of_tile(
            f"cumsum-{a}",
            lambda x, a=a: mc.cumsum(x, a),
            joined(lambda x, a=a: x.cumsum(a), t),
            t,
            to=sum_type(t),
        )
        for t in FLOATS + INTEGERS
        for a in (0, 1)
    ),
    *(
        of_tile(
            f"cumsum-reverse-{a}",
            lambda x, a=a: mc.cumsum(x, a, reverse=True),
            lambda x, a=a: np.flip(np.flip(x, a).cumsum(a), a),
            t,
        )
        for t in (mc.f32, mc.i32, mc.i64)
        for a in (0, 1)
    ),
    of_tile("cumprod", lambda x: mc.cumprod(x, 1), joined(lambda x: x.cumprod(1), mc.f64), mc.f64, (8, 4)),
    *(of_tile("cumsum", lambda x: mc.cumsum(x, 0), lambda x: x.cumsum(0), mc.f32, s) for s in ONES),
    *(
        of_tile(
            f"scan-pair-{reverse}",
            lambda x, r=reverse: mc.scan((x / 8, x), 1, compose, reverse=r)[1],
            lambda x, r=reverse: recurrence(x, r),
            t,
            tolerance=1e-3,
        )
        for reverse in (False, True)
        for t in (mc.f32, mc.f64)
    ),
    of_tile(
        "reduce-pair",
        lambda x: mc.reduce(
            (x * 64.0 + mc.iota(16).to(mc.f32), mc.broadcast_to(mc.iota(16), (8, 16))), 1, pick
        )[1],
        lambda x: (x * 64 + np.arange(16)).argmax(1),
        mc.f32,
        to=mc.i32,
    ),
    of_tile(
        "reduce-xor",
        lambda x: mc.reduce(x, 0, lambda a, b: a ^ b),
        lambda x: np.bitwise_xor.reduce(x, 0),
        mc.i32,
    ),
    of_tile(
        "max-of-nan", lambda x: mc.max(mc.where(x == 3.0, float("nan"), x), 1), lambda x: with_nan(x).max(1)
    ),
    of_tile(
        "argmax-of-nan",
        lambda x: mc.argmax(mc.where(x == 3.0, float("nan"), x), 1),
        lambda x: with_nan(x).argmax(1),
        to=mc.i32,
    ),
]


# Matrix products.


def product(
    name: str,
    a: DType,
    b: DType,
    acc: DType,
    precision: str = "ieee",
    shape: tuple[int, int, int] = (32, 32, 64),
    **more: Any,
) -> Case:
    m, n, k = shape

    @mc.kernel(grid=lambda M, N: (mc.cdiv(M, m), mc.cdiv(N, n)))
    def multiply(x: T["M", "K"], y: U["K", "N"], z: acc["M", "N"]):
        i, j = mc.program_id(0), mc.program_id(1)
        total = mc.zeros((m, n), acc)
        for step in range(mc.cdiv(x.shape[1], k)):
            total = mc.dot(
                mc.load(x, (i, step), (m, k)), mc.load(y, (step, j), (k, n)), total, precision=precision
            )
        mc.store(z, (i, j), total)

    return Case(
        f"{name}-{a}-{b}-{acc}-{precision}",
        multiply,
        lambda: {"x": sample(a, (48, 80)), "y": sample(b, (80, 64), 1), "z": np.zeros((48, 64), acc.numpy)},
        lambda x, y, z: {"z": x.astype(np.float64) @ y.astype(np.float64)},
        {"T": a, "U": b, **more},
    )


def transposed_product(dtype: DType) -> Case:
    @mc.kernel(grid=lambda M, N: (mc.cdiv(M, 32), mc.cdiv(N, 32)))
    def multiply(x: T["K", "M"], y: T["N", "K"], z: mc.f32["M", "N"]):
        i, j = mc.program_id(0), mc.program_id(1)
        total = mc.zeros((32, 32), mc.f32)
        for step in range(mc.cdiv(x.shape[0], 32)):
            total = mc.dot(mc.load(x.T, (i, step), (32, 32)), mc.load(y, (j, step), (32, 32)).T, total)
        mc.store(z, (i, j), total)

    return Case(
        f"dot-transposed-{dtype}",
        multiply,
        lambda: {
            "x": sample(dtype, (80, 48)),
            "y": sample(dtype, (64, 80), 1),
            "z": np.zeros((48, 64), np.float32),
        },
        lambda x, y, z: {"z": x.astype(np.float64).T @ y.astype(np.float64).T},
        {"T": dtype},
    )


@mc.kernel(grid=lambda B: (mc.cdiv(B, 2),))
def batched(x: T["B", 16, 32], y: T["B", 32, 16], z: mc.f32["B", 16, 16]):
    i = mc.program_id(0)
    a, b = mc.load(x, (i, 0, 0), (2, 16, 32)), mc.load(y, (i, 0, 0), (2, 32, 16))
    mc.store(z, (i, 0, 0), mc.dot(a, b, dtype=mc.f32))


def batched_product(dtype: DType) -> Case:
    return Case(
        f"dot-batched-{dtype}",
        batched,
        lambda: {
            "x": sample(dtype, (3, 16, 32)),
            "y": sample(dtype, (3, 32, 16), 1),
            "z": np.zeros((3, 16, 16), np.float32),
        },
        lambda x, y, z: {"z": x.astype(np.float64) @ y.astype(np.float64)},
        {"T": dtype},
    )


@mc.kernel(grid=lambda M, N: (mc.cdiv(M, 64), mc.cdiv(N, 64)))
def specialized(x: mc.bf16["M", "K"], y: mc.bf16["K", "N"], z: mc.f32["M", "N"]):
    i, j = mc.program_id(0), mc.program_id(1)
    total = mc.zeros((64, 64), mc.f32)
    for step in mc.range(mc.cdiv(x.shape[1], 32), warp_specialize=True, num_stages=2):
        total = mc.dot(mc.load(x, (i, step), (64, 32)), mc.load(y, (step, j), (32, 64)), total)
    mc.store(z, (i, j), total)


PRODUCTS = [
    Case(
        "dot-specialized",
        specialized,
        lambda: {
            "x": sample(mc.bf16, (80, 72)),
            "y": sample(mc.bf16, (72, 96), 1),
            "z": np.zeros((80, 96), np.float32),
        },
        lambda x, y, z: {"z": x.astype(np.float64) @ y.astype(np.float64)},
    ),
    product("dot", mc.bf16, mc.bf16, mc.f32),
    product("dot", mc.f16, mc.f16, mc.f32),
    product("dot", mc.f16, mc.f16, mc.f16),
    *(product("dot", mc.f32, mc.f32, mc.f32, p) for p in ("ieee", "tf32", "tf32x3")),
    product("dot", mc.f64, mc.f64, mc.f64),
    *(product("dot", a, b, mc.f32) for a in (mc.f8e4m3, mc.f8e5m2) for b in (mc.f8e4m3, mc.f8e5m2)),
    *(product("dot", t, t, mc.f16) for t in (mc.f8e4m3, mc.f8e5m2)),
    product("dot", mc.i8, mc.i8, mc.i32),
    product("dot-odd", mc.bf16, mc.bf16, mc.f32, multiples={"K": 1, "N": 1}),
    product("dot-fixed", mc.bf16, mc.bf16, mc.f32, dims={"M": 48, "K": 80, "N": 64}),
    product("dot-small", mc.f16, mc.f16, mc.f32, shape=(16, 16, 16)),
    *map(transposed_product, (mc.bf16, mc.f32, mc.f8e4m3)),
    *map(batched_product, (mc.bf16, mc.f16, mc.f32)),
]

CASES = [*MOVED, *REDUCTIONS, *SCANS, *PRODUCTS]
