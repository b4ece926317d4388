"""How good the tiles are that a call takes without tuning: their time over that of the fastest entry of `tune`.

    python benchmarks/first_choices.py [kernel …]      # needs an NVIDIA GPU and PyTorch

A row is a kernel and a shape. The times are those of `kernel.autotune`: rotated arrays, a cold L2 cache, medians.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from gpu import versions
from gpu_rows import normal, result
from rich.console import Console
from rich.table import Table
from torch import Tensor

from mosaic_compile import kernels
from mosaic_compile.runtime.arguments import bind
from mosaic_compile.tuning.candidates import words
from mosaic_compile.tuning.report import Row

ELEMENTS = 2**26  # of arrays of rows: 128 MiB
ROWS = (64, 128, 256, 512, 1000, 1024, 2048, 3000, 4096, 8192, 12288, 16384, 32768)
EPS = 1e-5

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def of_rows(arguments: Callable[[Tensor, Tensor], tuple[Any, ...]]) -> Iterator[tuple[str, Arguments]]:
    """arguments: those of a call with these arrays of rows, the second for the result."""
    for n in ROWS:
        m = ELEMENTS // n
        yield f"{m} x {n}", (arguments(normal(m, n), result(m, n)), {})


def weight(x: Tensor) -> Tensor:
    return normal(x.shape[1])


def pairs() -> Iterator[tuple[str, Arguments]]:
    for n in (128, 512, 1024, 4096, 11008):
        m = ELEMENTS // n
        yield f"{m} x {n}", ((normal(m, n), normal(m, n), result(m, n)), {})


def products() -> Iterator[tuple[str, Arguments]]:
    for m, n, k in (
        (16, 4096, 4096), (64, 4096, 4096), (256, 4096, 4096), (512, 4096, 4096), (1024, 4096, 4096),
        (2048, 2048, 2048), (512, 512, 512), (1024, 1024, 1024), (512, 512, 4096), (4096, 128, 4096),
        (4096, 4096, 4096), (8192, 1024, 8192), (8192, 8192, 8192),
    ):  # fmt: skip
        yield f"{m} x {k} by {k} x {n}", ((normal(m, k), normal(k, n), result(m, n)), {})


def few_rows() -> Iterator[tuple[str, Arguments]]:
    for n, k in ((4096, 4096), (6144, 4096), (28672, 8192)):
        for m in (1, 8, 16, 32, 64, 128):
            yield f"{m} x {k} by {k} x {n}", ((normal(m, k), normal(n, k), result(m, n)), {})


def attention() -> Iterator[tuple[str, Arguments]]:
    for b, h, s, d, causal in (
        (1, 8, 128, 128, False), (1, 32, 512, 128, True), (1, 32, 2048, 128, False), (8, 32, 1024, 64, False),
        (4, 16, 4096, 128, True), (4, 16, 4096, 256, True), (1, 16, 16384, 64, True),
    ):  # fmt: skip
        q, k, v = (normal(b, h, s, d) for _ in range(3))
        name = f"B={b} H={h} S={s} D={d}" + (" causal" if causal else "")
        yield name, ((q, k, v, result(b, h, s, d), d**-0.5), dict(causal=causal))


def rotations() -> Iterator[tuple[str, Arguments]]:
    for s, h in ((1, 32), (64, 32), (8192, 8), (32768, 32)):
        angles = torch.rand(s, 64, device="cuda")
        yield f"{s} x {h} x 128", ((normal(s, h, 128), angles.cos(), angles.sin(), result(s, h, 128)), {})


def lookups() -> Iterator[tuple[str, Arguments]]:
    for words_, d, n in ((1_000_000, 128, 262144), (128_256, 1024, 65536), (128_256, 4096, 32768)):
        indices = torch.randint(words_, (n,), device="cuda", dtype=torch.int32)
        yield f"{n} of {words_} x {d}", ((normal(words_, d), indices, result(n, d)), {})


def losses() -> Iterator[tuple[str, Arguments]]:
    for m, v in ((262144, 100), (65536, 1000), (8192, 32000), (4096, 128_256)):
        labels = torch.randint(v, (m,), device="cuda")
        yield f"{m} x {v}", ((normal(m, v), labels, result(m, dtype=torch.float32)), {})


def counts() -> Iterator[tuple[str, Arguments]]:
    for n, bins in ((2**26, 10), (2**26, 256), (2**26, 1024), (2**22, 128_256)):
        values = torch.randint(bins, (n,), device="cuda", dtype=torch.int32)
        yield f"{n} in {bins}", ((values, torch.zeros(bins, dtype=torch.int32, device="cuda")), {})


CALLS: dict[str, Callable[[], Iterator[tuple[str, Arguments]]]] = {
    "persistent_matmul": products,
    "linear": few_rows,
    "flash_attention": attention,
    "softmax": lambda: of_rows(lambda x, out: (x, out)),
    "rms_norm": lambda: of_rows(lambda x, out: (x, weight(x), out, EPS)),
    "layer_norm": lambda: of_rows(lambda x, out: (x, weight(x), out, EPS, weight(x))),
    "cumsum": lambda: of_rows(lambda x, out: (x, out)),
    "cross_entropy": losses,
    "gated": pairs,
    "rope": rotations,
    "gather_rows": lookups,
    "histogram": counts,
}


def compared(kernel: Any, args: tuple[Any, ...], options: dict[str, Any]) -> tuple[Row, Row]:
    """The entry that an untuned call takes, and the fastest."""
    report = kernel.autotune(*args, progress=False, **options)
    bound = bind(kernel, args, options)
    rows = {words(row.entry): row for row in report.rows if row.state != "failed"}
    choices = map(words, kernel.first_choices("gpu", bound.given, bound.sizes))
    return next(rows[entry] for entry in choices if entry in rows), report.best


def main() -> None:
    parser = argparse.ArgumentParser(description="Untuned calls beside tuned ones.")
    parser.add_argument("kernels", nargs="*", help=f"of {', '.join(CALLS)}; without any, all")
    wanted = parser.parse_args().kernels or list(CALLS)
    if unknown := set(wanted) - CALLS.keys():
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(CALLS)}")
    if not torch.cuda.is_available():
        parser.error("PyTorch finds no CUDA GPU here")
    console = Console(width=160)
    console.print(versions())
    ratios = []
    for name in wanted:
        table = Table(
            "", "untuned, µs", "over the best", "takes", "the best", title=name, title_justify="left"
        )
        for shape, (args, options) in CALLS[name]():
            taken, best = compared(getattr(kernels, name), args, options)
            if taken.timing is None:  # left out: predicted to be slow, or with too few registers
                table.add_row(shape, "", taken.why, words(taken.entry), words(best.entry))
                continue
            ratios.append(taken.microseconds / best.microseconds)
            other = "" if taken is best else words(best.entry)
            row = f"{taken.microseconds:.1f}", f"{ratios[-1]:.2f}", words(taken.entry), other
            table.add_row(shape, *row)
        console.print(table)
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    console.print(f"{len(ratios)} shapes: {mean:.3f} in the geometric mean, at most {max(ratios):.2f}")


if __name__ == "__main__":
    main()
