"""Every elementwise operation on every element type, and every conversion."""

import math
from typing import Any

import ml_dtypes
import numpy as np

import mosaic_compile as mc
from mosaic_compile.language.dtypes import DTYPES, DType
from mosaic_compile.language.ops.random import philox_reference

from .case import Case

N = 64
FLOATS = [mc.f64, mc.f32, mc.f16, mc.bf16]
INTEGERS = [mc.i64, mc.i32, mc.i16, mc.i8, mc.u8, mc.u32]
T = mc.DTypeVar("T", *DTYPES.values())
U = mc.DTypeVar("U", *DTYPES.values())


def sample(dtype: DType, size: Any, seed: int = 0) -> np.ndarray:
    """Random values over a type's range, with its edges in front."""
    rng = np.random.default_rng(seed)
    if dtype.is_float:
        values = rng.standard_normal(size) * 10.0 ** rng.integers(-2, 2, size)
        edges = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 0.5]
    elif dtype.kind == "bool":
        return rng.integers(0, 2, size).astype(bool)
    else:
        values = rng.integers(dtype.min, dtype.max, size, endpoint=True)
        edges = [0, 1, dtype.min, dtype.max, 2, 3]
    values = values.astype(dtype.numpy)
    rng.shuffle(edges)
    values.reshape(-1)[: len(edges)] = np.array(edges).astype(dtype.numpy)[: values.size]
    return values


def one(
    name: str,
    function: Any,
    reference: Any,
    x: DType,
    y: DType | None = None,
    values: Any = None,
    **more: Any,
) -> Case:
    """A case y = function(x)."""

    @mc.kernel(grid=(1,))
    def unary(x: T[N], y: U[N]):
        mc.store(y, 0, function(mc.load(x, 0, N)))

    y = y or x
    return Case(
        f"{name}-{x}" + (f"-{y}" if y is not x else ""),
        unary,
        lambda: {"x": (sample(x, N) if values is None else values(x)).copy(), "y": np.zeros(N, y.numpy)},
        lambda x, y: {"y": reference(x)},
        {"T": x, "U": y},
        **more,
    )


def two(
    name: str,
    function: Any,
    reference: Any,
    x: DType,
    z: DType | None = None,
    values: Any = sample,
    **more: Any,
) -> Case:
    """A case z = function(x, y)."""

    @mc.kernel(grid=(1,))
    def binary(x: T[N], y: T[N], z: U[N]):
        mc.store(z, 0, function(mc.load(x, 0, N), mc.load(y, 0, N)))

    z = z or x
    return Case(
        f"{name}-{x}",
        binary,
        lambda: {"x": values(x, N), "y": values(x, N, 1), "z": np.zeros(N, z.numpy)},
        lambda x, y, z: {"z": reference(x, y)},
        {"T": x, "U": z},
        **more,
    )


def upcast(reference: Any) -> Any:
    """A reference in f64, so that narrow results are rounded once."""
    return lambda *xs: reference(*(x.astype(np.float64) for x in xs))


FUNCTIONS = {
    "exp": (mc.exp, np.exp),
    "exp2": (mc.exp2, np.exp2),
    "log": (mc.log, np.log),
    "log2": (mc.log2, np.log2),
    "sin": (mc.sin, np.sin),
    "cos": (mc.cos, np.cos),
    "tanh": (mc.tanh, np.tanh),
    "erf": (mc.erf, np.vectorize(math.erf, otypes=[np.float64])),  # SciPy's is off by 2.5 units of f64
    "sqrt": (mc.sqrt, np.sqrt),
    "rsqrt": (mc.rsqrt, lambda x: 1 / np.sqrt(x)),
    "floor": (mc.floor, np.floor),
    "ceil": (mc.ceil, np.ceil),
    "sigmoid": (mc.sigmoid, lambda x: 1 / (1 + np.exp(-x))),
}

UNARY = [
    *(
        one(name, f, upcast(g), t, ulps=1 + 2 * (name == "sigmoid"))
        for name, (f, g) in FUNCTIONS.items()
        for t in FLOATS
    ),
    *(one("abs", abs, lambda x: np.abs(x), t) for t in FLOATS + INTEGERS),
    *(one("negate", lambda x: -x, lambda x: np.negative(x), t) for t in FLOATS + INTEGERS),
    *(one("not", lambda x: ~x, lambda x: ~x, t) for t in [*INTEGERS, mc.bool_]),
    *(one("power", lambda x: x**3, upcast(lambda x: x**3), t, ulps=2) for t in FLOATS),
    *(
        one("plus-constant", lambda x: x + 3, lambda x: x + np.array(3, x.dtype), t)
        for t in FLOATS + INTEGERS
    ),
]

BINARY = [
    *(two("add", lambda a, b: a + b, lambda a, b: a + b, t) for t in FLOATS + INTEGERS),
    *(two("subtract", lambda a, b: a - b, lambda a, b: a - b, t) for t in FLOATS + INTEGERS),
    *(two("multiply", lambda a, b: a * b, lambda a, b: a * b, t) for t in FLOATS + INTEGERS),
    *(two("divide", lambda a, b: a / b, upcast(np.divide), t, ulps=1) for t in FLOATS),
    *(two("maximum", mc.maximum, lambda a, b: np.maximum(a, b), t) for t in FLOATS + INTEGERS),
    *(two("minimum", mc.minimum, lambda a, b: np.minimum(a, b), t) for t in FLOATS + INTEGERS),
    *(
        two("fma", lambda a, b: mc.fma(a, b, a), upcast(lambda a, b: a * b + a), t, ulps=1)
        for t in FLOATS[1:]
    ),
    *(
        two(
            "clamp",
            lambda a, b: mc.clamp(a, 1, 5),
            lambda a, b: np.clip(a, np.array(1, a.dtype), np.array(5, a.dtype)),
            t,
        )
        for t in FLOATS + INTEGERS
    ),
    *(two("less", lambda a, b: a < b, lambda a, b: a < b, t, mc.bool_) for t in FLOATS + INTEGERS),
    *(two("greater-equal", lambda a, b: a >= b, lambda a, b: a >= b, t, mc.bool_) for t in FLOATS + INTEGERS),
    *(
        two("equal", lambda a, b: a == b, lambda a, b: a == b, t, mc.bool_)
        for t in [*FLOATS, *INTEGERS, mc.bool_]
    ),
    *(two("not-equal", lambda a, b: a != b, lambda a, b: a != b, t, mc.bool_) for t in FLOATS + INTEGERS),
    *(
        two("where", lambda a, b: mc.where(a < b, a, b), lambda a, b: np.where(a < b, a, b), t)
        for t in FLOATS + INTEGERS
    ),
    *(
        two("where-constant", lambda a, b: mc.where(a == b, a, b), lambda a, b: np.where(a == b, a, b), t)
        for t in (mc.bool_, mc.f32)
    ),
    *(two("and", lambda a, b: a & b, np.bitwise_and, t) for t in [*INTEGERS, mc.bool_]),
    *(two("or", lambda a, b: a | b, np.bitwise_or, t) for t in [*INTEGERS, mc.bool_]),
    *(two("xor", lambda a, b: a ^ b, np.bitwise_xor, t) for t in [*INTEGERS, mc.bool_]),
]


def divisors(dtype: DType, size: int, seed: int = 0) -> np.ndarray:
    """Dividends of both signs, or (seed 1) divisors of both signs without 0, and without -1, which may overflow."""
    if seed == 0:
        return sample(dtype, size)
    values = np.array([1, 2, 3, 7, 100, -2, -3, -7, -100], np.int64)
    values = values[values > 0] if dtype.kind == "uint" else values
    return np.resize(values, size).astype(dtype.numpy)


def shifts(dtype: DType, size: int, seed: int = 0) -> np.ndarray:
    return sample(dtype, size) if seed == 0 else np.resize(np.arange(dtype.bits), size).astype(dtype.numpy)


def cdiv(a: Any, b: Any) -> Any:
    """-(-a // b) without the overflows of the type."""
    return -(-a.astype(object) // b.astype(object))


DIVISION = [
    *(two("floor-divide", lambda a, b: a // b, lambda a, b: a // b, t, values=divisors) for t in INTEGERS),
    *(two("modulo", lambda a, b: a % b, lambda a, b: a % b, t, values=divisors) for t in INTEGERS),
    *(two("cdiv", mc.cdiv, cdiv, t, values=divisors) for t in INTEGERS),
    *(two("shift-left", lambda a, b: a << b, lambda a, b: a << b, t, values=shifts) for t in INTEGERS),
    *(two("shift-right", lambda a, b: a >> b, lambda a, b: a >> b, t, values=shifts) for t in INTEGERS),
    *(one("divide-by-constant", lambda a: a // 4 + a % 4, lambda a: a // 4 + a % 4, t) for t in INTEGERS),
    *(
        one("divide-by-negative", lambda a: a // -3 + a % -3, lambda a: a // -3 + a % -3, t)
        for t in (mc.i64, mc.i32, mc.i16, mc.i8)
    ),
]


# Conversions: the reference is PyTorch's .to().


def convertible(source: DType, target: DType) -> np.ndarray:
    """Values of `source` that `target` can hold: what is out of range is undefined from floats to integers."""
    values = sample(source, N)
    if source.is_float and not target.is_float and target.kind != "bool":
        bound = min(float(target.max), 1000.0)
        low = max(float(target.min), -1000.0)
        values = np.nan_to_num(values.astype(np.float64), nan=0, posinf=bound, neginf=low)
        return np.clip(values, low, bound).astype(source.numpy)
    return values


def as_integer(x: np.ndarray) -> np.ndarray:
    return x.astype(np.int8) if x.dtype == ml_dtypes.int4 else x


def converted(x: np.ndarray, target: DType) -> np.ndarray:
    x = as_integer(x)
    if target.is_float:
        narrow = (target.bits < 32 and x.dtype.kind == "f" and x.dtype.itemsize == 8) or target.is_fp8
        return (
            to_fp8(x.astype(np.float32), target)
            if target.is_fp8
            else (x.astype(np.float32) if narrow else x).astype(target.numpy)
        )
    if target.kind == "bool":
        return x.astype(np.float64) != 0 if x.dtype.kind not in "biu" else x != 0
    return (np.trunc(x.astype(np.float64)).astype(np.int64) if x.dtype.kind not in "biu" else x).astype(
        target.numpy
    )


def to_fp8(x: np.ndarray, target: DType) -> np.ndarray:
    limit = 464 if target is mc.f8e4m3 else np.nextafter(np.float32(61440), np.float32(0))
    beyond = np.nan if target is mc.f8e4m3 else np.copysign(np.inf, x)
    return np.where(
        np.abs(x) <= limit, x.astype(target.numpy), np.where(np.isnan(x), np.nan, beyond).astype(target.numpy)
    )


def conversion(source: DType, target: DType) -> Case:
    return one(
        "to",
        lambda x: x.to(target),
        lambda x: converted(x, target),
        source,
        target,
        lambda x: convertible(x, target),
    )


CONVERSIONS = [
    conversion(a, b)
    for a in DTYPES.values()
    for b in DTYPES.values()
    if a is not b and not (a.is_float and b is mc.i4)
]


def around_fp8(target: DType) -> np.ndarray:
    """f32 values on, between and close to fp8 values: ties, subnormals, both sides of the overflow."""
    finite = np.arange(256, dtype=np.uint8).view(target.numpy).astype(np.float32)
    finite = np.unique(finite[np.isfinite(finite)])
    ties = (finite[1:] + finite[:-1]) / 2
    limit = np.float32(464 if target is mc.f8e4m3 else 61440)
    exact = np.concatenate(
        [finite, ties, [limit, -limit, 1e30, -1e30, np.inf, -np.inf, np.nan, 1e-30, -0.0, 0.0]]
    )
    exact = exact.astype(np.float32)
    near = [np.nextafter(exact, np.float32(toward)) for toward in (np.inf, -np.inf)]
    values = np.concatenate([exact, *near])
    return np.resize(values, 2048)


def thorough(target: DType) -> Case:
    @mc.kernel(grid=(1,))
    def to_fp8_(x: mc.f32[2048], y: U[2048]):
        mc.store(y, 0, mc.load(x, 0, 2048).to(target))

    return Case(
        f"thorough-{target}",
        to_fp8_,
        lambda: {"x": around_fp8(target), "y": np.zeros(2048, target.numpy)},
        lambda x, y: {"y": to_fp8(x, target)},
        {"U": target},
    )


def from_every_value(source: DType, target: DType) -> Case:
    """All values of a type of 16 bits."""

    @mc.kernel(grid=lambda N: (mc.cdiv(N, 4096),))
    def to_fp8_(x: T["N"], y: U["N"]):
        i = mc.program_id(0)
        mc.store(y, i, mc.load(x, i, 4096).to(target))

    every = np.arange(65536, dtype=np.uint16).view(source.numpy)
    return Case(
        f"from-every-{source}-{target}",
        to_fp8_,
        lambda: {"x": every, "y": np.zeros(65536, target.numpy)},
        lambda x, y: {"y": to_fp8(x.astype(np.float32), target)},
        {"T": source, "U": target},
    )


def from_fp8(source: DType) -> Case:
    @mc.kernel(grid=(1,))
    def from_fp8_(x: T[256], y: mc.f32[256], z: mc.bf16[256], w: mc.f16[256]):
        x = mc.load(x, 0, 256)
        mc.store(y, 0, x.to(mc.f32))
        mc.store(z, 0, x.to(mc.bf16))
        mc.store(w, 0, x.to(mc.f16))

    values = np.arange(256, dtype=np.uint8).view(source.numpy)
    return Case(
        f"from-every-{source}",
        from_fp8_,
        lambda: {
            "x": values,
            "y": np.zeros(256, np.float32),
            "z": np.zeros(256, ml_dtypes.bfloat16),
            "w": np.zeros(256, np.float16),
        },
        lambda x, y, z, w: {"y": x, "z": x.astype(np.float32), "w": x.astype(np.float32)},
        {"T": source},
    )


def bitcast(source: DType, target: DType) -> Case:
    return one("bitcast", lambda x: x.bitcast(target), lambda x: x.view(target.numpy), source, target)


BITCASTS = [
    bitcast(a, b)
    for a in DTYPES.values()
    for b in DTYPES.values()
    if a is not b and a.bits == b.bits and mc.bool_ not in (a, b)
]


# Random numbers.


@mc.kernel(grid=(1,))
def bits(y: mc.u32[64], seed: mc.i64):
    mc.store(y, 0, mc.random_bits(seed, mc.iota(64)))


@mc.kernel(grid=(1,))
def uniform(y: mc.f32[64]):
    mc.store(y, 0, mc.random_uniform(1234, mc.iota(64)))


@mc.kernel(grid=(1,))
def normal(y: mc.f32[64], z: mc.f32[64]):
    mc.store(y, 0, mc.random_normal(1234, mc.iota(64)))


def words(seed: int, size: int) -> tuple[Any, ...]:
    return philox_reference((np.arange(size), 0, 0, 0), (seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF))


def unit(bits: np.ndarray) -> np.ndarray:
    signed = bits.view(np.int32)
    return np.where(signed < 0, ~signed, signed).astype(np.float32) * np.float32(4.6566127342e-10)


def box_muller(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    u = np.maximum(unit(first), np.float32(1e-7)).astype(np.float64)
    return np.sqrt(-2 * np.log(u)) * np.cos(2 * np.pi * unit(second).astype(np.float64))


RANDOM = [
    Case(
        "random-bits",
        bits,
        lambda: {"y": np.zeros(64, np.uint32), "seed": 0x123456789ABC},
        lambda y, seed: {"y": words(seed, 64)[0]},
    ),
    Case(
        "random-uniform",
        uniform,
        lambda: {"y": np.zeros(64, np.float32)},
        lambda y: {"y": unit(words(1234, 64)[0])},
    ),
    Case(
        "random-normal",
        normal,
        lambda: {"y": np.zeros(64, np.float32), "z": np.zeros(64, np.float32)},
        lambda y, z: {"y": box_muller(*words(1234, 64)[:2])},
        tolerance=2e-6,
    ),
]

FP8 = (mc.f8e4m3, mc.f8e5m2)
THOROUGH = [
    *map(thorough, FP8),
    *map(from_fp8, FP8),
    *(from_every_value(a, b) for a in (mc.f16, mc.bf16) for b in FP8),
]
CASES = [*UNARY, *BINARY, *DIVISION, *CONVERSIONS, *THOROUGH, *BITCASTS, *RANDOM]
