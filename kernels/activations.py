"""Activation functions element by element: GELU, and the gated units of language models."""

import math

import numpy as np

import mosaic_compile as mc

T = mc.DTypeVar("T", mc.bf16, mc.f16, mc.f32)

ACTIVATIONS = ("none", "relu", "gelu", "gelu_tanh", "silu")


def activated_reference(x: np.ndarray, activation: str) -> np.ndarray:
    """The definitions, in float64."""
    x = x.astype(np.float64)
    if activation == "relu":
        return np.maximum(x, 0)
    if activation == "gelu":
        return x / 2 * (1 + np.vectorize(math.erf, otypes=[np.float64])(x / math.sqrt(2)))
    if activation == "gelu_tanh":
        return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    if activation == "silu":
        return x / (1 + np.exp(-x))
    return x


def gelu_reference(x: np.ndarray, *, approximate: str = "none") -> np.ndarray:
    """The definition, in float64."""
    return activated_reference(x, "gelu_tanh" if approximate == "tanh" else "gelu")


def gated_reference(gate: np.ndarray, up: np.ndarray, *, activation: str = "silu") -> np.ndarray:
    """The definition, in float64."""
    return activated_reference(gate, activation) * up.astype(np.float64)


TUNE = dict(
    gpu=[
        dict(BM=8, BN=128, num_warps=2, when=lambda N: N <= 128),
        dict(BM=4, BN=512, num_warps=4, when=lambda N: N <= 512),
        dict(BM=2, BN=1024, num_warps=4, when=lambda N: N <= 1024),
        dict(BM=1, BN=2048, num_warps=4),  # two 16-byte words of each array for a thread, in 16-bit types
        dict(BM=1, BN=4096, num_warps=8),
    ],
    cpu=[dict(BM=1, BN=256), dict(BM=16, BN=64), dict(BM=1, BN=2048)],
)


@mc.kernel(grid=lambda M, N, BM, BN: (mc.cdiv(M, BM), mc.cdiv(N, BN)), tune=TUNE, reference=gelu_reference)
def gelu(
    x: T["M", "N"],
    out: mc.Out[T["M", "N"]],
    *,
    approximate: mc.Const = "none",
    BM: mc.Const = 1,
    BN: mc.Const = 2048,
):
    """out = x * P(X <= x) for a standard normal X, computed in f32 and rounded once.

    x, out: M x N elements of type T. approximate: "none", with the error function, or "tanh", with the
    approximation that GPT-2 made common. BM, BN: the tile of a program.

    Hendrycks and Gimpel, "Gaussian error linear units", 2016.
    """
    assert approximate in ("none", "tanh"), f'approximate is "none" or "tanh", not {approximate!r}'
    m, n = mc.program_id(0), mc.program_id(1)
    block = mc.load(x, (m, n), (BM, BN)).to(mc.f32)
    result = activated(block, "gelu_tanh" if approximate == "tanh" else "gelu")
    mc.store(out, (m, n), result.to(out.dtype))


@mc.kernel(grid=lambda M, N, BM, BN: (mc.cdiv(M, BM), mc.cdiv(N, BN)), tune=TUNE, reference=gated_reference)
def gated(
    gate: T["M", "N"],
    up: T["M", "N"],
    out: mc.Out[T["M", "N"]],
    *,
    activation: mc.Const = "silu",
    BM: mc.Const = 1,
    BN: mc.Const = 2048,
):
    """out = activation(gate) * up, computed in f32 and rounded once.

    gate, up, out: M x N elements of type T; gate and up may be the two halves of one array's columns.
    activation: "silu" (SwiGLU), "gelu" or "gelu_tanh" (GEGLU), "relu" (ReGLU), "none" (bilinear).
    BM, BN: the tile of a program.

    Shazeer, "GLU variants improve transformer", 2020.
    """
    m, n = mc.program_id(0), mc.program_id(1)
    result = activated(mc.load(gate, (m, n), (BM, BN)).to(mc.f32), activation)
    mc.store(out, (m, n), (result * mc.load(up, (m, n), (BM, BN)).to(mc.f32)).to(out.dtype))


def activated(x, activation):
    """An f32 tile after one of ACTIVATIONS, a compile-time name."""
    assert activation in ACTIVATIONS, f"there is no activation {activation!r}"
    if activation == "relu":
        return mc.maximum(x, 0.0)
    if activation == "gelu":
        return 0.5 * x * (1.0 + mc.erf(x * math.sqrt(0.5)))
    if activation == "gelu_tanh":
        return 0.5 * x * (1.0 + mc.tanh(math.sqrt(2 / math.pi) * x * (1.0 + 0.044715 * x * x)))
    if activation == "silu":
        return x * mc.sigmoid(x)
    return x
