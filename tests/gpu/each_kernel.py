"""Run as a process of its own: every kernel of the library on small arrays, compared with its meaning in float64.

    python tests/gpu/each_kernel.py [--device cpu] [--leave-outputs] [kernel …]

Prints a line for each case, and fails where a number is wrong or a kernel has no case. compute-sanitizer sees nothing but the
library's kernels: there is no PyTorch here, and each array is an allocation of the CUDA driver, which ends where the array ends.
"""

from __future__ import annotations

import argparse
import inspect
import itertools
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ml_dtypes import bfloat16, float8_e4m3fn, float8_e5m2

from mosaic_compile import kernels
from mosaic_compile.kernels.quantized_matmul import LANES, quantized
from mosaic_compile.language.kernel import Kernel
from mosaic_compile.runtime import cuda

f16, f32, i8, i32, i64, u8 = np.float16, np.float32, np.int8, np.int32, np.int64, np.uint8
TOLERANCES = {np.dtype(f32): 1e-4, np.dtype(f16): 2**-9, np.dtype(bfloat16): 2**-6}  # others are exact


@dataclass(frozen=True)
class Case:
    """A call. arguments: arrays, scalars, constants and compiler options; outputs are NaN, or 77."""

    kernel: Kernel
    name: str
    arguments: Mapping[str, Any]
    tolerances: Mapping[str, float] = field(default_factory=dict)  # of outputs that are not rounded once

    def written(self) -> list[str]:
        arrays = self.kernel.signature.arrays
        return [a.name for a in arrays if a.spec.access in ("out", "inout") and a.name in self.arguments]

    def expected(self) -> dict[str, np.ndarray]:
        """What the reference gives; scalars and arrays go to it by name."""
        wanted = inspect.signature(self.kernel.reference).parameters
        results = self.kernel.reference(**{n: v for n, v in self.arguments.items() if n in wanted})
        results = results if isinstance(results, tuple) else (results,)
        return dict(zip(self.written(), results, strict=True))

    def tolerance(self, output: str) -> float:
        return self.tolerances.get(output, TOLERANCES.get(self.arguments[output].dtype, 0.0))


# Arrays.

RANDOM = np.random.default_rng(0)


def normal(*shape: int, dtype: Any = f32, scale: float = 1.0) -> np.ndarray:
    return (RANDOM.standard_normal(shape) * scale).astype(dtype)


def unwritten(*shape: int, dtype: Any = f32) -> np.ndarray:
    """An output whose every element the kernel has to write."""
    return np.full(shape, 77 if np.dtype(dtype).kind in "iu" else np.nan, dtype)


class OnGpu:
    """A copy of an array, or memory for it; it is free again when the process ends."""

    def __init__(self, host: np.ndarray, copied: bool):
        self.host, memory = host, np.ascontiguousarray(host).view(u8).reshape(-1)
        with cuda.using_device(0):
            self.address = cuda.allocate(memory.size)
        if copied:
            cuda.upload(0, self.address, memory)
        # NumPy's element type as it is: the interface's text has no word for bf16.
        self.__cuda_array_interface__ = {
            "typestr": host.dtype, "shape": host.shape, "data": (self.address, False), "version": 3
        }  # fmt: skip

    def to_host(self) -> np.ndarray:
        memory = cuda.download(0, self.address, self.address + self.host.nbytes)
        return memory.view(self.host.dtype).reshape(self.host.shape)


# Cases.


def element_by_element() -> Iterator[Case]:
    shapes = {"aligned": (8, 2048, bfloat16), "ragged": (5, 1003, f32), "longer rows": (3, 2500, f16)}
    for name, (m, n, dtype) in shapes.items():
        x, y = normal(m, n, dtype=dtype, scale=3), normal(m, n, dtype=dtype)
        out = unwritten(m, n, dtype=dtype)
        yield Case(kernels.vector_add, name, dict(x=x[0], y=y[0], out=out[0]))
        for approximate in ("none", "tanh"):
            yield Case(kernels.gelu, f"{name}, {approximate}", dict(x=x, out=out, approximate=approximate))
        for activation in ("silu", "relu"):
            yield Case(
                kernels.gated, f"{name}, {activation}", dict(gate=x, up=y, out=out, activation=activation)
            )


def rows() -> Iterator[Case]:
    shapes = {"aligned": (8, 1024, bfloat16), "ragged": (5, 1003, f32), "in blocks": (3, 9001, f16)}
    for name, (m, n, dtype) in shapes.items():
        x, out, of_rows = normal(m, n, dtype=dtype, scale=3), unwritten(m, n, dtype=dtype), unwritten(m)
        weight, bias = normal(n, dtype=dtype), normal(n, dtype=dtype)
        yield Case(kernels.softmax, name, dict(x=x, out=out))
        yield Case(kernels.rms_norm, name, dict(x=x, weight=weight, out=out, eps=1e-5))
        yield Case(
            kernels.layer_norm,
            name,
            dict(x=x, weight=weight, out=out, eps=1e-5, bias=bias, mean=of_rows, rstd=of_rows),
        )
        backwards = dict(exclusive=True, reverse=True) if name == "ragged" else {}
        yield Case(kernels.cumsum, name, dict(x=x, out=out, **backwards))
        whole = RANDOM.integers(-128, 128, (m, n)).astype(i8)
        yield Case(kernels.cumsum, f"{name}, integers", dict(x=whole, out=unwritten(m, n, dtype=i32)))
        labels = np.arange(m) * 7 % n
        labels[m // 2] = -100
        for smoothing in (0.0, 0.1):
            yield Case(
                kernels.cross_entropy,
                f"{name}, smoothed by {smoothing}",
                dict(logits=x, labels=labels, loss=of_rows, lse=of_rows, label_smoothing=smoothing),
            )
    # One scale for all of a group, 1: no number is close to where rounding changes.
    for name, (m, k, dtype) in {"aligned": (4, 1024, f32), "ragged": (3, 700, bfloat16)}.items():
        x = RANDOM.integers(-127, 128, (m, k)).astype(dtype)
        x[:, ::32] = 127
        shape = -(-k // (32 * LANES)), m
        given = dict(q=unwritten(*shape, 32 * LANES, dtype=i8), scales=unwritten(*shape, LANES))
        yield Case(kernels.quantize_rows, name, dict(x=x, **given, sums=unwritten(*shape, LANES, dtype=i32)))


def indexing() -> Iterator[Case]:
    for name, (n, d, dtype, index) in {
        "aligned": (16, 2048, bfloat16, i32),
        "ragged": (7, 1003, i8, i64),
        "bytes": (9, 130, float8_e5m2, i32),
    }.items():
        indices = np.arange(n).astype(index) * 13 % 50
        indices[::5], indices[1::5] = 50, -1  # outside of the table
        out = unwritten(n, d, dtype=dtype)
        table = normal(50, d, dtype=dtype, scale=20)
        yield Case(kernels.gather_rows, name, dict(table=table, indices=indices, out=out))
    for name, (n, bins, dtype) in {
        "aligned": (8192, 256, u8),
        "ragged": (1003, 10, i32),
        "many bins": (1003, 5000, i64),
    }.items():
        values = RANDOM.integers(0, 200, n).astype(dtype)
        yield Case(kernels.histogram, name, dict(values=values, counts=np.arange(bins, dtype=i32)))
    for name, (s, h, d, r, dtype) in {
        "aligned": (16, 8, 128, 64, bfloat16),
        "ragged": (7, 5, 80, 40, f32),
        "part of a head": (7, 8, 96, 16, f16),
    }.items():
        x, angles = normal(s, h, d, dtype=dtype), normal(100, r)
        given = dict(x=x, cos=np.cos(angles), sin=np.sin(angles), out=unwritten(s, h, d, dtype=dtype))
        yield Case(kernels.rope, name, given)
        positions = np.arange(s, dtype=i32) * 17 % 100
        yield Case(kernels.rope, f"{name}, at", dict(**given, positions=positions, interleaved=True))


SMALL = dict(BM=64, BN=64, BK=32, num_warps=4, num_stages=3)
IN_PARTS = dict(BM=128, BN=256, BK=64, num_warps=8, num_stages=4, PARTS=2)


def product(
    m: int, n: int, k: int, dtype: Any, out: Any = None, activation: str | None = None, **more: Any
) -> dict[str, Any]:
    """Factors and a result; with an activation also a scale, a bias and a residual."""
    out = out or dtype
    given = dict(a=normal(m, k, dtype=dtype), b=normal(k, n, dtype=dtype), c=unwritten(m, n, dtype=out))
    if activation is not None:
        given |= dict(bias=normal(n, dtype=out), residual=normal(m, n, dtype=out), scale=0.5)
        given |= dict(activation=activation)
    return given | more


def products() -> Iterator[Case]:
    for kernel in (kernels.matmul, kernels.persistent_matmul):
        yield Case(kernel, "aligned", product(256, 256, 192, bfloat16))
        yield Case(kernel, "cut tiles", product(200, 136, 264, f16, activation="relu"))
        yield Case(kernel, "ragged", product(77, 129, 65, bfloat16, activation="silu", **SMALL))
        # More tiles than multiprocessors.
        yield Case(kernel, "small tiles", product(768, 832, 64, bfloat16, **SMALL))
        yield Case(kernel, "in parts", product(256, 512, 192, bfloat16, **IN_PARTS))
        yield Case(kernel, "f32", product(100, 72, 40, f32, **SMALL))
        yield Case(kernel, "fp8", product(128, 144, 256, float8_e4m3fn, bfloat16))
    yield Case(kernels.matmul, "tf32", product(128, 72, 40, f32, precision="tf32", **SMALL), dict(c=5e-3))

    for name, (of_a, of_b, m, n, k) in {
        "aligned": (3, 3, 128, 128, 64),
        "ragged": (6, 2, 77, 129, 65),
    }.items():
        given = dict(a=normal(of_a, m, k, dtype=bfloat16), b=normal(of_b, k, n, dtype=bfloat16))
        given |= dict(c=unwritten(of_a, m, n, dtype=bfloat16), residual=normal(of_a, m, n, dtype=bfloat16))
        yield Case(kernels.batched_matmul, name, dict(**given, activation="gelu"))

    for kernel in (kernels.split_k_matmul, kernels.stream_k_matmul):
        for name, sizes, tiles in (
            ("aligned", (256, 320, 1024), {}),
            ("small tiles", (256, 320, 1024), SMALL),
            ("ragged", (33, 65, 515), {}),
        ):
            given = product(*sizes, bfloat16, **tiles)
            yield Case(kernel, name, dict(given, c=normal(*sizes[:2]), scale=0.5))

    for name, (m, n, k, tiles) in {
        "aligned": (16, 256, 512, {}),
        "ragged": (3, 100, 1003, {}),
        "one row": (1, 100, 1003, dict(BM=1, BN=8, BK=512, num_warps=4)),
        "more rows": (70, 256, 200, dict(BM=64, BN=128, BK=64, num_warps=4, num_stages=3)),
    }.items():
        x, w = normal(m, k, dtype=bfloat16), normal(n, k, dtype=bfloat16)
        given = dict(x=x, w=w, y=unwritten(m, n, dtype=bfloat16), scale=0.5, activation="silu")
        added = dict(bias=normal(n, dtype=bfloat16), residual=normal(m, n, dtype=bfloat16))
        yield Case(kernels.linear, name, dict(**given, **added, **tiles))

    for bits, (m, n, k) in itertools.product((4, 8), ((16, 32, 1024), (3, 5, 700))):
        words, scales, sums = map(np.ascontiguousarray, kernels.quantize_rows.reference(normal(m, k)))
        w, w_scales = quantized(normal(n, k), bits, group=32)
        given = dict(x=words.view(i32), x_scales=scales, x_sums=sums, w=w, w_scales=w_scales)
        given |= dict(out=unwritten(m, n), BITS=bits)
        name = f"{bits} bits, {'ragged' if m % 16 else 'aligned'}"
        yield Case(kernels.quantized_matmul, name, given)
        yield Case(kernels.quantized_matmul, f"{name}, by rows", given | dict(BM=1, BN=16, num_warps=1))


# Of attention: weights are rounded, too.
TWICE = {dtype: dict(out=2 * TOLERANCES[dtype]) for dtype in map(np.dtype, (f16, bfloat16))}
PLAIN, CAUSAL, WINDOW = {}, dict(causal=True), dict(causal=True, window=40, softcap=5.0)


def attention() -> Iterator[Case]:
    for name, (b, h, hk, s, t, d, dtype, options) in {
        "aligned": (1, 4, 2, 128, 128, 64, bfloat16, PLAIN),
        "aligned, causal": (1, 2, 2, 256, 256, 128, bfloat16, CAUSAL),
        "ragged": (1, 2, 1, 77, 150, 100, f16, PLAIN),
        "ragged, causal": (2, 2, 1, 150, 77, 64, f16, CAUSAL),  # some rows see nothing
        "ragged, window": (1, 2, 1, 150, 150, 80, bfloat16, WINDOW),
    }.items():
        q, k, v = (normal(b, *shape, d, dtype=dtype) for shape in ((h, s), (hk, t), (hk, t)))
        given = dict(q=q, k=k, v=v, out=unwritten(b, h, s, d, dtype=dtype), scale=d**-0.5)
        given |= dict(lse=unwritten(b, h, s), **options)
        yield Case(kernels.flash_attention, name, given, TWICE[q.dtype])

    ragged = [0, 1, 100, 17, 64, 0, 70], [5, 57, 100, 40, 64, 0, 130]  # some of them empty
    for name, (lengths, d, dtype, options) in {
        "aligned": (([64, 128], [64, 128]), 64, bfloat16, PLAIN),
        "ragged": (ragged, 128, f16, PLAIN),
        "ragged, causal": (ragged, 64, bfloat16, CAUSAL),
        "ragged, window": (ragged, 64, f16, WINDOW),
    }.items():
        query_starts, key_starts = (np.cumsum([0, *n], dtype=i32) for n in lengths)
        s, t = query_starts[-1], key_starts[-1]
        q, k, v = (normal(*shape, d, dtype=dtype) for shape in ((s, 4), (t, 2), (t, 2)))
        given = dict(q=q, k=k, v=v, out=unwritten(*q.shape, dtype=dtype), scale=d**-0.5, lse=unwritten(4, s))
        given |= dict(query_starts=query_starts, key_starts=key_starts, **options)
        yield Case(kernels.varlen_attention, name, given, TWICE[q.dtype])

    for page, splits, groups in itertools.product((16, 64), (1, 3), (4, 20)):
        d, dtype, options = (64, f16, dict(window=70, softcap=5.0)) if groups > 16 else (128, bfloat16, {})
        given = paged(page, splits, groups, d, dtype) | options
        name = f"pages of {page}, {splits} splits, {groups} heads"
        yield Case(kernels.paged_attention, name, given, TWICE[np.dtype(dtype)])

    for name, (splits, n, d, dtype) in {
        "aligned": (3, 16, 128, bfloat16),
        "ragged": (20, 5, 80, f16),
    }.items():
        lses = normal(splits, n, scale=3)
        lses[1:, 0] = lses[:, 1] = -np.inf  # parts without keys, and a row without any
        parts = np.where(np.isneginf(lses)[..., None], 0, normal(splits, n, d))
        given = dict(parts=parts, lses=lses, out=unwritten(n, d, dtype=dtype), lse=unwritten(n))
        yield Case(kernels.merge_attention, name, given)


def paged(page: int, splits: int, groups: int, d: int, dtype: Any) -> dict[str, Any]:
    """A step of decoding. What belongs to no sequence is NaN."""
    lengths, heads = np.array([0, 1, 150, 64, 257], i32), 2
    most = -(-257 // page)
    table = RANDOM.permutation(5 * most + 3)[: 5 * most].reshape(5, most).astype(i32)
    read = np.zeros((5 * most + 3, page), bool)
    for b, length in enumerate(lengths):
        tokens = np.arange(length)
        read[table[b, tokens // page], tokens % page] = True
    k_cache, v_cache = (normal(*read.shape, heads, d, dtype=dtype) for _ in range(2))
    k_cache[~read] = v_cache[~read] = np.nan
    result = dict(out=unwritten(splits, 5, heads, groups, d), lse=unwritten(splits, 5, heads, groups))
    given = dict(q=normal(5, heads, groups, d, dtype=dtype), k_cache=k_cache, v_cache=v_cache)
    return dict(**given, page_table=table, lengths=lengths, **result, scale=d**-0.5, BN=64)


def cases() -> Iterator[Case]:
    for family in (element_by_element, rows, indexing, products, attention):
        yield from family()


# Running them.


def results(case: Case, device: str, leave_outputs: bool) -> dict[str, np.ndarray]:
    """What the kernel writes."""
    arrays = {a.name: a.spec.access for a in case.kernel.signature.arrays if a.name in case.arguments}
    if device == "cpu":
        given = {name: case.arguments[name].copy() for name in arrays}
        case.kernel(**{**case.arguments, **given})
        return {name: given[name] for name in case.written()}
    on_gpu = {
        name: OnGpu(case.arguments[name], copied=access != "out" or not leave_outputs)
        for name, access in arrays.items()
    }
    case.kernel(**{**case.arguments, **on_gpu})
    return {name: on_gpu[name].to_host() for name in case.written()}


def error(result: np.ndarray, expected: np.ndarray) -> float:
    """The largest error, in parts of its element and of the mean together; infinite where NaN and infinities differ."""
    result, expected = result.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(expected)
    if not np.array_equal(result[~finite], expected[~finite], equal_nan=True):
        return np.inf
    result, expected = result[finite], expected[finite]
    if not np.isfinite(result).all():
        return np.inf
    size = abs(expected) + np.mean(abs(expected)) + np.finfo(np.float64).tiny
    return float(np.max(abs(result - expected) / size, initial=0))


def main() -> None:
    parser = argparse.ArgumentParser(description="Every kernel of the library, compared with its reference.")
    parser.add_argument("kernels", nargs="*", help="only these")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument(
        "--leave-outputs",
        action="store_true",
        help="as the GPU's memory comes, instead of NaN: initcheck then sees who reads them",
    )
    given = parser.parse_args()
    every = list(cases())
    if missing := {*kernels.__all__} - {case.kernel.name for case in every}:
        sys.exit(f"kernels without a case: {', '.join(sorted(missing))}")
    if unknown := {*given.kernels} - {*kernels.__all__}:
        sys.exit(f"no kernels of the library: {', '.join(sorted(unknown))}")
    wrong = 0
    for case in every:
        if given.kernels and case.kernel.name not in given.kernels:
            continue
        expected = case.expected()
        found = results(case, given.device, given.leave_outputs)
        errors = {name: error(found[name], expected[name]) for name in expected}
        bad = [name for name in errors if errors[name] > case.tolerance(name)]
        wrong += bool(bad)
        verdict = f"WRONG: {', '.join(bad)}" if bad else "ok"
        print(f"{case.kernel.name:18} {case.name:34} {max(errors.values()):.1e} {verdict}", flush=True)
    sys.exit(f"{wrong} cases are wrong" if wrong else 0)


if __name__ == "__main__":
    main()
