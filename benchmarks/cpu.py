"""Kernels on this machine's CPU beside NumPy's BLAS and PyTorch, in one run: medians, and how many times as fast.

Each call gets other arrays of a rotating set. Ours is measured first, then the peer: taking turns would leave the BLAS's threads
spinning on the cores that ours has just been given.

Usage: python benchmarks/cpu.py [--threads 1 2] [--rows matmul softmax] [--runs 15]
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle
from statistics import median
from typing import Any

os.environ.pop("OPENBLAS_CORETYPE", None)  # the BLAS is to choose its best code for this machine

import numpy as np
import torch
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


def floats(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def matmul_row(n: int) -> Row:
    def make(rng: np.random.Generator) -> tuple[Callable[[], Any], Callable[[], Any]]:
        a, b, c = floats(rng, n, n), floats(rng, n, n), np.empty((n, n), np.float32)
        out = np.empty_like(c)
        return lambda: matmul(a, b, c, **MATMUL), lambda: np.matmul(a, b, out=out)

    return Row("matmul f32", f"{n}³", "NumPy", 2 * n**3, 12 * n * n, 1.0, make)


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
    )


def softmax_row(m: int, n: int) -> Row:
    def make(rng: np.random.Generator) -> tuple[Callable[[], Any], Callable[[], Any]]:
        x, out = floats(rng, m, n), np.empty((m, n), np.float32)
        t = torch.from_numpy(x)
        return lambda: softmax(x, out, BM=1, BN=n), lambda: torch.softmax(t, 1)

    return Row("softmax f32", f"{m}x{n}", "PyTorch", 0, 8 * m * n, 1.5, make)


def rms_norm_row(m: int, n: int) -> Row:
    def make(rng: np.random.Generator) -> tuple[Callable[[], Any], Callable[[], Any]]:
        x, weight, out = floats(rng, m, n), floats(rng, n), np.empty((m, n), np.float32)
        t, w = torch.from_numpy(x), torch.from_numpy(weight)
        ours = lambda: rms_norm(x, weight, out, 1e-5, BM=1, BN=n)
        return ours, lambda: torch.nn.functional.rms_norm(t, (n,), w, 1e-5)

    return Row("RMSNorm f32", f"{m}x{n}", "PyTorch", 0, 8 * m * n, 1.5, make)


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

    return Row("RoPE f32", f"{s}x{heads}x{d}", "PyTorch", 0, 8 * s * heads * d, 1.5, make)


MATMUL = dict(BM=256, BN=256, BK=256)
ATTENTION = dict(BM=64, BN=64)
ROWS = {
    "matmul": [matmul_row(1024)],
    "attention": [attention_row(2048, 64), attention_row(2048, 128)],
    "softmax": [softmax_row(512, 1024), softmax_row(4096, 4096)],
    "rms_norm": [rms_norm_row(512, 1024), rms_norm_row(4096, 4096)],
    "rope": [rope_row(2048, 32, 128)],
}


def measure(row: Row, runs: int) -> tuple[float, float]:
    """Seconds a call, ours and the peer's."""
    rng = np.random.default_rng(0)
    sets = [row.make(rng) for _ in range(SETS)]
    ours, peers = (_median([calls[side] for calls in sets], runs) for side in (0, 1))
    return ours, peers


def _median(calls: list[Callable[[], Any]], runs: int) -> float:
    for call in calls:
        call()
    times = []
    for _, call in zip(range(runs), cycle(calls)):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return median(times)


def copy_bandwidth() -> float:
    """Bytes a second that a copy of 256 MiB reads and writes."""
    source = np.ones(1 << 25, np.float64)
    target = np.empty_like(source)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        np.copyto(target, source)
        seconds.append(time.perf_counter() - start)
    return 2 * source.nbytes / median(seconds)


def lines(names: list[str], threads: list[int], runs: int) -> Iterator[tuple[str, ...]]:
    for count in threads:
        torch.set_num_threads(count)
        mc.set_num_threads(count)
        for name in names:
            for row in ROWS[name]:
                ours, peers = measure(row, runs)
                rate = (
                    f"{row.flops / ours / 1e9:.0f} GFLOP/s"
                    if row.flops
                    else f"{row.bytes / ours / 1e9:.1f} GB/s"
                )
                ratio = peers / ours
                mark = "" if ratio >= row.wanted else f"below {row.wanted}"
                yield (
                    row.name, row.size, str(count), f"{ours * 1e3:.3f}", f"{peers * 1e3:.3f}", row.peer,
                    f"{ratio:.2f}", mark, rate,
                )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    cores = os.cpu_count() or 1
    parser.add_argument("--threads", type=int, nargs="+", default=[1, cores], help="numbers of threads")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS), help="kernels")
    parser.add_argument("--runs", type=int, default=15, help="measurements of each (15)")
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
    console.print(f"a copy moves {copy_bandwidth() / 1e9:.1f} GB/s on one core")
    table = Table(*("kernel", "size", "threads", "ours, ms", "peer, ms", "peer", "ratio", "", "rate"))
    for count in dict.fromkeys(options.threads):
        with blas.limit(limits=count):
            for line in lines(options.rows, [count], options.runs):
                table.add_row(*line)
    console.print(table)


if __name__ == "__main__":
    main()
