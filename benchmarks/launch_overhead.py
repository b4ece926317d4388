"""Time from a call in Python until the kernel is on the GPU's queue: ours, and Triton's own launches of the same kernels.

The kernels are so small that the GPU is done before the next one comes; the queue is emptied between batches. For a product the
three TMA descriptors are made by the host: ours from the tensors at each new address, Triton's once, before anything is timed.

Usage: python benchmarks/launch_overhead.py [--batches 200]   (needs an NVIDIA GPU, PyTorch and Triton)
"""

from __future__ import annotations

import argparse
import datetime
import statistics
import sys
import time
from collections.abc import Callable

from mosaic_compile.kernels import matmul, vector_add

BATCH = 100  # launches, fewer than the driver queues without waiting
ELEMENTS, BLOCK = 4096, 1024
SIDE, BM, BN, BK = 256, 128, 128, 64


def microseconds(call: Callable[[], object], batches: int) -> float:
    """The median over batches of the time of one call."""
    import torch

    for _ in range(BATCH):
        call()
    times = []
    for _ in range(batches):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(BATCH):
            call()
        times.append((time.perf_counter() - start) / BATCH)
    torch.cuda.synchronize()
    return statistics.median(times) * 1e6


def additions() -> dict[str, Callable[[], object]]:
    import torch
    import triton_kernels

    x, y = (torch.randn(ELEMENTS, device="cuda") for _ in range(2))
    outs = [torch.empty_like(x) for _ in range(3)]
    run = vector_add.compile(x, y, outs[1])
    theirs, grid = triton_kernels.vector_add, (ELEMENTS // BLOCK,)
    calls = {
        "ours, called": lambda: vector_add(x, y, outs[0]),
        "ours, compiled": lambda: run(x, y, outs[1]),
        "Triton": lambda: theirs[grid](x, y, outs[2], ELEMENTS, BLOCK=BLOCK),
        "torch.add": lambda: torch.add(x, y, out=outs[0]),
    }
    for call in calls.values():
        call()
    for out in outs:
        torch.testing.assert_close(out, x + y)
    return calls


def products() -> dict[str, Callable[[], object]]:
    import torch
    import triton_kernels
    from triton.tools.tensor_descriptor import TensorDescriptor

    a, b = (torch.randn(SIDE, SIDE, device="cuda").bfloat16() for _ in range(2))
    outs = [torch.empty_like(a) for _ in range(3)]
    tiles = dict(BM=BM, BN=BN, BK=BK)
    run = matmul.compile(a, b, outs[1])
    blocks = ((BM, BK), (BK, BN), (BM, BN))
    descriptors = [TensorDescriptor.from_tensor(t, list(s)) for t, s in zip((a, b, outs[2]), blocks)]
    theirs, grid = triton_kernels.matmul, (SIDE // BM, SIDE // BN)
    calls = {
        "ours, called": lambda: matmul(a, b, outs[0]),
        "ours, compiled": lambda: run(a, b, outs[1]),
        "Triton": lambda: theirs[grid](*descriptors, SIDE, **tiles),
        "torch.mm": lambda: torch.mm(a, b, out=outs[0]),
    }
    for call in calls.values():
        call()
    expected = (a.double() @ b.double()).cpu()
    for out in outs:
        error = torch.linalg.norm(out.cpu().double() - expected) / torch.linalg.norm(expected)
        assert error < 2**-8, error
    return calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=200)
    batches = parser.parse_args().batches
    try:
        import torch
        import triton
    except ImportError as error:
        sys.exit(f"launch_overhead.py needs PyTorch and Triton: {error}")
    if not torch.cuda.is_available():
        sys.exit("launch_overhead.py needs an NVIDIA GPU and a PyTorch for it")
    print(
        f"{datetime.date.today()}, {torch.cuda.get_device_name()}, Python {sys.version.split()[0]}, "
        f"PyTorch {torch.__version__}, Triton {triton.__version__}; microseconds, medians of {batches} batches of {BATCH}"
    )
    print("| kernel | launched by | µs | of Triton's |\n| --- | --- | --- | --- |")
    for name, calls in (("vector add", additions()), ("matmul, 3 descriptors", products())):
        found = {by: microseconds(call, batches) for by, call in calls.items()}
        for by, time_ in found.items():
            print(f"| {name} | {by} | {time_:.2f} | {time_ / found['Triton']:.2f} |")


if __name__ == "__main__":
    main()
