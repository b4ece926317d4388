"""The kernel library on an NVIDIA GPU beside cuBLAS, cuDNN, Inductor's Triton, FlexAttention and Pallas.

    python benchmarks/gpu.py                          # everything
    python benchmarks/gpu.py matmul linear            # some groups
    python benchmarks/gpu.py --without Inductor Pallas --json results.json

All sides of a row take turns in one process, as CUDA graphs that go round several sets of inputs, together larger than
the L2 cache; a time is the median of the turns. Ours is tuned first (`kernel.autotune`), and its result compared with
float64. The limits are measured too: a copy's bandwidth, counting what is read and written, and the best rate of a
product by cuBLAS. Pallas's kernels are timed by JAX's profiler, after the others. benchmarks/roofline.py draws what
--json writes.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import gpu_pallas
import torch
from gpu_rows import GROUPS, Row, normal
from rich.console import Console
from rich.table import Table

TURNS = 9
WARM_UP = 200
COLD = 150 * 2**20  # bytes: three times the largest L2 cache of Hopper
MOST_SETS = 16
LEAST_SECONDS = 2e-3  # of a graph
TOLERANCE = 1e-2  # of the norm, for bf16

console = Console(width=180)


@dataclass
class Result:
    """A measured row. seconds: of each side. notes: what could not be measured, and why."""

    group: str
    name: str
    flops: float
    bytes: float
    goals: Mapping[str, float]
    error: float = math.nan
    constants: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def captured(run: Callable[[Any], Any], sets: Sequence[Any], launches: int) -> torch.cuda.CUDAGraph:
    """A graph of so many launches, each with the next set. What a call compiles or allocates, it does before."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for s in sets:
            run(s)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        for number in range(launches):
            run(sets[number % len(sets)])
    return graph


def medians(graphs: Mapping[str, torch.cuda.CUDAGraph], launches: int) -> dict[str, float]:
    """Seconds of a launch of each, which take turns; the first turn only warms up."""
    times: dict[str, list[float]] = {name: [] for name in graphs}
    for turn in range(TURNS + 1):
        for name, graph in graphs.items():
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            graph.replay()
            end.record()
            end.synchronize()
            if turn:
                times[name].append(begin.elapsed_time(end) / 1e3 / launches)
    return {name: median(of_name) for name, of_name in times.items()}


def measure(row: Row, without: Sequence[str]) -> Result:
    """Measures a row; raises RuntimeError where our result is wrong."""
    result = Result(row.group, row.name, row.flops, row.bytes, row.goals)
    sets = [row.inputs() for _ in range(max(2, min(MOST_SETS, math.ceil(COLD / row.bytes))))]
    sides = {name: run for name, run in row.peers.items() if name not in without}
    sides["ours"], result.constants = row.ours(sets[0])
    sides["ours"](sets[0])
    result.error = row.error(sets[0])
    if not result.error <= TOLERANCE:
        raise RuntimeError(f"{row.group} {row.name}: the result differs from float64 by {result.error:.2g}")
    least = max(row.bytes / 5e12, row.flops / 1e15)
    launches = max(len(sets), min(100, math.ceil(LEAST_SECONDS / least)))
    graphs = {}
    for name, run in sides.items():
        try:
            graphs[name] = captured(run, sets, launches)
        except RuntimeError as error:
            result.notes.append(f"{name}: {str(error).splitlines()[0][:100]}")
    result.seconds = medians(graphs, launches)
    del graphs, sets
    torch.cuda.empty_cache()
    if row.pallas and "Pallas" not in without:
        try:
            result.seconds["Pallas"] = gpu_pallas.seconds(**row.pallas)
        except (ImportError, ValueError, NotImplementedError, RuntimeError) as error:
            result.notes.append(f"Pallas: {str(error).splitlines()[0][:100]}")
    return result


def limits() -> dict[str, float]:
    """What this card reaches: bytes a second of a copy, both ways counted, and floating-point operations a second."""
    arrays = [(normal(2**28), normal(2**28)) for _ in range(2)]
    copy = captured(
        lambda s: torch.add(s[0], 0, out=s[1]), arrays, 8
    )  # copy_ would not be a kernel in a graph
    factors = [(normal(8192, 8192), normal(8192, 8192)) for _ in range(2)]
    product = captured(lambda s: s[0] @ s[1], factors, 4)
    for _ in range(WARM_UP):  # clocks rise under load
        copy.replay()
    return {
        "bytes": 2 * 2**29 / medians({"": copy}, 8)[""],
        "flops": 2 * 8192**3 / medians({"": product}, 4)[""],
    }


def ratios(result: Result, limit: Mapping[str, float]) -> dict[str, float]:
    """How many times as fast ours is as each peer, and its share of the copy's bandwidth."""
    ours = result.seconds["ours"]
    found = {name: time / ours for name, time in result.seconds.items() if name != "ours"}
    return {**found, "copy": result.bytes / ours / limit["bytes"]}


def show(group: str, results: Sequence[Result], limit: Mapping[str, float]) -> None:
    """A table of a group; what falls short of its goal is red."""
    peers = list(dict.fromkeys(name for r in results for name in r.seconds if name != "ours"))
    table = Table(title=group, title_justify="left")
    for column in ("", "ours", "rate", *peers, "of copy", "error", "constants"):
        table.add_column(column, justify="left" if column in ("", "constants") else "right")
    for r in results:
        ours, found = r.seconds["ours"], ratios(r, limit)
        bound = r.flops / r.bytes > limit["flops"] / limit["bytes"]
        rate = f"{r.flops / ours / 1e12:.0f} TFLOP/s" if bound else f"{r.bytes / ours / 1e12:.2f} TB/s"
        cells = {
            name: f"{r.seconds[name] * 1e6:.1f} ({found[name]:.2f})" for name in peers if name in r.seconds
        }
        cells["copy"] = f"{found['copy']:.2f}"
        for name, goal in r.goals.items():
            if name in cells:
                cells[name] = f"[{'green' if found[name] >= goal else 'red'}]{cells[name]}[/]"
        table.add_row(
            r.name, f"{ours * 1e6:.1f}", rate, *(cells.get(p, "") for p in peers), cells["copy"], f"{r.error:.1g}", r.constants
        )  # fmt: skip
    console.print(table)
    for name in peers:
        of_all = [ratios(r, limit)[name] for r in results if name in r.seconds]
        console.print(
            f"geometric mean of {name}'s time over ours: {math.exp(sum(map(math.log, of_all)) / len(of_all)):.3f}"
        )
    for r in results:
        for note in r.notes:
            console.print(f"{r.name}: {note}", highlight=False)


def versions() -> dict[str, str]:
    import triton

    import mosaic_compile

    return {
        "date": date.today().isoformat(),
        "card": torch.cuda.get_device_name(),
        "CUDA": str(torch.version.cuda),
        "PyTorch": torch.__version__,
        "Triton": triton.__version__,
        "mosaic_compile": mosaic_compile.__version__,
        "Python": platform.python_version(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Our kernels beside others on an NVIDIA GPU.")
    parser.add_argument("groups", nargs="*", help=f"of {', '.join(GROUPS)}; without any, all")
    parser.add_argument(
        "--without", nargs="*", default=[], metavar="PEER", help="leave out: Inductor, Pallas, flex …"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the results for benchmarks/roofline.py"
    )
    options = parser.parse_args()
    unknown = {*options.groups} - GROUPS.keys()
    if unknown:
        parser.error(f"there is no group {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}")
    if not torch.cuda.is_available():
        parser.error("PyTorch finds no CUDA GPU here")
    about, limit = versions(), limits()
    console.print(about, f"copy {limit['bytes'] / 1e12:.2f} TB/s, cuBLAS {limit['flops'] / 1e12:.0f} TFLOP/s")
    results: list[Result] = []
    for group in options.groups or GROUPS:
        of_group = [measure(row, options.without) for row in GROUPS[group]()]
        show(group, of_group, limit)
        results += of_group
        if options.json:
            found = {"about": about, "limits": limit, "results": [asdict(r) for r in results]}
            options.json.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
