"""Kernels on this machine's CPU beside NumPy's BLAS, PyTorch and llama.cpp, in one run: medians, and how many times as fast.

Each call gets other arrays of a rotating set. Ours is measured first, then the peer: taking turns would leave the BLAS's threads
spinning on the cores that ours has just been given.

Usage: python benchmarks/cpu.py [--threads 1 2] [--rows matmul softmax] [--runs 15] [--best] [--instructions]
"""

from __future__ import annotations

import argparse
import functools
import os
import platform
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle
from statistics import median
from typing import Any

os.environ.pop("OPENBLAS_CORETYPE", None)  # the BLAS is to choose its best code for this machine

import ggml
import numpy as np
import quantized
import torch
from counted import COUNTED, counted
from rich.console import Console
from rich.table import Table

import mosaic_compile as mc
from mosaic_compile.kernels import flash_attention, matmul, rms_norm, rope, softmax

SETS = 3  # of arguments, which the calls rotate through


@dataclass(frozen=True)
class Row:
    """A kernel on inputs of one size: `make` gives a call of ours, one of the peer's, and what both compute."""

    name: str
    size: str
    peer: str
    flops: float
    bytes: float
    wanted: float  # the ratio to reach
    make: Callable[[np.random.Generator], tuple[Callable[[], Any], Callable[[], Any]]]
    count: Callable[[], tuple[float, float]] | None = (
        None  # instructions for each product of two numbers, or for each element
    )


def count_of(name: str) -> Callable[[], tuple[float, float]]:
    return functools.partial(counted, COUNTED[name])


def floats(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def matmul_row(n: int) -> Row:
    def make(rng: np.random.Generator) -> tuple[Callable[[], Any], Callable[[], Any]]:
        a, b, c = floats(rng, n, n), floats(rng, n, n), np.empty((n, n), np.float32)
        out = np.empty_like(c)
        return lambda: matmul(a, b, c, **MATMUL), lambda: np.matmul(a, b, out=out)

    return Row("matmul f32", f"{n}³", "NumPy", 2 * n**3, 12 * n * n, 1.0, make, count_of("matmul"))


def bf16_matmul_row(n: int) -> Row:
    """PyTorch's product is oneDNN's."""

    def make(rng: np.random.Generator) -> tuple[Callable[[], Any], Callable[[], Any]]:
        a, b, c, out = (torch.from_numpy(floats(rng, n, n)).bfloat16() for _ in range(4))
        return lambda: matmul(a, b, c, **MATMUL), lambda: torch.matmul(a, b, out=out)

    return Row("matmul bf16", f"{n}³", "PyTorch", 2 * n**3, 6 * n * n, 1.0, make)


def attention_row(s: int, d: int, heads: int = 4) -> Row:
    def make(rng: np.random.Generator) -> tuple[Callable[[], Any], Callable[[], Any]]:
        q, k, v = (floats(rng, 1, heads, s, d) for _ in range(3))
        out = np.empty_like(q)
        tq, tk, tv = map(torch.from_numpy, (q, k, v))
        ours = lambda: flash_attention(q, k, v, out, d**-0.5, **ATTENTION)
        return ours, lambda: torch.nn.functional.scaled_dot_product_attention(tq, tk, tv)

    return Row(
        "attention f32",
        f"H={heads} S={s} D={d}",
        "PyTorch",
        4 * heads * s * s * d,
        16 * heads * s * d,
        1.2,
        make,
        count_of(f"attention {d}"),
    )


def softmax_row(m: int, n: int) -> Row:
    def make(rng: np.random.Generator) -> tuple[Callable[[], Any], Callable[[], Any]]:
        x, out = floats(rng, m, n), np.empty((m, n), np.float32)
        t = torch.from_numpy(x)
        return lambda: softmax(x, out, BM=1, BN=n), lambda: torch.softmax(t, 1)

    return Row("softmax f32", f"{m}x{n}", "PyTorch", 0, 8 * m * n, 1.5, make, count_of("softmax"))


def rms_norm_row(m: int, n: int) -> Row:
    def make(rng: np.random.Generator) -> tuple[Callable[[], Any], Callable[[], Any]]:
        x, weight, out = floats(rng, m, n), floats(rng, n), np.empty((m, n), np.float32)
        t, w = torch.from_numpy(x), torch.from_numpy(weight)
        ours = lambda: rms_norm(x, weight, out, 1e-5, BM=1, BN=n)
        return ours, lambda: torch.nn.functional.rms_norm(t, (n,), w, 1e-5)

    return Row("RMSNorm f32", f"{m}x{n}", "PyTorch", 0, 8 * m * n, 1.5, make, count_of("rms_norm"))


def rope_row(s: int, heads: int, d: int) -> Row:
    def make(rng: np.random.Generator) -> tuple[Callable[[], Any], Callable[[], Any]]:
        x, out = floats(rng, s, heads, d), np.empty((s, heads, d), np.float32)
        angles = np.outer(np.arange(s), 10000.0 ** (-np.arange(d // 2) / (d // 2)))
        cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
        t = torch.from_numpy(x)
        c, i = (torch.from_numpy(np.tile(a, (1, 2)))[:, None, :] for a in (cos, sin))

        def eager() -> torch.Tensor:
            first, second = t.chunk(2, -1)
            return t * c + torch.cat((-second, first), -1) * i

        return lambda: rope(x, cos, sin, out), eager

    return Row("RoPE f32", f"{s}x{heads}x{d}", "PyTorch", 0, 8 * s * heads * d, 1.5, make, count_of("rope"))


def quantized_row(bits: int, m: int, n: int, k: int) -> Row:
    flops, read = 2 * m * n * k * (m > 1), quantized.weight_bytes(bits, n, k)
    count = functools.partial(quantized.counted, bits, m, k)
    make = quantized.maker(bits, m, n, k)
    return Row(f"matmul, {bits} bits", f"{m}x{n}x{k}", "llama.cpp", flops, read, 0.9, make, count)


MATMUL = dict(BM=256, BN=128, BK=256)
ATTENTION = dict(BM=64, BN=64)
ROWS = {
    "matmul": [matmul_row(1024)],
    "matmul_bf16": [bf16_matmul_row(1024)],
    "attention": [attention_row(2048, 64), attention_row(2048, 128)],
    "softmax": [softmax_row(512, 1024), softmax_row(4096, 4096)],
    "rms_norm": [rms_norm_row(512, 1024), rms_norm_row(4096, 4096)],
    "rope": [rope_row(2048, 32, 128)],
    "quantized": [quantized_row(b, *s) for b in (8, 4) for s in ((1, 4096, 14336), (64, 4096, 4096))],
}


def measure(row: Row, runs: int, statistic: Callable[[list[float]], float]) -> tuple[float, float]:
    """Seconds a call, ours and the peer's."""
    rng = np.random.default_rng(0)
    sets = [row.make(rng) for _ in range(SETS)]
    ours, peers = (statistic(_seconds([calls[side] for calls in sets], runs)) for side in (0, 1))
    return ours, peers


def _seconds(calls: list[Callable[[], Any]], runs: int) -> list[float]:
    for call in calls:
        call()
    times = []
    for _, call in zip(range(runs), cycle(calls)):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times


def copy_bandwidth(threads: int) -> float:
    """Bytes a second that NumPy's copy of 256 MiB reads and writes, a part on each thread; the best of several."""
    source = np.ones(1 << 25, np.float64)
    target = np.zeros_like(source)
    parts = [np.array_split(a, threads) for a in (target, source)]
    seconds = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(8):
            start = time.perf_counter()
            list(pool.map(np.copyto, *parts))
            seconds.append(time.perf_counter() - start)
    return 2 * source.nbytes / min(seconds)


def lines(
    names: list[str], threads: list[int], runs: int, statistic: Callable[[list[float]], float]
) -> Iterator[tuple[str, ...]]:
    for count in threads:
        torch.set_num_threads(count)
        mc.set_num_threads(count)
        copied = copy_bandwidth(count)
        for name in names:
            for row in ROWS[name]:
                ours, peers = measure(row, runs, statistic)
                rate = (
                    f"{row.flops / ours / 1e9:.0f} GFLOP/s"
                    if row.flops
                    else f"{row.bytes / ours / 1e9:.1f} GB/s, {row.bytes / ours / copied:.2f} of a copy"
                )
                ratio = peers / ours
                mark = "" if ratio >= row.wanted else f"below {row.wanted}"
                yield (
                    row.name, row.size, str(count), f"{ours * 1e3:.3f}", f"{peers * 1e3:.3f}", row.peer,
                    f"{ratio:.2f}", mark, rate,
                )  # fmt: skip


def instructions(rows: list[Row]) -> Table:
    table = Table(
        *("kernel", "size", "ours", "peer", "peer / ours"),
        title="instructions for each product of two numbers, or each element",
    )
    for row in rows:
        assert row.count is not None
        ours, peers = row.count()
        table.add_row(row.name, row.size, f"{ours:.3f}", f"{peers:.3f}", f"{peers / ours:.2f}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    cores = os.cpu_count() or 1
    parser.add_argument("--threads", type=int, nargs="+", default=[1, cores], help="numbers of threads")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS), help="kernels")
    parser.add_argument("--instructions", action="store_true", help="count them too, by valgrind, as AVX2")
    parser.add_argument("--runs", type=int, default=15, help="measurements of each (15)")
    parser.add_argument(
        "--best", action="store_true", help="the fastest of them, where others use the machine too"
    )
    options = parser.parse_args()
    from threadpoolctl import ThreadpoolController

    target = mc.targets.host_cpu()
    console = Console(width=150)
    console.print(
        f"{time.strftime('%Y-%m-%d')}, {target.cpu} ({8 * target.vector_bytes}-bit vectors), {cores} cores, "
        f"Python {platform.python_version()}, NumPy {np.__version__}, PyTorch {torch.__version__}"
    )
    blas = ThreadpoolController().select(user_api="blas")
    console.print(f"BLAS: {[(i['internal_api'], i.get('architecture')) for i in blas.info()]}")
    rows = [name for name in options.rows if name != "quantized" or ggml.is_installed()]
    if rows != options.rows:
        console.print("not measured: quantized, which needs llama.cpp (pip install xllamacpp)")
    table = Table(*("kernel", "size", "threads", "ours, ms", "peer, ms", "peer", "ratio", "", "rate"))
    for count in dict.fromkeys(options.threads):
        with blas.limit(limits=count):
            for line in lines(rows, [count], options.runs, min if options.best else median):
                table.add_row(*line)
    console.print(table)
    if options.instructions:
        console.print(instructions([row for name in rows for row in ROWS[name] if row.count]))


if __name__ == "__main__":
    main()
