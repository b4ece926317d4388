"""The kernel library on small arrays, by its own references; the bounds are derived in tests/kernels."""

import inspect
from typing import Any

import numpy as np

import mosaic_compile as mc
from mosaic_compile.kernels.flash_attention import flash_attention
from mosaic_compile.kernels.matmul import matmul
from mosaic_compile.kernels.rms_norm import rms_norm
from mosaic_compile.kernels.softmax import softmax
from mosaic_compile.kernels.vector_add import vector_add
from mosaic_compile.language.dtypes import DType
from mosaic_compile.language.kernel import Kernel

from .case import Case


def normal(dtype: DType, *shape: int, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng([seed, *shape]).standard_normal(shape)
    return values.astype(np.float32).astype(dtype.numpy)


def unwritten(dtype: DType, *shape: int) -> np.ndarray:
    return np.full(shape, 77, dtype.numpy)


def library(
    name: str,
    kernel: Kernel,
    given: dict[str, Any],
    outputs: tuple[str, ...],
    dtype: DType,
    tolerance: float,
    **choices: Any,
) -> Case:
    takes = inspect.signature(kernel.reference).parameters
    constants = {k: v for k, v in choices.items() if k in takes}

    def wanted(**arguments: Any) -> dict[str, Any]:
        result = kernel.reference(**{k: v for k, v in arguments.items() if k in takes}, **constants)
        return dict(zip(outputs, result if isinstance(result, tuple) else (result,)))

    return Case(
        f"{name}-{dtype}",
        kernel,
        lambda: {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in given.items()},
        wanted,
        choices,
        tolerance=tolerance,
    )


def rows(name: str, dtype: DType, m: int, n: int, tolerance: float, **choices: Any) -> Case:
    given = {"x": normal(dtype, m, n), "out": unwritten(dtype, m, n)}
    return library(f"softmax-{name}", softmax, given, ("out",), dtype, tolerance, T=dtype, **choices)


def norms(name: str, dtype: DType, m: int, n: int, tolerance: float, **choices: Any) -> Case:
    given = {"x": normal(dtype, m, n), "weight": normal(dtype, n), "out": unwritten(dtype, m, n), "eps": 1e-5}
    return library(
        f"rms_norm-{name}", rms_norm, given, ("out",), dtype, tolerance, T=dtype, W=dtype, **choices
    )


def products(
    name: str,
    dtype: DType,
    m: int,
    k: int,
    n: int,
    tolerance: float,
    extra: tuple[str, ...] = (),
    **choices: Any,
) -> Case:
    result = mc.f32 if dtype.bits == 8 else dtype
    given = {"a": normal(dtype, m, k), "b": normal(dtype, k, n), "c": unwritten(result, m, n), "scale": 0.5}
    given |= {
        k: v for k, v in {"bias": normal(result, n), "residual": normal(result, m, n)}.items() if k in extra
    }
    choices = {"BM": 32, "BN": 32, "BK": 32, "arrays": set(extra), **choices}
    return library(f"matmul-{name}", matmul, given, ("c",), dtype, tolerance, T=dtype, U=result, **choices)


def attention(name: str, dtype: DType, s: int, t: int, tolerance: float, **choices: Any) -> Case:
    b, h, hk, d = 2, 4, 2, 32
    given = {
        "q": normal(dtype, b, h, s, d),
        "k": normal(dtype, b, hk, t, d, seed=1),
        "v": normal(dtype, b, hk, t, d, seed=2),
        "out": unwritten(dtype, b, h, s, d),
        "scale": d**-0.5,
    }
    return library(
        f"flash-{name}",
        flash_attention,
        given,
        ("out",),
        dtype,
        tolerance,
        E=dtype,
        BM=32,
        BN=16,
        D=32,
        **choices,
    )


ODD = {"multiples": {"N": 1}}
CASES = [
    *(
        library(
            "add",
            vector_add,
            {"x": normal(t, 300), "y": normal(t, 300, seed=1), "out": unwritten(t, 300)},
            ("out",),
            t,
            0.05,
            T=t,
            BLOCK=128,
        )
        for t in (mc.f32, mc.bf16)
    ),
    rows("one-tile", mc.bf16, 5, 96, 1e-2, BM=2, BN=128),
    rows("two-passes", mc.f32, 5, 300, 1e-5, BM=2, BN=128),
    rows("odd", mc.f32, 5, 99, 1e-5, BM=2, BN=128, **ODD),
    rows("fixed", mc.f16, 5, 128, 1e-3, BM=1, BN=128, dims={"N": 128}),
    norms("one-tile", mc.bf16, 5, 96, 0.1, BM=2, BN=128),
    norms("two-passes", mc.f32, 5, 300, 1e-4, BM=2, BN=128),
    norms("odd", mc.f32, 5, 99, 1e-4, BM=2, BN=128, **ODD),
    products("plain", mc.bf16, 48, 80, 64, 0.2),
    products("plain", mc.f32, 48, 80, 64, 1e-4),
    products("plain", mc.f8e4m3, 48, 80, 64, 1e-3),
    products("odd", mc.f32, 37, 35, 33, 1e-4, multiples={"K": 1, "N": 1}),
    products("epilogue", mc.f16, 48, 80, 64, 0.05, ("bias", "residual"), activation="gelu"),
    products("silu", mc.bf16, 48, 80, 64, 0.2, ("bias",), activation="silu"),
    attention("full", mc.bf16, 40, 56, 0.05),
    attention("causal", mc.f16, 40, 56, 0.01, causal=True),
    attention("odd", mc.f32, 33, 17, 1e-3, causal=True, multiples={"S": 1}),
    attention("window", mc.bf16, 40, 56, 0.05, causal=True, window=20, softcap=2.0),
]
