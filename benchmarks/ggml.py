"""Matrix products as llama.cpp computes them: ggml, by ctypes, from the library that the package xllamacpp installs.

The threads stay between products, as when llama.cpp generates a token.
"""

from __future__ import annotations

import ctypes
import functools
import weakref
from collections.abc import Sequence
from ctypes import POINTER, Structure, byref, c_bool, c_char_p, c_int, c_int64, c_size_t, c_void_p
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

F32, Q4_0, Q8_0 = 0, 2, 8  # ggml_type
BLOCK = 32  # numbers that share a scale
BYTES = {Q4_0: 18, Q8_0: 34}  # of a block
FEATURES = ("avx2", "avx512", "avx512_vnni", "avx512_bf16", "avx_vnni", "neon", "dotprod", "matmul_int8")


class _InitParams(Structure):
    _fields_ = [("size", c_size_t), ("buffer", c_void_p), ("no_alloc", c_bool)]


class _ThreadpoolParams(Structure):
    _fields_ = [
        ("cpumask", c_bool * 512),
        ("n_threads", c_int),
        ("priority", c_int),
        ("poll", ctypes.c_uint32),
        ("strict_cpu", c_bool),
        ("paused", c_bool),
    ]


def is_installed() -> bool:
    return find_spec("xllamacpp") is not None


def folders() -> list[Path]:
    """Where a process finds the package that this one has found."""
    found = find_spec("xllamacpp")
    return [] if found is None or found.origin is None else [Path(found.origin).parents[1]]


@functools.cache
def library() -> Any:
    """The library with the types of its functions; raises ModuleNotFoundError where xllamacpp is not installed."""
    found = find_spec("xllamacpp")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("to compare with llama.cpp: pip install xllamacpp")
    (path,) = Path(found.origin).parent.glob("xllamacpp*.so")
    lib = ctypes.CDLL(str(path))
    pointer, size = c_void_p, c_size_t
    for name, result, *arguments in [
        ("ggml_init", pointer, _InitParams),
        ("ggml_free", None, pointer),
        ("ggml_new_tensor_2d", pointer, pointer, c_int, c_int64, c_int64),
        ("ggml_mul_mat", pointer, pointer, pointer, pointer),
        ("ggml_new_graph", pointer, pointer),
        ("ggml_build_forward_expand", None, pointer, pointer),
        ("ggml_quantize_chunk", size, c_int, pointer, pointer, c_int64, c_int64, c_int64, pointer),
        ("ggml_backend_cpu_init", pointer),
        ("ggml_backend_cpu_set_n_threads", None, pointer, c_int),
        ("ggml_backend_cpu_set_threadpool", None, pointer, pointer),
        ("ggml_backend_cpu_buffer_type", pointer),
        ("_Z35ggml_backend_cpu_repack_buffer_typev", pointer),
        ("ggml_backend_alloc_ctx_tensors", pointer, pointer, pointer),
        ("ggml_backend_alloc_ctx_tensors_from_buft", pointer, pointer, pointer),
        ("ggml_backend_buffer_free", None, pointer),
        ("ggml_backend_free", None, pointer),
        ("ggml_backend_tensor_set", None, pointer, pointer, size, size),
        ("ggml_backend_tensor_get", None, pointer, pointer, size, size),
        ("ggml_backend_graph_compute", c_int, pointer, pointer),
        ("ggml_threadpool_params_default", _ThreadpoolParams, c_int),
        ("ggml_threadpool_new", pointer, POINTER(_ThreadpoolParams)),
        ("ggml_threadpool_free", None, pointer),
        ("ggml_commit", c_char_p),
        *((f"ggml_cpu_has_{feature}", c_int) for feature in FEATURES),
    ]:
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


def description() -> str:
    """Which ggml this is, and what of the machine it uses."""
    lib = library()
    used = [f for f in FEATURES if getattr(lib, f"ggml_cpu_has_{f}")()]
    return f"ggml {lib.ggml_commit().decode()} with {', '.join(used) or 'plain instructions'}"


def quantized(weights: np.ndarray, kind: int) -> np.ndarray:
    """Weights (N, K) in f32 as the bytes of ggml's blocks."""
    n, k = weights.shape
    weights = np.ascontiguousarray(weights, np.float32)
    out = np.empty(n * k // BLOCK * BYTES[kind], np.uint8)
    library().ggml_quantize_chunk(kind, weights.ctypes.data, out.ctypes.data, 0, n, k, None)
    return out


class Products:
    """The products of x (M, K) in f32 with each of several weights (N, K), a graph each.

    weights: their blocks, of the type `kind`, as `quantized` makes them.
    """

    def __init__(self, kind: int, x: np.ndarray, n: int, weights: Sequence[np.ndarray], threads: int) -> None:
        lib = self.lib = library()
        m, k = x.shape
        self.shape = (m, n)
        self.backend = lib.ggml_backend_cpu_init()
        pool = lib.ggml_threadpool_new(byref(lib.ggml_threadpool_params_default(threads)))
        lib.ggml_backend_cpu_set_n_threads(self.backend, threads)
        lib.ggml_backend_cpu_set_threadpool(self.backend, pool)
        given, made = (lib.ggml_init(_InitParams(1 << 22, None, True)) for _ in range(2))
        matrices = [lib.ggml_new_tensor_2d(given, kind, k, n) for _ in weights]
        buffers = [lib.ggml_backend_alloc_ctx_tensors_from_buft(given, _place(kind))]
        source = lib.ggml_new_tensor_2d(made, F32, k, m)
        self.results = [lib.ggml_mul_mat(made, matrix, source) for matrix in matrices]
        self.graphs = [lib.ggml_new_graph(made) for _ in weights]
        for graph, result in zip(self.graphs, self.results):
            lib.ggml_build_forward_expand(graph, result)
        buffers.append(lib.ggml_backend_alloc_ctx_tensors(made, self.backend))
        for matrix, blocks in zip(matrices, weights):
            lib.ggml_backend_tensor_set(matrix, blocks.ctypes.data, 0, blocks.nbytes)
        x = np.ascontiguousarray(x, np.float32)
        lib.ggml_backend_tensor_set(source, x.ctypes.data, 0, x.nbytes)
        weakref.finalize(self, _free, lib, self.backend, pool, [given, made], buffers)

    def compute(self, index: int) -> None:
        status = self.lib.ggml_backend_graph_compute(self.backend, self.graphs[index])
        if status:
            raise RuntimeError(f"ggml could not compute a product (status {status})")

    def result(self, index: int) -> np.ndarray:
        """x @ weights[index].T, of what was computed last."""
        out = np.empty(self.shape, np.float32)
        self.lib.ggml_backend_tensor_get(self.results[index], out.ctypes.data, 0, out.nbytes)
        return out


def _place(kind: int) -> Any:
    """The buffers that llama.cpp chooses for weights: with rows interleaved, where it has code for that on x86-64."""
    lib = library()
    return (
        lib._Z35ggml_backend_cpu_repack_buffer_typev() if kind == Q4_0 else lib.ggml_backend_cpu_buffer_type()
    )


def _free(lib: Any, backend: Any, pool: Any, contexts: Sequence[Any], buffers: Sequence[Any]) -> None:
    for buffer in buffers:
        lib.ggml_backend_buffer_free(buffer)
    for context in contexts:
        lib.ggml_free(context)
    lib.ggml_backend_free(backend)
    lib.ggml_threadpool_free(pool)
