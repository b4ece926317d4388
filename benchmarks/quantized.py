"""Products by quantized weights, ours and llama.cpp's, for cpu.py. Both quantize the activations first."""

from __future__ import annotations

import functools
import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import callgrind
import ggml
import numpy as np
import torch

import mosaic_compile as mc
from mosaic_compile.kernels import quantize_rows, quantized_matmul
from mosaic_compile.kernels.quantized_matmul import LANES, quantized

SETS = 3  # of weights, which the calls rotate through
KINDS = {4: ggml.Q4_0, 8: ggml.Q8_0}
DECODE, PREFILL = dict(BM=1, BN=1), dict(BM=8, BN=16)
COUNTED_ROWS = 256  # of weights: instructions are in proportion

Call = Callable[[], Any]


def weight_bytes(bits: int, n: int, k: int) -> int:
    """What a product reads: numbers and scales, in both layouts."""
    return n * k // ggml.BLOCK * ggml.BYTES[KINDS[bits]]


def tiles(m: int) -> dict[str, int]:
    return DECODE if m == 1 else PREFILL


def floats(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def aligned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Zeros that start at a cache line, as arrays of PyTorch and of ggml do."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    room = np.zeros(size + 64, np.uint8)
    start = -room.ctypes.data % 64
    return room[start : start + size].view(dtype).reshape(shape)


@functools.cache
def weights_of(bits: int, n: int, k: int) -> tuple[list[np.ndarray], ...]:
    """Of SETS matrices, the words, the scales, and ggml's blocks; the matrices are one, its rows in other places."""
    w = floats(1, n, k)
    words, scales = quantized(w, bits, ggml.BLOCK)
    blocks = ggml.quantized(w, KINDS[bits]).reshape(n, -1)
    found = [[aligned(a.shape, a.dtype) for _ in range(SETS)] for a in (words, scales, blocks)]
    for copies, a in zip(found, (words, scales, blocks)):
        for i, copy in enumerate(copies):
            copy[...] = np.roll(a, i, axis=0)
    return tuple(found)


@functools.cache
def peer_of(bits: int, m: int, n: int, k: int, threads: int) -> ggml.Products:
    return ggml.Products(KINDS[bits], floats(2, m, k), n, weights_of(bits, n, k)[2], threads)


def activations(m: int, k: int) -> tuple[np.ndarray, ...]:
    """x, and room for its numbers, scales and sums."""
    blocks = -(-k // (LANES * ggml.BLOCK))
    room = [((blocks, m, LANES * ggml.BLOCK), np.int8)]
    room += [((blocks, m, LANES), dtype) for dtype in (np.float32, np.int32)]
    return floats(2, m, k), *(aligned(*each) for each in room)


def maker(bits: int, m: int, n: int, k: int) -> Callable[[np.random.Generator], tuple[Call, Call]]:
    """What gives a call of ours and one of llama.cpp's, by the next of the weights."""
    numbers = itertools.count()

    def make(_: np.random.Generator) -> tuple[Call, Call]:
        index = next(numbers) % SETS
        words, scales = (each[index] for each in weights_of(bits, n, k)[:2])
        x, q, x_scales, sums = activations(m, k)
        out, peer = aligned((m, n), np.float32), peer_of(bits, m, n, k, torch.get_num_threads())

        def ours() -> None:
            quantize_rows(x, q, x_scales, sums)
            quantized_matmul(q.view(np.int32), x_scales, sums, words, scales, out, BITS=bits, **tiles(m))

        ours()
        peer.compute(index)
        other = peer.result(index)
        assert np.linalg.norm(out - other) < 0.2 * np.linalg.norm(other), "the products are not the same"
        return ours, lambda: peer.compute(index)

    return make


def counted(bits: int, m: int, k: int) -> tuple[float, float]:
    """Instructions for a product of two numbers, ours for x86-64-v3 and llama.cpp's."""
    n, blocks = COUNTED_ROWS, -(-k // (LANES * ggml.BLOCK))
    given = tiles(m) | dict(BITS=bits, L=LANES * ggml.BLOCK * bits // 32)
    artifacts = [
        mc.compile(quantize_rows, "x86-64-v3", T="f32"),
        mc.compile(quantized_matmul, "x86-64-v3", dims={"B": blocks}, multiples={"N": 16}, **given),
    ]
    sizes = dict(bits=bits, m=m, n=n, k=k, blocks=blocks)
    with tempfile.TemporaryDirectory() as folder:
        for artifact in artifacts:
            artifact.save(Path(folder) / artifact.manifest["kernel"])
        paths = [str(Path(__file__).parent), *map(str, ggml.folders())]
        start = f"import sys; sys.path[:0] = {paths}\n"
        ours = callgrind.instructions(start + _OURS.format(folder=folder, **sizes), "ours()")
        peers = callgrind.instructions(start + _PEER.format(**sizes), "peer.compute(0)")
    return ours / (m * n * k), peers / (m * n * k)


# Without the compiler, which would take minutes there: arrays of zeros are as good as others.
_OURS = """
import numpy as np
from mosaic_compile.runtime.load import load_artifact

def zeros(shape, dtype):
    room = np.zeros(int(np.prod(shape)) * np.dtype(dtype).itemsize + 64, np.uint8)
    return room[-room.ctypes.data % 64 :][: len(room) - 64].view(dtype).reshape(shape)

quantize, multiply = (load_artifact({folder!r} + "/" + name) for name in ("quantize_rows", "quantized_matmul"))
x, q = np.ones(({m}, {k}), np.float32), zeros(({blocks}, {m}, 512), np.int8)
x_scales, sums = zeros(({blocks}, {m}, 16), np.float32), zeros(({blocks}, {m}, 16), np.int32)
w, w_scales = zeros(({n}, {blocks}, 16 * {bits}), np.uint32), zeros(({n}, {blocks}, 16), np.float16)
out = zeros(({m}, {n}), np.float32)

def ours():
    quantize(x, q, x_scales, sums)
    multiply(q.view(np.int32), x_scales, sums, w, w_scales, out)
"""
_PEER = """
import numpy as np
import ggml

kind = {{4: ggml.Q4_0, 8: ggml.Q8_0}}[{bits}]
w = np.random.default_rng(0).standard_normal(({n}, {k})).astype(np.float32)
peer = ggml.Products(kind, np.ones(({m}, {k}), np.float32), {n}, [ggml.quantized(w, kind)], 1)
"""
