"""Control flow: loops, branches, early returns, persistent programs."""

from typing import Any

import numpy as np

import mosaic_compile as mc

from .case import Case


@mc.kernel(grid=(1,))
def counted(x: mc.f32[16], n: mc.i32, y: mc.f32[16]):
    total = mc.zeros(16, mc.f32)
    for i in range(n):
        total = total + mc.load(x, 0, 16) * i.to(mc.f32)
    mc.store(y, 0, total)


@mc.kernel(grid=(1,))
def stepped(lower: mc.i32, upper: mc.i32, y: mc.i32[2]):
    total, count = mc.i32(0), mc.i32(0)
    for i in range(lower, upper, 3):
        total += i
        count += 1
    mc.store(y, 0, total)
    mc.store(y, 1, count)


@mc.kernel(grid=lambda num_sms: (num_sms,))
def persistent(x: mc.f32["M", "N"], y: mc.f32["M", "N"]):
    rows, columns = mc.cdiv(x.shape[0], 8), mc.cdiv(x.shape[1], 16)
    for tile in range(mc.program_id(0), rows * columns, mc.num_programs(0)):
        index = (tile // columns, tile % columns)
        mc.store(y, index, mc.load(x, index, (8, 16)) * 2)


@mc.kernel(grid=lambda M: (M,))
def branches(x: mc.f32["M", 16], y: mc.f32["M", 16]):
    i = mc.program_id(0)
    row = mc.load(x, (i, 0), (1, 16))
    if i % 3 == 0:
        row = row * 2
        if i > 3:
            row, k = row + 1, i * 2
        else:
            k = i
    elif i == 1:
        k = i + 100
    else:
        k = -i
    mc.store(y, (i, 0), row + k.to(mc.f32))


@mc.kernel(grid=lambda N: (N,))
def collatz(x: mc.i32["N"], y: mc.i32["N"]):
    i = mc.program_id(0)
    value, steps = mc.load(x, i, 1).sum(), mc.i32(0)
    while value > 1:
        value = mc.where(value % 2 == 0, value // 2, 3 * value + 1)
        steps += 1
    mc.store(y, i, steps)


@mc.kernel(grid=lambda N: (mc.cdiv(N, 8) + 2,))
def early(x: mc.f32["N"], y: mc.f32["N"]):
    i = mc.program_id(0)
    if i * 8 >= x.shape[0]:
        return
    tile = mc.load(x, i, 8)
    if i == 1:
        mc.store(y, i, -tile)
        return
    mc.store(y, i, tile + 1)


@mc.kernel(grid=lambda M, N: (M, N, 2))
def grid(y: mc.i32["M", "N", 2, 4]):
    i, j, k = mc.program_id(0), mc.program_id(1), mc.program_id(2)
    sizes = mc.num_programs(0) * 100 + mc.num_programs(1) * 10 + mc.num_programs(2)
    mc.store(y, (i, j, k, 0), i * 100 + j * 10 + k)
    mc.store(y, (i, j, k, 1), sizes)
    mc.store(y, (i, j, k, 2), y.shape[0] * y.shape[1])


@mc.kernel(grid=lambda M: (M,))
def nested(x: mc.f32["M", "N"], y: mc.f32["M"]):
    i = mc.program_id(0)
    best, where = mc.f32(float("-inf")), mc.i32(-1)
    for k in range(mc.cdiv(x.shape[1], 8)):
        tile = mc.load(x, (i, k), (1, 8), pad=float("-inf"))
        largest = mc.max(tile)
        if largest > best:
            best, where = largest, k
        for _ in range(k):
            best = best + 0
    mc.store(y, i, best + where.to(mc.f32) * 100)


@mc.kernel(grid=(1,))
def printing(x: mc.f32[4], y: mc.f32[4]):
    tile = mc.load(x, 0, 4)
    mc.device_print("tile", tile)
    mc.store(y, 0, tile)


def chosen(x: np.ndarray) -> np.ndarray:
    result = x.copy()
    for i in range(len(x)):
        if i % 3 == 0:
            result[i] = x[i] * 2 + (1 + 2 * i if i > 3 else i)
        else:
            result[i] += i + 100 if i == 1 else -i
    return result


def collatz_steps(x: int) -> int:
    steps = 0
    while x > 1:
        x, steps = (x // 2 if x % 2 == 0 else 3 * x + 1), steps + 1
    return steps


def left_early(x: np.ndarray) -> np.ndarray:
    result = x + 1
    result[8:16] = -x[8:16]
    return result


def numbered(y: np.ndarray) -> dict[str, Any]:
    m, n = y.shape[:2]
    i, j, k = np.indices((m, n, 2))
    y = y.copy()
    y[..., 0], y[..., 1], y[..., 2] = i * 100 + j * 10 + k, m * 100 + n * 10 + 2, m * n
    return {"y": y}


def found(x: np.ndarray) -> np.ndarray:
    return x.max(1) + x.argmax(1) // 8 * 100


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).permutation(int(np.prod(shape))).reshape(shape).astype(np.float32)


def zeros(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.zeros(shape, dtype)


CASES = [
    *(
        Case(
            f"loop-{n}",
            counted,
            lambda n=n: {"x": floats(16), "n": n, "y": zeros(16) + 1},
            lambda x, n, y: {"y": x * sum(range(n))},
        )
        for n in (-3, 0, 1, 5)
    ),
    *(
        Case(
            f"range-{a},{b}",
            stepped,
            lambda a=a, b=b: {"lower": a, "upper": b, "y": zeros(2, dtype=np.int32)},
            lambda lower, upper, y: {
                "y": np.array([sum(range(lower, upper, 3)), len(range(lower, upper, 3))])
            },
        )
        for a, b in ((0, 10), (-7, 5), (5, 5), (6, -6))
    ),
    Case(
        "persistent", persistent, lambda: {"x": floats(20, 36), "y": zeros(20, 36)}, lambda x, y: {"y": x * 2}
    ),
    Case(
        "persistent-odd",
        persistent,
        lambda: {"x": floats(20, 37), "y": zeros(20, 37)},
        lambda x, y: {"y": x * 2},
        {"multiples": {"N": 1}},
    ),
    Case(
        "branches", branches, lambda: {"x": floats(9, 16), "y": zeros(9, 16)}, lambda x, y: {"y": chosen(x)}
    ),
    Case(
        "while",
        collatz,
        lambda: {"x": np.array([0, 1, 2, 7, 27], np.int32), "y": zeros(5, dtype=np.int32)},
        lambda x, y: {"y": np.array([collatz_steps(int(v)) for v in x])},
    ),
    Case("early", early, lambda: {"x": floats(29), "y": zeros(29)}, lambda x, y: {"y": left_early(x)}),
    Case("grid", grid, lambda: {"y": zeros(2, 3, 2, 4, dtype=np.int32)}, numbered),
    Case("nested", nested, lambda: {"x": floats(5, 28), "y": zeros(5)}, lambda x, y: {"y": found(x)}),
    Case("printing", printing, lambda: {"x": floats(4), "y": zeros(4)}, lambda x, y: {"y": x}),
]
