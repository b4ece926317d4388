"""JAX's own Pallas kernels for Hopper as a peer of benchmarks/gpu.py: Mosaic GPU, with the tiles that suit it best."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from statistics import median
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch needs memory too

RUNS = 15


def seconds(kind: str, **sizes: Any) -> float:
    """The time of JAX's kernel for a row: products in bf16, attention in f16, the only type that it takes.

    Raises ImportError without JAX on a GPU, and ValueError where JAX refuses.
    """
    import jax

    if jax.default_backend() != "gpu":
        raise ImportError("JAX finds no GPU")
    from jax.experimental.mosaic.gpu import profiler

    arrays, functions = (_matmul if kind == "matmul" else _attention)(**sizes)
    times: list[float] = []
    refused = ValueError("nothing was measured")
    for function in functions:
        try:
            _, runtimes = profiler.measure(function, iterations=RUNS)(*arrays)
        except ValueError as error:  # such as more shared memory than there is
            refused = error
            continue
        if runtimes is not None:
            times.append(median([runtimes] if isinstance(runtimes, float) else runtimes) / 1e3)
    if not times:
        raise refused
    return min(times)


def _normal(dtype: str, *shape: int) -> Any:
    import jax

    return jax.random.normal(jax.random.key(len(shape) + shape[-1]), shape, dtype)


def _matmul(n: int) -> tuple[tuple[Any, ...], Iterator[Any]]:
    from jax.experimental.pallas.ops.gpu import hopper_matmul_mgpu as mgpu

    D = mgpu.MatmulDimension
    configs = (
        mgpu.TuningConfig(tm, tn, 64, 4, grid_minor_dim=minor, grid_tile_width=width, wg_dimension=wg)
        for tm, tn, wg in ((128, 128, D.N), (128, 128, D.M), (64, 256, D.M))
        for minor in (D.M, D.N)
        for width in (8, 16)
    )
    return (_normal("bfloat16", n, n), _normal("bfloat16", n, n), None), (
        functools.partial(mgpu.matmul, config=c) for c in configs
    )


def _attention(B: int, H: int, S: int, D: int, causal: bool) -> tuple[tuple[Any, ...], Iterator[Any]]:
    from jax.experimental.pallas.ops.gpu import attention_mgpu as mgpu

    configs = (mgpu.TuningConfig(64, keys, 2, causal=causal) for keys in (256, 128, 64))
    arrays = tuple(_normal("float16", B, S, H, D) for _ in range(3))
    return arrays, (functools.partial(mgpu.attention, config=c) for c in configs)
